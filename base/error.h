/* SPDX-License-Identifier: Apache-2.0 */
/*
 * error.h - what went wrong, in words for the person who has to mend it
 *
 * Every function that can fail returns 0 or a negative errno. Where an operator will read
 * the failure, the function also fills a caller-owned struct error. The errno decides the
 * exit code of deployctl and the status of an HTTP reply:
 *
 *   -EINVAL                    usage          exit 2
 *   -ENOENT                    not-found      exit 3
 *   -EEXIST -EBUSY             conflict       exit 4
 *   -ECONNREFUSED              unreachable    exit 5   (the daemon; ctl only)
 *   -EBADMSG                   verification   exit 6
 *   -ENOSPC -EDQUOT            no-space       exit 7
 *   -EALREADY                  unchanged      exit 77
 *   -EACCES -EPERM             forbidden      exit 1
 *   -ECANCELED                 cancelled      exit 1
 *   anything else              failed         exit 1
 */
#pragma once

#define ERROR_TEXT_MAX 1024

struct error {
	int code;                  /* negative errno; 0: nothing went wrong */
	char text[ERROR_TEXT_MAX]; /* lower case, no newline: what, on what, why, what to
				      do */
};

/**
 * error_set() - describe a failure
 * @err:  filled; may be NULL
 * @code: negative errno
 * @format: printf format, lower case, names in 'quotes', no full stop at the end. Control
 *          characters, and bytes that are not UTF-8, are replaced by '?', a text that is
 * too long is cut.
 *
 * Return: @code, so that `return error_set(err, -ENOENT, ...)` reads well.
 */
int error_set(struct error *err, int code, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/**
 * error_name() - the stable word for an errno, as in the table above
 * @code: negative errno
 *
 * Return: a static string.
 */
const char *error_name(int code);

/** error_exit() - the exit code for the stable word @name; 1 for an unknown one */
int error_exit(const char *name);

/** error_from_name() - the negative errno that stands for the word @name; -EIO if unknown
 */
int error_from_name(const char *name);

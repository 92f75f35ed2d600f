/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stripped.h - what entries have and a package does not keep: counted, told once a kind
 */
#pragma once

#include "archive.h"

#include <stdint.h>

struct archive_entry; /* libarchive's */

enum stripped_kind {
	STRIPPED_SETID,
	STRIPPED_STICKY,
	STRIPPED_CAPABILITY,
	STRIPPED_XATTR,
	STRIPPED_ACL,
	STRIPPED_FLAGS,
	STRIPPED_COUNT,
};

/** All zero: nothing was stripped. */
struct stripped {
	struct {
		uint64_t count;
		char *first; /* the first entry's path; owned */
	} kinds[STRIPPED_COUNT];
};

/**
 * stripped_note() - count what @entry has beyond a type, a name, permissions and a time
 * @path: its checked path, for the warning; "" is the root
 *
 * Return: 0; -ENOMEM.
 */
int stripped_note(struct stripped *stripped, struct archive_entry *entry,
		  const char *path);

/** stripped_tell() - one warning a kind, and begin anew; @warning may be NULL */
void stripped_tell(struct stripped *stripped, archive_warning_fn *warning, void *context);

/** stripped_done() - free what is owned */
void stripped_done(struct stripped *stripped);

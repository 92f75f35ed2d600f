/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inherit.h - descriptors with names, handed from process to process
 *
 * "state=3,bell=4,api=5": what follows --inherit, what <runtime>/holder says, and in
 * systemd's FDSTORE the same names.
 */
#pragma once

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define INHERIT_MAX       160
#define INHERIT_NAME      16
#define INHERIT_TEXT_SIZE (INHERIT_MAX * (INHERIT_NAME + 12))

struct inherit {
	struct {
		char name[INHERIT_NAME];
		int fd; /* close-on-exec, but see inherit_pass() */
	} entries[INHERIT_MAX];
	size_t count;
};

/** inherit_add() - @fd becomes the list's. Return: 0; -E2BIG. */
int inherit_add(struct inherit *list, const char *name, int fd);

/** inherit_find() - the descriptor, which stays the list's; -ENOENT */
int inherit_find(const struct inherit *list, const char *name);

/** inherit_drop() - close and forget; nothing where the name is unknown */
void inherit_drop(struct inherit *list, const char *name);

/** inherit_format() - as text; returns @text */
const char *inherit_format(const struct inherit *list,
			   char text[static INHERIT_TEXT_SIZE]);

/**
 * inherit_parse() - the list from text
 * @pid: 0: they are open here under these numbers; else copies are taken from this
 * process, which needs the right to trace it
 *
 * Return: 0; -EINVAL malformed; -EBADF one is not open; what pidfd_getfd(2) gives.
 */
int inherit_parse(struct inherit *list, const char *text, pid_t pid);

/** inherit_pass() - whether all survive the next execve(2) of this process */
void inherit_pass(const struct inherit *list, bool pass);

/** inherit_done() - close all */
void inherit_done(struct inherit *list);

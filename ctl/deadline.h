/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deadline.h - doing in a child what may never come back
 *
 * A system call on a mount whose daemon hangs cannot be interrupted, not even by SIGKILL.
 * The child that makes it is left behind then, with none of our descriptors.
 */
#pragma once

#include <stddef.h>

#define DEADLINE_MS 3000 /* what is not answered by then hangs */

/**
 * deadline_run() - call @function in a child
 * @function: returns 0 or a positive errno; only async-signal-safe in spirit: no locks,
 *            no output
 *
 * Return: what it returned, negated; -ETIMEDOUT after @ms; -EIO when the child died; what
 * fork(2) gave.
 */
int deadline_run(int (*function)(void *context), void *context, unsigned ms);

/** deadline_statfs() - whether a file system answers: 0, -ETIMEDOUT, or what statfs(2)
 * gave; -ENOTCONN: its daemon is gone */
int deadline_statfs(const char *path, unsigned ms);

/**
 * deadline_program() - run a program
 * @argv: the last one NULL; looked for on PATH
 * @text: what it wrote on stdout and stderr, without the last newline, cut to @size
 *
 * Return: its exit status; -ETIMEDOUT, it was killed then; -ENOENT; -EIO.
 */
int deadline_program(const char *const *argv, char *text, size_t size, unsigned ms);

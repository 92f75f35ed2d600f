/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resident.h - what of a mounted tree the kernel has in memory
 *
 * The kernel is asked and not a record of ours: it knows over restarts of the daemon, and
 * it knows what it has given back. Asking sends no request to whoever serves the tree.
 */
#pragma once

#include <stdint.h>

/**
 * resident_open() - open a name, if the kernel knows all of its path
 * @folder: a descriptor, O_PATH is enough
 * @path:   below it, without symlinks and mount points on the way
 * @flags:  of open(2)
 *
 * Return: a descriptor; -EAGAIN it does not, or something just moved on the way; -ENOENT;
 * -EOPNOTSUPP before Linux 5.12; the negative errno of openat2(2).
 */
int resident_open(int folder, const char *path, int flags);

/**
 * resident_each() - the ranges of a regular file that are in memory
 * @size: of the file; 0 has no range
 * @each: called in order with whole pages, but for the file's end; returns 0 to go on
 *
 * Return: 0; what @each returned; the negative errno of mmap(2) or mincore(2).
 */
int resident_each(int fd, uint64_t size,
		  int (*each)(void *context, uint64_t offset, uint64_t size),
		  void *context);

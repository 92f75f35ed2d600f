/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holders.h - who uses a mounted file system
 *
 * Reads /proc only, never the file system itself: a hung mount cannot hang us.
 */
#pragma once

#include "procfs.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum holder_how {
	HOLDER_DIRECTORY, /* working directory */
	HOLDER_PROGRAM,
	HOLDER_ROOT,
	HOLDER_OPEN,
	HOLDER_MAPPED,
	HOLDER_BOUND, /* a bind of a part in its mount namespace */
};

/** One use of the file system. */
struct holder {
	pid_t pid;
	char name[PROCESS_NAME_SIZE];
	char container[PROCESS_CONTAINER_SIZE]; /* "": in none */
	enum holder_how how;
	const char *path;  /* in the file system, "/shop/1.0/bin"; "": not known. What is
			      gone may end in "//deleted" or " (deleted)" */
	const char *point; /* where it is bound; NULL but for HOLDER_BOUND */
};

typedef void holder_fn(void *context, const struct holder *holder);

/**
 * holders_each() - tell every use by a process, and every bind of a part
 * @device: of the file system
 * @each:   may be called many times for one process; the strings hold during the call
 *
 * A file that two versions share is one inode: the path by which it was opened is all
 * that tells them apart. Of each mount namespace one process stands for the binds in it.
 * Not seen: what an overlay holds as a lower layer, and a process that has changed its
 * root to within the file system in a namespace of its own.
 */
void holders_each(dev_t device, holder_fn *each, void *context);

/** holder_how() - "working directory", "bind mount at '/app'" into @text */
void holder_how(const struct holder *holder, char *text, size_t size);

/**
 * holders_find() - processes with an open file, mapping, working directory, root or
 * program on it
 * @device: of the file system
 * @text:   filled with "pid 123 (nginx) in container 0123456789ab: working directory; …",
 * the first ten; "" when there are none
 *
 * Return: how many processes.
 */
size_t holders_find(dev_t device, char *text, size_t size);

/**
 * holders_binds() - mount namespaces that have bound it, or a part, which would die with
 * it
 * @base_device, @base_root: of the mount that ours is mounted on
 *
 * Where it comes with a copy of the base (propagation, a copied namespace) it is none.
 * @text, return: as above.
 */
size_t holders_binds(dev_t device, dev_t base_device, const char *base_root, char *text,
		     size_t size);

/** holders_inside() - whether a mount anywhere shows a version of an application, or a
 * part of it */
bool holders_inside(dev_t device, const char *app, const char *version);

/**
 * holders_over() - mounts on a directory or file of a version
 *
 * The kernel detaches them when the version's name goes. @text, return: as above.
 */
size_t holders_over(dev_t device, const char *app, const char *version, char *text,
		    size_t size);

/** holders_slaves() - whether a mount anywhere is a slave or another peer of a peer group
 */
bool holders_slaves(unsigned group);

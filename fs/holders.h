/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holders.h - who uses a mounted file system
 *
 * Reads /proc only, never the file system itself: a hung mount cannot hang us.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

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

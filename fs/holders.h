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
 * holders_binds() - mount namespaces that have bound a part of it, which would die with
 * it
 *
 * A copy that follows our own mount by propagation is none. @text, return: as above.
 */
size_t holders_binds(dev_t device, char *text, size_t size);

/** holders_slaves() - whether a mount anywhere is a slave or another peer of a peer group
 */
bool holders_slaves(unsigned group);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * own_lookup.h - look up a path in our own mount
 */
#pragma once

/**
 * own_lookup() - have the kernel look up what it may have forgotten
 * @path: in a mount that this process serves
 *
 * Blocks until one of the threads that serve has answered: never from one of those.
 *
 * Return: 0 there is something; -ENOENT there is nothing; -EAGAIN without a thread to
 * ask.
 */
int own_lookup(const char *path);

/** own_open() - open a file and close it again; return: 0, or as own_lookup() */
int own_open(const char *path);

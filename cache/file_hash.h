/* SPDX-License-Identifier: Apache-2.0 */
/*
 * file_hash.h - the SHA-256 of a file that grows, behind the back of who writes it
 *
 * A thread reads what was written, out of the page cache, and hashes it: receiving and
 * hashing take place at once, and what was hashed is what the file has. The file itself
 * is the buffer between the two, so that the memory does not depend on who is faster.
 */
#pragma once

#include "digest.h"

#include <stdint.h>

#define FILE_HASH_PIECE (256 * 1024) /* bytes of memory */

struct file_hash;

/**
 * file_hash_new() - of a file that has no byte yet
 * @fd: readable, borrowed until file_hash_free()
 * Return: 0; -ENOMEM; -EAGAIN: no thread can be had.
 */
int file_hash_new(int fd, struct file_hash **ret);

/** file_hash_free() - NULL is allowed */
void file_hash_free(struct file_hash *hash);

/** file_hash_grown() - the first @size bytes are there and stay; never waits */
void file_hash_grown(struct file_hash *hash, uint64_t size);

/** file_hash_reset() - nothing is there any more: before the file is cut */
void file_hash_reset(struct file_hash *hash);

/** Told from time to time of @bytes that are hashed. */
typedef void file_hash_tick_fn(void *context, uint64_t bytes);

/**
 * file_hash_sum() - the SHA-256 of all that is there, which may grow on
 * @tick: called while the thread has not caught up; may be NULL
 *
 * Waits for the thread. Return: 0; -ENOMEM; -ENODATA: the file is shorter; the negative
 * errno of pread(2).
 */
int file_hash_sum(struct file_hash *hash, file_hash_tick_fn *tick, void *context,
		  unsigned char ret[static SHA256_SIZE]);

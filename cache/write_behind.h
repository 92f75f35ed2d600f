/* SPDX-License-Identifier: Apache-2.0 */
/*
 * write_behind.h - a file written by a thread of its own, one buffer behind who fills
 * them
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define WRITE_BEHIND_SIZE ((size_t)4 << 20) /* bytes of each of the two buffers */

struct write_behind;

/** write_behind_new() - start the thread; @fd: borrowed. Return: 0; -ENOMEM; -EAGAIN. */
int write_behind_new(int fd, struct write_behind **ret);

/** write_behind_buffer() - the buffer to fill: WRITE_BEHIND_SIZE bytes, until it is put
 */
char *write_behind_buffer(const struct write_behind *behind);

/**
 * write_behind_put() - hand the buffer over; the other one is to be filled now
 * @size, @offset: what of it is to be written, and where
 * @stays: what lies before this offset of the file stays there: the disk may begin with
 * it
 *
 * Blocks until the buffer that was put before is in the file.
 *
 * Return: 0; the failure of an earlier write.
 */
int write_behind_put(struct write_behind *behind, size_t size, uint64_t offset,
		     uint64_t stays);

/** write_behind_wait() - until all that was put is in the file. Return: 0; its failure.
 */
int write_behind_wait(struct write_behind *behind);

/** write_behind_free() - end the thread; what is not written need not be. NULL: allowed
 */
void write_behind_free(struct write_behind *behind);

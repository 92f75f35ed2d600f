/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unpack_ahead.h - a decompressor in a thread of its own, ahead of who reads
 *
 * Holds 2 MiB of what was unpacked and not yet read, at most.
 */
#pragma once

#include "decompress.h"

struct unpack_ahead;

/**
 * unpack_ahead_new() - start the thread
 * @from: borrowed; the thread's alone until unpack_ahead_free()
 *
 * Return: 0; -ENOMEM; -EAGAIN: no more threads.
 */
int unpack_ahead_new(struct decompressor *from, struct unpack_ahead **ret,
		     struct error *err);

/**
 * unpack_ahead_read() - the next piece; blocks until there is one
 * @ret_data: holds until the next call
 * Return: as decompressor_read(), the same pieces and the same failure in their order.
 */
int unpack_ahead_read(struct unpack_ahead *ahead, const void **ret_data, size_t *ret_size,
		      struct error *err);

/** unpack_ahead_consumed() - bytes of the file behind the pieces that were given out */
uint64_t unpack_ahead_consumed(const struct unpack_ahead *ahead);

/** unpack_ahead_free() - end the thread; the source of @from was stopped. NULL is allowed
 */
void unpack_ahead_free(struct unpack_ahead *ahead);

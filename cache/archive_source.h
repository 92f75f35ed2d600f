/* SPDX-License-Identifier: Apache-2.0 */
/*
 * archive_source.h - where the bytes of a package come from: a file that may still grow
 */
#pragma once

#include "error.h"

#include <stdint.h>

/** A file that is all there: { .fd = fd }. Whoever sets @wait sets @stop. */
struct archive_source {
	int fd; /* readable, seekable, borrowed; its own offset is left alone */

	/**
	 * wait() - wait until the file has bytes behind @offset, or will never have any
	 * @ret_end: bytes that the file has, from 0: more than @offset; at most @offset
	 * when that is all of it, for good
	 *
	 * NULL: the file has its size, and does not change. Called by one thread at a
	 * time, not always by the one that opened the archive. What lies before *@ret_end
	 * must not change any more.
	 *
	 * Return: 0; a negative errno and its text, which the reader hands on.
	 */
	int (*wait)(void *context, uint64_t offset, uint64_t *ret_end, struct error *err);

	/**
	 * stop() - nobody needs more of the file: a wait() under way, and all after it,
	 * return soon, with -ECANCELED where nothing is there
	 *
	 * Called by another thread than the one that waits; may be called more than once.
	 */
	void (*stop)(void *context);
	void *context;
};

/** archive_source_wait() - wait(), or the size of a file that is all there; as wait() */
int archive_source_wait(const struct archive_source *source, uint64_t offset,
			uint64_t *ret_end, struct error *err);

/** archive_source_stop() - stop(), if there is anything to stop */
void archive_source_stop(const struct archive_source *source);

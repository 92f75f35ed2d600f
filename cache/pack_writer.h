/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack_writer.h - make a pack: bodies first, each stored once, then the metadata
 */
#pragma once

#include "manifest.h"
#include "pack.h"

struct pack_writer;

/**
 * pack_writer_find_fn() - where the store may already have some content
 * @max, @ret: at most this many candidates; each a reference to a loaded pack, the
 * callee's to pack_unref() Return: how many; a negative errno.
 */
struct pack_candidate {
	struct pack *pack;
	uint32_t object;
};
typedef int pack_writer_find_fn(void *context, const struct checksum *content, size_t max,
				struct pack_candidate *ret);

/**
 * pack_writer_new() - begin a pack
 * @fd:   an empty file, open for reading and writing; borrowed
 * @find: may be NULL
 */
struct pack_writer *pack_writer_new(int fd, pack_writer_find_fn *find, void *context);
void pack_writer_free(struct pack_writer *writer);

/**
 * pack_writer_begin() - a body of @size bytes
 * pack_writer_data() - a piece of it; pieces come in order, gaps are holes
 * pack_writer_end() - the body is complete; *@ret says where it lies
 *
 * Content that the store or this pack has already is not stored again: a candidate of the
 * same hash is compared byte by byte (I6). A body up to 1 MiB is compared before it is
 * written; a larger one is written and taken back.
 *
 * Return: 0; -ENOSPC and what else pwrite(2) gives; -EBADMSG for a piece outside the
 * body; -ENOMEM.
 */
int pack_writer_begin(struct pack_writer *writer, uint64_t size);
int pack_writer_data(struct pack_writer *writer, const void *data, size_t size,
		     uint64_t offset);
int pack_writer_end(struct pack_writer *writer, struct body *ret);

/** pack_writer_stored() - bytes of bodies so far, without what was there before */
uint64_t pack_writer_stored(const struct pack_writer *writer);

/**
 * pack_writer_finish() - write the metadata and a header without id and first_node
 * @meta:   nodes, dirs, entries, deps and names
 * @header: app, version, origin, package_sha256, package_size, created_ns are the
 * caller's; the rest is filled here
 *
 * Not durable: the worker does that once for all. Return: as pack_writer_end().
 */
int pack_writer_finish(struct pack_writer *writer, const struct pack_meta *meta,
		       struct pack_header *header);

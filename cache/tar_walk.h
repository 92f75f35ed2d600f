/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tar_walk.h - a second look at a tar's structure, beside libarchive's
 *
 * The walk is fed every byte that libarchive is fed and follows headers and sizes only.
 * It knows what libarchive 3.6 does not tell: the type flag (volume labels and directory
 * dumps come out as nothing or as directories), names before libarchive brings them to
 * Unicode's form C, whether the end marker is there, and what follows it. Where the two
 * do not agree about where an entry begins, the archive is refused.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tar_walk;

/** One entry, with the special headers before it. The strings belong to its holder. */
struct tar_record {
	uint64_t start;      /* of the first header block, in the stream */
	uint64_t size;       /* bytes stored in the archive after the headers */
	char *path;          /* from a pax header, not empty; else NULL */
	char *link;          /* the same */
	const char *problem; /* static words that fit after the name; NULL for none */
	char type;           /* the type flag */
	bool unknown;        /* the problem is the type: name it */
	char name[101];      /* the header's own, for messages */
};

/** tar_walk_new() - NULL when out of memory */
struct tar_walk *tar_walk_new(void);
void tar_walk_free(struct tar_walk *walk);

/**
 * tar_walk_feed() - the next bytes of the stream
 * Return: 0; -ENOMEM. What is wrong in the stream is told by the next two functions.
 */
int tar_walk_feed(struct tar_walk *walk, const void *data, size_t size);

/**
 * tar_walk_next() - take the oldest record that was not taken yet
 * @ret: the caller's to tar_record_done(); untouched when false is returned
 * After a record with a problem there are no more.
 */
bool tar_walk_next(struct tar_walk *walk, struct tar_record *ret);

/** tar_record_done() - free the strings, leave an empty record */
void tar_record_done(struct tar_record *record);

/**
 * tar_walk_end_problem() - whether the stream may end here
 * Return: NULL; or what is wrong with it, a static sentence.
 */
const char *tar_walk_end_problem(const struct tar_walk *walk);

/** tar_walk_is_stopped() - whether more bytes cannot change what was found */
bool tar_walk_is_stopped(const struct tar_walk *walk);

/** tar_walk_block_check() - whether 512 bytes are a tar header or a block of zeros */
bool tar_walk_block_check(const void *block);

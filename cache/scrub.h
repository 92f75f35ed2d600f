/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scrub.h - read a pack from the disk, past all caches, and compare it with its checksums
 *
 * Nobody shall notice: the calling thread reads in the idle I/O class, 256 KiB at a time,
 * with O_DIRECT, so that it pushes nothing out of the page cache. Metadata is loaded
 * beside that of the store's own packs and freed afterwards.
 */
#pragma once

#include "error.h"
#include "store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** How a scrub is slowed down and stopped. */
struct scrub_pace {
	/* @bytes were read; returns 0 to go on, a negative errno to end with it */
	int (*step)(void *context, uint64_t bytes);
	void *context;
};

struct bad_block {
	uint32_t object;
	uint32_t block; /* of the object's, from 0 */
};

/** The parts of a pack beside its bodies, as bits. */
enum scrub_part {
	SCRUB_HEADER = 1,
	SCRUB_META = 2,
	SCRUB_META_COPY = 4,
	SCRUB_HEADER_COPY = 8,
};

struct scrub {
	struct store own; /* the store with a pack set of our own */
	struct store *store;
	struct scrub_pace pace;
	uint64_t id;
	struct pack
		*pack; /* loaded, a reference; NULL: it cannot be loaded, or is gone */
	bool *live;    /* a byte an object; NULL: all */
	struct bad_block *bad;
	size_t bad_count, bad_room;
	unsigned parts;        /* damaged ones, enum scrub_part */
	struct error hopeless; /* why it cannot be loaded; code 0: it can */
	uint64_t blocks;       /* that were compared */
};

/** scrub_init() - nothing is read yet. @pace: may be NULL. */
void scrub_init(struct scrub *scrub, struct store *store, uint64_t pack,
		const struct scrub_pace *pace);
void scrub_done(struct scrub *scrub); /* clean-up function */

/**
 * scrub_run() - compare everything in the pack that is still used
 *
 * Takes as long as the disk does. What the store frees meanwhile looks like damage: a
 * finding counts only after scrub_again().
 *
 * Return: 0, with the findings in @scrub; what @pace gives; -ENOMEM; the catalog's.
 */
int scrub_run(struct scrub *scrub, struct error *err);

/**
 * scrub_again() - compare what was found once more, and leave out what is not used any
 * more
 *
 * The caller keeps the store from being swept. What is still damaged is not trusted any
 * more by readers who found it right earlier (I7). Return: as scrub_run().
 */
int scrub_again(struct scrub *scrub, struct error *err);

/** scrub_found() - whether anything is damaged */
bool scrub_found(const struct scrub *scrub);

/** scrub_text() - what is damaged, for an operator; "" when nothing is; returns @text */
const char *scrub_text(const struct scrub *scrub, char *text, size_t size);

/**
 * scrub_users() - the packs of versions that show what is damaged
 * @ret: malloc()ed, the caller's; NULL: all that need the pack, for all that is known
 */
int scrub_users(struct scrub *scrub, uint64_t **ret, size_t *ret_count,
		struct error *err);

/** scrub_block_size() - bytes of a block; the last one of an object may be short */
size_t scrub_block_size(const struct pack_object *object, uint32_t block);

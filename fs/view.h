/* SPDX-License-Identifier: Apache-2.0 */
/*
 * view.h - what apps/ shows: names, channels and ids in memory, packs below
 *
 *   1            the root: one directory an application, and .deployfs/
 *   2            .deployfs/: status.json, version
 *   app node     an application: one directory a version, one symlink a channel
 *   leaf node    a channel symlink, or a file of .deployfs/; a new id at every change,
 * the old one goes on saying what it said pack nodes   everything inside a version
 * (pack.h)
 *
 * The FUSE callbacks read it, changes come from the catalog after their commit. A reader
 * holds the lock for a look-up in memory only; packs are used by reference, without it.
 * Blocks on the local disk where a pack is touched for the first time, on nothing else
 * (I1).
 */
#pragma once

#include "catalog.h"
#include "pack.h"

#include <stdbool.h>
#include <stdint.h>

#define VIEW_ROOT   1
#define VIEW_STATUS 2 /* .deployfs/ */

struct view;

/** view_new() - NULL when out of memory; @packs is borrowed */
struct view *view_new(struct pack_set *packs);
void view_free(struct view *view);

/** view_apply() - show a change. Return: 0; -ENOMEM with nothing changed. */
int view_apply(struct view *view, const struct change *change);

/** view_remember() - a leaf id that was given out before; answered but not listed */
int view_remember(struct view *view, const struct change *change);

/** view_stat() - attributes of a node. Return: 0; -ESTALE no such id; -EIO a damaged
 * pack. */
int view_stat(struct view *view, uint64_t node, struct pack_stat *ret);

/** view_lookup() - a name in a directory. Return: 0; -ENOENT; as view_stat(). */
int view_lookup(struct view *view, uint64_t parent, const char *name,
		struct pack_stat *ret);

/**
 * view_read() - bytes of a file, or a symlink's target
 * @buffer: PACK_READ_BUFFER bytes; @ret_data points into it
 * Return: 0, *@ret_size being 0 at the end; -ESTALE; -EISDIR; -EIO.
 */
int view_read(struct view *view, uint64_t node, uint64_t offset, size_t size,
	      void *buffer, const void **ret_data, size_t *ret_size);

/** One entry of a listing. */
struct view_entry {
	const char *name;
	uint64_t node;
	uint8_t type;  /* DT_DIR, DT_REG, DT_LNK */
	uint64_t next; /* offset behind it; stays right when other names come and go */
	bool has_stat; /* attributes were at hand */
	struct pack_stat stat;
};

/**
 * view_list() - the entries of a directory behind an offset, "." and ".." too
 * @plus: whether attributes are wanted
 * @each: called without a lock; returns false to end
 * Return: 0; -ESTALE; -ENOTDIR; -EIO.
 */
int view_list(struct view *view, uint64_t node, uint64_t offset, bool plus,
	      bool (*each)(void *context, const struct view_entry *entry), void *context);

/** view_counts() - how many applications and versions are shown */
void view_counts(struct view *view, uint64_t *ret_apps, uint64_t *ret_versions);

/** view_memory_bytes() - what view_read() has answered from memory so far: channels and
 * .deployfs/ */
uint64_t view_memory_bytes(const struct view *view);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index.h - which content and which nodes the store already has
 *
 * A table of hashes, derived from the packs and only a hint: what it names is looked at
 * and compared byte by byte before it is shared (I6). Where it is lost it is made again
 * from the packs. A database of its own, so that filling it never keeps a flip waiting.
 */
#pragma once

#include "digest.h"
#include "error.h"
#include "pack.h"

struct index;

/**
 * index_open() - open, and make where it is missing and @writable
 * @path: of index.db
 * A damaged or foreign file is replaced by an empty one when @writable; otherwise nothing
 * is found in it.
 * Return: 0; -EIO with SQLite's reason; -ENOMEM.
 */
int index_open(const char *path, bool writable, struct index **ret, struct error *err);
void index_close(struct index *index);

/** index_is_damaged() - whether it is to be renewed: a statement has failed by damage, or
 * would */
bool index_is_damaged(struct index *index);

/**
 * index_renew() - throw away what is in it
 * Its files are unlinked: who reads them goes on with the old ones. Return: 0, also when
 * there is no room for a new one now: then it is empty, and made by the next index_add();
 * a negative errno when the old one cannot be removed.
 */
int index_renew(struct index *index, struct error *err);

/** index_empty() - whether it holds nothing, so that it must be filled again */
bool index_empty(struct index *index);

/**
 * index_hold() - all look-ups until index_release() see the index as it is now
 * They then lock nothing, which each look-up does else, by several system calls. Nothing
 * may be added or removed by this connection meanwhile.
 */
void index_hold(struct index *index);
void index_release(struct index *index);

/** Where some content may lie. */
struct index_object {
	uint64_t pack;
	uint32_t object;
};

/**
 * index_find_objects() - candidates for a content, newest packs first
 * Return: how many of @ret were filled, at most @max; a negative errno.
 */
int index_find_objects(struct index *index, const struct checksum *content, size_t max,
		       struct index_object *ret);

/**
 * index_find_node() - the next node with an identity
 * @after: node ids up to this one are passed over
 * Return: 1 with *@ret set; 0 when there is none; a negative errno.
 */
int index_find_node(struct index *index, const struct checksum *identity, uint64_t after,
		    uint64_t *ret);

/**
 * index_add() - all objects and nodes of a loaded pack
 * Durable when it returns. In several transactions: readers go on meanwhile.
 */
int index_add(struct index *index, const struct pack *pack, struct error *err);

/**
 * index_remove() - objects and nodes of a loaded pack that must not be shared any more
 * @object_live, @node_live: one byte each object and node; those with 0 are removed
 */
int index_remove(struct index *index, const struct pack *pack, const bool *object_live,
		 const bool *node_live, struct error *err);

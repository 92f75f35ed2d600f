/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All packs of a store, in order of their ids, which is the order of their node ranges
 * too. A pack of the set holds one reference of it; a loaded pack holds one of each dep,
 * and deps are always older, so no circle can arise.
 */
#include "pack_set.h"

#include "cleanup.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

struct pack_set {
	char *directory;
	pthread_mutex_t
		load; /* one load at a time; no other lock is taken under it but `lock` */
	pthread_rwlock_t lock; /* guards what follows */
	struct pack **packs;   /* each a reference */
	size_t count, room;
	atomic_int watcher;                        /* an eventfd, not ours; -1: none */
	_Atomic uint64_t first_bytes, again_bytes; /* see struct pack_counts */
};

struct pack_set *pack_set_new(const char *directory)
{
	struct pack_set *set = calloc(1, sizeof(*set));

	if (!set)
		return NULL;
	set->directory = strdup(directory);
	if (!set->directory) {
		free(set);
		return NULL;
	}
	atomic_init(&set->watcher, -1);
	pthread_mutex_init(&set->load, NULL);
	pthread_rwlock_init(&set->lock, NULL);
	return set;
}

void pack_set_free(struct pack_set *set)
{
	if (!set)
		return;
	for (size_t i = set->count; i > 0; i--)
		pack_unref(set->packs[i - 1]);
	free(set->packs);
	pthread_rwlock_destroy(&set->lock);
	pthread_mutex_destroy(&set->load);
	free(set->directory);
	free(set);
}

const char *pack_path(const struct pack_set *set, uint64_t id, char text[static 4096])
{
	snprintf(text, 4096, "%s/%llu.pack", set->directory, (unsigned long long)id);
	return text;
}

struct pack *pack_ref(struct pack *pack)
{
	if (pack)
		atomic_fetch_add_explicit(&pack->references, 1, memory_order_relaxed);
	return pack;
}

void pack_unref(struct pack *pack)
{
	if (!pack ||
	    atomic_fetch_sub_explicit(&pack->references, 1, memory_order_acq_rel) > 1)
		return;
	pack_clear(pack);
	free(pack);
}

int pack_load(struct pack *pack, struct error *err)
{
	int r = 0;

	if (atomic_load_explicit(&pack->loaded, memory_order_acquire))
		return 0;
	pthread_mutex_lock(&pack->set->load);
	if (!atomic_load_explicit(&pack->loaded, memory_order_acquire)) {
		r = pack_load_unlocked(pack, err);
		if (r == -EBADMSG || r == -EIO)
			pack_note_damage(pack);
		if (r < 0)
			pack_clear(pack);
		else
			atomic_store_explicit(&pack->loaded, true, memory_order_release);
	}
	pthread_mutex_unlock(&pack->set->load);
	return r;
}

void pack_note_damage(const struct pack *pack)
{
	/* What is in the file is const to a reader; the note is not in the file. */
	struct pack *noted = (struct pack *)pack;
	int fd = pack->set ? atomic_load(&pack->set->watcher) : -1;

	if (!atomic_exchange(&noted->damage_seen, true) && fd >= 0)
		eventfd_write(fd, 1);
}

void pack_set_count(struct pack_set *set, bool first, uint64_t size)
{
	if (set)
		atomic_fetch_add_explicit(first ? &set->first_bytes : &set->again_bytes,
					  size, memory_order_relaxed);
}

void pack_set_counts(struct pack_set *set, struct pack_counts *ret)
{
	*ret = (struct pack_counts){
		.first_bytes = atomic_load(&set->first_bytes),
		.again_bytes = atomic_load(&set->again_bytes),
	};
	pthread_rwlock_rdlock(&set->lock);
	ret->packs = set->count;
	for (size_t i = 0; i < set->count; i++) {
		const struct pack *pack = set->packs[i];

		if (!atomic_load_explicit(&pack->loaded, memory_order_acquire))
			continue;
		ret->loaded++;
		ret->meta_bytes += pack->header.meta_size;
	}
	pthread_rwlock_unlock(&set->lock);
}

void pack_set_watch(struct pack_set *set, int eventfd)
{
	atomic_store(&set->watcher, eventfd);
}

struct pack *pack_set_next_damaged(struct pack_set *set)
{
	struct pack *pack = NULL;

	pthread_rwlock_rdlock(&set->lock);
	for (size_t i = 0; i < set->count && !pack; i++)
		if (atomic_load_explicit(&set->packs[i]->damage_seen,
					 memory_order_relaxed) &&
		    atomic_exchange(&set->packs[i]->damage_seen, false))
			pack = pack_ref(set->packs[i]);
	pthread_rwlock_unlock(&set->lock);
	return pack;
}

int pack_set_add(struct pack_set *set, const struct pack_key *key)
{
	struct pack *pack = calloc(1, sizeof(*pack));
	int r = 0;

	if (!pack)
		return -ENOMEM;
	pack->key = *key;
	pack->set = set;
	pack->fd = -1;
	atomic_init(&pack->references, 1);
	atomic_init(&pack->loaded, false);

	pthread_rwlock_wrlock(&set->lock);
	if (set->count == set->room) {
		size_t room = set->room ? set->room * 2 : 64;
		struct pack **packs = realloc(set->packs, room * sizeof(packs[0]));

		if (packs) {
			set->packs = packs;
			set->room = room;
		} else {
			r = -ENOMEM;
		}
	}
	if (r == 0) {
		size_t at = set->count++;

		/* Two that are adopted at once may come the wrong way round. */
		for (; at > 0 && set->packs[at - 1]->key.id > key->id; at--)
			set->packs[at] = set->packs[at - 1];
		set->packs[at] = take_ptr(pack);
	}
	pthread_rwlock_unlock(&set->lock);
	free(pack);
	return r;
}

enum order {
	BY_ID,
	BY_FIRST_NODE,
};

/* The position of the last pack whose key is not larger; count if there is none. */
static size_t position(const struct pack_set *set, enum order by, uint64_t key)
{
	size_t low = 0, high = set->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct pack_key *is = &set->packs[middle]->key;

		if ((by == BY_ID ? is->id : is->first_node) <= key)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? low - 1 : set->count;
}

struct pack *pack_set_get(struct pack_set *set, uint64_t id)
{
	struct pack *pack = NULL;
	size_t at;

	pthread_rwlock_rdlock(&set->lock);
	at = position(set, BY_ID, id);
	if (at < set->count && set->packs[at]->key.id == id)
		pack = pack_ref(set->packs[at]);
	pthread_rwlock_unlock(&set->lock);
	return pack;
}

struct pack *pack_set_find(struct pack_set *set, uint64_t node)
{
	struct pack *pack = NULL;
	size_t at;

	pthread_rwlock_rdlock(&set->lock);
	at = position(set, BY_FIRST_NODE, node);
	if (at < set->count) {
		const struct pack_key *key = &set->packs[at]->key;

		if (node - key->first_node < (uint64_t)key->node_count + key->dir_count)
			pack = pack_ref(set->packs[at]);
	}
	pthread_rwlock_unlock(&set->lock);
	return pack;
}

void pack_set_drop(struct pack_set *set, uint64_t id)
{
	struct pack *pack = NULL;
	size_t at;

	pthread_rwlock_wrlock(&set->lock);
	at = position(set, BY_ID, id);
	if (at < set->count && set->packs[at]->key.id == id) {
		pack = set->packs[at];
		set->count--;
		memmove(&set->packs[at], &set->packs[at + 1],
			(set->count - at) * sizeof(set->packs[0]));
	}
	pthread_rwlock_unlock(&set->lock);
	pack_unref(pack);
}

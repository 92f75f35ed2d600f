/* SPDX-License-Identifier: Apache-2.0 */
/*
 * All packs of a store, in order of their ids, which is the order of their node ranges
 * too. Of most only the key is known: a struct pack is made when somebody asks for it,
 * and the set keeps it, with what was loaded, until others need the room. A loaded pack
 * holds a reference of each dep, and deps are always older, so no circle can arise.
 *
 * Who is to make room is found as a clock does: the hand goes round the packs that the
 * set has, passes over those that somebody holds or has asked for since it came by last,
 * and takes the others.
 */
#include "pack_set.h"

#include "cleanup.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

/* What is kept though nobody holds it: packs, of which each has a descriptor, and bytes
 * of their metadata: enough for a version of 1,000,000 files, of which each takes 96
 * bytes and its name. */
#define KEPT_MAX       1024
#define KEPT_BYTES_MAX (256ULL << 20)
#define TRIM_STEP      16

struct entry {
	struct pack_key key;
	struct pack *pack; /* a reference; NULL: not asked for, or let go since */
};

struct pack_set {
	char *directory;
	struct pack_set *from; /* that knows more packs; borrowed; NULL: none does */
	pthread_mutex_t
		load; /* one load at a time; no other lock is taken under it but `lock` */
	pthread_rwlock_t lock; /* guards what follows, but for the atomics */
	struct entry *entries;
	size_t count, room;
	struct pack **kept; /* those of the entries; borrowed from there */
	size_t kept_count, kept_room, hand;
	_Atomic uint64_t loaded_bytes; /* of all that are loaded, whoever holds them */
	atomic_int watcher;            /* an eventfd, not ours; -1: none */
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

struct pack_set *pack_set_fresh(struct pack_set *from)
{
	struct pack_set *set = pack_set_new(from->directory);

	if (set)
		set->from = from;
	return set;
}

void pack_set_free(struct pack_set *set)
{
	if (!set)
		return;
	for (size_t i = set->count; i > 0; i--)
		pack_unref(set->entries[i - 1].pack);
	free(set->entries);
	free(set->kept);
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

/* What a loaded pack takes. */
static uint64_t pack_memory(const struct pack *pack)
{
	return sizeof(*pack) + pack->header.meta_size + pack->meta.check_count / 8;
}

void pack_unref(struct pack *pack)
{
	if (!pack ||
	    atomic_fetch_sub_explicit(&pack->references, 1, memory_order_acq_rel) > 1)
		return;
	if (pack->set && pack->loaded)
		atomic_fetch_sub(&pack->set->loaded_bytes, pack_memory(pack));
	pack_clear(pack);
	free(pack);
}

/* Where the set has a pack it has room in `kept` for it. */
static int kept_add(struct pack_set *set, struct pack *pack)
{
	if (set->kept_count == set->kept_room) {
		size_t room = set->kept_room ? set->kept_room * 2 : 64;
		struct pack **larger = realloc(set->kept, room * sizeof(larger[0]));

		if (!larger)
			return -ENOMEM;
		set->kept = larger;
		set->kept_room = room;
	}
	pack->place = set->kept_count;
	set->kept[set->kept_count++] = pack;
	return 0;
}

static void kept_remove(struct pack_set *set, const struct pack *pack)
{
	struct pack *last = set->kept[--set->kept_count];

	set->kept[pack->place] = last;
	last->place = pack->place;
}

enum order {
	BY_ID,
	BY_FIRST_NODE,
};

/* The last entry whose key is not larger; NULL if there is none. */
static struct entry *entry_before(const struct pack_set *set, enum order by, uint64_t key)
{
	size_t low = 0, high = set->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct pack_key *is = &set->entries[middle].key;

		if ((by == BY_ID ? is->id : is->first_node) <= key)
			low = middle + 1;
		else
			high = middle;
	}
	return low ? &set->entries[low - 1] : NULL;
}

/* The entry of an id, or the one with a node in its range; NULL if there is none. */
static struct entry *entry_of(const struct pack_set *set, enum order by, uint64_t key)
{
	struct entry *entry = entry_before(set, by, key);
	const struct pack_key *is = entry ? &entry->key : NULL;

	if (by == BY_ID)
		return is && is->id == key ? entry : NULL;
	return is && key - is->first_node < (uint64_t)is->node_count + is->dir_count
		       ? entry
		       : NULL;
}

static bool too_much(const struct pack_set *set, uint64_t bytes_chosen)
{
	return set->kept_count > KEPT_MAX ||
	       atomic_load(&set->loaded_bytes) > KEPT_BYTES_MAX + bytes_chosen;
}

/* The set's own reference is the only one, and no other can be taken without the lock. */
static bool may_go(struct pack *pack)
{
	return atomic_load(&pack->references) == 1 && !atomic_load(&pack->damage_seen) &&
	       !atomic_exchange(&pack->asked_for, false);
}

/* Choose packs that make room: at most TRIM_STEP. Twice round finds all that may go. */
static size_t trim_choose(struct pack_set *set, struct pack *ret[static TRIM_STEP])
{
	size_t count = 0, steps = 2 * set->kept_count;
	uint64_t bytes = 0;

	while (steps-- > 0 && set->kept_count > 0 && count < TRIM_STEP &&
	       too_much(set, bytes)) {
		struct pack *pack = set->kept[set->hand++ % set->kept_count];

		if (!may_go(pack))
			continue;
		entry_of(set, BY_ID, pack->key.id)->pack = NULL;
		kept_remove(set, pack);
		bytes += pack->loaded ? pack_memory(pack) : 0;
		ret[count++] = pack;
	}
	return count;
}

static void trim(struct pack_set *set)
{
	struct pack *packs[TRIM_STEP];
	size_t count;

	do {
		pthread_rwlock_wrlock(&set->lock);
		count = trim_choose(set, packs);
		pthread_rwlock_unlock(&set->lock);
		for (size_t i = 0; i < count; i++)
			pack_unref(packs[i]);
	} while (count == TRIM_STEP);
}

int pack_load(struct pack *pack, struct error *err)
{
	struct pack_set *set = pack->set;
	int r = 0;

	if (atomic_load_explicit(&pack->loaded, memory_order_acquire))
		return 0;
	pthread_mutex_lock(&set->load);
	if (!atomic_load_explicit(&pack->loaded, memory_order_acquire)) {
		r = pack_load_unlocked(pack, err);
		if (r == -EBADMSG || r == -EIO)
			pack_note_damage(pack);
		if (r < 0) {
			pack_clear(pack);
		} else {
			atomic_fetch_add(&set->loaded_bytes, pack_memory(pack));
			atomic_store_explicit(&pack->loaded, true, memory_order_release);
		}
	}
	pthread_mutex_unlock(&set->load);
	if (r == 0)
		trim(set);
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
	for (size_t i = 0; i < set->kept_count; i++) {
		const struct pack *pack = set->kept[i];

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
	for (size_t i = 0; i < set->kept_count && !pack; i++)
		if (atomic_load_explicit(&set->kept[i]->damage_seen,
					 memory_order_relaxed) &&
		    atomic_exchange(&set->kept[i]->damage_seen, false))
			pack = pack_ref(set->kept[i]);
	pthread_rwlock_unlock(&set->lock);
	return pack;
}

static int entry_insert(struct pack_set *set, const struct pack_key *key)
{
	size_t at;

	if (set->count == set->room) {
		size_t room = set->room ? set->room * 2 : 64;
		struct entry *larger = realloc(set->entries, room * sizeof(larger[0]));

		if (!larger)
			return -ENOMEM;
		set->entries = larger;
		set->room = room;
	}
	/* Two that are adopted at once may come the wrong way round. */
	for (at = set->count++; at > 0 && set->entries[at - 1].key.id > key->id; at--)
		set->entries[at] = set->entries[at - 1];
	set->entries[at] = (struct entry){.key = *key};
	return 0;
}

int pack_set_add(struct pack_set *set, const struct pack_key *key)
{
	int r;

	pthread_rwlock_wrlock(&set->lock);
	r = entry_insert(set, key);
	pthread_rwlock_unlock(&set->lock);
	return r;
}

/* With the lock for writing. */
static struct pack *entry_make_pack(struct pack_set *set, struct entry *entry)
{
	struct pack *pack = calloc(1, sizeof(*pack));

	if (!pack || kept_add(set, pack) < 0) {
		free(pack);
		return NULL;
	}
	pack->key = entry->key;
	pack->set = set;
	pack->fd = -1;
	atomic_init(&pack->references, 1);
	entry->pack = pack;
	return pack;
}

static struct pack *pack_make(struct pack_set *set, enum order by, uint64_t key)
{
	struct pack *pack = NULL;
	struct entry *entry;

	pthread_rwlock_wrlock(&set->lock);
	entry = entry_of(set, by, key);
	if (entry)
		pack = entry->pack ? entry->pack : entry_make_pack(set, entry);
	pack_ref(pack);
	pthread_rwlock_unlock(&set->lock);
	return pack;
}

static bool key_find(struct pack_set *set, enum order by, uint64_t key,
		     struct pack_key *ret)
{
	const struct entry *entry;

	pthread_rwlock_rdlock(&set->lock);
	entry = entry_of(set, by, key);
	if (entry)
		*ret = entry->key;
	pthread_rwlock_unlock(&set->lock);
	return entry;
}

/* Take over the key of a pack from where more are known. */
static void key_learn(struct pack_set *set, enum order by, uint64_t key)
{
	struct pack_key known;

	if (set->from && !key_find(set, by, key, &known) &&
	    key_find(set->from, by, key, &known))
		pack_set_add(set, &known);
}

static struct pack *pack_take(struct pack_set *set, enum order by, uint64_t key)
{
	struct pack *pack;
	struct entry *entry;

	key_learn(set, by, key);
	pthread_rwlock_rdlock(&set->lock);
	entry = entry_of(set, by, key);
	pack = entry ? pack_ref(entry->pack) : NULL;
	pthread_rwlock_unlock(&set->lock);
	if (entry && !pack)
		pack = pack_make(set, by, key);
	/* Most have the mark already: no cache line goes from one thread to the next. */
	if (pack && !atomic_load_explicit(&pack->asked_for, memory_order_relaxed))
		atomic_store_explicit(&pack->asked_for, true, memory_order_relaxed);
	return pack;
}

struct pack *pack_set_get(struct pack_set *set, uint64_t id)
{
	return pack_take(set, BY_ID, id);
}

int pack_set_open(struct pack_set *set, uint64_t id, struct pack **ret, struct error *err)
{
	struct pack *pack = pack_set_get(set, id);
	int r;

	if (!pack && pack_set_has(set, id))
		return error_set(err, -ENOMEM, "not enough memory");
	r = pack ? pack_load(pack, err)
		 : error_set(err, -ENOENT, "pack %llu is missing",
			     (unsigned long long)id);
	if (r < 0)
		pack_unref(pack);
	else
		*ret = pack;
	return r;
}

struct pack *pack_set_find(struct pack_set *set, uint64_t node)
{
	return pack_take(set, BY_FIRST_NODE, node);
}

bool pack_set_has(struct pack_set *set, uint64_t id)
{
	struct pack_key key;

	return key_find(set, BY_ID, id, &key) ||
	       (set->from && key_find(set->from, BY_ID, id, &key));
}

bool pack_set_has_unloaded(struct pack_set *set, uint64_t node)
{
	const struct entry *entry;
	bool unloaded;

	pthread_rwlock_rdlock(&set->lock);
	entry = entry_of(set, BY_FIRST_NODE, node);
	unloaded = entry && !(entry->pack && atomic_load(&entry->pack->loaded));
	pthread_rwlock_unlock(&set->lock);
	return unloaded;
}

void pack_set_drop(struct pack_set *set, uint64_t id)
{
	struct pack *pack = NULL;
	struct entry *entry;

	pthread_rwlock_wrlock(&set->lock);
	entry = entry_of(set, BY_ID, id);
	if (entry) {
		pack = entry->pack;
		if (pack)
			kept_remove(set, pack);
		set->count--;
		memmove(entry, entry + 1,
			(size_t)(set->entries + set->count - entry) * sizeof(*entry));
	}
	pthread_rwlock_unlock(&set->lock);
	pack_unref(pack);
}

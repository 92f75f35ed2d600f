/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Giving back the space of packs that lost their version. Keeps I10's half on the disk:
 * what any present version still uses of such a pack, a ghost, is found by looking at all
 * who need it, never by counters, so it is right whatever happened before; the rest is
 * punched out, and a ghost that nobody needs is unlinked.
 */
#include "store.h"

#include "cleanup.h"
#include "fd.h"
#include "log.h"
#include "pack_scan.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A ghost on its way through a sweep, and what of it is still used. */
struct live {
	struct pack
		*pack; /* loaded, a reference; NULL: damaged, all of it counts as used */
	bool *nodes, *objects; /* one byte each */
	size_t users;
	bool gone;
};

/* All ghosts, newest first: who uses one is looked at before it. */
struct sweep {
	struct store *store;
	struct ghost *ghosts;
	struct live *lives; /* of each ghost */
	size_t count;
};

static void sweep_done(struct sweep *sweep)
{
	for (size_t i = 0; sweep->lives && i < sweep->count; i++) {
		pack_unref(sweep->lives[i].pack);
		free(sweep->lives[i].nodes);
		free(sweep->lives[i].objects);
	}
	free(sweep->lives);
	ghosts_free(sweep->ghosts, sweep->count);
}

/* Whether a pack will not be readable at the next try either. */
static bool load_is_hopeless(int r)
{
	return r == -EBADMSG || r == -ENOENT || r == -EIO;
}

static uint32_t dep_place(const struct pack *pack, uint64_t id)
{
	for (uint32_t i = 0; i < pack->meta.dep_count; i++)
		if (pack->meta.deps[i] == id)
			return i + 1;
	return 0;
}

/* Mark what a pack uses of the ghost: nodes by its entries, objects by its nodes. Of a
 * user that is a ghost itself only the nodes count that are used (@user_nodes): nobody
 * sees its entries. */
static void live_mark(struct live *live, const struct pack *user, const bool *user_nodes)
{
	const struct pack_meta *meta = &live->pack->meta;
	uint32_t place = dep_place(user, live->pack->key.id);

	if (place == 0)
		return;
	for (uint32_t i = 0; !user_nodes && i < user->meta.entry_count; i++) {
		const struct pack_entry *entry = &user->meta.entries[i];

		if (entry->dep == place && entry->index < meta->node_count)
			live->nodes[entry->index] = true;
	}
	for (uint32_t i = 0; i < user->meta.node_count; i++) {
		const struct pack_node *node = &user->meta.nodes[i];

		if (node->dep == place && node->object < meta->object_count &&
		    (!user_nodes || user_nodes[i]))
			live->objects[node->object] = true;
	}
}

static void live_mark_all(struct live *live)
{
	memset(live->nodes, true, live->pack->meta.node_count);
	memset(live->objects, true, live->pack->meta.object_count);
}

/* A pack that has a version. Without knowing what it needs nothing is given back: when
 * the damaged version is removed, the ghost is looked at again. */
static int live_use(struct store *store, struct live *live, uint64_t id,
		    struct error *err)
{
	struct pack *user = NULL;
	struct error why = {0};
	int r = pack_set_open(store->packs, id, &user, &why);

	if (r == 0) {
		live_mark(live, user, NULL);
	} else if (load_is_hopeless(r)) {
		log_warning("nothing that pack %llu may need is freed: %s",
			    (unsigned long long)id, why.text);
		live_mark_all(live);
		r = 0;
	}
	pack_unref(user);
	return r < 0 ? error_set(err, r, "%s", why.text) : 0;
}

static struct live *live_of(const struct sweep *sweep, uint64_t id)
{
	for (size_t i = 0; i < sweep->count; i++)
		if (sweep->ghosts[i].key.id == id)
			return &sweep->lives[i];
	return NULL;
}

static int live_load(struct sweep *sweep, size_t at, struct error *err)
{
	struct live *live = &sweep->lives[at];
	struct pack *pack;
	int r = pack_set_open(sweep->store->packs, sweep->ghosts[at].key.id, &pack, err);

	if (r < 0)
		return load_is_hopeless(r) ? 0 : r;
	live->pack = pack;
	live->nodes = calloc(pack->meta.node_count + 1ULL, sizeof(bool));
	live->objects = calloc(pack->meta.object_count + 1ULL, sizeof(bool));
	if (!live->nodes || !live->objects)
		return error_set(err, -ENOMEM, "not enough memory");
	return 0;
}

static int live_find(struct sweep *sweep, size_t at, struct error *err)
{
	const struct ghost *ghost = &sweep->ghosts[at];
	struct live *live = &sweep->lives[at];
	int r = live_load(sweep, at, err);

	for (size_t i = 0; r == 0 && i < ghost->dependent_count; i++) {
		const struct live *user = live_of(sweep, ghost->dependents[i]);

		if (user && user->gone)
			continue;
		live->users++;
		if (!live->pack)
			continue;
		if (!user)
			r = live_use(sweep->store, live, ghost->dependents[i], err);
		else if (user->pack)
			live_mark(live, user->pack, user->nodes);
		else
			live_mark_all(live);
	}
	for (uint32_t i = 0; r == 0 && live->pack && i < live->pack->meta.node_count; i++)
		if (live->nodes[i] && live->pack->meta.nodes[i].dep == 0)
			live->objects[live->pack->meta.nodes[i].object] = true;
	return r;
}

/* Punch from the end of each body that is used to the next one, where a dead one lies
 * between: the disk gives back whole blocks only, and small bodies share them. */
static int punch(const struct live *live, struct error *err)
{
	const struct pack *ghost = live->pack;
	uint64_t from = PACK_HEADER_SIZE;
	bool dead = false;
	char path[4096];
	cleanup(fd_close) int fd = open(pack_path(ghost->set, ghost->key.id, path),
					O_RDWR | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return error_set(err, -errno, "cannot open '%s': %s", path,
				 strerror(errno));
	for (uint32_t i = 0; i <= ghost->meta.object_count; i++) {
		bool last = i == ghost->meta.object_count;
		const struct pack_object *object = last ? NULL : &ghost->meta.objects[i];
		uint64_t to = last ? ghost->header.meta_offset : object->offset;

		if (!last && (object->size == 0 || !live->objects[i])) {
			dead |= object->size > 0;
			continue;
		}
		if (dead && fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				      (off_t)from, (off_t)(to - from)) < 0)
			return error_set(err, -errno, "cannot punch '%s': %s", path,
					 strerror(errno));
		from = last ? to : object->offset + object->size;
		dead = false;
	}
	return 0;
}

static uint64_t pack_bytes(const struct store *store, uint64_t id)
{
	char path[4096];
	struct stat st;

	if (stat(pack_path(store->packs, id, path), &st) < 0)
		return 0;
	return (uint64_t)st.st_blocks * 512;
}

/* Rows that could be shared from go first: a crash later leaves content that is not
 * shared, never content that is shared and gone. An index that cannot be written, since
 * it is damaged or the disk is full, must not keep space from being freed: it is begun
 * anew.
 */
static int index_forget(struct store *store, const struct live *live, struct error *err)
{
	struct error why = {0};
	int r = index_remove(store->index, live->pack, live->objects, live->nodes, &why);

	if (r != -EBADMSG && r != -ENOSPC)
		return r < 0 ? error_set(err, r, "%s", why.text) : r;
	log_warning("the index is made again: %s", why.text);
	return store_renew_index(store, err);
}

static int ghost_trim(struct store *store, uint64_t id, const struct live *live,
		      struct error *err)
{
	int r = 0;

	if (live->pack) {
		r = index_forget(store, live, err);
		for (uint32_t i = 0; r == 0 && i < live->pack->meta.object_count; i++)
			if (!live->objects[i])
				pack_distrust(live->pack, i);
		if (r == 0)
			r = punch(live, err);
	}
	if (r == 0)
		r = catalog_ghost_swept(store->catalog, id, pack_bytes(store, id), err);
	return r;
}

static int ghost_drop(struct store *store, uint64_t id, struct live *live,
		      struct error *err)
{
	int r = 0;

	if (live->pack)
		r = index_forget(store, live, err);
	if (r == 0)
		r = catalog_drop_pack(store->catalog, id, err);
	if (r == 0)
		store_unlink_pack(store, id);
	live->gone = r == 0;
	return r;
}

/* What the catalog has noted for the next sweep, for the rest of this one. */
static void deps_dirty(struct sweep *sweep, size_t at)
{
	uint64_t id = sweep->ghosts[at].key.id;

	for (size_t i = at + 1; i < sweep->count; i++)
		for (size_t j = 0; j < sweep->ghosts[i].dependent_count; j++)
			if (sweep->ghosts[i].dependents[j] == id)
				sweep->ghosts[i].dirty = true;
}

static int ghost_retire(struct pack *pack, struct error *err)
{
	char path[4096];

	return pack_retire(pack_path(pack->set, pack->key.id, path), err);
}

static int ghost_sweep(struct sweep *sweep, size_t at, uint64_t *freed, struct error *err)
{
	struct store *store = sweep->store;
	struct live *live = &sweep->lives[at];
	uint64_t id = sweep->ghosts[at].key.id;
	uint64_t before = pack_bytes(store, id), after;
	int r = live_find(sweep, at, err);

	if (r < 0 || !sweep->ghosts[at].dirty)
		return r;
	/* Before anything is punched out of it: a catalog that is rebuilt from the packs
	 * must not make a version of it again. */
	if (live->pack && !pack_retired(&live->pack->header))
		r = ghost_retire(live->pack, err);
	if (r < 0)
		return r;
	r = live->users ? ghost_trim(store, id, live, err)
			: ghost_drop(store, id, live, err);
	if (r < 0)
		return r;
	deps_dirty(sweep, at);
	/* A hole can cost a block of the file system's own. */
	after = pack_bytes(store, id);
	if (before > after)
		*freed += before - after;
	return 0;
}

static int sweep_begin(struct sweep *sweep, struct error *err)
{
	int r = catalog_ghosts(sweep->store->catalog, &sweep->ghosts, &sweep->count, err);

	if (r < 0)
		return r;
	sweep->lives = calloc(sweep->count + 1, sizeof(*sweep->lives));
	return sweep->lives ? 0 : error_set(err, -ENOMEM, "not enough memory");
}

int store_live_objects(struct store *store, uint64_t pack, bool **ret, struct error *err)
{
	cleanup(sweep_done) struct sweep sweep = {.store = store};
	int r = catalog_is_ghost(store->catalog, pack, err);

	if (r == 0)
		*ret = NULL;
	if (r <= 0)
		return r;
	r = sweep_begin(&sweep, err);
	for (size_t i = 0; r == 0 && i < sweep.count; i++) {
		r = live_find(&sweep, i, err);
		if (r < 0 || sweep.ghosts[i].key.id != pack)
			continue;
		*ret = take_ptr(sweep.lives[i].objects);
		return 0;
	}
	if (r == 0)
		*ret = NULL;
	return r;
}

int store_sweep(struct store *store, uint64_t *ret_freed, struct error *err)
{
	cleanup(sweep_done) struct sweep sweep = {.store = store};
	uint64_t freed = 0;
	int r = catalog_any_dirty(store->catalog, err);

	if (r > 0)
		r = sweep_begin(&sweep, err);
	for (size_t i = 0; r == 0 && i < sweep.count; i++)
		r = ghost_sweep(&sweep, i, &freed, err);
	if (ret_freed)
		*ret_freed = freed;
	return r;
}

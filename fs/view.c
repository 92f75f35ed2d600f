/* SPDX-License-Identifier: Apache-2.0 */
#include "view.h"

#include "cleanup.h"
#include "log.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LOAD_FAILURES_TOLD 10 /* log lines a pack */
#define NS_PER_S           1000000000LL
#define FIRST_ENTRY_OFFSET 3    /* 1 is behind ".", 2 behind ".." */
#define LEAVES_BEHIND      4096 /* new ids, before the oldest are looked for */

/* A name in an application's directory. */
struct name {
	char *text;
	bool link; /* a channel; else a version */
	uint64_t node;
	uint64_t pack;   /* of a version */
	uint64_t offset; /* in listings: follows from the name, see name_offset() */
};

struct app {
	char *name;
	uint64_t node;
	int64_t time_ns;
	struct name *names; /* by offset */
	size_t count, room;
	uint64_t version_count;
};

/* A channel symlink or a file of .deployfs/, of now or of before. */
struct leaf {
	uint64_t node;
	uint64_t parent;
	int64_t time_ns;
	bool link;
	char *name;
	char *text;
};

/* A file of .deployfs/ and the id that it has now. */
struct text {
	char *name;
	uint64_t node;
};

struct view {
	struct pack_set *packs;
	_Atomic uint64_t memory_bytes; /* see view_memory_bytes() */
	pthread_rwlock_t lock;         /* guards what follows */
	struct app **apps; /* by node, which is the order in which they came */
	size_t app_count, app_room;
	struct app **sorted; /* the same, by name */
	struct leaf *leaves; /* by node */
	size_t leaf_count, leaf_room;
	size_t leaf_trim_at; /* when there are so many, the oldest are forgotten */
	struct text *texts;
	size_t text_count, text_room;
	int64_t root_time_ns, status_time_ns;
	uint64_t version_count;
};

struct view *view_new(struct pack_set *packs)
{
	struct view *view = calloc(1, sizeof(*view));

	if (!view)
		return NULL;
	view->packs = packs;
	view->leaf_trim_at = LEAVES_BEHIND;
	pthread_rwlock_init(&view->lock, NULL);
	return view;
}

static void leaf_free(struct leaf *leaf)
{
	free(leaf->name);
	free(leaf->text);
}

static void app_free(struct app *app)
{
	for (size_t i = 0; i < app->count; i++)
		free(app->names[i].text);
	free(app->names);
	free(app->name);
	free(app);
}

void view_free(struct view *view)
{
	if (!view)
		return;
	for (size_t i = 0; i < view->app_count; i++)
		app_free(view->apps[i]);
	for (size_t i = 0; i < view->leaf_count; i++)
		leaf_free(&view->leaves[i]);
	for (size_t i = 0; i < view->text_count; i++)
		free(view->texts[i].name);
	free(view->texts);
	free(view->apps);
	free(view->sorted);
	free(view->leaves);
	pthread_rwlock_destroy(&view->lock);
	free(view);
}

/* Make room for one more record of an array. */
static int grow(void **array, size_t count, size_t *room, size_t size)
{
	size_t larger = *room ? *room * 2 : 16;
	void *moved;

	if (count < *room)
		return 0;
	moved = realloc(*array, larger * size);
	if (!moved)
		return -ENOMEM;
	*array = moved;
	*room = larger;
	return 0;
}

/* Where an application's name is, or would be, in the sorted array. */
static size_t app_place(const struct view *view, const char *name, bool *ret_there)
{
	size_t low = 0, high = view->app_count;

	*ret_there = false;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(name, view->sorted[middle]->name);

		if (order == 0) {
			*ret_there = true;
			return middle;
		}
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static struct app *app_by_name(const struct view *view, const char *name)
{
	bool there;
	size_t place = app_place(view, name, &there);

	return there ? view->sorted[place] : NULL;
}

static struct app *app_by_node(const struct view *view, uint64_t node)
{
	size_t low = 0, high = view->app_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (view->apps[middle]->node == node)
			return view->apps[middle];
		if (view->apps[middle]->node < node)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static struct leaf *leaf_by_node(const struct view *view, uint64_t node)
{
	size_t low = 0, high = view->leaf_count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (view->leaves[middle].node == node)
			return &view->leaves[middle];
		if (view->leaves[middle].node < node)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

static struct text *text_by_name(const struct view *view, const char *name)
{
	for (size_t i = 0; i < view->text_count; i++)
		if (!strcmp(view->texts[i].name, name))
			return &view->texts[i];
	return NULL;
}

static struct leaf *leaf_by_name(const struct view *view, const char *name)
{
	const struct text *text = text_by_name(view, name);

	return text ? leaf_by_node(view, text->node) : NULL;
}

/* A reader that is in the middle of a listing goes on after a restart, and over names
 * that come and go: so an offset is the name's own (I3). Positive as a loff_t. */
static uint64_t name_offset(const char *text)
{
	struct checksum sum = checksum_of(text, strlen(text));
	uint64_t offset;

	memcpy(&offset, sum.bytes, sizeof(offset));
	return FIRST_ENTRY_OFFSET + (offset >> 2);
}

/* The position of the first name that is behind an offset. */
static size_t name_behind(const struct app *app, uint64_t offset)
{
	size_t low = 0, high = app->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (app->names[middle].offset <= offset)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static struct name *name_find(struct app *app, const char *text)
{
	uint64_t offset = name_offset(text);

	for (size_t i = name_behind(app, offset);
	     i > 0 && app->names[i - 1].offset == offset; i--)
		if (!strcmp(app->names[i - 1].text, text))
			return &app->names[i - 1];
	return NULL;
}

static int app_add(struct view *view, const struct change *change)
{
	struct app *app;
	bool there;
	size_t place = app_place(view, change->app, &there);
	struct app **sorted;

	if (there)
		return 0;
	if (grow((void **)&view->apps, view->app_count, &view->app_room,
		 sizeof(view->apps[0])) < 0)
		return -ENOMEM;
	sorted = realloc(view->sorted, (view->app_count + 1) * sizeof(sorted[0]));
	if (!sorted)
		return -ENOMEM;
	view->sorted = sorted;
	app = calloc(1, sizeof(*app));
	if (!app || !(app->name = strdup(change->app))) {
		free(app);
		return -ENOMEM;
	}
	app->node = change->app_node;
	app->time_ns = change->app_time_ns;
	memmove(sorted + place + 1, sorted + place,
		(view->app_count - place) * sizeof(sorted[0]));
	sorted[place] = app;
	view->apps[view->app_count++] = app;
	if (change->time_ns > view->root_time_ns)
		view->root_time_ns = change->time_ns;
	return 0;
}

/* Those of one name together, the newest first. */
static int leaf_compare(const void *left, const void *right)
{
	const struct leaf *a = *(struct leaf *const *)left;
	const struct leaf *b = *(struct leaf *const *)right;
	int order;

	if (a->parent != b->parent)
		return a->parent < b->parent ? -1 : 1;
	order = strcmp(a->name, b->name);
	return order ? order : a->node > b->node ? -1 : a->node < b->node;
}

static bool leaf_same_name(const struct leaf *a, const struct leaf *b)
{
	return a->parent == b->parent && !strcmp(a->name, b->name);
}

static void leaves_close_up(struct view *view)
{
	size_t kept = 0;

	for (size_t i = 0; i < view->leaf_count; i++)
		if (view->leaves[i].name)
			view->leaves[kept++] = view->leaves[i];
	view->leaf_count = kept;
}

/* Forget the oldest ids of names that have too many, as the catalog does: the memory of a
 * daemon that flips for years must not grow. All names at a time, which costs a flip
 * nothing; out of memory, another time. */
static void leaves_trim(struct view *view)
{
	struct leaf **sorted = malloc(view->leaf_count * sizeof(struct leaf *));
	const struct leaf *newest = NULL;
	size_t count = view->leaf_count, newer = 0;

	if (!sorted)
		return;
	for (size_t i = 0; i < count; i++)
		sorted[i] = &view->leaves[i];
	qsort(sorted, count, sizeof(struct leaf *), leaf_compare);
	for (size_t i = 0; i < count; i++) {
		struct leaf *leaf = sorted[i];
		size_t keep = leaf->link ? CATALOG_LINKS_KEPT : CATALOG_TEXTS_KEPT;

		if (!newest || !leaf_same_name(newest, leaf)) {
			newest = leaf;
			newer = 0;
		} else if (++newer >= keep) {
			leaf_free(leaf);
			leaf->name = NULL;
		}
	}
	free(sorted);
	leaves_close_up(view);
	view->leaf_trim_at = view->leaf_count + view->leaf_count / 8 + LEAVES_BEHIND;
}

/* Add a leaf in order of ids; one that is there already is left as it is. */
static int leaf_add(struct view *view, const struct change *change)
{
	struct leaf leaf = {
		.node = change->node,
		.parent = change->kind == CHANGE_LINK ? change->app_node : VIEW_STATUS,
		.time_ns = change->time_ns,
		.link = change->kind == CHANGE_LINK,
	};
	size_t at = view->leaf_count;

	if (leaf_by_node(view, change->node))
		return 0;
	if (grow((void **)&view->leaves, view->leaf_count, &view->leaf_room,
		 sizeof(view->leaves[0])) < 0)
		return -ENOMEM;
	leaf.name = strdup(change->name);
	leaf.text = strdup(change->text);
	if (!leaf.name || !leaf.text) {
		leaf_free(&leaf);
		return -ENOMEM;
	}
	while (at > 0 && view->leaves[at - 1].node > leaf.node)
		at--;
	memmove(view->leaves + at + 1, view->leaves + at,
		(view->leaf_count - at) * sizeof(view->leaves[0]));
	view->leaves[at] = leaf;
	view->leaf_count++;
	if (view->leaf_count >= view->leaf_trim_at)
		leaves_trim(view);
	return 0;
}

static struct name *name_insert(struct app *app, char *text)
{
	uint64_t offset = name_offset(text);
	size_t at = name_behind(app, offset);

	memmove(&app->names[at + 1], &app->names[at],
		(app->count - at) * sizeof(app->names[0]));
	app->count++;
	app->names[at] = (struct name){.text = text, .offset = offset};
	return &app->names[at];
}

static void count_versions(struct view *view, struct app *app, int more)
{
	app->version_count += (uint64_t)more;
	view->version_count += (uint64_t)more;
}

static int name_set(struct view *view, const struct change *change, bool link)
{
	struct app *app = app_by_node(view, change->app_node);
	struct name *name;

	if (!app)
		return -EINVAL;
	name = name_find(app, change->name);
	if (!name) {
		char *text = strdup(change->name);

		if (!text || grow((void **)&app->names, app->count, &app->room,
				  sizeof(app->names[0])) < 0) {
			free(text);
			return -ENOMEM;
		}
		name = name_insert(app, text);
		count_versions(view, app, !link);
	}
	name->link = link;
	name->node = change->node;
	name->pack = change->pack;
	app->time_ns = change->app_time_ns;
	return 0;
}

static int name_drop(struct view *view, const struct change *change)
{
	struct app *app = app_by_node(view, change->app_node);
	struct name *name = app ? name_find(app, change->name) : NULL;

	if (!name)
		return 0;
	count_versions(view, app, -!name->link);
	free(name->text);
	app->count--;
	memmove(name, name + 1, (size_t)(app->names + app->count - name) * sizeof(*name));
	app->time_ns = change->app_time_ns;
	return 0;
}

/* The record of a file's name; made when it is new. NULL: out of memory. */
static struct text *text_make(struct view *view, const char *name)
{
	struct text *text = text_by_name(view, name);
	char *copy;

	if (text)
		return text;
	copy = strdup(name);
	if (!copy || grow((void **)&view->texts, view->text_count, &view->text_room,
			  sizeof(view->texts[0])) < 0) {
		free(copy);
		return NULL;
	}
	view->texts[view->text_count] = (struct text){.name = copy};
	return &view->texts[view->text_count++];
}

static int text_set(struct view *view, const struct change *change)
{
	struct text *text = text_make(view, change->name);
	int r = text ? leaf_add(view, change) : -ENOMEM;

	if (r < 0)
		return r;
	text->node = change->node;
	if (change->time_ns > view->status_time_ns)
		view->status_time_ns = change->time_ns;
	return 0;
}

static int apply(struct view *view, const struct change *change)
{
	int r;

	switch (change->kind) {
	case CHANGE_APP:
		return app_add(view, change);
	case CHANGE_VERSION:
		return name_set(view, change, false);
	case CHANGE_LINK:
		r = leaf_add(view, change);
		return r < 0 ? r : name_set(view, change, true);
	case CHANGE_VERSION_GONE:
	case CHANGE_LINK_GONE:
		return name_drop(view, change);
	case CHANGE_TEXT:
		return text_set(view, change);
	}
	return -EINVAL;
}

int view_apply(struct view *view, const struct change *change)
{
	int r;

	pthread_rwlock_wrlock(&view->lock);
	r = apply(view, change);
	pthread_rwlock_unlock(&view->lock);
	return r;
}

int view_remember(struct view *view, const struct change *change)
{
	int r;

	pthread_rwlock_wrlock(&view->lock);
	r = leaf_add(view, change);
	pthread_rwlock_unlock(&view->lock);
	return r;
}

static void stat_dir(uint64_t node, int64_t time_ns, uint64_t subdirs,
		     struct pack_stat *ret)
{
	*ret = (struct pack_stat){
		.node = node,
		.size = 4096,
		.blocks = 8,
		.mtime_s = time_ns / NS_PER_S,
		.mtime_ns = (uint32_t)(time_ns % NS_PER_S),
		.mode = S_IFDIR | 0755,
		.nlink = (uint32_t)(2 + subdirs),
	};
}

static void stat_app(const struct app *app, struct pack_stat *ret)
{
	stat_dir(app->node, app->time_ns, app->version_count, ret);
}

static void stat_leaf(const struct leaf *leaf, struct pack_stat *ret)
{
	*ret = (struct pack_stat){
		.node = leaf->node,
		.size = strlen(leaf->text),
		.mtime_s = leaf->time_ns / NS_PER_S,
		.mtime_ns = (uint32_t)(leaf->time_ns % NS_PER_S),
		.mode = leaf->link ? S_IFLNK | 0777 : S_IFREG | 0444,
		.nlink = leaf->link ? 1 : PACK_NLINK_MIN,
	};
	if (!leaf->link)
		ret->blocks = (ret->size + 4095) / 4096 * 8;
}

/* Attributes of what the view itself holds; false: the id is not one of those. */
static bool stat_own(struct view *view, uint64_t node, struct pack_stat *ret)
{
	const struct app *app;
	const struct leaf *leaf;

	if (node == VIEW_ROOT) {
		stat_dir(node, view->root_time_ns, view->app_count + 1, ret);
		return true;
	}
	if (node == VIEW_STATUS) {
		stat_dir(node, view->status_time_ns, 0, ret);
		return true;
	}
	app = app_by_node(view, node);
	if (app) {
		stat_app(app, ret);
		return true;
	}
	leaf = leaf_by_node(view, node);
	if (leaf)
		stat_leaf(leaf, ret);
	return leaf;
}

/* A pack that cannot be loaded was named in the log by its checks; say it once more with
 * what an operator can do, and fail this one request (I7, I8). */
static int load(struct pack *pack)
{
	struct error why = {0};
	int r = pack_load(pack, &why);

	if (r < 0 && atomic_fetch_add(&pack->rotten_told, 1) < LOAD_FAILURES_TOLD)
		log_error("%s; other packages are not affected; 'deployctl list' shows "
			  "whether it was repaired",
			  why.text);
	return r < 0 ? -EIO : 0;
}

static int pack_of(struct view *view, uint64_t node, struct pack **ret,
		   uint32_t *ret_index, bool *ret_dir)
{
	struct pack *pack = pack_set_find(view->packs, node);
	uint64_t index;
	int r;

	if (!pack)
		return pack_set_has_unloaded(view->packs, node) ? -EIO : -ESTALE;
	r = load(pack);
	if (r < 0) {
		pack_unref(pack);
		return r;
	}
	index = node - pack->key.first_node;
	*ret_dir = index >= pack->key.node_count;
	*ret_index = (uint32_t)(*ret_dir ? index - pack->key.node_count : index);
	*ret = pack;
	return 0;
}

int view_stat(struct view *view, uint64_t node, struct pack_stat *ret)
{
	struct pack *pack;
	uint32_t index;
	bool own, dir;
	int r;

	pthread_rwlock_rdlock(&view->lock);
	own = stat_own(view, node, ret);
	pthread_rwlock_unlock(&view->lock);
	if (own)
		return 0;
	r = pack_of(view, node, &pack, &index, &dir);
	if (r < 0)
		return r;
	if (dir)
		pack_stat_dir(pack, index, ret);
	else
		r = pack_stat_node(pack, index, ret) < 0 ? -EIO : 0;
	pack_unref(pack);
	return r;
}

/* What a name in a directory of the view itself means. */
enum found {
	FOUND_NOT,      /* the directory has no such name */
	FOUND_STAT,     /* the attributes are there */
	FOUND_VERSION,  /* a version: its pack is to be asked */
	FOUND_ELSEWHERE /* the directory is not one of the view's */
};

static enum found lookup_own(struct view *view, uint64_t parent, const char *name,
			     struct pack_stat *ret, uint64_t *ret_pack)
{
	const struct leaf *leaf;
	const struct name *found;
	struct app *app;

	if (parent == VIEW_ROOT) {
		if (!strcmp(name, ".deployfs"))
			return stat_own(view, VIEW_STATUS, ret) ? FOUND_STAT : FOUND_NOT;
		app = app_by_name(view, name);
		if (app)
			stat_app(app, ret);
		return app ? FOUND_STAT : FOUND_NOT;
	}
	if (parent == VIEW_STATUS) {
		leaf = leaf_by_name(view, name);
		if (leaf)
			stat_leaf(leaf, ret);
		return leaf ? FOUND_STAT : FOUND_NOT;
	}
	app = app_by_node(view, parent);
	if (!app)
		return FOUND_ELSEWHERE;
	found = name_find(app, name);
	if (!found)
		return FOUND_NOT;
	*ret_pack = found->pack;
	if (!found->link)
		return FOUND_VERSION;
	return stat_own(view, found->node, ret) ? FOUND_STAT : FOUND_NOT;
}

static int stat_version(struct view *view, uint64_t pack_id, struct pack_stat *ret)
{
	struct pack *pack = pack_set_get(view->packs, pack_id);
	int r;

	if (!pack)
		return -EIO;
	r = load(pack);
	if (r == 0)
		pack_stat_dir(pack, 0, ret);
	pack_unref(pack);
	return r;
}

static int lookup_pack(struct view *view, uint64_t parent, const char *name,
		       struct pack_stat *ret)
{
	struct pack *pack;
	uint32_t index;
	bool dir;
	int r = pack_of(view, parent, &pack, &index, &dir);

	if (r < 0)
		return r;
	r = dir ? pack_lookup(pack, index, name, ret) : -ENOTDIR;
	pack_unref(pack);
	return r == -ENOENT || r == -ENOTDIR || r == 0 ? r : -EIO;
}

int view_lookup(struct view *view, uint64_t parent, const char *name,
		struct pack_stat *ret)
{
	uint64_t pack_id = 0;
	enum found found;

	pthread_rwlock_rdlock(&view->lock);
	found = lookup_own(view, parent, name, ret, &pack_id);
	pthread_rwlock_unlock(&view->lock);
	switch (found) {
	case FOUND_STAT:
		return 0;
	case FOUND_VERSION:
		return stat_version(view, pack_id, ret);
	case FOUND_ELSEWHERE:
		return lookup_pack(view, parent, name, ret);
	case FOUND_NOT:
		break;
	}
	return -ENOENT;
}

/* The text of a leaf; false: the id is not one. */
static bool read_leaf(struct view *view, uint64_t node, uint64_t offset, size_t size,
		      void *buffer, size_t *ret_size)
{
	const struct leaf *leaf;

	pthread_rwlock_rdlock(&view->lock);
	leaf = leaf_by_node(view, node);
	if (leaf) {
		size_t length = strlen(leaf->text);

		if (offset > length)
			offset = length;
		if (size > length - offset)
			size = length - (size_t)offset;
		if (size > PACK_READ_MAX)
			size = PACK_READ_MAX;
		memcpy(buffer, leaf->text + offset, size);
		*ret_size = size;
	}
	pthread_rwlock_unlock(&view->lock);
	return leaf;
}

int view_read(struct view *view, uint64_t node, uint64_t offset, size_t size,
	      void *buffer, const void **ret_data, size_t *ret_size)
{
	struct pack *pack;
	uint32_t index;
	bool dir;
	int r;

	if (read_leaf(view, node, offset, size, buffer, ret_size)) {
		*ret_data = buffer;
		atomic_fetch_add_explicit(&view->memory_bytes, *ret_size,
					  memory_order_relaxed);
		return 0;
	}
	r = pack_of(view, node, &pack, &index, &dir);
	if (r < 0)
		return r;
	r = dir ? -EISDIR
		: pack_read(pack, index, offset, size, buffer, ret_data, ret_size);
	pack_unref(pack);
	return r;
}

/* "." and ".."; false when the reader has enough. */
static bool list_dots(uint64_t self, uint64_t parent, uint64_t offset,
		      bool (*each)(void *context, const struct view_entry *entry),
		      void *context)
{
	if (offset < 1 &&
	    !each(context, &(struct view_entry){
				   .name = ".", .node = self, .type = DT_DIR, .next = 1}))
		return false;
	return offset >= 2 || each(context, &(struct view_entry){.name = "..",
								 .node = parent,
								 .type = DT_DIR,
								 .next = 2});
}

/* A listing of one of the view's own directories, copied under the lock. */
struct listing {
	struct view_entry *entries;
	size_t count, room;
};

static void listing_done(struct listing *listing)
{
	for (size_t i = 0; i < listing->count; i++)
		free((char *)listing->entries[i].name);
	free(listing->entries);
}

static int listing_add(struct listing *listing, const char *name, uint64_t node,
		       uint8_t type, uint64_t next)
{
	char *copy = strdup(name);

	if (!copy || grow((void **)&listing->entries, listing->count, &listing->room,
			  sizeof(listing->entries[0])) < 0) {
		free(copy);
		return -ENOMEM;
	}
	listing->entries[listing->count++] = (struct view_entry){
		.name = copy, .node = node, .type = type, .next = next};
	return 0;
}

static int listing_root(struct view *view, uint64_t offset, struct listing *listing)
{
	int r = offset < FIRST_ENTRY_OFFSET
			? listing_add(listing, ".deployfs", VIEW_STATUS, DT_DIR,
				      FIRST_ENTRY_OFFSET)
			: 0;
	size_t from = offset > FIRST_ENTRY_OFFSET ? offset - FIRST_ENTRY_OFFSET : 0;

	for (size_t i = from; r == 0 && i < view->app_count; i++)
		r = listing_add(listing, view->apps[i]->name, view->apps[i]->node, DT_DIR,
				FIRST_ENTRY_OFFSET + 1 + i);
	return r;
}

static int listing_status(struct view *view, uint64_t offset, struct listing *listing)
{
	static const char *const names[] = {"status.json", "version"};
	int r = 0;

	for (size_t i = 0; r == 0 && i < sizeof(names) / sizeof(names[0]); i++) {
		const struct leaf *leaf = leaf_by_name(view, names[i]);

		if (leaf && FIRST_ENTRY_OFFSET + i > offset)
			r = listing_add(listing, leaf->name, leaf->node, DT_REG,
					FIRST_ENTRY_OFFSET + i);
	}
	return r;
}

static int listing_app(const struct app *app, uint64_t offset, struct listing *listing)
{
	int r = 0;

	for (size_t i = name_behind(app, offset); r == 0 && i < app->count; i++) {
		const struct name *name = &app->names[i];

		r = listing_add(listing, name->text, name->node,
				name->link ? DT_LNK : DT_DIR, name->offset);
	}
	return r;
}

/* 1: the directory is one of the view's, and *@listing filled; 0: it is not. */
static int listing_make(struct view *view, uint64_t node, uint64_t offset,
			struct listing *listing)
{
	const struct app *app;
	int r = 0;

	pthread_rwlock_rdlock(&view->lock);
	app = app_by_node(view, node);
	if (node == VIEW_ROOT)
		r = listing_root(view, offset, listing);
	else if (node == VIEW_STATUS)
		r = listing_status(view, offset, listing);
	else if (app)
		r = listing_app(app, offset, listing);
	else
		r = -ESTALE;
	pthread_rwlock_unlock(&view->lock);
	return r == -ESTALE ? 0 : r < 0 ? r : 1;
}

/* Attributes of a listed entry where they cost nothing: a version whose pack was not
 * touched yet is not loaded for a listing. */
static bool entry_stat(struct view *view, const struct view_entry *entry,
		       struct pack_stat *ret)
{
	return !pack_set_has_unloaded(view->packs, entry->node) &&
	       view_stat(view, entry->node, ret) == 0;
}

static int list_pack(struct view *view, uint64_t node, uint64_t offset, bool plus,
		     bool (*each)(void *context, const struct view_entry *entry),
		     void *context)
{
	struct pack_name name;
	struct pack *pack;
	uint64_t parent, behind;
	uint32_t index, position;
	bool dir;
	int r = pack_of(view, node, &pack, &index, &dir);

	if (r < 0)
		return r;
	if (!dir) {
		pack_unref(pack);
		return -ENOTDIR;
	}
	/* The kernel answers ".." itself; what it says of a version's root is never used.
	 */
	parent = pack->key.first_node + pack->key.node_count +
		 pack->meta.dirs[index].parent;
	if (!list_dots(node, parent, offset, each, context)) {
		pack_unref(pack);
		return 0;
	}
	behind = offset < FIRST_ENTRY_OFFSET ? 0 : offset - FIRST_ENTRY_OFFSET + 1;
	position = behind > UINT32_MAX ? UINT32_MAX : (uint32_t)behind;
	while (pack_list(pack, index, position, &name)) {
		struct view_entry entry = {
			.name = name.name,
			.node = name.node,
			.type = name.type,
			.next = FIRST_ENTRY_OFFSET + position,
		};

		if (plus)
			entry.has_stat =
				pack_stat_entry(pack, index, position, &entry.stat) == 0;
		if (!each(context, &entry))
			break;
		position++;
	}
	pack_unref(pack);
	return 0;
}

int view_list(struct view *view, uint64_t node, uint64_t offset, bool plus,
	      bool (*each)(void *context, const struct view_entry *entry), void *context)
{
	cleanup(listing_done) struct listing listing = {0};
	int r = listing_make(view, node, offset, &listing);

	if (r == 0)
		return list_pack(view, node, offset, plus, each, context);
	if (r < 0)
		return r;
	if (!list_dots(node, VIEW_ROOT, offset, each, context))
		return 0;
	for (size_t i = 0; i < listing.count; i++) {
		struct view_entry *entry = &listing.entries[i];

		if (plus)
			entry->has_stat = entry_stat(view, entry, &entry->stat);
		if (!each(context, entry))
			break;
	}
	return 0;
}

void view_counts(struct view *view, uint64_t *ret_apps, uint64_t *ret_versions)
{
	pthread_rwlock_rdlock(&view->lock);
	*ret_apps = view->app_count;
	*ret_versions = view->version_count;
	pthread_rwlock_unlock(&view->lock);
}

uint64_t view_memory_bytes(const struct view *view)
{
	return atomic_load_explicit(&view->memory_bytes, memory_order_relaxed);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * First the plan, then the reading. The plan walks both versions' tables side by side, as
 * deep as the kernel knows the names of the one in use, and brings the same names of the
 * other into its caches. What has to be read is only noted: so the total is known before,
 * and the disk is read in the order in which it lies there.
 */
#include "warm.h"

#include "cleanup.h"
#include "fd.h"
#include "resident.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_SIZE    (1024 * 1024)
#define LOOK_BYTES   (64ULL * 1024 * 1024) /* between two looks at memory */
#define LOOK_FILES   1024                  /* the same */
#define MEMORY_KEPT  10                    /* of a hundred: for everything else */
#define MEMINFO_MAX  65536
#define WARNED_FILES 3

/* A version, as its tables say and as it is mounted. */
struct tree {
	struct pack *pack;
	int root; /* O_PATH; -1: there is nothing to be done with it */
};

/* A file of the new version that is to be read. */
struct item {
	uint32_t dir, position; /* in the tables of the new version */
	bool whole;             /* else what is in memory of its counterpart */
	uint64_t bytes;         /* how much that will be, about */
	uint64_t pack, place;   /* where it lies on the disk */
};

struct warm {
	const struct warm_request *request;
	const struct warm_watch *watch;
	struct tree from, to;
	struct item *items;
	size_t item_count, item_room;
	uint64_t total;      /* bytes of all items */
	uint64_t used_bytes; /* in memory of the old version, and not of the new one */
	uint64_t failed;     /* files */
	uint64_t looked_bytes, looked_files; /* read since memory was looked at */
	bool short_of_memory;
	char *buffer;
	struct warm_result result;
	char path[PACK_PATH_MAX +
		  2]; /* of what the plan is at, from the version's root */
};

static void tree_done(struct tree *tree)
{
	fd_close(&tree->root);
	pack_unref(tree->pack);
}

static int out_of_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "not enough memory");
}

static int tree_open(struct store *store, const struct warm_request *request,
		     const char *version, struct tree *ret, struct error *err)
{
	struct version known;
	int r = catalog_find(store->catalog, request->app, version, &known, err);

	if (r < 0)
		return r;
	if (known.state != VERSION_PRESENT)
		return error_set(err, -ENOENT, "version '%s' of '%s' was removed",
				 version, request->app);
	r = pack_set_open(store->packs, known.pack, &ret->pack, err);
	return r == -ENOENT ? error_set(err, -EIO, "the pack of '%s' %s is missing",
					request->app, version)
			    : r;
}

/* Its root in the mount; what leads there may have to be asked for. */
static int tree_mount(const struct warm_request *request, const char *version,
		      struct tree *tree, struct error *err)
{
	char path[4096];
	int known;

	snprintf(path, sizeof(path), "%s/%s/%s", request->folder, request->app, version);
	tree->root = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (tree->root < 0)
		return error_set(err, -errno, "cannot open '%s': %s", path,
				 strerror(errno));
	known = resident_open(tree->root, ".", O_PATH | O_DIRECTORY);
	if (known == -EOPNOTSUPP)
		return error_set(err, known,
				 "this kernel does not tell what it has in memory: Linux "
				 "5.12 is the first that does");
	fd_close(&known);
	return 0;
}

static int add_bytes(void *context, uint64_t offset, uint64_t size)
{
	*(uint64_t *)context += size;
	return 0;
}

/* How many bytes of a regular file of the tree are in memory; 0 where that cannot be
 * known. */
static uint64_t resident_bytes(const struct tree *tree, const char *path, uint64_t size)
{
	cleanup(fd_close) int fd =
		resident_open(tree->root, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
	uint64_t bytes = 0;

	if (fd < 0 || resident_each(fd, size, add_bytes, &bytes) < 0)
		return 0;
	return bytes;
}

static bool is_known(const struct tree *tree, const char *path)
{
	cleanup(fd_close) int fd = resident_open(tree->root, path, O_PATH | O_NOFOLLOW);

	return fd >= 0;
}

/* Append a name to a path of @length bytes; the new length. */
static size_t path_append(char *path, size_t length, const char *name)
{
	return length + (size_t)snprintf(path + length, PACK_PATH_MAX + 2 - length,
					 "%s%s", length ? "/" : "", name);
}

/* The number of a directory from its node. */
static uint32_t dir_of(const struct pack *pack, uint64_t node)
{
	return (uint32_t)(node - pack->key.first_node - pack->key.node_count);
}

/* The plan. */

/* A name that both versions have in one directory: where it stands in each. */
struct pair {
	uint32_t from, to;
};

/* The names of a directory that both versions have and the kernel knows of the old one.
 */
struct pairs {
	struct pair *list;
	size_t count, common; /* common: known or not */
};

static void pairs_done(struct pairs *pairs)
{
	free(pairs->list);
}

static int pairs_add(struct pairs *pairs, struct pair pair)
{
	/* Doubled whenever it is a power of two. */
	if ((pairs->count & (pairs->count - 1)) == 0) {
		size_t room = pairs->count ? 2 * pairs->count : 1;
		struct pair *larger = realloc(pairs->list, room * sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		pairs->list = larger;
	}
	pairs->list[pairs->count++] = pair;
	return 0;
}

/* Both listings are in the order of memcmp(3), so one pass over them side by side. */
static int pairs_find(struct warm *w, uint32_t from_dir, uint32_t to_dir, size_t length,
		      struct pairs *ret)
{
	struct pack_name from, to;
	struct pair at = {0};
	int r = 0;

	while (r == 0 && pack_list(w->from.pack, from_dir, at.from, &from) &&
	       pack_list(w->to.pack, to_dir, at.to, &to)) {
		int order = strcmp(from.name, to.name);

		if (order == 0 && from.type == to.type) {
			ret->common++;
			path_append(w->path, length, from.name);
			if (is_known(&w->from, w->path))
				r = pairs_add(ret, at);
		}
		at.from += order <= 0;
		at.to += order >= 0;
	}
	w->path[length] = '\0';
	return r;
}

/* Its listing, and with it names and attributes of all that is in it. */
static void dir_list(struct warm *w)
{
	int fd = openat(w->to.root, *w->path ? w->path : ".",
			O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	cleanup(dir_close) DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir)
		fd_close(&fd);
	while (dir && readdir(dir))
		;
}

/* The kernel keeps all of a target, however little is asked for. A failure is the
 * business of who needs it. */
static void link_read(const struct warm *w)
{
	char byte;
	ssize_t size = readlinkat(w->to.root, w->path, &byte, 1);

	(void)size;
}

static int item_add(struct warm *w, const struct item *item)
{
	if (w->item_count == w->item_room) {
		size_t room = w->item_room ? 2 * w->item_room : 1024;
		struct item *larger = realloc(w->items, room * sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		w->items = larger;
		w->item_room = room;
	}
	w->items[w->item_count++] = *item;
	w->total += item->bytes;
	return 0;
}

/* Where the body of a node lies; what cannot be told comes first. */
static void place_of(struct warm *w, uint64_t node, struct item *item)
{
	const struct pack *pack = w->to.pack, *holder;
	uint32_t object, index = (uint32_t)(node - pack->key.first_node);

	/* A node of another pack, and not of the version in use: of one that was there
	 * before. */
	if (node < pack->key.first_node || index >= pack->key.node_count ||
	    pack_node_object(pack, index, &holder, &object) < 0)
		return;
	item->pack = holder->key.id;
	item->place = holder->meta.objects[object].offset;
}

static int plan_file(struct warm *w, uint32_t from_dir, uint32_t to_dir, struct pair pair)
{
	struct item item = {.dir = to_dir, .position = pair.to};
	struct pack_stat from, to;
	uint64_t bytes;

	if (pack_stat_entry(w->from.pack, from_dir, pair.from, &from) < 0 ||
	    pack_stat_entry(w->to.pack, to_dir, pair.to, &to) < 0)
		return 0;
	bytes = resident_bytes(&w->from, w->path, from.size);
	if (from.node == to.node) {
		w->result.kept_bytes += bytes;
		return 0;
	}
	if (bytes == 0 || to.size == 0)
		return 0;
	w->used_bytes += bytes;
	item.whole = bytes == from.size;
	item.bytes = item.whole || bytes > to.size ? to.size : bytes;
	place_of(w, to.node, &item);
	return item_add(w, &item);
}

static int plan_dir(struct warm *w, uint32_t from_dir, uint32_t to_dir, size_t length);

static int plan_pair(struct warm *w, uint32_t from_dir, uint32_t to_dir, struct pair pair,
		     bool listed, size_t length)
{
	struct pack_name from, to;
	struct stat st;

	pack_list(w->from.pack, from_dir, pair.from, &from);
	pack_list(w->to.pack, to_dir, pair.to, &to);
	length = path_append(w->path, length, to.name);
	if (!listed && fstatat(w->to.root, w->path, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	switch (to.type) {
	case DT_DIR:
		return plan_dir(w, dir_of(w->from.pack, from.node),
				dir_of(w->to.pack, to.node), length);
	case DT_LNK:
		link_read(w);
		return 0;
	default:
		return plan_file(w, from_dir, to_dir, pair);
	}
}

static int plan_dir(struct warm *w, uint32_t from_dir, uint32_t to_dir, size_t length)
{
	cleanup(pairs_done) struct pairs pairs = {0};
	bool listed;
	int r = pairs_find(w, from_dir, to_dir, length, &pairs);

	/* Who has listed the directory knows all its names, but for what the kernel gave
	 * back. A few names of many are looked up one by one instead: each that nobody
	 * needs costs the kernel a kilobyte. */
	listed = pairs.count > 0 && pairs.count * 2 >= pairs.common;
	if (listed)
		dir_list(w);
	for (size_t i = 0; r == 0 && i < pairs.count; i++)
		r = plan_pair(w, from_dir, to_dir, pairs.list[i], listed, length);
	w->path[length] = '\0';
	return r;
}

/* The reading. */

/* A number of /proc/meminfo, in bytes; 0: it is not there. */
static uint64_t meminfo_number(const char *text, const char *name)
{
	const char *line = strstr(text, name);

	return line ? strtoull(line + strlen(name), NULL, 10) * 1024 : 0;
}

/* Whether there is room for more beside everything that is to stay: what else runs, what
 * is in memory of both versions, what was read. Of the caches of others "available"
 * counts as free, and it is given up before that. */
static bool memory_is_short(const struct warm *w)
{
	cleanup(free_ptr) char *text = NULL;
	uint64_t total, available;

	if (file_read("/proc/meminfo", MEMINFO_MAX, &text, NULL) < 0)
		return false;
	total = meminfo_number(text, "MemTotal:");
	available = meminfo_number(text, "MemAvailable:");
	return available < total / 100 * MEMORY_KEPT + w->used_bytes +
				   w->result.kept_bytes + w->result.bytes;
}

/* Whether the version is still there: our descriptors hold what its removal waits for. */
static int look_around(struct warm *w, struct error *err)
{
	const struct warm_request *request = w->request;
	char path[4096];
	struct stat st;

	w->looked_bytes = w->looked_files = 0;
	snprintf(path, sizeof(path), "%s/%s/%s", request->folder, request->app,
		 request->version);
	if (lstat(path, &st) < 0)
		return error_set(err, -ENOENT, "version '%s' of '%s' was removed",
				 request->version, request->app);
	w->short_of_memory = memory_is_short(w);
	return 0;
}

/* A file that is being read. */
struct reading {
	struct warm *warm;
	int fd;
	uint64_t size;
	struct error *err;
};

/* Read a range that may go beyond the file's end. -ENOENT: the version has gone. */
static int read_range(void *context, uint64_t offset, uint64_t size)
{
	struct reading *reading = context;
	struct warm *w = reading->warm;
	uint64_t end = offset + size < reading->size ? offset + size : reading->size;
	int r = 0;

	for (uint64_t at = offset; r == 0 && at < end && !w->short_of_memory;) {
		size_t length = end - at < READ_SIZE ? (size_t)(end - at) : READ_SIZE;

		r = fd_pread_all(reading->fd, w->buffer, length, at);
		if (r < 0)
			return -EIO;
		at += length;
		w->result.bytes += length;
		w->looked_bytes += length;
		w->watch->progress(w->watch->context, w->result.bytes, w->total);
		if (w->looked_bytes >= LOOK_BYTES)
			r = look_around(w, reading->err);
	}
	return r;
}

/* What is in memory of the counterpart, and nothing beside it. */
static int read_part(struct reading *reading, const char *path)
{
	const struct tree *from = &reading->warm->from;
	cleanup(fd_close) int fd =
		resident_open(from->root, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return 0;
	posix_fadvise(reading->fd, 0, 0, POSIX_FADV_RANDOM);
	return resident_each(fd, (uint64_t)st.st_size, read_range, reading);
}

static void warn_file(struct warm *w, const char *path)
{
	char text[PACK_PATH_MAX + 64];

	if (w->failed++ >= WARNED_FILES)
		return;
	snprintf(text, sizeof(text), "'%s' cannot be read, and is not warm", path);
	w->watch->warning(w->watch->context, text);
}

static int item_read(struct warm *w, const struct item *item, struct error *err)
{
	const struct pack *pack = w->to.pack;
	const struct pack_entry *entry =
		&pack->meta.entries[pack->meta.dirs[item->dir].first_entry +
				    item->position];
	char path[PACK_PATH_MAX + 1];
	struct reading reading = {.warm = w, .err = err};
	struct stat st;
	int r;

	pack_entry_path(pack, item->dir, entry, path);
	cleanup(fd_close) int fd =
		openat(w->to.root, path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &st) < 0) {
		warn_file(w, path);
		return 0;
	}
	reading.fd = fd;
	reading.size = (uint64_t)st.st_size;
	r = item->whole ? read_range(&reading, 0, reading.size)
			: read_part(&reading, path);
	/* That the version has gone is for our caller. */
	if (r < 0 && r != -ENOENT) {
		warn_file(w, path);
		return 0;
	}
	w->result.files += r == 0 && !w->short_of_memory;
	return r;
}

static int by_place(const void *left, const void *right)
{
	const struct item *a = left, *b = right;

	if (a->pack != b->pack)
		return a->pack < b->pack ? -1 : 1;
	return (a->place > b->place) - (a->place < b->place);
}

static int read_items(struct warm *w, struct error *err)
{
	int r = w->item_count ? look_around(w, err) : 0;

	if (w->item_count)
		qsort(w->items, w->item_count, sizeof(*w->items), by_place);
	for (size_t i = 0; r == 0 && i < w->item_count && !w->short_of_memory; i++) {
		r = item_read(w, &w->items[i], err);
		if (r == 0 && ++w->looked_files >= LOOK_FILES)
			r = look_around(w, err);
	}
	if (r < 0)
		return r;
	w->result.left_bytes =
		w->total > w->result.bytes ? w->total - w->result.bytes : 0;
	if (w->short_of_memory)
		w->watch->warning(w->watch->context,
				  "memory is short: not all was read, since that would "
				  "push out what is in use");
	return 0;
}

static void warm_done(struct warm *w)
{
	tree_done(&w->from);
	tree_done(&w->to);
	free(w->items);
	free(w->buffer);
}

struct channel_search {
	const char *name;
	char *version;
};

static int channel_match(void *context, const struct channel *channel)
{
	struct channel_search *search = context;

	if (strcmp(channel->name, search->name))
		return 0;
	snprintf(search->version, NAME_LENGTH_MAX + 1, "%s", channel->version);
	return 1;
}

/* Both versions; their roots are -1 where there is nothing to go by. */
static int warm_open(struct warm *w, struct store *store, struct error *err)
{
	const struct warm_request *request = w->request;
	struct channel_search search = {request->channel, w->result.from};
	int r = tree_open(store, request, request->version, &w->to, err);

	if (r == 0)
		r = catalog_each_channel(store->catalog, request->app, channel_match,
					 &search, err);
	if (r < 0 || !*w->result.from || !strcmp(w->result.from, request->version))
		return r < 0 ? r : 0;
	w->buffer = malloc(READ_SIZE);
	if (!w->buffer)
		return out_of_memory(err);
	r = tree_open(store, request, w->result.from, &w->from, err);
	if (r == 0)
		r = tree_mount(request, w->result.from, &w->from, err);
	if (r == 0)
		r = tree_mount(request, request->version, &w->to, err);
	return r;
}

int warm_version(struct store *store, const struct warm_request *request,
		 const struct warm_watch *watch, struct warm_result *ret,
		 struct error *err)
{
	cleanup(warm_done) struct warm w = {
		.request = request,
		.watch = watch,
		.from.root = -1,
		.to.root = -1,
	};
	int r = warm_open(&w, store, err);

	if (r == 0 && w.to.root >= 0 && plan_dir(&w, 0, 0, 0) < 0)
		r = out_of_memory(err);
	if (r == 0)
		r = read_items(&w, err);
	if (r == 0)
		*ret = w.result;
	return r;
}

/* How much is warm. */

struct measure {
	const struct tree *tree;
	struct warmth *ret;
	char path[PACK_PATH_MAX + 2];
};

/* By names, as the warm ones are counted: a file with two of them counts twice. */
static void measure_all(const struct pack *pack, struct warmth *ret)
{
	struct pack_name name;
	struct pack_stat stat;

	for (uint32_t dir = 0; dir < pack->meta.dir_count; dir++)
		for (uint32_t i = 0; pack_list(pack, dir, i, &name); i++)
			if (name.type == DT_REG &&
			    pack_stat_entry(pack, dir, i, &stat) == 0) {
				ret->files++;
				ret->bytes += stat.size;
			}
}

static void measure_dir(struct measure *m, uint32_t dir, size_t length)
{
	struct pack_name name;
	struct pack_stat stat;
	uint64_t bytes;

	for (uint32_t i = 0; pack_list(m->tree->pack, dir, i, &name); i++) {
		size_t longer = path_append(m->path, length, name.name);

		if (name.type == DT_DIR) {
			if (is_known(m->tree, m->path))
				measure_dir(m, dir_of(m->tree->pack, name.node), longer);
			continue;
		}
		if (name.type != DT_REG ||
		    pack_stat_entry(m->tree->pack, dir, i, &stat) < 0)
			continue;
		bytes = resident_bytes(m->tree, m->path, stat.size);
		m->ret->warm_bytes += bytes;
		m->ret->warm_files += bytes > 0;
	}
	m->path[length] = '\0';
}

int warm_measure(struct store *store, const struct warm_request *request,
		 struct warmth *ret, struct error *err)
{
	cleanup(tree_done) struct tree tree = {.root = -1};
	struct measure m = {.tree = &tree, .ret = ret};
	int r = tree_open(store, request, request->version, &tree, err);

	if (r == 0)
		r = tree_mount(request, request->version, &tree, err);
	if (r < 0)
		return r;
	*ret = (struct warmth){0};
	measure_all(tree.pack, ret);
	measure_dir(&m, 0, 0);
	return 0;
}

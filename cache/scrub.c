/* SPDX-License-Identifier: Apache-2.0 */
#include "scrub.h"

#include "cleanup.h"
#include "fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ioprio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE   4096
#define WINDOW ((size_t)256 * 1024) /* of one read; a block with its borders fits */

/* A part of the file in memory, read from the disk and not from a cache. */
struct window {
	struct scrub *scrub;
	int fd;
	char *bytes; /* WINDOW, at a page */
	uint64_t start;
	size_t size;
};

static void window_done(struct window *window)
{
	fd_close(&window->fd);
	free(window->bytes);
}

/* Where the file system has no O_DIRECT (an old tmpfs) its cache is as good as it gets.
 */
static int window_open(struct window *window, struct scrub *scrub, struct error *err)
{
	char path[4096];

	*window = (struct window){.scrub = scrub, .fd = -1};
	pack_path(scrub->own.packs, scrub->id, path);
	if (posix_memalign((void **)&window->bytes, PAGE, WINDOW)) {
		window->bytes = NULL;
		return error_set(err, -ENOMEM, "not enough memory");
	}
	window->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_DIRECT);
	if (window->fd < 0 && errno == EINVAL)
		window->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (window->fd < 0)
		return error_set(err, -errno, "cannot open '%s': %s", path,
				 strerror(errno));
	return 0;
}

static int window_fill(struct window *window, uint64_t start, size_t size)
{
	window->start = start;
	window->size = 0;
	while (window->size < size) {
		ssize_t n = pread(window->fd, window->bytes + window->size,
				  size - window->size, (off_t)(start + window->size));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		window->size += (size_t)n;
		/* Only the end of the file is no multiple of a page. */
		if (n == 0 || n % PAGE)
			break;
	}
	return 0;
}

/* Of this thread only. NONE: what its nice value says. */
static void io_class_set(int class)
{
	syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(class, 0));
}

/* The caller may have to write, and others to wait for that. */
static int step(const struct scrub_pace *pace, uint64_t bytes)
{
	int r;

	if (!pace->step)
		return 0;
	io_class_set(IOPRIO_CLASS_NONE);
	r = pace->step(pace->context, bytes);
	io_class_set(IOPRIO_CLASS_IDLE);
	return r;
}

/* @size bytes at @offset: 0 and *@ret; 1: the disk does not give them; else what the pace
 * says. A bad sector costs its own block, not the whole window. */
static int window_get(struct window *window, uint64_t offset, size_t size,
		      const char **ret)
{
	uint64_t start = offset / PAGE * PAGE;
	size_t least = (size_t)((offset + size - start + PAGE - 1) / PAGE * PAGE);
	int r;

	if (offset < window->start || offset + size > window->start + window->size) {
		if (window_fill(window, start, WINDOW) < 0 &&
		    window_fill(window, start, least) < 0)
			window->size = 0;
		r = step(&window->scrub->pace, window->size);
		if (r < 0)
			return r;
	}
	if (offset < window->start || offset + size > window->start + window->size)
		return 1;
	*ret = window->bytes + (offset - window->start);
	return 0;
}

size_t scrub_block_size(const struct pack_object *object, uint32_t block)
{
	uint64_t left = object->size - (uint64_t)block * PACK_BLOCK_SIZE;

	return left < PACK_BLOCK_SIZE ? (size_t)left : PACK_BLOCK_SIZE;
}

/* 0 the block is right; 1 it is not; a negative errno. */
static int block_check(struct window *window, uint32_t object, uint32_t block)
{
	const struct pack_meta *meta = &window->scrub->pack->meta;
	const struct pack_object *record = &meta->objects[object];
	size_t size = scrub_block_size(record, block);
	struct checksum sum;
	const char *data;
	int r = window_get(window, record->offset + (uint64_t)block * PACK_BLOCK_SIZE,
			   size, &data);

	if (r != 0)
		return r;
	sum = checksum_of(data, size);
	return !checksum_equal(&sum, &meta->checks[record->check_first + block]);
}

static int part_check(struct window *window, uint64_t offset, const void *right,
		      uint64_t size)
{
	for (uint64_t at = 0; at < size; at += WINDOW / 2) {
		size_t n = size - at < WINDOW / 2 ? (size_t)(size - at) : WINDOW / 2;
		const char *data;
		int r = window_get(window, offset + at, n, &data);

		if (r != 0)
			return r;
		if (memcmp(data, (const char *)right + at, n))
			return 1;
	}
	return 0;
}

static int parts_check(struct window *window)
{
	struct scrub *scrub = window->scrub;
	const struct pack *pack = scrub->pack;
	const struct pack_header *header = &pack->header;
	const struct {
		enum scrub_part part;
		uint64_t offset;
		const void *right;
		uint64_t size;
	} parts[] = {
		{SCRUB_HEADER, 0, header, sizeof(*header)},
		{SCRUB_META, header->meta_offset, pack->meta_buffer, header->meta_size},
		{SCRUB_META_COPY, header->copy_offset, pack->meta_buffer,
		 header->meta_size},
		{SCRUB_HEADER_COPY, pack_header_copy(header), header, sizeof(*header)},
	};
	size_t count = header->copy_offset ? 4 : 2;

	scrub->parts = 0;
	for (size_t i = 0; i < count; i++) {
		int r = part_check(window, parts[i].offset, parts[i].right,
				   parts[i].size);

		if (r < 0)
			return r;
		if (r > 0)
			scrub->parts |= parts[i].part;
	}
	return 0;
}

static bool is_live(const struct scrub *scrub, uint32_t object)
{
	return !scrub->live || scrub->live[object];
}

static int bad_add(struct scrub *scrub, uint32_t object, uint32_t block)
{
	if (scrub->bad_count == scrub->bad_room) {
		size_t room = scrub->bad_room ? scrub->bad_room * 2 : 64;
		struct bad_block *larger =
			realloc(scrub->bad, room * sizeof(*scrub->bad));

		if (!larger)
			return -ENOMEM;
		scrub->bad = larger;
		scrub->bad_room = room;
	}
	scrub->bad[scrub->bad_count++] = (struct bad_block){object, block};
	return 0;
}

static int bodies_check(struct window *window)
{
	struct scrub *scrub = window->scrub;
	const struct pack_meta *meta = &scrub->pack->meta;

	for (uint32_t i = 0; i < meta->object_count; i++) {
		uint64_t blocks = pack_checks_of(meta->objects[i].size);

		for (uint32_t block = 0; is_live(scrub, i) && block < blocks; block++) {
			int r = block_check(window, i, block);

			if (r > 0)
				r = bad_add(scrub, i, block);
			if (r < 0)
				return r;
			scrub->blocks++;
		}
	}
	return 0;
}

static int bad_check(struct window *window)
{
	struct scrub *scrub = window->scrub;
	size_t kept = 0;

	for (size_t i = 0; i < scrub->bad_count; i++) {
		struct bad_block bad = scrub->bad[i];
		int r = is_live(scrub, bad.object)
				? block_check(window, bad.object, bad.block)
				: 0;

		if (r < 0)
			return r;
		if (r > 0)
			scrub->bad[kept++] = bad;
	}
	scrub->bad_count = kept;
	return 0;
}

static void unload(struct scrub *scrub)
{
	free(scrub->live);
	pack_unref(scrub->pack);
	pack_set_free(scrub->own.packs);
	scrub->live = NULL;
	scrub->pack = NULL;
	scrub->own.packs = NULL;
}

/* The pack and what of it is used, as they are on the disk by now. */
static int load(struct scrub *scrub, struct error *err)
{
	int r;

	unload(scrub);
	scrub->hopeless = (struct error){0};
	scrub->own.packs = pack_set_fresh(scrub->store->packs);
	if (!scrub->own.packs)
		return error_set(err, -ENOMEM, "not enough memory");
	scrub->pack = pack_set_get(scrub->own.packs, scrub->id);
	if (!scrub->pack)
		return 0;
	r = pack_load(scrub->pack, &scrub->hopeless);
	if (r == 0)
		return store_live_objects(&scrub->own, scrub->id, &scrub->live, err);
	pack_unref(scrub->pack);
	scrub->pack = NULL;
	return r == -ENOMEM ? error_set(err, r, "not enough memory") : 0;
}

static int check(struct scrub *scrub, int (*bodies)(struct window *window),
		 struct error *err)
{
	cleanup(window_done) struct window window = {.fd = -1};
	int r;

	if (!scrub->pack)
		return 0;
	r = window_open(&window, scrub, err);
	if (r < 0)
		return r;
	r = parts_check(&window);
	if (r == 0)
		r = bodies(&window);
	return r < 0 ? error_set(err, r, "the scrub of pack %llu was ended: %s",
				 (unsigned long long)scrub->id, strerror(-r))
		     : 0;
}

static int load_and_check(struct scrub *scrub, int (*bodies)(struct window *window),
			  struct error *err)
{
	int r;

	io_class_set(IOPRIO_CLASS_IDLE);
	r = load(scrub, err);
	if (r == 0)
		r = check(scrub, bodies, err);
	io_class_set(IOPRIO_CLASS_NONE);
	return r;
}

void scrub_init(struct scrub *scrub, struct store *store, uint64_t pack,
		const struct scrub_pace *pace)
{
	*scrub = (struct scrub){.own = *store, .store = store, .id = pack};
	scrub->own.packs = NULL;
	if (pace)
		scrub->pace = *pace;
}

void scrub_done(struct scrub *scrub)
{
	unload(scrub);
	free(scrub->bad);
	scrub->bad = NULL;
}

int scrub_run(struct scrub *scrub, struct error *err)
{
	scrub->bad_count = 0;
	scrub->blocks = 0;
	return load_and_check(scrub, bodies_check, err);
}

/* Blocks that were right when they were first read since the start. */
static void distrust(const struct scrub *scrub)
{
	struct pack *pack = pack_set_get(scrub->store->packs, scrub->id);

	if (pack && atomic_load_explicit(&pack->loaded, memory_order_acquire))
		for (size_t i = 0; i < scrub->bad_count; i++)
			pack_distrust(pack, scrub->bad[i].object);
	pack_unref(pack);
}

int scrub_again(struct scrub *scrub, struct error *err)
{
	int r = load_and_check(scrub, bad_check, err);

	if (r == 0 && !scrub->pack) {
		scrub->bad_count = 0;
		scrub->parts = 0;
	}
	if (r == 0)
		distrust(scrub);
	return r;
}

bool scrub_found(const struct scrub *scrub)
{
	return scrub->hopeless.code || scrub->bad_count || scrub->parts;
}

/* A name that the pack itself has for an object; false: only others name it. */
static bool object_path(const struct pack *pack, uint32_t object,
			char path[static PACK_PATH_MAX + 1])
{
	const struct pack_meta *meta = &pack->meta;

	for (uint32_t dir = 0; dir < meta->dir_count; dir++) {
		const struct pack_dir *record = &meta->dirs[dir];

		for (uint32_t i = 0; i < record->entry_count; i++) {
			const struct pack_entry *entry =
				&meta->entries[record->first_entry + i];
			const struct pack_node *node;

			if (entry->type == DT_DIR || entry->dep)
				continue;
			node = &meta->nodes[entry->index];
			if (node->dep || node->object != object)
				continue;
			pack_entry_path(pack, dir, entry, path);
			return true;
		}
	}
	return false;
}

const char *scrub_text(const struct scrub *scrub, char *text, size_t size)
{
	char path[PACK_PATH_MAX + 1];
	size_t files = 0;

	text[0] = '\0';
	if (scrub->hopeless.code) {
		snprintf(text, size, "%s", scrub->hopeless.text);
	} else if (scrub->bad_count) {
		for (size_t i = 0; i < scrub->bad_count; i++)
			files += i == 0 ||
				 scrub->bad[i].object != scrub->bad[i - 1].object;
		snprintf(text, size, "%zu block%s of %zu file%s", scrub->bad_count,
			 scrub->bad_count == 1 ? "" : "s", files, files == 1 ? "" : "s");
		if (object_path(scrub->pack, scrub->bad[0].object, path) &&
		    strlen(text) + strlen(path) + 10 < size)
			snprintf(text + strlen(text), size - strlen(text), ", '%s'%s",
				 path, files == 1 ? "" : " first");
	} else if (scrub->parts) {
		snprintf(text, size, "its metadata, of which there is a copy");
	}
	return text;
}

/* Whether a name in @user leads to an object of @pack that is marked in @bad. */
static bool shows(const struct pack *user, const struct pack *pack, const bool *bad)
{
	const struct pack_meta *meta = &user->meta;

	for (uint32_t i = 0; i < meta->entry_count; i++) {
		const struct pack_entry *entry = &meta->entries[i];
		struct pack *named = entry->dep ? user->deps[entry->dep - 1] : NULL;
		const struct pack *holder;
		uint32_t object;

		if (entry->type == DT_DIR || (named && pack_load(named, NULL) < 0) ||
		    entry->index >= (named ? named : user)->meta.node_count ||
		    pack_node_object(named ? named : user, entry->index, &holder,
				     &object) < 0)
			continue;
		if (holder->key.id == pack->key.id && bad[object])
			return true;
	}
	return false;
}

static int users_filter(struct scrub *scrub, uint64_t *users, size_t *count,
			struct error *err)
{
	cleanup(free_ptr) bool *bad =
		calloc(scrub->pack->meta.object_count + 1ULL, sizeof(*bad));
	size_t kept = 0;

	if (!bad)
		return error_set(err, -ENOMEM, "not enough memory");
	for (size_t i = 0; i < scrub->bad_count; i++)
		bad[scrub->bad[i].object] = true;
	for (size_t i = 0; i < *count; i++) {
		struct pack *user = pack_set_get(scrub->own.packs, users[i]);

		/* One that cannot be loaded is damaged itself. */
		if (user && pack_load(user, NULL) == 0 && shows(user, scrub->pack, bad))
			users[kept++] = users[i];
		pack_unref(user);
	}
	*count = kept;
	return 0;
}

int scrub_users(struct scrub *scrub, uint64_t **ret, size_t *ret_count, struct error *err)
{
	cleanup(free_ptr) uint64_t *users = NULL;
	size_t count = 0;
	int r;

	*ret = NULL;
	*ret_count = 0;
	if (!scrub->pack || scrub->bad_count == 0)
		return 0;
	r = catalog_users(scrub->store->catalog, scrub->id, &users, &count, err);
	if (r == 0)
		r = users_filter(scrub, users, &count, err);
	if (r < 0)
		return r;
	*ret = take_ptr(users);
	*ret_count = count;
	return 0;
}

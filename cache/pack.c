/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps I2 (one id a content and attributes), I7 (a block is compared with its checksum
 * before it is served) and the promise that a damaged pack can fail but not mislead: all
 * offsets and references are checked once, in pack_load().
 */
#include "pack.h"

#include "cleanup.h"
#include "fd.h"
#include "log.h"
#include "pack_set.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define META_ALIGN      8
#define ROTTEN_TOLD_MAX 100 /* log lines a pack */

struct checksum pack_content_hash(const struct checksum *checks, uint64_t count)
{
	if (count == 1)
		return checks[0];
	return checksum_of(checks, count * sizeof(checks[0]));
}

struct checksum pack_identity_hash(const struct checksum *content, uint64_t size,
				   const struct pack_node *node)
{
	struct {
		struct checksum content;
		uint64_t size;
		int64_t mtime_s;
		uint32_t mtime_ns, mode, uid, gid, nlink, zero;
	} identity = {
		.content = *content,
		.size = size,
		.mtime_s = node->mtime_s,
		.mtime_ns = node->mtime_ns,
		.mode = node->mode,
		.uid = node->uid,
		.gid = node->gid,
		.nlink = node->nlink,
	};

	return checksum_of(&identity, sizeof(identity));
}

/* The mark of a retired pack is written alone, into a file that others share from: were
 * it under the hash, a power cut between the two would lose what they share. */
static struct checksum header_hash(const struct pack_header *header)
{
	struct pack_header unmarked = *header;

	memset(unmarked.retired, 0, sizeof(unmarked.retired));
	return checksum_of(&unmarked, offsetof(struct pack_header, header_hash));
}

void pack_header_seal(struct pack_header *header)
{
	header->header_hash = header_hash(header);
}

uint64_t pack_header_copy(const struct pack_header *header)
{
	if (header->copy_offset == 0)
		return 0;
	return (header->copy_offset + header->meta_size + PACK_HEADER_SIZE - 1) /
	       PACK_HEADER_SIZE * PACK_HEADER_SIZE;
}

int pack_header_write(int fd, struct pack_header *header)
{
	uint64_t copy = pack_header_copy(header);
	int r = 0;

	pack_header_seal(header);
	if (copy)
		r = fd_pwrite_all(fd, header, sizeof(*header), copy);
	return r < 0 ? r : fd_pwrite_all(fd, header, sizeof(*header), 0);
}

static int damaged(const struct pack *pack, const char *what, struct error *err)
{
	return error_set(err, -EBADMSG, "pack %llu is damaged: %s",
			 (unsigned long long)pack->key.id, what);
}

const char *pack_header_fault(const struct pack_header *header, uint64_t file_size)
{
	struct checksum sum = header_hash(header);

	if (memcmp(header->magic, PACK_MAGIC, sizeof(header->magic)))
		return "it does not begin as a pack";
	if (!checksum_equal(&sum, &header->header_hash))
		return "wrong checksum of the header";
	if (header->format != PACK_FORMAT || header->block_size != PACK_BLOCK_SIZE)
		return "its format is of another version of deployfs";
	if (header->meta_offset < PACK_HEADER_SIZE || header->meta_offset % META_ALIGN ||
	    header->meta_offset > file_size ||
	    header->meta_size > file_size - header->meta_offset ||
	    header->bodies_end > header->meta_offset)
		return "cut off";
	if (header->app[sizeof(header->app) - 1] ||
	    header->version[sizeof(header->version) - 1] ||
	    header->origin[sizeof(header->origin) - 1] ||
	    header->verified[sizeof(header->verified) - 1] ||
	    header->imported_by[sizeof(header->imported_by) - 1])
		return "a name without an end";
	return NULL;
}

static int header_check(const struct pack *pack, uint64_t file_size, struct error *err)
{
	const struct pack_header *header = &pack->header;
	const char *fault = pack_header_fault(header, file_size);

	if (fault)
		return damaged(pack, fault, err);
	if (header->pack_id != pack->key.id ||
	    header->first_node != pack->key.first_node ||
	    header->node_count != pack->key.node_count ||
	    header->dir_count != pack->key.dir_count)
		return damaged(pack, "it is not the pack that the catalog means", err);
	return 0;
}

/* Lay the arrays over the buffer; false when they are not exactly as long as it is. */
static bool meta_map(struct pack_meta *meta, const struct pack_header *header,
		     char *buffer)
{
	uint64_t at = 0;

	*meta = (struct pack_meta){
		.object_count = header->object_count,
		.node_count = header->node_count,
		.dir_count = header->dir_count,
		.entry_count = header->entry_count,
		.check_count = header->check_count,
		.dep_count = header->dep_count,
		.names_size = header->names_size,
	};
	/* Each record's size is a multiple of META_ALIGN, and so is each array's. The
	 * counts have 32 bits: nothing here can overflow 64. */
	meta->objects = (void *)(buffer + at);
	at += (uint64_t)meta->object_count * sizeof(meta->objects[0]);
	meta->nodes = (void *)(buffer + at);
	at += (uint64_t)meta->node_count * sizeof(meta->nodes[0]);
	meta->dirs = (void *)(buffer + at);
	at += (uint64_t)meta->dir_count * sizeof(meta->dirs[0]);
	meta->entries = (void *)(buffer + at);
	at += (uint64_t)meta->entry_count * sizeof(meta->entries[0]);
	meta->checks = (void *)(buffer + at);
	at += (uint64_t)meta->check_count * sizeof(meta->checks[0]);
	meta->deps = (void *)(buffer + at);
	at += (uint64_t)meta->dep_count * sizeof(meta->deps[0]);
	meta->names = buffer + at;
	return at <= header->meta_size && meta->names_size == header->meta_size - at;
}

/* A body begins at or behind *@end, the end of the one before it, and moves that on: so
 * no two overlap, and what is punched out for one is of no other. */
static bool object_right(const struct pack *pack, const struct pack_object *object,
			 uint64_t *end)
{
	uint64_t limit = pack->header.bodies_end;

	if (object->check_first > pack->meta.check_count)
		return false;
	if (object->size == 0)
		return true;
	if (object->offset < *end || object->offset > limit ||
	    object->size > limit - object->offset ||
	    pack_checks_of(object->size) > pack->meta.check_count - object->check_first)
		return false;
	*end = object->offset + object->size;
	return true;
}

static bool node_right(const struct pack *pack, const struct pack_node *node)
{
	const struct pack_meta *meta = &pack->meta;
	uint32_t type = node->mode & S_IFMT;

	if (type != S_IFREG && type != S_IFLNK)
		return false;
	if (node->mode & ~(uint32_t)(S_IFMT | 0777) || node->mtime_ns > 999999999 ||
	    node->nlink < (type == S_IFREG ? PACK_NLINK_MIN : 1))
		return false;
	if (node->dep > meta->dep_count ||
	    (node->dep == 0 && node->object >= meta->object_count))
		return false;
	/* An object of another pack is checked when it is used. */
	return type == S_IFREG || node->dep ||
	       (meta->objects[node->object].size > 0 &&
		meta->objects[node->object].size <= PACK_PATH_MAX);
}

static bool name_right(const struct pack_meta *meta, const struct pack_entry *entry)
{
	const char *name = meta->names + entry->name_offset;

	if (entry->name_size == 0 || entry->name_size > PACK_COMPONENT_MAX ||
	    entry->name_offset >= meta->names_size ||
	    entry->name_size >= meta->names_size - entry->name_offset)
		return false;
	if (strnlen(name, entry->name_size + 1u) != entry->name_size)
		return false;
	return !memchr(name, '/', entry->name_size) && strcmp(name, ".") &&
	       strcmp(name, "..");
}

static bool entry_right(const struct pack_meta *meta, uint32_t dir,
			const struct pack_entry *entry)
{
	if (!name_right(meta, entry) || entry->dep > meta->dep_count)
		return false;
	switch (entry->type) {
	case DT_DIR:
		return entry->dep == 0 && entry->index > dir &&
		       entry->index < meta->dir_count &&
		       meta->dirs[entry->index].parent == dir;
	case DT_REG:
	case DT_LNK:
		return entry->dep ||
		       (entry->index < meta->node_count &&
			IFTODT(meta->nodes[entry->index].mode) == entry->type);
	default:
		return false;
	}
}

/* A directory's entries follow those of the directory before it, are sorted, and name
 * each subdirectory once (@named: one byte a directory): together with "a parent comes
 * first" that makes it a tree. */
static bool dir_right(const struct pack_meta *meta, uint32_t dir, uint32_t first_entry,
		      bool *named)
{
	const struct pack_dir *record = &meta->dirs[dir];
	uint32_t subdirs = 0;

	if (record->first_entry != first_entry ||
	    record->entry_count > meta->entry_count - first_entry ||
	    record->mode & ~0777u || record->mtime_ns > 999999999 ||
	    (dir ? record->parent >= dir : record->parent != 0))
		return false;
	for (uint32_t i = 0; i < record->entry_count; i++) {
		const struct pack_entry *entry = &meta->entries[first_entry + i];

		if (!entry_right(meta, dir, entry))
			return false;
		if (i > 0 && strcmp(meta->names + entry[-1].name_offset,
				    meta->names + entry->name_offset) >= 0)
			return false;
		if (entry->type != DT_DIR)
			continue;
		if (named[entry->index])
			return false;
		named[entry->index] = true;
		subdirs++;
	}
	return subdirs == record->subdir_count;
}

static int meta_check(const struct pack *pack, struct error *err)
{
	const struct pack_meta *meta = &pack->meta;
	cleanup(free_ptr) bool *named = calloc(meta->dir_count + 1ULL, sizeof(*named));
	uint64_t entries = 0, subdirs = 0, end = PACK_HEADER_SIZE;

	if (!named)
		return error_set(err, -ENOMEM, "not enough memory");
	if (meta->dir_count == 0 || meta->entry_count > PACK_ENTRIES_MAX)
		return damaged(pack, "no root directory, or too many entries", err);
	for (uint32_t i = 0; i < meta->object_count; i++)
		if (!object_right(pack, &meta->objects[i], &end))
			return damaged(pack, "a body lies outside", err);
	for (uint32_t i = 0; i < meta->node_count; i++)
		if (!node_right(pack, &meta->nodes[i]))
			return damaged(pack, "a file's attributes", err);
	for (uint32_t i = 0; i < meta->dir_count; i++) {
		if (!dir_right(meta, i, (uint32_t)entries, named))
			return damaged(pack, "a directory", err);
		entries += meta->dirs[i].entry_count;
		subdirs += meta->dirs[i].subdir_count;
	}
	if (entries != meta->entry_count || subdirs != meta->dir_count - 1)
		return damaged(pack, "entries that no directory has", err);
	for (uint32_t i = 0; i < meta->dep_count; i++)
		if (meta->deps[i] >= pack->key.id)
			return damaged(pack, "it needs a later pack", err);
	return 0;
}

static int meta_take(struct pack *pack, int fd, uint64_t offset, struct error *err)
{
	const struct pack_header *header = &pack->header;
	struct checksum sum;
	int r = fd_pread_all(fd, pack->meta_buffer, header->meta_size, offset);

	if (r < 0)
		return error_set(err, r, "cannot read pack %llu: %s",
				 (unsigned long long)pack->key.id, strerror(-r));
	sum = checksum_of(pack->meta_buffer, header->meta_size);
	if (!checksum_equal(&sum, &header->meta_hash))
		return damaged(pack, "wrong checksum of the metadata", err);
	return 0;
}

static int meta_read(struct pack *pack, int fd, struct error *err)
{
	const struct pack_header *header = &pack->header;
	int r;

	pack->meta_buffer = malloc(header->meta_size + 1);
	if (!pack->meta_buffer)
		return error_set(err, -ENOMEM, "not enough memory for pack %llu",
				 (unsigned long long)pack->key.id);
	r = meta_take(pack, fd, header->meta_offset, err);
	if (r < 0 && header->copy_offset &&
	    meta_take(pack, fd, header->copy_offset, NULL) == 0) {
		pack_note_damage(pack);
		r = 0;
	}
	if (r < 0)
		return r;
	if (!meta_map(&pack->meta, header, pack->meta_buffer))
		return damaged(pack, "its parts do not add up", err);
	return meta_check(pack, err);
}

static int deps_resolve(struct pack *pack, struct error *err)
{
	uint32_t count = pack->meta.dep_count;

	pack->deps = calloc(count + 1, sizeof(pack->deps[0]));
	if (!pack->deps)
		return error_set(err, -ENOMEM, "not enough memory");
	for (uint32_t i = 0; i < count; i++) {
		pack->deps[i] = pack_set_get(pack->set, pack->meta.deps[i]);
		if (!pack->deps[i] && pack_set_has(pack->set, pack->meta.deps[i]))
			return error_set(err, -ENOMEM, "not enough memory");
		if (!pack->deps[i])
			return error_set(err, -ENOENT,
					 "pack %llu shares content with pack %llu, "
					 "which is missing",
					 (unsigned long long)pack->key.id,
					 (unsigned long long)pack->meta.deps[i]);
	}
	return 0;
}

void pack_clear(struct pack *pack)
{
	for (uint32_t i = 0; pack->deps && i < pack->meta.dep_count; i++)
		pack_unref(pack->deps[i]);
	free(pack->deps);
	free(pack->meta_buffer);
	free((void *)pack->verified);
	pack->deps = NULL;
	pack->meta_buffer = NULL;
	pack->verified = NULL;
	fd_close(&pack->fd);
}

static int header_take(struct pack *pack, uint64_t offset, uint64_t file_size,
		       struct error *err)
{
	int r = fd_pread_all(pack->fd, &pack->header, sizeof(pack->header), offset);

	if (r == -ENODATA)
		return damaged(pack, "cut off", err);
	if (r < 0)
		return error_set(err, r, "cannot read pack %llu: %s",
				 (unsigned long long)pack->key.id, strerror(-r));
	return header_check(pack, file_size, err);
}

/* The header, or its copy: what is in neither's range says where that lies, so it is the
 * end of the file. */
static int header_read(struct pack *pack, uint64_t file_size, struct error *err)
{
	int r = header_take(pack, 0, file_size, err);

	if (r == 0 || file_size < 2 * PACK_HEADER_SIZE)
		return r;
	if (header_take(pack, file_size - PACK_HEADER_SIZE, file_size, NULL) < 0 ||
	    pack_header_copy(&pack->header) != file_size - PACK_HEADER_SIZE)
		return r;
	pack_note_damage(pack);
	return 0;
}

/* The rest of a load, once pack->fd is open. */
static int load(struct pack *pack, struct error *err)
{
	struct stat st;
	int r;

	if (fstat(pack->fd, &st) < 0)
		return error_set(err, -errno, "cannot look at pack %llu: %s",
				 (unsigned long long)pack->key.id, strerror(errno));
	r = header_read(pack, (uint64_t)st.st_size, err);
	if (r == 0)
		r = meta_read(pack, pack->fd, err);
	if (r == 0)
		r = deps_resolve(pack, err);
	if (r < 0)
		return r;
	pack->verified = calloc(pack->meta.check_count / 8 + 1, 1);
	if (!pack->verified)
		return error_set(err, -ENOMEM, "not enough memory");
	return 0;
}

int pack_load_unlocked(struct pack *pack, struct error *err)
{
	char path[4096];

	pack_path(pack->set, pack->key.id, path);
	pack->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (pack->fd < 0)
		return error_set(err, errno == ENOENT ? -EBADMSG : -errno,
				 "cannot open '%s': %s", path, strerror(errno));
	return load(pack, err);
}

int pack_open_fd(int fd, struct pack **ret, struct error *err)
{
	struct pack *pack = calloc(1, sizeof(*pack));
	int r;

	if (!pack)
		return error_set(err, -ENOMEM, "not enough memory");
	atomic_init(&pack->references, 1);
	pack->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	r = pack->fd < 0 ? -errno
			 : fd_pread_all(pack->fd, &pack->header, sizeof(pack->header), 0);
	if (r < 0) {
		pack_unref(pack);
		return error_set(err, r, "cannot read a new pack: %s", strerror(-r));
	}
	/* Whatever its ids are, they are its own. With the id 0 none can be older, so
	 * that a pack with deps is refused. */
	pack->key = (struct pack_key){
		.first_node = pack->header.first_node,
		.node_count = pack->header.node_count,
		.dir_count = pack->header.dir_count,
	};
	r = load(pack, err);
	if (r < 0) {
		pack_unref(pack);
		return r;
	}
	atomic_store(&pack->loaded, true);
	*ret = pack;
	return 0;
}

void pack_stat_dir(const struct pack *pack, uint32_t dir, struct pack_stat *ret)
{
	const struct pack_dir *record = &pack->meta.dirs[dir];

	*ret = (struct pack_stat){
		.node = pack->key.first_node + pack->meta.node_count + dir,
		.size = 4096,
		.blocks = 8,
		.mtime_s = record->mtime_s,
		.mtime_ns = record->mtime_ns,
		.mode = S_IFDIR | record->mode,
		.uid = record->uid,
		.gid = record->gid,
		.nlink = 2 + record->subdir_count,
	};
}

int pack_node_object(const struct pack *pack, uint32_t node, const struct pack **ret_pack,
		     uint32_t *ret_object)
{
	const struct pack_node *record = &pack->meta.nodes[node];
	const struct pack *holder = pack;

	if (record->dep) {
		int r = pack_load(pack->deps[record->dep - 1], NULL);

		if (r < 0)
			return r;
		holder = pack->deps[record->dep - 1];
	}
	if (record->object >= holder->meta.object_count)
		return -EBADMSG;
	*ret_pack = holder;
	*ret_object = record->object;
	return 0;
}

int pack_stat_node(const struct pack *pack, uint32_t node, struct pack_stat *ret)
{
	const struct pack_node *record;
	const struct pack_object *object;
	const struct pack *holder;
	uint32_t index;
	int r;

	if (node >= pack->meta.node_count)
		return -EBADMSG;
	r = pack_node_object(pack, node, &holder, &index);
	if (r < 0)
		return r;
	record = &pack->meta.nodes[node];
	object = &holder->meta.objects[index];
	*ret = (struct pack_stat){
		.node = pack->key.first_node + node,
		.size = object->size,
		.blocks = (uint64_t)object->allocated * 8,
		.mtime_s = record->mtime_s,
		.mtime_ns = record->mtime_ns,
		.mode = record->mode,
		.uid = record->uid,
		.gid = record->gid,
		.nlink = record->nlink,
	};
	if (S_ISLNK(record->mode))
		ret->blocks = 0;
	return 0;
}

static int entry_stat(const struct pack *pack, const struct pack_entry *entry,
		      struct pack_stat *ret)
{
	struct pack *holder;
	int r;

	if (entry->type == DT_DIR) {
		pack_stat_dir(pack, entry->index, ret);
		return 0;
	}
	if (entry->dep == 0)
		return pack_stat_node(pack, entry->index, ret);
	holder = pack->deps[entry->dep - 1];
	r = pack_load(holder, NULL);
	if (r == 0)
		r = pack_stat_node(holder, entry->index, ret);
	if (r == 0 && IFTODT(ret->mode) != entry->type)
		r = -EBADMSG;
	return r;
}

int pack_lookup(const struct pack *pack, uint32_t dir, const char *name,
		struct pack_stat *ret)
{
	const struct pack_dir *record = &pack->meta.dirs[dir];
	uint32_t low = record->first_entry, high = low + record->entry_count;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		const struct pack_entry *entry = &pack->meta.entries[middle];
		int order = strcmp(name, pack->meta.names + entry->name_offset);

		if (order == 0)
			return entry_stat(pack, entry, ret);
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return -ENOENT;
}

bool pack_list(const struct pack *pack, uint32_t dir, uint32_t position,
	       struct pack_name *ret)
{
	const struct pack_dir *record = &pack->meta.dirs[dir];
	const struct pack_entry *entry;
	uint64_t first = pack->key.first_node;

	if (position >= record->entry_count)
		return false;
	entry = &pack->meta.entries[record->first_entry + position];
	if (entry->type == DT_DIR)
		first += pack->meta.node_count;
	else if (entry->dep)
		first = pack->deps[entry->dep - 1]->key.first_node;
	*ret = (struct pack_name){
		.name = pack->meta.names + entry->name_offset,
		.node = first + entry->index,
		.type = entry->type,
	};
	return true;
}

int pack_stat_entry(const struct pack *pack, uint32_t dir, uint32_t position,
		    struct pack_stat *ret)
{
	const struct pack_dir *record = &pack->meta.dirs[dir];

	if (position >= record->entry_count)
		return -ENOENT;
	return entry_stat(pack, &pack->meta.entries[record->first_entry + position], ret);
}

static bool block_known(const struct pack *pack, uint64_t check)
{
	return atomic_load_explicit(&pack->verified[check / 8], memory_order_relaxed) &
	       (1u << (check % 8));
}

static bool blocks_known(const struct pack *pack, uint64_t first, uint64_t end)
{
	for (uint64_t check = first; check < end; check++)
		if (!block_known(pack, check))
			return false;
	return true;
}

/* Compare the blocks from @first on, which lie in @buffer; the last may be a short one.
 */
static int blocks_verify(const struct pack *pack, uint32_t object, uint64_t first,
			 const char *buffer, uint64_t size)
{
	const struct pack_object *record = &pack->meta.objects[object];

	for (uint64_t at = 0; at < size; at += PACK_BLOCK_SIZE, first++) {
		uint64_t length =
			size - at < PACK_BLOCK_SIZE ? size - at : PACK_BLOCK_SIZE;
		uint64_t check = record->check_first + first;
		struct checksum sum = checksum_of(buffer + at, length);

		if (!checksum_equal(&sum, &pack->meta.checks[check]))
			return -EBADMSG;
		atomic_fetch_or_explicit(&pack->verified[check / 8],
					 (uint8_t)(1u << (check % 8)),
					 memory_order_relaxed);
	}
	return 0;
}

void pack_distrust(const struct pack *pack, uint32_t object)
{
	const struct pack_object *record = &pack->meta.objects[object];
	uint64_t end = record->check_first + pack_checks_of(record->size);

	for (uint64_t check = record->check_first; check < end; check++)
		atomic_fetch_and_explicit(&pack->verified[check / 8],
					  (uint8_t) ~(1u << (check % 8)),
					  memory_order_relaxed);
}

/* pack_read_object(); *@ret_compared: with a checksum, now */
static int object_read(const struct pack *pack, uint32_t object, uint64_t offset,
		       size_t size, bool again, void *buffer, const void **ret_data,
		       size_t *ret_size, bool *ret_compared)
{
	const struct pack_object *record = &pack->meta.objects[object];
	uint64_t first, end, from, to;
	int r;

	*ret_compared = false;
	if (offset >= record->size || size == 0) {
		*ret_data = buffer;
		*ret_size = 0;
		return 0;
	}
	if (size > PACK_READ_MAX)
		size = PACK_READ_MAX;
	if (size > record->size - offset)
		size = (size_t)(record->size - offset);

	first = offset / PACK_BLOCK_SIZE;
	end = pack_checks_of(offset + size);
	if (!again &&
	    blocks_known(pack, record->check_first + first, record->check_first + end)) {
		r = fd_pread_all(pack->fd, buffer, size, record->offset + offset);
		if (r < 0)
			return -EIO;
		*ret_data = buffer;
		*ret_size = size;
		return 0;
	}
	from = first * PACK_BLOCK_SIZE;
	to = end * PACK_BLOCK_SIZE < record->size ? end * PACK_BLOCK_SIZE : record->size;
	r = fd_pread_all(pack->fd, buffer, to - from, record->offset + from);
	if (r < 0)
		return -EIO;
	r = blocks_verify(pack, object, first, buffer, to - from);
	if (r < 0)
		return r;
	*ret_data = (const char *)buffer + (offset - from);
	*ret_size = size;
	*ret_compared = true;
	return 0;
}

int pack_read_object(const struct pack *pack, uint32_t object, uint64_t offset,
		     size_t size, bool again, void *buffer, const void **ret_data,
		     size_t *ret_size)
{
	bool compared;

	return object_read(pack, object, offset, size, again, buffer, ret_data, ret_size,
			   &compared);
}

void pack_entry_path(const struct pack *pack, uint32_t dir,
		     const struct pack_entry *entry, char path[static PACK_PATH_MAX + 1])
{
	const struct pack_meta *meta = &pack->meta;
	size_t at = PACK_PATH_MAX;

	path[at] = '\0';
	while (entry && at >= entry->name_size + 1u) {
		const struct pack_dir *parent;
		uint32_t child = dir;

		if (path[at])
			path[--at] = '/';
		at -= entry->name_size;
		memcpy(path + at, meta->names + entry->name_offset, entry->name_size);
		entry = NULL;
		dir = meta->dirs[child].parent;
		parent = &meta->dirs[dir];
		for (uint32_t i = 0; child != 0 && !entry && i < parent->entry_count;
		     i++) {
			const struct pack_entry *sibling =
				&meta->entries[parent->first_entry + i];

			if (sibling->type == DT_DIR && sibling->index == child)
				entry = sibling;
		}
	}
	memmove(path, path + at, PACK_PATH_MAX + 1 - at);
}

/* Slow: the name of a node, for a log line. */
static void node_path(const struct pack *pack, uint32_t node,
		      char path[static PACK_PATH_MAX + 1])
{
	for (uint32_t dir = 0; dir < pack->meta.dir_count; dir++) {
		const struct pack_dir *record = &pack->meta.dirs[dir];

		for (uint32_t i = 0; i < record->entry_count; i++) {
			const struct pack_entry *entry =
				&pack->meta.entries[record->first_entry + i];

			if (entry->type != DT_DIR && entry->dep == 0 &&
			    entry->index == node) {
				pack_entry_path(pack, dir, entry, path);
				return;
			}
		}
	}
	snprintf(path, PACK_PATH_MAX + 1, "node %u", node);
}

static void log_rotten(struct pack *pack, uint32_t node, uint64_t offset)
{
	char path[PACK_PATH_MAX + 1];

	if (atomic_fetch_add(&pack->rotten_told, 1) >= ROTTEN_TOLD_MAX)
		return;
	node_path(pack, node, path);
	log_error("stored bytes are not the ones imported, the read failed: app=%s "
		  "version=%s path='%s' offset=%llu pack=%llu; 'deployctl list' shows "
		  "whether it was repaired",
		  pack->header.app, pack->header.version, path,
		  (unsigned long long)offset, (unsigned long long)pack->key.id);
}

int pack_read(struct pack *pack, uint32_t node, uint64_t offset, size_t size,
	      void *buffer, const void **ret_data, size_t *ret_size)
{
	const struct pack *holder;
	uint32_t object;
	bool compared;
	int r;

	if (node >= pack->meta.node_count)
		return -EIO;
	r = pack_node_object(pack, node, &holder, &object);
	if (r < 0)
		return -EIO;
	r = object_read(holder, object, offset, size, false, buffer, ret_data, ret_size,
			&compared);
	if (r == -EBADMSG)
		log_rotten(pack, node, offset);
	if (r < 0)
		pack_note_damage(holder);
	else
		pack_set_count(pack->set, compared, *ret_size);
	return r < 0 ? -EIO : 0;
}

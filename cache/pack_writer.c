/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A body is gathered behind the pending writes, where it would lie. A small one is looked
 * up before any of it is written: one that the store has is left out, so that an upgrade
 * writes what changed and nothing else. Large ones are written as they come; when the
 * store turns out to have the same content the file is cut back to where the body began.
 */
#include "pack_writer.h"

#include "cleanup.h"
#include "fd.h"
#include "write_behind.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SMALL_MAX      (1024 * 1024)
#define PAGE           4096
#define CANDIDATES_MAX 8
#define NONE           UINT32_MAX

struct pack_writer {
	int fd;
	pack_writer_find_fn *find;
	void *context;

	/* What is not given to the file yet: the bytes from pending_start on, of complete
	 * bodies and of a large one that is being written. */
	struct write_behind *behind;
	uint64_t pending_start;
	size_t pending_size;
	uint64_t end; /* where the next body may begin */

	struct pack_object *objects;
	uint32_t object_count, object_room;
	struct checksum *checks;
	uint32_t check_count, check_room;
	uint32_t *table;           /* objects by content hash; NONE: free */
	struct checksum *contents; /* of each object */
	uint32_t table_size;

	/* the body that is being written */
	uint64_t size, received; /* received: end of the last piece */
	uint64_t start;          /* in the file */
	uint32_t first_check;
	uint64_t last_page; /* 1 + the last page that has data */
	uint32_t allocated;
	char *block;       /* PACK_BLOCK_SIZE bytes of a large one, not yet hashed */
	char *compare;     /* PACK_READ_BUFFER bytes */
	char *compare_own; /* PACK_READ_MAX bytes */
};

void pack_writer_free(struct pack_writer *w)
{
	if (!w)
		return;
	write_behind_free(w->behind);
	free(w->objects);
	free(w->checks);
	free(w->contents);
	free(w->table);
	free(w->block);
	free(w->compare);
	free(w->compare_own);
	free(w);
}

struct pack_writer *pack_writer_new(int fd, pack_writer_find_fn *find, void *context)
{
	struct pack_writer *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->fd = fd;
	w->find = find;
	w->context = context;
	w->end = w->pending_start = PACK_HEADER_SIZE;
	w->block = malloc(PACK_BLOCK_SIZE);
	w->compare = malloc(PACK_READ_BUFFER);
	w->compare_own = malloc(PACK_READ_MAX);
	if (!w->block || !w->compare || !w->compare_own ||
	    write_behind_new(fd, &w->behind) < 0) {
		pack_writer_free(w);
		return NULL;
	}
	return w;
}

/* Begin to write what is pending; what comes next belongs at @next. */
static int pending_put(struct pack_writer *w, uint64_t next)
{
	int r = write_behind_put(w->behind, w->pending_size, w->pending_start, w->end);

	if (r < 0)
		return r;
	w->pending_start = next;
	w->pending_size = 0;
	return 0;
}

/* The current body of a small size. */
static char *small_data(const struct pack_writer *w)
{
	return write_behind_buffer(w->behind) + (w->start - w->pending_start);
}

static uint64_t aligned(uint64_t offset, uint64_t size)
{
	uint64_t to = size >= PACK_ALIGN_FROM ? PAGE : 8;

	return (offset + to - 1) / to * to;
}

/* A place for all of a small body, behind zeros up to where it begins. */
static int small_begin(struct pack_writer *w)
{
	char *buffer = write_behind_buffer(w->behind);
	int r;

	if (w->start + w->size - w->pending_start > WRITE_BEHIND_SIZE) {
		r = pending_put(w, w->end);
		if (r < 0)
			return r;
		buffer = write_behind_buffer(w->behind);
	}
	memset(buffer + w->pending_size, 0, (size_t)(w->start - w->end));
	return 0;
}

/* Put bytes of a large body behind those that are pending, or begin anew where they do
 * not follow them. */
static int large_append(struct pack_writer *w, const char *data, size_t size,
			uint64_t start)
{
	while (size > 0) {
		size_t n = WRITE_BEHIND_SIZE - w->pending_size;

		if (n == 0 || start != w->pending_start + w->pending_size) {
			int r = pending_put(w, start);

			if (r < 0)
				return r;
			n = WRITE_BEHIND_SIZE;
		}
		if (n > size)
			n = size;
		memcpy(write_behind_buffer(w->behind) + w->pending_size, data, n);
		w->pending_size += n;
		data += n;
		size -= n;
		start += n;
	}
	return 0;
}

/* All of a large body that came so far is in the file. */
static int large_settle(struct pack_writer *w)
{
	int r = pending_put(w, w->pending_start + w->pending_size);

	return r < 0 ? r : write_behind_wait(w->behind);
}

static int check_add(struct pack_writer *w, const void *data, size_t size)
{
	if (w->check_count == w->check_room) {
		uint32_t room = w->check_room ? w->check_room * 2 : 4096;
		struct checksum *checks = realloc(w->checks, room * sizeof(*checks));

		if (!checks)
			return -ENOMEM;
		w->checks = checks;
		w->check_room = room;
	}
	w->checks[w->check_count++] = checksum_of(data, size);
	return 0;
}

int pack_writer_begin(struct pack_writer *w, uint64_t size)
{
	w->size = size;
	w->received = 0;
	w->last_page = 0;
	w->allocated = 0;
	w->first_check = w->check_count;
	w->start = aligned(w->end, size);
	return size <= SMALL_MAX ? small_begin(w) : pending_put(w, w->start);
}

/* Count the pages of 4096 bytes that data, not only holes, fall into. */
static void pages_count(struct pack_writer *w, uint64_t offset, size_t size)
{
	uint64_t first = offset / PAGE, end = (offset + size + PAGE - 1) / PAGE;

	if (first < w->last_page)
		first = w->last_page;
	if (end > first)
		w->allocated += (uint32_t)(end - first);
	w->last_page = end;
}

/* Bring a large body's bytes into blocks and hash each that is full. @data NULL: zeros of
 * a hole. */
static int large_hash(struct pack_writer *w, const char *data, uint64_t size,
		      uint64_t offset)
{
	while (size > 0) {
		size_t at = (size_t)(offset % PACK_BLOCK_SIZE);
		size_t n = PACK_BLOCK_SIZE - at;

		if (n > size)
			n = (size_t)size;
		if (data) {
			memcpy(w->block + at, data, n);
			data += n;
		} else {
			memset(w->block + at, 0, n);
		}
		offset += n;
		size -= n;
		if ((offset % PACK_BLOCK_SIZE == 0 || offset == w->size) &&
		    check_add(w, w->block, at + n) < 0)
			return -ENOMEM;
	}
	return 0;
}

int pack_writer_data(struct pack_writer *w, const void *data, size_t size,
		     uint64_t offset)
{
	uint64_t gap;
	int r;

	if (offset < w->received || offset > w->size || size > w->size - offset)
		return -EBADMSG;
	if (size == 0)
		return 0;
	gap = offset - w->received;
	if (w->size <= SMALL_MAX) {
		memset(small_data(w) + w->received, 0, (size_t)gap);
		memcpy(small_data(w) + offset, data, size);
	} else {
		r = large_hash(w, NULL, gap, w->received);
		if (r == 0)
			r = large_hash(w, data, size, offset);
		if (r == 0)
			r = large_append(w, data, size, w->start + offset);
		if (r < 0)
			return r;
	}
	pages_count(w, offset, size);
	w->received = offset + size;
	return 0;
}

/* The bytes of the current body; both ways. */
static int current_read(struct pack_writer *w, uint64_t offset, size_t size,
			const void **ret)
{
	int r;

	if (w->size <= SMALL_MAX) {
		*ret = small_data(w) + offset;
		return 0;
	}
	r = large_settle(w);
	if (r < 0)
		return r;
	r = fd_pread_all(w->fd, w->compare_own, size, w->start + offset);
	*ret = w->compare_own;
	return r;
}

static int equal_in_pack(struct pack_writer *w, const struct pack_candidate *candidate)
{
	const struct pack_object *object;

	if (candidate->object >= candidate->pack->meta.object_count)
		return 0;
	object = &candidate->pack->meta.objects[candidate->object];
	if (object->size != w->size || object->allocated != w->allocated)
		return 0;
	for (uint64_t at = 0; at < w->size; at += PACK_READ_MAX) {
		size_t n = w->size - at < PACK_READ_MAX ? (size_t)(w->size - at)
							: PACK_READ_MAX;
		const void *stored, *mine;
		size_t stored_size;
		int r = current_read(w, at, n, &mine);

		if (r < 0)
			return r;
		r = pack_read_object(candidate->pack, candidate->object, at, n, true,
				     w->compare, &stored, &stored_size);
		/* What cannot be read, or is rotten, is not shared. */
		if (r < 0 || stored_size != n || memcmp(stored, mine, n))
			return 0;
	}
	return 1;
}

/* Bytes of an earlier body of this pack, which lies in the file or is pending. */
static int own_read(struct pack_writer *w, uint64_t offset, size_t size)
{
	int r;

	if (offset >= w->pending_start) {
		memcpy(w->compare,
		       write_behind_buffer(w->behind) + (offset - w->pending_start),
		       size);
		return 0;
	}
	r = write_behind_wait(w->behind);
	return r < 0 ? r : fd_pread_all(w->fd, w->compare, size, offset);
}

static int equal_in_own(struct pack_writer *w, uint32_t index)
{
	const struct pack_object *object = &w->objects[index];

	if (object->size != w->size || object->allocated != w->allocated)
		return 0;
	for (uint64_t at = 0; at < w->size; at += PACK_READ_MAX) {
		size_t n = w->size - at < PACK_READ_MAX ? (size_t)(w->size - at)
							: PACK_READ_MAX;
		const void *mine;
		int r = current_read(w, at, n, &mine);

		if (r == 0)
			r = own_read(w, object->offset + at, n);
		if (r < 0)
			return r;
		if (memcmp(w->compare, mine, n))
			return 0;
	}
	return 1;
}

static uint32_t table_slot(const struct pack_writer *w, const struct checksum *content)
{
	uint32_t slot;

	memcpy(&slot, content->bytes, sizeof(slot));
	for (slot &= w->table_size - 1;; slot = (slot + 1) & (w->table_size - 1))
		if (w->table[slot] == NONE ||
		    checksum_equal(&w->contents[w->table[slot]], content))
			return slot;
}

static int find_own(struct pack_writer *w, const struct checksum *content,
		    struct body *ret)
{
	uint32_t slot, index;
	int r;

	if (w->table_size == 0)
		return 0;
	slot = table_slot(w, content);
	index = w->table[slot];
	if (index == NONE)
		return 0;
	r = equal_in_own(w, index);
	if (r > 0)
		*ret = (struct body){0, index, w->size, *content};
	return r;
}

static int find_stored(struct pack_writer *w, const struct checksum *content,
		       struct body *ret)
{
	struct pack_candidate candidates[CANDIDATES_MAX];
	int count, r = 0;

	if (!w->find)
		return 0;
	count = w->find(w->context, content, CANDIDATES_MAX, candidates);
	for (int i = 0; i < count; i++) {
		if (r == 0)
			r = equal_in_pack(w, &candidates[i]);
		if (r > 0 && ret->pack == 0)
			*ret = (struct body){candidates[i].pack->key.id,
					     candidates[i].object, w->size, *content};
		pack_unref(candidates[i].pack);
	}
	return count < 0 ? count : r;
}

static int table_grow(struct pack_writer *w)
{
	uint32_t size = w->table_size ? w->table_size * 2 : 4096;
	uint32_t *table = malloc(size * sizeof(*table));

	if (!table)
		return -ENOMEM;
	free(w->table);
	w->table = table;
	w->table_size = size;
	memset(table, 0xff, size * sizeof(*table));
	for (uint32_t i = 0; i < w->object_count; i++)
		table[table_slot(w, &w->contents[i])] = i;
	return 0;
}

static int object_room(struct pack_writer *w)
{
	uint32_t room = w->object_room ? w->object_room * 2 : 1024;
	struct pack_object *objects;
	struct checksum *contents;

	if ((w->object_count + 1) * 2 > w->table_size && table_grow(w) < 0)
		return -ENOMEM;
	if (w->object_count < w->object_room)
		return 0;
	objects = realloc(w->objects, room * sizeof(*objects));
	if (!objects)
		return -ENOMEM;
	w->objects = objects;
	contents = realloc(w->contents, room * sizeof(*contents));
	if (!contents)
		return -ENOMEM;
	w->contents = contents;
	w->object_room = room;
	return 0;
}

/* The current body is new: give it a place and a record. */
static int object_add(struct pack_writer *w, const struct checksum *content,
		      struct body *ret)
{
	int r = object_room(w);

	if (r < 0)
		return r;
	w->end = w->start + w->size;
	if (w->size <= SMALL_MAX)
		w->pending_size = (size_t)(w->end - w->pending_start);
	w->objects[w->object_count] = (struct pack_object){
		.offset = w->start,
		.size = w->size,
		.check_first = w->first_check,
		.allocated = w->allocated,
	};
	w->contents[w->object_count] = *content;
	w->table[table_slot(w, content)] = w->object_count;
	*ret = (struct body){0, w->object_count, w->size, *content};
	w->object_count++;
	return 0;
}

static int small_checks(struct pack_writer *w)
{
	char *data = small_data(w);

	memset(data + w->received, 0, (size_t)(w->size - w->received));
	for (uint64_t at = 0; at < w->size; at += PACK_BLOCK_SIZE) {
		uint64_t left = w->size - at;
		int r = check_add(w, data + at,
				  left < PACK_BLOCK_SIZE ? (size_t)left
							 : PACK_BLOCK_SIZE);

		if (r < 0)
			return r;
	}
	return 0;
}

static int large_finish(struct pack_writer *w)
{
	uint64_t hole = w->size - w->received;
	int r = large_hash(w, NULL, hole, w->received);

	/* The file must be that long all the same. */
	if (r == 0 && hole && ftruncate(w->fd, (off_t)(w->start + w->size)) < 0)
		r = -errno;
	if (r == 0 && hole)
		r = pending_put(w, w->start + w->size);
	return r;
}

/* A large body that the store has: cut it off. */
static int large_take_back(struct pack_writer *w)
{
	int r = large_settle(w);

	w->pending_start = w->end;
	if (r == 0 && ftruncate(w->fd, (off_t)w->end) < 0)
		r = -errno;
	return r;
}

int pack_writer_end(struct pack_writer *w, struct body *ret)
{
	bool small = w->size <= SMALL_MAX;
	struct checksum content;
	struct body body = {0};
	int r = small ? small_checks(w) : large_finish(w);

	if (r < 0)
		return r;
	content = pack_content_hash(w->checks + w->first_check,
				    w->check_count - w->first_check);
	r = find_own(w, &content, &body);
	if (r == 0)
		r = find_stored(w, &content, &body);
	if (r < 0)
		return r;
	if (r == 0) {
		r = object_add(w, &content, &body);
		if (r < 0)
			return r;
	} else {
		w->check_count = w->first_check;
		if (!small)
			r = large_take_back(w);
		if (r < 0)
			return r;
	}
	*ret = body;
	return 0;
}

uint64_t pack_writer_stored(const struct pack_writer *w)
{
	return w->end - PACK_HEADER_SIZE;
}

/* The arrays of the metadata in the order of the format. */
struct piece {
	const void *data;
	size_t size;
};

static int meta_write(struct pack_writer *w, const struct piece *pieces, size_t count,
		      struct pack_header *header)
{
	cleanup(free_ptr) char *buffer = NULL;
	size_t total = 0, at = 0;
	int r;

	for (size_t i = 0; i < count; i++)
		total += pieces[i].size;
	buffer = malloc(total + 1);
	if (!buffer)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		if (pieces[i].size)
			memcpy(buffer + at, pieces[i].data, pieces[i].size);
		at += pieces[i].size;
	}
	header->meta_size = total;
	header->meta_hash = checksum_of(buffer, total);
	header->copy_offset = (header->meta_offset + total + PAGE - 1) / PAGE * PAGE;
	r = fd_pwrite_all(w->fd, buffer, total, header->meta_offset);
	return r < 0 ? r : fd_pwrite_all(w->fd, buffer, total, header->copy_offset);
}

int pack_writer_finish(struct pack_writer *w, const struct pack_meta *meta,
		       struct pack_header *header)
{
	const struct piece pieces[] = {
		{w->objects, w->object_count * sizeof(w->objects[0])},
		{meta->nodes, meta->node_count * sizeof(meta->nodes[0])},
		{meta->dirs, meta->dir_count * sizeof(meta->dirs[0])},
		{meta->entries, meta->entry_count * sizeof(meta->entries[0])},
		{w->checks, w->check_count * sizeof(w->checks[0])},
		{meta->deps, meta->dep_count * sizeof(meta->deps[0])},
		{meta->names, meta->names_size},
	};
	int r = pending_put(w, w->end);

	if (r == 0)
		r = write_behind_wait(w->behind);
	if (r < 0)
		return r;
	memcpy(header->magic, PACK_MAGIC, sizeof(header->magic));
	header->format = PACK_FORMAT;
	header->block_size = PACK_BLOCK_SIZE;
	header->pack_id = 0;
	header->first_node = 0;
	header->bodies_end = w->end;
	header->meta_offset = (w->end + PAGE - 1) / PAGE * PAGE;
	header->names_size = meta->names_size;
	header->object_count = w->object_count;
	header->node_count = meta->node_count;
	header->dir_count = meta->dir_count;
	header->entry_count = meta->entry_count;
	header->check_count = w->check_count;
	header->dep_count = meta->dep_count;
	r = meta_write(w, pieces, sizeof(pieces) / sizeof(pieces[0]), header);
	if (r < 0)
		return r;
	return pack_header_write(w->fd, header);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "import.h"

#include "archive.h"
#include "cleanup.h"
#include "pack_writer.h"
#include "size.h"
#include "space.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

/* The default limit: what a package of source or binaries never reaches and a bomb does.
 */
#define UNPACK_BASE   (1024ULL * 1024 * 1024)
#define UNPACK_RATIO  200
#define SPACE_STEP    (32ULL * 1024 * 1024) /* bytes between two looks at the disk */
#define PROGRESS_STEP (1024ULL * 1024)

struct import {
	struct store *store;
	const struct import_request *request;
	const struct import_watch *watch;
	struct archive_reader *reader;
	struct pack_writer *writer;
	struct manifest *manifest;
	uint64_t limit; /* bytes that may be unpacked */
	uint64_t unpacked;
	uint64_t space_looked; /* stored bytes at the last look at the disk */
	uint64_t progress_told;
	uint64_t *used; /* node ids that this version has, open addressing; 0: free */
	size_t used_count, used_size;
};

static void import_done(struct import *import)
{
	archive_close(import->reader);
	pack_writer_free(import->writer);
	manifest_free(import->manifest);
	free(import->used);
	index_release(import->store->index);
}

static int disk_error(int code, struct error *err)
{
	return error_set(err, code, "cannot write the pack: %s", strerror(-code));
}

static int find_content(void *context, const struct checksum *content, size_t max,
			struct pack_candidate *ret)
{
	struct import *import = context;
	struct index_object found[16];
	int count, filled = 0;

	if (max > sizeof(found) / sizeof(found[0]))
		max = sizeof(found) / sizeof(found[0]);
	count = index_find_objects(import->store->index, content, max, found);
	for (int i = 0; i < count; i++) {
		struct pack *pack = pack_set_get(import->store->packs, found[i].pack);

		/* The index is a hint: a pack that is gone or damaged is no candidate. */
		if (!pack || pack_load(pack, NULL) < 0) {
			pack_unref(pack);
			continue;
		}
		ret[filled].pack = pack;
		ret[filled++].object = found[i].object;
	}
	return filled;
}

static size_t used_slot(const struct import *import, uint64_t node)
{
	size_t slot = (size_t)(node * 0x9e3779b97f4a7c15ULL) & (import->used_size - 1);

	while (import->used[slot] && import->used[slot] != node)
		slot = (slot + 1) & (import->used_size - 1);
	return slot;
}

static int used_add(struct import *import, uint64_t node)
{
	if ((import->used_count + 1) * 2 > import->used_size) {
		size_t old_size = import->used_size;
		uint64_t *old = import->used;

		import->used_size = old_size ? old_size * 2 : 4096;
		import->used = calloc(import->used_size, sizeof(*import->used));
		if (!import->used) {
			import->used = old;
			import->used_size = old_size;
			return -ENOMEM;
		}
		for (size_t i = 0; i < old_size; i++)
			if (old[i])
				import->used[used_slot(import, old[i])] = old[i];
		free(old);
	}
	import->used[used_slot(import, node)] = node;
	import->used_count++;
	return 0;
}

static bool used_has(const struct import *import, uint64_t node)
{
	return import->used_size && import->used[used_slot(import, node)] == node;
}

/* Whether a stored node is what the index says: the same body and attributes. */
static bool node_same(const struct pack *pack, uint32_t index, const struct body *body,
		      const struct pack_node *node)
{
	const struct pack_node *stored = &pack->meta.nodes[index];
	const struct pack *holder;
	uint32_t object;

	return stored->mode == node->mode && stored->uid == node->uid &&
	       stored->gid == node->gid && stored->nlink == node->nlink &&
	       stored->mtime_s == node->mtime_s && stored->mtime_ns == node->mtime_ns &&
	       pack_node_object(pack, index, &holder, &object) == 0 &&
	       holder->key.id == body->pack && object == body->object;
}

/* An earlier node of this identity that the version does not have yet: two equal files of
 * one version are two ids (I2), and the k-th of them meets the k-th of the version
 * before. */
static int find_node(void *context, const struct body *body, const struct pack_node *node,
		     uint64_t *ret_pack, uint32_t *ret_index)
{
	struct import *import = context;
	struct checksum identity;
	uint64_t id = 0;
	/* Content that no earlier pack has cannot have an earlier node. */
	if (body->pack == 0)
		return 0;
	identity = pack_identity_hash(&body->content, body->size, node);
	while (index_find_node(import->store->index, &identity, id, &id) > 0) {
		struct pack *pack;
		uint32_t index;
		bool same;

		if (used_has(import, id))
			continue;
		pack = pack_set_find(import->store->packs, id);
		if (!pack)
			continue;
		index = (uint32_t)(id - pack->key.first_node);
		same = pack_load(pack, NULL) == 0 && index < pack->meta.node_count &&
		       node_same(pack, index, body, node);
		*ret_pack = pack->key.id;
		*ret_index = index;
		pack_unref(pack);
		if (same) {
			int r = used_add(import, id);

			return r < 0 ? r : 1;
		}
	}
	return 0; /* the index is a hint: where it fails, nothing is shared */
}

static int check_limit(struct import *import, const struct archive_item *item,
		       struct error *err)
{
	char text[32];

	if (item->size <= import->limit - import->unpacked)
		return 0;
	return error_set(
		err, -EBADMSG,
		"refused: with entry '%s' it unpacks to more than %s; if that is "
		"right, set 'unpack_limit' for this application",
		item->path, size_format(import->limit, text));
}

static int check_space(struct import *import, struct error *err)
{
	uint64_t stored = pack_writer_stored(import->writer);
	struct statvfs st;

	if (stored - import->space_looked < SPACE_STEP && import->space_looked)
		return 0;
	import->space_looked = stored + 1;
	if (fstatvfs(import->request->pack_fd, &st) < 0)
		return error_set(err, -errno, "cannot look at the disk: %s",
				 strerror(errno));
	if ((uint64_t)st.f_bavail * st.f_frsize >= import->request->reserve_bytes)
		return 0;
	return error_set(
		err, -ENOSPC,
		"not enough space to unpack the package: the disk has reached its "
		"reserve; 'deployctl gc' removes old versions");
}

static void tell_progress(struct import *import)
{
	uint64_t consumed = archive_consumed(import->reader);

	if (!import->watch->progress || consumed - import->progress_told < PROGRESS_STEP)
		return;
	import->progress_told = consumed;
	import->watch->progress(import->watch->context, consumed,
				import->request->archive_size);
}

static int store_file(struct import *import, const struct archive_item *item,
		      struct body *ret, struct error *err)
{
	const void *data;
	uint64_t offset, looked = 0;
	size_t size;
	int r = check_limit(import, item, err);

	if (r < 0)
		return r;
	import->unpacked += item->size;
	r = pack_writer_begin(import->writer, item->size);
	if (r < 0)
		return disk_error(r, err);
	while ((r = archive_read(import->reader, &data, &size, &offset, err)) > 0) {
		r = pack_writer_data(import->writer, data, size, offset);
		if (r < 0)
			return disk_error(r, err);
		if (offset - looked > SPACE_STEP) {
			looked = offset;
			import->space_looked = 0;
			r = check_space(import, err);
			if (r < 0)
				return r;
		}
		tell_progress(import);
	}
	if (r < 0)
		return r;
	r = pack_writer_end(import->writer, ret);
	return r < 0 ? disk_error(r, err) : 0;
}

static int store_target(struct import *import, const struct archive_item *item,
			struct body *ret, struct error *err)
{
	size_t size = strlen(item->target);
	int r = pack_writer_begin(import->writer, size);

	if (r == 0)
		r = pack_writer_data(import->writer, item->target, size, 0);
	if (r == 0)
		r = pack_writer_end(import->writer, ret);
	return r < 0 ? disk_error(r, err) : 0;
}

static int import_item(struct import *import, const struct archive_item *item,
		       struct error *err)
{
	struct body body = {0};
	uint32_t number;
	int r = manifest_add(import->manifest, item, &number, err);

	if (r < 0)
		return r;
	switch (item->type) {
	case ARCHIVE_TYPE_FILE:
		r = store_file(import, item, &body, err);
		break;
	case ARCHIVE_TYPE_SYMLINK:
		r = store_target(import, item, &body, err);
		break;
	case ARCHIVE_TYPE_DIRECTORY:
	case ARCHIVE_TYPE_HARDLINK:
		return 0;
	}
	if (r < 0)
		return r;
	manifest_set_body(import->manifest, number, &body);
	tell_progress(import);
	return check_space(import, err);
}

static int import_items(struct import *import, struct error *err)
{
	struct archive_item item;
	int r;

	while ((r = archive_next(import->reader, &item, err)) > 0) {
		r = import_item(import, &item, err);
		if (r < 0)
			return r;
	}
	return r;
}

static void warn_twins(const struct import *import,
		       const struct manifest_summary *summary)
{
	char text[512];

	if (summary->case_twins == 0 || !import->watch->warning)
		return;
	snprintf(
		text, sizeof(text),
		"%u names differ from a neighbour in upper and lower case only, '%.300s' "
		"first",
		summary->case_twins, summary->case_twin);
	import->watch->warning(import->watch->context, text);
}

static void meta_done(struct pack_meta *meta)
{
	free(meta->nodes);
	free(meta->dirs);
	free(meta->entries);
	free(meta->deps);
	free(meta->names);
}

static int import_finish(struct import *import, struct import_result *ret,
			 struct error *err)
{
	cleanup(meta_done) struct pack_meta meta = {0};
	struct manifest_summary summary;
	struct pack_header header = {0};
	int r = manifest_finish(import->manifest, find_node, import, &meta, &summary,
				err);

	if (r < 0)
		return r;
	warn_twins(import, &summary);
	r = pack_writer_finish(import->writer, &meta, &header);
	if (r < 0)
		return disk_error(r, err);
	*ret = (struct import_result){
		.files = summary.files,
		.unpacked = import->unpacked,
		.stored = pack_writer_stored(import->writer),
		.shared = summary.shared,
	};
	return 0;
}

/* An upgrade shares most of what it unpacks to, so only the first version is judged by
 * it. */
static int check_unpacked(struct import *import, struct error *err)
{
	uint64_t size = archive_unpacked_size(import->reader);
	struct space space;
	char path[4096];
	int r;

	if (!import->request->fresh || size == 0)
		return 0;
	r = space_of(store_path(import->store, "packs", path),
		     import->request->reserve_bytes, 0, &space);
	if (r < 0)
		return error_set(err, r, "cannot look at the disk of '%s': %s", path,
				 strerror(-r));
	return space_check(&space, size, "the unpacked package", err);
}

int import_package(struct store *store, const struct import_request *request,
		   const struct import_watch *watch, struct import_result *ret,
		   struct error *err)
{
	cleanup(import_done) struct import import = {
		.store = store,
		.request = request,
		.watch = watch,
		.limit = request->unpack_limit,
	};
	int r;

	index_hold(store->index);
	if (import.limit == 0)
		import.limit = UNPACK_BASE + request->archive_size * UNPACK_RATIO;
	import.writer = pack_writer_new(request->pack_fd,
					request->alone ? NULL : find_content, &import);
	import.manifest = manifest_new(&request->policy);
	if (!import.writer || !import.manifest)
		return error_set(err, -ENOMEM, "not enough memory");
	r = archive_open(&request->archive, watch->warning, watch->context,
			 &import.reader, err);
	if (r == 0)
		r = check_unpacked(&import, err);
	if (r == 0)
		r = import_items(&import, err);
	if (r == 0)
		r = import_finish(&import, ret, err);
	return r;
}

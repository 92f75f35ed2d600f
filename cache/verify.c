/* SPDX-License-Identifier: Apache-2.0 */
#include "verify.h"

#include "cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct verify {
	struct store *store;
	const char *wanted; /* version; NULL: all */
	const struct verify_watch *watch;
	struct verify_result result;
	uint64_t total; /* bytes of all that is wanted */
	char *buffer;   /* PACK_READ_BUFFER bytes */
};

static void tell_bad(struct verify *v, const char *version, const char *path,
		     const char *problem)
{
	v->result.bad++;
	v->watch->bad(v->watch->context, version, path, problem);
}

static int verify_body(struct verify *v, const struct pack *pack, uint32_t node)
{
	const struct pack *holder;
	const void *data;
	uint32_t object;
	size_t size;
	uint64_t at = 0;
	int r;

	if (node >= pack->meta.node_count)
		return -EBADMSG;
	r = pack_node_object(pack, node, &holder, &object);
	while (r == 0) {
		r = pack_read_object(holder, object, at, PACK_READ_MAX, true, v->buffer,
				     &data, &size);
		if (r < 0 || size == 0)
			break;
		at += size;
		v->result.bytes += size;
		v->watch->progress(v->watch->context, v->result.bytes, v->total);
	}
	return r;
}

/* For who repairs: which pack it is. */
static void note(const struct pack *pack, uint32_t node)
{
	const struct pack *holder;
	uint32_t object;

	if (!atomic_load(&pack->loaded) || node >= pack->meta.node_count ||
	    pack_node_object(pack, node, &holder, &object) < 0)
		holder = pack;
	pack_note_damage(holder);
}

static void verify_entry(struct verify *v, const struct pack *pack, const char *version,
			 uint32_t dir, const struct pack_entry *entry)
{
	const struct pack *holder = pack;
	char path[PACK_PATH_MAX + 1];
	int r = 0;

	if (entry->type == DT_DIR)
		return;
	if (entry->dep) {
		holder = pack->deps[entry->dep - 1];
		r = pack_load(pack->deps[entry->dep - 1], NULL);
	}
	v->result.files++;
	if (r == 0)
		r = verify_body(v, holder, entry->index);
	if (r == 0)
		return;
	note(holder, entry->index);
	pack_entry_path(pack, dir, entry, path);
	tell_bad(v, version, path, "the stored bytes are not the ones imported");
}

static bool is_wanted(const struct verify *v, const struct version *version)
{
	return version->state == VERSION_PRESENT &&
	       (!v->wanted || !strcmp(v->wanted, version->name));
}

static int add_total(void *context, const struct version *version)
{
	struct verify *v = context;

	if (is_wanted(v, version))
		v->total += version->unpacked_bytes;
	return 0;
}

static int verify_version(void *context, const struct version *version)
{
	struct verify *v = context;
	struct error why = {0};
	struct pack *pack;

	if (!is_wanted(v, version))
		return 0;
	v->result.versions++;
	if (pack_set_open(v->store->packs, version->pack, &pack, &why) < 0) {
		tell_bad(v, version->name, "", why.text);
		return 0;
	}
	for (uint32_t dir = 0; dir < pack->meta.dir_count; dir++) {
		const struct pack_dir *record = &pack->meta.dirs[dir];

		for (uint32_t i = 0; i < record->entry_count; i++)
			verify_entry(v, pack, version->name, dir,
				     &pack->meta.entries[record->first_entry + i]);
	}
	pack_unref(pack);
	return 0;
}

int verify_app(struct store *store, const char *app, const char *version,
	       const struct verify_watch *watch, struct verify_result *ret,
	       struct error *err)
{
	cleanup(free_ptr) char *buffer = malloc(PACK_READ_BUFFER);
	struct verify v = {
		.store = store,
		.wanted = version,
		.watch = watch,
		.buffer = buffer,
	};
	struct version known;
	int r = version ? catalog_find(store->catalog, app, version, &known, err)
			: catalog_find_app(store->catalog, app, err);

	if (!buffer)
		return error_set(err, -ENOMEM, "not enough memory");
	if (r == 0)
		r = catalog_each_version(store->catalog, app, add_total, &v, err);
	if (r == 0)
		r = catalog_each_version(store->catalog, app, verify_version, &v, err);
	if (r < 0)
		return r;
	*ret = v.result;
	if (v.result.bad == 0)
		return 0;
	return error_set(
		err, -EBADMSG,
		"%llu of %llu files of '%s' are damaged on this disk: the daemon tries to "
		"repair them by itself, 'deployctl list %s' shows how that stands, and "
		"'deployctl repair %s' tries at once",
		(unsigned long long)v.result.bad, (unsigned long long)v.result.files, app,
		app, app);
}

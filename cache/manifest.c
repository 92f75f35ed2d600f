/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Items are numbered as they come; a missing parent directory is made before its child,
 * so directories in order of their numbers are in the order a pack wants: parents first.
 */
#include "manifest.h"

#include "cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <wchar.h>
#include <wctype.h>
#include <xxhash.h>

#define NONE UINT32_MAX

struct item {
	uint32_t parent; /* item number; the root is its own */
	uint32_t name_offset;
	uint16_t name_size;
	uint8_t type;   /* DT_DIR, DT_REG, DT_LNK */
	bool given;     /* a directory that the archive itself has named */
	uint32_t link;  /* a hard link: the item it names; else its own number */
	uint32_t links; /* names of this file, beside the first */
	uint32_t mode;
	uint32_t mtime_ns;
	int64_t mtime_s;
	struct body body;
	uint32_t index; /* while finishing: of the directory or node in the pack */
	uint32_t dep;   /* while finishing: 1 + place in deps; 0: own node */
};

struct manifest {
	struct manifest_policy policy;
	struct item *items;
	uint32_t count, room;
	char *names;
	uint64_t names_size, names_room;
	uint32_t *table;     /* open addressing by (parent, name); NONE: free */
	uint32_t table_size; /* a power of two */
	uint64_t *deps;
	uint32_t dep_count, dep_room;
};

static uint32_t table_slot(const struct manifest *m, uint32_t parent, const char *name,
			   size_t size)
{
	uint64_t hash = XXH3_64bits_withSeed(name, size, parent);
	uint32_t slot = (uint32_t)hash & (m->table_size - 1);

	for (;; slot = (slot + 1) & (m->table_size - 1)) {
		const struct item *item;

		if (m->table[slot] == NONE)
			return slot;
		item = &m->items[m->table[slot]];
		if (item->parent == parent && item->name_size == size &&
		    !memcmp(m->names + item->name_offset, name, size))
			return slot;
	}
}

static int table_grow(struct manifest *m)
{
	uint32_t size = m->table_size ? m->table_size * 2 : 1024;
	uint32_t *table = malloc(size * sizeof(*table));

	if (!table)
		return -ENOMEM;
	free(m->table);
	m->table = table;
	m->table_size = size;
	memset(table, 0xff, size * sizeof(*table));
	for (uint32_t i = 1; i < m->count; i++) {
		const struct item *item = &m->items[i];

		table[table_slot(m, item->parent, m->names + item->name_offset,
				 item->name_size)] = i;
	}
	return 0;
}

static int names_append(struct manifest *m, const char *name, size_t size,
			uint32_t *ret_offset)
{
	if (m->names_size + size + 1 > m->names_room) {
		uint64_t room = m->names_room ? m->names_room * 2 : 65536;
		char *names = realloc(m->names, room);

		if (!names)
			return -ENOMEM;
		m->names = names;
		m->names_room = room;
	}
	*ret_offset = (uint32_t)m->names_size;
	memcpy(m->names + m->names_size, name, size);
	m->names[m->names_size + size] = '\0';
	m->names_size += size + 1;
	return 0;
}

/* Room for one more item in the array and in the table. */
static int item_room(struct manifest *m)
{
	if (m->count == m->room) {
		uint32_t room = m->room ? m->room * 2 : 1024;
		struct item *items = realloc(m->items, room * sizeof(*items));

		if (!items)
			return -ENOMEM;
		m->items = items;
		m->room = room;
	}
	return (m->count + 1) * 2 > m->table_size ? table_grow(m) : 0;
}

/* A new item, of the archive or a parent that it left out; it goes into the table unless
 * it is the root. */
static int item_new(struct manifest *m, uint32_t parent, const char *name, size_t size,
		    uint8_t type, uint32_t *ret, struct error *err)
{
	struct item *item;

	if (m->count >= PACK_ENTRIES_MAX)
		return error_set(err, -EBADMSG, "refused: more than %d entries",
				 PACK_ENTRIES_MAX - 1);
	if (item_room(m) < 0)
		return error_set(err, -ENOMEM, "not enough memory");
	item = &m->items[m->count];
	*item = (struct item){.parent = parent,
			      .name_size = (uint16_t)size,
			      .type = type,
			      .link = m->count,
			      .mode = 0755};
	if (names_append(m, name, size, &item->name_offset) < 0)
		return error_set(err, -ENOMEM, "not enough memory");
	if (m->count > 0)
		m->table[table_slot(m, parent, name, size)] = m->count;
	*ret = m->count++;
	return 0;
}

static uint32_t item_find(const struct manifest *m, uint32_t parent, const char *name,
			  size_t size)
{
	return m->table[table_slot(m, parent, name, size)];
}

struct manifest *manifest_new(const struct manifest_policy *policy)
{
	struct manifest *m = calloc(1, sizeof(*m));
	uint32_t root;

	if (!m)
		return NULL;
	m->policy = *policy;
	if (item_new(m, 0, "", 0, DT_DIR, &root, NULL) < 0) {
		manifest_free(m);
		return NULL;
	}
	return m;
}

void manifest_free(struct manifest *m)
{
	if (!m)
		return;
	free(m->items);
	free(m->names);
	free(m->table);
	free(m->deps);
	free(m);
}

static int refuse(const struct archive_item *item, const char *why, struct error *err)
{
	return error_set(err, -EBADMSG, "refused: entry '%s' %s", item->path, why);
}

/* Walk to the parent of the item's last component, making directories that are missing.
 */
static int walk_parents(struct manifest *m, const struct archive_item *item,
			uint32_t *ret_parent, const char **ret_name, struct error *err)
{
	const char *name = item->path, *slash;
	uint32_t parent = 0;

	for (; (slash = strchr(name, '/')); name = slash + 1) {
		size_t size = (size_t)(slash - name);
		uint32_t next = item_find(m, parent, name, size);

		if (next == NONE) {
			int r = item_new(m, parent, name, size, DT_DIR, &next, err);

			if (r < 0)
				return r;
			m->items[next].mtime_s = item->mtime_s;
			m->items[next].mtime_ns = item->mtime_ns;
		}
		if (m->items[next].type != DT_DIR)
			return refuse(item, "lies below a file or symlink", err);
		parent = next;
	}
	*ret_parent = parent;
	*ret_name = name;
	return 0;
}

static uint32_t find_path(const struct manifest *m, const char *path)
{
	uint32_t at = 0;

	while (*path) {
		size_t size = strcspn(path, "/");

		if (m->items[at].type != DT_DIR)
			return NONE;
		at = item_find(m, at, path, size);
		if (at == NONE)
			return NONE;
		path += size + (path[size] == '/');
	}
	return at;
}

/* ".." may only come first, where it climbs the real directories that the symlink lies
 * in: behind a name it would climb from wherever that name, which may be a symlink
 * itself, leads to. */
static bool target_contained(const char *path, const char *target)
{
	bool named = false;
	long depth = 0;

	if (target[0] == '/')
		return false;
	for (; *path; path++)
		depth += *path == '/';
	while (*target) {
		size_t size = strcspn(target, "/");

		if (size == 2 && !memcmp(target, "..", 2)) {
			if (named || --depth < 0)
				return false;
		} else if (size > 0 && !(size == 1 && target[0] == '.')) {
			named = true;
		}
		target += size + (target[size] == '/');
	}
	return true;
}

static int link_resolve(struct manifest *m, const struct archive_item *item,
			uint32_t *ret, struct error *err)
{
	uint32_t to = find_path(m, item->target);

	if (to == NONE)
		return refuse(item,
			      "is a hard link to a name that does not come before it",
			      err);
	if (m->items[to].type != DT_REG)
		return refuse(item, "is a hard link to something that is not a file",
			      err);
	*ret = m->items[to].link;
	return 0;
}

static void directory_set(struct item *item, const struct archive_item *from)
{
	item->given = true;
	item->mode = from->mode;
	item->mtime_s = from->mtime_s;
	item->mtime_ns = from->mtime_ns;
}

int manifest_add(struct manifest *m, const struct archive_item *item, uint32_t *ret,
		 struct error *err)
{
	static const uint8_t types[] = {
		[ARCHIVE_TYPE_DIRECTORY] = DT_DIR,
		[ARCHIVE_TYPE_FILE] = DT_REG,
		[ARCHIVE_TYPE_SYMLINK] = DT_LNK,
		[ARCHIVE_TYPE_HARDLINK] = DT_REG,
	};
	uint32_t parent = 0, number, link = NONE;
	const char *name = "";
	int r;

	if (item->path[0] == '\0') {
		if (m->items[0].given)
			return refuse(item, "(the root) comes twice", err);
		directory_set(&m->items[0], item);
		*ret = 0;
		return 0;
	}
	if (item->type == ARCHIVE_TYPE_HARDLINK) {
		r = link_resolve(m, item, &link, err);
		if (r < 0)
			return r;
	}
	if (item->type == ARCHIVE_TYPE_SYMLINK && m->policy.contained &&
	    !target_contained(item->path, item->target))
		return refuse(item,
			      "is a symlink that leaves the package, or could by way of "
			      "another, which this "
			      "application's 'symlinks: contained' forbids",
			      err);
	r = walk_parents(m, item, &parent, &name, err);
	if (r < 0)
		return r;
	number = item_find(m, parent, name, strlen(name));
	if (number != NONE && (item->type != ARCHIVE_TYPE_DIRECTORY ||
			       m->items[number].type != DT_DIR || m->items[number].given))
		return refuse(item, "comes twice", err);
	if (number == NONE) {
		r = item_new(m, parent, name, strlen(name), types[item->type], &number,
			     err);
		if (r < 0)
			return r;
	}
	directory_set(&m->items[number], item);
	if (link != NONE) {
		m->items[number].link = link;
		m->items[link].links++;
	}
	*ret = number;
	return 0;
}

void manifest_set_body(struct manifest *m, uint32_t number, const struct body *body)
{
	m->items[number].body = *body;
}

/* 1 + the place of a pack in deps. */
static int dep_of(struct manifest *m, uint64_t pack, uint32_t *ret)
{
	/* From the end: the packs of the last version are asked for again and again. */
	for (uint32_t i = m->dep_count; i > 0; i--) {
		if (m->deps[i - 1] == pack) {
			*ret = i;
			return 0;
		}
	}
	if (m->dep_count == m->dep_room) {
		uint32_t room = m->dep_room ? m->dep_room * 2 : 16;
		uint64_t *deps = realloc(m->deps, room * sizeof(*deps));

		if (!deps)
			return -ENOMEM;
		m->deps = deps;
		m->dep_room = room;
	}
	m->deps[m->dep_count++] = pack;
	*ret = m->dep_count;
	return 0;
}

static bool item_is_node(const struct manifest *m, uint32_t number)
{
	return m->items[number].type != DT_DIR && m->items[number].link == number;
}

static int node_make(struct manifest *m, struct item *item, manifest_share_fn *share,
		     void *context, struct pack_meta *meta,
		     struct manifest_summary *summary)
{
	struct pack_node node = {
		.mtime_s = item->mtime_s,
		.mtime_ns = item->mtime_ns,
		.mode = item->type == DT_LNK ? S_IFLNK | 0777 : S_IFREG | item->mode,
		.uid = m->policy.uid,
		.gid = m->policy.gid,
		.nlink = item->type == DT_LNK ? 1 : item->links + 1,
		.object = item->body.object,
	};
	uint64_t pack;
	int r = 0;

	if (item->type == DT_REG && node.nlink < PACK_NLINK_MIN)
		node.nlink = PACK_NLINK_MIN;
	summary->files++;
	if (share)
		r = share(context, &item->body, &node, &pack, &item->index);
	if (r < 0)
		return r;
	if (r > 0) {
		summary->shared++;
		return dep_of(m, pack, &item->dep);
	}
	if (item->body.pack) {
		r = dep_of(m, item->body.pack, &node.dep);
		if (r < 0)
			return r;
	}
	item->index = meta->node_count;
	meta->nodes[meta->node_count++] = node;
	return 0;
}

static int nodes_make(struct manifest *m, manifest_share_fn *share, void *context,
		      struct pack_meta *meta, struct manifest_summary *summary)
{
	uint32_t nodes = 0;

	for (uint32_t i = 0; i < m->count; i++)
		nodes += item_is_node(m, i);
	meta->nodes = calloc(nodes + 1, sizeof(meta->nodes[0]));
	if (!meta->nodes)
		return -ENOMEM;
	for (uint32_t i = 0; i < m->count; i++) {
		int r;

		if (!item_is_node(m, i))
			continue;
		r = node_make(m, &m->items[i], share, context, meta, summary);
		if (r < 0)
			return r;
	}
	for (uint32_t i = 0; i < m->count; i++) {
		const struct item *to = &m->items[m->items[i].link];

		m->items[i].index = to->index;
		m->items[i].dep = to->dep;
	}
	return 0;
}

static int dirs_make(struct manifest *m, struct pack_meta *meta)
{
	uint32_t dirs = 0, first = 0;

	for (uint32_t i = 0; i < m->count; i++)
		dirs += m->items[i].type == DT_DIR;
	meta->dirs = calloc(dirs, sizeof(meta->dirs[0]));
	if (!meta->dirs)
		return -ENOMEM;
	for (uint32_t i = 0; i < m->count; i++) {
		struct item *item = &m->items[i];

		if (item->type == DT_DIR) {
			item->index = meta->dir_count++;
			meta->dirs[item->index] = (struct pack_dir){
				.mtime_s = item->mtime_s,
				.mtime_ns = item->mtime_ns,
				.mode = item->mode,
				.uid = m->policy.uid,
				.gid = m->policy.gid,
				.parent = m->items[item->parent].index,
			};
		}
		if (i > 0) {
			struct pack_dir *parent =
				&meta->dirs[m->items[item->parent].index];

			parent->entry_count++;
			parent->subdir_count += item->type == DT_DIR;
		}
	}
	for (uint32_t i = 0; i < meta->dir_count; i++) {
		meta->dirs[i].first_entry = first;
		first += meta->dirs[i].entry_count;
	}
	return 0;
}

static int entry_compare(const void *left, const void *right, void *names)
{
	const struct pack_entry *a = left, *b = right;

	return strcmp((char *)names + a->name_offset, (char *)names + b->name_offset);
}

static int entries_make(struct manifest *m, struct pack_meta *meta)
{
	cleanup(free_ptr) uint32_t *filled = calloc(meta->dir_count, sizeof(*filled));

	meta->entry_count = m->count - 1;
	meta->entries = calloc(m->count, sizeof(meta->entries[0]));
	if (!filled || !meta->entries)
		return -ENOMEM;
	for (uint32_t i = 1; i < m->count; i++) {
		const struct item *item = &m->items[i];
		uint32_t dir = m->items[item->parent].index;

		meta->entries[meta->dirs[dir].first_entry + filled[dir]++] =
			(struct pack_entry){
				.name_offset = item->name_offset,
				.name_size = item->name_size,
				.type = item->type,
				.dep = item->dep,
				.index = item->index,
			};
	}
	for (uint32_t i = 0; i < meta->dir_count; i++)
		qsort_r(meta->entries + meta->dirs[i].first_entry,
			meta->dirs[i].entry_count, sizeof(meta->entries[0]),
			entry_compare, m->names);
	return 0;
}

/* A hash that is equal for names that differ in case only; 0 when there are no letters.
 */
static uint64_t folded_hash(const char *name, size_t size)
{
	wchar_t folded[PACK_COMPONENT_MAX + 1];
	mbstate_t state = {0};
	size_t count = 0;
	bool letters = false;

	while (size > 0 && count < PACK_COMPONENT_MAX) {
		wchar_t c;
		size_t n = mbrtowc(&c, name, size, &state);

		if (n == 0 || n > size)
			return 0;
		letters |= iswalpha((wint_t)c) != 0;
		folded[count++] = (wchar_t)towlower((wint_t)c);
		name += n;
		size -= n;
	}
	return letters ? XXH3_64bits(folded, count * sizeof(folded[0])) : 0;
}

struct twin {
	uint64_t hash;
	uint32_t item;
};

static int twin_compare(const void *left, const void *right)
{
	const struct twin *a = left, *b = right;

	if (a->hash != b->hash)
		return a->hash < b->hash ? -1 : 1;
	return a->item < b->item ? -1 : 1;
}

static void item_path(const struct manifest *m, uint32_t number,
		      char path[static PACK_PATH_MAX + 1])
{
	size_t at = PACK_PATH_MAX;

	path[at] = '\0';
	for (; number != 0; number = m->items[number].parent) {
		const struct item *item = &m->items[number];

		if (at < PACK_PATH_MAX)
			path[--at] = '/';
		at -= item->name_size;
		memcpy(path + at, m->names + item->name_offset, item->name_size);
	}
	memmove(path, path + at, PACK_PATH_MAX + 1 - at);
}

static int case_twins(struct manifest *m, struct manifest_summary *summary)
{
	cleanup(free_ptr) struct twin *twins = calloc(m->count, sizeof(*twins));
	uint32_t count = 0;

	if (!twins)
		return -ENOMEM;
	for (uint32_t i = 1; i < m->count; i++) {
		const struct item *item = &m->items[i];
		uint64_t hash =
			folded_hash(m->names + item->name_offset, item->name_size);

		if (hash)
			twins[count++] = (struct twin){
				XXH3_64bits_withSeed(&hash, sizeof(hash), item->parent),
				i};
	}
	qsort(twins, count, sizeof(*twins), twin_compare);
	for (uint32_t i = 1; i < count; i++) {
		if (twins[i].hash != twins[i - 1].hash)
			continue;
		if (summary->case_twins++ == 0)
			item_path(m, twins[i].item, summary->case_twin);
	}
	return 0;
}

int manifest_finish(struct manifest *m, manifest_share_fn *share, void *context,
		    struct pack_meta *ret, struct manifest_summary *ret_summary,
		    struct error *err)
{
	struct pack_meta meta = {0};
	int r;

	*ret_summary = (struct manifest_summary){0};
	r = dirs_make(m, &meta);
	if (r == 0)
		r = nodes_make(m, share, context, &meta, ret_summary);
	if (r == 0)
		r = entries_make(m, &meta);
	if (r == 0)
		r = case_twins(m, ret_summary);
	if (r < 0) {
		free(meta.dirs);
		free(meta.nodes);
		free(meta.entries);
		return error_set(err, r, "cannot finish the package's tree: %s",
				 strerror(-r));
	}
	ret->nodes = meta.nodes;
	ret->node_count = meta.node_count;
	ret->dirs = meta.dirs;
	ret->dir_count = meta.dir_count;
	ret->entries = meta.entries;
	ret->entry_count = meta.entry_count;
	ret->deps = take_ptr(m->deps);
	ret->dep_count = m->dep_count;
	ret->names = take_ptr(m->names);
	ret->names_size = m->names_size;
	return 0;
}

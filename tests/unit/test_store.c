/* SPDX-License-Identifier: Apache-2.0 */
/* The store with small real packages: in, shared, out, and what a crash leaves behind. */
#include "store.h"

#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "import.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* A store, and folders that are packed and imported into it. */
struct site {
	char dir[64];
	char store_path[80];
	struct store *store;
	char *buffer;    /* PACK_READ_BUFFER */
	uint64_t shared; /* files that the last import has shared */
	struct error err;
};

/* -Wl,--wrap: the N-th call fails; -1: none does */
static int calls_left = -1;
static bool counting;

static bool fails_now(void)
{
	return counting && calls_left >= 0 && calls_left-- == 0;
}

ssize_t __real_pwrite64(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t offset)
{
	if (!fails_now())
		return __real_pwrite64(fd, data, size, offset);
	errno = ENOSPC;
	return -1;
}

int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to)
{
	if (!fails_now())
		return __real_rename(from, to);
	errno = EIO;
	return -1;
}

int __real_syncfs(int fd);
int __wrap_syncfs(int fd);
int __wrap_syncfs(int fd)
{
	if (!fails_now())
		return __real_syncfs(fd);
	errno = EIO;
	return -1;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
	return fails_now() ? NULL : __real_malloc(size);
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
	return fails_now() ? NULL : __real_calloc(count, size);
}

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...)
{
	char command[2048];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	assert_int_equal(system(command), 0);
}

static void open_store(struct site *site)
{
	if (store_open(site->store_path, STORE_OWN, &site->store, &site->err) < 0)
		fail_msg("%s", site->err.text);
}

static void reopen_store(struct site *site)
{
	store_close(site->store);
	site->store = NULL;
	open_store(site);
}

static int site_setup(void **state)
{
	struct site *site = calloc(1, sizeof(*site));

	snprintf(site->dir, sizeof(site->dir), "/tmp/test-store-XXXXXX");
	assert_non_null(mkdtemp(site->dir));
	snprintf(site->store_path, sizeof(site->store_path), "%s/store", site->dir);
	site->buffer = malloc(PACK_READ_BUFFER);
	open_store(site);
	*state = site;
	return 0;
}

static int site_teardown(void **state)
{
	struct site *site = *state;

	counting = false;
	store_close(site->store);
	shell("rm -rf '%s'", site->dir);
	free(site->buffer);
	free(site);
	return 0;
}

/* Make the tree of a version by shell commands in its folder. */
#define TREE(site, version, commands)                                              \
	shell("mkdir -p '%s/%s' && cd '%s/%s' && { %s\n} && find . -exec touch -h" \
	      " -d @1700000000 {} +",                                              \
	      (site)->dir, version, (site)->dir, version, commands)

/* "fill NAME BYTES SEED": a file of bytes that follow from the seed */
#define FILL "fill() { yes \"$3\" | head -c $2 > \"$1\"; }; "

static int pack_open(struct site *site)
{
	char path[4096];
	int fd = open(store_path(site->store, "tmp/new", path),
		      O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	return fd;
}

/* A complete pack of the version's tree in tmp/new. */
static int import_tree(struct site *site, const char *version)
{
	struct import_watch watch = {0};
	struct import_result result;
	struct import_request request = {.pack_fd = pack_open(site)};
	char path[256];
	int r;

	shell("tar -C '%s/%s' --sort=name --owner=0 --group=0 -cf '%s/%s.tar' .",
	      site->dir, version, site->dir, version);
	snprintf(path, sizeof(path), "%s/%s.tar", site->dir, version);
	request.archive.fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(request.archive.fd >= 0);
	request.archive_size = (uint64_t)lseek(request.archive.fd, 0, SEEK_END);
	r = import_package(site->store, &request, &watch, &result, &site->err);
	close(request.archive.fd);
	if (r < 0)
		fail_msg("%s", site->err.text);
	site->shared = result.shared;
	return request.pack_fd;
}

static struct version version_of(const char *name)
{
	struct version version = {.package_bytes = 1,
				  .files = 7,
				  .verified = "off",
				  .imported_ns = clock_wall_ns()};

	snprintf(version.app, sizeof(version.app), "shop");
	snprintf(version.name, sizeof(version.name), "%s", name);
	memcpy(version.sha256, name, strlen(name));
	return version;
}

static void publish(struct site *site, const char *name)
{
	cleanup(change_list_done) struct change_list changes = {0};
	cleanup(fd_close) int fd = import_tree(site, name);
	struct version version = version_of(name);

	if (store_adopt(site->store, fd, "new", &version, &site->err) < 0 ||
	    store_add(site->store, &version, &changes, &site->err) < 0 ||
	    store_index(site->store, &site->err) < 0)
		fail_msg("%s", site->err.text);
}

static void forget(struct site *site, const char *name)
{
	cleanup(change_list_done) struct change_list changes = {0};
	struct catalog *catalog = site->store->catalog;
	struct version version;

	if (catalog_hide(catalog, "shop", name, NULL, &changes, &site->err) < 0 ||
	    catalog_find(catalog, "shop", name, &version, &site->err) < 0 ||
	    catalog_forget(catalog, version.id, &site->err) < 0)
		fail_msg("%s", site->err.text);
}

static uint64_t swept(struct site *site)
{
	uint64_t freed = 0;

	if (store_sweep(site->store, &freed, &site->err) < 0)
		fail_msg("%s", site->err.text);
	return freed;
}

static uint64_t pack_id_of(struct site *site, const char *version)
{
	struct version found;

	assert_int_equal(
		catalog_find(site->store->catalog, "shop", version, &found, NULL), 0);
	return found.pack;
}

static struct pack *pack_of(struct site *site, const char *name)
{
	struct version version;
	struct pack *pack;

	assert_int_equal(catalog_find(site->store->catalog, "shop", name, &version, NULL),
			 0);
	pack = pack_set_get(site->store->packs, version.pack);
	assert_non_null(pack);
	if (pack_load(pack, &site->err) < 0)
		fail_msg("%s", site->err.text);
	return pack;
}

static void assert_file(struct site *site, const struct pack_stat *stat, const char *path)
{
	struct pack *pack = pack_set_find(site->store->packs, stat->node);
	cleanup(fd_close) int fd = open(path, O_RDONLY);
	uint32_t object;
	const struct pack *holder;

	assert_true(fd >= 0);
	assert_non_null(pack);
	assert_int_equal(lseek(fd, 0, SEEK_END), stat->size);
	assert_int_equal(pack_node_object(pack,
					  (uint32_t)(stat->node - pack->key.first_node),
					  &holder, &object),
			 0);
	for (uint64_t at = 0; at < stat->size; at += 65536) {
		char expected[65536];
		const void *data;
		size_t size;

		if (pack_read_object(holder, object, at, sizeof(expected), true,
				     site->buffer, &data, &size) < 0)
			fail_msg("cannot read '%s'", path);
		assert_int_equal(fd_pread_all(fd, expected, size, at), 0);
		assert_memory_equal(data, expected, size);
	}
	pack_unref(pack);
}

static void assert_directory(struct site *site, const struct pack *pack, uint32_t dir,
			     const char *path)
{
	struct pack_name name;
	uint32_t at = 0, expected = 0;
	DIR *host = opendir(path);

	assert_non_null(host);
	for (; pack_list(pack, dir, at, &name); at++) {
		struct pack_stat stat;
		char below[4096];

		snprintf(below, sizeof(below), "%s/%s", path, name.name);
		assert_int_equal(pack_stat_entry(pack, dir, at, &stat), 0);
		assert_int_equal(stat.node, name.node);
		if (name.type == DT_DIR)
			assert_directory(site, pack,
					 (uint32_t)(name.node - pack->key.first_node -
						    pack->key.node_count),
					 below);
		else if (name.type == DT_REG)
			assert_file(site, &stat, below);
	}
	while (readdir(host))
		expected++;
	closedir(host);
	assert_int_equal(at, expected - 2);
}

/* Every name and byte of a version is what its folder has. */
static void assert_whole(struct site *site, const char *version)
{
	struct pack *pack = pack_of(site, version);
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", site->dir, version);
	assert_directory(site, pack, 0, path);
	pack_unref(pack);
}

static uint64_t node_of(struct site *site, const char *version, const char *name)
{
	struct pack *pack = pack_of(site, version);
	struct pack_stat stat;

	assert_int_equal(pack_lookup(pack, 0, name, &stat), 0);
	pack_unref(pack);
	return stat.node;
}

/* Files in a folder of the store. */
static int files_in(struct site *site, const char *folder)
{
	char path[4096];
	DIR *dir = opendir(store_path(site->store, folder, path));
	int count = -2;

	assert_non_null(dir);
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static uint64_t disk_bytes(struct site *site, uint64_t pack)
{
	char path[4096];
	struct stat st;

	assert_int_equal(stat(pack_path(site->store->packs, pack, path), &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static const char small_tree[] =
	FILL "mkdir -p bin lib/empty; fill bin/run 100000 run; fill lib/a 3000 a;"
	     " : > lib/nothing; ln -s ../bin/run lib/link; ln bin/run bin/again";

static void adopted_version_is_what_the_archive_held(void **state)
{
	struct site *site = *state;

	TREE(site, "1.0", small_tree);
	publish(site, "1.0");
	assert_whole(site, "1.0");
	assert_int_equal(files_in(site, "tmp"), 0);
	reopen_store(site);
	assert_whole(site, "1.0");
}

static void equal_files_of_two_versions_have_one_id(void **state)
{
	struct site *site = *state;
	struct pack *pack;

	TREE(site, "1.0", FILL "fill same 50000 s; fill other 5000 1; fill old 500 x");
	TREE(site, "1.1", FILL "fill same 50000 s; fill other 5000 2; fill twin 50000 s");
	publish(site, "1.0");
	publish(site, "1.1");
	assert_int_equal(site->shared, 1);
	assert_int_equal(node_of(site, "1.0", "same"), node_of(site, "1.1", "same"));
	assert_int_not_equal(node_of(site, "1.0", "other"),
			     node_of(site, "1.1", "other"));
	/* Equal files of one version are two ids over one body (I2). */
	assert_int_not_equal(node_of(site, "1.1", "same"), node_of(site, "1.1", "twin"));
	pack = pack_of(site, "1.1");
	assert_int_equal(pack->meta.object_count, 1);
	pack_unref(pack);
	assert_whole(site, "1.0");
	assert_whole(site, "1.1");
}

static void removed_version_leaves_what_others_share_and_nothing_else(void **state)
{
	struct site *site = *state;
	uint64_t pack, before;

	TREE(site, "1.0",
	     FILL "mkdir d; fill big 900000 b; fill keep 300000 k;"
		  " fill moved 200000 m; fill d/x 7000 x");
	TREE(site, "1.1",
	     FILL "mkdir d; fill keep 300000 k; fill d/x 7000 x; fill renamed 200000 m;"
		  " fill new 4000 n");
	shell("touch -d @1800000000 '%s/1.1/renamed'", site->dir);
	publish(site, "1.0");
	publish(site, "1.1");
	pack = pack_id_of(site, "1.0");
	before = disk_bytes(site, pack);
	forget(site, "1.0");
	assert_true(swept(site) >= 890000);
	assert_true(disk_bytes(site, pack) < before - 890000);
	assert_whole(site, "1.1");
	reopen_store(site);
	assert_whole(site, "1.1");
	assert_int_equal(swept(site), 0);
}

static void small_dead_bodies_side_by_side_give_their_blocks_back(void **state)
{
	struct site *site = *state;

	TREE(site, "1.0",
	     FILL "fill keep 5000 k; for n in $(seq 100 500); do"
		  " fill dead$n 1000 $n; done; fill z 5000 z");
	TREE(site, "1.1", FILL "fill keep 5000 k; fill z 5000 z");
	publish(site, "1.0");
	publish(site, "1.1");
	forget(site, "1.0");
	assert_true(swept(site) >= 380000);
	assert_whole(site, "1.1");
}

static void content_of_a_removed_chain_is_freed_when_nobody_needs_it(void **state)
{
	struct site *site = *state;

	TREE(site, "1.0", FILL "fill a 500000 a; fill base 4000 base");
	TREE(site, "1.1", FILL "fill a 500000 a; fill b 5000 b; fill base 4000 base");
	TREE(site, "1.2", FILL "fill b 5000 b; fill base 4000 base");
	publish(site, "1.0");
	publish(site, "1.1");
	publish(site, "1.2");
	forget(site, "1.0");
	assert_true(swept(site) < 100000); /* 1.1 has it */
	assert_whole(site, "1.1");
	forget(site, "1.1");
	assert_true(swept(site) >= 490000);
	assert_whole(site, "1.2");
	assert_int_equal(swept(site), 0);
	reopen_store(site);
	assert_whole(site, "1.2");
}

static void body_that_a_removed_versions_node_uses_is_kept_for_it(void **state)
{
	struct site *site = *state;

	/* 1.1 has 1.0's body under another mtime: a node of its own, which 1.2 shares. */
	TREE(site, "1.0", FILL "fill a 200000 a");
	TREE(site, "1.1", FILL "fill a 200000 a");
	TREE(site, "1.2", FILL "fill a 200000 a");
	shell("cd '%s' && touch -d @1800000000 1.1/a 1.2/a", site->dir);
	publish(site, "1.0");
	publish(site, "1.1");
	publish(site, "1.2");
	assert_int_equal(node_of(site, "1.1", "a"), node_of(site, "1.2", "a"));
	forget(site, "1.0");
	forget(site, "1.1");
	swept(site);
	assert_whole(site, "1.2");
	reopen_store(site);
	assert_whole(site, "1.2");
	forget(site, "1.2");
	swept(site);
	assert_int_equal(files_in(site, "packs"), 0);
}

static void removing_all_versions_leaves_no_pack(void **state)
{
	struct site *site = *state;
	uint64_t bytes = 1;

	TREE(site, "1.0", small_tree);
	TREE(site, "1.1", small_tree);
	TREE(site, "1.2", small_tree);
	publish(site, "1.0");
	publish(site, "1.1");
	publish(site, "1.2");
	forget(site, "1.1");
	assert_true(swept(site) < 1 << 20);
	forget(site, "1.0");
	forget(site, "1.2");
	swept(site);
	assert_int_equal(files_in(site, "packs"), 0);
	assert_int_equal(catalog_bytes(site->store->catalog, &bytes, NULL), 0);
	assert_int_equal(bytes, 0);
	assert_true(index_empty(site->store->index));
}

static void what_was_freed_is_not_shared_again(void **state)
{
	struct site *site = *state;

	TREE(site, "1.0", FILL "fill gone 300000 g; fill keep 5000 k");
	TREE(site, "1.1", FILL "fill keep 5000 k");
	TREE(site, "1.2", FILL "fill gone 300000 g; fill keep 5000 k");
	publish(site, "1.0");
	publish(site, "1.1");
	forget(site, "1.0");
	swept(site);
	publish(site, "1.2");
	assert_int_equal(site->shared, 1);
	assert_whole(site, "1.1");
	assert_whole(site, "1.2");
}

static void what_was_freed_reads_as_an_error_not_as_zeros(void **state)
{
	struct site *site = *state;
	struct pack *pack;
	const void *data;
	size_t size;

	TREE(site, "1.0", FILL "fill gone 300000 g; fill keep 5000 k");
	TREE(site, "1.1", FILL "fill keep 5000 k");
	publish(site, "1.0");
	publish(site, "1.1");
	pack = pack_of(site, "1.0");
	assert_int_equal(pack_read_object(pack, 0, 0, 300000, false, site->buffer, &data,
					  &size),
			 0);
	forget(site, "1.0");
	swept(site);
	assert_int_equal(pack_read_object(pack, 0, 0, 300000, false, site->buffer, &data,
					  &size),
			 -EBADMSG);
	pack_unref(pack);
}

static void damage(struct site *site, uint64_t pack)
{
	char path[4096];
	cleanup(fd_close) int fd =
		open(pack_path(site->store->packs, pack, path), O_WRONLY);

	assert_int_equal(fd_pwrite_all(fd, "damaged", 7, 0), 0);
	assert_int_equal(
		fd_pwrite_all(fd, "damaged", 7,
			      (uint64_t)lseek(fd, 0, SEEK_END) - PACK_HEADER_SIZE),
		0);
}

static void damaged_version_keeps_its_deps_and_stops_no_sweep(void **state)
{
	struct site *site = *state;

	TREE(site, "1.0", FILL "fill shared 100000 s; fill a 300000 a");
	TREE(site, "1.1", FILL "fill shared 100000 s");
	TREE(site, "2.0", FILL "fill x 300000 x");
	publish(site, "1.0");
	publish(site, "1.1");
	publish(site, "2.0");
	damage(site, pack_id_of(site, "1.1"));
	reopen_store(site);
	forget(site, "1.0");
	forget(site, "2.0");
	assert_true(swept(site) >= 300000);
	assert_int_equal(files_in(site, "packs"), 2);
	assert_int_equal(swept(site), 0);
	forget(site, "1.1");
	swept(site);
	assert_int_equal(files_in(site, "packs"), 0);
}

static void damaged_ghost_stays_while_somebody_needs_it(void **state)
{
	struct site *site = *state;

	TREE(site, "1.0", FILL "fill shared 100000 s; fill a 300000 a");
	TREE(site, "1.1", FILL "fill shared 100000 s");
	publish(site, "1.0");
	publish(site, "1.1");
	damage(site, pack_id_of(site, "1.0"));
	reopen_store(site);
	forget(site, "1.0");
	assert_int_equal(swept(site), 0);
	assert_int_equal(files_in(site, "packs"), 2);
	forget(site, "1.1");
	swept(site);
	assert_int_equal(files_in(site, "packs"), 0);
}

static void pack_whose_dep_is_missing_stops_no_indexing(void **state)
{
	struct site *site = *state;
	char path[4096];

	TREE(site, "1.0", FILL "fill shared 100000 s");
	TREE(site, "1.1", FILL "fill shared 100000 s");
	TREE(site, "1.2", FILL "fill other 100000 o");
	TREE(site, "1.3", FILL "fill other 100000 o");
	publish(site, "1.0");
	publish(site, "1.1");
	publish(site, "1.2");
	pack_set_drop(site->store->packs, pack_id_of(site, "1.0"));
	pack_set_drop(site->store->packs, pack_id_of(site, "1.1"));
	unlink(pack_path(site->store->packs, pack_id_of(site, "1.0"), path));
	store_close(site->store);
	site->store = NULL;
	shell("rm '%s/store/index.db'", site->dir);
	open_store(site);
	pack_set_drop(site->store->packs, pack_id_of(site, "1.0"));
	assert_int_equal(store_index(site->store, &site->err), 0);
	publish(site, "1.3");
	assert_int_equal(site->shared, 1);
}

static void lost_index_is_made_again_from_the_packs(void **state)
{
	struct site *site = *state;

	TREE(site, "1.0", small_tree);
	TREE(site, "1.1", small_tree);
	publish(site, "1.0");
	store_close(site->store);
	site->store = NULL;
	shell("echo not a database at all, only some text > '%s/store/index.db'",
	      site->dir);
	open_store(site);
	assert_int_equal(store_index(site->store, &site->err), 0);
	publish(site, "1.1");
	assert_int_equal(site->shared, 4);
	assert_whole(site, "1.1");
}

static void leftovers_of_a_crash_go_at_the_next_start(void **state)
{
	struct site *site = *state;

	TREE(site, "1.0", small_tree);
	publish(site, "1.0");
	shell("cd '%s/store' && touch tmp/half packs/99.pack packs/x packs/1.pack.tmp"
	      " partial/new && touch -d '-8 days' partial/old",
	      site->dir);
	reopen_store(site);
	assert_int_equal(files_in(site, "tmp"), 0);
	assert_int_equal(files_in(site, "packs"), 1);
	assert_int_equal(files_in(site, "partial"), 1);
	assert_whole(site, "1.0");
}

static void adopted_pack_without_a_version_goes_at_the_next_start(void **state)
{
	struct site *site = *state;
	struct version version = version_of("1.0");
	cleanup(fd_close) int fd = -1;

	TREE(site, "1.0", small_tree);
	fd = import_tree(site, "1.0");
	assert_int_equal(store_adopt(site->store, fd, "new", &version, &site->err), 0);
	assert_int_equal(files_in(site, "packs"), 1);
	reopen_store(site);
	assert_int_equal(files_in(site, "packs"), 0);
	publish(site, "1.0");
	assert_true(pack_id_of(site, "1.0") > version.pack);
}

static void flip_to(struct site *site, const char *version)
{
	cleanup(change_list_done) struct change_list changes = {0};
	struct flip flip;

	if (catalog_flip(site->store->catalog, "shop", "current", version, "root", "",
			 NULL, &flip, &changes, &site->err) < 0)
		fail_msg("%s", site->err.text);
}

static void back_up(struct site *site)
{
	char path[4096];

	if (catalog_backup(site->store->catalog,
			   store_path(site->store, "catalog.bak", path), &site->err) < 0)
		fail_msg("%s", site->err.text);
}

static void close_store(struct site *site)
{
	store_close(site->store);
	site->store = NULL;
}

static void lose_catalog(struct site *site)
{
	close_store(site);
	shell("cd '%s' && rm -f catalog.db catalog.db-wal catalog.db-shm",
	      site->store_path);
}

static int current_is(void *context, const struct channel *channel)
{
	if (!strcmp(channel->name, "current"))
		snprintf(context, NAME_LENGTH_MAX + 1, "%s", channel->version);
	return 0;
}

static void assert_current(struct site *site, const char *version)
{
	char is[NAME_LENGTH_MAX + 1] = "";

	assert_int_equal(catalog_each_channel(site->store->catalog, "shop", current_is,
					      is, &site->err),
			 0);
	assert_string_equal(is, version);
}

static uint64_t next_node(struct site *site)
{
	uint64_t pack, node;

	assert_int_equal(catalog_reserve(site->store->catalog, 1, &pack, &node, NULL), 0);
	return node;
}

/* 1.0 and 1.1, which share, and the channel at 1.1. */
static void fill_store(struct site *site)
{
	TREE(site, "1.0", FILL "fill keep 50000 k; fill a 9000 a");
	TREE(site, "1.1", FILL "fill keep 50000 k; fill b 9000 b; ln -s b link");
	publish(site, "1.0");
	publish(site, "1.1");
	flip_to(site, "1.0");
	flip_to(site, "1.1");
}

static void lost_catalog_is_rebuilt_from_the_packs(void **state)
{
	struct site *site = *state;
	struct version before, after;
	uint64_t next;

	fill_store(site);
	next = next_node(site);
	assert_int_equal(catalog_find(site->store->catalog, "shop", "1.1", &before, NULL),
			 0);
	lose_catalog(site);
	open_store(site);
	assert_whole(site, "1.0");
	assert_whole(site, "1.1");
	assert_current(site, "");
	assert_int_equal(catalog_find(site->store->catalog, "shop", "1.1", &after, NULL),
			 0);
	assert_int_equal(after.pack, before.pack);
	assert_int_equal(after.first_node, before.first_node);
	assert_memory_equal(after.sha256, before.sha256, SHA256_SIZE);
	assert_int_equal(after.files, before.files);
	assert_int_equal(after.imported_ns, before.imported_ns);
	assert_string_equal(after.verified, before.verified);
	assert_true(next_node(site) > next);
	flip_to(site, "1.0");
	reopen_store(site);
	assert_current(site, "1.0");
}

static void lost_catalog_is_rebuilt_from_its_copy(void **state)
{
	struct site *site = *state;
	uint64_t next;

	fill_store(site);
	assert_int_equal(
		catalog_pin(site->store->catalog, "shop", "1.0", true, NULL, NULL), 1);
	back_up(site);
	TREE(site, "1.2", "echo later than the copy > file");
	publish(site, "1.2");
	flip_to(site, "1.0");
	next = next_node(site);
	lose_catalog(site);
	open_store(site);
	assert_current(site, "1.1");
	assert_whole(site, "1.0");
	assert_whole(site, "1.1");
	assert_whole(site, "1.2");
	assert_true(next_node(site) > next);
	assert_int_equal(
		catalog_pin(site->store->catalog, "shop", "1.0", true, NULL, NULL), 0);
}

/* The copy vouches for the catalog at the next start: what is damaged gets into none. */
static void damaged_catalog_is_not_copied(void **state)
{
	struct site *site = *state;
	char path[4096];

	fill_store(site);
	back_up(site);
	close_store(site);
	open_store(site);
	shell("cd '%s' && cp catalog.bak before && dd if=/dev/zero of=catalog.db bs=4096 "
	      "seek=1 count=20 conv=notrunc status=none",
	      site->store_path);
	assert_int_equal(catalog_backup(site->store->catalog,
					store_path(site->store, "catalog.bak", path),
					&site->err),
			 -EBADMSG);
	shell("cd '%s' && cmp catalog.bak before", site->store_path);
	reopen_store(site);
	assert_current(site, "1.1");
	assert_whole(site, "1.1");
}

static void removed_version_does_not_come_back(void **state)
{
	struct site *site = *state;
	struct version version;

	for (int copy = 0; copy < 2; copy++) {
		TREE(site, "1.0", FILL "fill keep 50000 k; fill a 9000 a");
		TREE(site, "1.1", FILL "fill keep 50000 k; fill b 9000 b");
		publish(site, "1.0");
		publish(site, "1.1");
		if (copy)
			back_up(site);
		forget(site, "1.0");
		swept(site);
		lose_catalog(site);
		open_store(site);
		assert_whole(site, "1.1");
		assert_true(catalog_find(site->store->catalog, "shop", "1.0", &version,
					 NULL) == -ENOENT ||
			    version.state == VERSION_REMOVED);
		assert_int_equal(files_in(site, "packs"), 2);
		/* Fetched again it is a version again, over a further rebuild. */
		publish(site, "1.0");
		lose_catalog(site);
		open_store(site);
		assert_whole(site, "1.0");
		close_store(site);
		shell("rm -rf '%s'", site->store_path);
		open_store(site);
	}
}

static void pack_without_a_readable_header_is_put_aside(void **state)
{
	struct site *site = *state;
	uint64_t next;

	fill_store(site);
	TREE(site, "2.0", FILL "fill x 3000 x");
	publish(site, "2.0");
	next = next_node(site);
	damage(site, pack_id_of(site, "2.0"));
	lose_catalog(site);
	open_store(site);
	assert_whole(site, "1.0");
	assert_whole(site, "1.1");
	assert_int_equal(files_in(site, "packs"), 3);
	assert_true(next_node(site) > next);
	shell("ls '%s'/packs/*.pack.damaged > /dev/null", site->store_path);
}

static void catalog_older_than_its_packs_is_brought_up_to_date(void **state)
{
	struct site *site = *state;

	fill_store(site);
	close_store(site);
	shell("cp '%s/catalog.db' '%s/old.db'", site->store_path, site->dir);
	open_store(site);
	TREE(site, "1.2", "echo later > file");
	publish(site, "1.2");
	lose_catalog(site);
	shell("cp '%s/old.db' '%s/catalog.db'", site->dir, site->store_path);
	open_store(site);
	assert_whole(site, "1.2");
	assert_current(site, "1.1");
}

/* What a WAL that lost its end leaves: whole, but older than the copy. */
static void catalog_older_than_its_copy_is_brought_up_to_date(void **state)
{
	struct site *site = *state;

	fill_store(site);
	close_store(site);
	shell("cp '%s/catalog.db' '%s/old.db'", site->store_path, site->dir);
	open_store(site);
	flip_to(site, "1.0");
	back_up(site);
	lose_catalog(site);
	shell("cp '%s/old.db' '%s/catalog.db'", site->dir, site->store_path);
	open_store(site);
	assert_current(site, "1.0");
}

static void newer_catalog_is_refused_and_kept(void **state)
{
	struct site *site = *state;
	struct store *other = NULL;

	fill_store(site);
	back_up(site);
	close_store(site);
	shell("sqlite3 '%s/catalog.db' 'CREATE TABLE later(x); PRAGMA user_version = 99;'"
	      " && cp '%s/catalog.db' '%s/newer.db'",
	      site->store_path, site->store_path, site->dir);
	assert_int_equal(store_open(site->store_path, STORE_OWN, &other, &site->err),
			 -EBADMSG);
	assert_non_null(strstr(site->err.text, "newer"));
	shell("sqlite3 '%s/catalog.db' 'SELECT * FROM later' && cd '%s' &&"
	      " [ ! -e catalog.db.damaged ]",
	      site->store_path, site->store_path);
	/* With our own schema the number is what is damaged. */
	shell("sqlite3 '%s/catalog.db' 'DROP TABLE later;'", site->store_path);
	open_store(site);
	assert_whole(site, "1.1");
	assert_current(site, "1.1");
}

static void sum_of_folder(struct site *site, char text[static 65])
{
	char command[300];
	FILE *pipe;

	snprintf(command, sizeof(command),
		 "cd '%s' && cat packs/* | sha256sum | head -c 64", site->store_path);
	pipe = popen(command, "r");
	assert_non_null(pipe);
	assert_int_equal(fread(text, 1, 64, pipe), 64);
	text[64] = '\0';
	pclose(pipe);
}

/* Any bytes, anywhere in the catalog: every version serves, no id is given out again, and
 * where there is a copy the channel is where it was. */
static void catalog_survives_random_damage(void **state)
{
	struct site *site = *state;
	const char *given = getenv("DEPLOYFS_TEST_SEED");
	unsigned seed = given ? (unsigned)atoi(given) : (unsigned)(clock_wall_ns() >> 10);
	char before[65], after[65];
	uint64_t next;

	print_message("DEPLOYFS_TEST_SEED=%u\n", seed);
	fill_store(site);
	for (int i = 0; i < 30; i++)
		flip_to(site, i % 2 ? "1.1" : "1.0");
	back_up(site);
	next = next_node(site);
	close_store(site);
	shell("cp -a '%s' '%s/whole'", site->store_path, site->dir);
	sum_of_folder(site, before);
	for (int round = 0; round < 60; round++) {
		char path[200];
		unsigned char bytes[64];
		struct stat st;
		size_t size;
		int fd;

		shell("rm -rf '%s' && cp -a '%s/whole' '%s'", site->store_path, site->dir,
		      site->store_path);
		snprintf(path, sizeof(path), "%s/catalog.%s", site->store_path,
			 round % 6 == 5 ? "bak" : "db");
		if (round % 6 == 4)
			shell("rm '%s/catalog.bak'", site->store_path);
		fd = open(path, O_RDWR);
		assert_true(fd >= 0 && fstat(fd, &st) == 0);
		size = round % 3 ? 1 : (size_t)rand_r(&seed) % sizeof(bytes) + 1;
		for (size_t i = 0; i < size; i++)
			bytes[i] = (unsigned char)rand_r(&seed);
		/* Pages in use: the room that is kept behind them is of zeros. */
		assert_int_equal(fd_pwrite_all(fd, bytes, size,
					       (uint64_t)rand_r(&seed) % (120 * 1024)),
				 0);
		close(fd);
		open_store(site);
		assert_whole(site, "1.0");
		assert_whole(site, "1.1");
		assert_true(next_node(site) >= next);
		if (round % 6 != 4)
			assert_current(site, "1.1");
		flip_to(site, "1.0");
		reopen_store(site);
		assert_current(site, "1.0");
		close_store(site);
		sum_of_folder(site, after);
		assert_string_equal(after, before);
	}
	open_store(site);
}

static void second_daemon_is_told_who_has_the_store(void **state)
{
	struct site *site = *state;
	struct store *other = NULL;
	char pid[32];

	assert_int_equal(store_open(site->store_path, STORE_OWN, &other, &site->err),
			 -EBUSY);
	assert_null(other);
	snprintf(pid, sizeof(pid), "(pid %d)", (int)getpid());
	assert_non_null(strstr(site->err.text, pid));
	assert_int_equal(store_open(site->store_path, STORE_READ, &other, &site->err), 0);
	store_close(other);
	assert_int_equal(store_open(site->store_path, STORE_OWN, &other, &site->err),
			 -EBUSY);
	reopen_store(site);
}

static void store_that_others_can_change_is_refused(void **state)
{
	struct site *site = *state;
	struct store *other = NULL;

	store_close(site->store);
	site->store = NULL;
	shell("chmod 770 '%s'", site->store_path);
	assert_int_equal(store_open(site->store_path, STORE_OWN, &other, &site->err),
			 -EPERM);
	shell("chmod 700 '%s' && ln -s store '%s/link'", site->store_path, site->dir);
	snprintf(site->store_path, sizeof(site->store_path), "%s/link", site->dir);
	assert_int_equal(store_open(site->store_path, STORE_OWN, &other, &site->err),
			 -EPERM);
	assert_null(other);
}

static void garbage_is_not_adopted(void **state)
{
	struct site *site = *state;
	struct version version = version_of("1.0");

	TREE(site, "1.0", small_tree);
	for (int cut = 0; cut < 3; cut++) {
		cleanup(fd_close) int fd = import_tree(site, "1.0");

		if (cut == 0)
			assert_int_equal(ftruncate(fd, 0), 0);
		else if (cut == 1)
			assert_int_equal(ftruncate(fd, PACK_HEADER_SIZE + 50), 0);
		else
			assert_int_equal(fd_pwrite_all(fd, "\xff\xff", 2, 80), 0);
		assert_int_equal(store_adopt(site->store, fd, "new", &version,
					     &site->err),
				 -EBADMSG);
		assert_int_equal(files_in(site, "packs"), 0);
	}
	publish(site, "1.0");
	assert_whole(site, "1.0");
}

static void other_content_of_a_known_version_is_refused_and_removed(void **state)
{
	struct site *site = *state;
	cleanup(change_list_done) struct change_list changes = {0};
	struct version version = version_of("1.0");
	cleanup(fd_close) int fd = -1;

	TREE(site, "1.0", small_tree);
	publish(site, "1.0");
	fd = import_tree(site, "1.0");
	version.sha256[5] = 1;
	assert_int_equal(store_adopt(site->store, fd, "new", &version, &site->err), 0);
	assert_int_equal(store_add(site->store, &version, &changes, &site->err), -EEXIST);
	assert_int_equal(changes.count, 0);
	assert_int_equal(files_in(site, "packs"), 1);
	assert_whole(site, "1.0");
}

static void hidden_version_comes_back_instead_of_the_new_pack(void **state)
{
	struct site *site = *state;
	cleanup(change_list_done) struct change_list changes = {0}, gone = {0};
	struct version version = version_of("1.0");
	cleanup(fd_close) int fd = -1;
	uint64_t pack;

	TREE(site, "1.0", small_tree);
	publish(site, "1.0");
	pack = pack_id_of(site, "1.0");
	assert_int_equal(
		catalog_hide(site->store->catalog, "shop", "1.0", NULL, &gone, NULL), 0);
	fd = import_tree(site, "1.0");
	assert_int_equal(store_adopt(site->store, fd, "new", &version, &site->err), 0);
	assert_int_equal(store_add(site->store, &version, &changes, &site->err), 0);
	assert_int_equal(pack_id_of(site, "1.0"), pack);
	assert_int_equal(files_in(site, "packs"), 1);
	assert_whole(site, "1.0");
}

static void every_failing_call_of_an_adoption_leaves_the_old_state(void **state)
{
	struct site *site = *state;
	int n = 0, r;

	TREE(site, "1.0", small_tree);
	TREE(site, "1.1", FILL "mkdir -p bin; fill bin/run 100000 run; fill new 9000 n");
	publish(site, "1.0");
	do {
		cleanup(fd_close) int fd = import_tree(site, "1.1");
		struct version version = version_of("1.1");

		calls_left = n;
		counting = true;
		r = store_adopt(site->store, fd, "new", &version, &site->err);
		counting = false;
		if (r < 0)
			assert_int_equal(files_in(site, "packs"), 1);
		assert_whole(site, "1.0");
		if (r == 0)
			store_unlink_pack(site->store, version.pack);
	} while (r < 0 && ++n < 100);
	print_message("%d calls failed in turn\n", n);
	assert_true(n >= 4 && n < 100);
	reopen_store(site);
	publish(site, "1.1");
	assert_whole(site, "1.1");
}

static void every_failing_allocation_of_a_sweep_leaves_the_versions_whole(void **state)
{
	struct site *site = *state;
	uint64_t freed;
	int n = 0, r;

	TREE(site, "1.0", FILL "fill a 300000 a; fill keep 5000 k");
	TREE(site, "1.1", FILL "fill keep 5000 k");
	publish(site, "1.0");
	publish(site, "1.1");
	forget(site, "1.0");
	do {
		calls_left = n;
		counting = true;
		r = store_sweep(site->store, &freed, &site->err);
		counting = false;
		assert_whole(site, "1.1");
	} while (r < 0 && ++n < 1000);
	assert_true(n > 0 && n < 1000);
	assert_true(freed >= 290000);
}

static void partial_downloads_are_listed(void **state)
{
	struct site *site = *state;
	struct partial *partials;
	size_t count;

	shell("cd '%s/store/partial' && for i in $(seq 40); do echo x > $i; done &&"
	      " mkdir dir",
	      site->dir);
	assert_int_equal(store_partials(site->store, &partials, &count, &site->err), 0);
	assert_int_equal(count, 40);
	assert_true(partials[0].bytes > 0);
	free(partials);
}

/* A crash between an import's commit and its end leaves the download of a version that is
 * here. One that was removed again may be on its way back. */
static void finished_download_goes_at_a_start(void **state)
{
	struct site *site = *state;

	TREE(site, "1.0", "echo a > a");
	TREE(site, "1.1", "echo b > b");
	publish(site, "1.0");
	publish(site, "1.1");
	forget(site, "1.1");
	shell("cd '%s/store/partial' && touch shop-1.0.tar.zst shop-1.1.tar.zst"
	      " shop-1.0.1.tar.zst shop-1.0",
	      site->dir);
	reopen_store(site);
	shell("cd '%s/store/partial' && test \"$(echo *)\" ="
	      " 'shop-1.0 shop-1.0.1.tar.zst shop-1.1.tar.zst'",
	      site->dir);
}

#define WITH_SITE(test) cmocka_unit_test_setup_teardown(test, site_setup, site_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SITE(adopted_version_is_what_the_archive_held),
		WITH_SITE(equal_files_of_two_versions_have_one_id),
		WITH_SITE(removed_version_leaves_what_others_share_and_nothing_else),
		WITH_SITE(small_dead_bodies_side_by_side_give_their_blocks_back),
		WITH_SITE(content_of_a_removed_chain_is_freed_when_nobody_needs_it),
		WITH_SITE(body_that_a_removed_versions_node_uses_is_kept_for_it),
		WITH_SITE(removing_all_versions_leaves_no_pack),
		WITH_SITE(what_was_freed_is_not_shared_again),
		WITH_SITE(what_was_freed_reads_as_an_error_not_as_zeros),
		WITH_SITE(damaged_version_keeps_its_deps_and_stops_no_sweep),
		WITH_SITE(damaged_ghost_stays_while_somebody_needs_it),
		WITH_SITE(pack_whose_dep_is_missing_stops_no_indexing),
		WITH_SITE(lost_index_is_made_again_from_the_packs),
		WITH_SITE(leftovers_of_a_crash_go_at_the_next_start),
		WITH_SITE(adopted_pack_without_a_version_goes_at_the_next_start),
		WITH_SITE(lost_catalog_is_rebuilt_from_the_packs),
		WITH_SITE(lost_catalog_is_rebuilt_from_its_copy),
		WITH_SITE(damaged_catalog_is_not_copied),
		WITH_SITE(removed_version_does_not_come_back),
		WITH_SITE(pack_without_a_readable_header_is_put_aside),
		WITH_SITE(catalog_older_than_its_packs_is_brought_up_to_date),
		WITH_SITE(catalog_older_than_its_copy_is_brought_up_to_date),
		WITH_SITE(newer_catalog_is_refused_and_kept),
		WITH_SITE(catalog_survives_random_damage),
		WITH_SITE(second_daemon_is_told_who_has_the_store),
		WITH_SITE(store_that_others_can_change_is_refused),
		WITH_SITE(garbage_is_not_adopted),
		WITH_SITE(other_content_of_a_known_version_is_refused_and_removed),
		WITH_SITE(hidden_version_comes_back_instead_of_the_new_pack),
		WITH_SITE(every_failing_call_of_an_adoption_leaves_the_old_state),
		WITH_SITE(every_failing_allocation_of_a_sweep_leaves_the_versions_whole),
		WITH_SITE(partial_downloads_are_listed),
		WITH_SITE(finished_download_goes_at_a_start),
	};

	setlocale(LC_ALL, "C.UTF-8");
	return cmocka_run_group_tests(tests, NULL, NULL);
}

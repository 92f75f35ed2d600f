/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packs as the writer makes them and the loader sees them, whole and damaged. The seed of
 * what is random is printed; DEPLOYFS_TEST_SEED repeats a run.
 */
#include "pack.h"

#include "cleanup.h"
#include "fd.h"
#include "pack_make.h"
#include "pack_scan.h"
#include "pack_writer.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB (1024 * 1024)

/* A folder of packs. */
struct site {
	char dir[64];
	struct pack_set *set;
	uint64_t next_id, next_node;
	unsigned seed;
	char *buffer;
};

/* -Wl,--wrap: the N-th call fails, for every N; -1: none does */
static int pwrites_left = -1, truncates_left = -1, mallocs_left = -1;

static bool fails_now(int *left)
{
	if (*left < 0)
		return false;
	return (*left)-- == 0;
}

ssize_t __real_pwrite64(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t offset)
{
	if (!fails_now(&pwrites_left))
		return __real_pwrite64(fd, data, size, offset);
	errno = ENOSPC;
	return -1;
}

int __real_ftruncate64(int fd, off_t size);
int __wrap_ftruncate64(int fd, off_t size);
int __wrap_ftruncate64(int fd, off_t size)
{
	if (!fails_now(&truncates_left))
		return __real_ftruncate64(fd, size);
	errno = ENOSPC;
	return -1;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_malloc(size_t size)
{
	return fails_now(&mallocs_left) ? NULL : __real_malloc(size);
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
	return fails_now(&mallocs_left) ? NULL : __real_calloc(count, size);
}

void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size)
{
	return fails_now(&mallocs_left) ? NULL : __real_realloc(old, size);
}

static int site_setup(void **state)
{
	const char *given = getenv("DEPLOYFS_TEST_SEED");
	struct site *site = calloc(1, sizeof(*site));

	snprintf(site->dir, sizeof(site->dir), "/tmp/test-pack-XXXXXX");
	assert_non_null(mkdtemp(site->dir));
	site->set = pack_set_new(site->dir);
	site->buffer = malloc(PACK_READ_BUFFER);
	site->next_id = 1;
	site->next_node = 16;
	site->seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
	*state = site;
	return 0;
}

static int site_teardown(void **state)
{
	struct site *site = *state;
	char command[128];

	pwrites_left = truncates_left = mallocs_left = -1;
	pack_set_free(site->set);
	snprintf(command, sizeof(command), "rm -rf '%s'", site->dir);
	free(site->buffer);
	free(site);
	return system(command);
}

static void begin(struct site *site, struct make *make, pack_writer_find_fn *find,
		  void *context)
{
	make_begin(make, site->dir, site->next_id++, find, context);
}

/* Complete the pack and make it known. */
static struct pack *end(struct site *site, struct make *make)
{
	struct pack_key key = make_end(make, site->next_node, NULL, NULL);

	site->next_node += key.node_count + key.dir_count;
	assert_int_equal(pack_set_add(site->set, &key), 0);
	return pack_set_get(site->set, key.id);
}

static void assert_loads(struct pack *pack)
{
	struct error err = {0};

	if (pack_load(pack, &err) < 0)
		fail_msg("%s", err.text);
}

/* The state on disk, as a restarted daemon would find it. */
static struct pack *reopened(struct site *site, struct pack *pack)
{
	struct pack_key key = pack->key;

	pack_unref(pack);
	pack_set_drop(site->set, key.id);
	assert_int_equal(pack_set_add(site->set, &key), 0);
	return pack_set_get(site->set, key.id);
}

static uint32_t node_of(const struct pack *pack, const char *name, struct pack_stat *stat)
{
	struct pack_stat found;

	assert_int_equal(pack_lookup(pack, 0, name, &found), 0);
	if (stat)
		*stat = found;
	return (uint32_t)(found.node - pack->key.first_node);
}

static void assert_reads(struct site *site, struct pack *pack, uint32_t node,
			 const char *expected, uint64_t total, uint64_t offset,
			 size_t size)
{
	uint64_t rest = offset < total ? total - offset : 0;
	size_t want = size < rest ? size : (size_t)rest, got;
	const void *data;

	assert_int_equal(pack_read(pack, node, offset, size, site->buffer, &data, &got),
			 0);
	if (got != want || (want && memcmp(data, expected + offset, want)))
		fail_msg("read of %zu bytes at %llu of %llu gave %zu, or wrong ones",
			 size, (unsigned long long)offset, (unsigned long long)total,
			 got);
}

static void assert_body(struct site *site, struct pack *pack, const char *name,
			const char *expected, uint64_t size)
{
	struct pack_stat stat;
	uint32_t node = node_of(pack, name, &stat);

	assert_int_equal(stat.size, size);
	for (uint64_t at = 0; at <= size; at += PACK_READ_MAX)
		assert_reads(site, pack, node, expected, size, at, PACK_READ_MAX);
}

static char *pack_file(const struct site *site, const struct pack *pack)
{
	char *path;

	assert_true(asprintf(&path, "%s/%llu.pack", site->dir,
			     (unsigned long long)pack->key.id) > 0);
	return path;
}

static struct stat file_stat(const struct site *site, const struct pack *pack)
{
	cleanup(free_ptr) char *path = pack_file(site, pack);
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	return st;
}

/* Change a byte of the file. */
static void flip_byte(const struct site *site, const struct pack *pack, uint64_t offset)
{
	cleanup(free_ptr) char *path = pack_file(site, pack);
	cleanup(fd_close) int fd = open(path, O_RDWR);
	char byte;

	assert_int_equal(pread(fd, &byte, 1, (off_t)offset), 1);
	byte = (char)(byte ^ 0x20);
	assert_int_equal(fd_pwrite_all(fd, &byte, 1, offset), 0);
}

static void bodies_of_every_size_come_back(void **state)
{
	static const size_t sizes[] = {0,       1,       7,          8,     4095,
				       4096,    32767,   32768,      32769, 65535,
				       65536,   98304,   MIB - 1,    MIB,   MIB + 1,
				       MIB * 2, MIB * 4, 4 * MIB + 7};
	struct site *site = *state;
	struct make make;
	struct pack *pack;

	begin(site, &make, NULL, NULL);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		cleanup(free_ptr) char *bytes = make_bytes(sizes[i], i);
		char name[8];

		snprintf(name, sizeof(name), "%u", i);
		make_file(&make, name, bytes, sizes[i]);
	}
	pack = end(site, &make);
	assert_loads(pack);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		cleanup(free_ptr) char *bytes = make_bytes(sizes[i], i);
		uint64_t offset = pack->meta.objects[i].offset;
		char name[8];

		snprintf(name, sizeof(name), "%u", i);
		assert_body(site, pack, name, bytes, sizes[i]);
		assert_int_equal(offset % (sizes[i] >= PACK_ALIGN_FROM ? 4096 : 8), 0);
	}
	pack_unref(pack);
}

static void reads_across_block_borders_equal_the_reference(void **state)
{
	static const size_t sizes[] = {3 * 32768 + 100, 2 * MIB + 4097};
	struct site *site = *state;

	print_message("DEPLOYFS_TEST_SEED=%u\n", site->seed);
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		cleanup(free_ptr) char *bytes = make_bytes(sizes[s], 1);
		struct make make;
		struct pack *pack;

		begin(site, &make, NULL, NULL);
		make_file(&make, "file", bytes, sizes[s]);
		pack = end(site, &make);
		assert_loads(pack);
		for (int round = 0; round < 300; round++) {
			uint64_t offset = (uint64_t)rand_r(&site->seed) % sizes[s];
			size_t size = (size_t)rand_r(&site->seed) % PACK_READ_MAX;

			if (round % 2)
				offset = offset / 32768 * 32768 + 32767 + round % 3;
			if (round % 3)
				size %= 70000;
			assert_reads(site, pack, 0, bytes, sizes[s], offset, size);
		}
		assert_reads(site, pack, 0, bytes, sizes[s], sizes[s], 1);
		assert_reads(site, pack, 0, bytes, sizes[s], UINT64_MAX, 100);
		assert_reads(site, pack, 0, bytes, sizes[s], 1, PACK_READ_MAX);
		pack_unref(pack);
	}
}

/* A file with data of @data bytes at @at, the rest of @size being hole. */
static void assert_hole(struct site *site, uint64_t size, uint64_t at, size_t data)
{
	cleanup(free_ptr) char *bytes = make_bytes(data, 3);
	cleanup(free_ptr) char *whole = calloc(1, size);
	struct pack_stat stat;
	struct make make;
	struct pack *pack;
	uint32_t number;

	if (data)
		memcpy(whole + at, bytes, data);
	begin(site, &make, NULL, NULL);
	make_file(&make, "before", "x", 1);
	number = make_file_begin(&make, "sparse", size);
	if (data)
		assert_int_equal(pack_writer_data(make.writer, bytes, data, at), 0);
	make_file_end(&make, number);
	make_file(&make, "zafter", "y", 1);
	pack = end(site, &make);
	assert_loads(pack);
	assert_body(site, pack, "sparse", whole, size);
	assert_body(site, pack, "zafter", "y", 1);
	node_of(pack, "sparse", &stat);
	assert_int_equal(stat.blocks,
			 data ? ((at + data + 4095) / 4096 - at / 4096) * 8 : 0);
	if (size > MIB)
		assert_true(file_stat(site, pack).st_blocks * 512 < (off_t)size);
	pack_unref(pack);
}

static void holes_are_zeros_that_take_no_space(void **state)
{
	static const uint64_t sizes[] = {100000, MIB, 3 * MIB + 11};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint64_t size = sizes[i];

		assert_hole(*state, size, size - 5000, 5000); /* a hole at the start */
		assert_hole(*state, size, 0, 5000);           /* at the end */
		assert_hole(*state, size, 40000, 5000);       /* at both */
		assert_hole(*state, size, 0, 0);              /* nothing else */
	}
}

static void pieces_between_holes_are_counted_once(void **state)
{
	struct site *site = *state;
	cleanup(free_ptr) char *whole = calloc(1, 2 * MIB);
	struct pack_stat stat;
	struct make make;
	struct pack *pack;
	uint32_t number;

	begin(site, &make, NULL, NULL);
	number = make_file_begin(&make, "sparse", 2 * MIB);
	for (uint64_t at = 1000; at < 2 * MIB; at += 100000) {
		memcpy(whole + at, "abcdef", 6);
		assert_int_equal(pack_writer_data(make.writer, "abc", 3, at), 0);
		assert_int_equal(pack_writer_data(make.writer, "def", 3, at + 3), 0);
	}
	make_file_end(&make, number);
	pack = end(site, &make);
	assert_loads(pack);
	assert_body(site, pack, "sparse", whole, 2 * MIB);
	node_of(pack, "sparse", &stat);
	assert_int_equal(stat.blocks, 21 * 8);
	pack_unref(pack);
}

static void pieces_outside_the_body_are_refused(void **state)
{
	struct site *site = *state;
	static const uint64_t sizes[] = {10, 2 * MIB};
	struct make make;

	begin(site, &make, NULL, NULL);
	for (size_t i = 0; i < 2; i++) {
		uint32_t number = make_file_begin(&make, i ? "a" : "b", sizes[i]);
		struct pack_writer *w = make.writer;

		assert_int_equal(pack_writer_data(w, "abc", 3, 2), 0);
		assert_int_equal(pack_writer_data(w, "abc", 3, 4), -EBADMSG);
		assert_int_equal(pack_writer_data(w, "abc", 3, sizes[i] - 2), -EBADMSG);
		assert_int_equal(pack_writer_data(w, "abc", 3, UINT64_MAX), -EBADMSG);
		make_file_end(&make, number);
	}
	pack_unref(end(site, &make));
}

/* The second half is the first again: by then some of it is in the file, some on its way
 * there, some pending. */
static void bodies_are_found_again_wherever_they_are(void **state)
{
	enum {
		COUNT = 40
	};
	struct site *site = *state;
	char *bytes[COUNT], name[16];
	size_t sizes[COUNT];
	uint64_t stored = 0;
	struct make make;
	struct pack *pack;

	print_message("DEPLOYFS_TEST_SEED=%u\n", site->seed);
	begin(site, &make, NULL, NULL);
	for (unsigned i = 0; i < 2 * COUNT; i++) {
		unsigned k = i % COUNT;

		if (i < COUNT) {
			/* Most are small, every eighth is large. */
			sizes[k] =
				(size_t)rand_r(&site->seed) % MIB + (k % 8 ? 0 : 5 * MIB);
			bytes[k] = make_bytes(sizes[k], k);
		}
		snprintf(name, sizeof(name), "%u", i);
		make_file(&make, name, bytes[k], sizes[k]);
		if (i == COUNT - 1)
			stored = pack_writer_stored(make.writer);
	}
	assert_int_equal(pack_writer_stored(make.writer), stored);
	pack = end(site, &make);
	assert_loads(pack);
	assert_int_equal(pack->meta.object_count, COUNT);
	for (unsigned i = 0; i < 2 * COUNT; i++) {
		snprintf(name, sizeof(name), "%u", i);
		assert_body(site, pack, name, bytes[i % COUNT], sizes[i % COUNT]);
	}
	for (unsigned i = 0; i < COUNT; i++)
		free(bytes[i]);
	pack_unref(pack);
}

static void equal_bodies_of_a_package_are_stored_once(void **state)
{
	static const size_t sizes[] = {0, 5000, MIB, MIB + 1, 3 * MIB};
	struct site *site = *state;
	struct make make;
	struct pack *pack;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		cleanup(free_ptr) char *bytes = make_bytes(sizes[i], 7);
		uint64_t stored;
		struct body a, b;

		begin(site, &make, NULL, NULL);
		a = make_file(&make, "a", bytes, sizes[i]);
		stored = pack_writer_stored(make.writer);
		b = make_file(&make, "b", bytes, sizes[i]);
		assert_int_equal(b.pack, 0);
		assert_int_equal(b.object, a.object);
		assert_int_equal(pack_writer_stored(make.writer), stored);
		make_file(&make, "c", "after", 5);
		pack = end(site, &make);
		assert_loads(pack);
		assert_int_equal(pack->meta.object_count, 2);
		assert_int_equal(pack->meta.node_count, 3);
		assert_int_equal(pack->meta.check_count, (sizes[i] + 32767) / 32768 + 1);
		assert_body(site, pack, "a", bytes, sizes[i]);
		assert_body(site, pack, "b", bytes, sizes[i]);
		assert_body(site, pack, "c", "after", 5);
		pack_unref(pack);
	}
}

/* What the find callback answers: the object of a pack, whatever is looked for. */
struct answer {
	struct pack *pack;
	uint32_t object;
	int calls;
};

static int find_answer(void *context, const struct checksum *content, size_t max,
		       struct pack_candidate *ret)
{
	struct answer *answer = context;

	answer->calls++;
	ret[0] = (struct pack_candidate){pack_ref(answer->pack), answer->object};
	return 1;
}

static struct pack *pack_of_one(struct site *site, const char *bytes, size_t size)
{
	struct make make;
	struct pack *pack;

	begin(site, &make, NULL, NULL);
	make_file(&make, "file", bytes, size);
	pack = end(site, &make);
	assert_loads(pack);
	return pack;
}

static void content_of_an_earlier_pack_is_shared(void **state)
{
	static const size_t sizes[] = {1, 40000, MIB, MIB + 1, 3 * MIB + 3};
	struct site *site = *state;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		cleanup(free_ptr) char *bytes = make_bytes(sizes[i], 9);
		struct answer answer = {pack_of_one(site, bytes, sizes[i]), 0, 0};
		struct make make;
		struct pack *pack;
		struct body body;
		struct stat st;

		begin(site, &make, find_answer, &answer);
		body = make_file(&make, "again", bytes, sizes[i]);
		assert_int_equal(body.pack, answer.pack->key.id);
		assert_int_equal(body.object, 0);
		/* A large body that was written is taken back. */
		assert_int_equal(fstat(make.fd, &st), 0);
		assert_true(st.st_size <= PACK_HEADER_SIZE);
		assert_int_equal(pack_writer_stored(make.writer), 0);
		pack = end(site, &make);
		assert_loads(pack);
		assert_int_equal(pack->meta.object_count, 0);
		assert_int_equal(pack->meta.dep_count, 1);
		assert_body(site, pack, "again", bytes, sizes[i]);
		pack_unref(pack);
		pack_unref(answer.pack);
	}
}

static void other_content_of_a_forged_equal_hash_is_not_shared(void **state)
{
	static const size_t sizes[] = {1, 40000, MIB, MIB + 1, 3 * MIB + 3};
	struct site *site = *state;

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		cleanup(free_ptr) char *bytes = make_bytes(sizes[i], 9);
		struct answer answer = {pack_of_one(site, bytes, sizes[i]), 0, 0};
		struct make make;
		struct pack *pack;

		bytes[sizes[i] - 1]++;
		begin(site, &make, find_answer, &answer);
		assert_int_equal(make_file(&make, "like", bytes, sizes[i]).pack, 0);
		assert_int_equal(answer.calls, 1);
		pack = end(site, &make);
		assert_loads(pack);
		assert_int_equal(pack->meta.dep_count, 0);
		assert_body(site, pack, "like", bytes, sizes[i]);
		pack_unref(pack);
		pack_unref(answer.pack);
	}
}

static void candidate_that_does_not_exist_or_is_rotten_is_not_shared(void **state)
{
	struct site *site = *state;
	cleanup(free_ptr) char *bytes = make_bytes(100000, 9);
	struct answer answer = {pack_of_one(site, bytes, 100000), 77, 0};
	struct make make;
	struct pack *pack;

	begin(site, &make, find_answer, &answer);
	assert_int_equal(make_file(&make, "a", bytes, 100000).pack, 0);
	pack = end(site, &make);
	pack_unref(pack);

	answer.object = 0;
	flip_byte(site, answer.pack, answer.pack->meta.objects[0].offset + 99999);
	begin(site, &make, find_answer, &answer);
	assert_int_equal(make_file(&make, "a", bytes, 100000).pack, 0);
	pack = end(site, &make);
	assert_loads(pack);
	assert_body(site, pack, "a", bytes, 100000);
	pack_unref(pack);
	pack_unref(answer.pack);
}

/* A small tree with everything in it; needs a pack of its own to share from. */
static struct pack *pack_of_all(struct site *site)
{
	cleanup(free_ptr) char *bytes = make_bytes(70000, 2);
	struct answer answer = {pack_of_one(site, "shared", 6), 0, 0};
	struct make make;
	struct pack *pack;

	begin(site, &make, find_answer, &answer);
	make_directory(&make, "bin");
	make_file(&make, "bin/large", bytes, 70000);
	make_file(&make, "bin/small", "small", 5);
	make_file(&make, "bin/shared", "shared", 6);
	make_file(&make, "bin/empty", "", 0);
	make_hardlink(&make, "bin/hard", "bin/small");
	make_symlink(&make, "lib/deep/link", "../../bin/large");
	make_directory(&make, "lib/none");
	pack = end(site, &make);
	pack_unref(answer.pack);
	return pack;
}

static void tree_is_listed_sorted_and_found_by_name(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of_all(site);
	struct pack_stat stat, twin;
	struct pack_name name;

	assert_loads(pack);
	assert_true(pack_list(pack, 0, 0, &name));
	assert_string_equal(name.name, "bin");
	assert_int_equal(name.type, DT_DIR);
	assert_true(pack_list(pack, 0, 1, &name));
	assert_string_equal(name.name, "lib");
	assert_false(pack_list(pack, 0, 2, &name));

	assert_int_equal(pack_lookup(pack, 0, "bin", &stat), 0);
	assert_int_equal(stat.nlink, 2);
	assert_int_equal(stat.mode, S_IFDIR | 0755);
	assert_int_equal(pack_lookup(pack, 0, "lib", &stat), 0);
	assert_int_equal(stat.nlink, 4);
	assert_int_equal(pack_lookup(pack, 0, "nothing", &stat), -ENOENT);
	assert_int_equal(pack_lookup(pack, 0, "", &stat), -ENOENT);

	assert_int_equal(pack_lookup(pack, 1, "small", &stat), 0);
	assert_int_equal(pack_lookup(pack, 1, "hard", &twin), 0);
	assert_int_equal(stat.node, twin.node);
	assert_int_equal(stat.nlink, 2);
	assert_int_equal(stat.mtime_s, MAKE_MTIME_S);
	assert_int_equal(pack_lookup(pack, 1, "empty", &stat), 0);
	assert_int_equal(stat.nlink, PACK_NLINK_MIN);
	assert_int_equal(stat.size, 0);
	assert_int_equal(pack_lookup(pack, 3, "link", &stat), 0);
	assert_int_equal(stat.mode, S_IFLNK | 0777);
	assert_int_equal(stat.size, strlen("../../bin/large"));
	assert_int_equal(stat.nlink, 1);
	pack_unref(pack);
}

static void entry_tells_its_whole_path(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of_all(site);
	char path[PACK_PATH_MAX + 1];

	assert_loads(pack);
	pack_entry_path(pack, 3, &pack->meta.entries[pack->meta.dirs[3].first_entry],
			path);
	assert_string_equal(path, "lib/deep/link");
	pack_entry_path(pack, 0, &pack->meta.entries[0], path);
	assert_string_equal(path, "bin");
	pack_unref(pack);
}

static void every_changed_byte_of_the_header_is_found(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of_all(site);
	uint64_t copy = (uint64_t)file_stat(site, pack).st_size - PACK_HEADER_SIZE;

	for (uint64_t at = 0; at < PACK_HEADER_SIZE; at++) {
		/* The mark of a retired pack is written later, by itself. */
		if (at >= offsetof(struct pack_header, retired) &&
		    at < offsetof(struct pack_header, verified))
			continue;

		flip_byte(site, pack, copy + at);
		flip_byte(site, pack, at);
		if (pack_load(pack, NULL) != -EBADMSG)
			fail_msg("byte %llu", (unsigned long long)at);
		flip_byte(site, pack, copy + at);
		flip_byte(site, pack, at);
	}
	assert_loads(pack);
	pack_unref(pack);
}

static void retired_pack_is_whole_and_says_so(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of_all(site);
	char path[4096];

	assert_int_equal(pack_retire(pack_path(pack->set, pack->key.id, path), NULL), 0);
	assert_loads(pack);
	assert_true(pack_retired(&pack->header));
	pack_unref(pack);
}

static void every_changed_byte_of_the_metadata_is_found(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of_all(site);
	struct stat st = file_stat(site, pack);
	struct pack_header header;

	assert_loads(pack);
	header = pack->header;
	assert_int_equal(pack_header_copy(&header) + PACK_HEADER_SIZE, st.st_size);
	pack = reopened(site, pack);
	for (uint64_t i = 0; i < header.meta_size; i++) {
		flip_byte(site, pack, header.copy_offset + i);
		flip_byte(site, pack, header.meta_offset + i);
		if (pack_load(pack, NULL) != -EBADMSG)
			fail_msg("byte %llu", (unsigned long long)i);
		flip_byte(site, pack, header.copy_offset + i);
		flip_byte(site, pack, header.meta_offset + i);
	}
	assert_loads(pack);
	pack_unref(pack);
}

static void copy_serves_where_header_or_metadata_is_damaged(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of_all(site), *noted;
	cleanup(free_ptr) char *meta = NULL;
	struct pack_header header;

	assert_loads(pack);
	header = pack->header;
	meta = malloc(header.meta_size);
	memcpy(meta, pack->meta_buffer, header.meta_size);
	assert_null(pack_set_next_damaged(site->set));
	for (uint64_t step = 0; step < 40; step++) {
		uint64_t at = step < 20
				      ? step * 211
				      : header.meta_offset + step * header.meta_size / 40;

		pack = reopened(site, pack);
		flip_byte(site, pack, at);
		assert_loads(pack);
		flip_byte(site, pack, at);
		assert_memory_equal(&pack->header, &header, sizeof(header));
		assert_memory_equal(pack->meta_buffer, meta, header.meta_size);
		noted = pack_set_next_damaged(site->set);
		assert_ptr_equal(noted, pack);
		pack_unref(noted);
		assert_null(pack_set_next_damaged(site->set));
	}
	pack_unref(pack);
}

static void pack_that_is_cut_is_refused(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of_all(site);
	cleanup(free_ptr) char *path = pack_file(site, pack);
	off_t size;

	assert_loads(pack);
	size = (off_t)(pack->header.meta_offset + pack->header.meta_size);
	pack = reopened(site, pack);
	for (off_t cut = size - 1; cut >= 0;
	     cut = cut > 5000 ? cut * 9 / 10 : cut - 501) {
		assert_int_equal(truncate(path, cut), 0);
		assert_int_equal(pack_load(pack, NULL), -EBADMSG);
	}
	assert_int_equal(unlink(path), 0);
	assert_int_equal(pack_load(pack, NULL), -EBADMSG);
	pack_unref(pack);
}

static void pack_of_other_ids_than_the_catalog_says_is_refused(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of_one(site, "x", 1);
	struct pack_key keys[4] = {pack->key, pack->key, pack->key, pack->key};
	cleanup(free_ptr) char *path = pack_file(site, pack);
	char other[128];

	pack_unref(pack);
	keys[0].id = 1000;
	keys[1].first_node++;
	keys[2].node_count++;
	keys[3].dir_count++;
	snprintf(other, sizeof(other), "%s/1000.pack", site->dir);
	assert_int_equal(link(path, other), 0);
	for (size_t i = 4; i-- > 0;) {
		pack_set_drop(site->set, keys[i].id);
		assert_int_equal(pack_set_add(site->set, &keys[i]), 0);
		pack = pack_set_get(site->set, keys[i].id);
		assert_int_equal(pack_load(pack, NULL), -EBADMSG);
		pack_unref(pack);
	}
}

static void pack_whose_dep_is_missing_does_not_load(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of_all(site);

	pack_set_drop(site->set, pack->key.id - 1);
	assert_int_equal(pack_load(pack, NULL), -ENOENT);
	pack_unref(pack);
}

static void damaged_dep_fails_what_needs_it_and_nothing_else(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of_all(site);
	struct pack *dep = pack_set_get(site->set, pack->key.id - 1);
	struct pack_stat stat;

	dep = reopened(site, dep);
	flip_byte(site, dep, 0);
	flip_byte(site, dep, (uint64_t)file_stat(site, dep).st_size - PACK_HEADER_SIZE);
	assert_loads(pack);
	assert_true(pack_lookup(pack, 1, "shared", &stat) < 0);
	assert_int_equal(pack_lookup(pack, 1, "small", &stat), 0);
	pack_unref(dep);
	pack_unref(pack);
}

static void read_whole_node(struct site *site, struct pack *pack, uint32_t node)
{
	struct pack_stat stat;
	const void *data;
	size_t size;

	if (pack_stat_node(pack, node, &stat) < 0)
		return;
	for (uint64_t at = 0; at < stat.size; at += PACK_READ_MAX) {
		if (pack_read(pack, node, at, PACK_READ_MAX, site->buffer, &data, &size) <
		    0)
			return;
		/* Every byte that is handed out can be read. */
		checksum_of(data, size);
	}
}

/* Use everything that a pack offers. */
static void walk(struct site *site, struct pack *pack)
{
	for (uint32_t dir = 0; dir < pack->meta.dir_count; dir++) {
		struct pack_stat stat, found;
		struct pack_name name;

		pack_stat_dir(pack, dir, &stat);
		for (uint32_t i = 0; pack_list(pack, dir, i, &name); i++) {
			int r = pack_stat_entry(pack, dir, i, &stat);

			assert_true(name.name[0] && !strchr(name.name, '/'));
			assert_int_equal(pack_lookup(pack, dir, name.name, &found), r);
			if (r == 0)
				assert_int_equal(stat.node, found.node);
		}
		assert_int_equal(pack_stat_entry(pack, dir, UINT32_MAX, &stat), -ENOENT);
	}
	for (uint32_t i = 0; i <= pack->meta.node_count; i++)
		read_whole_node(site, pack, i);
	for (uint32_t i = 0; i < pack->meta.node_count; i++) {
		const struct pack *holder;
		uint32_t object;

		if (pack_node_object(pack, i, &holder, &object) == 0)
			assert_true(object < holder->meta.object_count);
	}
}

/* Write metadata and header anew, with right checksums. */
static void meta_replace(const struct site *site, const struct pack *pack,
			 struct pack_header header, const void *meta)
{
	cleanup(free_ptr) char *path = pack_file(site, pack);
	cleanup(fd_close) int fd = open(path, O_RDWR);

	header.meta_hash = checksum_of(meta, header.meta_size);
	pack_header_seal(&header);
	assert_int_equal(fd_pwrite_all(fd, meta, header.meta_size, header.meta_offset),
			 0);
	assert_int_equal(fd_pwrite_all(fd, &header, sizeof(header), 0), 0);
}

static uint32_t odd_number(unsigned *seed)
{
	static const uint32_t odd[] = {
		0,     1,          2,          3,          4096,          32768,
		65535, 0x7fffffff, 0x80000000, UINT32_MAX, UINT32_MAX - 1};
	unsigned i = (unsigned)rand_r(seed) % 16;

	return i < 11 ? odd[i] : (uint32_t)rand_r(seed) % 64;
}

static void damage_with_right_checksums_is_refused_or_harmless(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of_all(site);
	cleanup(free_ptr) char *meta = NULL, *copy = NULL;
	struct pack_header header;
	int refused = 0, rounds = 3000;

	print_message("DEPLOYFS_TEST_SEED=%u\n", site->seed);
	assert_loads(pack);
	header = pack->header;
	meta = malloc(header.meta_size);
	copy = malloc(header.meta_size);
	memcpy(meta, pack->meta_buffer, header.meta_size);
	for (int round = 0; round < rounds; round++) {
		struct pack_header changed = header;

		memcpy(copy, meta, header.meta_size);
		for (int steps = 1 + rand_r(&site->seed) % 3; steps > 0; steps--) {
			size_t at = (size_t)rand_r(&site->seed) % (header.meta_size / 4);
			uint32_t number = odd_number(&site->seed);

			if (rand_r(&site->seed) % 3)
				memcpy(copy + at * 4, &number, 4);
			else
				copy[at * 4] ^= (char)(1 << rand_r(&site->seed) % 8);
		}
		if (round % 10 == 0) {
			uint32_t *counts[] = {&changed.object_count, &changed.entry_count,
					      &changed.check_count, &changed.dep_count};

			*counts[rand_r(&site->seed) % 4] = odd_number(&site->seed);
			changed.meta_offset += rand_r(&site->seed) % 3 * 8;
			changed.bodies_end += (uint64_t)rand_r(&site->seed) % 99999;
		}
		if (changed.meta_offset != header.meta_offset)
			changed.meta_size -= changed.meta_offset - header.meta_offset;
		meta_replace(site, pack, changed, copy);
		pack = reopened(site, pack);
		if (pack_load(pack, NULL) < 0)
			refused++;
		else
			walk(site, pack);
	}
	print_message("%d of %d refused\n", refused, rounds);
	pack_unref(pack);
}

/* The metadata of a pack with a change, and what loading says to it. */
typedef void change_fn(struct pack_meta *meta);

static void assert_refused(struct site *site, change_fn *change)
{
	struct pack *pack = pack_of_all(site);
	cleanup(free_ptr) void *copy = NULL;
	struct pack_header header;
	struct error err = {0};

	assert_loads(pack);
	change(&pack->meta);
	header = pack->header;
	copy = malloc(header.meta_size);
	memcpy(copy, pack->meta_buffer, header.meta_size);
	meta_replace(site, pack, header, copy);
	pack = reopened(site, pack);
	if (pack_load(pack, &err) != -EBADMSG)
		fail_msg("loads all the same");
	pack_unref(pack);
}

/* "deep" of lib becomes a second name of "none", which has the same parent. */
static void name_directory_twice(struct pack_meta *meta)
{
	struct pack_dir *lib = &meta->dirs[2];

	meta->entries[lib->first_entry].index = meta->entries[lib->first_entry + 1].index;
}

static void make_parents_a_circle(struct pack_meta *meta)
{
	meta->dirs[2].parent = 3;
}

static void name_with_a_slash(struct pack_meta *meta)
{
	meta->names[meta->entries[meta->dirs[1].first_entry].name_offset + 1] = '/';
}

static void name_two_dots(struct pack_meta *meta)
{
	struct pack_entry *entry = &meta->entries[meta->dirs[0].first_entry];

	memcpy(meta->names + entry->name_offset, "..", 3);
	entry->name_size = 2;
}

static void entry_of_another_type(struct pack_meta *meta)
{
	struct pack_entry *entry = &meta->entries[meta->dirs[3].first_entry];

	assert_int_equal(entry->type, DT_LNK);
	entry->type = DT_REG;
}

static void setuid_bit(struct pack_meta *meta)
{
	meta->nodes[0].mode |= S_ISUID;
}

static void link_count_of_one(struct pack_meta *meta)
{
	meta->nodes[0].nlink = 1;
}

static void body_behind_the_bodies(struct pack_meta *meta)
{
	meta->objects[0].offset += 1 << 20;
}

static void body_without_checksums(struct pack_meta *meta)
{
	meta->objects[0].check_first = meta->check_count - 1;
}

static void empty_body_with_checksums_outside(struct pack_meta *meta)
{
	for (uint32_t i = 0; i < meta->object_count; i++)
		if (meta->objects[i].size == 0)
			meta->objects[i].check_first = UINT32_MAX;
}

static void body_over_another(struct pack_meta *meta)
{
	meta->objects[1].offset = meta->objects[0].offset;
}

static void dep_on_itself(struct pack_meta *meta)
{
	meta->deps[0]++;
}

static void metadata_that_makes_no_tree_is_refused(void **state)
{
	assert_refused(*state, name_directory_twice);
	assert_refused(*state, make_parents_a_circle);
	assert_refused(*state, name_with_a_slash);
	assert_refused(*state, name_two_dots);
	assert_refused(*state, entry_of_another_type);
	assert_refused(*state, setuid_bit);
	assert_refused(*state, link_count_of_one);
	assert_refused(*state, body_behind_the_bodies);
	assert_refused(*state, body_without_checksums);
	assert_refused(*state, empty_body_with_checksums_outside);
	assert_refused(*state, body_over_another);
	assert_refused(*state, dep_on_itself);
}

static int read_object(struct site *site, const struct pack *pack, uint64_t offset,
		       bool again)
{
	const void *data;
	size_t size;

	return pack_read_object(pack, 0, offset, 10, again, site->buffer, &data, &size);
}

static void changed_byte_of_a_body_is_an_error_of_its_block(void **state)
{
	struct site *site = *state;
	cleanup(free_ptr) char *bytes = make_bytes(100000, 4);
	struct pack *pack = pack_of_one(site, bytes, 100000);
	const void *data;
	size_t size;

	flip_byte(site, pack, pack->meta.objects[0].offset + 40000);
	assert_int_equal(read_object(site, pack, 0, false), 0);
	assert_int_equal(read_object(site, pack, 32768, false), -EBADMSG);
	assert_int_equal(read_object(site, pack, 32768, false), -EBADMSG);
	assert_int_equal(read_object(site, pack, 65535, false), -EBADMSG);
	assert_int_equal(read_object(site, pack, 65536, false), 0);
	assert_int_equal(pack_read(pack, 0, 0, 100000, site->buffer, &data, &size), -EIO);
	pack_unref(pack);
}

static void block_that_rots_after_its_first_read_is_found_by_reading_again(void **state)
{
	struct site *site = *state;
	cleanup(free_ptr) char *bytes = make_bytes(100000, 4);
	struct pack *pack = pack_of_one(site, bytes, 100000);

	assert_int_equal(read_object(site, pack, 40000, false), 0);
	flip_byte(site, pack, pack->meta.objects[0].offset + 50000);
	assert_int_equal(read_object(site, pack, 40000, false), 0);
	assert_int_equal(read_object(site, pack, 40000, true), -EBADMSG);
	assert_int_equal(read_object(site, pack, 0, true), 0);
	pack_unref(pack);
}

static void body_that_is_cut_off_is_an_error(void **state)
{
	struct site *site = *state;
	cleanup(free_ptr) char *bytes = make_bytes(100000, 4);
	struct pack *pack = pack_of_one(site, bytes, 100000);
	cleanup(free_ptr) char *path = pack_file(site, pack);

	assert_int_equal(read_object(site, pack, 0, false), 0);
	assert_int_equal(truncate(path, PACK_HEADER_SIZE + 5), 0);
	assert_int_equal(read_object(site, pack, 0, false), -EIO);
	assert_int_equal(read_object(site, pack, 40000, false), -EIO);
	pack_unref(pack);
}

static void pack_is_found_by_any_of_its_nodes(void **state)
{
	struct site *site = *state;
	struct pack_key keys[] = {{1, 16, 3, 2}, {2, 21, 0, 1}, {5, 30, 4, 1}};
	static const int expected[] = {0, 1, 1, 1, 1, 1, 2, 0, 0, 0, 0,
				       0, 0, 0, 0, 5, 5, 5, 5, 5, 0};

	for (size_t i = 0; i < 3; i++)
		assert_int_equal(pack_set_add(site->set, &keys[i]), 0);
	for (uint64_t node = 15; node < 36; node++) {
		struct pack *pack = pack_set_find(site->set, node);

		assert_int_equal(pack ? pack->key.id : 0, expected[node - 15]);
		pack_unref(pack);
	}
	assert_null(pack_set_find(site->set, 0));
	assert_null(pack_set_find(site->set, UINT64_MAX));
	assert_null(pack_set_get(site->set, 3));
	pack_set_drop(site->set, 2);
	pack_set_drop(site->set, 2);
	assert_null(pack_set_find(site->set, 21));
	assert_null(pack_set_get(site->set, 2));
}

static void packs_that_nobody_holds_make_room(void **state)
{
	enum {
		COUNT = 1100,
		KEPT = 1024, /* KEPT_MAX of pack_set.c */
	};
	struct site *site = *state;
	struct pack_counts counts;
	struct pack *held, *again;
	uint64_t first = site->next_id;
	int loaded = 0;

	for (int i = 0; i < COUNT; i++) {
		struct make make;

		begin(site, &make, NULL, NULL);
		make_file(&make, "a", &i, sizeof(i));
		pack_unref(end(site, &make));
	}
	held = pack_set_get(site->set, first);
	assert_loads(held);
	for (int i = 1; i < COUNT; i++) {
		struct pack *pack = pack_set_get(site->set, first + (uint64_t)i);

		assert_loads(pack);
		pack_unref(pack);
	}
	pack_set_counts(site->set, &counts);
	assert_int_equal(counts.packs, COUNT);
	assert_true(counts.loaded >= KEPT / 2 && counts.loaded <= KEPT);
	again = pack_set_get(site->set, first);
	assert_ptr_equal(again, held);
	pack_unref(again);
	for (int i = 0; i < COUNT; i++) {
		uint64_t id = first + (uint64_t)i;
		struct pack *pack = pack_set_get(site->set, id);

		assert_true(pack_set_has(site->set, id));
		loaded += pack->loaded;
		assert_loads(pack);
		assert_false(pack_set_has_unloaded(site->set, pack->key.first_node));
		pack_unref(pack);
	}
	assert_true(loaded < COUNT);
	pack_unref(held);
}

static void fresh_set_has_the_packs_and_loads_them_for_itself(void **state)
{
	struct site *site = *state;
	struct pack *pack, *fresh;
	struct pack_set *set;
	struct make make;

	begin(site, &make, NULL, NULL);
	make_file(&make, "a", "a", 1);
	pack = end(site, &make);
	assert_loads(pack);
	set = pack_set_fresh(site->set);
	assert_non_null(set);
	assert_true(pack_set_has(set, pack->key.id));
	fresh = pack_set_get(set, pack->key.id);
	assert_non_null(fresh);
	assert_ptr_not_equal(fresh, pack);
	assert_false(fresh->loaded);
	assert_loads(fresh);
	assert_null(pack_set_get(set, pack->key.id + 1));
	pack_unref(fresh);
	pack_set_free(set);
	pack_unref(pack);
}

static void packs_are_found_in_whatever_order_they_came(void **state)
{
	struct site *site = *state;
	static const uint64_t ids[] = {5, 2, 9, 1, 7};

	for (size_t i = 0; i < 5; i++) {
		struct pack_key key = {ids[i], ids[i] * 10, 3, 1};

		assert_int_equal(pack_set_add(site->set, &key), 0);
	}
	for (size_t i = 0; i < 5; i++) {
		struct pack *by_id = pack_set_get(site->set, ids[i]);
		struct pack *by_node = pack_set_find(site->set, ids[i] * 10 + 3);

		assert_non_null(by_id);
		assert_ptr_equal(by_id, by_node);
		pack_unref(by_id);
		pack_unref(by_node);
	}
}

static void dropped_pack_is_readable_for_who_holds_it(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of_all(site);
	cleanup(free_ptr) char *path = pack_file(site, pack);
	uint64_t id = pack->key.id;
	struct pack_stat stat;
	uint32_t node;

	assert_loads(pack);
	pack_set_drop(site->set, id);
	pack_set_drop(site->set, id - 1);
	unlink(path);
	assert_int_equal(pack_lookup(pack, 1, "shared", &stat), 0);
	node = (uint32_t)(stat.node - pack->key.first_node);
	assert_reads(site, pack, node, "shared", 6, 0, 6);
	pack_unref(pack);
}

/* All steps of making a pack; 0, or the first failure. */
static int try_to_write(int fd, struct answer *answer)
{
	static const char *const names[] = {"a", "b", "c", "d", "e"};
	cleanup(free_ptr) char *bytes = make_bytes(2 * MIB, 4);
	const size_t sizes[] = {5000, 2 * MIB, 2 * MIB, 5000, 6};
	struct pack_dir dir = {.mode = 0755};
	struct pack_meta meta = {.dirs = &dir, .dir_count = 1};
	struct pack_header header = {0};
	struct pack_writer *writer = pack_writer_new(fd, find_answer, answer);
	int r = writer ? 0 : -ENOMEM;

	for (size_t i = 0; r == 0 && i < sizeof(names) / sizeof(names[0]); i++) {
		struct body body;

		r = pack_writer_begin(writer, sizes[i]);
		if (r == 0)
			r = pack_writer_data(writer, bytes, sizes[i], 0);
		if (r == 0)
			r = pack_writer_end(writer, &body);
	}
	if (r == 0)
		r = pack_writer_finish(writer, &meta, &header);
	pack_writer_free(writer);
	return r;
}

static void fail_each(struct site *site, int *left, int error)
{
	cleanup(free_ptr) char *bytes = make_bytes(6, 4);
	struct answer answer = {pack_of_one(site, bytes, 6), 0, 0};
	FILE *file = tmpfile();
	int n = 0, r;

	assert_non_null(file);
	do {
		assert_int_equal(ftruncate(fileno(file), 0), 0);
		*left = n;
		r = try_to_write(fileno(file), &answer);
		if (*left < 0)
			assert_int_equal(r, error);
		*left = -1;
	} while (r < 0 && ++n < 1000);
	assert_true(n > 0 && n < 1000);
	print_message("%d calls failed in turn\n", n);
	fclose(file);
	pack_unref(answer.pack);
}

static void every_failing_write_fails_the_writer_without_a_leak(void **state)
{
	fail_each(*state, &pwrites_left, -ENOSPC);
	fail_each(*state, &truncates_left, -ENOSPC);
}

static void every_failing_allocation_fails_the_writer_without_a_leak(void **state)
{
	struct site *site = *state;
	cleanup(free_ptr) char *bytes = make_bytes(6, 4);
	struct answer answer = {pack_of_one(site, bytes, 6), 0, 0};
	FILE *file = tmpfile();
	int n = 1, r; /* the first is the test's own */

	do {
		assert_int_equal(ftruncate(fileno(file), 0), 0);
		mallocs_left = n;
		r = try_to_write(fileno(file), &answer);
		mallocs_left = -1;
		if (r < 0)
			assert_int_equal(r, -ENOMEM);
	} while (r < 0 && ++n < 1000);
	assert_true(n > 6 && n < 1000);
	fclose(file);
	pack_unref(answer.pack);
}

static void every_failing_allocation_fails_the_load_without_a_leak(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of_all(site);
	int n = 0, r;

	do {
		mallocs_left = n;
		r = pack_load(pack, NULL);
		mallocs_left = -1;
		if (r < 0)
			assert_int_equal(r, -ENOMEM);
	} while (r < 0 && ++n < 100);
	assert_int_equal(n, 4);
	walk(site, pack);
	pack_unref(pack);
}

#define WITH_SITE(test) cmocka_unit_test_setup_teardown(test, site_setup, site_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SITE(bodies_of_every_size_come_back),
		WITH_SITE(reads_across_block_borders_equal_the_reference),
		WITH_SITE(holes_are_zeros_that_take_no_space),
		WITH_SITE(pieces_between_holes_are_counted_once),
		WITH_SITE(pieces_outside_the_body_are_refused),
		WITH_SITE(bodies_are_found_again_wherever_they_are),
		WITH_SITE(equal_bodies_of_a_package_are_stored_once),
		WITH_SITE(content_of_an_earlier_pack_is_shared),
		WITH_SITE(other_content_of_a_forged_equal_hash_is_not_shared),
		WITH_SITE(candidate_that_does_not_exist_or_is_rotten_is_not_shared),
		WITH_SITE(tree_is_listed_sorted_and_found_by_name),
		WITH_SITE(entry_tells_its_whole_path),
		WITH_SITE(every_changed_byte_of_the_header_is_found),
		WITH_SITE(retired_pack_is_whole_and_says_so),
		WITH_SITE(every_changed_byte_of_the_metadata_is_found),
		WITH_SITE(copy_serves_where_header_or_metadata_is_damaged),
		WITH_SITE(pack_that_is_cut_is_refused),
		WITH_SITE(pack_of_other_ids_than_the_catalog_says_is_refused),
		WITH_SITE(pack_whose_dep_is_missing_does_not_load),
		WITH_SITE(damaged_dep_fails_what_needs_it_and_nothing_else),
		WITH_SITE(damage_with_right_checksums_is_refused_or_harmless),
		WITH_SITE(metadata_that_makes_no_tree_is_refused),
		WITH_SITE(changed_byte_of_a_body_is_an_error_of_its_block),
		WITH_SITE(block_that_rots_after_its_first_read_is_found_by_reading_again),
		WITH_SITE(body_that_is_cut_off_is_an_error),
		WITH_SITE(pack_is_found_by_any_of_its_nodes),
		WITH_SITE(packs_that_nobody_holds_make_room),
		WITH_SITE(fresh_set_has_the_packs_and_loads_them_for_itself),
		WITH_SITE(packs_are_found_in_whatever_order_they_came),
		WITH_SITE(dropped_pack_is_readable_for_who_holds_it),
		WITH_SITE(every_failing_write_fails_the_writer_without_a_leak),
		WITH_SITE(every_failing_allocation_fails_the_writer_without_a_leak),
		WITH_SITE(every_failing_allocation_fails_the_load_without_a_leak),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

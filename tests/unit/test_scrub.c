/* SPDX-License-Identifier: Apache-2.0 */
/* Damage that is made on purpose: found to the block, mended where it can be. */
#include "repair.h"
#include "scrub.h"

#include "cleanup.h"
#include "fd.h"
#include "pack_make.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define FILE_COUNT 6
#define FILE_SIZE  200000 /* 7 blocks, the last one short */
#define BLOCKS     7

struct site {
	char dir[64];
	struct store *store;
	unsigned seed;
	struct error err;
};

static int site_setup(void **state)
{
	const char *given = getenv("DEPLOYFS_TEST_SEED");
	struct site *site = calloc(1, sizeof(*site));

	snprintf(site->dir, sizeof(site->dir), "/tmp/test-scrub-XXXXXX");
	assert_non_null(mkdtemp(site->dir));
	site->seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
	if (store_open(site->dir, STORE_OWN, &site->store, &site->err) < 0)
		fail_msg("%s", site->err.text);
	*state = site;
	return 0;
}

static int site_teardown(void **state)
{
	struct site *site = *state;
	char command[128];

	store_close(site->store);
	snprintf(command, sizeof(command), "rm -rf '%s'", site->dir);
	assert_int_equal(system(command), 0);
	free(site);
	return 0;
}

static int find_stored(void *context, const struct checksum *content, size_t max,
		       struct pack_candidate *ret)
{
	struct site *site = context;
	struct index_object found;

	if (index_find_objects(site->store->index, content, 1, &found) != 1)
		return 0;
	ret->pack = pack_set_get(site->store->packs, found.pack);
	ret->object = found.object;
	assert_int_equal(pack_load(ret->pack, NULL), 0);
	return 1;
}

/* A version of files "0", "1"...; @seeds says what is in each, 0: there is none. */
static uint64_t publish(struct site *site, const char *name, const char *seeds,
			bool sharing)
{
	cleanup(change_list_done) struct change_list changes = {0};
	struct version version = {.package_bytes = 1, .verified = "off", .app = "shop"};
	char dir[4096], path[4200];
	struct make make;
	int fd;

	snprintf(version.name, sizeof(version.name), "%s", name);
	memcpy(version.sha256, name, strlen(name));
	make_begin(&make, store_path(site->store, "tmp", dir), 9999,
		   sharing ? find_stored : NULL, site);
	for (size_t i = 0; seeds[i]; i++) {
		cleanup(free_ptr) char *bytes = make_bytes(FILE_SIZE, (unsigned)seeds[i]);
		char file[24];

		snprintf(file, sizeof(file), "%zu", i);
		make_file(&make, file, bytes, FILE_SIZE);
	}
	make_end(&make, 16, NULL, NULL);
	snprintf(path, sizeof(path), "%s/9999.pack", dir);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (store_adopt(site->store, fd, "9999.pack", &version, &site->err) < 0 ||
	    store_add(site->store, &version, &changes, &site->err) < 0 ||
	    store_index(site->store, &site->err) < 0)
		fail_msg("%s", site->err.text);
	close(fd);
	return version.pack;
}

static void forget(struct site *site, const char *name)
{
	cleanup(change_list_done) struct change_list changes = {0};
	struct version version;

	assert_int_equal(catalog_hide(site->store->catalog, "shop", name, NULL, &changes,
				      NULL),
			 0);
	assert_int_equal(catalog_find(site->store->catalog, "shop", name, &version, NULL),
			 0);
	assert_int_equal(catalog_forget(site->store->catalog, version.id, NULL), 0);
}

static int pack_fd(struct site *site, uint64_t id)
{
	char path[4096];
	int fd = open(pack_path(site->store->packs, id, path), O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void flip(struct site *site, uint64_t id, uint64_t offset)
{
	cleanup(fd_close) int fd = pack_fd(site, id);
	unsigned char byte;

	assert_int_equal(fd_pread_all(fd, &byte, 1, offset), 0);
	byte ^= 0x10;
	assert_int_equal(fd_pwrite_all(fd, &byte, 1, offset), 0);
	assert_int_equal(fsync(fd), 0);
}

static struct checksum sum_of(struct site *site, uint64_t id)
{
	cleanup(fd_close) int fd = pack_fd(site, id);
	cleanup(free_ptr) char *bytes = NULL;
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	bytes = malloc((size_t)st.st_size);
	assert_int_equal(fd_pread_all(fd, bytes, (size_t)st.st_size, 0), 0);
	return checksum_of(bytes, (size_t)st.st_size);
}

static void assert_same(struct site *site, uint64_t id, struct checksum before)
{
	struct checksum after = sum_of(site, id);

	assert_true(checksum_equal(&before, &after));
}

static void run(struct site *site, struct scrub *scrub, uint64_t id)
{
	scrub_init(scrub, site->store, id, NULL);
	if (scrub_run(scrub, &site->err) < 0)
		fail_msg("%s", site->err.text);
}

static void again(struct site *site, struct scrub *scrub)
{
	if (scrub_again(scrub, &site->err) < 0)
		fail_msg("%s", site->err.text);
}

static uint64_t offset_of(struct site *site, uint64_t id, uint32_t object, uint32_t block)
{
	struct pack *pack = pack_set_get(site->store->packs, id);
	uint64_t offset;

	assert_int_equal(pack_load(pack, NULL), 0);
	offset = pack->meta.objects[object].offset + block * PACK_BLOCK_SIZE;
	pack_unref(pack);
	return offset;
}

static void changed_blocks_are_found_and_no_others(void **state)
{
	struct site *site = *state;
	uint64_t id = publish(site, "1.0", "abcdef", false);

	print_message("DEPLOYFS_TEST_SEED=%u\n", site->seed);
	for (int round = 0; round < 20; round++) {
		cleanup(scrub_done) struct scrub scrub;
		bool bad[FILE_COUNT][BLOCKS] = {0};
		uint64_t at[5];
		size_t expected = 0;

		for (int i = 0; i < 5; i++) {
			uint32_t object = (uint32_t)rand_r(&site->seed) % FILE_COUNT;
			uint32_t inside = (uint32_t)rand_r(&site->seed) % FILE_SIZE;

			at[i] = offset_of(site, id, object, 0) + inside;
			flip(site, id, at[i]);
			bad[object][inside / PACK_BLOCK_SIZE] = true;
		}
		run(site, &scrub, id);
		assert_int_equal(scrub.blocks, FILE_COUNT * BLOCKS);
		for (int i = 0; i < FILE_COUNT * BLOCKS; i++)
			expected += bad[i / BLOCKS][i % BLOCKS];
		/* The same byte twice is right again: rare, and then one less is found.
		 */
		assert_true(scrub.bad_count <= expected && scrub.bad_count > 0);
		for (size_t i = 0; i < scrub.bad_count; i++)
			assert_true(bad[scrub.bad[i].object][scrub.bad[i].block]);
		again(site, &scrub);
		assert_true(scrub_found(&scrub));
		for (int i = 0; i < 5; i++)
			flip(site, id, at[i]);
		again(site, &scrub);
		assert_false(scrub_found(&scrub));
	}
}

static size_t resident_pages(struct site *site, uint64_t id)
{
	cleanup(fd_close) int fd = pack_fd(site, id);
	unsigned char pages[4096] = {0};
	size_t count = 0, size;
	struct stat st;
	void *map;

	assert_int_equal(fstat(fd, &st), 0);
	size = (size_t)st.st_size;
	assert_true(size / 4096 < sizeof(pages));
	map = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(map, MAP_FAILED);
	assert_int_equal(mincore(map, size, pages), 0);
	munmap(map, size);
	for (size_t i = 0; i < size / 4096; i++)
		count += pages[i] & 1;
	return count;
}

static void scrub_leaves_the_page_cache_as_it_is(void **state)
{
	struct site *site = *state;
	uint64_t id = publish(site, "1.0", "abcdef", false);
	cleanup(scrub_done) struct scrub scrub;
	cleanup(fd_close) int fd = pack_fd(site, id);
	struct statfs st;

	assert_int_equal(fstatfs(fd, &st), 0);
	if (st.f_type == TMPFS_MAGIC)
		skip();
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	assert_true(resident_pages(site, id) < 8);
	run(site, &scrub, id);
	assert_false(scrub_found(&scrub));
	/* The metadata is read through the cache; the 293 pages of bodies are not. */
	assert_true(resident_pages(site, id) < 40);
}

static int stop_at_third(void *context, uint64_t bytes)
{
	int *calls = context;

	return ++*calls == 3 ? -ECANCELED : 0;
}

static void pace_ends_a_scrub(void **state)
{
	struct site *site = *state;
	uint64_t id = publish(site, "1.0", "abcdef", false);
	int calls = 0;
	struct scrub_pace pace = {stop_at_third, &calls};
	cleanup(scrub_done) struct scrub scrub;

	scrub_init(&scrub, site->store, id, &pace);
	assert_int_equal(scrub_run(&scrub, &site->err), -ECANCELED);
	assert_int_equal(calls, 3);
}

static void what_nobody_uses_any_more_is_not_damaged(void **state)
{
	struct site *site = *state;
	uint64_t id = publish(site, "1.0", "abcdef", false);
	cleanup(scrub_done) struct scrub first = {0}, second = {0};
	uint64_t dead, live;

	publish(site, "1.1", "b", true);
	dead = offset_of(site, id, 0, 2);
	live = offset_of(site, id, 1, 2);
	flip(site, id, dead);
	run(site, &first, id);
	assert_int_equal(first.bad_count, 1);
	/* Freed between the two looks. */
	forget(site, "1.0");
	again(site, &first);
	assert_false(scrub_found(&first));
	assert_int_equal(store_sweep(site->store, NULL, &site->err), 0);
	again(site, &first);
	assert_false(scrub_found(&first));
	flip(site, id, live);
	run(site, &second, id);
	assert_int_equal(second.blocks, BLOCKS);
	assert_int_equal(second.bad_count, 1);
	assert_int_equal(second.bad[0].object, 1);
	forget(site, "1.1");
	assert_int_equal(store_sweep(site->store, NULL, &site->err), 0);
	again(site, &second);
	assert_false(scrub_found(&second));
}

static void only_who_shows_it_is_hurt(void **state)
{
	struct site *site = *state;
	uint64_t id = publish(site, "1.0", "abc", false);
	uint64_t with = publish(site, "1.1", "bx", true);
	cleanup(scrub_done) struct scrub scrub;
	cleanup(free_ptr) uint64_t *users = NULL, *all = NULL;
	size_t count;

	publish(site, "1.2", "cy", true);
	assert_int_equal(
		catalog_users(site->store->catalog, id, &all, &count, &site->err), 0);
	assert_int_equal(count, 3);
	flip(site, id, offset_of(site, id, 1, 0));
	run(site, &scrub, id);
	assert_int_equal(repair_from_store(&scrub, NULL, NULL, &site->err), 0);
	assert_int_equal(scrub_users(&scrub, &users, &count, &site->err), 0);
	assert_int_equal(count, 2);
	assert_true((users[0] == id && users[1] == with) ||
		    (users[0] == with && users[1] == id));
}

static void blocks_come_back_from_any_pack_that_has_them(void **state)
{
	struct site *site = *state;
	uint64_t id = publish(site, "1.0", "abcdef", false);
	struct checksum before = sum_of(site, id);
	cleanup(scrub_done) struct scrub scrub;

	publish(site, "2.0", "xb", false);
	publish(site, "2.1", "ybd", false);
	flip(site, id, offset_of(site, id, 1, 0) + 5);
	flip(site, id, offset_of(site, id, 1, 6) + 3391); /* its last byte */
	flip(site, id, offset_of(site, id, 3, 3));
	flip(site, id, offset_of(site, id, 4, 3)); /* which no other has */
	run(site, &scrub, id);
	assert_int_equal(scrub.bad_count, 4);
	assert_int_equal(repair_from_store(&scrub, NULL, NULL, &site->err), 0);
	assert_int_equal(scrub.bad_count, 1);
	assert_int_equal(scrub.bad[0].object, 4);
	assert_int_equal(scrub.bad[0].block, 3);
	flip(site, id, offset_of(site, id, 4, 3));
	assert_same(site, id, before);
}

static void donor_that_is_rotten_too_does_no_harm(void **state)
{
	struct site *site = *state;
	uint64_t id = publish(site, "1.0", "abc", false);
	uint64_t other = publish(site, "2.0", "abc", false);
	cleanup(scrub_done) struct scrub scrub;
	struct checksum damaged;

	flip(site, id, offset_of(site, id, 1, 2));
	flip(site, other, offset_of(site, other, 1, 2) + 1);
	damaged = sum_of(site, id);
	run(site, &scrub, id);
	assert_int_equal(repair_from_store(&scrub, NULL, NULL, &site->err), 0);
	assert_int_equal(scrub.bad_count, 1);
	assert_same(site, id, damaged);
}

static void readers_get_an_error_and_then_the_right_bytes(void **state)
{
	struct site *site = *state;
	uint64_t id = publish(site, "1.0", "abc", false);
	struct pack *pack = pack_set_get(site->store->packs, id);
	cleanup(free_ptr) char *buffer = malloc(PACK_READ_BUFFER);
	cleanup(free_ptr) char *right = make_bytes(FILE_SIZE, 'b');
	cleanup(scrub_done) struct scrub scrub;
	const void *data;
	size_t size;

	publish(site, "2.0", "b", false);
	/* Found right once, and not looked at again since. */
	assert_int_equal(
		pack_read_object(pack, 1, 0, FILE_SIZE, false, buffer, &data, &size), 0);
	flip(site, id, offset_of(site, id, 1, 2));
	run(site, &scrub, id);
	again(site, &scrub);
	assert_int_equal(pack_read_object(pack, 1, 0, FILE_SIZE, false, buffer, &data,
					  &size),
			 -EBADMSG);
	assert_int_equal(repair_from_store(&scrub, NULL, NULL, &site->err), 0);
	assert_false(scrub_found(&scrub));
	assert_int_equal(
		pack_read_object(pack, 1, 0, FILE_SIZE, false, buffer, &data, &size), 0);
	assert_int_equal(size, FILE_SIZE);
	assert_memory_equal(data, right, FILE_SIZE);
	pack_unref(pack);
}

static void metadata_is_mended_from_its_copy(void **state)
{
	struct site *site = *state;
	uint64_t id = publish(site, "1.0", "abc", false);
	struct checksum before = sum_of(site, id);
	struct pack *pack = pack_set_get(site->store->packs, id);
	struct pack_header header = pack->header;
	const struct {
		unsigned part;
		uint64_t offset;
	} cases[] = {
		{SCRUB_HEADER, 300},
		{SCRUB_META, header.meta_offset + 10},
		{SCRUB_META_COPY, header.copy_offset + header.meta_size - 1},
		{SCRUB_HEADER_COPY, pack_header_copy(&header) + 4095},
	};

	pack_unref(pack);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cleanup(scrub_done) struct scrub scrub;

		flip(site, id, cases[i].offset);
		run(site, &scrub, id);
		assert_int_equal(scrub.parts, cases[i].part);
		assert_int_equal(repair_parts(&scrub, &site->err), 0);
		assert_false(scrub_found(&scrub));
		assert_same(site, id, before);
	}
}

static void pack_that_cannot_be_loaded_is_named(void **state)
{
	struct site *site = *state;
	uint64_t id = publish(site, "1.0", "abc", false);
	cleanup(scrub_done) struct scrub scrub;
	char path[4096], text[256];

	assert_int_equal(truncate(pack_path(site->store->packs, id, path), 5000), 0);
	run(site, &scrub, id);
	assert_true(scrub_found(&scrub));
	assert_non_null(strstr(scrub_text(&scrub, text, sizeof(text)), "damaged"));
	assert_int_equal(repair_from_store(&scrub, NULL, NULL, &site->err), 0);
	assert_true(scrub_found(&scrub));
}

#define WITH_SITE(test) cmocka_unit_test_setup_teardown(test, site_setup, site_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SITE(changed_blocks_are_found_and_no_others),
		WITH_SITE(scrub_leaves_the_page_cache_as_it_is),
		WITH_SITE(pace_ends_a_scrub),
		WITH_SITE(what_nobody_uses_any_more_is_not_damaged),
		WITH_SITE(only_who_shows_it_is_hurt),
		WITH_SITE(blocks_come_back_from_any_pack_that_has_them),
		WITH_SITE(donor_that_is_rotten_too_does_no_harm),
		WITH_SITE(readers_get_an_error_and_then_the_right_bytes),
		WITH_SITE(metadata_is_mended_from_its_copy),
		WITH_SITE(pack_that_cannot_be_loaded_is_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

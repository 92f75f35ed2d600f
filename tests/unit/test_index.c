/* SPDX-License-Identifier: Apache-2.0 */
/* The table of hashes: filled from packs, asked, trimmed, and made again when lost. */
#include "index.h"

#include "cleanup.h"
#include "pack_make.h"
#include "sql.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct site {
	char dir[64];
	char path[80];
	struct pack_set *set;
	struct index *index;
	struct error err;
};

static void open_index(struct site *site)
{
	if (index_open(site->path, true, &site->index, &site->err) < 0)
		fail_msg("%s", site->err.text);
}

static int site_setup(void **state)
{
	struct site *site = calloc(1, sizeof(*site));

	snprintf(site->dir, sizeof(site->dir), "/tmp/test-index-XXXXXX");
	assert_non_null(mkdtemp(site->dir));
	snprintf(site->path, sizeof(site->path), "%s/index.db", site->dir);
	site->set = pack_set_new(site->dir);
	*state = site;
	return 0;
}

static int open_setup(void **state)
{
	site_setup(state);
	open_index(*state);
	return 0;
}

static int site_teardown(void **state)
{
	struct site *site = *state;
	char command[128];

	index_close(site->index);
	pack_set_free(site->set);
	snprintf(command, sizeof(command), "rm -rf '%s'", site->dir);
	free(site);
	return system(command);
}

/* A pack with the files "a" of seed 1 (twice), "b" of seed 2 and a link; loaded. */
static struct pack *pack_of(struct site *site, uint64_t id)
{
	cleanup(free_ptr) char *a = make_bytes(70000, 1), *b = make_bytes(500, 2);
	struct make make;
	struct pack_key key;
	struct pack *pack;

	make_begin(&make, site->dir, id, NULL, NULL);
	make_file(&make, "a", a, 70000);
	make_file(&make, "b", b, 500);
	make_file(&make, "twin", a, 70000);
	make_symlink(&make, "link", "a");
	key = make_end(&make, id * 100, NULL, NULL);
	assert_int_equal(pack_set_add(site->set, &key), 0);
	pack = pack_set_get(site->set, id);
	assert_int_equal(pack_load(pack, &site->err), 0);
	return pack;
}

static struct checksum content_of(const struct pack *pack, uint32_t object)
{
	const struct pack_object *record = &pack->meta.objects[object];

	return pack_content_hash(pack->meta.checks + record->check_first,
				 pack_checks_of(record->size));
}

static struct checksum identity_of(const struct pack *pack, uint32_t node)
{
	const struct pack_node *record = &pack->meta.nodes[node];
	struct checksum content = content_of(pack, record->object);

	return pack_identity_hash(&content, pack->meta.objects[record->object].size,
				  record);
}

static void added_pack_is_found_by_content_and_identity(void **state)
{
	struct site *site = *state;
	struct pack *one = pack_of(site, 1), *two = pack_of(site, 2);
	struct checksum content = content_of(one, 0), identity = identity_of(one, 0);
	static const uint64_t ids[] = {100, 102, 200, 202};
	struct index_object found[4];
	uint64_t node = 0;

	assert_true(index_empty(site->index));
	assert_int_equal(index_add(site->index, one, &site->err), 0);
	assert_false(index_empty(site->index));
	assert_int_equal(index_find_objects(site->index, &content, 4, found), 1);
	assert_int_equal(found[0].pack, 1);
	assert_int_equal(found[0].object, 0);

	assert_int_equal(index_add(site->index, two, &site->err), 0);
	assert_int_equal(index_add(site->index, two, &site->err), 0);
	assert_int_equal(index_find_objects(site->index, &content, 4, found), 2);
	assert_int_equal(found[0].pack, 2); /* the newest first */
	assert_int_equal(found[1].pack, 1);
	assert_int_equal(index_find_objects(site->index, &content, 1, found), 1);
	assert_int_equal(index_find_objects(site->index, &identity, 4, found), 0);

	/* "a" and "twin" of both packs, by their ids */
	for (size_t i = 0; i < 4; i++) {
		assert_int_equal(index_find_node(site->index, &identity, node, &node), 1);
		assert_int_equal(node, ids[i]);
	}
	assert_int_equal(index_find_node(site->index, &identity, node, &node), 0);
	assert_int_equal(node, 202);
	pack_unref(one);
	pack_unref(two);
}

static void index_is_still_there_after_closing_it(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of(site, 1);
	struct checksum content = content_of(pack, 1);
	struct index_object found[4];

	assert_int_equal(index_add(site->index, pack, &site->err), 0);
	index_close(site->index);
	open_index(site);
	assert_int_equal(index_find_objects(site->index, &content, 4, found), 1);
	assert_int_equal(found[0].object, 1);
	pack_unref(pack);
}

static void only_what_is_dead_is_removed(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of(site, 1);
	const bool objects[] = {true, false, false},
		   nodes[] = {true, false, false, false};
	struct checksum alive = content_of(pack, 0), dead = content_of(pack, 1);
	struct checksum identity = identity_of(pack, 0);
	struct index_object found[4];
	uint64_t node = 0;

	assert_int_equal(pack->meta.object_count, 3);
	assert_int_equal(pack->meta.node_count, 4);
	assert_int_equal(index_add(site->index, pack, &site->err), 0);
	assert_int_equal(index_remove(site->index, pack, objects, nodes, &site->err), 0);
	assert_int_equal(index_find_objects(site->index, &alive, 4, found), 1);
	assert_int_equal(index_find_objects(site->index, &dead, 4, found), 0);
	assert_int_equal(index_find_node(site->index, &identity, 0, &node), 1);
	assert_int_equal(node, 100);
	assert_int_equal(index_find_node(site->index, &identity, node, &node), 0);
	pack_unref(pack);
}

static void reader_sees_what_the_writer_adds(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of(site, 1);
	struct checksum content = content_of(pack, 0);
	struct index_object found[4];
	struct index *reader;

	assert_int_equal(index_open(site->path, false, &reader, &site->err), 0);
	assert_true(index_empty(reader));
	assert_int_equal(index_add(site->index, pack, &site->err), 0);
	assert_int_equal(index_find_objects(reader, &content, 4, found), 1);
	assert_true(index_add(reader, pack, &site->err) < 0);
	index_close(reader);
	pack_unref(pack);
}

static void shell(const char *command, const char *path)
{
	char text[256];

	snprintf(text, sizeof(text), command, path);
	assert_int_equal(system(text), 0);
}

static void assert_usable(struct site *site)
{
	struct pack *pack = pack_of(site, 1);

	open_index(site);
	assert_true(index_empty(site->index));
	assert_int_equal(index_add(site->index, pack, &site->err), 0);
	assert_false(index_empty(site->index));
	pack_unref(pack);
}

static void damaged_file_is_replaced_by_who_may_write(void **state)
{
	struct site *site = *state;
	struct index *reader = NULL;

	shell("yes text | head -c 20000 > %s", site->path);
	assert_int_equal(index_open(site->path, false, &reader, &site->err), 0);
	assert_true(index_empty(reader));
	index_close(reader);
	assert_usable(site);
}

static void run_sql(struct site *site, const char *text)
{
	sqlite3 *db;

	assert_int_equal(sql_open(site->path, true, NULL, &db, &site->err), 0);
	assert_int_equal(sql_exec(db, text, &site->err), 0);
	sqlite3_close(db);
}

/* Pages deep inside, while the index is open: the root is in order. */
static void damage_that_is_found_later_is_mended(void **state)
{
	struct site *site = *state;
	struct pack *pack = pack_of(site, 1);

	open_index(site);
	assert_int_equal(index_add(site->index, pack, &site->err), 0);
	run_sql(site, "PRAGMA wal_checkpoint(TRUNCATE)");
	shell("yes text | dd of=%s bs=1024 seek=1 count=30 conv=notrunc status=none",
	      site->path);
	index_add(site->index, pack, &site->err);
	assert_true(index_is_damaged(site->index));
	assert_int_equal(index_renew(site->index, &site->err), 0);
	assert_false(index_is_damaged(site->index));
	assert_true(index_empty(site->index));
	assert_int_equal(index_add(site->index, pack, &site->err), 0);
	assert_false(index_empty(site->index));
	pack_unref(pack);
}

static void file_of_another_version_is_replaced(void **state)
{
	run_sql(*state, "CREATE TABLE object(x); PRAGMA user_version = 77");
	assert_usable(*state);
}

static void making_that_a_crash_broke_off_is_begun_again(void **state)
{
	run_sql(*state, "CREATE TABLE object(content BLOB)");
	assert_usable(*state);
}

#define WITH_SITE(test)  cmocka_unit_test_setup_teardown(test, site_setup, site_teardown)
#define WITH_INDEX(test) cmocka_unit_test_setup_teardown(test, open_setup, site_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_INDEX(added_pack_is_found_by_content_and_identity),
		WITH_INDEX(index_is_still_there_after_closing_it),
		WITH_INDEX(only_what_is_dead_is_removed),
		WITH_INDEX(reader_sees_what_the_writer_adds),
		WITH_SITE(damaged_file_is_replaced_by_who_may_write),
		WITH_SITE(damage_that_is_found_later_is_mended),
		WITH_SITE(file_of_another_version_is_replaced),
		WITH_SITE(making_that_a_crash_broke_off_is_begun_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What apps/ shows, while names come and go. */
#include "view.h"

#include "cleanup.h"
#include "pack_make.h"

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
#include <unistd.h>

#include <cmocka.h>

#define SHOP   20 /* node ids */
#define OTHER  30
#define STATUS 40

struct site {
	char dir[64];
	struct pack_set *set;
	struct view *view;
	struct pack_key keys[3]; /* of packs 1 and 2 */
	char *buffer;
};

/* "bin/run", "readme", and 50 files in "many" */
static void pack_add(struct site *site, uint64_t id)
{
	struct make make;
	char name[32];

	make_begin(&make, site->dir, id, NULL, NULL);
	make_file(&make, "bin/run", "#!run", 5);
	make_file(&make, "readme", id == 1 ? "one" : "two", 3);
	make_symlink(&make, "link", "bin/run");
	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "many/%02d", i);
		make_file(&make, name, name, strlen(name));
	}
	site->keys[id] = make_end(&make, id * 1000, NULL, NULL);
	assert_int_equal(pack_set_add(site->set, &site->keys[id]), 0);
}

static uint64_t root_of(const struct site *site, uint64_t id)
{
	return site->keys[id].first_node + site->keys[id].node_count;
}

static int apply(struct site *site, enum change_kind kind, const char *app,
		 uint64_t app_node, const char *name, uint64_t node, uint64_t pack,
		 const char *text)
{
	struct change change = {.kind = kind,
				.app_node = app_node,
				.node = node,
				.pack = pack,
				.time_ns = 5000000007,
				.app_time_ns = 6000000008,
				.text = (char *)text};

	snprintf(change.app, sizeof(change.app), "%s", app);
	snprintf(change.name, sizeof(change.name), "%s", name);
	return view_apply(site->view, &change);
}

static void add_app(struct site *site, const char *app, uint64_t node)
{
	assert_int_equal(apply(site, CHANGE_APP, app, node, "", 0, 0, NULL), 0);
}

static void add_version(struct site *site, const char *name, uint64_t pack)
{
	assert_int_equal(apply(site, CHANGE_VERSION, "shop", SHOP, name,
			       root_of(site, pack), pack, NULL),
			 0);
}

static void drop(struct site *site, enum change_kind kind, const char *name)
{
	assert_int_equal(apply(site, kind, "shop", SHOP, name, 0, 0, NULL), 0);
}

static void point(struct site *site, const char *channel, uint64_t node,
		  const char *version)
{
	assert_int_equal(
		apply(site, CHANGE_LINK, "shop", SHOP, channel, node, 0, version), 0);
}

static void tell(struct site *site, const char *file, uint64_t node, const char *text)
{
	assert_int_equal(apply(site, CHANGE_TEXT, "", 0, file, node, 0, text), 0);
}

/* shop with 1.0, 1.1 and current -> 1.1; the files of .deployfs/ */
static int site_setup(void **state)
{
	struct site *site = calloc(1, sizeof(*site));

	snprintf(site->dir, sizeof(site->dir), "/tmp/test-view-XXXXXX");
	assert_non_null(mkdtemp(site->dir));
	site->set = pack_set_new(site->dir);
	site->view = view_new(site->set);
	site->buffer = malloc(PACK_READ_BUFFER);
	pack_add(site, 1);
	pack_add(site, 2);
	add_app(site, "shop", SHOP);
	add_version(site, "1.0", 1);
	add_version(site, "1.1", 2);
	point(site, "current", SHOP + 1, "1.1");
	tell(site, "version", STATUS, "0.1\n");
	tell(site, "status.json", STATUS + 1, "{}\n");
	*state = site;
	return 0;
}

static int site_teardown(void **state)
{
	struct site *site = *state;
	char command[128];

	view_free(site->view);
	pack_set_free(site->set);
	snprintf(command, sizeof(command), "rm -rf '%s'", site->dir);
	free(site->buffer);
	free(site);
	return system(command);
}

/* The attributes of a path, name by name. */
static struct pack_stat walk(struct site *site, const char *path)
{
	struct pack_stat stat;
	char name[64];

	assert_int_equal(view_stat(site->view, VIEW_ROOT, &stat), 0);
	while (*path) {
		struct pack_stat again;
		size_t size = strcspn(path, "/");

		snprintf(name, sizeof(name), "%.*s", (int)size, path);
		if (view_lookup(site->view, stat.node, name, &stat) < 0)
			fail_msg("no '%s'", path);
		assert_int_equal(view_stat(site->view, stat.node, &again), 0);
		assert_int_equal(again.node, stat.node);
		assert_int_equal(again.mode, stat.mode);
		assert_int_equal(again.size, stat.size);
		path += size + (path[size] == '/');
	}
	return stat;
}

static void assert_reads(struct site *site, uint64_t node, const char *expected)
{
	const void *data;
	size_t size;

	assert_int_equal(view_read(site->view, node, 0, PACK_READ_MAX, site->buffer,
				   &data, &size),
			 0);
	assert_int_equal(size, strlen(expected));
	assert_memory_equal(data, expected, size);
	assert_int_equal(view_read(site->view, node, 1, 1, site->buffer, &data, &size),
			 0);
	assert_int_equal(size, 1);
	assert_memory_equal(data, expected + 1, 1);
	assert_int_equal(view_read(site->view, node, strlen(expected), 10, site->buffer,
				   &data, &size),
			 0);
	assert_int_equal(size, 0);
	assert_int_equal(view_read(site->view, node, UINT64_MAX, 10, site->buffer, &data,
				   &size),
			 0);
	assert_int_equal(size, 0);
}

static void names_lead_from_the_root_to_the_bytes(void **state)
{
	struct site *site = *state;
	struct pack_stat stat = walk(site, "shop/1.0/readme");

	assert_int_equal(stat.mode, S_IFREG | 0644);
	assert_reads(site, stat.node, "one");
	assert_reads(site, walk(site, "shop/1.1/readme").node, "two");
	assert_reads(site, walk(site, "shop/1.1/link").node, "bin/run");
	stat = walk(site, "shop/current");
	assert_int_equal(stat.mode, S_IFLNK | 0777);
	assert_int_equal(stat.node, SHOP + 1);
	assert_int_equal(stat.size, 3);
	assert_reads(site, stat.node, "1.1");
	assert_reads(site, walk(site, ".deployfs/version").node, "0.1\n");
	assert_int_equal(walk(site, "shop/1.0").node, root_of(site, 1));
}

static void directories_count_their_directories(void **state)
{
	struct site *site = *state;
	struct pack_stat stat = walk(site, "shop");

	assert_int_equal(stat.nlink, 4);
	assert_int_equal(stat.mtime_s, 6);
	assert_int_equal(stat.mtime_ns, 8);
	assert_int_equal(stat.mode, S_IFDIR | 0755);
	assert_int_equal(walk(site, "").nlink, 4);
	assert_int_equal(walk(site, ".deployfs").nlink, 2);
	assert_int_equal(walk(site, ".deployfs/version").nlink, PACK_NLINK_MIN);
	drop(site, CHANGE_VERSION_GONE, "1.0");
	assert_int_equal(walk(site, "shop").nlink, 3);
}

static void what_is_not_there_has_its_own_error(void **state)
{
	struct site *site = *state;
	struct pack_stat stat;
	const void *data;
	size_t size;
	uint64_t file = walk(site, "shop/1.0/readme").node;

	assert_int_equal(view_lookup(site->view, VIEW_ROOT, "none", &stat), -ENOENT);
	assert_int_equal(view_lookup(site->view, SHOP, "9.9", &stat), -ENOENT);
	assert_int_equal(view_lookup(site->view, VIEW_STATUS, "x", &stat), -ENOENT);
	assert_int_equal(view_lookup(site->view, root_of(site, 1), "x", &stat), -ENOENT);
	assert_int_equal(view_lookup(site->view, file, "x", &stat), -ENOTDIR);
	assert_int_equal(view_lookup(site->view, 777, "x", &stat), -ESTALE);
	assert_int_equal(view_stat(site->view, 777, &stat), -ESTALE);
	assert_int_equal(view_stat(site->view, 0, &stat), -ESTALE);
	assert_int_equal(view_stat(site->view, UINT64_MAX, &stat), -ESTALE);
	assert_int_equal(view_read(site->view, 777, 0, 1, site->buffer, &data, &size),
			 -ESTALE);
	assert_int_equal(view_read(site->view, root_of(site, 1), 0, 1, site->buffer,
				   &data, &size),
			 -EISDIR);
}

static void flip_gives_a_new_id_and_the_old_one_says_what_it_said(void **state)
{
	struct site *site = *state;
	struct pack_stat stat;

	point(site, "current", SHOP + 5, "1.0");
	assert_int_equal(walk(site, "shop/current").node, SHOP + 5);
	assert_reads(site, SHOP + 5, "1.0");
	assert_reads(site, SHOP + 1, "1.1");
	assert_int_equal(view_stat(site->view, SHOP + 1, &stat), 0);
	assert_int_equal(stat.mode, S_IFLNK | 0777);
	drop(site, CHANGE_LINK_GONE, "current");
	assert_int_equal(view_lookup(site->view, SHOP, "current", &stat), -ENOENT);
	assert_reads(site, SHOP + 5, "1.0");
}

static void text_gets_a_new_id_and_the_old_one_says_what_it_said(void **state)
{
	struct site *site = *state;

	tell(site, "status.json", STATUS + 2, "{\"a\": 1}\n");
	assert_int_equal(walk(site, ".deployfs/status.json").node, STATUS + 2);
	assert_reads(site, STATUS + 2, "{\"a\": 1}\n");
	assert_reads(site, STATUS + 1, "{}\n");
	tell(site, "status.json", STATUS + 2, "{\"a\": 1}\n"); /* again changes nothing */
	assert_int_equal(walk(site, ".deployfs/status.json").node, STATUS + 2);
	assert_reads(site, walk(site, ".deployfs/version").node, "0.1\n");
}

static void remembered_ids_are_answered_but_not_shown(void **state)
{
	struct site *site = *state;
	struct change link = {.kind = CHANGE_LINK,
			      .app = "shop",
			      .name = "current",
			      .app_node = SHOP,
			      .node = SHOP - 1,
			      .text = (char *)"0.9"};
	struct change text = {.kind = CHANGE_TEXT,
			      .name = "version",
			      .node = STATUS - 1,
			      .text = (char *)"0.0\n"};
	struct change shown = {.kind = CHANGE_TEXT,
			       .name = "version",
			       .node = STATUS,
			       .text = (char *)"0.1\n"};

	assert_int_equal(view_remember(site->view, &link), 0);
	assert_int_equal(view_remember(site->view, &text), 0);
	assert_int_equal(view_remember(site->view, &shown), 0);
	assert_reads(site, SHOP - 1, "0.9");
	assert_reads(site, STATUS - 1, "0.0\n");
	assert_int_equal(walk(site, "shop/current").node, SHOP + 1);
	assert_int_equal(walk(site, ".deployfs/version").node, STATUS);
}

/* The names of a listing, read in pieces of @step entries from offset to offset. */
struct listing {
	char text[2000];
	uint64_t offset;
	size_t count, step;
	bool stats;
};

static bool list_one(void *context, const struct view_entry *entry)
{
	struct listing *listing = context;
	size_t at = strlen(listing->text);

	if (listing->count == listing->step)
		return false;
	assert_true(entry->next > listing->offset);
	if (entry->has_stat) {
		assert_int_equal(entry->stat.node, entry->node);
		assert_int_equal(IFTODT(entry->stat.mode), entry->type);
		listing->stats = true;
	}
	listing->offset = entry->next;
	listing->count++;
	snprintf(listing->text + at, sizeof(listing->text) - at, "%s ", entry->name);
	return true;
}

/* The next @step names behind the last; false at the end. */
static bool list_some(struct site *site, uint64_t node, size_t step,
		      struct listing *listing)
{
	listing->count = 0;
	listing->step = step;
	assert_int_equal(
		view_list(site->view, node, listing->offset, true, list_one, listing), 0);
	return listing->count > 0;
}

static void assert_list(struct site *site, uint64_t node, const char *expected)
{
	for (size_t step = 1; step < 100; step += step) {
		struct listing listing = {0};

		while (list_some(site, node, step, &listing))
			;
		assert_string_equal(listing.text, expected);
	}
}

static void listings_have_every_name_once_in_pieces_of_any_size(void **state)
{
	struct site *site = *state;
	char many[400] = ". .. ";

	for (int i = 0; i < 50; i++)
		snprintf(many + strlen(many), 8, "%02d ", i);
	add_app(site, "other", OTHER);
	assert_list(site, VIEW_ROOT, ". .. .deployfs shop other ");
	assert_list(site, VIEW_STATUS, ". .. status.json version ");
	assert_list(site, SHOP, ". .. 1.0 1.1 current ");
	assert_list(site, OTHER, ". .. ");
	assert_list(site, root_of(site, 1), ". .. bin link many readme ");
	assert_list(site, walk(site, "shop/1.0/many").node, many);
}

static void listing_goes_on_where_it_was_while_names_come_and_go(void **state)
{
	struct site *site = *state;
	struct listing listing = {0}, root = {0};

	list_some(site, SHOP, 3, &listing); /* . .. 1.0 */
	list_some(site, VIEW_ROOT, 4, &root);
	drop(site, CHANGE_VERSION_GONE, "1.0");
	add_app(site, "other", OTHER);
	point(site, "current", SHOP + 6, "1.0");
	point(site, "beta", SHOP + 7, "1.0");
	list_some(site, SHOP, 1, &listing);
	assert_string_equal(listing.text, ". .. 1.0 1.1 ");
	drop(site, CHANGE_LINK_GONE, "current");
	add_version(site, "1.0", 1);
	/* "beta" and the new "1.0" have their places before "1.1". */
	list_some(site, SHOP, 99, &listing);
	assert_string_equal(listing.text, ". .. 1.0 1.1 ");
	list_some(site, VIEW_ROOT, 99, &root);
	assert_string_equal(root.text, ". .. .deployfs shop other ");
}

static void listing_goes_on_where_it_was_however_the_names_came(void **state)
{
	struct site *site = *state;
	struct listing before = {0}, after;

	point(site, "beta", SHOP + 7, "1.0");
	list_some(site, SHOP, 4, &before);
	after = before;
	list_some(site, SHOP, 99, &before);
	/* The order in which a restart shows them is another one. */
	drop(site, CHANGE_LINK_GONE, "current");
	drop(site, CHANGE_VERSION_GONE, "1.0");
	drop(site, CHANGE_LINK_GONE, "beta");
	point(site, "current", SHOP + 8, "1.0");
	point(site, "beta", SHOP + 9, "1.0");
	add_version(site, "1.0", 1);
	list_some(site, SHOP, 99, &after);
	assert_string_equal(after.text, before.text);
}

static void offset_far_behind_the_end_lists_nothing(void **state)
{
	static const uint64_t offsets[] = {1000, UINT32_MAX, UINT32_MAX + 3ULL,
					   INT64_MAX};
	struct site *site = *state;
	const uint64_t nodes[] = {VIEW_ROOT, VIEW_STATUS, root_of(site, 1)};
	struct listing last = {.offset = INT64_MAX};

	assert_false(list_some(site, SHOP, 99, &last));
	for (size_t i = 0; i < 4; i++) {
		for (size_t j = 0; j < 3; j++) {
			struct listing listing = {.offset = offsets[i]};

			assert_false(list_some(site, nodes[j], 99, &listing));
		}
	}
}

static void listing_loads_no_pack_that_nobody_has_touched(void **state)
{
	struct site *site = *state;
	struct listing listing = {0};
	struct pack *pack = pack_set_get(site->set, 1);

	list_some(site, SHOP, 99, &listing);
	assert_false(atomic_load(&pack->loaded));
	listing = (struct listing){0};
	list_some(site, root_of(site, 1), 99, &listing);
	assert_true(atomic_load(&pack->loaded));
	assert_true(listing.stats);
	pack_unref(pack);
}

static void only_directories_are_listed(void **state)
{
	struct site *site = *state;
	struct listing listing = {.step = 99};
	uint64_t file = walk(site, "shop/1.0/readme").node;

	assert_int_equal(view_list(site->view, file, 0, false, list_one, &listing),
			 -ENOTDIR);
	assert_int_equal(view_list(site->view, 777, 0, false, list_one, &listing),
			 -ESTALE);
	assert_int_equal(listing.count, 0);
}

static void damaged_pack_fails_alone(void **state)
{
	struct site *site = *state;
	struct pack_stat stat;
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/1.pack", site->dir);
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "x", 1, 100), 1);
	assert_int_equal(
		pwrite(fd, "x", 1, lseek(fd, 0, SEEK_END) - PACK_HEADER_SIZE + 100), 1);
	close(fd);
	assert_int_equal(view_lookup(site->view, SHOP, "1.0", &stat), -EIO);
	assert_int_equal(view_stat(site->view, root_of(site, 1), &stat), -EIO);
	assert_reads(site, walk(site, "shop/1.1/readme").node, "two");
	assert_list(site, SHOP, ". .. 1.0 1.1 current ");
}

static void changes_of_unknown_names_do_no_harm(void **state)
{
	struct site *site = *state;
	uint64_t apps, versions;

	assert_int_equal(apply(site, CHANGE_VERSION, "none", 99, "1.0", 5, 1, NULL),
			 -EINVAL);
	assert_int_equal(apply(site, CHANGE_VERSION_GONE, "none", 99, "1.0", 5, 1, NULL),
			 0);
	drop(site, CHANGE_VERSION_GONE, "9.9");
	drop(site, CHANGE_LINK_GONE, "beta");
	add_app(site, "shop", SHOP);
	view_counts(site->view, &apps, &versions);
	assert_int_equal(apps, 1);
	assert_int_equal(versions, 2);
	drop(site, CHANGE_LINK_GONE, "current");
	drop(site, CHANGE_VERSION_GONE, "1.1");
	view_counts(site->view, &apps, &versions);
	assert_int_equal(versions, 1);
}

static void hundred_apps_are_found_by_name_and_by_id(void **state)
{
	struct site *site = *state;
	struct pack_stat stat;
	char name[16];

	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "app%u", i * 37 % 100);
		add_app(site, name, 100 + i);
	}
	for (unsigned i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "app%u", i * 37 % 100);
		assert_int_equal(view_lookup(site->view, VIEW_ROOT, name, &stat), 0);
		assert_int_equal(stat.node, 100 + i);
		assert_int_equal(view_stat(site->view, 100 + i, &stat), 0);
	}
}

#define WITH_SITE(test) cmocka_unit_test_setup_teardown(test, site_setup, site_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SITE(names_lead_from_the_root_to_the_bytes),
		WITH_SITE(directories_count_their_directories),
		WITH_SITE(what_is_not_there_has_its_own_error),
		WITH_SITE(flip_gives_a_new_id_and_the_old_one_says_what_it_said),
		WITH_SITE(text_gets_a_new_id_and_the_old_one_says_what_it_said),
		WITH_SITE(remembered_ids_are_answered_but_not_shown),
		WITH_SITE(listings_have_every_name_once_in_pieces_of_any_size),
		WITH_SITE(listing_goes_on_where_it_was_while_names_come_and_go),
		WITH_SITE(listing_goes_on_where_it_was_however_the_names_came),
		WITH_SITE(offset_far_behind_the_end_lists_nothing),
		WITH_SITE(listing_loads_no_pack_that_nobody_has_touched),
		WITH_SITE(only_directories_are_listed),
		WITH_SITE(damaged_pack_fails_alone),
		WITH_SITE(changes_of_unknown_names_do_no_harm),
		WITH_SITE(hundred_apps_are_found_by_name_and_by_id),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

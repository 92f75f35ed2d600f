/* SPDX-License-Identifier: Apache-2.0 */
/* Versions, channels and generations, and what a change tells the mount. */
#include "catalog.h"

#include "cleanup.h"

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
	struct catalog *catalog;
	struct change_list changes; /* of the last command */
	struct flip flip;
	const char *key; /* of the next command; NULL: none */
	struct error err;
};

/* -Wl,--wrap: a clock that a test can set back; 0: the true one */
static int64_t now_ns;

int64_t __real_clock_wall_ns(void);
int64_t __wrap_clock_wall_ns(void);
int64_t __wrap_clock_wall_ns(void)
{
	return now_ns ? now_ns : __real_clock_wall_ns();
}

static void open_catalog(struct site *site)
{
	if (catalog_open(site->path, true, &site->catalog, &site->err) < 0)
		fail_msg("%s", site->err.text);
}

static void reopen_catalog(struct site *site)
{
	catalog_close(site->catalog);
	open_catalog(site);
}

static int site_setup(void **state)
{
	struct site *site = calloc(1, sizeof(*site));

	snprintf(site->dir, sizeof(site->dir), "/tmp/test-catalog-XXXXXX");
	assert_non_null(mkdtemp(site->dir));
	snprintf(site->path, sizeof(site->path), "%s/catalog.db", site->dir);
	now_ns = 0;
	open_catalog(site);
	*state = site;
	return 0;
}

static int site_teardown(void **state)
{
	struct site *site = *state;
	char command[128];

	catalog_close(site->catalog);
	change_list_done(&site->changes);
	snprintf(command, sizeof(command), "rm -rf '%s'", site->dir);
	free(site);
	return system(command);
}

/* A version of this name and content, with a pack of its own that needs @deps. */
static int add_with(struct site *site, const char *app, const char *name,
		    unsigned char content, const uint64_t *deps, size_t dep_count)
{
	struct version version = {.verified = "sha256sums", .node_count = 10};
	struct pack_key key = {.node_count = 10, .dir_count = 2};

	snprintf(version.app, sizeof(version.app), "%s", app);
	snprintf(version.name, sizeof(version.name), "%s", name);
	version.sha256[0] = content;
	assert_int_equal(
		catalog_reserve(site->catalog, 12, &key.id, &key.first_node, NULL), 0);
	version.pack = key.id;
	version.first_node = key.first_node;
	change_list_done(&site->changes);
	return catalog_add_version(site->catalog, &version, &key, 1000, deps, dep_count,
				   &site->changes, &site->err);
}

static int add(struct site *site, const char *app, const char *name)
{
	return add_with(site, app, name, (unsigned char)name[0], NULL, 0);
}

static int flip_channel(struct site *site, const char *channel, const char *version)
{
	change_list_done(&site->changes);
	return catalog_flip(site->catalog, "shop", channel, version, "root", "why",
			    site->key, &site->flip, &site->changes, &site->err);
}

static int flip(struct site *site, const char *version)
{
	return flip_channel(site, "current", version);
}

static int rollback_channel(struct site *site, const char *channel)
{
	change_list_done(&site->changes);
	return catalog_rollback(site->catalog, "shop", channel, "root", "broken",
				site->key, &site->flip, &site->changes, &site->err);
}

static int rollback(struct site *site)
{
	return rollback_channel(site, "current");
}

static int hide(struct site *site, const char *version)
{
	change_list_done(&site->changes);
	return catalog_hide(site->catalog, "shop", version, site->key, &site->changes,
			    &site->err);
}

static struct version found(struct site *site, const char *version)
{
	struct version known;

	assert_int_equal(catalog_find(site->catalog, "shop", version, &known, NULL), 0);
	return known;
}

struct wanted {
	const char *name;
	char version[NAME_LENGTH_MAX + 1];
};

static int want_channel(void *context, const struct channel *channel)
{
	struct wanted *wanted = context;

	if (!strcmp(channel->name, wanted->name))
		memcpy(wanted->version, channel->version, sizeof(wanted->version));
	return 0;
}

/* Where a channel points; "": nowhere. */
static void assert_channel(struct site *site, const char *channel, const char *version)
{
	struct wanted wanted = {.name = channel};

	assert_int_equal(catalog_each_channel(site->catalog, "shop", want_channel,
					      &wanted, NULL),
			 0);
	assert_string_equal(wanted.version, version);
}

static void assert_kinds(struct site *site, const enum change_kind *kinds, size_t count)
{
	assert_int_equal(site->changes.count, count);
	for (size_t i = 0; i < count; i++)
		assert_int_equal(site->changes.changes[i].kind, kinds[i]);
}

#define ASSERT_CHANGES(site, ...)                                               \
	do {                                                                    \
		static const enum change_kind kinds_[] = {__VA_ARGS__};         \
		assert_kinds(site, kinds_, sizeof(kinds_) / sizeof(kinds_[0])); \
	} while (0)

/* shop with versions 1.0, 1.1, 1.2, flipped to in this order */
static int history_setup(void **state)
{
	static const char *const versions[] = {"1.0", "1.1", "1.2"};
	struct site *site;

	site_setup(state);
	site = *state;
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(add(site, "shop", versions[i]), 0);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(flip(site, versions[i]), 0);
	return 0;
}

static void rollback_goes_back_one_by_one_until_nothing_is_left(void **state)
{
	struct site *site = *state;

	assert_channel(site, "previous", "1.1");
	assert_int_equal(rollback(site), 0);
	assert_string_equal(site->flip.from, "1.2");
	assert_string_equal(site->flip.to, "1.1");
	assert_string_equal(site->flip.previous, "1.0");
	assert_channel(site, "current", "1.1");
	assert_channel(site, "previous", "1.0");
	assert_true(found(site, "1.2").bad);
	assert_string_equal(found(site, "1.2").bad_reason, "rolled back: broken");

	assert_int_equal(rollback(site), 0);
	assert_string_equal(site->flip.to, "1.0");
	assert_string_equal(site->flip.previous, "");
	assert_channel(site, "previous", "");
	ASSERT_CHANGES(site, CHANGE_LINK, CHANGE_LINK_GONE);
	assert_string_equal(site->changes.changes[1].name, "previous");

	assert_int_equal(rollback(site), -ENOENT);
	assert_int_equal(site->changes.count, 0);
	assert_channel(site, "current", "1.0");
	assert_false(found(site, "1.0").bad);
}

static void explicit_flip_to_a_bad_version_clears_the_mark(void **state)
{
	struct site *site = *state;

	assert_int_equal(rollback(site), 0);
	assert_int_equal(flip(site, "1.2"), 0);
	assert_non_null(strstr(site->flip.note, "cleared"));
	assert_false(found(site, "1.2").bad);
	assert_string_equal(found(site, "1.2").bad_reason, "");
	assert_string_equal(site->flip.previous, "1.1");
	assert_channel(site, "previous", "1.1");
}

static void rollback_passes_over_versions_that_are_not_there(void **state)
{
	struct site *site = *state;

	assert_int_equal(add(site, "shop", "1.3"), 0);
	assert_int_equal(flip(site, "1.3"), 0);
	assert_int_equal(hide(site, "1.1"), 0);
	assert_channel(site, "previous", "1.2");
	assert_int_equal(rollback(site), 0);
	assert_string_equal(site->flip.to, "1.2");
	assert_channel(site, "previous", "1.0");
	assert_int_equal(rollback(site), 0);
	assert_string_equal(site->flip.to, "1.0");
}

static void flipping_back_and_forth_makes_the_other_previous(void **state)
{
	struct site *site = *state;

	assert_int_equal(flip(site, "1.0"), 0);
	assert_channel(site, "previous", "1.2");
	assert_int_equal(flip(site, "1.2"), 0);
	assert_channel(site, "previous", "1.0");
}

static void flip_to_what_is_current_changes_nothing(void **state)
{
	struct site *site = *state;
	uint64_t generation = site->flip.generation;

	assert_int_equal(flip(site, "1.2"), 0);
	assert_false(site->flip.changed);
	assert_string_equal(site->flip.to, "1.2");
	assert_int_equal(site->changes.count, 0);
	assert_int_equal(flip(site, "1.0"), 0);
	assert_true(site->flip.changed);
	assert_int_equal(site->flip.generation, generation + 1);
}

static void marks_belong_to_the_app_and_generations_to_the_channel(void **state)
{
	struct site *site = *state;

	assert_int_equal(flip_channel(site, "beta", "1.1"), 0);
	assert_int_equal(site->flip.generation, 1);
	assert_string_equal(site->flip.from, "");
	assert_int_equal(rollback_channel(site, "beta"), -ENOENT);
	assert_int_equal(flip_channel(site, "beta", "1.2"), 0);
	assert_channel(site, "current", "1.2");
	assert_int_equal(rollback_channel(site, "beta"), 0);
	assert_channel(site, "beta", "1.1");
	assert_channel(site, "current", "1.2");

	/* 1.2 is bad for all channels, 1.1 would be current's choice. */
	assert_true(found(site, "1.2").bad);
	assert_channel(site, "previous", "1.1");
	assert_int_equal(flip_channel(site, "beta", "1.0"), 0);
	assert_int_equal(rollback_channel(site, "beta"), 0);
	assert_string_equal(site->flip.to, "1.1");
	/* That has made 1.0 bad, current's own way is not touched. */
	assert_int_equal(rollback(site), 0);
	assert_string_equal(site->flip.to, "1.1");
	assert_string_equal(site->flip.previous, "");
}

static void mark_of_another_channel_moves_previous(void **state)
{
	struct site *site = *state;

	assert_int_equal(flip_channel(site, "beta", "1.0"), 0);
	assert_int_equal(flip_channel(site, "beta", "1.1"), 0);
	assert_channel(site, "previous", "1.1");
	assert_int_equal(rollback_channel(site, "beta"), 0);
	assert_channel(site, "previous", "1.0");
	ASSERT_CHANGES(site, CHANGE_LINK, CHANGE_LINK);
	assert_string_equal(site->changes.changes[0].name, "beta");
	assert_string_equal(site->changes.changes[1].name, "previous");
	assert_int_equal(flip(site, "1.1"), 0);
	assert_false(found(site, "1.1").bad);
}

static void channels_and_versions_do_not_take_each_others_names(void **state)
{
	struct site *site = *state;

	assert_int_equal(add(site, "shop", "current"), -EINVAL);
	assert_int_equal(add(site, "shop", "previous"), -EINVAL);
	assert_int_equal(flip_channel(site, "1.0", "1.0"), -EINVAL);
	assert_int_equal(flip_channel(site, "previous", "1.0"), -EINVAL);
	assert_int_equal(rollback_channel(site, "previous"), -EINVAL);
	assert_int_equal(flip_channel(site, "beta", "1.0"), 0);
	assert_int_equal(add(site, "shop", "beta"), -EINVAL);
	assert_int_equal(catalog_check_new(site->catalog, "shop", "beta", NULL,
					   &site->changes, &site->err),
			 -EINVAL);
	assert_int_equal(add(site, "other", "beta"), 0);
	assert_int_equal(hide(site, "1.1"), -EBUSY); /* it is previous */
	assert_int_equal(flip(site, "1.0"), 0);
	assert_int_equal(hide(site, "1.1"), 0);
	assert_int_equal(flip_channel(site, "1.1", "1.0"), -EINVAL);
}

static void what_is_not_here_is_said_to_be_missing(void **state)
{
	struct site *site = *state;
	struct version known;

	assert_int_equal(flip(site, "9.9"), -ENOENT);
	assert_non_null(strstr(site->err.text, "deployctl fetch shop 9.9"));
	assert_int_equal(catalog_find(site->catalog, "none", "1.0", &known, &site->err),
			 -ENOENT);
	assert_int_equal(catalog_find_app(site->catalog, "none", &site->err), -ENOENT);
	assert_int_equal(rollback_channel(site, "nochannel"), -ENOENT);
	assert_int_equal(catalog_pin(site->catalog, "shop", "9.9", true, NULL, NULL),
			 -ENOENT);
	assert_int_equal(hide(site, "9.9"), -ENOENT);
}

static void version_never_changes_even_after_its_removal(void **state)
{
	struct site *site = *state;
	unsigned char other[SHA256_SIZE] = {99};

	assert_int_equal(add_with(site, "shop", "1.1", 99, NULL, 0), -EEXIST);
	assert_int_equal(add(site, "shop", "1.1"), -EALREADY);
	assert_int_equal(flip(site, "1.0"), 0);
	assert_int_equal(hide(site, "1.1"), 0);
	assert_int_equal(add_with(site, "shop", "1.1", 99, NULL, 0), -EEXIST);
	assert_int_equal(catalog_forget(site->catalog, found(site, "1.1").id, &site->err),
			 0);
	assert_int_equal(found(site, "1.1").state, VERSION_REMOVED);
	assert_int_equal(add_with(site, "shop", "1.1", 99, NULL, 0), -EEXIST);
	assert_int_equal(catalog_check_new(site->catalog, "shop", "1.1", other,
					   &site->changes, &site->err),
			 -EEXIST);
	assert_int_equal(catalog_check_new(site->catalog, "shop", "1.1", NULL,
					   &site->changes, &site->err),
			 0);
	assert_int_equal(flip(site, "1.1"), -ENOENT);
	assert_int_equal(add(site, "shop", "1.1"), 0);
	assert_int_equal(found(site, "1.1").state, VERSION_PRESENT);
	assert_int_equal(flip(site, "1.1"), 0);
}

static void hidden_version_comes_back_with_its_old_ids(void **state)
{
	struct site *site = *state;
	struct version before = found(site, "1.0"), after;

	assert_int_equal(hide(site, "1.0"), 0);
	ASSERT_CHANGES(site, CHANGE_VERSION_GONE);
	assert_int_equal(site->changes.changes[0].node, version_root(&before));
	assert_int_equal(found(site, "1.0").state, VERSION_REMOVING);
	assert_int_equal(flip(site, "1.0"), -ENOENT);
	assert_int_equal(hide(site, "1.0"), -ENOENT);

	assert_int_equal(add(site, "shop", "1.0"), 0);
	ASSERT_CHANGES(site, CHANGE_VERSION);
	after = found(site, "1.0");
	assert_int_equal(after.pack, before.pack);
	assert_int_equal(site->changes.changes[0].node, version_root(&before));
	assert_int_equal(site->changes.changes[0].pack, before.pack);
	/* Shown again, it is not forgotten. */
	assert_int_equal(catalog_forget(site->catalog, after.id, NULL), 0);
	assert_int_equal(found(site, "1.0").state, VERSION_PRESENT);
	assert_int_equal(found(site, "1.0").pack, before.pack);
}

static void pinned_version_is_not_removed(void **state)
{
	struct site *site = *state;

	assert_int_equal(catalog_pin(site->catalog, "shop", "1.0", true, NULL, NULL), 1);
	assert_int_equal(catalog_pin(site->catalog, "shop", "1.0", true, NULL, NULL), 0);
	assert_int_equal(hide(site, "1.0"), -EBUSY);
	assert_non_null(strstr(site->err.text, "unpin"));
	assert_int_equal(catalog_pin(site->catalog, "shop", "1.0", false, NULL, NULL), 1);
	assert_int_equal(hide(site, "1.0"), 0);
	assert_int_equal(catalog_pin(site->catalog, "shop", "1.0", true, NULL, NULL),
			 -ENOENT);
}

static void version_of_a_channel_is_not_removed(void **state)
{
	struct site *site = *state;

	assert_int_equal(hide(site, "1.2"), -EBUSY);
	assert_non_null(strstr(site->err.text, "'current'"));
	assert_int_equal(hide(site, "1.1"), -EBUSY);
	assert_non_null(strstr(site->err.text, "'previous'"));
	assert_int_equal(flip_channel(site, "beta", "1.0"), 0);
	assert_int_equal(hide(site, "1.0"), -EBUSY);
	assert_non_null(strstr(site->err.text, "'beta'"));
	assert_int_equal(site->changes.count, 0);
	assert_int_equal(found(site, "1.0").state, VERSION_PRESENT);
}

static void changes_come_in_the_order_in_which_they_are_shown(void **state)
{
	struct site *site = *state;

	assert_int_equal(add(site, "shop", "1.0"), 0);
	ASSERT_CHANGES(site, CHANGE_APP, CHANGE_VERSION);
	assert_int_equal(site->changes.changes[0].app_node,
			 site->changes.changes[1].app_node);
	assert_int_equal(add(site, "shop", "1.1"), 0);
	ASSERT_CHANGES(site, CHANGE_VERSION);
	assert_int_equal(flip(site, "1.0"), 0);
	ASSERT_CHANGES(site, CHANGE_LINK);
	assert_string_equal(site->changes.changes[0].name, "current");
	assert_string_equal(site->changes.changes[0].text, "1.0");
	assert_int_equal(flip(site, "1.1"), 0);
	ASSERT_CHANGES(site, CHANGE_LINK, CHANGE_LINK);
	assert_string_equal(site->changes.changes[1].name, "previous");
	assert_string_equal(site->changes.changes[1].text, "1.0");
}

static int settle_status(struct site *site)
{
	change_list_done(&site->changes);
	return catalog_settle_status(site->catalog, &site->changes, &site->err);
}

static void status_follows_changes_and_says_them_once(void **state)
{
	struct site *site = *state;

	assert_int_equal(add(site, "shop", "1.0"), 0);
	assert_int_equal(flip(site, "1.0"), 0);
	assert_int_equal(settle_status(site), 0);
	ASSERT_CHANGES(site, CHANGE_TEXT);
	assert_string_equal(site->changes.changes[0].name, "status.json");
	assert_non_null(strstr(site->changes.changes[0].text, "\"current\": \"1.0\""));
	assert_int_equal(settle_status(site), 0);
	assert_int_equal(site->changes.count, 0);
}

static int count_leaf(void *context, const struct change *change)
{
	uint64_t *last = context;

	if (change->kind == CHANGE_LINK)
		last[1]++;
	assert_non_null(change->text);
	if (change->node > last[0])
		last[0] = change->node;
	return 0;
}

static void ids_are_never_given_twice_even_after_a_restart(void **state)
{
	struct site *site = *state;
	uint64_t last = 0, leaves[2] = {0}, pack, node;

	for (int round = 0; round < 20; round++) {
		assert_int_equal(flip(site, round % 2 ? "1.1" : "1.0"), 0);
		for (size_t i = 0; i < site->changes.count; i++) {
			assert_true(site->changes.changes[i].node > last);
			last = site->changes.changes[i].node;
		}
		if (round % 5 == 0)
			reopen_catalog(site);
	}
	assert_int_equal(catalog_reserve(site->catalog, 100, &pack, &node, NULL), 0);
	assert_true(node > last);
	reopen_catalog(site);
	assert_int_equal(catalog_reserve(site->catalog, 1, &pack, &last, NULL), 0);
	assert_true(last >= node + 100);
	/* Old ones are still answered for: 3 + 20 of current, nearly as many of previous
	 */
	assert_int_equal(catalog_each_leaf(site->catalog, count_leaf, leaves, NULL), 0);
	assert_int_equal(leaves[1], 23 + 22);
	assert_true(leaves[0] < node);
}

static int collect_change(void *context, const struct change *change)
{
	struct change_list *list = context;
	struct change *room = realloc(list->changes, (list->count + 1) * sizeof(*room));

	assert_non_null(room);
	list->changes = room;
	room[list->count] = *change;
	room[list->count++].text = change->text ? strdup(change->text) : NULL;
	return 0;
}

static void state_after_a_restart_is_told_as_changes(void **state)
{
	struct site *site = *state;
	cleanup(change_list_done) struct change_list all = {0};

	assert_int_equal(flip(site, "1.0"), 0);
	assert_int_equal(hide(site, "1.1"), 0);
	reopen_catalog(site);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(catalog_settle_version(site->catalog, "0.9",
							&site->changes, &site->err),
				 0);
		assert_int_equal(settle_status(site), 0);
	}
	assert_int_equal(catalog_each_change(site->catalog, collect_change, &all, NULL),
			 0);
	change_list_done(&site->changes);
	site->changes = all;
	all = (struct change_list){0};
	ASSERT_CHANGES(site, CHANGE_APP, CHANGE_VERSION, CHANGE_VERSION, CHANGE_LINK,
		       CHANGE_LINK, CHANGE_TEXT, CHANGE_TEXT);
	for (size_t i = 0; i < site->changes.count; i++) {
		const struct change *change = &site->changes.changes[i];

		if (!strcmp(change->name, "current"))
			assert_string_equal(change->text, "1.0");
		if (!strcmp(change->name, "previous"))
			assert_string_equal(change->text, "1.2");
		if (!strcmp(change->name, "version"))
			assert_string_equal(change->text, "0.9\n");
	}
}

static void apps_come_by_their_ids_even_if_the_clock_was_set_back(void **state)
{
	struct site *site = *state;
	cleanup(change_list_done) struct change_list all = {0};
	uint64_t last = 0;

	now_ns = 2000000000000000000;
	assert_int_equal(add(site, "zoo", "1.0"), 0);
	now_ns = 1000000000000000000;
	assert_int_equal(add(site, "art", "1.0"), 0);
	reopen_catalog(site);
	assert_int_equal(catalog_each_change(site->catalog, collect_change, &all, NULL),
			 0);
	for (size_t i = 0; i < all.count; i++) {
		if (all.changes[i].kind != CHANGE_APP)
			continue;
		assert_true(all.changes[i].app_node > last);
		last = all.changes[i].app_node;
	}
	assert_true(last > 0);
}

struct lines {
	char text[2000];
	uint64_t last;
};

static int add_line(void *context, const struct generation *generation)
{
	struct lines *lines = context;

	assert_true(generation->number < lines->last);
	lines->last = generation->number;
	snprintf(lines->text + strlen(lines->text), 200, "%s %s>%s %s;", generation->verb,
		 generation->from ? generation->from : "-", generation->to,
		 generation->reason);
	return 0;
}

static void history_is_told_newest_first(void **state)
{
	struct site *site = *state;
	struct lines lines = {.last = UINT64_MAX};

	assert_int_equal(rollback(site), 0);
	assert_int_equal(hide(site, "1.2"), 0);
	assert_int_equal(catalog_forget(site->catalog, found(site, "1.2").id, NULL), 0);
	assert_int_equal(catalog_history(site->catalog, "shop", "current", add_line,
					 &lines, NULL),
			 0);
	assert_string_equal(lines.text, "rollback 1.2>1.1 broken;flip 1.1>1.2 why;"
					"flip 1.0>1.1 why;flip ->1.0 why;");
	assert_int_equal(catalog_history(site->catalog, "shop", "beta", add_line, &lines,
					 &site->err),
			 -ENOENT);
	assert_int_equal(catalog_history(site->catalog, "none", "current", add_line,
					 &lines, &site->err),
			 -ENOENT);
}

static void bad_versions_are_listed(void **state)
{
	struct site *site = *state;
	char **names;

	assert_int_equal(rollback(site), 0);
	assert_int_equal(rollback(site), 0);
	assert_int_equal(catalog_bad_versions(site->catalog, "shop", &names, NULL), 0);
	assert_string_equal(names[0], "1.2");
	assert_string_equal(names[1], "1.1");
	assert_null(names[2]);
	free(names);
	assert_int_equal(catalog_bad_versions(site->catalog, "none", &names, NULL), 0);
	assert_null(names[0]);
	free(names);
}

static void forget(struct site *site, const char *version)
{
	assert_int_equal(hide(site, version), 0);
	assert_int_equal(catalog_forget(site->catalog, found(site, version).id, NULL), 0);
}

/* @count: 0 when there is nothing to be done for any. */
static void assert_ghosts(struct site *site, size_t count, uint64_t first,
			  size_t dependents)
{
	struct ghost *ghosts;
	bool dirty = false;
	size_t got;

	assert_int_equal(catalog_ghosts(site->catalog, &ghosts, &got, &site->err), 0);
	for (size_t i = 0; i < got; i++)
		dirty |= ghosts[i].dirty;
	assert_int_equal(dirty ? got : 0, count);
	if (count) {
		assert_int_equal(ghosts[0].key.id, first);
		assert_int_equal(ghosts[0].dependent_count, dependents);
	}
	ghosts_free(ghosts, got);
}

static void pack_without_a_version_is_a_ghost_until_nobody_needs_it(void **state)
{
	struct site *site = *state;
	uint64_t a, b;

	assert_int_equal(add(site, "shop", "1.0"), 0);
	a = found(site, "1.0").pack;
	assert_int_equal(add_with(site, "shop", "1.1", 1, &a, 1), 0);
	b = found(site, "1.1").pack;
	assert_int_equal(add_with(site, "shop", "1.2", 2, (uint64_t[]){a, b}, 2), 0);
	assert_ghosts(site, 0, 0, 0);

	forget(site, "1.0");
	assert_ghosts(site, 1, a, 2);
	assert_int_equal(catalog_ghost_swept(site->catalog, a, 10, NULL), 0);
	assert_ghosts(site, 0, 0, 0);
	forget(site, "1.1");
	assert_ghosts(site, 2, b, 1);
	/* What b needed is dirty when b has been looked at. */
	assert_int_equal(catalog_ghost_swept(site->catalog, a, 10, NULL), 0);
	assert_int_equal(catalog_ghost_swept(site->catalog, b, 10, NULL), 0);
	assert_ghosts(site, 2, b, 1);
	assert_int_equal(catalog_ghost_swept(site->catalog, a, 10, NULL), 0);
	assert_ghosts(site, 0, 0, 0);
	forget(site, "1.2");
	assert_ghosts(site, 3, found(site, "1.2").pack ? 0 : b + 1, 0);
	assert_int_equal(catalog_drop_pack(site->catalog, b + 1, NULL), 0);
	assert_ghosts(site, 2, b, 0);
	assert_int_equal(catalog_drop_pack(site->catalog, b, NULL), 0);
	assert_ghosts(site, 1, a, 0);
	assert_int_equal(catalog_drop_pack(site->catalog, a, NULL), 0);
	assert_ghosts(site, 0, 0, 0);
}

static void failed_change_leaves_no_trace(void **state)
{
	struct site *site = *state;
	struct version version = {.app = "new", .name = "1.0", .verified = "off"};
	struct pack_key key = {.id = 500, .first_node = 9000, .dir_count = 1};
	const uint64_t twice[] = {1, 1};

	version.pack = key.id;
	change_list_done(&site->changes);
	assert_true(catalog_add_version(site->catalog, &version, &key, 1, twice, 2,
					&site->changes, &site->err) < 0);
	assert_int_equal(catalog_find_app(site->catalog, "new", NULL), -ENOENT);
	change_list_done(&site->changes);
	assert_int_equal(catalog_add_version(site->catalog, &version, &key, 1, twice, 1,
					     &site->changes, &site->err),
			 0);
}

static void two_connections_see_each_others_changes(void **state)
{
	struct site *site = *state;
	struct catalog *reader;
	struct wanted wanted = {.name = "current"};

	assert_int_equal(catalog_open(site->path, false, &reader, &site->err), 0);
	assert_int_equal(flip(site, "1.0"), 0);
	assert_int_equal(
		catalog_each_channel(reader, "shop", want_channel, &wanted, NULL), 0);
	assert_string_equal(wanted.version, "1.0");
	assert_true(catalog_flip(reader, "shop", "current", "1.1", "root", "", NULL,
				 &site->flip, &site->changes, &site->err) < 0);
	catalog_close(reader);
}

static void what_is_no_catalog_is_refused(void **state)
{
	struct site *site = *state;
	struct catalog *catalog = NULL;
	char command[256];

	snprintf(command, sizeof(command), "yes text | head -c 9000 > %s/text",
		 site->dir);
	assert_int_equal(system(command), 0);
	snprintf(command, sizeof(command), "%s/text", site->dir);
	assert_int_equal(catalog_open(command, true, &catalog, &site->err), -EBADMSG);
	assert_null(catalog);
	snprintf(command, sizeof(command), "%s/none/catalog.db", site->dir);
	assert_int_equal(catalog_open(command, true, &catalog, &site->err), -EIO);
	assert_null(catalog);
}

static int stop_at_once(void *context, const char *name)
{
	(*(int *)context)++;
	return 7;
}

static void callback_ends_the_reading(void **state)
{
	struct site *site = *state;
	int calls = 0;

	assert_int_equal(add(site, "zoo", "1.0"), 0);
	assert_int_equal(catalog_each_app(site->catalog, stop_at_once, &calls, NULL), 7);
	assert_int_equal(calls, 1);
}

static int want_generation(void *context, const struct generation *generation)
{
	uint64_t *newest = context;

	if (generation->number > *newest)
		*newest = generation->number;
	return 0;
}

static uint64_t newest_generation(struct site *site)
{
	uint64_t newest = 0;

	assert_int_equal(catalog_history(site->catalog, "shop", "current",
					 want_generation, &newest, NULL),
			 0);
	return newest;
}

/* A repetition of what was answered with @first. */
static void assert_repeats(const struct flip *flip, const struct flip *first)
{
	assert_true(flip->repeated);
	assert_true(flip->changed);
	assert_string_equal(flip->app, first->app);
	assert_string_equal(flip->channel, first->channel);
	assert_string_equal(flip->from, first->from);
	assert_string_equal(flip->to, first->to);
	assert_string_equal(flip->previous, first->previous);
	assert_string_equal(flip->note, first->note);
	assert_int_equal(flip->generation, first->generation);
}

static void flip_with_the_same_key_is_made_once(void **state)
{
	struct site *site = *state;
	struct flip first;

	site->key = "one";
	assert_int_equal(flip(site, "1.0"), 0);
	first = site->flip;
	assert_true(first.changed);
	assert_false(first.repeated);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(flip(site, "1.0"), 0);
		assert_repeats(&site->flip, &first);
		assert_int_equal(newest_generation(site), first.generation);
		reopen_catalog(site);
	}
	site->key = "two";
	assert_int_equal(flip(site, "1.0"), 0);
	assert_false(site->flip.changed);
}

static void answer_to_a_repetition_tells_of_its_own_time(void **state)
{
	struct site *site = *state;
	struct flip first;

	assert_int_equal(flip(site, "1.0"), 0);
	site->key = "one";
	assert_int_equal(flip(site, "1.1"), 0);
	first = site->flip;
	site->key = NULL;
	assert_int_equal(flip(site, "1.2"), 0);
	site->key = "one";
	assert_int_equal(flip(site, "1.1"), 0);
	assert_repeats(&site->flip, &first);
	assert_channel(site, "current", "1.2");
}

static void rollback_with_the_same_key_is_made_once(void **state)
{
	struct site *site = *state;
	struct flip first;

	site->key = "back";
	assert_int_equal(rollback(site), 0);
	first = site->flip;
	assert_string_equal(first.to, "1.1");
	assert_int_equal(rollback(site), 0);
	assert_repeats(&site->flip, &first);
	assert_channel(site, "current", "1.1");
	assert_false(found(site, "1.1").bad);
}

static void key_of_another_request_is_refused(void **state)
{
	struct site *site = *state;

	site->key = "one";
	assert_int_equal(flip(site, "1.0"), 0);
	assert_int_equal(flip(site, "1.1"), -EINVAL);
	assert_int_equal(flip_channel(site, "canary", "1.0"), -EINVAL);
	assert_int_equal(rollback(site), -EINVAL);
	assert_int_equal(hide(site, "1.1"), -EINVAL);
	assert_int_equal(catalog_pin(site->catalog, "shop", "1.0", true, "one", NULL),
			 -EINVAL);
	assert_int_equal(newest_generation(site), 4);
	assert_int_equal(catalog_pin(site->catalog, "shop", "1.0", true, "two", NULL), 1);
	assert_int_equal(catalog_pin(site->catalog, "shop", "1.0", false, "two", NULL),
			 -EINVAL);
	assert_int_equal(catalog_pin(site->catalog, "shop", "1.1", true, "two", NULL),
			 -EINVAL);
	assert_false(found(site, "1.1").pinned);
}

static void pin_and_removal_are_told_again_and_not_made_again(void **state)
{
	struct site *site = *state;

	assert_int_equal(catalog_pin(site->catalog, "shop", "1.0", true, "pin", NULL), 1);
	assert_int_equal(catalog_pin(site->catalog, "shop", "1.0", false, NULL, NULL), 1);
	assert_int_equal(catalog_pin(site->catalog, "shop", "1.0", true, "pin", NULL), 1);
	assert_false(found(site, "1.0").pinned);
	site->key = "gone";
	assert_int_equal(hide(site, "1.0"), 0);
	assert_int_not_equal(site->changes.count, 0);
	assert_int_equal(hide(site, "1.0"), 0);
	assert_int_equal(site->changes.count, 0);
	site->key = NULL;
	assert_int_equal(hide(site, "1.0"), -ENOENT);
}

static void key_of_a_change_that_failed_stays_free(void **state)
{
	struct site *site = *state;

	site->key = "one";
	assert_int_equal(flip(site, "9.9"), -ENOENT);
	assert_int_equal(hide(site, "1.2"), -EBUSY);
	assert_int_equal(flip(site, "1.1"), 0);
	assert_true(site->flip.changed);
}

static void newest_thousand_keys_are_remembered_whatever_the_clock(void **state)
{
	struct site *site = *state;
	char key[16];

	for (int i = 0; i <= 1000; i++) {
		now_ns = 1000000 - i;
		snprintf(key, sizeof(key), "key-%d", i);
		assert_int_equal(catalog_pin(site->catalog, "shop", "1.0", i % 2 == 0,
					     key, &site->err),
				 1);
	}
	assert_int_equal(catalog_pin(site->catalog, "shop", "1.1", true, "key-1", NULL),
			 -EINVAL);
	assert_int_equal(catalog_pin(site->catalog, "shop", "1.1", true, "key-1000",
				     NULL),
			 -EINVAL);
	assert_int_equal(catalog_pin(site->catalog, "shop", "1.1", true, "key-0", NULL),
			 1);
}

static void keys_are_short_and_plain(void **state)
{
	char key[REQUEST_KEY_MAX + 2];

	(void)state;
	memset(key, 'k', sizeof(key));
	key[REQUEST_KEY_MAX] = '\0';
	assert_true(request_key_valid(key));
	key[REQUEST_KEY_MAX] = 'k';
	key[REQUEST_KEY_MAX + 1] = '\0';
	assert_false(request_key_valid(key));
	assert_true(request_key_valid("0d8f-A_z"));
	assert_false(request_key_valid(""));
	assert_false(request_key_valid("a b"));
	assert_false(request_key_valid("a;b"));
	assert_false(request_key_valid("k\xc3\xa9"));
}

#define WITH_SITE(test) cmocka_unit_test_setup_teardown(test, site_setup, site_teardown)
#define WITH_HISTORY(test) \
	cmocka_unit_test_setup_teardown(test, history_setup, site_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_HISTORY(rollback_goes_back_one_by_one_until_nothing_is_left),
		WITH_HISTORY(explicit_flip_to_a_bad_version_clears_the_mark),
		WITH_HISTORY(rollback_passes_over_versions_that_are_not_there),
		WITH_HISTORY(flipping_back_and_forth_makes_the_other_previous),
		WITH_HISTORY(flip_to_what_is_current_changes_nothing),
		WITH_HISTORY(marks_belong_to_the_app_and_generations_to_the_channel),
		WITH_HISTORY(mark_of_another_channel_moves_previous),
		WITH_HISTORY(channels_and_versions_do_not_take_each_others_names),
		WITH_HISTORY(what_is_not_here_is_said_to_be_missing),
		WITH_HISTORY(version_never_changes_even_after_its_removal),
		WITH_HISTORY(hidden_version_comes_back_with_its_old_ids),
		WITH_HISTORY(pinned_version_is_not_removed),
		WITH_HISTORY(version_of_a_channel_is_not_removed),
		WITH_SITE(changes_come_in_the_order_in_which_they_are_shown),
		WITH_SITE(status_follows_changes_and_says_them_once),
		WITH_HISTORY(ids_are_never_given_twice_even_after_a_restart),
		WITH_HISTORY(state_after_a_restart_is_told_as_changes),
		WITH_SITE(apps_come_by_their_ids_even_if_the_clock_was_set_back),
		WITH_HISTORY(history_is_told_newest_first),
		WITH_HISTORY(bad_versions_are_listed),
		WITH_SITE(pack_without_a_version_is_a_ghost_until_nobody_needs_it),
		WITH_SITE(failed_change_leaves_no_trace),
		WITH_HISTORY(two_connections_see_each_others_changes),
		WITH_SITE(what_is_no_catalog_is_refused),
		WITH_SITE(callback_ends_the_reading),
		WITH_HISTORY(flip_with_the_same_key_is_made_once),
		WITH_HISTORY(answer_to_a_repetition_tells_of_its_own_time),
		WITH_HISTORY(rollback_with_the_same_key_is_made_once),
		WITH_HISTORY(key_of_another_request_is_refused),
		WITH_HISTORY(pin_and_removal_are_told_again_and_not_made_again),
		WITH_HISTORY(key_of_a_change_that_failed_stays_free),
		WITH_HISTORY(newest_thousand_keys_are_remembered_whatever_the_clock),
		cmocka_unit_test(keys_are_short_and_plain),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

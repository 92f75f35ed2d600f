/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of a package that need more than one entry, and the tree it becomes. */
#include "manifest.h"

#include "cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

struct site {
	struct manifest *manifest;
	struct pack_meta meta;
	struct manifest_summary summary;
	struct error err;
};

/* -Wl,--wrap: the N-th allocation fails; -1: none does */
static int mallocs_left = -1;

static bool fails_now(void)
{
	return mallocs_left >= 0 && mallocs_left-- == 0;
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

void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size)
{
	return fails_now() ? NULL : __real_realloc(old, size);
}

static int site_begin(void **state, bool contained)
{
	struct manifest_policy policy = {.uid = 7, .gid = 8, .contained = contained};
	struct site *site = calloc(1, sizeof(*site));

	site->manifest = manifest_new(&policy);
	assert_non_null(site->manifest);
	*state = site;
	return 0;
}

static int site_setup(void **state)
{
	return site_begin(state, false);
}

static int contained_setup(void **state)
{
	return site_begin(state, true);
}

static void meta_free(struct pack_meta *meta)
{
	free(meta->nodes);
	free(meta->dirs);
	free(meta->entries);
	free(meta->deps);
	free(meta->names);
}

static int site_teardown(void **state)
{
	struct site *site = *state;

	mallocs_left = -1;
	manifest_free(site->manifest);
	meta_free(&site->meta);
	free(site);
	return 0;
}

static int add_as(struct manifest *manifest, enum archive_type type, const char *path,
		  const char *target, mode_t mode, int64_t mtime_s, struct error *err)
{
	struct archive_item item = {.type = type,
				    .path = path,
				    .target = target,
				    .mode = mode,
				    .mtime_s = mtime_s};
	struct body body = {.size = strlen(path)};
	uint32_t number;
	int r = manifest_add(manifest, &item, &number, err);

	if (r == 0 && type == ARCHIVE_TYPE_FILE)
		manifest_set_body(manifest, number, &body);
	return r;
}

static int add(struct site *site, enum archive_type type, const char *path,
	       const char *target)
{
	return add_as(site->manifest, type, path, target, 0644, 100, &site->err);
}

static int file(struct site *site, const char *path)
{
	return add(site, ARCHIVE_TYPE_FILE, path, NULL);
}

static int directory(struct site *site, const char *path)
{
	return add(site, ARCHIVE_TYPE_DIRECTORY, path, NULL);
}

static int symbolic(struct site *site, const char *path, const char *target)
{
	return add(site, ARCHIVE_TYPE_SYMLINK, path, target);
}

static int hard(struct site *site, const char *path, const char *target)
{
	return add(site, ARCHIVE_TYPE_HARDLINK, path, target);
}

static void finish(struct site *site)
{
	assert_int_equal(manifest_finish(site->manifest, NULL, NULL, &site->meta,
					 &site->summary, &site->err),
			 0);
}

static const struct pack_entry *entry_at(const struct site *site, const char *path)
{
	const struct pack_meta *meta = &site->meta;
	const struct pack_entry *found = NULL;
	uint32_t dir = 0;

	while (*path) {
		size_t size = strcspn(path, "/");

		found = NULL;
		for (uint32_t i = 0; i < meta->dirs[dir].entry_count; i++) {
			const struct pack_entry *entry =
				&meta->entries[meta->dirs[dir].first_entry + i];

			if (entry->name_size == size &&
			    !memcmp(meta->names + entry->name_offset, path, size))
				found = entry;
		}
		if (!found)
			fail_msg("no '%s'", path);
		dir = found->index;
		path += size + (path[size] == '/');
	}
	return found;
}

static const struct pack_node *node_at(const struct site *site, const char *path)
{
	return &site->meta.nodes[entry_at(site, path)->index];
}

static const struct pack_dir *dir_at(const struct site *site, const char *path)
{
	return &site->meta.dirs[*path ? entry_at(site, path)->index : 0];
}

static void name_that_comes_twice_is_refused(void **state)
{
	struct site *site = *state;

	assert_int_equal(file(site, "a/b"), 0);
	assert_int_equal(file(site, "a/b"), -EBADMSG);
	assert_non_null(strstr(site->err.text, "'a/b' comes twice"));
	assert_int_equal(directory(site, "a/b"), -EBADMSG);
	assert_int_equal(symbolic(site, "a/b", "x"), -EBADMSG);
	assert_int_equal(hard(site, "a/b", "a/b"), -EBADMSG);
	assert_int_equal(file(site, "a"), -EBADMSG);
	assert_int_equal(directory(site, "a"), 0);
	assert_int_equal(directory(site, "a"), -EBADMSG);
}

static void root_may_come_once(void **state)
{
	struct site *site = *state;

	assert_int_equal(file(site, "x"), 0);
	assert_int_equal(add_as(site->manifest, ARCHIVE_TYPE_DIRECTORY, "", NULL, 0711,
				42, &site->err),
			 0);
	assert_int_equal(directory(site, ""), -EBADMSG);
	finish(site);
	assert_int_equal(site->meta.dirs[0].mode, 0711);
	assert_int_equal(site->meta.dirs[0].mtime_s, 42);
	assert_int_equal(site->meta.dirs[0].uid, 7);
	assert_int_equal(site->meta.dirs[0].gid, 8);
}

static void nothing_lies_below_a_file_or_symlink(void **state)
{
	struct site *site = *state;

	assert_int_equal(file(site, "file"), 0);
	assert_int_equal(symbolic(site, "link", "."), 0);
	assert_int_equal(file(site, "file/x"), -EBADMSG);
	assert_non_null(strstr(site->err.text, "lies below a file or symlink"));
	assert_int_equal(directory(site, "link/x"), -EBADMSG);
	assert_int_equal(file(site, "link/x/y"), -EBADMSG);
	assert_int_equal(hard(site, "link/z", "file"), -EBADMSG);
}

static void hard_link_needs_an_earlier_file(void **state)
{
	struct site *site = *state;

	assert_int_equal(hard(site, "early", "late"), -EBADMSG);
	assert_int_equal(hard(site, "self", "self"), -EBADMSG);
	assert_int_equal(directory(site, "dir"), 0);
	assert_int_equal(symbolic(site, "link", "file"), 0);
	assert_int_equal(file(site, "file"), 0);
	assert_int_equal(hard(site, "a", "dir"), -EBADMSG);
	assert_int_equal(hard(site, "a", "link"), -EBADMSG);
	assert_int_equal(hard(site, "a", "link/x"), -EBADMSG);
	assert_int_equal(hard(site, "a", "file/x"), -EBADMSG);
	assert_int_equal(hard(site, "a", "dir/x"), -EBADMSG);
	assert_int_equal(hard(site, "a", ""), -EBADMSG);
	assert_int_equal(hard(site, "a", "file"), 0);
}

static void names_of_one_file_are_counted(void **state)
{
	struct site *site = *state;

	assert_int_equal(file(site, "one"), 0);
	assert_int_equal(file(site, "three"), 0);
	assert_int_equal(hard(site, "d/three", "three"), 0);
	assert_int_equal(hard(site, "again", "d/three"), 0);
	assert_int_equal(symbolic(site, "link", "one"), 0);
	finish(site);
	assert_int_equal(site->meta.node_count, 3);
	assert_int_equal(site->summary.files, 3);
	assert_int_equal(node_at(site, "one")->nlink, PACK_NLINK_MIN);
	assert_int_equal(node_at(site, "three")->nlink, 3);
	assert_ptr_equal(node_at(site, "three"), node_at(site, "d/three"));
	assert_ptr_equal(node_at(site, "three"), node_at(site, "again"));
	assert_int_equal(node_at(site, "link")->nlink, 1);
	assert_int_equal(node_at(site, "link")->mode, S_IFLNK | 0777);
	assert_int_equal(node_at(site, "one")->mode, S_IFREG | 0644);
	assert_int_equal(node_at(site, "one")->uid, 7);
}

static void missing_parents_are_made(void **state)
{
	struct site *site = *state;

	assert_int_equal(file(site, "a/b/c/file"), 0);
	finish(site);
	assert_int_equal(site->meta.dir_count, 4);
	assert_int_equal(dir_at(site, "a/b")->mode, 0755);
	assert_int_equal(dir_at(site, "a/b")->mtime_s, 100);
	assert_int_equal(dir_at(site, "a/b/c")->entry_count, 1);
	assert_int_equal(dir_at(site, "a/b")->subdir_count, 1);
}

static void directory_may_come_after_its_children(void **state)
{
	struct site *site = *state;

	assert_int_equal(file(site, "a/b/file"), 0);
	assert_int_equal(add_as(site->manifest, ARCHIVE_TYPE_DIRECTORY, "a/b", NULL, 0700,
				55, &site->err),
			 0);
	assert_int_equal(directory(site, "a/b"), -EBADMSG);
	finish(site);
	assert_int_equal(dir_at(site, "a/b")->mode, 0700);
	assert_int_equal(dir_at(site, "a/b")->mtime_s, 55);
	assert_int_equal(entry_at(site, "a/b/file")->type, DT_REG);
}

static void entries_are_sorted_by_bytes_and_parents_come_first(void **state)
{
	static const char *const names[] = {"z/z/z",    "b", "a.",  "a",  "a-",
					    "\xc3\xa4", "Z", "z/a", "ab", "z/z/a"};
	struct site *site = *state;
	const struct pack_meta *meta = &site->meta;
	uint32_t next = 0;

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_int_equal(file(site, names[i]), 0);
	finish(site);
	for (uint32_t dir = 0; dir < meta->dir_count; dir++) {
		const struct pack_dir *record = &meta->dirs[dir];

		assert_true(dir == 0 || record->parent < dir);
		assert_int_equal(record->first_entry, next);
		next += record->entry_count;
		for (uint32_t i = 1; i < record->entry_count; i++) {
			const struct pack_entry *entry =
				&meta->entries[record->first_entry + i];

			assert_true(strcmp(meta->names + entry[-1].name_offset,
					   meta->names + entry->name_offset) < 0);
		}
	}
	assert_int_equal(next, meta->entry_count);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_int_equal(entry_at(site, names[i])->type, DT_REG);
}

static void many_entries_are_found_again(void **state)
{
	struct site *site = *state;
	char path[64];

	for (int i = 0; i < 20000; i++) {
		snprintf(path, sizeof(path), "d%d/f%d", i % 100, i);
		assert_int_equal(file(site, path), 0);
	}
	for (int i = 0; i < 20000; i += 77) {
		snprintf(path, sizeof(path), "d%d/f%d", i % 100, i);
		assert_int_equal(file(site, path), -EBADMSG);
	}
	finish(site);
	assert_int_equal(site->meta.node_count, 20000);
	assert_int_equal(site->meta.dir_count, 101);
}

static void implicit_parents_count_as_entries(void **state)
{
	struct site *site = *state;
	char path[3000];
	int r = 0;

	/* 1,000 new directories an entry. */
	for (int i = 0; r == 0 && i < PACK_ENTRIES_MAX / 1000 + 1; i++) {
		int at = snprintf(path, sizeof(path), "%d", i);

		for (int depth = 0; depth < 1000; depth++)
			at += snprintf(path + at, 3, "/x");
		r = file(site, path);
	}
	assert_int_equal(r, -EBADMSG);
	assert_non_null(strstr(site->err.text, "more than"));
	finish(site);
	assert_true(site->meta.entry_count <= PACK_ENTRIES_MAX);
	assert_true(site->meta.dir_count <= PACK_ENTRIES_MAX);
}

static void case_twins_are_counted(void **state)
{
	struct site *site = *state;

	assert_int_equal(file(site, "a/readme"), 0);
	assert_int_equal(file(site, "a/README"), 0);
	assert_int_equal(file(site, "b/ReadMe"), 0);
	assert_int_equal(file(site, "\xc3\x84rger"), 0);
	assert_int_equal(file(site, "\xc3\xa4RGER"), 0);
	assert_int_equal(file(site, "1.2"), 0);
	assert_int_equal(file(site, "1-2"), 0);
	finish(site);
	assert_int_equal(site->summary.case_twins, 2);
	assert_true(!strcmp(site->summary.case_twin, "a/README") ||
		    !strcmp(site->summary.case_twin, "\xc3\xa4RGER"));
}

static void contained_symlinks_stay_in_the_package(void **state)
{
	struct site *site = *state;

	assert_int_equal(symbolic(site, "a", "b"), 0);
	assert_int_equal(symbolic(site, "d/e/f", "../../x"), 0);
	assert_int_equal(symbolic(site, "d/e/g", "../.."), 0);
	assert_int_equal(symbolic(site, "d/e/h", "./..//.././x"), 0);
	assert_int_equal(symbolic(site, "i", "."), 0);
	assert_int_equal(symbolic(site, "j", "/etc/passwd"), -EBADMSG);
	assert_int_equal(symbolic(site, "k", ".."), -EBADMSG);
	assert_int_equal(symbolic(site, "d/l", "../../x"), -EBADMSG);
	assert_int_equal(symbolic(site, "d/e/m", "../../../x/y/z"), -EBADMSG);
	assert_int_equal(symbolic(site, "n", "...."), 0);
	assert_int_equal(symbolic(site, "o", "b/../../x"), -EBADMSG);
}

static void contained_symlinks_do_not_leave_it_by_way_of_another(void **state)
{
	struct site *site = *state;

	/* d/e/up is the root, so d/e/up/.. is what the package lies in. */
	assert_int_equal(symbolic(site, "d/e/up", "../.."), 0);
	assert_int_equal(symbolic(site, "d/e/out", "up/../x"), -EBADMSG);
	assert_non_null(strstr(site->err.text, "symlinks: contained"));
}

static void symlinks_are_free_where_the_app_says_so(void **state)
{
	struct site *site = *state;

	assert_int_equal(symbolic(site, "j", "/etc/passwd"), 0);
	assert_int_equal(symbolic(site, "k", ".."), 0);
}

static int share_odd(void *context, const struct body *body, const struct pack_node *node,
		     uint64_t *ret_pack, uint32_t *ret_index)
{
	int *calls = context;

	if (++*calls % 2 == 0)
		return 0;
	*ret_pack = 40 + (uint64_t)*calls % 4;
	*ret_index = (uint32_t)*calls;
	return 1;
}

static void shared_nodes_are_named_by_pack_and_each_pack_once(void **state)
{
	struct site *site = *state;
	char path[16];
	int calls = 0;

	for (int i = 0; i < 100; i++) {
		snprintf(path, sizeof(path), "%02d", i);
		assert_int_equal(file(site, path), 0);
	}
	assert_int_equal(hard(site, "hard", "00"), 0);
	assert_int_equal(manifest_finish(site->manifest, share_odd, &calls, &site->meta,
					 &site->summary, &site->err),
			 0);
	assert_int_equal(calls, 100);
	assert_int_equal(site->summary.shared, 50);
	assert_int_equal(site->meta.node_count, 50);
	assert_int_equal(site->meta.dep_count, 2);
	assert_int_equal(site->meta.deps[entry_at(site, "00")->dep - 1], 41);
	assert_int_equal(site->meta.deps[entry_at(site, "02")->dep - 1], 43);
	assert_int_equal(entry_at(site, "02")->index, 3);
	assert_int_equal(entry_at(site, "01")->dep, 0);
	assert_int_equal(entry_at(site, "hard")->dep, entry_at(site, "00")->dep);
	assert_int_equal(entry_at(site, "hard")->index, entry_at(site, "00")->index);
}

static int share_fails(void *context, const struct body *body,
		       const struct pack_node *node, uint64_t *ret_pack,
		       uint32_t *ret_index)
{
	return -EIO;
}

static void failing_search_fails_the_manifest(void **state)
{
	struct site *site = *state;

	assert_int_equal(file(site, "a"), 0);
	assert_int_equal(manifest_finish(site->manifest, share_fails, NULL, &site->meta,
					 &site->summary, &site->err),
			 -EIO);
	assert_null(site->meta.nodes);
}

static int try_all(struct error *err)
{
	static const struct manifest_policy policy;
	struct manifest *manifest = manifest_new(&policy);
	struct pack_meta meta = {0};
	struct manifest_summary summary;
	char path[16];
	int calls = 0, r = manifest ? 0 : -ENOMEM;

	for (int i = 0; r == 0 && i < 1200; i++) {
		snprintf(path, sizeof(path), "%d/%d", i % 3, i);
		r = add_as(manifest, ARCHIVE_TYPE_FILE, path, NULL, 0644, 1, err);
	}
	if (r == 0)
		r = manifest_finish(manifest, share_odd, &calls, &meta, &summary, err);
	meta_free(&meta);
	manifest_free(manifest);
	return r;
}

static void every_failing_allocation_is_returned_without_a_leak(void **state)
{
	struct error err;
	int n = 0, r;

	do {
		mallocs_left = n;
		r = try_all(&err);
		mallocs_left = -1;
		if (r < 0)
			assert_int_equal(r, -ENOMEM);
	} while (r < 0 && ++n < 1000);
	assert_true(n > 8 && n < 1000);
}

#define WITH_SITE(test) cmocka_unit_test_setup_teardown(test, site_setup, site_teardown)
#define WITH_CONTAINED(test) \
	cmocka_unit_test_setup_teardown(test, contained_setup, site_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SITE(name_that_comes_twice_is_refused),
		WITH_SITE(root_may_come_once),
		WITH_SITE(nothing_lies_below_a_file_or_symlink),
		WITH_SITE(hard_link_needs_an_earlier_file),
		WITH_SITE(names_of_one_file_are_counted),
		WITH_SITE(missing_parents_are_made),
		WITH_SITE(directory_may_come_after_its_children),
		WITH_SITE(entries_are_sorted_by_bytes_and_parents_come_first),
		WITH_SITE(many_entries_are_found_again),
		WITH_SITE(implicit_parents_count_as_entries),
		WITH_SITE(case_twins_are_counted),
		WITH_CONTAINED(contained_symlinks_stay_in_the_package),
		WITH_CONTAINED(contained_symlinks_do_not_leave_it_by_way_of_another),
		WITH_SITE(symlinks_are_free_where_the_app_says_so),
		WITH_SITE(shared_nodes_are_named_by_pack_and_each_pack_once),
		WITH_SITE(failing_search_fails_the_manifest),
		cmocka_unit_test(every_failing_allocation_is_returned_without_a_leak),
	};

	setlocale(LC_ALL, "C.UTF-8");
	return cmocka_run_group_tests(tests, NULL, NULL);
}

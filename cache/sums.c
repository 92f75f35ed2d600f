/* SPDX-License-Identifier: Apache-2.0 */
#include "sums.h"

#include "cleanup.h"
#include "name.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LINES_MAX  100000
#define HEX_DIGITS (SHA256_TEXT_SIZE - 1)
#define BLANKS     " \t"

const char *const package_endings[] = {
	".tar.zst", ".tar.gz", ".tar.xz", ".tar.bz2", ".tar", ".zip", NULL,
};

/* An entry while the list is read. */
struct listed {
	struct sums_entry entry;
	unsigned line;
};

struct list {
	struct listed *items;
	size_t count, room;
};

static void entry_done(struct sums_entry *entry)
{
	free(entry->version);
	free(entry->file);
	*entry = (struct sums_entry){0};
}

static void list_done(struct list *list)
{
	for (size_t i = 0; i < list->count; i++)
		entry_done(&list->items[i].entry);
	free(list->items);
}

void sums_done(struct sums *sums)
{
	for (size_t i = 0; i < sums->count; i++)
		entry_done(&sums->entries[i]);
	free(sums->entries);
	*sums = (struct sums){0};
}

const struct sums_entry *sums_find(const struct sums *sums, const char *version)
{
	for (size_t i = 0; i < sums->count; i++)
		if (!strcmp(sums->entries[i].version, version))
			return &sums->entries[i];
	return NULL;
}

/* Newest first; the lines of one version in the file's order. */
static int compare_listed(const void *left, const void *right)
{
	const struct listed *a = left, *b = right;
	int r = version_compare(b->entry.version, a->entry.version);

	return r ? r : (a->line > b->line) - (a->line < b->line);
}

size_t sums_size_without_ending(const char *name, size_t size)
{
	for (size_t i = 0; package_endings[i]; i++) {
		size_t ending = strlen(package_endings[i]);

		if (size > ending &&
		    !memcmp(name + size - ending, package_endings[i], ending))
			return size - ending;
	}
	return 0;
}

/*
 * The version in "<app>-<version><ending>".
 * Return: 0 with the caller's string; -ENOENT when @name is another one; -ENOMEM.
 */
static int parse_name(const char *name, size_t size, const char *app, char **ret)
{
	cleanup(free_ptr) char *version = NULL;
	size_t prefix = strlen(app) + 1, end;

	if (size < prefix || memcmp(name, app, prefix - 1) || name[prefix - 1] != '-')
		return -ENOENT;
	end = sums_size_without_ending(name, size);
	if (end <= prefix)
		return -ENOENT;
	version = strndup(name + prefix, end - prefix);
	if (!version)
		return -ENOMEM;
	if (!name_valid(version))
		return -ENOENT;
	*ret = take_ptr(version);
	return 0;
}

static int list_grow(struct list *list)
{
	size_t room = list->room ? list->room * 2 : 64;
	struct listed *items;

	if (list->count < list->room)
		return 0;
	items = realloc(list->items, room * sizeof(*items));
	if (!items)
		return -ENOMEM;
	list->items = items;
	list->room = room;
	return 0;
}

static int list_add(struct list *list, const char *name, size_t size, const char *app,
		    const unsigned char sha256[static SHA256_SIZE], unsigned line)
{
	struct listed *item;
	int r;

	r = list_grow(list);
	if (r < 0)
		return r;
	item = &list->items[list->count];
	*item = (struct listed){.line = line};
	r = parse_name(name, size, app, &item->entry.version);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	memcpy(item->entry.sha256, sha256, SHA256_SIZE);
	list->count++;
	item->entry.file = strndup(name, size);
	return item->entry.file ? 0 : -ENOMEM;
}

/* 0; -EBADMSG when the line is no line of sha256sum(1); -ENOMEM. */
static int parse_line(const char *line, size_t size, const char *app, unsigned number,
		      struct list *list)
{
	unsigned char sha256[SHA256_SIZE];
	bool escaped = size > 0 && line[0] == '\\';

	/* sha256sum(1) marks a name that holds a line break so; no package has one. */
	if (escaped) {
		line++;
		size--;
	}
	if (size < HEX_DIGITS + 3 || !sha256_parse(line, HEX_DIGITS, sha256))
		return -EBADMSG;
	line += HEX_DIGITS;
	size -= HEX_DIGITS;
	if (line[0] != ' ' || (line[1] != ' ' && line[1] != '*'))
		return -EBADMSG;
	if (escaped)
		return 0;
	line += 2;
	size -= 2;
	if (size > 2 && !memcmp(line, "./", 2)) {
		line += 2;
		size -= 2;
	}
	return list_add(list, line, size, app, sha256, number);
}

static int line_failed(int code, unsigned number, const char *text, struct error *err)
{
	if (code == -ENOMEM)
		return error_set(err, code, "out of memory");
	return error_set(err, code, "line %u is not 'SHA256  FILE'%s", number,
			 text[strspn(text, BLANKS "\r\n")] == '<'
				 ? ": this looks like a web page"
				 : "");
}

static int parse_lines(const char *text, const char *app, struct list *list,
		       struct error *err)
{
	const char *line = text;
	unsigned number = 0;

	while (*line) {
		size_t size = strcspn(line, "\n"), end = size;
		int r = 0;

		if (++number > LINES_MAX)
			return error_set(err, -EBADMSG, "more than %d lines", LINES_MAX);
		if (end > 0 && line[end - 1] == '\r')
			end--;
		if (*line != '#' && strspn(line, BLANKS) < end)
			r = parse_line(line, end, app, number, list);
		if (r < 0)
			return line_failed(r, number, text, err);
		line += size + (line[size] == '\n');
	}
	return 0;
}

static bool same_package(const struct sums_entry *left, const struct sums_entry *right)
{
	return !strcmp(left->file, right->file) &&
	       !memcmp(left->sha256, right->sha256, SHA256_SIZE);
}

/* The list is sorted, so that the lines of one version follow each other. */
static int check_versions(const struct list *list, struct error *err)
{
	for (size_t i = 1; i < list->count; i++) {
		const struct listed *last = &list->items[i - 1], *item = last + 1;

		if (!strcmp(last->entry.version, item->entry.version) &&
		    !same_package(&last->entry, &item->entry))
			return error_set(err, -EBADMSG,
					 "lines %u and %u list the version '%s' with "
					 "different checksums or endings",
					 last->line, item->line, item->entry.version);
	}
	return 0;
}

/* Move the entries on, but for those that stand there twice. */
static int take_entries(struct list *list, struct sums *ret)
{
	struct sums_entry *entries;
	size_t count = 0;

	entries = calloc(list->count + 1, sizeof(*entries));
	if (!entries)
		return -ENOMEM;
	for (size_t i = 0; i < list->count; i++) {
		struct sums_entry *entry = &list->items[i].entry;

		if (count > 0 && !strcmp(entries[count - 1].version, entry->version))
			continue;
		entries[count++] = *entry;
		*entry = (struct sums_entry){0};
	}
	*ret = (struct sums){entries, count};
	return 0;
}

int sums_parse(const char *text, const char *app, struct sums *ret, struct error *err)
{
	cleanup(list_done) struct list list = {0};
	int r;

	r = parse_lines(text, app, &list, err);
	if (r < 0)
		return r;
	/* qsort(3) wants an array even when it is empty. */
	if (list.count > 0)
		qsort(list.items, list.count, sizeof(*list.items), compare_listed);
	r = check_versions(&list, err);
	if (r < 0)
		return r;
	r = take_entries(&list, ret);
	if (r < 0)
		return error_set(err, r, "out of memory");
	return 0;
}

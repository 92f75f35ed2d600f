/* SPDX-License-Identifier: Apache-2.0 */
#include "stripped.h"

#include "package_path.h"

/* libarchive's own: meson.build keeps our folder out of the search for <...>. */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const names[STRIPPED_COUNT] = {
	[STRIPPED_SETID] = "set-uid or set-gid bits",
	[STRIPPED_STICKY] = "sticky bits",
	[STRIPPED_CAPABILITY] = "capabilities",
	[STRIPPED_XATTR] = "extended attributes",
	[STRIPPED_ACL] = "access control lists",
	[STRIPPED_FLAGS] = "file flags",
};

static int count(struct stripped *stripped, enum stripped_kind kind, const char *path)
{
	if (stripped->kinds[kind].count++ > 0)
		return 0;
	stripped->kinds[kind].first = strdup(*path ? path : ".");
	return stripped->kinds[kind].first ? 0 : -ENOMEM;
}

/* Which kinds of extended attributes there are, added to @found. */
static void find_xattrs(struct archive_entry *entry, bool found[static STRIPPED_COUNT])
{
	const char *name;
	const void *value;
	size_t size;

	archive_entry_xattr_reset(entry);
	while (archive_entry_xattr_next(entry, &name, &value, &size) == ARCHIVE_OK)
		if (name && !strcmp(name, "security.capability"))
			found[STRIPPED_CAPABILITY] = true;
		else
			found[STRIPPED_XATTR] = true;
}

int stripped_note(struct stripped *stripped, struct archive_entry *entry,
		  const char *path)
{
	bool found[STRIPPED_COUNT] = {false};
	mode_t mode = archive_entry_mode(entry);
	unsigned long set = 0, clear = 0;
	int r = 0;

	find_xattrs(entry, found);
	archive_entry_fflags(entry, &set, &clear);
	found[STRIPPED_SETID] = mode & (S_ISUID | S_ISGID);
	found[STRIPPED_STICKY] = mode & S_ISVTX;
	found[STRIPPED_ACL] = archive_entry_acl_types(entry) != 0;
	found[STRIPPED_FLAGS] = set || clear;
	for (int kind = 0; r == 0 && kind < STRIPPED_COUNT; kind++)
		if (found[kind])
			r = count(stripped, (enum stripped_kind)kind, path);
	return r;
}

void stripped_tell(struct stripped *stripped, archive_warning_fn *warning, void *context)
{
	for (int kind = 0; kind < STRIPPED_COUNT; kind++) {
		char path[PACKAGE_PATH_TEXT_SIZE], text[2 * PACKAGE_PATH_TEXT_SIZE];
		uint64_t entries = stripped->kinds[kind].count;

		if (!entries || !stripped->kinds[kind].first || !warning)
			continue;
		snprintf(text, sizeof(text),
			 "%s were removed from %" PRIu64 " %s, '%s' first", names[kind],
			 entries, entries == 1 ? "entry" : "entries",
			 package_path_text(stripped->kinds[kind].first, path));
		warning(context, text);
	}
	stripped_done(stripped);
}

void stripped_done(struct stripped *stripped)
{
	for (int kind = 0; kind < STRIPPED_COUNT; kind++)
		free(stripped->kinds[kind].first);
	memset(stripped, 0, sizeof(*stripped));
}

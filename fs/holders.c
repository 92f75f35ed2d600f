/* SPDX-License-Identifier: Apache-2.0 */
#include "holders.h"

#include "cleanup.h"
#include "fd.h"
#include "mountinfo.h"
#include "procfs.h"

#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define TOLD_MAX 10
#define IDS_MAX  256

static void tell(char *text, size_t size, size_t told, pid_t pid, const char *how)
{
	char name[PROCESS_NAME_SIZE], id[PROCESS_CONTAINER_SIZE], where[40] = "";
	size_t at = strlen(text);

	if (told >= TOLD_MAX)
		return;
	if (process_container(pid, id))
		snprintf(where, sizeof(where), " in container %s", id);
	snprintf(text + at, size - at, "%spid %d (%s)%s: %s", at ? "; " : "", (int)pid,
		 process_name(pid, name), where, how);
}

/* The mounts of one process that show the file system. */
struct mounts {
	dev_t device;
	unsigned ids[IDS_MAX];
	char *points[IDS_MAX], *roots[IDS_MAX];
	size_t count;
};

static bool mounts_add(void *context, const struct mountinfo *info)
{
	struct mounts *mounts = context;

	if (info->device == mounts->device && mounts->count < IDS_MAX) {
		mounts->ids[mounts->count] = info->id;
		mounts->roots[mounts->count] = strdup(info->root);
		mounts->points[mounts->count++] = strdup(info->point);
	}
	return true;
}

static void mounts_done(struct mounts *mounts)
{
	for (size_t i = 0; i < mounts->count; i++) {
		free(mounts->points[i]);
		free(mounts->roots[i]);
	}
}

static bool below(const struct mounts *mounts, const char *path)
{
	for (size_t i = 0; i < mounts->count; i++) {
		size_t size = mounts->points[i] ? strlen(mounts->points[i]) : 0;

		if (size && !strncmp(path, mounts->points[i], size) &&
		    (path[size] == '/' || path[size] == '\0'))
			return true;
	}
	return false;
}

static bool link_below(pid_t pid, const char *name, const struct mounts *mounts)
{
	char target[4096];

	return process_link(pid, name, target, sizeof(target)) == 0 &&
	       below(mounts, target);
}

/* An open file is told by the mount id in fdinfo: right in any namespace, and it touches
 * nothing. */
static bool has_open(pid_t pid, const struct mounts *mounts)
{
	char path[64];
	struct dirent *entry;
	cleanup(dir_close) DIR *dir = NULL;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo", (int)pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		cleanup(free_ptr) char *content = NULL;
		char name[320];
		const char *at;
		unsigned id;

		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (entry->d_name[0] == '.' ||
		    file_read(name, 1 << 16, &content, NULL) < 0)
			continue;
		at = strstr(content, "mnt_id:");
		id = at ? (unsigned)strtoul(at + 7, NULL, 10) : 0;
		for (size_t i = 0; id && i < mounts->count; i++)
			if (mounts->ids[i] == id)
				return true;
	}
	return false;
}

static bool has_mapped(pid_t pid, dev_t device)
{
	cleanup(free_ptr) char *content = NULL;
	char path[64], wanted[32], *rest = NULL;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
	snprintf(wanted, sizeof(wanted), " %02x:%02x ", major(device), minor(device));
	if (file_read(path, 64 << 20, &content, NULL) < 0)
		return false;
	for (char *line = strtok_r(content, "\n", &rest); line;
	     line = strtok_r(NULL, "\n", &rest))
		if (strstr(line, wanted))
			return true;
	return false;
}

struct search {
	dev_t device, base_device;
	const char *base_root;
	char version[300]; /* "/app/version", as a path in the file system */
	unsigned group;
	char *text;
	size_t size, count;
	ino_t namespaces[IDS_MAX];
	size_t namespace_count;
};

static const char *how_held(pid_t pid, const struct mounts *mounts, dev_t device)
{
	if (link_below(pid, "cwd", mounts))
		return "working directory";
	if (link_below(pid, "exe", mounts))
		return "running program";
	if (link_below(pid, "root", mounts))
		return "root directory";
	if (has_open(pid, mounts))
		return "open file";
	if (has_mapped(pid, device))
		return "mapped file";
	return NULL;
}

static void look_at(void *context, pid_t pid)
{
	struct search *search = context;
	cleanup(mounts_done) struct mounts mounts = {.device = search->device};
	const char *how;

	if (mountinfo_each(pid, mounts_add, &mounts) < 0)
		return;
	how = how_held(pid, &mounts, search->device);
	if (how)
		tell(search->text, search->size, search->count++, pid, how);
}

size_t holders_find(dev_t device, char *text, size_t size)
{
	struct search search = {.device = device, .text = text, .size = size};

	text[0] = '\0';
	process_each(look_at, &search);
	return search.count;
}

/* Whether the mount namespace of a process is one that was not looked at before. */
static bool namespace_new(struct search *search, pid_t pid)
{
	ino_t namespace = process_namespace(pid);

	for (size_t i = 0; i < search->namespace_count; i++)
		if (search->namespaces[i] == namespace)
			return false;
	if (namespace && search->namespace_count < IDS_MAX)
		search->namespaces[search->namespace_count++] = namespace;
	return namespace != 0;
}

struct part {
	dev_t device, base_device;
	const char *base_root;
	unsigned bases[IDS_MAX]; /* ids of the mounts that show the base */
	size_t base_count;
	char point[512];
};

static bool find_base(void *context, const struct mountinfo *info)
{
	struct part *part = context;

	if (info->device == part->base_device && !strcmp(info->root, part->base_root) &&
	    part->base_count < IDS_MAX)
		part->bases[part->base_count++] = info->id;
	return true;
}

static bool find_part(void *context, const struct mountinfo *info)
{
	struct part *part = context;

	if (info->device != part->device)
		return true;
	for (size_t i = 0; i < part->base_count && !strcmp(info->root, "/"); i++)
		if (part->bases[i] == info->parent)
			return true;
	snprintf(part->point, sizeof(part->point), "'%.200s' bound at '%.200s'",
		 info->root, info->point);
	return false;
}

static void look_for_part(void *context, pid_t pid)
{
	struct search *search = context;
	struct part part = {
		.device = search->device,
		.base_device = search->base_device,
		.base_root = search->base_root,
	};

	if (!namespace_new(search, pid))
		return;
	mountinfo_each(pid, find_base, &part);
	mountinfo_each(pid, find_part, &part);
	if (part.point[0])
		tell(search->text, search->size, search->count++, pid, part.point);
}

size_t holders_binds(dev_t device, dev_t base_device, const char *base_root, char *text,
		     size_t size)
{
	struct search search = {
		.device = device,
		.base_device = base_device,
		.base_root = base_root,
		.text = text,
		.size = size,
	};

	text[0] = '\0';
	process_each(look_for_part, &search);
	return search.count;
}

/* Whether a path in the file system is a version's directory or below it. The kernel
 * appends "//deleted" to the path of one that is hidden. */
static bool in_version(const struct search *search, const char *path)
{
	size_t size = strlen(search->version);

	return !strncmp(path, search->version, size) &&
	       (path[size] == '/' || path[size] == '\0');
}

static bool count_inside(void *context, const struct mountinfo *info)
{
	struct search *search = context;

	search->count += info->device == search->device && in_version(search, info->root);
	return true;
}

static void look_inside(void *context, pid_t pid)
{
	if (namespace_new(context, pid))
		mountinfo_each(pid, count_inside, context);
}

bool holders_inside(dev_t device, const char *app, const char *version)
{
	struct search search = {.device = device};

	snprintf(search.version, sizeof(search.version), "/%s/%s", app, version);
	process_each(look_inside, &search);
	return search.count > 0;
}

/* What is mounted on one of a namespace's mounts of the file system. */
struct over {
	struct search *search;
	struct mounts mounts;
	char point[512];
};

static bool find_over(void *context, const struct mountinfo *info)
{
	struct over *over = context;
	const struct mounts *mounts = &over->mounts;

	for (size_t i = 0; i < mounts->count; i++) {
		size_t size = mounts->points[i] ? strlen(mounts->points[i]) : 0;
		char path[4096];

		if (mounts->ids[i] != info->parent || !mounts->roots[i] ||
		    strncmp(info->point, mounts->points[i], size))
			continue;
		snprintf(path, sizeof(path), "%s%s",
			 strcmp(mounts->roots[i], "/") ? mounts->roots[i] : "",
			 info->point + size);
		if (!in_version(over->search, path))
			continue;
		snprintf(over->point, sizeof(over->point), "a mount at '%.400s'",
			 info->point);
		return false;
	}
	return true;
}

static void look_over(void *context, pid_t pid)
{
	struct search *search = context;
	struct over over = {.search = search, .mounts.device = search->device};

	if (!namespace_new(search, pid))
		return;
	if (mountinfo_each(pid, mounts_add, &over.mounts) == 0)
		mountinfo_each(pid, find_over, &over);
	mounts_done(&over.mounts);
	if (over.point[0])
		tell(search->text, search->size, search->count++, pid, over.point);
}

size_t holders_over(dev_t device, const char *app, const char *version, char *text,
		    size_t size)
{
	struct search search = {.device = device, .text = text, .size = size};

	text[0] = '\0';
	snprintf(search.version, sizeof(search.version), "/%s/%s", app, version);
	process_each(look_over, &search);
	return search.count;
}

struct group {
	unsigned id;
	size_t members;
};

static bool count_members(void *context, const struct mountinfo *info)
{
	struct group *group = context;

	group->members += info->master == group->id || info->shared == group->id;
	return true;
}

static void look_for_slaves(void *context, pid_t pid)
{
	struct search *search = context;
	struct group group = {.id = search->group};

	if (!namespace_new(search, pid))
		return;
	mountinfo_each(pid, count_members, &group);
	search->count += group.members;
}

bool holders_slaves(unsigned group)
{
	struct search search = {.group = group};
	struct group own = {.id = group};

	/* Our own namespace: the mount itself is one member. */
	search.namespaces[search.namespace_count++] = process_namespace(getpid());
	mountinfo_each(0, count_members, &own);
	process_each(look_for_slaves, &search);
	return search.count > 0 || own.members > 1;
}

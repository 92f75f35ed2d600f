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

#define TOLD_MAX       10
#define IDS_MAX        256
#define PATH_TEXT_SIZE 4096
#define MAPS_MAX       (64 << 20)

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

/*
 * The path in the file system of a path that /proc shows, or NULL where it is elsewhere.
 * /proc tells paths from the root of the process's mount namespace, mountinfo from the
 * root of the process; @root is what lies between the two, "" mostly.
 */
static const char *inside(const struct mounts *mounts, const char *root, const char *path,
			  char *text, size_t size)
{
	const char *best = NULL, *best_root = "";
	size_t root_size = strlen(root), best_size = 0;

	if (strncmp(path, root, root_size) != 0)
		return NULL;
	path += root_size;
	for (size_t i = 0; i < mounts->count; i++) {
		const char *point = mounts->points[i];
		size_t point_size = point ? strlen(point) : 0;

		if (!point_size || !mounts->roots[i])
			continue;
		if (point[point_size - 1] == '/')
			point_size--;
		if (strncmp(path, point, point_size) != 0 ||
		    (path[point_size] != '/' && path[point_size] != '\0') ||
		    (best && point_size < best_size))
			continue;
		best = path + point_size;
		best_size = point_size;
		best_root = mounts->roots[i];
	}
	if (!best)
		return NULL;
	snprintf(text, size, "%s%s", strcmp(best_root, "/") ? best_root : "", best);
	return text;
}

/* One process, while its uses of the file system are told. */
struct visit {
	const struct mounts *mounts;
	struct holder holder;
	char root[PATH_TEXT_SIZE]; /* see inside() */
	char path[PATH_TEXT_SIZE];
	holder_fn *each;
	void *context;
};

static void visit_tell(struct visit *visit, enum holder_how how, const char *path)
{
	struct holder *holder = &visit->holder;

	if (!holder->name[0]) {
		process_name(holder->pid, holder->name);
		process_container(holder->pid, holder->container);
	}
	holder->how = how;
	holder->path = path;
	visit->each(visit->context, holder);
}

static void visit_link(struct visit *visit, const char *name, enum holder_how how)
{
	char target[PATH_TEXT_SIZE];
	const char *path;

	if (process_link(visit->holder.pid, name, target, sizeof(target)) < 0)
		return;
	path = inside(visit->mounts, visit->root, target, visit->path,
		      sizeof(visit->path));
	if (path)
		visit_tell(visit, how, path);
}

static bool mount_ours(const struct mounts *mounts, unsigned id)
{
	for (size_t i = 0; i < mounts->count; i++)
		if (mounts->ids[i] == id)
			return true;
	return false;
}

/* An open file is told by the mount id in fdinfo: right in any namespace, and it touches
 * nothing. */
static void visit_files(struct visit *visit)
{
	char path[64];
	struct dirent *entry;
	cleanup(dir_close) DIR *dir = NULL;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo", (int)visit->holder.pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		cleanup(free_ptr) char *content = NULL;
		char name[320], target[PATH_TEXT_SIZE];
		const char *at;

		snprintf(name, sizeof(name), "%s/%s", path, entry->d_name);
		if (entry->d_name[0] == '.' ||
		    file_read(name, 1 << 16, &content, NULL) < 0)
			continue;
		at = strstr(content, "mnt_id:");
		if (!at ||
		    !mount_ours(visit->mounts, (unsigned)strtoul(at + 7, NULL, 10)))
			continue;
		snprintf(name, sizeof(name), "fd/%s", entry->d_name);
		if (process_link(visit->holder.pid, name, target, sizeof(target)) < 0)
			target[0] = '\0';
		at = inside(visit->mounts, visit->root, target, visit->path,
			    sizeof(visit->path));
		visit_tell(visit, HOLDER_OPEN, at ? at : "");
	}
}

/* The device tells a mapping even where its mount is in no mountinfo: then the path
 * begins at the root of the file system. */
static void visit_mappings(struct visit *visit, dev_t device)
{
	cleanup(free_ptr) char *content = NULL;
	char path[64], wanted[32], *rest = NULL;

	snprintf(path, sizeof(path), "/proc/%d/maps", (int)visit->holder.pid);
	snprintf(wanted, sizeof(wanted), " %02x:%02x ", major(device), minor(device));
	if (file_read(path, MAPS_MAX, &content, NULL) < 0)
		return;
	for (char *line = strtok_r(content, "\n", &rest); line;
	     line = strtok_r(NULL, "\n", &rest)) {
		const char *name = strstr(line, wanted) ? strchr(line, '/') : NULL;
		const char *at;

		if (!strstr(line, wanted))
			continue;
		name = name ? name : "";
		at = inside(visit->mounts, visit->root, name, visit->path,
			    sizeof(visit->path));
		visit_tell(visit, HOLDER_MAPPED, at ? at : name);
	}
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
	holder_fn *each;
	void *context;
};

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

/* Each bind of a part, told of the first process that is seen in its namespace. */
static void visit_binds(struct visit *visit)
{
	const struct mounts *mounts = visit->mounts;

	for (size_t i = 0; i < mounts->count; i++) {
		if (!mounts->roots[i] || !mounts->points[i] ||
		    !strcmp(mounts->roots[i], "/"))
			continue;
		visit->holder.point = mounts->points[i];
		visit_tell(visit, HOLDER_BOUND, mounts->roots[i]);
		visit->holder.point = NULL;
	}
}

/* A process that has changed its root does not see the mounts above it. In our own
 * namespace ours are the same, and more. */
static int visit_mounts(struct visit *visit, struct mounts *mounts)
{
	const pid_t pid = visit->holder.pid;

	if (process_link(pid, "root", visit->root, sizeof(visit->root)) < 0 ||
	    !strcmp(visit->root, "/"))
		visit->root[0] = '\0';
	if (!visit->root[0] || process_namespace(pid) != process_namespace(getpid()))
		return mountinfo_each(pid, mounts_add, mounts);
	visit->root[0] = '\0';
	return mountinfo_each(0, mounts_add, mounts);
}

static void look_at(void *context, pid_t pid)
{
	struct search *search = context;
	cleanup(mounts_done) struct mounts mounts = {.device = search->device};
	struct visit visit = {
		.mounts = &mounts,
		.holder.pid = pid,
		.each = search->each,
		.context = search->context,
	};

	if (visit_mounts(&visit, &mounts) < 0)
		return;
	visit_link(&visit, "cwd", HOLDER_DIRECTORY);
	visit_link(&visit, "exe", HOLDER_PROGRAM);
	visit_link(&visit, "root", HOLDER_ROOT);
	if (mounts.count)
		visit_files(&visit);
	visit_mappings(&visit, search->device);
	if (mounts.count && namespace_new(search, pid))
		visit_binds(&visit);
}

void holders_each(dev_t device, holder_fn *each, void *context)
{
	struct search search = {.device = device, .each = each, .context = context};

	process_each(look_at, &search);
}

void holder_how(const struct holder *holder, char *text, size_t size)
{
	static const char *const names[] = {
		[HOLDER_DIRECTORY] = "working directory",
		[HOLDER_PROGRAM] = "running program",
		[HOLDER_ROOT] = "root directory",
		[HOLDER_OPEN] = "open file",
		[HOLDER_MAPPED] = "mapped file",
		[HOLDER_BOUND] = "bind mount",
	};

	if (holder->how == HOLDER_BOUND)
		snprintf(text, size, "%s at '%s'", names[holder->how], holder->point);
	else
		snprintf(text, size, "%s", names[holder->how]);
}

/* The processes of holders_find(), each with the first of its uses. */
struct found {
	char *text;
	size_t size, count;
	pid_t last;
};

static void find_process(void *context, const struct holder *holder)
{
	struct found *found = context;
	char how[64];

	if (holder->how == HOLDER_BOUND || holder->pid == found->last)
		return;
	found->last = holder->pid;
	holder_how(holder, how, sizeof(how));
	tell(found->text, found->size, found->count++, holder->pid, how);
}

size_t holders_find(dev_t device, char *text, size_t size)
{
	struct found found = {.text = text, .size = size};

	text[0] = '\0';
	holders_each(device, find_process, &found);
	return found.count;
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

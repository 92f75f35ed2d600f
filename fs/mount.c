/* SPDX-License-Identifier: Apache-2.0 */
#include "mount.h"

#include "cleanup.h"
#include "fd.h"
#include "holders.h"
#include "log.h"
#include "mountinfo.h"
#include "process.h"
#include "procfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define TYPE       "fuse.deployfs"
#define PROBE_MS   3000
#define FLAGS      (MS_RDONLY | MS_NOSUID | MS_NODEV)
#define LEVELS_MAX 8 /* of empty directories below a mountpoint */

/* What mountinfo says of the topmost mount at a path. */
struct point {
	const char *path;
	bool found;
	char type[64], options[256], root[PATH_MAX];
	dev_t device;
	unsigned shared;
};

static bool point_match(void *context, const struct mountinfo *info)
{
	struct point *point = context;

	if (!strcmp(info->point, point->path)) {
		point->found = true;
		point->device = info->device;
		point->shared = info->shared;
		snprintf(point->type, sizeof(point->type), "%s", info->type);
		snprintf(point->root, sizeof(point->root), "%s", info->root);
		snprintf(point->options, sizeof(point->options), "%s", info->options);
	}
	return true;
}

static struct point point_of(const char *path)
{
	struct point point = {.path = path};

	mountinfo_each(0, point_match, &point);
	return point;
}

/* Where '/' is shared, as systemd has it, a bind is a peer of the mount that it is made
 * from, and what is mounted on it would appear below it a second time. Private first, so
 * that it is shared with nothing but its own copies. */
static int make_shared(const char *base, struct error *err)
{
	struct point point = point_of(base);

	if (!point.found && (mount(base, base, NULL, MS_BIND, NULL) < 0 ||
			     mount(NULL, base, NULL, MS_PRIVATE, NULL) < 0))
		return error_set(err, -errno, "cannot bind '%s' to itself: %s", base,
				 strerror(errno));
	if ((!point.found || !point.shared) &&
	    mount(NULL, base, NULL, MS_SHARED, NULL) < 0)
		return error_set(err, -errno, "cannot make '%s' a shared mount: %s", base,
				 strerror(errno));
	return 0;
}

/* What a directory that should be empty holds. */
struct content {
	bool any;          /* a directory, at least */
	char offence[300]; /* the first thing that is none, or that cannot be looked at */
};

static void content_look(int parent, const char *name, int levels,
			 struct content *content)
{
	int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir && fd >= 0)
		close(fd);
	if (!dir || levels == 0)
		snprintf(content->offence, sizeof(content->offence), "%s", name);
	while (dir && !*content->offence && (entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		content->any = true;
		content_look(dirfd(dir), entry->d_name, levels - 1, content);
	}
	if (dir)
		closedir(dir);
}

static int check_empty(const char *path, struct error *err)
{
	struct content content = {0};

	content_look(AT_FDCWD, path, LEVELS_MAX, &content);
	if (*content.offence)
		return error_set(
			err, -EBUSY,
			"the mountpoint '%s' is not empty, '%s' is in it: move it "
			"away, or set another 'mount'",
			path, content.offence);
	if (content.any)
		log_warning(
			"the mountpoint '%s' holds empty directories, probably made by "
			"a container engine that started before us; they are hidden now",
			path);
	return 0;
}

/*
 * Ask a mounted deployfs something that the kernel has no cached answer for; stat(2)
 * would be answered from the cache for ever. From a child, because a daemon that hangs
 * never answers. Returns 0; -ENOTCONN when its daemon is gone; -ETIMEDOUT when it hangs.
 */
static int probe(const char *path)
{
	struct pollfd ended = {.events = POLLIN};
	struct statfs st;
	siginfo_t info;
	int r = -EIO;
	pid_t pid = fork();

	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(statfs(path, &st) == 0 ? 0 : errno);
	ended.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (ended.fd >= 0 && poll(&ended, 1, PROBE_MS) == 0)
		r = -ETIMEDOUT;
	else if (waitid(P_PID, (id_t)pid, &info, WEXITED) == 0 &&
		 info.si_code == CLD_EXITED)
		r = -info.si_status;
	if (r == -ETIMEDOUT) {
		kill(pid, SIGKILL);
		waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG);
	}
	fd_close(&ended.fd);
	return r;
}

static void find_server(void *context, pid_t pid)
{
	bool *found = context;

	*found |= process_ours(pid);
}

/* A worker that was killed with its supervisor while it walked in its own mount waits for
 * an answer that nobody will give, and keeps the connection open. Only while no other
 * deployfsd runs here can we know that it is that. */
static int abort_orphan(const char *path, struct error *err)
{
	bool found = false;

	process_each(find_server, &found);
	if (found)
		return error_set(
			err, -EBUSY,
			"a deployfs is mounted at '%s' whose daemon hangs: end that daemon "
			"first; 'deployctl doctor' names it",
			path);
	log_warning("aborting the connection of '%s', which nobody serves any more",
		    path);
	umount2(path, MNT_FORCE);
	return 0;
}

/* A mount of an earlier run: dead ones go, living ones are somebody's. */
static int clear_old(const char *path, struct error *err)
{
	for (struct point point = point_of(path); point.found; point = point_of(path)) {
		int r = strcmp(point.type, TYPE) ? 0 : probe(path);

		if (r == -ETIMEDOUT) {
			r = abort_orphan(path, err);
			if (r < 0)
				return r;
			continue;
		}
		if (r != -ENOTCONN)
			return error_set(
				err, -EBUSY,
				"something of type '%s' is mounted at '%s' already: "
				"unmount it, or set another 'mount'",
				point.type, path);
		log_warning("replacing the dead mount of an earlier run at '%s'", path);
		if (umount2(path, MNT_DETACH) < 0)
			return error_set(err, -errno, "cannot unmount '%s': %s", path,
					 strerror(errno));
	}
	return 0;
}

/* What was asked for is what is there: hostile content relies on it (nosuid, nodev). */
static int assert_options(struct mount *mount, struct error *err)
{
	static const char *const needed[] = {"ro", "nosuid", "nodev"};
	struct point point = point_of(mount->apps);

	if (!point.found || strcmp(point.type, TYPE))
		return error_set(err, -EIO, "'%s' is not mounted after mounting it",
				 mount->apps);
	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		if (!mountinfo_option(point.options, needed[i]))
			return error_set(err, -EIO, "'%s' is mounted without '%s'",
					 mount->apps, needed[i]);
	mount->device = point.device;
	return 0;
}

static int mount_fuse(struct mount *m, struct error *err)
{
	char options[128];

	m->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (m->fd < 0)
		return error_set(err, -errno,
				 "cannot open /dev/fuse: %s; 'modprobe fuse' loads it",
				 strerror(errno));
	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_"
		 "permissions",
		 m->fd);
	if (mount("deployfs", m->apps, TYPE, FLAGS, options) < 0)
		return error_set(err, -errno, "cannot mount at '%s': %s", m->apps,
				 strerror(errno));
	m->mounted = true;
	return assert_options(m, err);
}

static int make_points(struct mount *m, struct error *err)
{
	char real[PATH_MAX];
	int r = dir_make(m->base, 0755);

	if (r < 0)
		return error_set(err, r, "cannot make the mountpoint '%s': %s", m->base,
				 strerror(-r));
	/* mountinfo knows the path without symlinks. */
	if (!realpath(m->base, real))
		return error_set(err, -errno, "cannot resolve '%s': %s", m->base,
				 strerror(errno));
	free(m->base);
	m->base = strdup(real);
	if (!m->base || asprintf(&m->apps, "%s/apps", m->base) < 0)
		return error_set(err, -ENOMEM, "not enough memory");
	r = make_shared(m->base, err);
	if (r < 0)
		return r;
	if (mkdir(m->apps, 0555) < 0 && errno != EEXIST)
		return error_set(err, -errno, "cannot make '%s': %s", m->apps,
				 strerror(errno));
	return 0;
}

int mount_apps(const char *base, struct mount *ret, struct error *err)
{
	struct mount m = {.fd = -1, .base = strdup(base)};
	int r = m.base ? make_points(&m, err) : -ENOMEM;

	if (r == 0)
		r = clear_old(m.apps, err);
	if (r == 0)
		r = check_empty(m.apps, err);
	if (r == 0)
		r = mount_fuse(&m, err);
	if (r < 0) {
		if (m.mounted)
			umount2(m.apps, MNT_DETACH);
		mount_done(&m);
		return r;
	}
	*ret = m;
	return 0;
}

int mount_adopt(const char *base, const char *apps, dev_t device, int fd,
		struct mount *ret)
{
	struct mount m = {
		.base = strdup(base),
		.apps = strdup(apps),
		.fd = fd,
		.device = device,
		.mounted = true,
	};

	if (!m.base || !m.apps) {
		m.fd = -1;
		mount_done(&m);
		return -ENOMEM;
	}
	*ret = m;
	return 0;
}

void mount_read_ahead(const struct mount *mount, unsigned kib)
{
	char path[96], text[16];
	int size = snprintf(text, sizeof(text), "%u\n", kib);

	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb",
		 major(mount->device), minor(mount->device));
	cleanup(fd_close) int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || fd_write_all(fd, text, (size_t)size) < 0)
		log_warning(
			"cannot set the read-ahead in '%s': reading cold files will be "
			"slower",
			path);
}

/* The bind of <base> to itself goes only when no container follows it: one that does
 * would not see the mount of our next run in another peer group. */
static void leave_base(const struct mount *m)
{
	struct point point = point_of(m->base);

	if (point.found && !holders_slaves(point.shared))
		umount2(m->base, UMOUNT_NOFOLLOW);
}

bool mount_here(const struct mount *m)
{
	struct point point = point_of(m->apps);

	return m->mounted && point.found && point.device == m->device;
}

static bool bound_elsewhere(const struct mount *m, char *text, size_t size)
{
	struct point base = point_of(m->base);

	return holders_binds(m->device, base.device, base.root, text, size) > 0;
}

static int in_use(const struct mount *m, const char *who, struct error *err)
{
	return error_set(
		err, -EBUSY,
		"'%s' is in use: %s; stop them, or use --force, after which they get "
		"ENOTCONN",
		m->apps, *who ? who : "by a process that cannot be named");
}

int mount_leave(struct mount *m, bool force, struct error *err)
{
	char text[700];

	if (!m->mounted)
		return 0;
	if (!mount_here(m)) {
		log_warning("'%s' was unmounted, or covered, by somebody else", m->apps);
		m->mounted = false;
		leave_base(m);
		return 0;
	}
	/* Before the attempt: a process in a namespace with a private copy of the mount
	 * does not make umount2() fail, and would be left with a dead one. */
	if (!force && (bound_elsewhere(m, text, sizeof(text)) ||
		       holders_find(m->device, text, sizeof(text))))
		return in_use(m, text, err);
	if (umount2(m->apps, UMOUNT_NOFOLLOW | (force ? MNT_DETACH : 0)) < 0) {
		int r = -errno;

		if (r != -EBUSY)
			return error_set(err, r, "cannot unmount '%s': %s", m->apps,
					 strerror(-r));
		holders_find(m->device, text, sizeof(text));
		return in_use(m, text, err);
	}
	m->mounted = false;
	leave_base(m);
	return 0;
}

void mount_done(struct mount *m)
{
	fd_close(&m->fd);
	free(m->base);
	free(m->apps);
	m->base = m->apps = NULL;
}

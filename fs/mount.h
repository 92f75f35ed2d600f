/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mount.h - the mountpoint: making it, checking it, finding out who holds it
 */
#pragma once

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct mount {
	char *base;   /* /srv/deployfs: made a shared mount */
	char *apps;   /* /srv/deployfs/apps */
	int fd;       /* /dev/fuse */
	dev_t device; /* of the mounted file system */
	bool mounted;
};

/**
 * mount_apps() - mount FUSE 1 read-only at <base>/apps
 *
 * Makes <base> if it is missing, a bind mount of itself and shared, so that containers
 * that bind it with rslave follow. A dead mount of an earlier run is taken away. A
 * mountpoint that holds only empty directories (Docker makes them) is mounted over with a
 * warning; one that holds more is refused. Afterwards asserts from mountinfo that it is
 * ro, nosuid, nodev.
 *
 * Return: 0; -EBUSY somebody else's mount is there, or files are; the negative errno of
 * mount(2). On failure nothing stays mounted by us.
 */
int mount_apps(const char *base, struct mount *ret, struct error *err);

/**
 * mount_adopt() - what another process has mounted, and is ours to serve now
 * @fd: taken over; may be -1
 * Return: 0; -ENOMEM.
 */
int mount_adopt(const char *base, const char *apps, dev_t device, int fd,
		struct mount *ret);

/** mount_read_ahead() - set the read-ahead of the mounted file system; needs INIT to be
 * done */
void mount_read_ahead(const struct mount *mount, unsigned kib);

/** mount_here() - whether it is still mounted, and nothing else over it */
bool mount_here(const struct mount *mount);

/**
 * mount_leave() - unmount
 * @force: detach it from everybody who uses it; they get ENOTCONN from then on
 *
 * Return: 0; -EBUSY when a process uses it or a container has bound a part of it: @err
 * names them. Where somebody
 * has unmounted it already there is nothing left to do.
 */
int mount_leave(struct mount *mount, bool force, struct error *err);

/** mount_done() - close and free; the mount stays if it is mounted */
void mount_done(struct mount *mount);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * apps.h - FUSE 1: the kernel's requests for apps/, answered from the view
 *
 * open and opendir are answered with ENOSYS and everything lives in the kernel's caches
 * without limit: the warm path costs no request at all. So every change is followed by
 * notifications, in apps_notify().
 */
#pragma once

#include "catalog.h"
#include "error.h"
#include "metrics.h"
#include "mount.h"
#include "shared.h"
#include "view.h"

#include <stdint.h>

struct apps;

/** Where in the shared memory a worker serves. */
struct apps_place {
	struct shared *shared;
	unsigned session, bank;
};

/**
 * apps_start() - begin to serve a mounted file system, or go on where a predecessor ended
 * @mount, @view, @metrics: borrowed, but for the descriptor of @mount, which libfuse will
 * close; each request is counted in @metrics
 * Returns when threads serve it, and requests that a predecessor had received and not
 * answered are under way again. Return: 0; a negative errno.
 */
int apps_start(const struct mount *mount, struct view *view,
	       const struct apps_place *place, struct metrics *metrics, struct apps **ret,
	       struct error *err);

/**
 * apps_recover() - answer what workers that are gone had received
 * Again when one has ended for good: until then it may still receive.
 */
void apps_recover(struct apps *apps);

/**
 * apps_teach() - have the kernel learn what it need not ask
 * It asks at the first open, read-only as we are even at the first close, and remembers
 * ENOSYS for the rest of the connection. Until then a close waits for a worker, which may
 * be held back just then. Waits for the answers.
 */
void apps_teach(struct apps *apps);

/** apps_stop() - let the threads finish what they have received, and free. NULL is
 * allowed. */
void apps_stop(struct apps *apps);

/**
 * apps_notify() - make the kernel forget what a change has made wrong
 *
 * The view must show the change already. When it returns, no path walk on the machine
 * sees the old state (I4). Waits for look-ups in flight in the same directory: call it
 * without any lock, and never from a thread that serves requests.
 */
void apps_notify(struct apps *apps, const struct change *change);

/**
 * apps_notify_again() - as apps_notify(), for a change that may have been notified before
 * Never drops a directory that may be in use, nor what is mounted below it: a version
 * that appeared is looked up once more instead.
 */
void apps_notify_again(struct apps *apps, const struct change *change);

/**
 * apps_held() - whether the kernel or a process still uses a version that the view hides
 * @change: the CHANGE_VERSION_GONE that hid it
 *
 * Exact for open files, mappings, working directories and bind mounts (I10); look-up
 * counts would drift. As apps_notify() never from a thread that serves.
 *
 * Return: 1 held; 0 nobody holds anything in it.
 */
int apps_held(struct apps *apps, const struct change *change);

/** apps_set_space() - what statfs(2) answers: bytes */
void apps_set_space(struct apps *apps, uint64_t total, uint64_t free);

/** How busy the threads are that serve the kernel. */
struct apps_load {
	unsigned threads, busy;
	int64_t waiting; /* requests in the kernel that have no reply; -1: not known, as
			    fusectl is not mounted */
};

/** apps_load() - at this moment */
void apps_load(const struct apps *apps, struct apps_load *ret);

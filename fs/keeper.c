/* SPDX-License-Identifier: Apache-2.0 */
#include "keeper.h"

#include "cleanup.h"
#include "fd.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define WAIT_MS 1000

void keeper_init(struct keeper *keeper, struct holdings *holdings)
{
	char name[INHERIT_NAME];

	*keeper = (struct keeper){.shared = holdings->shared, .list = &holdings->list};
	pthread_mutex_init(&keeper->lock, NULL);
	for (int i = 0; i < SHARED_KEPT; i++) {
		struct shared_kept *kept = &keeper->shared->kept[i];

		if (atomic_load(&kept->state) != KEPT_HELD)
			continue;
		/* The same numbers: we are a fork of the supervisor. */
		shared_kept_name(i, name);
		kept->worker_fd = inherit_find(keeper->list, name);
		if (kept->worker_fd < 0)
			atomic_store(&kept->state, KEPT_FREE);
	}
}

static int find(const struct keeper *keeper, const char *name)
{
	for (int i = 0; i < SHARED_KEPT; i++) {
		const struct shared_kept *kept = &keeper->shared->kept[i];

		if (atomic_load(&kept->state) == KEPT_HELD && !strcmp(kept->name, name))
			return i;
	}
	return -ENOENT;
}

static int find_free(const struct keeper *keeper)
{
	for (int i = 0; i < SHARED_KEPT; i++)
		if (atomic_load(&keeper->shared->kept[i].state) == KEPT_FREE)
			return i;
	return -ENOSPC;
}

static int offer(struct keeper *keeper, int number, const char *name, int fd)
{
	struct shared_kept *kept = &keeper->shared->kept[number];
	char entry[INHERIT_NAME];
	int offered = KEPT_OFFERED;

	snprintf(kept->name, sizeof(kept->name), "%s", name);
	kept->worker_fd = fd;
	atomic_store(&kept->state, KEPT_OFFERED);
	process_signal(atomic_load(&keeper->shared->supervisor), SIGUSR1);
	for (int i = 0; i < WAIT_MS && atomic_load(&kept->state) == KEPT_OFFERED; i++)
		poll(NULL, 0, 1);
	/* Taken back, but where the supervisor was faster. */
	if (atomic_compare_exchange_strong(&kept->state, &offered, KEPT_FREE) ||
	    offered != KEPT_HELD)
		return -EAGAIN;
	shared_kept_name(number, entry);
	return inherit_add(keeper->list, entry, fd);
}

int keeper_keep(void *context, const char *name, int fd)
{
	struct keeper *keeper = context;
	cleanup(fd_close) int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	int number, r;

	if (copy < 0)
		return -errno;
	pthread_mutex_lock(&keeper->lock);
	number = find_free(keeper);
	r = number < 0 ? number : offer(keeper, number, name, copy);
	pthread_mutex_unlock(&keeper->lock);
	if (r == 0)
		fd_take(&copy); /* the list's now */
	return r;
}

int keeper_kept(void *context, const char *name)
{
	struct keeper *keeper = context;
	int number, fd = -ENOENT;

	pthread_mutex_lock(&keeper->lock);
	number = find(keeper, name);
	if (number >= 0) {
		fd = fcntl(keeper->shared->kept[number].worker_fd, F_DUPFD_CLOEXEC, 0);
		if (fd < 0)
			fd = -errno;
	}
	pthread_mutex_unlock(&keeper->lock);
	return fd;
}

void keeper_drop(void *context, const char *name)
{
	struct keeper *keeper = context;
	char entry[INHERIT_NAME];
	int number;

	pthread_mutex_lock(&keeper->lock);
	number = find(keeper, name);
	if (number >= 0) {
		shared_kept_name(number, entry);
		inherit_drop(keeper->list, entry);
		atomic_store(&keeper->shared->kept[number].state, KEPT_DROPPED);
		process_signal(atomic_load(&keeper->shared->supervisor), SIGUSR1);
	}
	pthread_mutex_unlock(&keeper->lock);
}

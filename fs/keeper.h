/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keeper.h - descriptors that the supervisor holds for a worker's successor
 *
 * The archive of an import, say: it was opened with the rights of who asked for it, and
 * cannot be opened again. Thread-safe.
 */
#pragma once

#include "holdings.h"

#include <pthread.h>

struct keeper {
	struct shared *shared;
	struct inherit *list; /* the worker's: what a new supervisor would be given */
	pthread_mutex_t lock; /* guards the list */
};

/** keeper_init() - at a worker's start; what its predecessor had kept is here */
void keeper_init(struct keeper *keeper, struct holdings *holdings);

/**
 * keeper_keep() - have the supervisor take a copy of @fd, which stays the caller's
 * @name: shorter than SHARED_NAME
 * Waits for the supervisor, at most a second. Return: 0; -EAGAIN it does not answer;
 * -ENOSPC too many are kept.
 */
int keeper_keep(void *keeper, const char *name, int fd);

/** keeper_kept() - a new descriptor of what is kept; -ENOENT */
int keeper_kept(void *keeper, const char *name);

/** keeper_drop() - not needed any more; also of what is not there */
void keeper_drop(void *keeper, const char *name);

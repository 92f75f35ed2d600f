/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog_private.h - what catalog.c (apps, versions, packs) and channel.c (channels,
 * generations, what the mount shows) share
 */
#pragma once

#include "catalog.h"
#include "sql.h"

#include <pthread.h>

struct catalog {
	sqlite3 *db;
	pthread_mutex_t
		lock; /* recursive; held by every public function for its whole run */
};

/** catalog_lock(), catalog_unlock() - the latter a clean-up function */
struct catalog *catalog_lock(struct catalog *catalog);
void catalog_unlock(struct catalog **locked);

/** A transaction: rolled back when the scope ends, unless committed. */
struct transaction {
	sqlite3 *db; /* NULL: none is open */
};

int transaction_begin(struct catalog *catalog, struct transaction *ret,
		      struct error *err);
int transaction_commit(struct transaction *transaction, struct error *err);
void transaction_end(struct transaction *transaction); /* clean-up function */

/** change_add() - append an empty change; NULL when out of memory */
struct change *change_add(struct change_list *list, enum change_kind kind);

struct app_row {
	int64_t id;
	char name[NAME_LENGTH_MAX + 1];
	uint64_t node;
};

/** app_find() - Return: 0; -ENOENT with a text */
int app_find(struct catalog *catalog, const char *name, struct app_row *ret,
	     struct error *err);

/** version_find_present() - a version that is here, not hidden or removed. 0; -ENOENT. */
int version_find_present(struct catalog *catalog, const char *app, const char *name,
			 struct version *ret, struct error *err);

/** nodes_take() - a range of node ids, inside a transaction */
int nodes_take(struct catalog *catalog, uint64_t count, uint64_t *ret, struct error *err);

/**
 * settle() - bring previous and status.json up to date, inside the transaction of a
 * change Also sets the modification time of the application's directory to @now_ns.
 */
int settle(struct catalog *catalog, const struct app_row *app, int64_t now_ns,
	   struct change_list *changes, struct error *err);

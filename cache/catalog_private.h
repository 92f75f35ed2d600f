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
	bool writable;
	void (*changed)(void *context); /* NULL: nobody wants to know */
	void *changed_context;
	pthread_mutex_t
		lock; /* recursive; held by every public function for its whole run */
	bool unsure;  /* see catalog_unsure() */
};

/** catalog_lock(), catalog_unlock() - the latter a clean-up function */
struct catalog *catalog_lock(struct catalog *catalog);
void catalog_unlock(struct catalog **locked);

/** A transaction: rolled back when the scope ends, unless committed. */
struct transaction {
	struct catalog *catalog; /* NULL: none is open */
};

int transaction_begin(struct catalog *catalog, struct transaction *ret,
		      struct error *err);
int transaction_commit(struct transaction *transaction, struct error *err);
void transaction_end(struct transaction *transaction); /* clean-up function */

/** change_add() - append an empty change; NULL when out of memory */
struct change *change_add(struct change_list *list, enum change_kind kind);

/**
 * sql_copy() - a database as bytes of a file that has no WAL; sqlite3_free() them
 */
int sql_copy(sqlite3 *db, unsigned char **ret, size_t *ret_size, struct error *err);

/** file_write_durable(), file_rename_durable() - 0 or a negative errno; @end comes behind
 * @data */
int file_write_durable(const char *path, const void *data, size_t size, const void *end,
		       size_t end_size);
int file_rename_durable(const char *from, const char *to);
/** dir_sync_of() - make the names in the directory of @path durable */
int dir_sync_of(const char *path);

struct app_row {
	int64_t id;
	char name[NAME_LENGTH_MAX + 1];
	uint64_t node;
};

/** schema_make() - bring an empty or older database to @version */
int schema_make(sqlite3 *db, int64_t version, struct error *err);

/** CATALOG_VERSION - the user_version that this program writes */
extern const int64_t catalog_version;

/** app_find() - Return: 0; -ENOENT with a text */
int app_find(struct catalog *catalog, const char *name, struct app_row *ret,
	     struct error *err);

/** The damage that is known of what a version shows; NULL: none. */
#define DAMAGE                                                  \
	"(SELECT rotten.damage FROM hurt"                       \
	" JOIN pack AS rotten ON rotten.id = hurt.pack"         \
	" WHERE hurt.by = version.pack AND rotten.damage <> ''" \
	" ORDER BY rotten.id LIMIT 1)"

/** version_find_present() - a version that is here, not hidden or removed. 0; -ENOENT. */
int version_find_present(struct catalog *catalog, const char *app, const char *name,
			 struct version *ret, struct error *err);

/** What was done for a key. */
struct request {
	int64_t app;
	char channel[NAME_LENGTH_MAX + 1]; /* "": no channel was moved */
	int64_t number;                    /* generation; without a channel: version */
	char note[512];
};

/* All of them inside the transaction of the change; a NULL @key is no key. */

/** request_find() - Return: 1 with @ret filled; 0 the key is new; a negative errno. */
int request_find(struct catalog *catalog, const char *key, struct request *ret,
		 struct error *err);

/** request_add() - remember it; the oldest is forgotten */
int request_add(struct catalog *catalog, const char *key, int64_t app,
		const char *channel, int64_t number, const char *note, struct error *err);

/** request_other() - -EINVAL: the key stands for something else */
int request_other(struct error *err);

/**
 * request_repeats() - whether a change of one version was made already
 * @verb: what request_add() got as its note, with "" as the channel
 * Return: 1; 0 the key is new; -EINVAL as request_other().
 */
int request_repeats(struct catalog *catalog, const char *key, const char *verb,
		    const char *app, const char *version, struct error *err);

/** app_make() - find it, or make it inside the transaction */
int app_make(struct catalog *catalog, const char *name, int64_t now_ns,
	     struct app_row *ret, struct change_list *changes, struct error *err);

/** pack_insert(), version_insert() - rows as they are, inside a transaction; a version
 * that was removed becomes present */
int pack_insert(struct catalog *catalog, const struct pack_key *key, uint64_t pack_bytes,
		const uint64_t *deps, size_t dep_count, struct error *err);
int version_insert(struct catalog *catalog, const struct app_row *app,
		   const struct version *version, struct error *err);

/** previous_settle() - bring `previous` along, where what it means has changed */
int previous_settle(struct catalog *catalog, const char *app, struct change_list *changes,
		    struct error *err);

/** nodes_take() - a range of node ids, inside a transaction */
int nodes_take(struct catalog *catalog, uint64_t count, uint64_t *ret, struct error *err);

/**
 * channel_point() - give a channel a new id and target, inside a transaction
 */
int channel_point(struct catalog *catalog, const struct app_row *app, const char *channel,
		  int64_t version_id, const char *version, int64_t now_ns,
		  struct change_list *changes, struct error *err);

/**
 * settle() - bring previous up to date, inside the transaction of a change. Also sets the
 * modification time of the application's directory to @now_ns.
 */
int settle(struct catalog *catalog, const struct app_row *app, int64_t now_ns,
	   struct change_list *changes, struct error *err);

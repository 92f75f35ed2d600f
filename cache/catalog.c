/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog.db (user_version 3). Rows of `version` are never deleted: a removed version
 * leaves the record of its SHA-256, so that its name never comes to mean other content.
 * Node ids come from one counter and are never given out twice (I2); each pack has a
 * range of them.
 *
 * `leaf` keeps the ids of channel symlinks and of the files in .deployfs/ with what they
 * said: the kernel may ask for an old one as long as somebody holds it (I3).
 */
#include "catalog_private.h"

#include "cleanup.h"
#include "clock.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECKPOINT_FRAMES 1000 /* as SQLite would: 4 MiB of WAL */

#define FIRST_FREE_NODE 16 /* 1 is the root, 2 is .deployfs; some are left */

/* Each step brings the database from the version of its index to the next one. It must
 * change the schema: that is what tells a newer catalog from a damaged version number. */
static const char *const steps[] = {
	"CREATE TABLE meta(key TEXT PRIMARY KEY, value INTEGER NOT NULL);"
	"CREATE TABLE app("
	" id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, node INTEGER NOT NULL,"
	" made_ns INTEGER NOT NULL, changed_ns INTEGER NOT NULL);"
	"CREATE TABLE pack("
	" id INTEGER PRIMARY KEY, first_node INTEGER NOT NULL, node_count INTEGER NOT NULL,"
	" dir_count INTEGER NOT NULL, bytes INTEGER NOT NULL,"
	" indexed INTEGER NOT NULL DEFAULT 0," /* its hashes are in index.db */
	" dirty INTEGER NOT NULL DEFAULT 0);"  /* a ghost to be swept */
	"CREATE INDEX pack_todo ON pack(id) WHERE dirty OR NOT indexed;"
	"CREATE TABLE dep("
	" pack INTEGER NOT NULL, needs INTEGER NOT NULL, PRIMARY KEY(pack, needs))"
	" WITHOUT ROWID;"
	"CREATE INDEX dep_needs ON dep(needs);"
	"CREATE TABLE version("
	" id INTEGER PRIMARY KEY, app INTEGER NOT NULL REFERENCES app(id),"
	" name TEXT NOT NULL, state INTEGER NOT NULL, pack INTEGER REFERENCES pack(id),"
	" sha256 BLOB NOT NULL, package_bytes INTEGER NOT NULL,"
	" unpacked_bytes INTEGER NOT NULL, stored_bytes INTEGER NOT NULL,"
	" files INTEGER NOT NULL, verified TEXT NOT NULL, origin TEXT NOT NULL,"
	" imported_by TEXT NOT NULL, imported_ns INTEGER NOT NULL,"
	" pinned INTEGER NOT NULL DEFAULT 0, bad INTEGER NOT NULL DEFAULT 0,"
	" bad_reason TEXT NOT NULL DEFAULT '',"
	" signer TEXT, index_serial INTEGER," /* for signed indexes, not used yet */
	" UNIQUE(app, name));"
	"CREATE INDEX version_pack ON version(pack);"
	"CREATE TABLE channel("
	" app INTEGER NOT NULL REFERENCES app(id), name TEXT NOT NULL,"
	" version INTEGER NOT NULL REFERENCES version(id), node INTEGER NOT NULL,"
	" changed_ns INTEGER NOT NULL, PRIMARY KEY(app, name)) WITHOUT ROWID;"
	"CREATE INDEX channel_version ON channel(version);"
	"CREATE TABLE generation("
	" app INTEGER NOT NULL REFERENCES app(id), channel TEXT NOT NULL,"
	" number INTEGER NOT NULL, time_ns INTEGER NOT NULL, who TEXT NOT NULL,"
	" verb TEXT NOT NULL, from_version INTEGER, to_version INTEGER NOT NULL,"
	" reason TEXT NOT NULL, result TEXT NOT NULL,"
	" PRIMARY KEY(app, channel, number)) WITHOUT ROWID;"
	"CREATE TABLE leaf("
	" node INTEGER PRIMARY KEY, app INTEGER NOT NULL," /* 0: a file in .deployfs/ */
	" name TEXT NOT NULL, text TEXT NOT NULL, time_ns INTEGER NOT NULL);"
	"CREATE INDEX leaf_name ON leaf(app, name, node);"
	"INSERT INTO meta VALUES('next_node', 16), ('next_pack', 1);"
	"PRAGMA user_version = 1;",

	"ALTER TABLE pack ADD COLUMN damage TEXT NOT NULL DEFAULT '';" /* '': none known
									*/
	/* Changes that were carried out for a request that named itself: who repeats it
	 * is told what it did. */
	"CREATE TABLE request("
	" key TEXT PRIMARY KEY, time_ns INTEGER NOT NULL, app INTEGER NOT NULL,"
	" channel TEXT NOT NULL, number INTEGER NOT NULL, note TEXT NOT NULL)"
	" WITHOUT ROWID;"
	"CREATE INDEX request_time ON request(time_ns);"
	"PRAGMA user_version = 2;",

	/* The pack `by`, of some version, shows what is damaged in `pack`. */
	"CREATE TABLE hurt("
	" pack INTEGER NOT NULL, by INTEGER NOT NULL, PRIMARY KEY(pack, by))"
	" WITHOUT ROWID;"
	"CREATE INDEX hurt_by ON hurt(by);"
	"PRAGMA user_version = 3;",
};

#define CATALOG_VERSION ((int64_t)(sizeof(steps) / sizeof(steps[0])))

const int64_t catalog_version = CATALOG_VERSION;

#define VERSION_COLUMNS                                                           \
	"SELECT version.id, app.name, version.name, version.state, version.pack," \
	" version.sha256, version.package_bytes, version.unpacked_bytes,"         \
	" version.stored_bytes, version.files, version.verified, version.origin," \
	" version.imported_by, version.imported_ns, version.pinned, version.bad," \
	" version.bad_reason, pack.first_node, pack.node_count, " DAMAGE          \
	" FROM version JOIN app ON app.id = version.app"                          \
	" LEFT JOIN pack ON pack.id = version.pack "

const char *version_state_name(enum version_state state)
{
	static const char *const names[] = {"present", "removing", "removed"};

	return names[state];
}

void change_list_done(struct change_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->changes[i].text);
	free(list->changes);
	*list = (struct change_list){0};
}

struct change *change_add(struct change_list *list, enum change_kind kind)
{
	if (list->count == list->room) {
		size_t room = list->room ? list->room * 2 : 8;
		struct change *changes =
			realloc(list->changes, room * sizeof(changes[0]));

		if (!changes)
			return NULL;
		list->changes = changes;
		list->room = room;
	}
	list->changes[list->count] = (struct change){.kind = kind};
	return &list->changes[list->count++];
}

int transaction_begin(struct catalog *catalog, struct transaction *ret, struct error *err)
{
	int r = sql_exec(catalog->db, "BEGIN IMMEDIATE", err);

	if (r == 0)
		ret->catalog = catalog;
	return r;
}

/* What a COMMIT has written before it failed may be whole on the disk, and a start after
 * a crash would take it for made. A further commit is written over it. SQLite writes none
 * where nothing changes, so an id is given up. */
static void commit_undo(struct catalog *catalog)
{
	catalog->unsure =
		sql_exec(catalog->db,
			 "UPDATE meta SET value = value + 1 WHERE key = 'next_pack'",
			 NULL) < 0;
}

int transaction_commit(struct transaction *transaction, struct error *err)
{
	struct catalog *catalog = transaction->catalog;
	int r = sql_exec(catalog->db, "COMMIT", err);

	if (r == 0) {
		catalog->unsure = false;
		transaction->catalog = NULL;
		return 0;
	}
	transaction_end(transaction);
	commit_undo(catalog);
	return r;
}

void transaction_end(struct transaction *transaction)
{
	if (transaction->catalog)
		sql_exec(transaction->catalog->db, "ROLLBACK", NULL);
	transaction->catalog = NULL;
}

bool catalog_unsure(struct catalog *catalog)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);

	return catalog->unsure;
}

struct catalog *catalog_lock(struct catalog *catalog)
{
	pthread_mutex_lock(&catalog->lock);
	return catalog;
}

void catalog_unlock(struct catalog **locked)
{
	pthread_mutex_unlock(&(*locked)->lock);
}

static void lock_init(pthread_mutex_t *lock)
{
	pthread_mutexattr_t recursive;

	pthread_mutexattr_init(&recursive);
	pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(lock, &recursive);
	pthread_mutexattr_destroy(&recursive);
}

void catalog_close(struct catalog *catalog)
{
	if (!catalog)
		return;
	/* The next start finds an empty WAL, with the room it needs on a full disk. Where
	 * a successor is just reading, that is not waited for. */
	if (catalog->writable && sqlite3_busy_timeout(catalog->db, 0) == SQLITE_OK &&
	    sqlite3_wal_checkpoint_v2(catalog->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL,
				      NULL) == SQLITE_OK)
		catalog_make_room(catalog, NULL);
	sqlite3_close(catalog->db);
	pthread_mutex_destroy(&catalog->lock);
	free(catalog);
}

DEFINE_CLEANUP(struct catalog, catalog_close)

int schema_make(sqlite3 *db, int64_t version, struct error *err)
{
	int64_t is = 0;
	int r = sql_integer(db, "PRAGMA user_version", &is, err);

	for (; r == 0 && is < version; is++)
		r = sql_exec(db, steps[is], err);
	return r;
}

static int migrate(struct catalog *catalog, bool writable, struct error *err)
{
	cleanup(transaction_end) struct transaction tx = {0};
	int64_t version = 0;
	int r = sql_integer(catalog->db, "PRAGMA user_version", &version, err);

	if (r < 0 || version == CATALOG_VERSION)
		return r;
	if (version > CATALOG_VERSION)
		return error_set(
			err, -EBADMSG,
			"made by a newer deployfs (catalog version %lld, this one knows %d): install that one",
			(long long)version, (int)CATALOG_VERSION);
	if (!writable)
		return error_set(err, -EBADMSG, "of version %lld", (long long)version);
	r = transaction_begin(catalog, &tx, err);
	if (r == 0)
		r = schema_make(catalog->db, CATALOG_VERSION, err);
	if (r == 0)
		r = transaction_commit(&tx, err);
	return r;
}

/* After each commit. In place of SQLite's own hook, which does the second half. */
static int on_commit(void *context, sqlite3 *db, const char *name, int frames)
{
	struct catalog *catalog = context;

	if (catalog->changed)
		catalog->changed(catalog->changed_context);
	if (frames >= CHECKPOINT_FRAMES)
		sqlite3_wal_checkpoint_v2(db, name, SQLITE_CHECKPOINT_PASSIVE, NULL,
					  NULL);
	return SQLITE_OK;
}

void catalog_on_change(struct catalog *catalog, void (*changed)(void *context),
		       void *context)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);

	catalog->changed = changed;
	catalog->changed_context = context;
}

int catalog_open(const char *path, bool writable, struct catalog **ret, struct error *err)
{
	cleanup(catalog_close_ptr) struct catalog *catalog = calloc(1, sizeof(*catalog));
	struct error why = {0};
	int r;

	if (!catalog)
		return error_set(err, -ENOMEM, "not enough memory");
	lock_init(&catalog->lock);
	r = sql_open(path, writable,
		     "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON", &catalog->db,
		     &why);
	if (r == 0)
		r = migrate(catalog, writable, &why);
	if (r < 0)
		return error_set(err, r, "cannot open the catalog '%s': %s", path,
				 why.text);
	catalog->writable = writable;
	if (writable)
		sqlite3_wal_hook(catalog->db, on_commit, catalog);
	*ret = take_ptr(catalog);
	return 0;
}

int nodes_take(struct catalog *catalog, uint64_t count, uint64_t *ret, struct error *err)
{
	int64_t next;
	int r = sql_value(catalog->db, &next, err,
			  "UPDATE meta SET value = value + ?1 WHERE key = 'next_node'"
			  " RETURNING value - ?1",
			  "i", (int64_t)count);

	if (r < 0)
		return r;
	if (r == 0 || next < FIRST_FREE_NODE)
		return error_set(err, -EBADMSG, "the catalog has lost its node counter");
	*ret = (uint64_t)next;
	return 0;
}

int catalog_reserve(struct catalog *catalog, uint64_t nodes, uint64_t *ret_pack,
		    uint64_t *ret_first_node, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(transaction_end) struct transaction tx = {0};
	uint64_t first = 0;
	int64_t pack = 0;
	int r = transaction_begin(catalog, &tx, err);

	if (r == 0)
		r = nodes_take(catalog, nodes, &first, err);
	if (r == 0)
		r = sql_value(catalog->db, &pack, err,
			      "UPDATE meta SET value = value + 1 WHERE key = 'next_pack'"
			      " RETURNING value - 1",
			      "");
	if (r == 0)
		return error_set(err, -EBADMSG, "the catalog has lost its pack counter");
	if (r > 0)
		r = transaction_commit(&tx, err);
	if (r < 0)
		return r;
	*ret_pack = (uint64_t)pack;
	*ret_first_node = first;
	return 0;
}

int app_find(struct catalog *catalog, const char *name, struct app_row *ret,
	     struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r = sql_query(catalog->db, &row, err,
			  "SELECT id, node FROM app WHERE name = ?1", "t", name);

	if (r == 0)
		r = sql_step_row(row, err);
	if (r < 0)
		return r;
	if (r == 0)
		return error_set(err, -ENOENT,
				 "there is no application '%s' here: fetch or import a "
				 "version of it first",
				 name);
	*ret = (struct app_row){.id = sqlite3_column_int64(row, 0),
				.node = (uint64_t)sqlite3_column_int64(row, 1)};
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	return 0;
}

int app_make(struct catalog *catalog, const char *name, int64_t now_ns,
	     struct app_row *ret, struct change_list *changes, struct error *err)
{
	struct change *change;
	int r = app_find(catalog, name, ret, NULL);

	if (r != -ENOENT)
		return r < 0 ? sql_fail(catalog->db, "cannot read the catalog", err) : 0;
	r = nodes_take(catalog, 1, &ret->node, err);
	if (r == 0)
		r = sql_run(catalog->db, err,
			    "INSERT INTO app(name, node, made_ns, changed_ns)"
			    " VALUES(?1, ?2, ?3, ?3)",
			    "tii", name, (int64_t)ret->node, now_ns);
	if (r < 0)
		return r;
	ret->id = sqlite3_last_insert_rowid(catalog->db);
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	change = change_add(changes, CHANGE_APP);
	if (!change)
		return error_set(err, -ENOMEM, "not enough memory");
	memcpy(change->app, ret->name, sizeof(change->app));
	change->app_node = ret->node;
	change->time_ns = change->app_time_ns = now_ns;
	return 0;
}

static void version_read(sqlite3_stmt *row, struct version *ret)
{
	const void *sha256 = sqlite3_column_blob(row, 5);

	*ret = (struct version){
		.id = sqlite3_column_int64(row, 0),
		.state = (enum version_state)sqlite3_column_int(row, 3),
		.pack = (uint64_t)sqlite3_column_int64(row, 4),
		.package_bytes = (uint64_t)sqlite3_column_int64(row, 6),
		.unpacked_bytes = (uint64_t)sqlite3_column_int64(row, 7),
		.stored_bytes = (uint64_t)sqlite3_column_int64(row, 8),
		.files = (uint64_t)sqlite3_column_int64(row, 9),
		.imported_ns = sqlite3_column_int64(row, 13),
		.pinned = sqlite3_column_int(row, 14),
		.bad = sqlite3_column_int(row, 15),
		.first_node = (uint64_t)sqlite3_column_int64(row, 17),
		.node_count = (uint32_t)sqlite3_column_int64(row, 18),
	};
	sql_text(row, 19, ret->damage, sizeof(ret->damage));
	sql_text(row, 1, ret->app, sizeof(ret->app));
	sql_text(row, 2, ret->name, sizeof(ret->name));
	sql_text(row, 10, ret->verified, sizeof(ret->verified));
	sql_text(row, 11, ret->origin, sizeof(ret->origin));
	sql_text(row, 12, ret->imported_by, sizeof(ret->imported_by));
	sql_text(row, 16, ret->bad_reason, sizeof(ret->bad_reason));
	if (sha256 && sqlite3_column_bytes(row, 5) == SHA256_SIZE)
		memcpy(ret->sha256, sha256, SHA256_SIZE);
}

/* 1 with *@ret filled; 0 when there is no such version; a negative errno. */
static int version_find(struct catalog *catalog, const char *app, const char *name,
			struct version *ret, struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r = sql_query(catalog->db, &row, err,
			  VERSION_COLUMNS "WHERE app.name = ?1 AND version.name = ?2",
			  "tt", app, name);

	if (r == 0)
		r = sql_step_row(row, err);
	if (r > 0)
		version_read(row, ret);
	return r;
}

int catalog_find_app(struct catalog *catalog, const char *app, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	struct app_row row;

	return app_find(catalog, app, &row, err);
}

/* Why there is no such version, for somebody who may have meant a channel. */
static int version_unknown(struct catalog *catalog, const char *app, const char *version,
			   struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r = sql_query(catalog->db, &row, err,
			  "SELECT version.name FROM channel"
			  " JOIN app ON app.id = channel.app"
			  " JOIN version ON version.id = channel.version"
			  " WHERE app.name = ?1 AND channel.name = ?2",
			  "tt", app, version);

	if (r == 0)
		r = sql_step_row(row, err);
	if (r < 0)
		return r;
	if (r > 0)
		return error_set(
			err, -ENOENT,
			"'%s' is a channel of '%s' and points at '%s': name that "
			"version",
			version, app, (const char *)sqlite3_column_text(row, 0));
	return error_set(
		err, -ENOENT,
		"'%s' has no version '%s' here: 'deployctl list %s' shows which, "
		"'deployctl fetch %s %s' gets it",
		app, version, app, app, version);
}

int catalog_find(struct catalog *catalog, const char *app, const char *version,
		 struct version *ret, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	struct app_row row;
	int r = app_find(catalog, app, &row, err);

	if (r == 0)
		r = version_find(catalog, app, version, ret, err);
	if (r == 0)
		return version_unknown(catalog, app, version, err);
	return r < 0 ? r : 0;
}

int version_find_present(struct catalog *catalog, const char *app, const char *name,
			 struct version *ret, struct error *err)
{
	int r = catalog_find(catalog, app, name, ret, err);

	if (r == 0 && ret->state != VERSION_PRESENT)
		return error_set(err, -ENOENT,
				 "version '%s' of '%s' was removed: "
				 "'deployctl fetch %s %s' gets it again",
				 name, app, app, name);
	return r;
}

static int check_name(struct catalog *catalog, const char *app, const char *version,
		      struct error *err)
{
	int64_t there;
	int r;

	if (!strcmp(version, CHANNEL_DEFAULT) || !strcmp(version, CHANNEL_PREVIOUS))
		return error_set(err, -EINVAL,
				 "a version cannot be called '%s': that is a channel",
				 version);
	r = sql_value(catalog->db, &there, err,
		      "SELECT 1 FROM channel JOIN app ON app.id = channel.app"
		      " WHERE app.name = ?1 AND channel.name = ?2",
		      "tt", app, version);
	if (r > 0)
		return error_set(err, -EINVAL,
				 "a version cannot be called '%s': '%s' has a channel of "
				 "that name",
				 version, app);
	return r;
}

static int version_show(struct catalog *catalog, const struct version *version,
			int64_t now_ns, struct change_list *changes, struct error *err)
{
	struct app_row app;
	struct change *change;
	int r = app_find(catalog, version->app, &app, err);

	if (r < 0)
		return r;
	change = change_add(changes, CHANGE_VERSION);
	if (!change)
		return error_set(err, -ENOMEM, "not enough memory");
	memcpy(change->app, version->app, sizeof(change->app));
	memcpy(change->name, version->name, sizeof(change->name));
	change->app_node = app.node;
	change->node = version_root(version);
	change->pack = version->pack;
	change->time_ns = change->app_time_ns = now_ns;
	return settle(catalog, &app, now_ns, changes, err);
}

/* What is known under the name already: 0 nothing that matters; 1 hidden with this
 * content; -EALREADY, -EEXIST as promised in the header. */
static int compare_known(struct catalog *catalog, const char *app, const char *name,
			 const unsigned char *sha256, struct version *ret,
			 struct error *err)
{
	char text[SHA256_TEXT_SIZE];
	int r = version_find(catalog, app, name, ret, err);

	if (r <= 0)
		return r;
	if (!sha256 && ret->state != VERSION_PRESENT)
		return 0;
	if (sha256 && memcmp(sha256, ret->sha256, SHA256_SIZE))
		return error_set(
			err, -EEXIST,
			"version '%s' of '%s' is known with other content (sha256 "
			"%s): a version never changes, publish a new one",
			name, app, sha256_format(ret->sha256, text));
	if (ret->state == VERSION_PRESENT)
		return error_set(err, -EALREADY, "'%s' %s is here already", app, name);
	return ret->state == VERSION_REMOVING;
}

static int unhide(struct catalog *catalog, const struct version *version,
		  struct change_list *changes, struct error *err)
{
	cleanup(transaction_end) struct transaction tx = {0};
	int r = transaction_begin(catalog, &tx, err);

	if (r == 0)
		r = sql_run(catalog->db, err,
			    "UPDATE version SET state = ?2 WHERE id = ?1", "ii",
			    version->id, (int64_t)VERSION_PRESENT);
	if (r == 0)
		r = version_show(catalog, version, clock_wall_ns(), changes, err);
	if (r == 0)
		r = transaction_commit(&tx, err);
	return r;
}

int catalog_check_new(struct catalog *catalog, const char *app, const char *version,
		      const unsigned char *sha256, struct change_list *changes,
		      struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	struct version known;
	int r = check_name(catalog, app, version, err);

	if (r == 0)
		r = compare_known(catalog, app, version, sha256, &known, err);
	return r > 0 ? unhide(catalog, &known, changes, err) : r;
}

int pack_insert(struct catalog *catalog, const struct pack_key *key, uint64_t pack_bytes,
		const uint64_t *deps, size_t dep_count, struct error *err)
{
	int r = sql_run(catalog->db, err,
			"INSERT INTO pack(id, first_node, node_count, dir_count, bytes)"
			" VALUES(?1, ?2, ?3, ?4, ?5)",
			"iiiii", (int64_t)key->id, (int64_t)key->first_node,
			(int64_t)key->node_count, (int64_t)key->dir_count,
			(int64_t)pack_bytes);

	for (size_t i = 0; r == 0 && i < dep_count; i++)
		r = sql_run(catalog->db, err, "INSERT INTO dep VALUES(?1, ?2)", "ii",
			    (int64_t)key->id, (int64_t)deps[i]);
	return r;
}

int version_insert(struct catalog *catalog, const struct app_row *app,
		   const struct version *version, struct error *err)
{
	return sql_run(
		catalog->db, err,
		"INSERT INTO version(app, name, state, pack, sha256, package_bytes,"
		" unpacked_bytes, stored_bytes, files, verified, origin, imported_by,"
		" imported_ns)"
		" VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)"
		" ON CONFLICT(app, name) DO UPDATE SET state = excluded.state,"
		" pack = excluded.pack, unpacked_bytes = excluded.unpacked_bytes,"
		" stored_bytes = excluded.stored_bytes, files = excluded.files,"
		" verified = excluded.verified, origin = excluded.origin,"
		" imported_by = excluded.imported_by, imported_ns = excluded.imported_ns",
		"itiisiiiittti", app->id, version->name, (int64_t)VERSION_PRESENT,
		(int64_t)version->pack, version->sha256, (int64_t)version->package_bytes,
		(int64_t)version->unpacked_bytes, (int64_t)version->stored_bytes,
		(int64_t)version->files, version->verified, version->origin,
		version->imported_by, version->imported_ns);
}

int catalog_add_version(struct catalog *catalog, const struct version *version,
			const struct pack_key *key, uint64_t pack_bytes,
			const uint64_t *deps, size_t dep_count,
			struct change_list *changes, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(transaction_end) struct transaction tx = {0};
	int64_t now_ns = clock_wall_ns();
	struct version known;
	struct app_row app;
	int r = catalog_check_new(catalog, version->app, version->name, version->sha256,
				  changes, err);

	/* Shown again from its hiding: the new pack is not needed. */
	if (r < 0 || changes->count > 0)
		return r;
	r = transaction_begin(catalog, &tx, err);
	if (r == 0)
		r = compare_known(catalog, version->app, version->name, version->sha256,
				  &known, err);
	if (r == 0)
		r = app_make(catalog, version->app, now_ns, &app, changes, err);
	if (r == 0)
		r = pack_insert(catalog, key, pack_bytes, deps, dep_count, err);
	if (r == 0)
		r = version_insert(catalog, &app, version, err);
	if (r == 0)
		r = version_show(catalog, version, now_ns, changes, err);
	if (r == 0)
		r = transaction_commit(&tx, err);
	return r;
}

int catalog_pin(struct catalog *catalog, const char *app, const char *version,
		bool pinned, const char *key, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(transaction_end) struct transaction tx = {0};
	const char *verb = pinned ? "pin" : "unpin";
	struct version known;
	struct app_row row;
	int r = transaction_begin(catalog, &tx, err);

	if (r == 0)
		r = request_repeats(catalog, key, verb, app, version, err);
	if (r != 0)
		return r;
	r = version_find_present(catalog, app, version, &known, err);
	if (r < 0 || known.pinned == pinned)
		return r;
	r = app_find(catalog, app, &row, err);
	if (r == 0)
		r = sql_run(catalog->db, err,
			    "UPDATE version SET pinned = ?2 WHERE id = ?1", "ii",
			    known.id, (int64_t)pinned);
	if (r == 0)
		r = request_add(catalog, key, row.id, "", known.id, verb, err);
	if (r == 0)
		r = transaction_commit(&tx, err);
	return r < 0 ? r : 1;
}

static int check_unused(struct catalog *catalog, const struct version *version,
			struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r;

	if (version->pinned)
		return error_set(
			err, -EBUSY,
			"version '%s' of '%s' is pinned: 'deployctl unpin %s %s' lets it go",
			version->name, version->app, version->app, version->name);
	r = sql_query(catalog->db, &row, err,
		      "SELECT name FROM channel WHERE version = ?1"
		      " ORDER BY name = 'current' DESC LIMIT 1",
		      "i", version->id);
	if (r == 0)
		r = sql_step_row(row, err);
	if (r > 0)
		return error_set(err, -EBUSY,
				 "version '%s' of '%s' is what '%s' points at: flip to "
				 "another first",
				 version->name, version->app,
				 (const char *)sqlite3_column_text(row, 0));
	return r;
}

int catalog_hide(struct catalog *catalog, const char *app, const char *version,
		 const char *key, struct change_list *changes, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(transaction_end) struct transaction tx = {0};
	int64_t now_ns = clock_wall_ns();
	struct version known;
	struct app_row row;
	struct change *change;
	int r = transaction_begin(catalog, &tx, err);

	if (r == 0)
		r = request_repeats(catalog, key, "remove", app, version, err);
	if (r != 0)
		return r < 0 ? r : 0;
	r = version_find_present(catalog, app, version, &known, err);
	if (r == 0)
		r = check_unused(catalog, &known, err);
	if (r == 0)
		r = app_find(catalog, app, &row, err);
	if (r == 0)
		r = sql_run(catalog->db, err,
			    "UPDATE version SET state = ?2 WHERE id = ?1", "ii", known.id,
			    (int64_t)VERSION_REMOVING);
	if (r < 0)
		return r;
	change = change_add(changes, CHANGE_VERSION_GONE);
	if (!change)
		return error_set(err, -ENOMEM, "not enough memory");
	memcpy(change->app, known.app, sizeof(change->app));
	memcpy(change->name, known.name, sizeof(change->name));
	change->app_node = row.node;
	change->node = version_root(&known);
	change->pack = known.pack;
	change->time_ns = change->app_time_ns = now_ns;
	r = settle(catalog, &row, now_ns, changes, err);
	if (r == 0)
		r = request_add(catalog, key, row.id, "", known.id, "remove", err);
	if (r == 0)
		r = transaction_commit(&tx, err);
	return r;
}

int catalog_forget(struct catalog *catalog, int64_t version_id, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(transaction_end) struct transaction tx = {0};
	int r = transaction_begin(catalog, &tx, err);

	if (r == 0)
		r = sql_run(catalog->db, err,
			    "UPDATE pack SET dirty = 1 WHERE id ="
			    " (SELECT pack FROM version WHERE id = ?1 AND state = ?2)",
			    "ii", version_id, (int64_t)VERSION_REMOVING);
	if (r == 0)
		r = sql_run(
			catalog->db, err,
			"UPDATE pack SET dirty = 1 WHERE id IN (SELECT needs FROM dep"
			" JOIN version ON version.pack = dep.pack WHERE version.id = ?1)"
			" AND NOT EXISTS (SELECT 1 FROM version"
			" WHERE version.pack = pack.id AND version.id <> ?1)",
			"i", version_id);
	if (r == 0)
		r = sql_run(catalog->db, err,
			    "UPDATE version SET state = ?2, pack = NULL, stored_bytes = 0"
			    " WHERE id = ?1 AND state = ?3",
			    "iii", version_id, (int64_t)VERSION_REMOVED,
			    (int64_t)VERSION_REMOVING);
	if (r == 0)
		r = transaction_commit(&tx, err);
	return r;
}

void ghosts_free(struct ghost *ghosts, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(ghosts[i].dependents);
	free(ghosts);
}

/* A growing array of ids. */
static int ids_read(struct catalog *catalog, sqlite3_stmt *rows, uint64_t **ret,
		    size_t *ret_count, struct error *err)
{
	cleanup(free_ptr) uint64_t *ids = NULL;
	size_t count = 0, room = 0;
	int r;

	while ((r = sql_step_row(rows, err)) > 0) {
		if (count == room) {
			uint64_t *larger;

			room = room ? room * 2 : 16;
			larger = realloc(ids, room * sizeof(*ids));
			if (!larger)
				return error_set(err, -ENOMEM, "not enough memory");
			ids = larger;
		}
		ids[count++] = (uint64_t)sqlite3_column_int64(rows, 0);
	}
	if (r < 0)
		return r;
	*ret = take_ptr(ids);
	*ret_count = count;
	return 0;
}

static int ghost_read(struct catalog *catalog, uint64_t id, struct ghost *ret,
		      struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL, *rows = NULL;
	int r = sql_query(catalog->db, &row, err,
			  "SELECT first_node, node_count, dir_count, dirty FROM pack"
			  " WHERE id = ?1",
			  "i", (int64_t)id);

	if (r == 0)
		r = sql_step_row(row, err);
	if (r <= 0)
		return r < 0 ? r
			     : error_set(err, -EIO, "pack %llu is gone",
					 (unsigned long long)id);
	ret->key = (struct pack_key){
		.id = id,
		.first_node = (uint64_t)sqlite3_column_int64(row, 0),
		.node_count = (uint32_t)sqlite3_column_int64(row, 1),
		.dir_count = (uint32_t)sqlite3_column_int64(row, 2),
	};
	ret->dirty = sqlite3_column_int(row, 3);
	r = sql_query(catalog->db, &rows, err, "SELECT pack FROM dep WHERE needs = ?1",
		      "i", (int64_t)id);
	if (r == 0)
		r = ids_read(catalog, rows, &ret->dependents, &ret->dependent_count, err);
	return r;
}

int catalog_is_ghost(struct catalog *catalog, uint64_t pack, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	int64_t version;
	int r = sql_value(catalog->db, &version, err,
			  "SELECT id FROM version WHERE pack = ?1", "i", (int64_t)pack);

	return r < 0 ? r : !r;
}

int catalog_any_dirty(struct catalog *catalog, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	int64_t pack;

	/* As the index pack_todo has it. */
	return sql_value(catalog->db, &pack, err,
			 "SELECT id FROM pack WHERE (dirty OR NOT indexed) AND dirty"
			 " LIMIT 1",
			 "");
}

int catalog_ghosts(struct catalog *catalog, struct ghost **ret, size_t *ret_count,
		   struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(sql_finalize_ptr) sqlite3_stmt *rows = NULL;
	cleanup(free_ptr) uint64_t *ids = NULL;
	struct ghost *ghosts;
	size_t count;
	int r = sql_query(catalog->db, &rows, err,
			  "SELECT id FROM pack WHERE id NOT IN"
			  " (SELECT pack FROM version WHERE pack IS NOT NULL)"
			  " ORDER BY id DESC",
			  "");

	if (r == 0)
		r = ids_read(catalog, rows, &ids, &count, err);
	if (r < 0)
		return r;
	ghosts = calloc(count + 1, sizeof(*ghosts));
	if (!ghosts)
		return error_set(err, -ENOMEM, "not enough memory");
	for (size_t i = 0; i < count; i++) {
		r = ghost_read(catalog, ids[i], &ghosts[i], err);
		if (r < 0) {
			ghosts_free(ghosts, count);
			return r;
		}
	}
	*ret = ghosts;
	*ret_count = count;
	return 0;
}

static int deps_set_dirty(struct catalog *catalog, uint64_t pack, struct error *err)
{
	return sql_run(catalog->db, err,
		       "UPDATE pack SET dirty = 1 WHERE id IN"
		       " (SELECT needs FROM dep WHERE pack = ?1)",
		       "i", (int64_t)pack);
}

int catalog_ghost_swept(struct catalog *catalog, uint64_t pack, uint64_t bytes,
			struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(transaction_end) struct transaction tx = {0};
	int r = transaction_begin(catalog, &tx, err);

	if (r == 0)
		r = sql_run(catalog->db, err,
			    "UPDATE pack SET dirty = 0, bytes = ?2 WHERE id = ?1", "ii",
			    (int64_t)pack, (int64_t)bytes);
	if (r == 0)
		r = deps_set_dirty(catalog, pack, err);
	if (r == 0)
		r = transaction_commit(&tx, err);
	return r;
}

int catalog_drop_pack(struct catalog *catalog, uint64_t pack, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(transaction_end) struct transaction tx = {0};
	int r = transaction_begin(catalog, &tx, err);

	if (r == 0)
		r = deps_set_dirty(catalog, pack, err);
	if (r == 0)
		r = sql_run(catalog->db, err, "DELETE FROM dep WHERE pack = ?1", "i",
			    (int64_t)pack);
	if (r == 0)
		r = sql_run(catalog->db, err, "DELETE FROM pack WHERE id = ?1", "i",
			    (int64_t)pack);
	if (r == 0)
		r = transaction_commit(&tx, err);
	return r;
}

int catalog_set_indexed(struct catalog *catalog, uint64_t pack, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	return sql_run(catalog->db, err, "UPDATE pack SET indexed = 1 WHERE id = ?1", "i",
		       (int64_t)pack);
}

int catalog_unindex_all(struct catalog *catalog, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	return sql_run(catalog->db, err, "UPDATE pack SET indexed = 0", "");
}

int catalog_unindexed(struct catalog *catalog, uint64_t **ret, size_t *ret_count,
		      struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(sql_finalize_ptr) sqlite3_stmt *rows = NULL;
	int r = sql_query(catalog->db, &rows, err,
			  "SELECT id FROM pack WHERE NOT indexed ORDER BY id", "");

	return r < 0 ? r : ids_read(catalog, rows, ret, ret_count, err);
}

int catalog_next_pack(struct catalog *catalog, uint64_t behind, uint64_t *ret,
		      struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	int64_t id = 0;
	int r = sql_value(catalog->db, &id, err,
			  "SELECT id FROM pack WHERE id > ?1 ORDER BY id LIMIT 1", "i",
			  (int64_t)behind);

	if (r < 0)
		return r;
	*ret = (uint64_t)id;
	return 0;
}

int catalog_each_pack(struct catalog *catalog,
		      int (*each)(void *context, const struct pack_key *key),
		      void *context, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r = sql_query(catalog->db, &row, err,
			  "SELECT id, first_node, node_count, dir_count FROM pack"
			  " ORDER BY id",
			  "");

	while (r == 0 && (r = sql_step_row(row, err)) > 0) {
		struct pack_key key = {
			.id = (uint64_t)sqlite3_column_int64(row, 0),
			.first_node = (uint64_t)sqlite3_column_int64(row, 1),
			.node_count = (uint32_t)sqlite3_column_int64(row, 2),
			.dir_count = (uint32_t)sqlite3_column_int64(row, 3),
		};

		r = each(context, &key);
	}
	return r;
}

static int each_version(sqlite3_stmt *row,
			int (*each)(void *context, const struct version *version),
			void *context, struct error *err)
{
	int r = 0;

	while (r == 0 && (r = sql_step_row(row, err)) > 0) {
		struct version version;

		version_read(row, &version);
		r = each(context, &version);
	}
	return r;
}

int catalog_each_version(struct catalog *catalog, const char *app,
			 int (*each)(void *context, const struct version *version),
			 void *context, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r = app ? sql_query(catalog->db, &row, err,
				VERSION_COLUMNS
				"WHERE app.name = ?1 AND version.state <> ?2",
				"ti", app, (int64_t)VERSION_REMOVED)
		    : sql_query(catalog->db, &row, err,
				VERSION_COLUMNS
				"WHERE version.state <> ?1 ORDER BY app.name",
				"i", (int64_t)VERSION_REMOVED);

	return r < 0 ? r : each_version(row, each, context, err);
}

int catalog_each_removing(struct catalog *catalog,
			  int (*each)(void *context, const struct version *version),
			  void *context, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r = sql_query(catalog->db, &row, err,
			  VERSION_COLUMNS "WHERE version.state = ?1", "i",
			  (int64_t)VERSION_REMOVING);

	return r < 0 ? r : each_version(row, each, context, err);
}

int catalog_each_app(struct catalog *catalog,
		     int (*each)(void *context, const char *name), void *context,
		     struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r = sql_query(catalog->db, &row, err, "SELECT name FROM app ORDER BY name",
			  "");

	while (r == 0 && (r = sql_step_row(row, err)) > 0)
		r = each(context, (const char *)sqlite3_column_text(row, 0));
	return r;
}

int catalog_app_names(struct catalog *catalog, char (**ret)[NAME_LENGTH_MAX + 1],
		      size_t *ret_count, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	cleanup(free_ptr) char(*names)[NAME_LENGTH_MAX + 1] = NULL;
	int64_t count = 0;
	size_t n = 0;
	int r = sql_integer(catalog->db, "SELECT count(*) FROM app", &count, err);

	if (r == 0)
		r = sql_query(catalog->db, &row, err,
			      "SELECT name FROM app ORDER BY name", "");
	if (r < 0)
		return r;
	names = calloc((size_t)count + 1, sizeof(*names));
	if (!names)
		return error_set(err, -ENOMEM, "not enough memory");
	while (n < (size_t)count && (r = sql_step_row(row, err)) > 0)
		sql_text(row, 0, names[n++], sizeof(*names));
	if (r < 0)
		return r;
	*ret = take_ptr(names);
	*ret_count = n;
	return 0;
}

bool catalog_has_package(struct catalog *catalog, const char *name, size_t size)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(free_ptr) char *text = strndup(name, size);
	int64_t there = 0;

	return text && sql_value(catalog->db, &there, NULL,
				 "SELECT 1 FROM version JOIN app ON app.id = version.app"
				 " WHERE app.name || '-' || version.name = ?1"
				 " AND version.state = ?2",
				 "ti", text, (int64_t)VERSION_PRESENT) > 0;
}

int catalog_bytes(struct catalog *catalog, uint64_t *ret, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	int64_t bytes = 0;
	int r = sql_value(catalog->db, &bytes, err,
			  "SELECT coalesce(sum(bytes), 0) FROM pack", "");

	if (r < 0)
		return r;
	*ret = (uint64_t)bytes;
	return 0;
}

int catalog_bad_versions(struct catalog *catalog, const char *app, char ***ret,
			 struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	size_t count = 0, room = 1024;
	char **names = calloc(1, room * (sizeof(char *) + NAME_LENGTH_MAX + 1));
	int r;

	if (!names)
		return error_set(err, -ENOMEM, "not enough memory");
	r = sql_query(
		catalog->db, &row, err,
		"SELECT version.name FROM version JOIN app ON app.id = version.app"
		" WHERE app.name = ?1 AND version.bad ORDER BY version.id DESC LIMIT ?2",
		"ti", app, (int64_t)room - 1);
	while (r == 0 && (r = sql_step_row(row, err)) > 0) {
		char *name = (char *)(names + room) + count * (NAME_LENGTH_MAX + 1);

		sql_text(row, 0, name, NAME_LENGTH_MAX + 1);
		names[count++] = name;
		r = 0;
	}
	if (r < 0) {
		free(names);
		return r;
	}
	*ret = names;
	return 0;
}

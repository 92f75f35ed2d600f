/* SPDX-License-Identifier: Apache-2.0 */
/*
 * index.db (user_version 1), both tables keyed by hash and clustered:
 *
 *   object(content BLOB, pack INTEGER, object INTEGER)   content: pack_content_hash()
 *   node(identity BLOB, node INTEGER)                    identity: pack_identity_hash()
 */
#include "index.h"

#include "cleanup.h"
#include "sql.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define INDEX_VERSION 1
#define ROWS_A_COMMIT 4000

struct index {
	char *path;
	bool writable;
	bool damaged;
	sqlite3 *db; /* NULL: it could not be opened, and counts as empty */
	sqlite3_stmt *find_objects, *find_node;
};

/* One transaction: a kill between two of its statements would leave tables of version 0,
 * and no index could be opened after that. What lies in such a file is dropped. */
static const char schema[] =
	"BEGIN IMMEDIATE;"
	"DROP TABLE IF EXISTS object; DROP TABLE IF EXISTS node;"
	"CREATE TABLE object(content BLOB NOT NULL, pack INTEGER NOT NULL,"
	" object INTEGER NOT NULL, PRIMARY KEY(content, pack, object)) WITHOUT ROWID;"
	"CREATE TABLE node(identity BLOB NOT NULL, node INTEGER NOT NULL,"
	" PRIMARY KEY(identity, node)) WITHOUT ROWID;"
	"PRAGMA user_version = 1;"
	"COMMIT;";

static void db_close(struct index *index)
{
	sqlite3_finalize(index->find_objects);
	sqlite3_finalize(index->find_node);
	sqlite3_close(index->db);
	index->find_objects = index->find_node = NULL;
	index->db = NULL;
}

void index_close(struct index *index)
{
	if (!index)
		return;
	db_close(index);
	free(index->path);
	free(index);
}

DEFINE_CLEANUP(struct index, index_close)

static int schema_make(sqlite3 *db, bool writable, struct error *err)
{
	int64_t version;
	int r = sql_integer(db, "PRAGMA user_version", &version, err);

	if (r < 0 || version == INDEX_VERSION)
		return r;
	if (version != 0 || !writable)
		return error_set(err, -EBADMSG, "of version %lld", (long long)version);
	return sql_exec(db, schema, err);
}

static int db_open(struct index *index, struct error *err)
{
	/* The index can be made again: NORMAL, which loses the last commits in a power
	 * cut but never the database, is enough. index_add() makes its end durable. */
	int r = sql_open(
		index->path, index->writable,
		"PRAGMA synchronous = NORMAL; PRAGMA journal_size_limit = 4194304",
		&index->db, err);

	if (r == 0)
		r = schema_make(index->db, index->writable, err);
	if (r == 0)
		r = sql_prepare(index->db,
				"SELECT pack, object FROM object WHERE content = ?1"
				" ORDER BY pack DESC, object LIMIT ?2",
				&index->find_objects, err);
	if (r == 0)
		r = sql_prepare(index->db,
				"SELECT node FROM node WHERE identity = ?1 AND node > ?2"
				" ORDER BY node LIMIT 1",
				&index->find_node, err);
	if (r < 0)
		db_close(index);
	return r;
}

int index_open(const char *path, bool writable, struct index **ret, struct error *err)
{
	cleanup(index_close_ptr) struct index *index = calloc(1, sizeof(*index));
	int r;

	if (!index || !(index->path = strdup(path)))
		return error_set(err, -ENOMEM, "not enough memory");
	index->writable = writable;
	r = db_open(index, err);
	/* Nothing in it that the packs do not have. */
	if (r == -EBADMSG || r == -ENOSPC)
		r = writable ? index_renew(index, err) : 0;
	if (r < 0)
		return r;
	*ret = take_ptr(index);
	return 0;
}

int index_renew(struct index *index, struct error *err)
{
	int r;

	db_close(index);
	r = sql_remove(index->path);
	if (r < 0)
		return error_set(err, r, "cannot remove the damaged '%s': %s",
				 index->path, strerror(-r));
	index->damaged = false;
	db_open(index, NULL);
	return 0;
}

bool index_is_damaged(struct index *index)
{
	int64_t row;

	if (index->db &&
	    (sql_integer(index->db, "SELECT 1 FROM object LIMIT 1", &row, NULL) < 0 ||
	     sql_integer(index->db, "SELECT 1 FROM node LIMIT 1", &row, NULL) < 0))
		index->damaged = true;
	return index->damaged;
}

bool index_empty(struct index *index)
{
	int64_t row = 0;

	return !index->db ||
	       sql_integer(index->db, "SELECT EXISTS(SELECT 1 FROM object)", &row, NULL) <
		       0 ||
	       !row;
}

void index_hold(struct index *index)
{
	if (index->db)
		sql_exec(index->db, "BEGIN", NULL);
}

void index_release(struct index *index)
{
	if (index->db && !sqlite3_get_autocommit(index->db))
		sql_exec(index->db, "COMMIT", NULL);
}

int index_find_objects(struct index *index, const struct checksum *content, size_t max,
		       struct index_object *ret)
{
	sqlite3_stmt *statement = index->find_objects;
	int count = 0, rc;

	if (!index->db)
		return 0;
	sqlite3_bind_blob(statement, 1, content->bytes, sizeof(content->bytes),
			  SQLITE_STATIC);
	sqlite3_bind_int64(statement, 2, (sqlite3_int64)max);
	while ((rc = sqlite3_step(statement)) == SQLITE_ROW && (size_t)count < max) {
		ret[count].pack = (uint64_t)sqlite3_column_int64(statement, 0);
		ret[count].object = (uint32_t)sqlite3_column_int64(statement, 1);
		count++;
	}
	sqlite3_reset(statement);
	return rc == SQLITE_DONE || rc == SQLITE_ROW ? count : -EIO;
}

int index_find_node(struct index *index, const struct checksum *identity, uint64_t after,
		    uint64_t *ret)
{
	sqlite3_stmt *statement = index->find_node;
	int rc;

	if (!index->db)
		return 0;
	sqlite3_bind_blob(statement, 1, identity->bytes, sizeof(identity->bytes),
			  SQLITE_STATIC);
	sqlite3_bind_int64(statement, 2, (sqlite3_int64)after);
	rc = sqlite3_step(statement);
	if (rc == SQLITE_ROW)
		*ret = (uint64_t)sqlite3_column_int64(statement, 0);
	sqlite3_reset(statement);
	return rc == SQLITE_ROW ? 1 : rc == SQLITE_DONE ? 0 : -EIO;
}

static struct checksum object_content(const struct pack *pack, uint32_t object)
{
	const struct pack_object *record = &pack->meta.objects[object];

	return pack_content_hash(pack->meta.checks + record->check_first,
				 pack_checks_of(record->size));
}

/* The identity of node @node; false when its content cannot be looked up. */
static bool node_identity(const struct pack *pack, uint32_t node, struct checksum *ret)
{
	const struct pack *holder;
	struct checksum content;
	uint32_t object;

	if (pack_node_object(pack, node, &holder, &object) < 0)
		return false;
	content = object_content(holder, object);
	*ret = pack_identity_hash(&content, holder->meta.objects[object].size,
				  &pack->meta.nodes[node]);
	return true;
}

/* Rows of one table, entered in the order of their keys: so each page of the database is
 * changed in one commit and written once, whatever the number of commits. */
struct row {
	struct checksum hash;
	uint32_t number; /* of the object or node in its pack */
};

struct bulk {
	struct row *rows;
	uint32_t count;
};

static int row_compare(const void *left, const void *right)
{
	const struct row *a = left, *b = right;
	int order = memcmp(&a->hash, &b->hash, sizeof(a->hash));

	return order ? order : (a->number > b->number) - (a->number < b->number);
}

static void bulk_done(struct bulk *bulk)
{
	free(bulk->rows);
}

/* Run @statement for each row: ?1 its hash, ?2 @base, ?3 its number. Committed now and
 * then. */
static int bulk_step(sqlite3 *db, sqlite3_stmt *statement, const struct bulk *bulk,
		     uint64_t base, struct error *err)
{
	int r = 0;

	sqlite3_bind_int64(statement, 2, (sqlite3_int64)base);

	for (uint32_t i = 0; r == 0 && i < bulk->count; i++) {
		const struct row *row = &bulk->rows[i];

		sqlite3_bind_blob(statement, 1, row->hash.bytes, sizeof(row->hash.bytes),
				  SQLITE_STATIC);
		sqlite3_bind_int64(statement, 3, row->number);
		r = sql_step_done(statement, err);
		if (r == 0 && (i + 1) % ROWS_A_COMMIT == 0)
			r = sql_exec(db, "COMMIT; BEGIN IMMEDIATE", err);
	}
	return r;
}

static int bulk_objects(struct bulk *bulk, const struct pack *pack, const bool *leave)
{
	bulk->rows = calloc(pack->meta.object_count + 1ULL, sizeof(*bulk->rows));
	if (!bulk->rows)
		return -ENOMEM;
	for (uint32_t i = 0; i < pack->meta.object_count; i++)
		if (!leave || !leave[i])
			bulk->rows[bulk->count++] =
				(struct row){object_content(pack, i), i};
	return 0;
}

static int bulk_nodes(struct bulk *bulk, const struct pack *pack, const bool *leave)
{
	struct checksum identity;

	bulk->rows = calloc(pack->meta.node_count + 1ULL, sizeof(*bulk->rows));
	if (!bulk->rows)
		return -ENOMEM;
	for (uint32_t i = 0; i < pack->meta.node_count; i++)
		if ((!leave || !leave[i]) && node_identity(pack, i, &identity))
			bulk->rows[bulk->count++] = (struct row){identity, i};
	return 0;
}

typedef int bulk_fn(struct bulk *bulk, const struct pack *pack, const bool *leave);

static int bulk_run(struct index *index, const char *text, uint64_t base,
		    bulk_fn *collect, const struct pack *pack, const bool *leave,
		    struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *statement = NULL;
	cleanup(bulk_done) struct bulk bulk = {0};
	int r;

	if (collect(&bulk, pack, leave) < 0)
		return error_set(err, -ENOMEM, "not enough memory");
	qsort(bulk.rows, bulk.count, sizeof(*bulk.rows), row_compare);
	r = sql_prepare(index->db, text, &statement, err);
	if (r == 0)
		r = sql_exec(index->db, "BEGIN IMMEDIATE", err);
	if (r == 0) {
		r = bulk_step(index->db, statement, &bulk, base, err);
		if (r == 0)
			r = sql_exec(index->db, "COMMIT", err);
		else
			sql_exec(index->db, "ROLLBACK", NULL);
	}
	index->damaged |= r == -EBADMSG;
	return r;
}

int index_add(struct index *index, const struct pack *pack, struct error *err)
{
	int r = index->db ? 0 : db_open(index, err);

	if (r == 0)
		r = bulk_run(index, "INSERT OR IGNORE INTO object VALUES(?1, ?2, ?3)",
			     pack->key.id, bulk_objects, pack, NULL, err);

	if (r == 0)
		r = bulk_run(index, "INSERT OR IGNORE INTO node VALUES(?1, ?2 + ?3)",
			     pack->key.first_node, bulk_nodes, pack, NULL, err);
	if (r == 0)
		r = sql_exec(index->db, "PRAGMA wal_checkpoint(PASSIVE)", err);
	return r;
}

int index_remove(struct index *index, const struct pack *pack, const bool *object_live,
		 const bool *node_live, struct error *err)
{
	int r = 0;

	if (!index->db)
		return 0;
	r = bulk_run(index, "DELETE FROM node WHERE identity = ?1 AND node = ?2 + ?3",
		     pack->key.first_node, bulk_nodes, pack, node_live, err);
	if (r == 0)
		r = bulk_run(index,
			     "DELETE FROM object WHERE content = ?1 AND pack = ?2"
			     " AND object = ?3",
			     pack->key.id, bulk_objects, pack, object_live, err);
	if (r == 0)
		r = sql_exec(index->db, "PRAGMA wal_checkpoint(PASSIVE)", err);
	return r;
}

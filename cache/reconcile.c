/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps I2 over a rebuild: ids go on far behind all that can have been given out.
 *
 * A pack that the catalog does not know becomes a version by what its header says, unless
 * it is marked as retired or its name means other content. One that it knows without a
 * version has lost it, and stays a ghost.
 */
#include "reconcile.h"

#include "catalog_private.h"
#include "cleanup.h"
#include "clock.h"
#include "log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct pack_file *file_of(const struct pack_file *files, size_t count,
				       uint64_t id)
{
	size_t low = 0, high = count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (files[middle].id == id)
			return &files[middle];
		if (files[middle].id < id)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

/* Of a catalog whose rows contradict each other: what cannot be, goes; ids of links and
 * directories are not believed. */
static int distrust(struct catalog *catalog, struct error *err)
{
	return sql_exec(
		catalog->db,
		"DELETE FROM version WHERE app NOT IN (SELECT id FROM app)"
		" OR length(sha256) <> 32;"
		"UPDATE version SET pack = NULL WHERE pack NOT IN (SELECT id FROM pack)"
		" OR pack IN (SELECT pack FROM version GROUP BY pack HAVING count(*) > 1);"
		"UPDATE version SET state = 2, pack = NULL WHERE state NOT IN (0, 1)"
		" OR pack IS NULL;"
		"DELETE FROM channel WHERE app NOT IN (SELECT id FROM app) OR"
		" NOT EXISTS (SELECT 1 FROM version WHERE version.id = channel.version"
		"  AND version.app = channel.app);"
		"DELETE FROM generation WHERE NOT EXISTS (SELECT 1 FROM version WHERE"
		" version.id = to_version AND version.app = generation.app);"
		"UPDATE generation SET from_version = NULL WHERE (app, channel) IN"
		" (SELECT app, channel FROM (SELECT app, channel, from_version, lag(to_version)"
		"  OVER (PARTITION BY app, channel ORDER BY number) AS before FROM generation)"
		"  WHERE before IS NOT NULL AND from_version <> before);"
		"DELETE FROM leaf;"
		"INSERT OR IGNORE INTO meta VALUES('next_node', 16), ('next_pack', 1);"
		"UPDATE meta SET value = 16 WHERE typeof(value) <> 'integer' OR value < 0;",
		err);
}

static int version_lose(struct catalog *catalog, int64_t pack, struct error *err)
{
	int r = sql_run(catalog->db, err,
			"UPDATE version SET state = 2, pack = NULL, stored_bytes = 0"
			" WHERE pack = ?1",
			"i", pack);

	if (r == 0)
		r = sql_run(catalog->db, err, "UPDATE pack SET dirty = 1 WHERE id = ?1",
			    "i", pack);
	return r;
}

/* A version without a file that nothing keeps was removed since. One that a channel or a
 * pin keeps was not: it stays, to be seen as damaged. */
static int lose_missing(struct catalog *catalog, const struct pack_file *files,
			size_t count, struct reconciled *ret, struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *rows = NULL;
	int r = sql_query(catalog->db, &rows, err,
			  "SELECT pack FROM version WHERE pack IS NOT NULL AND NOT pinned"
			  " AND id NOT IN (SELECT version FROM channel)",
			  "");

	while (r == 0 && (r = sql_step_row(rows, err)) > 0) {
		int64_t pack = sqlite3_column_int64(rows, 0);

		r = 0;
		if (file_of(files, count, (uint64_t)pack))
			continue;
		r = version_lose(catalog, pack, err);
		ret->gone++;
	}
	return r;
}

/* Make the row of a pack say what its header says. 1: it was there; 0: it is new. */
static int pack_take(struct catalog *catalog, const struct pack_file *file,
		     struct error *err)
{
	struct pack_key key = {file->id, file->header.first_node, file->header.node_count,
			       file->header.dir_count};
	int64_t known;
	int r = sql_value(
		catalog->db, &known, err,
		"UPDATE pack SET first_node = ?2, node_count = ?3, dir_count = ?4"
		" WHERE id = ?1 RETURNING id",
		"iiii", (int64_t)key.id, (int64_t)key.first_node, (int64_t)key.node_count,
		(int64_t)key.dir_count);

	if (r != 0)
		return r;
	r = sql_run(catalog->db, err, "DELETE FROM dep WHERE pack = ?1", "i",
		    (int64_t)key.id);
	return r < 0 ? r
		     : pack_insert(catalog, &key, file->bytes, file->deps,
				   file->deps ? file->dep_count : 0, err);
}

/* The version of a pack: 1 the one that its header says; 0 none. Another one is lost. */
static int version_is(struct catalog *catalog, const struct pack_file *file,
		      struct error *err)
{
	int64_t same;
	int r = sql_value(
		catalog->db, &same, err,
		"SELECT app.name = ?2 AND version.name = ?3 AND sha256 = ?4"
		" FROM version JOIN app ON app.id = version.app WHERE pack = ?1",
		"itts", (int64_t)file->id, file->header.app, file->header.version,
		file->header.package_sha256);

	if (r <= 0 || same)
		return r;
	r = version_lose(catalog, (int64_t)file->id, err);
	return r < 0 ? r : -EAGAIN;
}

/* Whether a pack that the catalog does not know may be the version that it says.
 * @next_pack: what the catalog would have given out, so what it has not seen. */
static int may_be_version(struct catalog *catalog, const struct pack_file *file,
			  const struct app_row *app, int64_t next_pack, struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	const void *sum;
	int r = sql_query(catalog->db, &row, err,
			  "SELECT sha256, state, imported_ns FROM version"
			  " WHERE app = ?1 AND name = ?2",
			  "it", app->id, file->header.version);

	if (r == 0)
		r = sql_step_row(row, err);
	if (r <= 0)
		return r < 0 ? r : 1;
	sum = sqlite3_column_blob(row, 0);
	if (!sum || sqlite3_column_bytes(row, 0) != SHA256_SIZE ||
	    memcmp(sum, file->header.package_sha256, SHA256_SIZE))
		return 0;
	/* A removed one that was fetched again has a later pack than the one removed. */
	return sqlite3_column_int(row, 1) != VERSION_REMOVED ||
	       file->id >= (uint64_t)next_pack ||
	       sqlite3_column_int64(row, 2) < file->header.created_ns;
}

static struct version version_of(const struct pack_file *file)
{
	const struct pack_header *header = &file->header;
	struct version version = {
		.pack = file->id,
		.package_bytes = header->package_size,
		.unpacked_bytes = header->unpacked_bytes,
		.stored_bytes = file->bytes,
		.files = header->files,
		.imported_ns = header->created_ns,
	};

	memcpy(version.sha256, header->package_sha256, SHA256_SIZE);
	snprintf(version.name, sizeof(version.name), "%.*s", NAME_LENGTH_MAX,
		 header->version);
	snprintf(version.verified, sizeof(version.verified), "%s",
		 *header->verified ? header->verified : "off");
	snprintf(version.origin, sizeof(version.origin), "%s", header->origin);
	snprintf(version.imported_by, sizeof(version.imported_by), "%s",
		 header->imported_by);
	return version;
}

static int version_take(struct catalog *catalog, const struct pack_file *file,
			int64_t next_pack, struct reconciled *ret, struct error *err)
{
	cleanup(change_list_done) struct change_list changes = {0};
	struct version version = version_of(file);
	struct app_row app;
	int r = app_make(catalog, file->header.app, file->header.created_ns, &app,
			 &changes, err);

	if (r == 0)
		r = may_be_version(catalog, file, &app, next_pack, err);
	if (r == 0)
		return sql_run(catalog->db, err,
			       "UPDATE pack SET dirty = 1 WHERE id = ?1", "i",
			       (int64_t)file->id);
	/* The one that had the name has lost it to this later one of the same content. */
	if (r > 0)
		r = sql_run(catalog->db, err,
			    "UPDATE pack SET dirty = 1 WHERE id IN (SELECT pack FROM"
			    " version WHERE app = ?1 AND name = ?2)",
			    "it", app.id, version.name);
	if (r == 0)
		r = version_insert(catalog, &app, &version, err);
	ret->found += r == 0;
	return r;
}

static int file_take(struct catalog *catalog, const struct pack_file *file,
		     int64_t next_pack, struct reconciled *ret, struct error *err)
{
	int known = pack_take(catalog, file, err), r;

	if (known < 0)
		return known;
	if (pack_retired(&file->header))
		return version_lose(catalog, (int64_t)file->id, err);
	r = version_is(catalog, file, err);
	if (r == -EAGAIN)
		known = r = 0;
	if (r != 0 || known)
		return r < 0 ? r : 0;
	return version_take(catalog, file, next_pack, ret, err);
}

static int counters_raise(struct catalog *catalog, const struct pack_file *files,
			  size_t count, struct error *err)
{
	uint64_t node = 0, pack = 0;
	int r;

	for (size_t i = 0; i < count; i++) {
		const struct pack_header *header = &files[i].header;
		uint64_t end =
			header->first_node + header->node_count + header->dir_count;

		pack = files[i].id;
		if (files[i].known)
			node = end > node ? end : node;
		else
			node += 2 * PACK_ENTRIES_MAX; /* it may be the last one */
	}
	r = sql_run(
		catalog->db, err,
		"UPDATE meta SET value = ?2 + (SELECT max(node) FROM"
		" (SELECT value AS node FROM meta WHERE key = 'next_node'"
		"  UNION ALL SELECT ?1 UNION ALL SELECT max(node) + 1 FROM app"
		"  UNION ALL SELECT max(node) + 1 FROM leaf"
		"  UNION ALL SELECT max(first_node + node_count + dir_count) FROM pack))"
		" WHERE key = 'next_node'",
		"ii", (int64_t)node, (int64_t)RECONCILE_NODE_GAP);
	if (r == 0)
		r = sql_run(
			catalog->db, err,
			"UPDATE meta SET value = ?2 + (SELECT max(pack) FROM"
			" (SELECT value AS pack FROM meta WHERE key = 'next_pack'"
			"  UNION ALL SELECT ?1 + 1 UNION ALL SELECT max(id) + 1 FROM pack))"
			" WHERE key = 'next_pack'",
			"ii", (int64_t)pack, (int64_t)RECONCILE_PACK_GAP);
	return r;
}

static int apps_read(struct catalog *catalog, struct app_row **ret, size_t *ret_count,
		     struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	cleanup(free_ptr) struct app_row *apps = NULL;
	int64_t count = 0;
	size_t n = 0;
	int r = sql_integer(catalog->db, "SELECT count(*) FROM app", &count, err);

	if (r == 0)
		r = sql_query(catalog->db, &row, err, "SELECT id, name, node FROM app",
			      "");
	if (r < 0)
		return r;
	apps = calloc((size_t)count + 1, sizeof(*apps));
	if (!apps)
		return error_set(err, -ENOMEM, "not enough memory");
	while (n < (size_t)count && (r = sql_step_row(row, err)) > 0) {
		apps[n].id = sqlite3_column_int64(row, 0);
		sql_text(row, 1, apps[n].name, sizeof(apps[n].name));
		apps[n++].node = (uint64_t)sqlite3_column_int64(row, 2);
	}
	if (r < 0)
		return r;
	*ret = take_ptr(apps);
	*ret_count = n;
	return 0;
}

/* New ids for an application and its links, and a history that leads to where they point.
 */
static int app_renew(struct catalog *catalog, struct app_row *app, int64_t now_ns,
		     struct error *err)
{
	cleanup(change_list_done) struct change_list changes = {0};
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r = nodes_take(catalog, 1, &app->node, err);

	if (r == 0)
		r = sql_run(catalog->db, err, "UPDATE app SET node = ?2 WHERE id = ?1",
			    "ii", app->id, (int64_t)app->node);
	if (r == 0)
		r = sql_run(
			catalog->db, err,
			"INSERT INTO generation SELECT app, name,"
			" 1 + coalesce((SELECT max(number) FROM generation WHERE"
			"  generation.app = channel.app AND channel = channel.name), 0),"
			" ?2, 'root', 'rebuild', NULL, version, '', 'ok' FROM channel"
			" WHERE app = ?1 AND name <> 'previous' AND version IS NOT"
			" (SELECT to_version FROM generation WHERE"
			"  generation.app = channel.app AND channel = channel.name"
			"  ORDER BY number DESC LIMIT 1)",
			"ii", app->id, now_ns);
	if (r == 0)
		r = sql_query(catalog->db, &row, err,
			      "SELECT channel.name, version.id, version.name FROM channel"
			      " JOIN version ON version.id = channel.version"
			      " WHERE channel.app = ?1 ORDER BY channel.name",
			      "i", app->id);
	while (r == 0 && (r = sql_step_row(row, err)) > 0) {
		char channel[NAME_LENGTH_MAX + 1], version[NAME_LENGTH_MAX + 1];

		sql_text(row, 0, channel, sizeof(channel));
		sql_text(row, 2, version, sizeof(version));
		r = channel_point(catalog, app, channel, sqlite3_column_int64(row, 1),
				  version, now_ns, &changes, err);
	}
	return r;
}

static int apps_settle(struct catalog *catalog, bool trusted, struct error *err)
{
	cleanup(free_ptr) struct app_row *apps = NULL;
	int64_t now_ns = clock_wall_ns();
	size_t count = 0;
	int r = apps_read(catalog, &apps, &count, err);

	for (size_t i = 0; r == 0 && i < count; i++) {
		cleanup(change_list_done) struct change_list changes = {0};

		if (!trusted)
			r = app_renew(catalog, &apps[i], now_ns, err);
		if (r == 0)
			r = settle(catalog, &apps[i], now_ns, &changes, err);
	}
	return r;
}

static int channels_drop(struct catalog *catalog, struct reconciled *ret,
			 struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r = sql_query(catalog->db, &row, err,
			  "DELETE FROM channel WHERE version IN (SELECT id FROM version"
			  " WHERE state <> 0) RETURNING name, (SELECT name FROM app WHERE"
			  " id = channel.app), (SELECT name FROM version WHERE id ="
			  " channel.version)",
			  "");

	while (r == 0 && (r = sql_step_row(row, err)) > 0) {
		r = 0;
		if (!strcmp((const char *)sqlite3_column_text(row, 0), CHANNEL_PREVIOUS))
			continue;
		log_error(
			"channel '%s' of '%s' pointed at version '%s', which was removed "
			"since, and is dropped: flip it",
			(const char *)sqlite3_column_text(row, 0),
			(const char *)sqlite3_column_text(row, 1),
			(const char *)sqlite3_column_text(row, 2));
		ret->channels++;
	}
	return r;
}

int catalog_reconcile(struct catalog *catalog, const struct pack_file *files,
		      size_t count, bool trusted, struct reconciled *ret,
		      struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(transaction_end) struct transaction tx = {0};
	struct reconciled done = {0};
	int64_t versions = 0, next_pack = 1;
	/* In what order rows go does not matter: the whole is checked in the end. */
	int r = sql_exec(catalog->db, "PRAGMA foreign_keys = OFF", err);

	if (r == 0)
		r = transaction_begin(catalog, &tx, err);
	if (r == 0 && !trusted)
		r = distrust(catalog, err);
	if (r == 0)
		r = sql_integer(catalog->db,
				"SELECT value FROM meta WHERE key = 'next_pack'",
				&next_pack, err);
	if (r == 0)
		r = counters_raise(catalog, files, count, err);
	if (r == 0)
		r = lose_missing(catalog, files, count, &done, err);
	for (size_t i = 0; r == 0 && i < count; i++)
		if (files[i].known)
			r = file_take(catalog, &files[i], next_pack, &done, err);
	if (r == 0)
		r = channels_drop(catalog, &done, err);
	if (r == 0)
		r = apps_settle(catalog, trusted, err);
	if (r == 0)
		r = sql_integer(catalog->db,
				"SELECT count(*) FROM version WHERE state = 0", &versions,
				err);
	if (r == 0)
		r = transaction_commit(&tx, err);
	if (r < 0)
		return r;
	done.versions = (unsigned)versions;
	*ret = done;
	return 0;
}

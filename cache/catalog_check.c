/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SQLite notices that a page is not one; it has no checksum that would notice another
 * number in a row. Most of such damage makes a row contradict another one, or the header
 * of a pack: that is looked for here. What is left are times and texts that only people
 * read.
 *
 * All that takes the longer the more packs there are, from a cold disk above all. So the
 * catalog's copy, which has a checksum, vouches for what is in both. After a clean end
 * that is everything; after another one, all but what came in the last seconds.
 */
#include "catalog_check.h"

#include "catalog_private.h"
#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "pack_scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void catalog_copy_done(struct catalog_copy *copy)
{
	sqlite3_close(copy->db);
	sqlite3_free(copy->backup);
	copy->db = NULL;
	copy->backup = NULL;
}

static void db_close(sqlite3 **db)
{
	sqlite3_close(*db);
}

/* All that the schema says, as one text. */
static int schema_text(sqlite3 *db, char **ret, struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	const char *text;
	int r = sql_query(db, &row, err,
			  "SELECT group_concat(type || name || tbl_name ||"
			  " coalesce(sql, ''), ';') FROM (SELECT * FROM sqlite_master"
			  " WHERE name NOT LIKE 'sqlite_stat%' ORDER BY name)",
			  "");

	if (r == 0)
		r = sql_step_row(row, err);
	if (r < 0)
		return r;
	text = (const char *)sqlite3_column_text(row, 0);
	*ret = strdup(text ? text : "");
	return *ret ? 0 : error_set(err, -ENOMEM, "not enough memory");
}

static int schema_of_version(int64_t version, char **ret, struct error *err)
{
	cleanup(db_close) sqlite3 *db = NULL;
	int r = 0;

	if (sqlite3_open(":memory:", &db) != SQLITE_OK)
		return error_set(err, -ENOMEM, "not enough memory");
	r = schema_make(db, version, err);
	return r < 0 ? r : schema_text(db, ret, err);
}

/* A version number that is too high is believed when the schema is another one, too. */
static int check_schema(sqlite3 *db, bool *ret_newer, struct error *err)
{
	cleanup(free_ptr) char *is = NULL, *should = NULL;
	int64_t version = 0, known;
	int r = sql_integer(db, "PRAGMA user_version", &version, err);

	known = version > catalog_version ? catalog_version : version;
	if (r == 0)
		r = schema_text(db, &is, err);
	if (r == 0)
		r = schema_of_version(known, &should, err);
	if (r < 0)
		return r;
	*ret_newer = version > catalog_version && strcmp(is, should);
	if (*ret_newer && strstr(is, "CREATE TABLE version("))
		return 0;
	if (version != known || version < 1 || strcmp(is, should))
		return error_set(err, -EBADMSG, "its tables are not those of a catalog");
	return 0;
}

static int counters_read(struct catalog_copy *copy, struct error *err)
{
	int r = sql_integer(copy->db, "SELECT value FROM meta WHERE key = 'next_node'",
			    &copy->next_node, err);

	if (r == 0)
		r = sql_integer(copy->db,
				"SELECT value FROM meta WHERE key = 'next_pack'",
				&copy->next_pack, err);
	return r;
}

static int check_whole(struct catalog_copy *copy, struct error *err)
{
	int r = copy->as_backup ? 0 : sql_check_pages(copy->db, err);

	if (r == 0)
		r = check_schema(copy->db, &copy->newer, err);
	if (r == 0 && !copy->newer)
		r = counters_read(copy, err);
	if (r == 0)
		return 0;
	catalog_copy_done(copy);
	/* SQLITE_ERROR is what a damaged schema gives, too. */
	return r == -EIO ? error_set(err, -EBADMSG, "%s", err->text) : r;
}

static int load_bytes(const char *path, unsigned char **ret, size_t *ret_size,
		      int64_t *ret_time_ns)
{
	cleanup(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	struct checksum sum, is;
	unsigned char *bytes;
	struct stat st;
	size_t size;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (st.st_size <= (off_t)sizeof(sum))
		return -EBADMSG;
	size = (size_t)st.st_size - sizeof(sum);
	bytes = sqlite3_malloc64(size);
	if (!bytes)
		return -ENOMEM;
	r = fd_pread_all(fd, bytes, size, 0);
	if (r == 0)
		r = fd_pread_all(fd, &sum, sizeof(sum), size);
	if (r == 0) {
		is = checksum_of(bytes, size);
		r = checksum_equal(&is, &sum) ? 0 : -EBADMSG;
	}
	if (r < 0) {
		sqlite3_free(bytes);
		return r;
	}
	*ret_time_ns = st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec;
	*ret = bytes;
	*ret_size = size;
	return 0;
}

/* Without a copy that is whole, nothing vouches for anything. */
static void backup_read(struct catalog_copy *copy, const char *path)
{
	unsigned char *bytes;
	int64_t time_ns;
	size_t size;

	if (load_bytes(path, &copy->backup, &copy->backup_size, &time_ns) < 0 ||
	    sql_copy(copy->db, &bytes, &size, NULL) < 0)
		return;
	copy->as_backup = size == copy->backup_size && !memcmp(bytes, copy->backup, size);
	sqlite3_free(bytes);
}

int catalog_copy_open(const char *path, const char *backup, struct catalog_copy *ret,
		      struct error *err)
{
	struct error why = {0};
	struct stat st;
	int r;

	*ret = (struct catalog_copy){0};
	if (stat(path, &st) < 0)
		return error_set(err, -errno, "%s",
				 errno == ENOENT ? "it is missing" : strerror(errno));
	if (st.st_size == 0)
		return error_set(err, -EBADMSG, "it is empty");
	ret->time_ns = clock_wall_ns();
	r = sql_open(path, false, NULL, &ret->db, &why);
	if (r == 0 && backup)
		backup_read(ret, backup);
	if (r == 0)
		r = check_whole(ret, &why);
	return r < 0 ? error_set(err, r, "%s", why.text) : 0;
}

int catalog_copy_load(const char *path, struct catalog_copy *ret, struct error *err)
{
	struct error why = {0};
	unsigned char *bytes = NULL;
	size_t size = 0;
	int r;

	*ret = (struct catalog_copy){0};
	r = load_bytes(path, &bytes, &size, &ret->time_ns);
	if (r < 0)
		return error_set(err, r, "%s",
				 r == -EBADMSG ? "its checksum is wrong" : strerror(-r));
	if (sqlite3_open(":memory:", &ret->db) != SQLITE_OK) {
		sqlite3_free(bytes);
		catalog_copy_done(ret);
		return error_set(err, -ENOMEM, "not enough memory");
	}
	/* Frees the bytes, also when it fails. */
	if (sqlite3_deserialize(ret->db, "main", bytes, (sqlite3_int64)size,
				(sqlite3_int64)size,
				SQLITE_DESERIALIZE_FREEONCLOSE |
					SQLITE_DESERIALIZE_READONLY) != SQLITE_OK) {
		catalog_copy_done(ret);
		return error_set(err, -EBADMSG, "it is no database");
	}
	r = check_whole(ret, &why);
	return r < 0 ? error_set(err, r, "%s", why.text) : 0;
}

/* Each finds a row where something is wrong. */
static const struct {
	const char *what, *query;
} contradictions[] = {
	{"a counter is lost",
	 "SELECT 1 WHERE 2 <> (SELECT count(*) FROM meta WHERE key IN"
	 " ('next_node', 'next_pack') AND typeof(value) = 'integer' AND value > 0)"},
	{"an id is beyond what was given out",
	 "SELECT 1 FROM (SELECT max(first_node + node_count + dir_count) AS node FROM pack"
	 " UNION ALL SELECT max(node) + 1 FROM app UNION ALL SELECT max(node) + 1 FROM leaf)"
	 " WHERE node > (SELECT value FROM meta WHERE key = 'next_node')"},
	{"a pack is beyond what was given out",
	 "SELECT 1 FROM pack WHERE id < 1 OR first_node < 16 OR node_count < 0 OR"
	 " dir_count < 1 OR id >= (SELECT value FROM meta WHERE key = 'next_pack')"},
	{"an id is there twice",
	 "SELECT 1 FROM (SELECT first, lag(behind) OVER (ORDER BY first) AS before FROM"
	 " (SELECT first_node AS first, first_node + node_count + dir_count AS behind"
	 "  FROM pack UNION ALL SELECT node, node + 1 FROM app"
	 "  UNION ALL SELECT node, node + 1 FROM leaf)) WHERE first < before"},
	{"packs are not in the order of their ids",
	 "SELECT 1 FROM (SELECT first_node, lag(first_node) OVER (ORDER BY id) AS before"
	 " FROM pack) WHERE first_node < before"},
	{"a row refers to one that is not there",
	 "SELECT 1 FROM pragma_foreign_key_check"},
	{"a version has no state",
	 "SELECT 1 FROM version WHERE state NOT IN (0, 1, 2)"
	 " OR (state = 2) <> (pack IS NULL) OR length(sha256) <> 32"},
	{"two versions have one pack",
	 "SELECT 1 FROM version WHERE pack IS NOT NULL GROUP BY pack HAVING count(*) > 1"},
	{"a channel points nowhere",
	 "SELECT 1 FROM channel JOIN version ON version.id = channel.version"
	 " WHERE version.app <> channel.app OR version.state <> 0"},
	{"a channel contradicts its history",
	 "SELECT 1 FROM channel WHERE name <> 'previous' AND version IS NOT"
	 " (SELECT to_version FROM generation WHERE generation.app = channel.app"
	 "  AND generation.channel = channel.name ORDER BY number DESC LIMIT 1)"},
	{"a history contradicts itself",
	 "SELECT 1 FROM (SELECT from_version, lag(to_version) OVER"
	 " (PARTITION BY app, channel ORDER BY number) AS before FROM generation)"
	 " WHERE before IS NOT NULL AND from_version IS NOT NULL"
	 " AND from_version <> before"},
	{"a history names no version",
	 "SELECT 1 FROM generation LEFT JOIN version ON version.id ="
	 " generation.to_version AND version.app = generation.app"
	 " WHERE version.id IS NULL"},
	{"a link is not what its channel says",
	 "SELECT 1 FROM channel JOIN version ON version.id = channel.version"
	 " LEFT JOIN leaf ON leaf.node = channel.node WHERE leaf.app IS NOT channel.app"
	 " OR leaf.name IS NOT channel.name OR leaf.text IS NOT version.name"},
	{"a link names no version",
	 "SELECT 1 FROM leaf WHERE app <> 0 AND NOT EXISTS (SELECT 1 FROM version"
	 " WHERE version.app = leaf.app AND version.name = leaf.text)"},
};

static int check_rows(sqlite3 *db, struct error *err)
{
	int r = 0;

	for (size_t i = 0;
	     r == 0 && i < sizeof(contradictions) / sizeof(contradictions[0]); i++) {
		int64_t found;

		r = sql_value(db, &found, err, contradictions[i].query, "");
		if (r > 0)
			return error_set(err, -EBADMSG, "%s", contradictions[i].what);
	}
	return r;
}

/* A row of pack and of its version against the header. */
static bool row_right(sqlite3_stmt *row, const struct pack_header *header)
{
	const char *app = (const char *)sqlite3_column_text(row, 4);
	const char *name = (const char *)sqlite3_column_text(row, 5);

	if ((uint64_t)sqlite3_column_int64(row, 1) != header->first_node ||
	    sqlite3_column_int64(row, 2) != header->node_count ||
	    sqlite3_column_int64(row, 3) != header->dir_count)
		return false;
	if (!app || !name) /* a pack that has lost its version */
		return true;
	return !strcmp(app, header->app) && !strcmp(name, header->version) &&
	       sqlite3_column_bytes(row, 6) == SHA256_SIZE &&
	       !memcmp(sqlite3_column_blob(row, 6), header->package_sha256, SHA256_SIZE);
}

/* Packs with the versions made of them, in one of the databases. */
#define PACK_ROWS(schema)                                                            \
	"SELECT pack.id, first_node, node_count, dir_count, app.name, version.name," \
	" sha256 FROM " schema ".pack"                                               \
	" LEFT JOIN " schema ".version ON version.pack = pack.id"                    \
	" LEFT JOIN " schema ".app ON app.id = version.app"

/* A row whose pack has another header, or has lost the version since. A header that
 * cannot be read is no witness. */
static int check_pack_row(sqlite3_stmt *row, const char *packs, bool *ret_old,
			  struct error *err)
{
	uint64_t id = (uint64_t)sqlite3_column_int64(row, 0);
	bool has_version = sqlite3_column_type(row, 5) != SQLITE_NULL;
	struct pack_file file;

	if (pack_file_read(packs, id, &file, NULL) < 0)
		return 0;
	if (!row_right(row, &file.header))
		return error_set(err, -EBADMSG, "it contradicts pack %llu",
				 (unsigned long long)id);
	*ret_old |= has_version && pack_retired(&file.header);
	return 0;
}

static int check_packs(const struct catalog_copy *copy, const char *packs, bool vouched,
		       bool *ret_old, struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r = sql_query(copy->db, &row, err,
			  vouched ? PACK_ROWS("main") " EXCEPT " PACK_ROWS("backup")
				  : PACK_ROWS("main"),
			  "");

	while (r == 0 && (r = sql_step_row(row, err)) > 0)
		r = check_pack_row(row, packs, ret_old, err);
	return r;
}

/* Put the copy beside the catalog, to be asked with it; false: it cannot be used. */
static bool backup_attach(struct catalog_copy *copy)
{
	int64_t version = 0, is = -1;

	return copy->backup &&
	       sql_exec(copy->db, "ATTACH ':memory:' AS backup", NULL) == 0 &&
	       sqlite3_deserialize(copy->db, "backup", take_ptr(copy->backup),
				   (sqlite3_int64)copy->backup_size,
				   (sqlite3_int64)copy->backup_size,
				   SQLITE_DESERIALIZE_FREEONCLOSE |
					   SQLITE_DESERIALIZE_READONLY) == SQLITE_OK &&
	       sql_integer(copy->db, "PRAGMA main.user_version", &version, NULL) == 0 &&
	       sql_integer(copy->db, "PRAGMA backup.user_version", &is, NULL) == 0 &&
	       version == is;
}

/* A commit that is in the copy cannot be missing in the catalog: each takes ids. */
static int check_backup(struct catalog_copy *copy, struct error *err)
{
	int64_t older = 0;
	int r = sql_integer(copy->db,
			    "SELECT 1 FROM main.meta AS now"
			    " JOIN backup.meta AS before ON before.key = now.key"
			    " WHERE now.key IN ('next_node', 'next_pack')"
			    " AND before.value > now.value",
			    &older, err);

	if (r == 0 && older)
		return error_set(err, -EBADMSG, "it is older than its copy");
	return r;
}

/* A pack that was made later. */
static int check_age(const struct catalog_copy *copy, const char *packs,
		     struct error *err)
{
	cleanup(dir_close) DIR *dir = opendir(packs);
	struct dirent *entry;
	struct pack_file file;

	while (dir && (entry = readdir(dir))) {
		uint64_t id = pack_file_id(entry->d_name);

		if (id >= (uint64_t)copy->next_pack &&
		    pack_file_read(packs, id, &file, NULL) == 0)
			return error_set(err, -EBADMSG, "it is older than pack %llu",
					 (unsigned long long)id);
	}
	return 0;
}

static int check_changed(struct catalog_copy *copy, const char *packs, struct error *err)
{
	bool vouched, old = false;
	int r = check_rows(copy->db, err);

	if (r < 0)
		return r;
	vouched = backup_attach(copy);
	r = check_packs(copy, packs, vouched, &old, err);
	copy->consistent = r == 0;
	if (r == 0 && old)
		return error_set(err, -EBADMSG, "it is older than the removal of a pack");
	return r == 0 && vouched ? check_backup(copy, err) : r;
}

int catalog_copy_check(struct catalog_copy *copy, const char *packs, struct error *err)
{
	int r = 0;

	copy->consistent = copy->as_backup;
	if (!copy->as_backup)
		r = check_changed(copy, packs, err);
	return r < 0 ? r : check_age(copy, packs, err);
}

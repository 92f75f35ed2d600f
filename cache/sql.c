/* SPDX-License-Identifier: Apache-2.0 */
#include "sql.h"

#include "cleanup.h"
#include "digest.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_MS 10000

int sql_fail(sqlite3 *db, const char *what, struct error *err)
{
	int code = -EIO;

	switch (sqlite3_errcode(db)) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
		code = -EBADMSG;
		break;
	case SQLITE_FULL:
		code = -ENOSPC;
		break;
	case SQLITE_BUSY:
		code = -EBUSY;
		break;
	case SQLITE_NOMEM:
		code = -ENOMEM;
		break;
	case SQLITE_READONLY:
		code = -EROFS;
		break;
	case SQLITE_IOERR: /* of the shared memory beside a WAL, for one */
		if (sqlite3_system_errno(db) == ENOSPC)
			code = -ENOSPC;
		break;
	}
	return error_set(err, code, "%s: %s", what, sqlite3_errmsg(db));
}

int sql_open(const char *path, bool writable, const char *settings, sqlite3 **ret,
	     struct error *err)
{
	int flags = SQLITE_OPEN_NOMUTEX |
		    (writable ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE
			      : SQLITE_OPEN_READONLY);
	sqlite3 *db = NULL;
	int persist = 1, r;

	if (sqlite3_open_v2(path, &db, flags, NULL) != SQLITE_OK) {
		r = db ? sql_fail(db, path, err)
		       : error_set(err, -ENOMEM, "not enough memory");
		sqlite3_close(db);
		return r;
	}
	sqlite3_busy_timeout(db, PATIENCE_MS);
	/* What the WAL has on the disk stays its own from one start to the next: a full
	 * disk must not keep us from starting. */
	if (writable)
		sqlite3_file_control(db, "main", SQLITE_FCNTL_PERSIST_WAL, &persist);
	r = writable ? sql_exec(db,
				"PRAGMA journal_mode = WAL; PRAGMA temp_store = MEMORY",
				err)
		     : 0;
	if (r == 0 && settings)
		r = sql_exec(db, settings, err);
	if (r < 0) {
		sqlite3_close(db);
		return r;
	}
	*ret = db;
	return 0;
}

int sql_remove(const char *path)
{
	static const char *const endings[] = {"-wal", "-shm", ""};
	char name[4200];

	for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
		snprintf(name, sizeof(name), "%s%s", path, endings[i]);
		if (unlink(name) < 0 && errno != ENOENT)
			return -errno;
	}
	return 0;
}

int sql_exec(sqlite3 *db, const char *text, struct error *err)
{
	if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK)
		return sql_fail(db, "the database refused", err);
	return 0;
}

int sql_prepare(sqlite3 *db, const char *text, sqlite3_stmt **ret, struct error *err)
{
	if (sqlite3_prepare_v3(db, text, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL) !=
	    SQLITE_OK)
		return sql_fail(db, "the database refused", err);
	return 0;
}

void sql_finalize_ptr(sqlite3_stmt **statement)
{
	sqlite3_finalize(*statement);
}

int sql_step_row(sqlite3_stmt *statement, struct error *err)
{
	int rc = sqlite3_step(statement);

	if (rc == SQLITE_ROW)
		return 1;
	if (rc == SQLITE_DONE)
		return 0;
	return sql_fail(sqlite3_db_handle(statement), "the database refused", err);
}

int sql_step_done(sqlite3_stmt *statement, struct error *err)
{
	int r = sql_step_row(statement, err);

	sqlite3_reset(statement);
	return r < 0 ? r : 0;
}

int sql_integer(sqlite3 *db, const char *text, int64_t *ret, struct error *err)
{
	sqlite3_stmt *statement = NULL;
	int r = sql_prepare(db, text, &statement, err);

	if (r == 0) {
		r = sql_step_row(statement, err);
		if (r > 0)
			*ret = sqlite3_column_int64(statement, 0);
	}
	sqlite3_finalize(statement);
	return r < 0 ? r : 0;
}

static int query_va(sqlite3 *db, sqlite3_stmt **ret, struct error *err, const char *text,
		    const char *types, va_list args)
{
	int r = sql_prepare(db, text, ret, err);

	if (r < 0)
		return r;
	for (int i = 1; types[i - 1]; i++) {
		switch (types[i - 1]) {
		case 'i':
			sqlite3_bind_int64(*ret, i, va_arg(args, int64_t));
			break;
		case 't':
			sqlite3_bind_text(*ret, i, va_arg(args, const char *), -1,
					  SQLITE_TRANSIENT);
			break;
		case 's':
			sqlite3_bind_blob(*ret, i, va_arg(args, const void *),
					  SHA256_SIZE, SQLITE_TRANSIENT);
			break;
		}
	}
	return 0;
}

int sql_query(sqlite3 *db, sqlite3_stmt **ret, struct error *err, const char *text,
	      const char *types, ...)
{
	va_list args;
	int r;

	va_start(args, types);
	r = query_va(db, ret, err, text, types, args);
	va_end(args);
	return r;
}

int sql_run(sqlite3 *db, struct error *err, const char *text, const char *types, ...)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *statement = NULL;
	va_list args;
	int r;

	va_start(args, types);
	r = query_va(db, &statement, err, text, types, args);
	va_end(args);
	return r < 0 ? r : sql_step_done(statement, err);
}

int sql_value(sqlite3 *db, int64_t *ret, struct error *err, const char *text,
	      const char *types, ...)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *statement = NULL;
	va_list args;
	int r;

	va_start(args, types);
	r = query_va(db, &statement, err, text, types, args);
	va_end(args);
	if (r == 0)
		r = sql_step_row(statement, err);
	if (r > 0)
		*ret = sqlite3_column_int64(statement, 0);
	return r;
}

void sql_text(sqlite3_stmt *statement, int column, char *to, size_t size)
{
	const void *text = sqlite3_column_text(statement, column);
	size_t length = text ? (size_t)sqlite3_column_bytes(statement, column) : 0;

	if (length >= size)
		length = size - 1;
	if (length)
		memcpy(to, text, length);
	to[length] = '\0';
}

int sql_check_pages(sqlite3 *db, struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	char text[200] = "";
	int r = sql_query(db, &row, err, "PRAGMA integrity_check(1)", "");

	if (r == 0)
		r = sql_step_row(row, err);
	if (r < 0)
		return r;
	sql_text(row, 0, text, sizeof(text));
	return strcmp(text, "ok") ? error_set(err, -EBADMSG, "%s", text) : 0;
}

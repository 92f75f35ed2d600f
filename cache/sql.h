/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sql.h - the little that catalog.c and index.c need around SQLite
 *
 * Errors: -EBADMSG when the database is damaged or not one; -ENOSPC when the disk is
 * full; -EBUSY when somebody else writes for more than ten seconds; -EROFS when the file
 * cannot be written; -EIO otherwise. The text is SQLite's.
 */
#pragma once

#include "error.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * sql_open() - open in WAL mode, ten seconds of patience; the WAL outlives a close
 * @settings: further PRAGMAs; may be NULL
 */
int sql_open(const char *path, bool writable, const char *settings, sqlite3 **ret,
	     struct error *err);

/** sql_remove() - unlink a database with its WAL; 0 or a negative errno */
int sql_remove(const char *path);

/** sql_exec() - statements without results */
int sql_exec(sqlite3 *db, const char *text, struct error *err);

/**
 * sql_check_pages() - whether SQLite finds the whole database right
 * `PRAGMA integrity_check`: reads all of it. Return: 0; -EBADMSG with the first thing
 * that is wrong; what the disk gives.
 */
int sql_check_pages(sqlite3 *db, struct error *err);

/** sql_integer() - the first column of the first row; untouched when there is none */
int sql_integer(sqlite3 *db, const char *text, int64_t *ret, struct error *err);

/** sql_prepare() - a statement to keep; sqlite3_finalize() it */
int sql_prepare(sqlite3 *db, const char *text, sqlite3_stmt **ret, struct error *err);

/** sql_step_done() - run a bound statement that returns no row, reset it */
int sql_step_done(sqlite3_stmt *statement, struct error *err);

/** sql_step_row() - the next row: 1; 0 at the end; a negative errno. Never resets. */
int sql_step_row(sqlite3_stmt *statement, struct error *err);

/**
 * sql_query() - prepare and bind
 * @types: one letter a parameter: 'i' int64_t, 't' const char * (NULL is SQL's), 's'
 * SHA-256
 */
int sql_query(sqlite3 *db, sqlite3_stmt **ret, struct error *err, const char *text,
	      const char *types, ...);

/** sql_run() - the same, run to its end; for statements without rows */
int sql_run(sqlite3 *db, struct error *err, const char *text, const char *types, ...);

/** sql_value() - the same for one integer: 1 with *@ret set, 0 when there is no row */
int sql_value(sqlite3 *db, int64_t *ret, struct error *err, const char *text,
	      const char *types, ...);

/** sql_text() - copy a column into @to; "" for NULL, cut at @size */
void sql_text(sqlite3_stmt *statement, int column, char *to, size_t size);

/** sql_fail() - @err from the last failure of @db; @what: what was attempted */
int sql_fail(sqlite3 *db, const char *what, struct error *err);

/** sql_finalize_ptr() - clean-up function */
void sql_finalize_ptr(sqlite3_stmt **statement);

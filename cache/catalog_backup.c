/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog.bak: a copy of the catalog that is whole whenever it is there. The checksum at
 * its end finds what SQLite does not look for, such as another number in a row. Since it
 * vouches for the catalog at the next start, nothing damaged may get into it.
 */
#include "catalog_private.h"

#include "cleanup.h"
#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Bytes 18 and 19 of a database say by which journal it is written and read: 2 is WAL.
 * The copy has none, and is not to get one by being looked at. */
#define JOURNAL_AT 18

static void sqlite_free_ptr(unsigned char **bytes)
{
	sqlite3_free(*bytes);
}

static void db_close(sqlite3 **db)
{
	sqlite3_close(*db);
}

int sql_copy(sqlite3 *db, unsigned char **ret, size_t *ret_size, struct error *err)
{
	unsigned char *bytes;
	sqlite3_int64 size = 0;

	bytes = sqlite3_serialize(db, "main", &size, 0);
	if (!bytes)
		return sql_fail(db, "cannot copy the database", err);
	if (size > JOURNAL_AT + 1)
		bytes[JOURNAL_AT] = bytes[JOURNAL_AT + 1] = 1;
	*ret = bytes;
	*ret_size = (size_t)size;
	return 0;
}

int file_write_durable(const char *path, const void *data, size_t size, const void *end,
		       size_t end_size)
{
	cleanup(fd_close) int fd =
		open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r = fd < 0 ? -errno : fd_write_all(fd, data, size);

	if (r == 0)
		r = fd_write_all(fd, end, end_size);
	if (r == 0 && fsync(fd) < 0)
		r = -errno;
	return r;
}

int dir_sync_of(const char *path)
{
	char directory[4096];
	char *slash;

	snprintf(directory, sizeof(directory), "%s", path);
	slash = strrchr(directory, '/');
	if (!slash)
		return dir_sync(".");
	*slash = '\0';
	return dir_sync(*directory ? directory : "/");
}

int file_rename_durable(const char *from, const char *to)
{
	return rename(from, to) < 0 ? -errno : dir_sync_of(to);
}

static int check_source(sqlite3 *db, struct error *err)
{
	struct error why = {0};
	int r = sql_check_pages(db, &why);

	if (r == -EBADMSG)
		return error_set(
			err, r,
			"'%s' is damaged, and the copy of before is kept: %s; restart "
			"deployfsd: it makes the catalog again",
			sqlite3_db_filename(db, "main"), why.text);
	return r < 0 ? error_set(err, r, "%s", why.text) : 0;
}

int catalog_backup(struct catalog *catalog, const char *path, struct error *err)
{
	cleanup(db_close) sqlite3 *db = NULL;
	cleanup(sqlite_free_ptr) unsigned char *bytes = NULL;
	struct checksum sum;
	char temporary[4200];
	size_t size;
	int r = sql_open(sqlite3_db_filename(catalog->db, "main"), false, NULL, &db, err);

	/* One transaction: what is checked is what is copied. */
	if (r == 0)
		r = sql_exec(db, "BEGIN", err);
	if (r == 0)
		r = check_source(db, err);
	if (r == 0)
		r = sql_copy(db, &bytes, &size, err);
	if (r < 0)
		return r;
	snprintf(temporary, sizeof(temporary), "%s.new", path);
	sum = checksum_of(bytes, size);
	r = file_write_durable(temporary, bytes, size, &sum, sizeof(sum));
	if (r == 0)
		r = file_rename_durable(temporary, path);
	if (r < 0) {
		unlink(temporary);
		return error_set(err, r, "cannot write '%s': %s", path, strerror(-r));
	}
	return 0;
}

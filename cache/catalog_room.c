/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A full disk must not keep anybody from flipping back or from removing what fills it. A
 * change needs blocks in two places:
 *
 *   catalog.db-wal  allocated here behind its end. SQLite starts over at its beginning
 *                   after a checkpoint, and does not shorten it but at a close.
 *   catalog.db      pages that are free within it. Blocks behind its end would be lost at
 *                   the next checkpoint, which sets the file's size.
 *
 * The -shm file has room for the index of 4062 frames of the WAL from its making on,
 * which is more than WAL_ROOM has.
 */
#include "catalog_private.h"

#include "cleanup.h"
#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WAL_ROOM    (8 << 20) /* twice what a checkpoint waits for */
#define PAGES_LEAST 256
#define PAGES_ROOM  "2097152" /* bytes: 512 pages */

/* The WAL carries no POSIX locks, which closing a second descriptor would drop. */
static int make_wal_room(const char *database, struct error *err)
{
	cleanup(fd_close) int fd = -1;
	char path[4200];
	struct stat st;

	snprintf(path, sizeof(path), "%s-wal", database);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(err, -errno, "cannot open '%s': %s", path,
				 strerror(errno));
	if ((uint64_t)st.st_blocks * 512 >= WAL_ROOM)
		return 0;
	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, WAL_ROOM) < 0 && errno != EOPNOTSUPP)
		return error_set(err, -errno, "cannot keep room for '%s': %s", path,
				 strerror(errno));
	return 0;
}

static int make_page_room(struct catalog *catalog, struct error *err)
{
	cleanup(transaction_end) struct transaction tx = {0};
	int64_t pages = 0;
	int r = sql_integer(catalog->db, "PRAGMA freelist_count", &pages, err);

	if (r < 0 || pages >= PAGES_LEAST)
		return r;
	r = transaction_begin(catalog, &tx, err);
	if (r == 0)
		r = sql_exec(catalog->db,
			     "CREATE TABLE room(bytes);"
			     "INSERT INTO room VALUES(zeroblob(" PAGES_ROOM "));"
			     "DROP TABLE room",
			     err);
	if (r == 0)
		r = transaction_commit(&tx, err);
	/* Pages in the WAL are not yet blocks of the database. */
	return r < 0 ? r : sql_exec(catalog->db, "PRAGMA wal_checkpoint(PASSIVE)", err);
}

int catalog_make_room(struct catalog *catalog, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	int r = make_wal_room(sqlite3_db_filename(catalog->db, "main"), err);

	return r < 0 ? r : make_page_room(catalog, err);
}

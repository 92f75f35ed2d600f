/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the catalog knows of damaged packs, and how far the scrub is. Which versions show
 * what is damaged is in the packs; whoever has looked says it here, in `hurt`.
 */
#include "catalog_private.h"

#include "cleanup.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Packs of versions that need pack ?1, through however many others. */
#define USERS                                                                \
	"WITH RECURSIVE user(id) AS (SELECT ?1"                              \
	" UNION SELECT dep.pack FROM user JOIN dep ON dep.needs = user.id) " \
	"SELECT DISTINCT version.pack FROM user"                             \
	" JOIN version ON version.pack = user.id"

int catalog_users(struct catalog *catalog, uint64_t pack, uint64_t **ret,
		  size_t *ret_count, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(sql_finalize_ptr) sqlite3_stmt *rows = NULL;
	cleanup(free_ptr) uint64_t *ids = NULL;
	size_t count = 0;
	int r = sql_query(catalog->db, &rows, err, USERS, "i", (int64_t)pack);

	while (r == 0 && (r = sql_step_row(rows, err)) > 0) {
		uint64_t *larger = realloc(ids, (count + 1) * sizeof(*ids));

		if (!larger)
			return error_set(err, -ENOMEM, "not enough memory");
		ids = larger;
		ids[count++] = (uint64_t)sqlite3_column_int64(rows, 0);
		r = 0;
	}
	if (r < 0)
		return r;
	*ret = take_ptr(ids);
	*ret_count = count;
	return 0;
}

static int apps_settle(struct catalog *catalog, uint64_t pack,
		       struct change_list *changes, struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *rows = NULL;
	int r = sql_query(catalog->db, &rows, err,
			  "SELECT DISTINCT app.name FROM app"
			  " JOIN version ON version.app = app.id"
			  " WHERE version.pack IN (" USERS ")",
			  "i", (int64_t)pack);

	while (r == 0 && (r = sql_step_row(rows, err)) > 0)
		r = previous_settle(catalog, (const char *)sqlite3_column_text(rows, 0),
				    changes, err);
	return r;
}

static int users_set(struct catalog *catalog, uint64_t pack, const uint64_t *users,
		     size_t count, struct error *err)
{
	int r;

	if (!users)
		return sql_run(catalog->db, err,
			       "INSERT INTO hurt SELECT ?1, pack FROM (" USERS ")", "i",
			       (int64_t)pack);
	r = 0;
	for (size_t i = 0; r == 0 && i < count; i++)
		r = sql_run(catalog->db, err, "INSERT OR IGNORE INTO hurt VALUES(?1, ?2)",
			    "ii", (int64_t)pack, (int64_t)users[i]);
	return r;
}

int catalog_set_damage(struct catalog *catalog, uint64_t pack, const char *damage,
		       const uint64_t *users, size_t user_count,
		       struct change_list *changes, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(transaction_end) struct transaction tx = {0};
	int64_t was = 0;
	int r = sql_value(catalog->db, &was, err,
			  "SELECT damage <> '' FROM pack WHERE id = ?1", "i",
			  (int64_t)pack);

	if (r <= 0 || (!was && !*damage))
		return r < 0 ? r : 0;
	r = transaction_begin(catalog, &tx, err);
	if (r == 0)
		r = sql_run(catalog->db, err, "UPDATE pack SET damage = ?2 WHERE id = ?1",
			    "it", (int64_t)pack, damage);
	if (r == 0)
		r = sql_run(catalog->db, err, "DELETE FROM hurt WHERE pack = ?1", "i",
			    (int64_t)pack);
	if (r == 0 && *damage)
		r = users_set(catalog, pack, users, user_count, err);
	if (r == 0)
		r = apps_settle(catalog, pack, changes, err);
	if (r == 0)
		r = transaction_commit(&tx, err);
	return r < 0 ? r : was != !!*damage;
}

static int damage_add(sqlite3_stmt *row, struct damage **damages, size_t count)
{
	struct damage *larger = *damages;

	/* Doubled at each power of two. */
	if ((count & (count - 1)) == 0)
		larger = realloc(larger, (count ? count * 2 : 1) * sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	*damages = larger;
	larger[count] = (struct damage){
		.pack = (uint64_t)sqlite3_column_int64(row, 0),
		.own = sqlite3_column_int(row, 1),
	};
	sql_text(row, 2, larger[count].app, sizeof(larger->app));
	sql_text(row, 3, larger[count].version, sizeof(larger->version));
	sql_text(row, 4, larger[count].text, sizeof(larger->text));
	return 0;
}

/* `hurt` is mostly empty, so it comes first: CROSS JOIN is how SQLite is told. */
int catalog_damage(struct catalog *catalog, struct damage **ret, size_t *ret_count,
		   struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(sql_finalize_ptr) sqlite3_stmt *rows = NULL;
	cleanup(free_ptr) struct damage *damages = NULL;
	size_t count = 0;
	int r = sql_query(
		catalog->db, &rows, err,
		"SELECT pack.id, version.pack = pack.id, app.name, version.name, pack.damage"
		" FROM hurt CROSS JOIN pack ON pack.id = hurt.pack"
		" CROSS JOIN version ON version.pack = hurt.by"
		" JOIN app ON app.id = version.app WHERE pack.damage <> ''"
		" ORDER BY 1, 2 DESC, version.id DESC",
		"");

	while (r == 0 && (r = sql_step_row(rows, err)) > 0) {
		r = damage_add(rows, &damages, count);
		if (r < 0)
			return error_set(err, r, "not enough memory");
		count++;
	}
	if (r < 0)
		return r;
	*ret = take_ptr(damages);
	*ret_count = count;
	return 0;
}

int catalog_count_damaged(struct catalog *catalog, uint64_t *ret, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	int64_t count = 0;
	int r = sql_value(catalog->db, &count, err,
			  "SELECT count(DISTINCT version.id) FROM hurt"
			  " CROSS JOIN pack ON pack.id = hurt.pack"
			  " CROSS JOIN version ON version.pack = hurt.by"
			  " WHERE pack.damage <> '' AND version.state = ?1",
			  "i", (int64_t)VERSION_PRESENT);

	if (r < 0)
		return r;
	*ret = (uint64_t)count;
	return 0;
}

int catalog_scrub_progress(struct catalog *catalog, struct scrub_progress *ret,
			   struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	int64_t pack = 0, ended_ns = 0;
	int r = sql_integer(catalog->db,
			    "SELECT value FROM meta WHERE key = 'scrub_pack'", &pack,
			    err);

	if (r == 0)
		r = sql_integer(catalog->db,
				"SELECT value FROM meta WHERE key = 'scrub_ended_ns'",
				&ended_ns, err);
	if (r == 0)
		*ret = (struct scrub_progress){(uint64_t)pack, ended_ns};
	return r;
}

int catalog_set_scrub_progress(struct catalog *catalog,
			       const struct scrub_progress *progress, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);

	return sql_run(catalog->db, err,
		       "INSERT OR REPLACE INTO meta"
		       " VALUES('scrub_pack', ?1), ('scrub_ended_ns', ?2)",
		       "ii", (int64_t)progress->pack, progress->ended_ns);
}

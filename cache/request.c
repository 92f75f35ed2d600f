/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What was done for a request that named itself by a key. Written in the transaction of
 * the change itself, so that there is no moment at which one of them is there alone.
 *
 *   flip, rollback   channel, number of the generation, the reply's note
 *   other changes    channel '', id of the version, the verb as the note
 */
#include "catalog_private.h"

#include "cleanup.h"
#include "clock.h"

#include <errno.h>
#include <string.h>

#define REQUESTS_KEPT 1000

bool request_key_valid(const char *key)
{
	size_t size = strlen(key);

	return size > 0 && size <= REQUEST_KEY_MAX &&
	       strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
			   "0123456789-_") == size;
}

int request_find(struct catalog *catalog, const char *key, struct request *ret,
		 struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r;

	if (!key)
		return 0;
	r = sql_query(catalog->db, &row, err,
		      "SELECT app, channel, number, note FROM request WHERE key = ?1",
		      "t", key);
	if (r == 0)
		r = sql_step_row(row, err);
	if (r <= 0)
		return r;
	ret->app = sqlite3_column_int64(row, 0);
	sql_text(row, 1, ret->channel, sizeof(ret->channel));
	ret->number = sqlite3_column_int64(row, 2);
	sql_text(row, 3, ret->note, sizeof(ret->note));
	return 1;
}

int request_other(struct error *err)
{
	return error_set(err, -EINVAL,
			 "this Idempotency-Key was used for another request: give each "
			 "request a key of its own");
}

int request_add(struct catalog *catalog, const char *key, int64_t app,
		const char *channel, int64_t number, const char *note, struct error *err)
{
	int r;

	if (!key)
		return 0;
	/* The time orders them: it never goes back, whatever the clock does. */
	r = sql_run(catalog->db, err,
		    "INSERT INTO request SELECT ?1,"
		    " max(?2, coalesce((SELECT max(time_ns) + 1 FROM request), 0)),"
		    " ?3, ?4, ?5, ?6",
		    "tiitit", key, clock_wall_ns(), app, channel, number, note);
	if (r == 0)
		r = sql_run(catalog->db, err,
			    "DELETE FROM request WHERE time_ns <="
			    " (SELECT time_ns FROM request"
			    "  ORDER BY time_ns DESC LIMIT 1 OFFSET ?1)",
			    "i", (int64_t)REQUESTS_KEPT);
	return r;
}

int request_repeats(struct catalog *catalog, const char *key, const char *verb,
		    const char *app, const char *version, struct error *err)
{
	struct request request;
	int64_t same;
	int r = request_find(catalog, key, &request, err);

	if (r <= 0)
		return r;
	if (*request.channel || strcmp(request.note, verb))
		return request_other(err);
	r = sql_value(catalog->db, &same, err,
		      "SELECT 1 FROM version JOIN app ON app.id = version.app"
		      " WHERE version.id = ?1 AND app.name = ?2 AND version.name = ?3",
		      "itt", request.number, app, version);
	return r == 0 ? request_other(err) : r;
}

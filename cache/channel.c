/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Channels and their generations. Keeps the catalog's half of I4: a flip is one
 * transaction that appends a generation, gives the symlink a new node id, and brings
 * `previous` along. status.json, which is about all applications, follows in one of its
 * own: what a flip costs does not depend on how many there are.
 *
 * What `previous` means is one function, go_back(): the version of the newest generation
 * before the channel's current one that is present, not bad, and not the current one. One
 * that is damaged comes after all that are not.
 */
#include "catalog_private.h"

#include "cleanup.h"
#include "clock.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A new id for a name, with what it says; old ones beyond @keep are forgotten. */
static int leaf_new(struct catalog *catalog, int64_t app, const char *name,
		    const char *text, int64_t now_ns, int64_t keep, uint64_t *ret,
		    struct error *err)
{
	int r = nodes_take(catalog, 1, ret, err);

	if (r == 0)
		r = sql_run(catalog->db, err,
			    "INSERT INTO leaf VALUES(?1, ?2, ?3, ?4, ?5)", "iitti",
			    (int64_t)*ret, app, name, text, now_ns);
	if (r == 0)
		r = sql_run(catalog->db, err,
			    "DELETE FROM leaf WHERE app = ?1 AND name = ?2 AND node <="
			    " (SELECT node FROM leaf WHERE app = ?1 AND name = ?2"
			    "  ORDER BY node DESC LIMIT 1 OFFSET ?3)",
			    "iti", app, name, keep);
	return r;
}

int channel_point(struct catalog *catalog, const struct app_row *app, const char *channel,
		  int64_t version_id, const char *version, int64_t now_ns,
		  struct change_list *changes, struct error *err)
{
	struct change *change = change_add(changes, CHANGE_LINK);
	int r;

	if (!change)
		return error_set(err, -ENOMEM, "not enough memory");
	memcpy(change->app, app->name, sizeof(change->app));
	snprintf(change->name, sizeof(change->name), "%s", channel);
	change->app_node = app->node;
	change->time_ns = change->app_time_ns = now_ns;
	change->text = strdup(version);
	if (!change->text)
		return error_set(err, -ENOMEM, "not enough memory");
	r = leaf_new(catalog, app->id, channel, version, now_ns, CATALOG_LINKS_KEPT,
		     &change->node, err);
	if (r == 0)
		r = sql_run(catalog->db, err,
			    "INSERT INTO channel VALUES(?1, ?2, ?3, ?4, ?5)"
			    " ON CONFLICT DO UPDATE SET version = ?3, node = ?4,"
			    " changed_ns = ?5",
			    "itiii", app->id, channel, version_id, (int64_t)change->node,
			    now_ns);
	return r;
}

static int channel_drop(struct catalog *catalog, const struct app_row *app,
			const char *channel, int64_t now_ns, struct change_list *changes,
			struct error *err)
{
	struct change *change = change_add(changes, CHANGE_LINK_GONE);

	if (!change)
		return error_set(err, -ENOMEM, "not enough memory");
	memcpy(change->app, app->name, sizeof(change->app));
	snprintf(change->name, sizeof(change->name), "%s", channel);
	change->app_node = app->node;
	change->time_ns = change->app_time_ns = now_ns;
	return sql_run(catalog->db, err,
		       "DELETE FROM channel WHERE app = ?1 AND name = ?2", "it", app->id,
		       channel);
}

/* Where a channel points. */
struct target {
	int64_t version; /* 0: nowhere */
	char name[NAME_LENGTH_MAX + 1];
};

static int channel_target(struct catalog *catalog, int64_t app, const char *channel,
			  struct target *ret, struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r = sql_query(catalog->db, &row, err,
			  "SELECT version.id, version.name FROM channel"
			  " JOIN version ON version.id = channel.version"
			  " WHERE channel.app = ?1 AND channel.name = ?2",
			  "it", app, channel);

	*ret = (struct target){0};
	if (r == 0)
		r = sql_step_row(row, err);
	if (r > 0) {
		ret->version = sqlite3_column_int64(row, 0);
		sql_text(row, 1, ret->name, sizeof(ret->name));
	}
	return r < 0 ? r : 0;
}

#define NEWEST INT64_MAX

/* What a rollback of the channel would choose; version 0: there is nothing. @number: the
 * channel as it was with this generation. The newest one is mostly right, so the history
 * is not read further: a damaged one is looked for when there is no other. */
#define GO_BACK(damaged)                                                          \
	"SELECT version.id, version.name FROM generation"                         \
	" JOIN version ON version.id = generation.to_version"                     \
	" WHERE generation.app = ?1 AND generation.channel = ?2"                  \
	" AND generation.number <= ?4 AND version.state = ?3 AND NOT version.bad" \
	" AND version.id <> (SELECT to_version FROM generation"                   \
	"  WHERE app = ?1 AND channel = ?2 AND number <= ?4"                      \
	"  ORDER BY number DESC LIMIT 1)"                                         \
	" AND " DAMAGE " IS " damaged " ORDER BY generation.number DESC LIMIT 1"

static int go_back(struct catalog *catalog, int64_t app, const char *channel,
		   int64_t number, struct target *ret, struct error *err)
{
	static const char *const queries[] = {GO_BACK("NULL"), GO_BACK("NOT NULL")};
	int r = 0;

	*ret = (struct target){0};
	for (size_t i = 0; r == 0 && i < sizeof(queries) / sizeof(queries[0]); i++) {
		cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;

		r = sql_query(catalog->db, &row, err, queries[i], "itii", app, channel,
			      (int64_t)VERSION_PRESENT, number);
		if (r == 0)
			r = sql_step_row(row, err);
		if (r > 0) {
			ret->version = sqlite3_column_int64(row, 0);
			sql_text(row, 1, ret->name, sizeof(ret->name));
		}
	}
	return r < 0 ? r : 0;
}

static int settle_previous(struct catalog *catalog, const struct app_row *app,
			   int64_t now_ns, struct change_list *changes, struct error *err)
{
	struct target is, should;
	int r = channel_target(catalog, app->id, CHANNEL_PREVIOUS, &is, err);

	if (r == 0)
		r = go_back(catalog, app->id, CHANNEL_DEFAULT, NEWEST, &should, err);
	if (r < 0 || is.version == should.version)
		return r;
	if (should.version == 0)
		return channel_drop(catalog, app, CHANNEL_PREVIOUS, now_ns, changes, err);
	return channel_point(catalog, app, CHANNEL_PREVIOUS, should.version, should.name,
			     now_ns, changes, err);
}

static int status_channel(void *context, const struct channel *channel)
{
	json_t *apps = context;
	json_t *app = json_object_get(apps, channel->app);

	if (!app) {
		app = json_object();
		if (json_object_set_new(apps, channel->app, app) < 0)
			return -ENOMEM;
	}
	return json_object_set_new(app, channel->name, json_string(channel->version)) < 0
		       ? -ENOMEM
		       : 0;
}

static int status_app(void *context, const char *name)
{
	return json_object_set_new(context, name, json_object()) < 0 ? -ENOMEM : 0;
}

/* The text of .deployfs/status.json; NULL with @err set. */
static char *status_text(struct catalog *catalog, struct error *err)
{
	json_t *root = json_object(), *apps = json_object();
	char *text = NULL, *line = NULL;
	int r = catalog_each_app(catalog, status_app, apps, err);

	if (r == 0)
		r = catalog_each_channel(catalog, NULL, status_channel, apps, err);
	if (r == 0) {
		json_object_set_new(root, "schema", json_integer(1));
		json_object_set(root, "apps", apps);
		text = json_dumps(root, JSON_INDENT(1) | JSON_SORT_KEYS);
	}
	json_decref(apps);
	json_decref(root);
	if (text && asprintf(&line, "%s\n", text) < 0)
		line = NULL;
	free(text);
	if (!line && r >= 0)
		error_set(err, -ENOMEM, "not enough memory");
	return line;
}

/* Give a file of .deployfs/ a new id when what it says has changed. */
static int text_settle(struct catalog *catalog, const char *name, const char *text,
		       int64_t now_ns, struct change_list *changes, struct error *err)
{
	struct change *change;
	int64_t same;
	int r = sql_value(catalog->db, &same, err,
			  "SELECT text = ?1 FROM leaf WHERE app = 0 AND name = ?2"
			  " ORDER BY node DESC LIMIT 1",
			  "tt", text, name);

	if (r < 0 || (r > 0 && same))
		return r < 0 ? r : 0;
	change = change_add(changes, CHANGE_TEXT);
	if (!change)
		return error_set(err, -ENOMEM, "not enough memory");
	snprintf(change->name, sizeof(change->name), "%s", name);
	change->time_ns = now_ns;
	change->text = strdup(text);
	if (!change->text)
		return error_set(err, -ENOMEM, "not enough memory");
	return leaf_new(catalog, 0, name, text, now_ns, CATALOG_TEXTS_KEPT, &change->node,
			err);
}

static int settle_text(struct catalog *catalog, const char *name, const char *text,
		       struct change_list *changes, struct error *err)
{
	cleanup(transaction_end) struct transaction tx = {0};
	size_t before = changes->count;
	int r = transaction_begin(catalog, &tx, err);

	if (r == 0)
		r = text_settle(catalog, name, text, clock_wall_ns(), changes, err);
	/* Without a change there is nothing to commit. */
	if (r == 0 && changes->count > before)
		r = transaction_commit(&tx, err);
	return r;
}

int catalog_settle_version(struct catalog *catalog, const char *program_version,
			   struct change_list *changes, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	char text[64];

	snprintf(text, sizeof(text), "%s\n", program_version);
	return settle_text(catalog, "version", text, changes, err);
}

int catalog_settle_status(struct catalog *catalog, struct change_list *changes,
			  struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	struct error why = {0};
	cleanup(free_ptr) char *text = status_text(catalog, &why);

	if (!text)
		return error_set(err, why.code, "%s", why.text);
	return settle_text(catalog, "status.json", text, changes, err);
}

int settle(struct catalog *catalog, const struct app_row *app, int64_t now_ns,
	   struct change_list *changes, struct error *err)
{
	int r = sql_run(catalog->db, err, "UPDATE app SET changed_ns = ?2 WHERE id = ?1",
			"ii", app->id, now_ns);

	if (r == 0)
		r = settle_previous(catalog, app, now_ns, changes, err);
	return r;
}

int previous_settle(struct catalog *catalog, const char *app, struct change_list *changes,
		    struct error *err)
{
	struct target is, should;
	struct app_row row;
	int r = app_find(catalog, app, &row, err);

	if (r == 0)
		r = channel_target(catalog, row.id, CHANNEL_PREVIOUS, &is, err);
	if (r == 0)
		r = go_back(catalog, row.id, CHANNEL_DEFAULT, NEWEST, &should, err);
	if (r < 0 || is.version == should.version)
		return r;
	return settle(catalog, &row, clock_wall_ns(), changes, err);
}

static int generation_append(struct catalog *catalog, const struct app_row *app,
			     const char *channel, const char *verb,
			     const struct target *from, const struct target *to,
			     const char *who, const char *reason, int64_t now_ns,
			     uint64_t *ret, struct error *err)
{
	int64_t number;
	int r = sql_value(catalog->db, &number, err,
			  "INSERT INTO generation VALUES(?1, ?2,"
			  " 1 + (SELECT coalesce(max(number), 0) FROM generation"
			  "  WHERE app = ?1 AND channel = ?2),"
			  " ?3, ?4, ?5, nullif(?6, 0), ?7, ?8, 'ok') RETURNING number",
			  "itittiit", app->id, channel, now_ns, who, verb, from->version,
			  to->version, reason);

	if (r <= 0)
		return r < 0 ? r
			     : error_set(err, -EIO, "the catalog refused a generation");
	*ret = (uint64_t)number;
	return 0;
}

/* The steps of a flip and of a rollback that are the same; inside a transaction. */
static int point(struct catalog *catalog, const struct app_row *app, const char *channel,
		 const char *verb, const struct target *from, const struct target *to,
		 const char *who, const char *reason, const char *key, struct flip *ret,
		 struct change_list *changes, struct error *err)
{
	int64_t now_ns = clock_wall_ns();
	struct target previous;
	int r = generation_append(catalog, app, channel, verb, from, to, who, reason,
				  now_ns, &ret->generation, err);

	if (r == 0)
		r = channel_point(catalog, app, channel, to->version, to->name, now_ns,
				  changes, err);
	if (r == 0)
		r = settle(catalog, app, now_ns, changes, err);
	if (r == 0)
		r = request_add(catalog, key, app->id, channel, (int64_t)ret->generation,
				ret->note, err);
	if (r == 0)
		r = go_back(catalog, app->id, channel, NEWEST, &previous, err);
	if (r < 0)
		return r;
	ret->changed = true;
	memcpy(ret->app, app->name, sizeof(ret->app));
	snprintf(ret->channel, sizeof(ret->channel), "%s", channel);
	memcpy(ret->from, from->name, sizeof(ret->from));
	memcpy(ret->to, to->name, sizeof(ret->to));
	memcpy(ret->previous, previous.name, sizeof(ret->previous));
	return 0;
}

/* Whether there may be such a channel beside the versions of the app. */
static int check_channel(struct catalog *catalog, const struct app_row *app,
			 const char *channel, struct error *err)
{
	int64_t there;
	int r;

	if (!strcmp(channel, CHANNEL_PREVIOUS))
		return error_set(
			err, -EINVAL,
			"'previous' follows from the history and cannot be flipped");
	r = sql_value(catalog->db, &there, err,
		      "SELECT 1 FROM version WHERE app = ?1 AND name = ?2", "it", app->id,
		      channel);
	if (r > 0)
		return error_set(err, -EINVAL,
				 "a channel cannot be called '%s': '%s' has a version of "
				 "that name",
				 channel, app->name);
	return r;
}

static int clear_bad(struct catalog *catalog, const struct version *version,
		     struct flip *ret, struct error *err)
{
	int r;

	if (!version->bad)
		return 0;
	r = sql_run(catalog->db, err,
		    "UPDATE version SET bad = 0, bad_reason = '' WHERE id = ?1", "i",
		    version->id);
	snprintf(ret->note, sizeof(ret->note),
		 "version '%s' was marked bad (%s); the mark is cleared", version->name,
		 version->bad_reason);
	return r;
}

/* The names that a change of the channel touched. Who did it may just be telling the
 * kernel, or have died before: the reply to a repetition must not come before either. */
static int retell(const struct app_row *app, const char *channel,
		  struct change_list *changes, struct error *err)
{
	const struct change touched[] = {
		{.kind = CHANGE_LINK, .app_node = app->node},
		{.kind = CHANGE_LINK, .app_node = app->node},
	};
	const char *const names[] = {channel, CHANNEL_PREVIOUS};

	for (size_t i = 0; i < sizeof(touched) / sizeof(touched[0]); i++) {
		struct change *change = change_add(changes, touched[i].kind);

		if (!change)
			return error_set(err, -ENOMEM, "not enough memory");
		*change = touched[i];
		snprintf(change->app, sizeof(change->app), "%s", app->name);
		snprintf(change->name, sizeof(change->name), "%s", names[i]);
	}
	return 0;
}

/* What the generation of a request did, if it is the one that is asked for again. */
static int generation_read(struct catalog *catalog, const struct request *request,
			   const char *verb, const char *version, struct flip *ret,
			   struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r = sql_query(
		catalog->db, &row, err,
		"SELECT (SELECT name FROM version WHERE id = from_version),"
		" (SELECT name FROM version WHERE id = to_version)"
		" FROM generation"
		" WHERE app = ?1 AND channel = ?2 AND number = ?3 AND verb = ?4",
		"itit", request->app, request->channel, request->number, verb);

	if (r == 0)
		r = sql_step_row(row, err);
	if (r < 0)
		return r;
	if (r == 0)
		return request_other(err);
	sql_text(row, 0, ret->from, sizeof(ret->from));
	sql_text(row, 1, ret->to, sizeof(ret->to));
	return version && strcmp(version, ret->to) ? request_other(err) : 0;
}

/* The answer to a flip (@version) or rollback (NULL) that was made already: 1; 0 it was
 * not. */
static int point_again(struct catalog *catalog, const struct app_row *app,
		       const char *channel, const char *verb, const char *version,
		       const char *key, struct flip *ret, struct change_list *changes,
		       struct error *err)
{
	struct request request;
	struct target previous;
	int r = request_find(catalog, key, &request, err);

	if (r <= 0)
		return r;
	if (request.app != app->id || strcmp(request.channel, channel))
		return request_other(err);
	r = generation_read(catalog, &request, verb, version, ret, err);
	if (r == 0)
		r = go_back(catalog, app->id, channel, request.number, &previous, err);
	if (r == 0)
		r = retell(app, channel, changes, err);
	if (r < 0)
		return r;
	ret->changed = ret->repeated = true;
	ret->generation = (uint64_t)request.number;
	memcpy(ret->app, app->name, sizeof(ret->app));
	memcpy(ret->channel, request.channel, sizeof(ret->channel));
	memcpy(ret->previous, previous.name, sizeof(ret->previous));
	memcpy(ret->note, request.note, sizeof(ret->note));
	return 1;
}

static void note_damage(const struct version *version, struct flip *ret)
{
	size_t size = strlen(ret->note);

	if (*version->damage)
		snprintf(ret->note + size, sizeof(ret->note) - size,
			 "%sversion '%s' is damaged on this disk (%.150s): "
			 "'deployctl repair %s' mends it",
			 size ? "; " : "", version->name, version->damage, version->app);
}

int catalog_flip(struct catalog *catalog, const char *app, const char *channel,
		 const char *version, const char *who, const char *reason,
		 const char *key, struct flip *ret, struct change_list *changes,
		 struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(transaction_end) struct transaction tx = {0};
	struct version known;
	struct target from, to;
	struct app_row row;
	int r = transaction_begin(catalog, &tx, err);

	*ret = (struct flip){0};
	if (r == 0)
		r = app_find(catalog, app, &row, err);
	if (r == 0)
		r = point_again(catalog, &row, channel, "flip", version, key, ret,
				changes, err);
	if (r != 0)
		return r < 0 ? r : 0;
	r = check_channel(catalog, &row, channel, err);
	if (r == 0)
		r = version_find_present(catalog, app, version, &known, err);
	if (r == 0)
		r = channel_target(catalog, row.id, channel, &from, err);
	if (r == 0)
		r = clear_bad(catalog, &known, ret, err);
	if (r < 0)
		return r;
	note_damage(&known, ret);
	to = (struct target){.version = known.id};
	memcpy(to.name, known.name, sizeof(to.name));
	if (from.version != to.version || known.bad) {
		r = point(catalog, &row, channel, "flip", &from, &to, who, reason, key,
			  ret, changes, err);
		return r < 0 ? r : transaction_commit(&tx, err);
	}
	snprintf(ret->app, sizeof(ret->app), "%s", app);
	snprintf(ret->channel, sizeof(ret->channel), "%s", channel);
	memcpy(ret->from, from.name, sizeof(ret->from));
	memcpy(ret->to, to.name, sizeof(ret->to));
	return 0;
}

/* Another channel that points at the version, for a warning; "" when there is none. */
static int other_channel(struct catalog *catalog, int64_t app, const char *channel,
			 int64_t version, char *ret, size_t size, struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r = sql_query(catalog->db, &row, err,
			  "SELECT name FROM channel WHERE app = ?1 AND version = ?2"
			  " AND name NOT IN (?3, 'previous') ORDER BY name LIMIT 1",
			  "iit", app, version, channel);

	ret[0] = '\0';
	if (r == 0)
		r = sql_step_row(row, err);
	if (r > 0)
		sql_text(row, 0, ret, size);
	return r < 0 ? r : 0;
}

/* The mark belongs to the application: it counts for its other channels too. */
static int mark_bad(struct catalog *catalog, const struct app_row *app,
		    const struct target *version, const char *channel, const char *reason,
		    struct flip *ret, struct error *err)
{
	char text[256], other[NAME_LENGTH_MAX + 1];
	int r = other_channel(catalog, app->id, channel, version->version, other,
			      sizeof(other), err);

	if (r < 0)
		return r;
	if (*reason)
		snprintf(text, sizeof(text), "rolled back: %.200s", reason);
	else
		snprintf(text, sizeof(text), "rolled back");
	snprintf(ret->note, sizeof(ret->note),
		 "version '%s' is marked bad now; a flip to it clears the mark%s%s%s",
		 version->name, *other ? "; '" : "", other,
		 *other ? "' still points at it, and no rollback will choose it" : "");
	return sql_run(catalog->db, err,
		       "UPDATE version SET bad = 1, bad_reason = ?2 WHERE id = ?1", "it",
		       version->version, text);
}

int catalog_rollback(struct catalog *catalog, const char *app, const char *channel,
		     const char *who, const char *reason, const char *key,
		     struct flip *ret, struct change_list *changes, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(transaction_end) struct transaction tx = {0};
	struct version known;
	struct target from, to;
	struct app_row row;
	int r = transaction_begin(catalog, &tx, err);

	*ret = (struct flip){0};
	if (r == 0)
		r = app_find(catalog, app, &row, err);
	if (r == 0)
		r = point_again(catalog, &row, channel, "rollback", NULL, key, ret,
				changes, err);
	if (r != 0)
		return r < 0 ? r : 0;
	r = check_channel(catalog, &row, channel, err);
	if (r == 0)
		r = channel_target(catalog, row.id, channel, &from, err);
	if (r == 0 && from.version == 0)
		r = error_set(
			err, -ENOENT,
			"'%s' has no channel '%s' that could be rolled back: flip it to a version first",
			app, channel);
	if (r == 0)
		r = go_back(catalog, row.id, channel, NEWEST, &to, err);
	if (r == 0 && to.version == 0)
		r = error_set(err, -ENOENT,
			      "'%s' has nothing to roll back to: no earlier version of "
			      "channel '%s' is present and not bad; 'deployctl list %s' "
			      "shows what could be flipped to",
			      app, channel, app);
	if (r == 0)
		r = mark_bad(catalog, &row, &from, channel, reason, ret, err);
	if (r == 0)
		r = version_find_present(catalog, app, to.name, &known, err);
	if (r == 0)
		note_damage(&known, ret);
	if (r == 0)
		r = point(catalog, &row, channel, "rollback", &from, &to, who, reason,
			  key, ret, changes, err);
	if (r == 0)
		r = transaction_commit(&tx, err);
	return r;
}

#define CHANNEL_COLUMNS                                            \
	"SELECT app.name, channel.name, version.name FROM channel" \
	" JOIN app ON app.id = channel.app"                        \
	" JOIN version ON version.id = channel.version "

int catalog_each_channel(struct catalog *catalog, const char *app,
			 int (*each)(void *context, const struct channel *channel),
			 void *context, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r = app ? sql_query(catalog->db, &row, err,
				CHANNEL_COLUMNS "WHERE app.name = ?1"
						" ORDER BY channel.name",
				"t", app)
		    : sql_query(catalog->db, &row, err,
				CHANNEL_COLUMNS "ORDER BY app.name, channel.name", "");

	while (r == 0 && (r = sql_step_row(row, err)) > 0) {
		struct channel channel;

		sql_text(row, 0, channel.app, sizeof(channel.app));
		sql_text(row, 1, channel.name, sizeof(channel.name));
		sql_text(row, 2, channel.version, sizeof(channel.version));
		r = each(context, &channel);
	}
	return r;
}

int catalog_history(struct catalog *catalog, const char *app, const char *channel,
		    int (*each)(void *context, const struct generation *generation),
		    void *context, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	bool any = false;
	struct app_row found;
	int r = app_find(catalog, app, &found, err);

	if (r == 0)
		r = sql_query(catalog->db, &row, err,
			      "SELECT number, time_ns, who, verb,"
			      " (SELECT name FROM version WHERE id = from_version),"
			      " (SELECT name FROM version WHERE id = to_version),"
			      " reason, result FROM generation"
			      " WHERE app = ?1 AND channel = ?2 ORDER BY number DESC",
			      "it", found.id, channel);
	while (r == 0 && (r = sql_step_row(row, err)) > 0) {
		struct generation generation = {
			.number = (uint64_t)sqlite3_column_int64(row, 0),
			.time_ns = sqlite3_column_int64(row, 1),
			.who = (const char *)sqlite3_column_text(row, 2),
			.verb = (const char *)sqlite3_column_text(row, 3),
			.from = (const char *)sqlite3_column_text(row, 4),
			.to = (const char *)sqlite3_column_text(row, 5),
			.reason = (const char *)sqlite3_column_text(row, 6),
			.result = (const char *)sqlite3_column_text(row, 7),
		};

		any = true;
		r = each(context, &generation);
	}
	if (r == 0 && !any && strcmp(channel, CHANNEL_DEFAULT))
		return error_set(err, -ENOENT, "'%s' has no channel '%s'", app, channel);
	return r;
}

/* Rows as changes: kind-specific columns are app, name, app node, node, pack, times,
 * text. */
static int each_row_as_change(struct catalog *catalog, enum change_kind kind,
			      const char *query,
			      int (*each)(void *context, const struct change *change),
			      void *context, struct error *err)
{
	cleanup(sql_finalize_ptr) sqlite3_stmt *row = NULL;
	int r = sql_query(catalog->db, &row, err, query, "");

	while (r == 0 && (r = sql_step_row(row, err)) > 0) {
		struct change change = {
			.kind = kind,
			.app_node = (uint64_t)sqlite3_column_int64(row, 2),
			.node = (uint64_t)sqlite3_column_int64(row, 3),
			.pack = (uint64_t)sqlite3_column_int64(row, 4),
			.time_ns = sqlite3_column_int64(row, 5),
			.app_time_ns = sqlite3_column_int64(row, 6),
			.text = (char *)sqlite3_column_text(row, 7),
		};

		sql_text(row, 0, change.app, sizeof(change.app));
		sql_text(row, 1, change.name, sizeof(change.name));
		if (sqlite3_column_type(row, 0) != SQLITE_NULL || kind == CHANGE_TEXT)
			r = each(context, &change);
	}
	return r;
}

/* Queries whose rows are changes, in the order in which they are to be shown. */
struct change_query {
	enum change_kind kind;
	const char *text;
};

static const struct change_query present[] = {
	{CHANGE_APP, "SELECT name, '', node, 0, 0, made_ns, changed_ns, NULL"
		     " FROM app ORDER BY node"},
	{CHANGE_VERSION,
	 "SELECT app.name, version.name, app.node, pack.first_node + pack.node_count,"
	 " pack.id, version.imported_ns, app.changed_ns, NULL"
	 " FROM version JOIN app ON app.id = version.app"
	 " JOIN pack ON pack.id = version.pack WHERE version.state = 0"},
	{CHANGE_LINK,
	 "SELECT app.name, channel.name, app.node, channel.node, 0, channel.changed_ns,"
	 " app.changed_ns, version.name"
	 " FROM channel JOIN app ON app.id = channel.app"
	 " JOIN version ON version.id = channel.version"},
	{CHANGE_TEXT,
	 "SELECT '', name, 0, node, 0, time_ns, 0, text FROM leaf WHERE app = 0"
	 " AND node IN (SELECT max(node) FROM leaf WHERE app = 0 GROUP BY name)"},
};

static const struct change_query given_out[] = {
	{CHANGE_TEXT, "SELECT '', name, 0, node, 0, time_ns, 0, text FROM leaf"
		      " WHERE app = 0 ORDER BY node"},
	{CHANGE_LINK, "SELECT app.name, leaf.name, app.node, leaf.node, 0, leaf.time_ns,"
		      " app.changed_ns, leaf.text"
		      " FROM leaf JOIN app ON app.id = leaf.app ORDER BY leaf.node"},
};

static int each_query(struct catalog *catalog, const struct change_query *queries,
		      size_t count,
		      int (*each)(void *context, const struct change *change),
		      void *context, struct error *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < count; i++)
		r = each_row_as_change(catalog, queries[i].kind, queries[i].text, each,
				       context, err);
	return r;
}

int catalog_each_change(struct catalog *catalog,
			int (*each)(void *context, const struct change *change),
			void *context, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);

	return each_query(catalog, present, sizeof(present) / sizeof(present[0]), each,
			  context, err);
}

int catalog_each_leaf(struct catalog *catalog,
		      int (*each)(void *context, const struct change *change),
		      void *context, struct error *err)
{
	cleanup(catalog_unlock) struct catalog *locked = catalog_lock(catalog);

	return each_query(catalog, given_out, sizeof(given_out) / sizeof(given_out[0]),
			  each, context, err);
}

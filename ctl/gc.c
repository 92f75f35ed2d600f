/* SPDX-License-Identifier: Apache-2.0 */
#include "print.h"
#include "reply.h"
#include "table.h"
#include "verbs.h"

#include <stdio.h>
#include <string.h>

enum {
	OPTION_DRY_RUN,
};

static const struct verb_option options[] = {
	[OPTION_DRY_RUN] = {"dry-run", 0, NULL, "only say what would be done"},
	{0},
};

static const struct column columns[] = {
	{"APP", false}, {"VERSION", false}, {"ACTION", false},
	{"SIZE", true}, {"REASON", false},
};

#define COLUMN_COUNT (sizeof(columns) / sizeof(columns[0]))

static int add_row(struct table *table, const char *app, const char *version,
		   json_t *json, struct error *err)
{
	const char *cells[COLUMN_COUNT] = {app, version};
	json_t *bytes;
	char size[32];
	int r;

	r = reply_read(json, err, "{s:s, s:o, s:s}", "action", &cells[2], "bytes", &bytes,
		       "reason", &cells[4]);
	if (r < 0)
		return r;
	cells[3] = reply_size(bytes, size);
	return table_add(table, cells, err);
}

static int add_versions(struct table *table, json_t *versions, struct error *err)
{
	const char *app, *version;
	json_t *one;
	size_t i;
	int r = 0;

	json_array_foreach (versions, i, one) {
		r = reply_read(one, err, "{s:s, s:s}", "app", &app, "version", &version);
		if (r == 0)
			r = add_row(table, app, version, one, err);
		if (r < 0)
			break;
	}
	return r;
}

static int add_partials(struct table *table, json_t *partials, struct error *err)
{
	const char *file;
	json_t *one;
	size_t i;
	int r = 0;

	json_array_foreach (partials, i, one) {
		r = reply_read(one, err, "{s:s}", "file", &file);
		if (r == 0)
			r = add_row(table, "(partial)", file, one, err);
		if (r < 0)
			break;
	}
	return r;
}

static size_t count_removals(const json_t *versions)
{
	size_t count = 0, i;
	json_t *one;

	json_array_foreach (versions, i, one) {
		const char *action = json_string_value(json_object_get(one, "action"));

		count += action && !strcmp(action, "remove");
	}
	return count;
}

static int print_gc(json_t *reply, struct error *err)
{
	cleanup(table_done) struct table table;
	json_t *versions, *partials, *freed;
	char text[32];
	int dry_run;
	int r;

	table_init(&table, columns, COLUMN_COUNT);
	r = reply_read(reply, err, "{s:b, s:o, s:o, s:o}", "dry_run", &dry_run,
		       "versions", &versions, "partials", &partials, "freed_bytes",
		       &freed);
	if (r == 0)
		r = add_versions(&table, versions, err);
	if (r == 0)
		r = add_partials(&table, partials, err);
	if (r < 0)
		return r;
	table_print(&table, stdout);
	if (dry_run)
		print_line(stdout, "%zu would be removed; nothing was removed",
			   count_removals(versions));
	else
		print_line(stdout, "%s given back", reply_size(freed, text));
	return 0;
}

static int run(struct command *command, struct error *err)
{
	cleanup(json_decrefp) json_t *body = NULL, *reply = NULL;
	cleanup(free_ptr) char *url = NULL;
	int r;

	r = client_url(&url, err, "/v1/gc", NULL);
	if (r == 0)
		r = body_make(&body, err, "{s:b}", "dry_run",
			      command->values[OPTION_DRY_RUN] != NULL);
	if (r == 0)
		r = command_call(command, "POST", url, body, &reply, err);
	if (r < 0 || command->json)
		return r;
	return print_gc(reply, err);
}

const struct verb verb_gc = {
	.name = "gc",
	.synopsis = "[--dry-run]",
	.summary = "remove what nothing keeps",
	.help = "Remove the versions that nothing keeps, and partial downloads; say for "
		"each why\n"
		"it stays or goes.",
	.options = options,
	.arguments_min = 0,
	.arguments_max = 0,
	.run = run,
};

/* SPDX-License-Identifier: Apache-2.0 */
#include "print.h"
#include "reply.h"
#include "table.h"
#include "verbs.h"

#include <stdio.h>

enum {
	OPTION_CHANNEL,
};

static const struct verb_option options[] = {
	[OPTION_CHANNEL] = {"channel", 0, "NAME", "whose generations; default: current"},
	{0},
};

static const struct column columns[] = {
	{"GENERATION", true}, {"TIME", false}, {"WHO", false},    {"VERB", false},
	{"FROM", false},      {"TO", false},   {"RESULT", false}, {"REASON", false},
};

#define COLUMN_COUNT (sizeof(columns) / sizeof(columns[0]))

static int add_generation(struct table *table, json_t *json, struct error *err)
{
	const char *cells[COLUMN_COUNT];
	char number[24];
	json_int_t generation;
	json_t *from, *reason;
	int r;

	r = reply_read(json, err, "{s:I, s:s, s:s, s:s, s:o, s:s, s:s, s:o}",
		       "generation", &generation, "time", &cells[1], "who", &cells[2],
		       "verb", &cells[3], "from", &from, "to", &cells[5], "result",
		       &cells[6], "reason", &reason);
	if (r < 0)
		return r;
	snprintf(number, sizeof(number), "%jd", (intmax_t)generation);
	cells[0] = number;
	cells[4] = reply_text(from, "-");
	cells[7] = reply_text(reason, "");
	return table_add(table, cells, err);
}

static int print_history(json_t *reply, struct error *err)
{
	cleanup(table_done) struct table table;
	json_t *generations, *generation;
	size_t i;
	int r;

	table_init(&table, columns, COLUMN_COUNT);
	r = reply_read(reply, err, "{s:o}", "generations", &generations);
	if (r < 0)
		return r;
	json_array_foreach (generations, i, generation) {
		r = add_generation(&table, generation, err);
		if (r < 0)
			return r;
	}
	table_print(&table, stdout);
	if (table.cell_count == 0)
		print_line(stdout, "the channel has never pointed at anything");
	return 0;
}

static int run(struct command *command, struct error *err)
{
	const char *app = command->arguments[0];
	const char *channel = command->values[OPTION_CHANNEL];
	cleanup(json_decrefp) json_t *reply = NULL;
	cleanup(free_ptr) char *url = NULL;
	int r;

	r = command_check_name(command, "app", app, err);
	if (r == 0)
		r = command_check_name(command, "channel", channel, err);
	if (r == 0)
		r = client_url(&url, err, "/v1/apps/", app,
			       "/history?channel=", channel ? channel : "current", NULL);
	if (r == 0)
		r = command_call(command, "GET", url, NULL, &reply, err);
	if (r < 0 || command->json)
		return r;
	return print_history(reply, err);
}

const struct verb verb_history = {
	.name = "history",
	.synopsis = "APP [--channel NAME]",
	.summary = "where a channel pointed, when, who, why",
	.help = "Generations of a channel: when, who, from, to, why, result. Newest "
		"first.",
	.options = options,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};

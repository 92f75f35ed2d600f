/* SPDX-License-Identifier: Apache-2.0 */
#include "print.h"
#include "reply.h"
#include "table.h"
#include "verbs.h"

#include <stdio.h>

enum {
	OPTION_AVAILABLE,
};

static const struct verb_option options[] = {
	[OPTION_AVAILABLE] = {"available", 0, NULL, "what the origin has of APP"},
	{0},
};

static const struct column columns[] = {
	{"APP", false}, {"VERSION", false}, {"CHANNELS", false}, {"STATE", false},
	{"SIZE", true}, {"FILES", true},    {"IMPORTED", false}, {"MARKS", false},
};

static const struct column available_columns[] = {
	{"VERSION", false},
	{"FILE", false},
	{"HERE", false},
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* "current,previous" into @text, which is large enough for what people name. */
static const char *join_channels(json_t *channels, char *text, size_t room)
{
	json_t *channel;
	size_t i, size = 0;

	text[0] = '\0';
	json_array_foreach (channels, i, channel) {
		size += (size_t)snprintf(text + size, room - size, "%s%s", i ? "," : "",
					 reply_text(channel, "?"));
		if (size >= room)
			break;
	}
	return text;
}

static int add_version(struct table *table, const char *app, json_t *json,
		       struct error *err)
{
	static const char *const marks[] = {"", "pinned", "bad", "pinned,bad"};
	const char *version, *state, *imported;
	json_t *channels, *size, *files;
	char size_text[32], files_text[32], channel_text[512];
	int pinned, bad;
	int r;

	r = reply_read(json, err, "{s:s, s:s, s:o, s:b, s:b, s:o, s:o, s:s}", "version",
		       &version, "state", &state, "channels", &channels, "pinned",
		       &pinned, "bad", &bad, "unpacked_bytes", &size, "files", &files,
		       "imported", &imported);
	if (r < 0)
		return r;
	snprintf(files_text, sizeof(files_text), "%ju",
		 (uintmax_t)reply_number(files, 0));
	return table_add(table,
			 (const char *[]){app, version,
					  join_channels(channels, channel_text,
							sizeof(channel_text)),
					  state, reply_size(size, size_text), files_text,
					  imported,
					  marks[(pinned ? 1 : 0) + (bad ? 2 : 0)]},
			 err);
}

static int add_app(struct table *table, json_t *json, struct error *err)
{
	json_t *versions = NULL, *version;
	const char *name;
	size_t i;
	int r;

	r = reply_read(json, err, "{s:s, s:o}", "name", &name, "versions", &versions);
	json_array_foreach (versions, i, version) {
		if (r < 0)
			break;
		r = add_version(table, name, version, err);
	}
	return r;
}

static int print_apps(json_t *reply, const char *app, struct error *err)
{
	cleanup(table_done) struct table table;
	json_t *apps = NULL, *one;
	size_t i;
	int r;

	table_init(&table, columns, COUNT(columns));
	r = reply_read(reply, err, "{s:o}", app ? "app" : "apps", &apps);
	if (r == 0 && app)
		r = add_app(&table, apps, err);
	json_array_foreach (apps, i, one) {
		if (r < 0)
			break;
		r = add_app(&table, one, err);
	}
	if (r < 0)
		return r;
	table_print(&table, stdout);
	if (table.cell_count == 0)
		print_line(stdout,
			   "no version is here: 'deployctl fetch APP VERSION' gets one");
	return 0;
}

static int print_available(json_t *reply, struct error *err)
{
	cleanup(table_done) struct table table;
	const char *version, *file;
	json_t *versions = NULL, *one;
	int present;
	size_t i;
	int r;

	table_init(&table, available_columns, COUNT(available_columns));
	r = reply_read(reply, err, "{s:o}", "versions", &versions);
	json_array_foreach (versions, i, one) {
		if (r == 0)
			r = reply_read(one, err, "{s:s, s:s, s:b}", "version", &version,
				       "file", &file, "present", &present);
		if (r == 0)
			r = table_add(&table,
				      (const char *[]){version, file,
						       present ? "yes" : "no"},
				      err);
	}
	if (r < 0)
		return r;
	table_print(&table, stdout);
	if (table.cell_count == 0)
		print_line(stdout, "the origin lists no version of it");
	return 0;
}

static int run(struct command *command, struct error *err)
{
	const char *app = command->argument_count ? command->arguments[0] : NULL;
	const bool available = command->values[OPTION_AVAILABLE];
	cleanup(json_decrefp) json_t *reply = NULL;
	cleanup(free_ptr) char *url = NULL;
	int r;

	if (available && !app)
		return command_usage(command, err, "--available needs APP");
	r = command_check_name(command, "app", app, err);
	if (r < 0)
		return r;
	if (app)
		r = client_url(&url, err, "/v1/apps/", app,
			       available ? "/available" : NULL, NULL);
	else
		r = client_url(&url, err, "/v1/apps", NULL);
	if (r < 0)
		return r;
	r = command_call(command, "GET", url, NULL, &reply, err);
	if (r < 0 || command->json)
		return r;
	return available ? print_available(reply, err) : print_apps(reply, app, err);
}

const struct verb verb_list = {
	.name = "list",
	.synopsis = "[APP] [--available]",
	.summary = "versions on this machine, or at the origin",
	.help = "The versions on this machine: their channels, state, size and marks. "
		"With\n"
		"--available what the origin has of APP.",
	.options = options,
	.arguments_min = 0,
	.arguments_max = 1,
	.run = run,
};

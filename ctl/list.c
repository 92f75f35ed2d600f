/* SPDX-License-Identifier: Apache-2.0 */
#include "print.h"
#include "reply.h"
#include "table.h"
#include "verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum {
	OPTION_AVAILABLE,
	OPTION_IN_USE,
};

static const struct verb_option options[] = {
	[OPTION_AVAILABLE] = {"available", 0, NULL, "what the origin has of APP"},
	[OPTION_IN_USE] = {"in-use", 0, NULL, "who uses each version of APP"},
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

static int note_holder(struct table *table, json_t *json, struct error *err)
{
	cleanup(free_ptr) char *text = NULL;
	json_t *container, *known;
	const char *name, *how;
	json_int_t pid;
	int r;

	r = reply_read(json, err, "{s:I, s:s, s:o, s:s}", "pid", &pid, "name", &name,
		       "container", &container, "how", &how);
	if (r < 0)
		return r;
	known = json_is_string(container) ? container : NULL;
	if (asprintf(&text, "in use by pid %jd (%s)%s%s: %s", (intmax_t)pid, name,
		     known ? " in container " : "", reply_text(known, ""), how) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	return table_note(table, text, err);
}

/* Who holds a version; nothing where the daemon has not looked, or knows no such member.
 */
static int note_holders(struct table *table, const char *state, json_t *version,
			struct error *err)
{
	json_t *holders = json_object_get(version, "in_use"), *holder;
	size_t i;
	int r = 0;

	json_array_foreach (holders, i, holder) {
		r = note_holder(table, holder, err);
		if (r < 0)
			return r;
	}
	if (json_is_array(holders) && i == 0 && !strcmp(state, "removing"))
		r = table_note(table,
			       "about to be freed, or held by what /proc does not show: "
			       "an overlay, say",
			       err);
	return r;
}

static int add_version(struct table *table, const char *app, json_t *json,
		       struct error *err)
{
	const char *version, *state, *imported;
	json_t *channels, *size, *files;
	char size_text[32], files_text[32], channel_text[512], marks[32];
	int pinned, bad;
	int r;

	r = reply_read(json, err, "{s:s, s:s, s:o, s:b, s:b, s:o, s:o, s:s}", "version",
		       &version, "state", &state, "channels", &channels, "pinned",
		       &pinned, "bad", &bad, "unpacked_bytes", &size, "files", &files,
		       "imported", &imported);
	if (r < 0)
		return r;
	snprintf(marks, sizeof(marks), "%s%s%s", pinned ? ",pinned" : "",
		 bad ? ",bad" : "",
		 json_is_string(json_object_get(json, "damaged")) ? ",damaged" : "");
	snprintf(files_text, sizeof(files_text), "%ju",
		 (uintmax_t)reply_number(files, 0));
	r = table_add(table,
		      (const char *[]){app, version,
				       join_channels(channels, channel_text,
						     sizeof(channel_text)),
				       state, reply_size(size, size_text), files_text,
				       imported, marks + (*marks == ',')},
		      err);
	return r < 0 ? r : note_holders(table, state, json, err);
}

/* What the mark means, below the table. */
static void print_damage(json_t *app)
{
	json_t *version;
	size_t i;

	json_array_foreach (json_object_get(app, "versions"), i, version) {
		const char *damage =
			reply_text(json_object_get(version, "damaged"), NULL);

		if (damage)
			print_line(stdout, "%s %s is damaged on this disk: %s",
				   reply_text(json_object_get(app, "name"), "?"),
				   reply_text(json_object_get(version, "version"), "?"),
				   damage);
	}
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
	if (app)
		print_damage(apps);
	json_array_foreach (apps, i, one)
		print_damage(one);
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
	const bool in_use = command->values[OPTION_IN_USE];
	cleanup(json_decrefp) json_t *reply = NULL;
	cleanup(free_ptr) char *url = NULL;
	int r;

	if (available && !app)
		return command_usage(command, err, "--available needs APP");
	if (in_use && !app)
		return command_usage(command, err, "--in-use needs APP");
	if (in_use && available)
		return command_usage(command, err,
				     "--in-use and --available do not go together");
	r = command_check_name(command, "app", app, err);
	if (r < 0)
		return r;
	if (app)
		r = client_url(&url, err, "/v1/apps/", app,
			       available ? "/available"
			       : in_use  ? "?in_use=true"
					 : NULL,
			       NULL);
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
	.synopsis = "[APP] [--available | --in-use]",
	.summary = "versions on this machine, or at the origin",
	.help = "The versions on this machine: their channels, state, size and marks. "
		"With\n"
		"--available what the origin has of APP. Below a version that is being "
		"removed\n"
		"stands who still holds it; with --in-use below every version of APP.",
	.options = options,
	.arguments_min = 0,
	.arguments_max = 1,
	.run = run,
};

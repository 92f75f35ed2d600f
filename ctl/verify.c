/* SPDX-License-Identifier: Apache-2.0 */
#include "job.h"
#include "print.h"
#include "progress.h"
#include "reply.h"
#include "table.h"
#include "verbs.h"

#include <errno.h>

enum {
	OPTION_PROGRESS,
};

static const struct verb_option options[] = {
	[OPTION_PROGRESS] = {"progress", 0, "KIND", "auto, bar, plain, json or none"},
	{0},
};

static const struct column columns[] = {
	{"VERSION", false},
	{"PATH", false},
	{"PROBLEM", false},
};

#define COLUMN_COUNT (sizeof(columns) / sizeof(columns[0]))

static int print_bad(json_t *bad, struct error *err)
{
	cleanup(table_done) struct table table;
	const char *cells[COLUMN_COUNT];
	json_t *one;
	size_t i;
	int r;

	table_init(&table, columns, COLUMN_COUNT);
	json_array_foreach (bad, i, one) {
		r = reply_read(one, err, "{s:s, s:s, s:s}", "version", &cells[0], "path",
			       &cells[1], "problem", &cells[2]);
		if (r == 0)
			r = table_add(&table, cells, err);
		if (r < 0)
			return r;
	}
	table_print(&table, stdout);
	return 0;
}

static int print_result(const struct job *job, struct error *err)
{
	json_int_t versions, files;
	json_t *bytes, *bad;
	char text[32];
	int r;

	r = reply_read(job->result, err, "{s:I, s:I, s:o, s:o}", "versions", &versions,
		       "files", &files, "bytes", &bytes, "bad", &bad);
	if (r < 0)
		return r;
	r = print_bad(bad, err);
	if (r < 0)
		return r;
	print_line(stdout, "%s: %jd version%s, %jd files, %s read: %s", job->app,
		   (intmax_t)versions, versions == 1 ? "" : "s", (intmax_t)files,
		   reply_size(bytes, text),
		   json_array_size(bad) ? "damaged" : "all as it should be");
	return 0;
}

static int verify_app(struct command *command, const char *app, const char *version,
		      struct error *err)
{
	cleanup(json_decrefp) json_t *body = NULL, *reply = NULL;
	struct job job;
	int r;

	r = body_make(&body, err, "{s:s*}", "version", version);
	if (r < 0)
		return r;
	r = job_run(command, app, "verify", body, command->values[OPTION_PROGRESS],
		    &reply, &job, err);
	if (command->json || (r < 0 && r != -EBADMSG) || !reply)
		return r;
	if (json_is_object(job.result) && print_result(&job, err) < 0)
		return err->code;
	return r;
}

/* Damage in one app does not keep the others from being looked at. */
static int verify_each(struct command *command, json_t *apps, struct error *err)
{
	unsigned damaged = 0;
	const char *name;
	json_t *app;
	size_t i;
	int r;

	json_array_foreach (apps, i, app) {
		r = reply_read(app, err, "{s:s}", "name", &name);
		if (r == 0)
			r = verify_app(command, name, NULL, err);
		if (r < 0 && r != -EBADMSG)
			return r;
		if (r < 0 && !command->json)
			print_line(stderr, "deployctl: %s", err->text);
		damaged += r < 0;
	}
	if (damaged)
		return error_set(err, -EBADMSG, "%u of %zu apps are damaged", damaged,
				 json_array_size(apps));
	return 0;
}

static int verify_all(struct command *command, struct error *err)
{
	cleanup(json_decrefp) json_t *reply = NULL;
	cleanup(free_ptr) char *url = NULL;
	json_t *apps;
	int r;

	r = client_url(&url, err, "/v1/apps", NULL);
	if (r < 0)
		return r;
	r = client_request(command->client, "GET", url, NULL, &reply, err);
	if (r < 0) {
		command_show(command, reply);
		return r;
	}
	r = reply_read(reply, err, "{s:o}", "apps", &apps);
	if (r < 0)
		return r;
	if (json_array_size(apps) == 0 && !command->json)
		print_line(stdout, "no version is here: there is nothing to verify");
	return verify_each(command, apps, err);
}

static int run(struct command *command, struct error *err)
{
	const unsigned count = command->argument_count;
	const char *app = count > 0 ? command->arguments[0] : NULL;
	const char *version = count > 1 ? command->arguments[1] : NULL;
	int r;

	if (!progress_valid(command->values[OPTION_PROGRESS]))
		return command_usage(command, err, "'%s' is no kind of progress",
				     command->values[OPTION_PROGRESS]);
	r = command_check_name(command, "app", app, err);
	if (r == 0)
		r = command_check_name(command, "version", version, err);
	if (r < 0)
		return r;
	return app ? verify_app(command, app, version, err) : verify_all(command, err);
}

const struct verb verb_verify = {
	.name = "verify",
	.synopsis = "[APP [VERSION]] [--progress KIND]",
	.summary = "read what is stored and compare it with its checksums",
	.help = "Read everything that is stored for a version, an app, or all, and "
		"compare it\n"
		"with its checksums. --json prints one object an app.",
	.options = options,
	.arguments_min = 0,
	.arguments_max = 2,
	.run = run,
};

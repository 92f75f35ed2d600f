/* SPDX-License-Identifier: Apache-2.0 */
#include "job.h"
#include "progress.h"
#include "reply.h"
#include "verbs.h"

enum {
	OPTION_LATEST,
	OPTION_PROGRESS,
};

static const struct verb_option options[] = {
	[OPTION_LATEST] =
		{"latest", 0, NULL,
		 "the newest version of the origin, no bad one, no pre-release"},
	[OPTION_PROGRESS] = {"progress", 0, "KIND", "auto, bar, plain, json or none"},
	{0},
};

static int check(const struct command *command, struct error *err)
{
	const bool latest = command->values[OPTION_LATEST];
	int r;

	r = command_check_name(command, "app", command->arguments[0], err);
	if (r < 0)
		return r;
	if (latest == (command->argument_count == 2))
		return command_usage(command, err, "it needs either VERSION or --latest");
	if (!progress_valid(command->values[OPTION_PROGRESS]))
		return command_usage(command, err, "'%s' is no kind of progress",
				     command->values[OPTION_PROGRESS]);
	return latest ? 0
		      : command_check_name(command, "version", command->arguments[1],
					   err);
}

static int run(struct command *command, struct error *err)
{
	cleanup(json_decrefp) json_t *body = NULL, *reply = NULL;
	struct job job;
	int r;

	r = check(command, err);
	if (r < 0)
		return r;
	if (command->values[OPTION_LATEST])
		r = body_make(&body, err, "{s:b}", "latest", true);
	else
		r = body_make(&body, err, "{s:s}", "version", command->arguments[1]);
	if (r < 0)
		return r;
	r = job_run(command, command->arguments[0], "fetch", body,
		    command->values[OPTION_PROGRESS], &reply, &job, err);
	return r < 0 ? r : job_report_package(command, &job, err);
}

const struct verb verb_fetch = {
	.name = "fetch",
	.synopsis = "APP VERSION | APP --latest [--progress KIND]",
	.summary = "download a version from the origin into the store",
	.help = "Download a version from the origin, check it, unpack it into the store. "
		"It is\n"
		"then mounted as apps/APP/VERSION; no channel is moved. Ctrl-C cancels, "
		"unless\n"
		"another client waits for the same version; the next fetch goes on from "
		"what is\n"
		"already there.",
	.options = options,
	.arguments_min = 1,
	.arguments_max = 2,
	.run = run,
};

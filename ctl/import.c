/* SPDX-License-Identifier: Apache-2.0 */
#include "job.h"
#include "progress.h"
#include "reply.h"
#include "verbs.h"

#include <errno.h>
#include <string.h>

enum {
	OPTION_APP,
	OPTION_VERSION,
	OPTION_SHA256,
	OPTION_PROGRESS,
};

static const struct verb_option options[] = {
	[OPTION_APP] = {"app", 0, "APP", "the application"},
	[OPTION_VERSION] = {"version", 0, "VERSION", "the version that the archive is"},
	[OPTION_SHA256] = {"sha256", 0, "SUM",
			   "what the archive must have, 64 hex digits"},
	[OPTION_PROGRESS] = {"progress", 0, "KIND", "auto, bar, plain, json or none"},
	{0},
};

static bool sum_valid(const char *sum)
{
	return !sum || (strlen(sum) == 64 && strspn(sum, "0123456789abcdefABCDEF") == 64);
}

static int check(const struct command *command, struct error *err)
{
	const char *const *values = command->values;
	int r;

	if (!values[OPTION_APP] || !values[OPTION_VERSION])
		return command_usage(command, err, "it needs --app and --version");
	r = command_check_name(command, "app", values[OPTION_APP], err);
	if (r < 0)
		return r;
	r = command_check_name(command, "version", values[OPTION_VERSION], err);
	if (r < 0)
		return r;
	if (!sum_valid(values[OPTION_SHA256]))
		return command_usage(command, err, "'%.80s' is no SHA-256 in hex",
				     values[OPTION_SHA256]);
	if (!progress_valid(values[OPTION_PROGRESS]))
		return command_usage(command, err, "'%s' is no kind of progress",
				     values[OPTION_PROGRESS]);
	return 0;
}

static int run(struct command *command, struct error *err)
{
	cleanup(json_decrefp) json_t *body = NULL, *reply = NULL;
	cleanup(free_ptr) char *file = NULL;
	struct job job;
	int r;

	r = check(command, err);
	if (r < 0)
		return r;
	file = realpath(command->arguments[0], NULL);
	if (!file)
		return error_set(err, -errno, "cannot find the archive '%s': %s",
				 command->arguments[0], strerror(errno));
	r = body_make(&body, err, "{s:s, s:s, s:s*}", "version",
		      command->values[OPTION_VERSION], "file", file, "sha256",
		      command->values[OPTION_SHA256]);
	if (r < 0)
		return r;
	r = job_run(command, command->values[OPTION_APP], "import", body,
		    command->values[OPTION_PROGRESS], &reply, &job, err);
	return r < 0 ? r : job_report_package(command, &job, err);
}

const struct verb verb_import = {
	.name = "import",
	.synopsis = "FILE --app APP --version VERSION [--sha256 SUM] [--progress KIND]",
	.summary = "take a version from an archive on this machine",
	.help = "The same as fetch, from an archive on this machine. It is opened with "
		"your\n"
		"rights, not the daemon's.",
	.options = options,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};

/* SPDX-License-Identifier: Apache-2.0 */
#include "job.h"
#include "print.h"
#include "progress.h"
#include "reply.h"
#include "verbs.h"

#include <errno.h>

enum {
	OPTION_PROGRESS,
};

static const struct verb_option options[] = {
	[OPTION_PROGRESS] = {"progress", 0, "KIND", "auto, bar, plain, json or none"},
	{0},
};

static int print_result(const struct job *job, struct error *err)
{
	json_t *repaired, *one;
	json_int_t blocks;
	const char *from;
	size_t i;
	int r;

	r = reply_read(job->result, err, "{s:o}", "repaired", &repaired);
	if (r < 0)
		return r;
	json_array_foreach (repaired, i, one) {
		r = reply_read(one, err, "{s:s, s:I}", "from", &from, "blocks", &blocks);
		if (r < 0)
			return r;
		print_line(stdout, "%s %s: %jd block%s from %s", job->app,
			   job->version ? job->version : "?", (intmax_t)blocks,
			   blocks == 1 ? "" : "s", from);
	}
	if (!json_is_object(job->error))
		print_line(stdout, "%s %s: nothing is damaged any more", job->app,
			   job->version ? job->version : "?");
	return 0;
}

/* 0 repaired; -EALREADY nothing was damaged. What was mended is told of a failure too. */
static int repair_version(struct command *command, const char *app, const char *version,
			  struct error *err)
{
	cleanup(json_decrefp) json_t *body = NULL, *reply = NULL;
	struct error why;
	struct job job;
	int r;

	r = body_make(&body, err, "{s:s}", "version", version);
	if (r < 0)
		return r;
	r = job_run(command, app, "repair", body, command->values[OPTION_PROGRESS],
		    &reply, &job, err);
	if (!reply || !json_is_object(job.result))
		return r;
	if (r == 0 && !json_is_true(json_object_get(job.result, "changed")))
		return error_set(err, -EALREADY,
				 "%s: nothing of %s is known to be damaged; 'deployctl "
				 "verify %s' looks for it",
				 app, version, app);
	if (!command->json && print_result(&job, &why) < 0 && r == 0)
		return error_set(err, why.code, "%s", why.text);
	return r;
}

/* One that cannot be repaired does not keep the others from it. */
static int repair_each(struct command *command, const char *app, json_t *versions,
		       struct error *err)
{
	int result = -EALREADY;
	json_t *version;
	size_t i;

	error_set(
		err, -EALREADY,
		"%s: nothing is known to be damaged; 'deployctl verify %s' looks for it",
		app, app);
	json_array_foreach (versions, i, version) {
		struct error why = {0};
		const char *name = reply_text(json_object_get(version, "version"), NULL);
		int r;

		if (!name || !json_is_string(json_object_get(version, "damaged")))
			continue;
		r = repair_version(command, app, name, &why);
		if (r == -ECANCELED || r == -ECONNREFUSED)
			return error_set(err, r, "%s", why.text);
		/* A failure outlasts what went well; anything outlasts "nothing to do".
		 */
		if (r == -EALREADY || (r == 0 && result != -EALREADY))
			continue;
		result = r;
		*err = why;
	}
	return result;
}

static int repair_app(struct command *command, const char *app, struct error *err)
{
	cleanup(json_decrefp) json_t *reply = NULL;
	cleanup(free_ptr) char *url = NULL;
	json_t *versions;
	int r;

	r = client_url(&url, err, "/v1/apps/", app, NULL);
	if (r < 0)
		return r;
	r = client_request(command->client, "GET", url, NULL, &reply, err);
	if (r < 0) {
		command_show(command, reply);
		return r;
	}
	r = reply_read(reply, err, "{s:{s:o}}", "app", "versions", &versions);
	return r < 0 ? r : repair_each(command, app, versions, err);
}

static int run(struct command *command, struct error *err)
{
	const char *app = command->arguments[0];
	const char *version = command->argument_count > 1 ? command->arguments[1] : NULL;
	int r;

	if (!progress_valid(command->values[OPTION_PROGRESS]))
		return command_usage(command, err, "'%s' is no kind of progress",
				     command->values[OPTION_PROGRESS]);
	r = command_check_name(command, "app", app, err);
	if (r == 0)
		r = command_check_name(command, "version", version, err);
	if (r < 0)
		return r;
	return version ? repair_version(command, app, version, err)
		       : repair_app(command, app, err);
}

const struct verb verb_repair = {
	.name = "repair",
	.synopsis = "APP [VERSION] [--progress KIND]",
	.summary = "mend what is damaged on this disk",
	.help = "Mend what is known to be damaged of a version, or of all of an app, from "
		"other\n"
		"packages in the store or from the origin, and say from where. The daemon "
		"does\n"
		"the same by itself. --json prints one object a version.",
	.options = options,
	.arguments_min = 1,
	.arguments_max = 2,
	.run = run,
};

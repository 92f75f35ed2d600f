/* SPDX-License-Identifier: Apache-2.0 */
#include "flip.h"

#include "job.h"
#include "print.h"
#include "reply.h"
#include "verbs.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum {
	OPTION_CHANNEL,
	OPTION_REASON,
	OPTION_WARM,
	OPTION_NO_WARM,
};

static const struct verb_option options[] = {
	[OPTION_CHANNEL] = {"channel", 0, "NAME",
			    "the channel to move; default: current"},
	[OPTION_REASON] = {NULL, 'm', "REASON", "why, for the history"},
	[OPTION_WARM] = {"warm", 0, NULL,
			 "first read what is in memory of the version in use"},
	[OPTION_NO_WARM] = {"no-warm", 0, NULL,
			    "do not, whatever the configuration says"},
	{0},
};

static void print_notes(const json_t *notes)
{
	json_t *note;
	size_t i;

	json_array_foreach (notes, i, note)
		print_line(stdout, "note: %s", reply_text(note, "?"));
}

static int print_flip(json_t *reply, struct error *err)
{
	const char *app, *channel, *to;
	json_t *from, *previous, *notes;
	json_int_t generation;
	bool is_current;
	int r;

	r = reply_read(reply, err, "{s:s, s:s, s:s, s:I, s:o, s:o, s:o}", "app", &app,
		       "channel", &channel, "to", &to, "generation", &generation, "from",
		       &from, "previous", &previous, "notes", &notes);
	if (r < 0)
		return r;
	/* The symlink 'previous' belongs to 'current'. */
	is_current = !strcmp(channel, "current");
	print_line(stdout, "%s: %s%s %s%s-> %s (generation %jd)%s%s", app,
		   json_is_string(from) || is_current ? "" : "new channel ", channel,
		   reply_text(from, ""), json_is_string(from) ? " " : "", to,
		   (intmax_t)generation,
		   !json_is_string(previous) ? ""
		   : is_current              ? ", previous is "
					     : ", a rollback gives ",
		   reply_text(previous, ""));
	print_notes(notes);
	return 0;
}

static int unchanged(json_t *reply, struct error *err)
{
	const char *app, *channel, *to;
	int r;

	r = reply_read(reply, err, "{s:s, s:s, s:s}", "app", &app, "channel", &channel,
		       "to", &to);
	if (r < 0)
		return r;
	return error_set(err, -EALREADY, "%s: %s is %s already", app, channel, to);
}

int flip_call(struct command *command, const char *verb, const char *version,
	      const char *channel, const char *reason, struct error *err)
{
	cleanup(json_decrefp) json_t *body = NULL, *reply = NULL;
	const char *app = command->arguments[0];
	cleanup(free_ptr) char *url = NULL;
	int r;

	r = command_check_name(command, "app", app, err);
	if (r == 0)
		r = command_check_name(command, "version", version, err);
	if (r == 0)
		r = command_check_name(command, "channel", channel, err);
	if (r == 0)
		r = client_url(&url, err, "/v1/apps/", app, "/", verb, NULL);
	if (r == 0)
		r = body_make(&body, err, "{s:s*, s:s*, s:s*}", "version", version,
			      "channel", channel, "reason", reason);
	if (r == 0)
		r = command_call(command, "POST", url, body, &reply, err);
	if (r == 0)
		r = reply_changed(reply, err);
	if (r < 0)
		return r;
	if (r == 0)
		return unchanged(reply, err);
	return command->json ? 0 : print_flip(reply, err);
}

/* What the configuration says: 1, 0, or a failure to ask. An application that is not
 * there is the flip's to refuse. */
static int warm_default(const struct command *command, struct error *err)
{
	cleanup(json_decrefp) json_t *reply = NULL;
	cleanup(free_ptr) char *url = NULL;
	int r = client_url(&url, err, "/v1/apps/", command->arguments[0], NULL);

	if (r == 0)
		r = client_request(command->client, "GET", url, NULL, &reply, err);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	return json_is_true(json_object_get(json_object_get(reply, "app"), "warm"));
}

static int warm_wanted(const struct command *command, struct error *err)
{
	if (command->values[OPTION_WARM] && command->values[OPTION_NO_WARM])
		return command_usage(command, err,
				     "--warm and --no-warm do not go together");
	if (command->values[OPTION_WARM] || command->values[OPTION_NO_WARM])
		return command->values[OPTION_WARM] != NULL;
	return warm_default(command, err);
}

/* Nothing where there was nothing to go by: a channel that is new, or points there
 * already. */
static void print_warm(const struct job *job)
{
	const json_t *result = job->result;
	const char *from = json_string_value(json_object_get(result, "from"));
	char kept[32], bytes[32];
	uint64_t files = reply_number(json_object_get(result, "files"), 0);

	if (!from || !strcmp(from, job->version))
		return;
	print_line(stdout, "%s: %s is warm: %s were, %s in %ju file%s were read",
		   job->app, job->version,
		   reply_size(json_object_get(result, "kept_bytes"), kept),
		   reply_size(json_object_get(result, "bytes"), bytes), (uintmax_t)files,
		   files == 1 ? "" : "s");
}

/* A version that is not warm is no reason not to flip to it; who interrupts wants
 * neither. */
static int warm(struct command *command, struct error *err)
{
	/* With --json there is one reply, the flip's. */
	struct command aside = *command;
	cleanup(json_decrefp) json_t *body = NULL, *reply = NULL;
	struct error why = {0};
	struct job job;
	int r = body_make(&body, err, "{s:s, s:s*}", "version", command->arguments[1],
			  "channel", command->values[OPTION_CHANNEL]);

	if (r < 0)
		return r;
	aside.json = false;
	r = job_run(&aside, command->arguments[0], "warm", body,
		    command->json ? "none" : NULL, &reply, &job, &why);
	if (r == -ECANCELED)
		return error_set(err, r, "not flipped: %s", why.text);
	if (r < 0 && r != -ENOENT)
		print_line(stderr, "deployctl: warning: not all is warm: %s", why.text);
	if (r == 0 && !command->json)
		print_warm(&job);
	return 0;
}

static int check_names(const struct command *command, struct error *err)
{
	int r = command_check_name(command, "app", command->arguments[0], err);

	if (r == 0)
		r = command_check_name(command, "version", command->arguments[1], err);
	if (r == 0)
		r = command_check_name(command, "channel",
				       command->values[OPTION_CHANNEL], err);
	return r;
}

static int run(struct command *command, struct error *err)
{
	int r = check_names(command, err);

	if (r == 0)
		r = warm_wanted(command, err);
	if (r > 0)
		r = warm(command, err);
	if (r < 0)
		return r;
	return flip_call(command, "flip", command->arguments[1],
			 command->values[OPTION_CHANNEL], command->values[OPTION_REASON],
			 err);
}

const struct verb verb_flip = {
	.name = "flip",
	.synopsis = "APP VERSION [--channel NAME] [-m REASON] [--warm | --no-warm]",
	.summary = "point a channel at a version",
	.help = "Point the channel at the version. Atomic: when the command returns, "
		"every path\n"
		"walk on the machine sees the new target. Restarts nothing. A flip to a "
		"version\n"
		"that is marked bad clears the mark.\n"
		"With --warm, what the kernel has in memory of the version in use is read "
		"of the\n"
		"new one before. Ctrl-C meanwhile: no flip.",
	.options = options,
	.arguments_min = 2,
	.arguments_max = 2,
	.run = run,
};

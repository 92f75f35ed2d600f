/* SPDX-License-Identifier: Apache-2.0 */
#include "flip.h"

#include "print.h"
#include "reply.h"
#include "verbs.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

enum {
	OPTION_CHANNEL,
	OPTION_REASON,
};

static const struct verb_option options[] = {
	[OPTION_CHANNEL] = {"channel", 0, "NAME",
			    "the channel to move; default: current"},
	[OPTION_REASON] = {NULL, 'm', "REASON", "why, for the history"},
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

static int run(struct command *command, struct error *err)
{
	return flip_call(command, "flip", command->arguments[1],
			 command->values[OPTION_CHANNEL], command->values[OPTION_REASON],
			 err);
}

const struct verb verb_flip = {
	.name = "flip",
	.synopsis = "APP VERSION [--channel NAME] [-m REASON]",
	.summary = "point a channel at a version",
	.help = "Point the channel at the version. Atomic: when the command returns, "
		"every path\n"
		"walk on the machine sees the new target. Restarts nothing. A flip to a "
		"version\n"
		"that is marked bad clears the mark.",
	.options = options,
	.arguments_min = 2,
	.arguments_max = 2,
	.run = run,
};

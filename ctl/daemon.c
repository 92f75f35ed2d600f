/* SPDX-License-Identifier: Apache-2.0 */
#include "print.h"
#include "reply.h"
#include "verbs.h"

#include <errno.h>
#include <string.h>

enum {
	OPTION_FORCE,
};

static const struct verb_option options[] = {
	[OPTION_FORCE] = {"force", 0, NULL, "stop: even if somebody uses the mount"},
	{0},
};

static int call(struct command *command, const char *action, const json_t *body,
		const char *done, const char *unchanged, struct error *err)
{
	cleanup(json_decrefp) json_t *reply = NULL;
	cleanup(free_ptr) char *url = NULL;
	int r;

	r = client_url(&url, err, "/v1/daemon/", action, NULL);
	if (r == 0)
		r = command_call(command, "POST", url, body, &reply, err);
	if (r == 0)
		r = reply_changed(reply, err);
	if (r < 0)
		return r;
	if (r == 0)
		return error_set(err, -EALREADY, "%s", unchanged);
	if (!command->json)
		print_line(stdout, "%s", done);
	return 0;
}

static int stop(struct command *command, struct error *err)
{
	cleanup(json_decrefp) json_t *body = NULL;
	int r;

	r = body_make(&body, err, "{s:b}", "force",
		      command->values[OPTION_FORCE] != NULL);
	if (r < 0)
		return r;
	return call(command, "stop", body, "deployfsd has unmounted and ends",
		    "deployfsd is ending already", err);
}

static int run(struct command *command, struct error *err)
{
	const char *action = command->arguments[0];
	const bool force = command->values[OPTION_FORCE];

	if (!strcmp(action, "stop"))
		return stop(command, err);
	if (strcmp(action, "reload") != 0)
		return command_usage(command, err, "'%s' is neither stop nor reload",
				     action);
	if (force)
		return command_usage(command, err, "--force is for stop only");
	return call(command, "reload", NULL, "the configuration was read again",
		    "the configuration is as it was", err);
}

const struct verb verb_daemon = {
	.name = "daemon",
	.synopsis = "stop [--force] | reload",
	.summary = "end the daemon, or let it read its configuration again",
	.help = "stop: unmount and end the daemon; refused where somebody uses the "
		"mount, unless\n"
		"forced. reload: read the configuration again.",
	.options = options,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};

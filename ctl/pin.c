/* SPDX-License-Identifier: Apache-2.0 */
#include "print.h"
#include "reply.h"
#include "verbs.h"

#include <errno.h>

static int pin(struct command *command, const char *method, const char *state,
	       struct error *err)
{
	const char *app = command->arguments[0], *version = command->arguments[1];
	cleanup(json_decrefp) json_t *reply = NULL;
	cleanup(free_ptr) char *url = NULL;
	int r;

	r = command_check_name(command, "app", app, err);
	if (r == 0)
		r = command_check_name(command, "version", version, err);
	if (r == 0)
		r = client_url(&url, err, "/v1/apps/", app, "/versions/", version, "/pin",
			       NULL);
	if (r == 0)
		r = command_call(command, method, url, NULL, &reply, err);
	if (r == 0)
		r = reply_changed(reply, err);
	if (r < 0)
		return r;
	if (r == 0)
		return error_set(err, -EALREADY, "%s: %s is %s already", app, version,
				 state);
	if (!command->json)
		print_line(stdout, "%s: %s is %s", app, version, state);
	return 0;
}

static int run_pin(struct command *command, struct error *err)
{
	return pin(command, "PUT", "pinned", err);
}

static int run_unpin(struct command *command, struct error *err)
{
	return pin(command, "DELETE", "not pinned", err);
}

const struct verb verb_pin = {
	.name = "pin",
	.synopsis = "APP VERSION",
	.summary = "keep a version whatever happens",
	.help = "A pinned version is never removed.",
	.arguments_min = 2,
	.arguments_max = 2,
	.run = run_pin,
};

const struct verb verb_unpin = {
	.name = "unpin",
	.synopsis = "APP VERSION",
	.summary = "let a pinned version go",
	.help = "The version is kept no longer than others are.",
	.arguments_min = 2,
	.arguments_max = 2,
	.run = run_unpin,
};

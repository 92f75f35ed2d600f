/* SPDX-License-Identifier: Apache-2.0 */
#include "print.h"
#include "reply.h"
#include "verbs.h"

#include <errno.h>
#include <string.h>

static int print_removed(json_t *reply, const char *app, const char *version,
			 struct error *err)
{
	const char *state;
	json_t *freed;
	char text[32];
	int r;

	r = reply_read(reply, err, "{s:s, s:o}", "state", &state, "freed_bytes", &freed);
	if (r < 0)
		return r;
	if (strcmp(state, "removing") != 0)
		print_line(stdout, "%s: %s is removed, %s given back", app, version,
			   reply_size(freed, text));
	else
		print_line(stdout,
			   "%s: %s has disappeared; its space is given back when the "
			   "last open "
			   "file, mapping and working directory in it is gone",
			   app, version);
	return 0;
}

static int run(struct command *command, struct error *err)
{
	const char *app = command->arguments[0], *version = command->arguments[1];
	cleanup(json_decrefp) json_t *reply = NULL;
	cleanup(free_ptr) char *url = NULL;
	int r;

	r = command_check_name(command, "app", app, err);
	if (r == 0)
		r = command_check_name(command, "version", version, err);
	if (r == 0)
		r = client_url(&url, err, "/v1/apps/", app, "/versions/", version, NULL);
	if (r == 0)
		r = command_call(command, "DELETE", url, NULL, &reply, err);
	if (r == 0)
		r = reply_changed(reply, err);
	if (r < 0)
		return r;
	if (r == 0)
		return error_set(err, -EALREADY, "%s: %s is being removed already", app,
				 version);
	return command->json ? 0 : print_removed(reply, app, version, err);
}

const struct verb verb_remove = {
	.name = "remove",
	.synopsis = "APP VERSION",
	.summary = "remove a version that nothing keeps",
	.help = "Remove a version that no channel, pin or previous keeps. It disappears "
		"at once;\n"
		"its space is given back when the last open file, mapping and working "
		"directory\n"
		"in it is gone.",
	.arguments_min = 2,
	.arguments_max = 2,
	.run = run,
};

/* SPDX-License-Identifier: Apache-2.0 */
#include "flip.h"
#include "verbs.h"

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

static int run(struct command *command, struct error *err)
{
	return flip_call(command, "rollback", NULL, command->values[OPTION_CHANNEL],
			 command->values[OPTION_REASON], err);
}

const struct verb verb_rollback = {
	.name = "rollback",
	.synopsis = "APP [--channel NAME] [-m REASON]",
	.summary = "flip back to the version before",
	.help = "Flip to what previous names: the newest version that the channel "
		"pointed at\n"
		"before, is still present and is not bad. The version that is left is "
		"marked bad.",
	.options = options,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deployctl - the command line of deployfsd
 *
 * Finds the verb, runs it, and turns its result into words and an exit code.
 */
#include "cleanup.h"
#include "client.h"
#include "command.h"
#include "config.h"
#include "print.h"
#include "verbs.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>

static const struct verb *const verbs[] = {
	&verb_fetch,  &verb_import, &verb_list,    &verb_flip,   &verb_rollback,
	&verb_status, &verb_doctor, &verb_history, &verb_verify, &verb_repair,
	&verb_pin,    &verb_unpin,  &verb_remove,  &verb_gc,     &verb_daemon,
};

#define VERB_COUNT (sizeof(verbs) / sizeof(verbs[0]))

static void print_help(void)
{
	puts("Usage: deployctl [--config FILE] COMMAND [ARGUMENT...] [--json] [--help]\n"
	     "\n"
	     "Fetch, flip and roll back versions of applications that deployfsd mounts.\n"
	     "\n"
	     "Commands:");
	for (size_t i = 0; i < VERB_COUNT; i++)
		printf("  %-10s  %s\n", verbs[i]->name, verbs[i]->summary);
	puts("\n"
	     "Options:\n"
	     "  --config FILE  the configuration, where it is not\n"
	     "                 /etc/deployfs/deployfs.yaml or what DEPLOYFS_CONFIG "
	     "names\n"
	     "  --json         print the daemon's reply, one JSON object\n"
	     "  --help         this text, or that of the command\n"
	     "  --version      the program's version\n"
	     "\n"
	     "Exit status: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict or "
	     "locked,\n"
	     "5 daemon unreachable, 6 verification failed, 7 no space, 77 nothing to "
	     "change");
}

static const struct verb *verb_find(const char *name)
{
	for (size_t i = 0; i < VERB_COUNT; i++)
		if (!strcmp(verbs[i]->name, name))
			return verbs[i];
	return NULL;
}

/* The options before the verb. 1 when one of them was all that was asked for. */
static int parse_global(struct command *command, int argc, char **argv, struct error *err)
{
	static const struct option options[] = {
		{"json", no_argument, NULL, 'j'},
		{"config", required_argument, NULL, 'c'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'v'},
		{0},
	};
	int given;

	opterr = 0;
	while ((given = getopt_long(argc, argv, "+:", options, NULL)) != -1) {
		switch (given) {
		case 'j':
			command->json = true;
			break;
		case 'c':
			command->config = optarg;
			break;
		case 'h':
			print_help();
			return 1;
		case 'v':
			puts("deployctl " DEPLOYFS_VERSION);
			return 1;
		default:
			return command_usage(
				command, err, "the option '%s' %s", argv[optind - 1],
				given == ':' ? "needs a value" : "is not known");
		}
	}
	return 0;
}

static int run_verb(struct command *command, struct error *err)
{
	cleanup(client_close_ptr) struct client *client = NULL;
	cleanup(config_close_ptr) struct config *config = NULL;
	int r;

	if (command->verb->alone)
		return command->verb->run(command, err);
	r = config_open(command->config, &config, err);
	if (r < 0)
		return r;
	command->runtime = config->runtime;
	r = client_open(config->socket, &client, err);
	if (r < 0)
		return r;
	command->client = client;
	r = command->verb->run(command, err);
	command->client = NULL;
	command->runtime = NULL;
	return r;
}

static int run(struct command *command, int argc, char **argv, struct error *err)
{
	int first;
	int r;

	r = parse_global(command, argc, argv, err);
	if (r != 0)
		return r < 0 ? r : 0;
	if (optind == argc)
		return command_usage(command, err, "a command is missing");
	first = optind;
	command->verb = verb_find(argv[first]);
	if (!command->verb)
		return command_usage(command, err, "there is no command '%s'",
				     argv[first]);
	r = command_parse(command, argc - first, argv + first, err);
	if (r < 0)
		return r;
	if (command->help) {
		command_help(command->verb);
		return 0;
	}
	return run_verb(command, err);
}

/* With --json, a failure without a reply of the daemon has the shape of one. */
static void report_json(int code, const struct error *err)
{
	cleanup(json_decrefp) json_t *reply = NULL;

	reply = json_pack("{s:i, s:{s:s, s:s}}", "schema", 1, "error", "code",
			  error_name(code), "message", err->text);
	if (reply)
		print_json(reply);
}

static void report(const struct command *command, int code, const struct error *err)
{
	if (command->shown)
		return;
	if (command->json && code != -EINVAL)
		report_json(code, err);
	else if (code == -EALREADY)
		print_line(stdout, "%s", err->text);
	else
		print_line(stderr, "deployctl: %s", err->text);
}

int main(int argc, char **argv)
{
	struct command command = {0};
	struct error err = {0};
	int r;

	r = run(&command, argc, argv, &err);
	if (r < 0)
		report(&command, r, &err);
	if (fflush(stdout) != 0 || ferror(stdout)) {
		fprintf(stderr, "deployctl: cannot write the output: %s\n",
			strerror(errno));
		return 1;
	}
	return r < 0 ? error_exit(error_name(r)) : 0;
}

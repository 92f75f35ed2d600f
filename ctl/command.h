/* SPDX-License-Identifier: Apache-2.0 */
/*
 * command.h - what a verb is, and what is common to all of them
 *
 * A verb describes its arguments and options in a table. From it come the parsing, the
 * usage errors and --help.
 */
#pragma once

#include "client.h"
#include "error.h"

#include <jansson.h>
#include <stdbool.h>

#define COMMAND_OPTIONS_MAX 8

struct verb_option {
	const char *name;  /* "channel"; NULL where there is only a letter */
	char letter;       /* 'm'; 0 where there is only a name */
	const char *value; /* what the help calls its value; NULL: it has none */
	const char *help;  /* one line */
};

struct command;

struct verb {
	const char *name;
	const char *synopsis; /* its arguments and options */
	const char *summary;  /* one line for the list of all verbs */
	const char *help;     /* whole sentences, lines of at most 78 characters */
	const struct verb_option *options; /* the last one empty; NULL: none */
	unsigned arguments_min;
	unsigned arguments_max;
	bool alone; /* works without client and runtime, whatever the configuration is */

	/**
	 * run() - do it
	 * Return: 0; -EALREADY when there was nothing to change, with the sentence that
	 * says so; any other failure with its message.
	 */
	int (*run)(struct command *command, struct error *err);
};

/** One call of deployctl. */
struct command {
	const struct verb *verb; /* NULL: not known yet */
	const char *config;      /* --config; NULL: not given */
	bool json;               /* --json */
	bool help;               /* --help */
	const char
		*values[COMMAND_OPTIONS_MAX]; /* of verb->options; "" for one without */
	char **arguments;
	unsigned argument_count;
	struct client *client; /* not owned */
	const char *runtime;   /* the daemon's directory; not owned */
	bool shown; /* a reply is on stdout: nothing else may follow with --json */
};

/**
 * command_parse() - read the options and arguments of command->verb
 * @argv: as main()'s, with the verb's name at its start; put into another order
 *
 * Return: 0; -EINVAL.
 */
int command_parse(struct command *command, int argc, char **argv, struct error *err);

/** command_help() - the verb's --help on stdout */
void command_help(const struct verb *verb);

/** command_usage() - -EINVAL with a message and where to read how it is used */
int command_usage(const struct command *command, struct error *err, const char *format,
		  ...) __attribute__((format(printf, 3, 4)));

/**
 * command_check_name() - refuse what cannot be a name before it is sent
 * @what: "app", "version" or "channel"
 * @name: NULL is fine: it was not given
 *
 * Return: 0; -EINVAL.
 */
int command_check_name(const struct command *command, const char *what, const char *name,
		       struct error *err);

/**
 * command_call() - client_request(), and with --json the reply on stdout
 * @ret: as of client_request()
 */
int command_call(struct command *command, const char *method, const char *url,
		 const json_t *body, json_t **ret, struct error *err);

/** command_show() - @reply on stdout if --json was given; NULL is allowed */
void command_show(struct command *command, const json_t *reply);

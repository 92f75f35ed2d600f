/* SPDX-License-Identifier: Apache-2.0 */
#include "command.h"

#include "name.h"
#include "print.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Values of getopt_long() beyond every letter. */
enum {
	OPTION_JSON = 256,
	OPTION_CONFIG,
	OPTION_HELP,
	OPTION_VERB, /* + the place in verb->options */
};

#define COMMON_COUNT 3
static const struct option common_options[COMMON_COUNT] = {
	{"json", no_argument, NULL, OPTION_JSON},
	{"config", required_argument, NULL, OPTION_CONFIG},
	{"help", no_argument, NULL, OPTION_HELP},
};

/* verb->options in getopt's two forms. */
struct grammar {
	struct option names[COMMON_COUNT + COMMAND_OPTIONS_MAX + 1];
	char letters[2 * COMMAND_OPTIONS_MAX + 2];
};

static bool option_given(const struct verb_option *option)
{
	return option && (option->name || option->letter);
}

static void grammar_init(struct grammar *grammar, const struct verb *verb)
{
	struct option *name = grammar->names;
	char *letter = grammar->letters;
	int value = OPTION_VERB;

	memset(grammar, 0, sizeof(*grammar));
	memcpy(name, common_options, sizeof(common_options));
	name += COMMON_COUNT;
	*letter++ = ':';
	for (const struct verb_option *option = verb->options; option_given(option);
	     option++, value++) {
		int has = option->value ? required_argument : no_argument;

		if (option->name)
			*name++ = (struct option){option->name, has, NULL, value};
		if (option->letter)
			*letter++ = option->letter;
		if (option->letter && option->value)
			*letter++ = ':';
	}
}

/* The place in verb->options of what getopt_long() gave. */
static size_t option_place(const struct verb *verb, int given)
{
	size_t i;

	if (given >= OPTION_VERB)
		return (size_t)(given - OPTION_VERB);
	for (i = 0; verb->options[i].letter != given; i++)
		;
	return i;
}

static int parse_option(struct command *command, int given, const char *word,
			struct error *err)
{
	switch (given) {
	case OPTION_JSON:
		command->json = true;
		return 0;
	case OPTION_CONFIG:
		command->config = optarg;
		return 0;
	case OPTION_HELP:
		command->help = true;
		return 0;
	case ':':
		return command_usage(command, err, "the option '%s' needs a value", word);
	case '?':
		return command_usage(command, err, "there is no such option: '%s'", word);
	default:
		command->values[option_place(command->verb, given)] =
			optarg ? optarg : "";
		return 0;
	}
}

static int check_count(const struct command *command, struct error *err)
{
	const struct verb *verb = command->verb;

	if (command->help)
		return 0;
	if (command->argument_count < verb->arguments_min)
		return command_usage(command, err, "an argument is missing");
	if (command->argument_count > verb->arguments_max)
		return command_usage(command, err, "'%s' is one argument too many",
				     command->arguments[verb->arguments_max]);
	return 0;
}

int command_parse(struct command *command, int argc, char **argv, struct error *err)
{
	struct grammar grammar;
	int given;
	int r;

	grammar_init(&grammar, command->verb);
	opterr = 0;
	optind = 0; /* main() has used getopt_long() before: begin again */
	while ((given = getopt_long(argc, argv, grammar.letters, grammar.names, NULL)) !=
	       -1) {
		r = parse_option(command, given, argv[optind - 1], err);
		if (r < 0)
			return r;
	}
	command->arguments = argv + optind;
	command->argument_count = (unsigned)(argc - optind);
	return check_count(command, err);
}

static void help_option(const struct verb_option *option)
{
	char left[64];

	snprintf(left, sizeof(left), "%s%s%s%s", option->name ? "--" : "-",
		 option->name ? option->name : (char[]){option->letter, '\0'},
		 option->value ? " " : "", option->value ? option->value : "");
	printf("  %-20s  %s\n", left, option->help);
}

void command_help(const struct verb *verb)
{
	static const struct verb_option common[] = {
		{"json", 0, NULL, "print the daemon's reply, one JSON object"},
		{"config", 0, "FILE", "the configuration, to find the daemon's socket"},
		{"help", 0, NULL, "this text"},
	};

	printf("Usage: deployctl %s%s%s\n\n%s\n\nOptions:\n", verb->name,
	       *verb->synopsis ? " " : "", verb->synopsis, verb->help);
	for (const struct verb_option *option = verb->options; option_given(option);
	     option++)
		help_option(option);
	for (size_t i = 0; i < sizeof(common) / sizeof(common[0]); i++)
		help_option(&common[i]);
}

int command_usage(const struct command *command, struct error *err, const char *format,
		  ...)
{
	char text[ERROR_TEXT_MAX / 2];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return error_set(err, -EINVAL, "%s; see 'deployctl%s%s --help'", text,
			 command->verb ? " " : "",
			 command->verb ? command->verb->name : "");
}

int command_check_name(const struct command *command, const char *what, const char *name,
		       struct error *err)
{
	if (!name || name_valid(name))
		return 0;
	return command_usage(
		command, err,
		"'%.150s' cannot be the name of %s %s: that begins with a letter or "
		"digit and has at most %d letters, digits and '.', '_', '+', '-'",
		name, *what == 'a' ? "an" : "a", what, NAME_LENGTH_MAX);
}

void command_show(struct command *command, const json_t *reply)
{
	if (!command->json || !reply)
		return;
	print_json(reply);
	command->shown = true;
}

int command_call(struct command *command, const char *method, const char *url,
		 const json_t *body, json_t **ret, struct error *err)
{
	cleanup(json_decrefp) json_t *reply = NULL;
	int r;

	r = client_request(command->client, method, url, body, &reply, err);
	command_show(command, reply);
	if (reply)
		*ret = take_ptr(reply);
	return r;
}

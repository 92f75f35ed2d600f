/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_yaml.h - deployfs.yaml as it is written: keys and texts with their lines
 *
 * For config.c only, which gives the texts their meaning. The keys, their types and the
 * words of enumerations stand in one libcyaml schema in config_yaml.c.
 */
#pragma once

#include "error.h"

#include <stddef.h>
#include <stdint.h>

/** For the @app of the functions below: the keys outside of any application. */
#define CONFIG_YAML_TOP SIZE_MAX

enum config_switch {
	CONFIG_SWITCH_UNSET,
	CONFIG_SWITCH_ON,
	CONFIG_SWITCH_OFF,
};

enum config_symlinks {
	CONFIG_SYMLINKS_UNSET,
	CONFIG_SYMLINKS_ANY,
	CONFIG_SYMLINKS_CONTAINED,
};

/** An entry of 'apps'. A text is NULL where its key is missing; 'name' never is. */
struct config_yaml_app {
	char *name;
	enum config_switch verify;
	enum config_symlinks symlinks;
	enum config_switch warm;
	char *owner;
	char *keep;
	char *unpack_limit;
};

/** The file but for its origins. A text is NULL where its key is missing. */
struct config_yaml_values {
	char *mount;
	char *store;
	char *runtime;
	char *group;
	char *keep;
	enum config_switch warm;
	char *reserve;
	char *connect_timeout;
	char *stall_timeout;
	char *credentials;
	char *known_hosts;
	char *ca_file;
	struct config_yaml_app *apps;
	size_t apps_count;
};

/** What is wrong with a file, gathered so that one look mends all of it. */
struct config_problems {
	const char *path; /* of the file */
	unsigned count;
	char text[ERROR_TEXT_MAX];
};

/** config_problem() - add "PATH:LINE: message"; all but the first ten are only counted */
void config_problem(struct config_problems *problems, unsigned line, const char *format,
		    ...) __attribute__((format(printf, 3, 4)));

struct config_yaml; /* a file that follows the schema */

/**
 * config_yaml_parse() - read a text and check it against the schema
 * @text:     @size bytes, UTF-8
 * @ret:      the caller's, to be freed with config_yaml_free(); untouched on failure
 * @problems: filled when the return is -EINVAL
 *
 * A text without a document (empty, or comments only) has no keys. Refused are, beside
 * what the schema does not allow: keys that stand twice, a second document, anchors,
 * aliases and tags, control characters in a value, nesting deeper than the schema's.
 *
 * Return: 0; -EINVAL; -ENOMEM.
 */
int config_yaml_parse(const char *text, size_t size, struct config_yaml **ret,
		      struct config_problems *problems);

/** config_yaml_free() - NULL is allowed */
void config_yaml_free(struct config_yaml *yaml);

/** config_yaml_values() - never NULL; owned by @yaml */
const struct config_yaml_values *config_yaml_values(const struct config_yaml *yaml);

/**
 * config_yaml_line() - the line on which a key's value begins
 * @app: index in values->apps, or CONFIG_YAML_TOP
 *
 * Return: 1 and up; 0 when the key is missing.
 */
unsigned config_yaml_line(const struct config_yaml *yaml, size_t app, const char *key);

/**
 * config_yaml_origin() - one of the mirrors of 'origin', be it one text or a list
 * @app:      as in config_yaml_line()
 * @index:    0 and up
 * @ret_line: where it stands; untouched when there is none
 *
 * Return: owned by @yaml; NULL when there are no more, or when the key is missing.
 */
const char *config_yaml_origin(const struct config_yaml *yaml, size_t app, size_t index,
			       unsigned *ret_line);

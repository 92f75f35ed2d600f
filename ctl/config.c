/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "cleanup.h"
#include "fd.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define CONFIG_MOUNT_DEFAULT   "/srv/deployfs"
#define CONFIG_STORE_DEFAULT   "/var/lib/deployfs"
#define CONFIG_RUNTIME_DEFAULT "/run/deployfs"
#define CONFIG_SIZE_MAX        (1024 * 1024)

#define FIELD(key)                                                             \
	CYAML_FIELD_STRING_PTR(#key, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, \
			       struct config, key, 0, CYAML_UNLIMITED)

static const cyaml_schema_field_t fields[] = {
	FIELD(mount),
	FIELD(store),
	FIELD(runtime),
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t schema = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct config, fields),
};

/* Keeps the first line of what libcyaml logs: the reason; a backtrace follows. */
static void keep_complaint(cyaml_log_t level, void *context, const char *format,
			   va_list args)
{
	char *text = context;

	if (text[0] == '\0')
		vsnprintf(text, ERROR_TEXT_MAX / 2, format, args);
	text[strcspn(text, "\n")] = '\0';
}

/* A file with nothing but comments holds no YAML document, which libcyaml refuses. */
static bool is_empty(const char *text)
{
	for (;;) {
		text += strspn(text, " \t\r\n");
		if (*text != '#')
			return *text == '\0';
		text += strcspn(text, "\n");
	}
}

void config_close(struct config *config)
{
	free(config->mount);
	free(config->store);
	free(config->runtime);
	free(config->socket);
	free(config);
}

static int parse(const char *path, const char *text, struct config *config,
		 struct error *err)
{
	char complaint[ERROR_TEXT_MAX / 2] = "";
	const cyaml_config_t how = {
		.log_fn = keep_complaint,
		.log_ctx = complaint,
		.log_level = CYAML_LOG_ERROR,
		.mem_fn = cyaml_mem,
		.flags = CYAML_CFG_IGNORE_UNKNOWN_KEYS,
	};
	struct config *read = NULL;
	cyaml_err_t problem;

	if (is_empty(text))
		return 0;
	problem = cyaml_load_data((const uint8_t *)text, strlen(text), &how, &schema,
				  (cyaml_data_t **)&read, NULL);
	if (problem != CYAML_OK)
		return error_set(err, -EINVAL, "'%s': %s; 'deployfsd --check' tells more",
				 path,
				 complaint[0] ? complaint : cyaml_strerror(problem));
	if (read) {
		config->mount = take_ptr(read->mount);
		config->store = take_ptr(read->store);
		config->runtime = take_ptr(read->runtime);
	}
	cyaml_free(&how, &schema, read, 0);
	return 0;
}

static int read_file(const char *path, bool must_exist, struct config *config,
		     struct error *err)
{
	cleanup(free_ptr) char *text = NULL;
	int r;

	r = file_read(path, CONFIG_SIZE_MAX, &text, NULL);
	if (r == -ENOENT && !must_exist)
		return 0;
	if (r < 0)
		return error_set(err, -EINVAL, "cannot read the configuration '%s': %s",
				 path, strerror(-r));
	return parse(path, text, config, err);
}

/* What was not set gets its default. Doubled and trailing slashes go, as the daemon does
 * it: mountinfo knows no such path. */
static int settle(const struct config *config, const char *key, const char *otherwise,
		  char **value, struct error *err)
{
	char *to;

	if (*value && **value != '/')
		return error_set(err, -EINVAL, "'%s': %s must be an absolute path",
				 config->path, key);
	if (!*value)
		*value = strdup(otherwise);
	if (!*value)
		return error_set(err, -ENOMEM, "out of memory");
	to = *value;
	for (const char *from = *value; *from; from++)
		if (*from != '/' || (from[1] != '/' && from[1] != '\0'))
			*to++ = *from;
	if (to == *value)
		*to++ = '/';
	*to = '\0';
	return 0;
}

static int load(const char *path, bool read, struct config **ret, struct error *err)
{
	cleanup(config_close_ptr) struct config *config = calloc(1, sizeof(*config));
	bool named = true;
	int r = 0;

	if (!config)
		return error_set(err, -ENOMEM, "out of memory");
	if (!path)
		path = getenv("DEPLOYFS_CONFIG");
	if (!path || !*path) {
		path = CONFIG_PATH_DEFAULT;
		named = false;
	}
	config->path = path;
	if (read)
		r = read_file(path, named, config, err);
	if (r == 0)
		r = settle(config, "mount", CONFIG_MOUNT_DEFAULT, &config->mount, err);
	if (r == 0)
		r = settle(config, "store", CONFIG_STORE_DEFAULT, &config->store, err);
	if (r == 0)
		r = settle(config, "runtime", CONFIG_RUNTIME_DEFAULT, &config->runtime,
			   err);
	if (r < 0)
		return r;
	if (asprintf(&config->socket, "%s/deployfs.sock", config->runtime) < 0) {
		config->socket = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	*ret = take_ptr(config);
	return 0;
}

int config_open(const char *path, struct config **ret, struct error *err)
{
	return load(path, true, ret, err);
}

int config_defaults(const char *path, struct config **ret, struct error *err)
{
	return load(path, false, ret, err);
}

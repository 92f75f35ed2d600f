/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "cleanup.h"
#include "fd.h"

#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define CONFIG_PATH_DEFAULT    "/etc/deployfs/deployfs.yaml"
#define CONFIG_RUNTIME_DEFAULT "/run/deployfs"
#define CONFIG_SIZE_MAX        (1024 * 1024)

struct config {
	char *runtime;
};

static const cyaml_schema_field_t fields[] = {
	CYAML_FIELD_STRING_PTR("runtime", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
			       struct config, runtime, 0, CYAML_UNLIMITED),
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

static int parse(const char *path, const char *text, char **ret_runtime,
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
	struct config *config = NULL;
	cyaml_err_t problem;

	if (is_empty(text))
		return 0;
	problem = cyaml_load_data((const uint8_t *)text, strlen(text), &how, &schema,
				  (cyaml_data_t **)&config, NULL);
	if (problem != CYAML_OK)
		return error_set(err, -EINVAL, "'%s': %s; 'deployfsd --check' tells more",
				 path,
				 complaint[0] ? complaint : cyaml_strerror(problem));
	if (config && config->runtime)
		*ret_runtime = take_ptr(config->runtime);
	cyaml_free(&how, &schema, config, 0);
	return 0;
}

static int read_runtime(const char *path, bool must_exist, char **ret_runtime,
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
	return parse(path, text, ret_runtime, err);
}

int config_socket(const char *path, char **ret, struct error *err)
{
	cleanup(free_ptr) char *runtime = NULL;
	bool named = true;
	char *socket;
	int r;

	if (!path)
		path = getenv("DEPLOYFS_CONFIG");
	if (!path || !*path) {
		path = CONFIG_PATH_DEFAULT;
		named = false;
	}
	r = read_runtime(path, named, &runtime, err);
	if (r < 0)
		return r;
	if (runtime && runtime[0] != '/')
		return error_set(err, -EINVAL, "'%s': runtime must be an absolute path",
				 path);
	if (asprintf(&socket, "%s/deployfs.sock",
		     runtime ? runtime : CONFIG_RUNTIME_DEFAULT) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	*ret = socket;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "config.h"

#include "cleanup.h"
#include "config_yaml.h"
#include "fd.h"
#include "name.h"
#include "size.h"
#include "url.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#define FILE_SIZE_MAX (1024 * 1024)
#define SOCKET_NAME   "deployfs.sock"

#define KEEP_MAX        1000
#define PERCENT_MAX     99
#define ID_MAX          (UINT32_MAX - 1) /* the largest is chown(2)'s "leave it" */
#define KEEP_DEFAULT    3
#define SECOND_MS       1000
#define RESERVE_BYTES   (UINT64_C(1) << 30)
#define RESERVE_PERCENT 3
#define DIGITS          "0123456789"
#define NOT_IN_A_GROUP  ":,/"

/*
 * A configuration that is being filled. What is wrong with the file is gathered and
 * looked at in the end, and so is memory that was not there: the keys are read in one
 * sweep.
 */
struct loader {
	const struct config_yaml *yaml;
	struct config *config;
	struct config_problems *problems;
	bool out_of_memory;
};

DEFINE_CLEANUP(struct config, config_free)
DEFINE_CLEANUP(struct config_yaml, config_yaml_free)

static void free_list(char **list)
{
	for (char **item = list; item && *item; item++)
		free(*item);
	free(list);
}

static void apps_free(struct config *config)
{
	for (size_t i = 0; i < config->app_count; i++) {
		if (config->apps[i].origins != config->defaults.origins)
			free_list(config->apps[i].origins);
		free(config->apps[i].name);
	}
	free(config->apps);
}

void config_free(struct config *config)
{
	if (!config)
		return;
	apps_free(config);
	free_list(config->defaults.origins);
	free(config->defaults.name);
	free(config->path);
	free(config->mount);
	free(config->store);
	free(config->runtime);
	free(config->socket);
	free(config->group);
	free(config->credentials);
	free(config->known_hosts);
	free(config->ca_file);
	free(config);
}

static int compare_apps(const void *left, const void *right)
{
	const struct app_config *a = left, *b = right;

	return strcmp(a->name, b->name);
}

const struct app_config *config_app(const struct config *config, const char *name)
{
	const struct app_config key = {.name = (char *)name};
	const struct app_config *app = NULL;

	if (config->app_count > 0)
		app = bsearch(&key, config->apps, config->app_count, sizeof(key),
			      compare_apps);
	return app ? app : &config->defaults;
}

/* Adds a problem on the line of @app's @key. */
static void wrong(struct loader *loader, size_t app, const char *key, const char *format,
		  ...) __attribute__((format(printf, 4, 5)));

static void wrong(struct loader *loader, size_t app, const char *key, const char *format,
		  ...)
{
	char text[ERROR_TEXT_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	config_problem(loader->problems, config_yaml_line(loader->yaml, app, key), "%s",
		       text);
}

static char *copy(struct loader *loader, const char *text)
{
	char *made = strdup(text);

	if (!made)
		loader->out_of_memory = true;
	return made;
}

/* A decimal number of at most ten digits, without a sign and without leading zeros. */
static bool parse_number(const char *text, size_t size, uint64_t max, uint64_t *ret)
{
	uint64_t number = 0;

	if (size < 1 || size > 10 || (size > 1 && text[0] == '0'))
		return false;
	if (strspn(text, DIGITS) < size)
		return false;
	for (size_t i = 0; i < size; i++)
		number = number * 10 + (uint64_t)(text[i] - '0');
	if (number > max)
		return false;
	*ret = number;
	return true;
}

/* Absolute, without "..": a path that says where it leads. NULL, or what is wrong. */
static const char *path_problem(const char *path)
{
	if (path[0] != '/')
		return "an absolute path";
	if (strlen(path) >= PATH_MAX)
		return "a shorter path";
	for (const char *part = path; part; part = strchr(part + 1, '/'))
		if (!strncmp(part, "/..", 3) && (part[3] == '/' || !part[3]))
			return "a path without '..'";
	return NULL;
}

/* Leave out doubled and trailing slashes and "." in place, as the kernel shows mounts. */
static void path_clean(char *path)
{
	const char *from = path;
	char *to = path;

	while (*from) {
		size_t size;

		from += strspn(from, "/");
		size = strcspn(from, "/");
		if (size > 0 && !(size == 1 && from[0] == '.')) {
			*to++ = '/';
			memmove(to, from, size);
			to += size;
		}
		from += size;
	}
	if (to == path)
		*to++ = '/';
	*to = '\0';
}

/* @fallback may be NULL: then a missing key leaves *@ret NULL. */
static void read_path(struct loader *loader, const char *key, const char *text,
		      const char *fallback, char **ret)
{
	const char *problem;

	if (!text)
		text = fallback;
	if (!text)
		return;
	problem = path_problem(text);
	if (problem) {
		wrong(loader, CONFIG_YAML_TOP, key, "'%s' must be %s", key, problem);
		return;
	}
	*ret = copy(loader, text);
	if (*ret)
		path_clean(*ret);
}

/* A folder of our own: anything but the root. */
static void read_folder(struct loader *loader, const char *key, const char *text,
			const char *fallback, char **ret)
{
	read_path(loader, key, text, fallback, ret);
	if (*ret && !strcmp(*ret, "/"))
		wrong(loader, CONFIG_YAML_TOP, key, "'%s' must not be '/'", key);
}

static void make_socket(struct loader *loader)
{
	struct config *config = loader->config;
	const size_t room = sizeof(((struct sockaddr_un *)NULL)->sun_path);

	if (!config->runtime)
		return;
	if (asprintf(&config->socket, "%s/%s", config->runtime, SOCKET_NAME) < 0) {
		config->socket = NULL;
		loader->out_of_memory = true;
		return;
	}
	if (strlen(config->socket) >= room)
		wrong(loader, CONFIG_YAML_TOP, "runtime",
		      "'runtime' must be a shorter path: the socket's may have %zu bytes",
		      room - 1);
}

static void read_group(struct loader *loader, const char *text)
{
	if (!text)
		text = "deployfs";
	if (!*text || strlen(text) > NAME_LENGTH_MAX || strpbrk(text, NOT_IN_A_GROUP)) {
		wrong(loader, CONFIG_YAML_TOP, "group",
		      "'group' must be the name of a group");
		return;
	}
	loader->config->group = copy(loader, text);
}

static void read_keep(struct loader *loader, size_t app, const char *text, unsigned *ret)
{
	uint64_t keep;

	if (!text)
		return;
	if (parse_number(text, strlen(text), KEEP_MAX, &keep))
		*ret = (unsigned)keep;
	else
		wrong(loader, app, "keep", "'keep' must be a number from 0 to %d",
		      KEEP_MAX);
}

/* "5%" or "5 %" */
static bool parse_percent(const char *text, uint64_t *ret)
{
	size_t digits = strspn(text, DIGITS);
	const char *sign = text + digits + strspn(text + digits, " ");

	return !strcmp(sign, "%") && parse_number(text, digits, PERCENT_MAX, ret);
}

static void read_reserve(struct loader *loader, const char *text)
{
	struct config *config = loader->config;
	uint64_t percent, bytes;

	if (!text)
		return;
	if (parse_percent(text, &percent)) {
		config->reserve_percent = (unsigned)percent;
		config->reserve_bytes = 0;
	} else if (size_parse(text, &bytes) == 0) {
		config->reserve_percent = 0;
		config->reserve_bytes = bytes;
	} else {
		wrong(loader, CONFIG_YAML_TOP, "reserve",
		      "'reserve' must be a size like 500MiB, or a share like 5%%, at "
		      "most %d%%",
		      PERCENT_MAX);
	}
}

static void read_timeout(struct loader *loader, const char *key, const char *text,
			 uint64_t *ret)
{
	uint64_t ms;

	if (!text)
		return;
	if (duration_parse(text, &ms) == 0 && ms > 0)
		*ret = ms;
	else
		wrong(loader, CONFIG_YAML_TOP, key,
		      "'%s' must be a duration like 500ms or 30s", key);
}

static void read_owner(struct loader *loader, size_t app, const char *text,
		       struct app_config *config)
{
	uint64_t uid, gid;
	const char *colon;

	if (!text)
		return;
	colon = strchr(text, ':');
	if (!colon || !parse_number(text, (size_t)(colon - text), ID_MAX, &uid) ||
	    !parse_number(colon + 1, strlen(colon + 1), ID_MAX, &gid)) {
		wrong(loader, app, "owner", "'owner' must be UID:GID, like 1000:1000");
		return;
	}
	config->uid = (uid_t)uid;
	config->gid = (gid_t)gid;
}

static void read_unpack_limit(struct loader *loader, size_t app, const char *text,
			      struct app_config *config)
{
	uint64_t bytes;

	if (!text)
		return;
	if (size_parse(text, &bytes) == 0 && bytes > 0)
		config->unpack_limit = bytes;
	else
		wrong(loader, app, "unpack_limit",
		      "'unpack_limit' must be a size like 10GiB");
}

static void check_origin(struct loader *loader, const char *origin, unsigned line)
{
	const char *problem;
	struct error err;
	struct url url;

	/* The text itself is never shown: it may hold a password. */
	if (origin[0] == '/') {
		problem = path_problem(origin);
		if (problem)
			config_problem(loader->problems, line, "'origin' must be %s",
				       problem);
		return;
	}
	if (url_parse(origin, &url, &err) < 0)
		config_problem(loader->problems, line, "'origin': %s", err.text);
}

static char **read_origins(struct loader *loader, size_t app)
{
	size_t count = 0;
	const char *origin;
	unsigned line = 0;
	char **origins;

	while (config_yaml_origin(loader->yaml, app, count, &line))
		count++;
	origins = calloc(count + 1, sizeof(*origins));
	if (!origins) {
		loader->out_of_memory = true;
		return NULL;
	}
	for (size_t i = 0; i < count; i++) {
		origin = config_yaml_origin(loader->yaml, app, i, &line);
		check_origin(loader, origin, line);
		origins[i] = copy(loader, origin);
		if (!origins[i])
			break;
	}
	return origins;
}

/* The defaults must be complete before. */
static void read_app(struct loader *loader, size_t index,
		     const struct config_yaml_app *values, struct app_config *ret)
{
	const struct app_config *defaults = &loader->config->defaults;

	*ret = *defaults;
	ret->name = copy(loader, values->name);
	if (!name_valid(values->name))
		wrong(loader, index, "name",
		      "'name' must be letters, digits and '._+-', at most %d of them, "
		      "the first a letter or digit",
		      NAME_LENGTH_MAX);
	if (config_yaml_line(loader->yaml, index, "origin"))
		ret->origins = read_origins(loader, index);
	if (values->verify != CONFIG_SWITCH_UNSET)
		ret->verify = values->verify == CONFIG_SWITCH_ON;
	if (values->symlinks != CONFIG_SYMLINKS_UNSET)
		ret->contained = values->symlinks == CONFIG_SYMLINKS_CONTAINED;
	if (values->warm != CONFIG_SWITCH_UNSET)
		ret->warm = values->warm == CONFIG_SWITCH_ON;
	read_owner(loader, index, values->owner, ret);
	read_keep(loader, index, values->keep, &ret->keep);
	read_unpack_limit(loader, index, values->unpack_limit, ret);
}

/* An application's place in the file, to tell of those that stand there twice. */
struct named {
	const char *name;
	size_t index;
};

static int compare_named(const void *left, const void *right)
{
	const struct named *a = left, *b = right;
	int r = strcmp(a->name, b->name);

	return r ? r : (a->index > b->index) - (a->index < b->index);
}

static void check_names(struct loader *loader, const struct config_yaml_values *values)
{
	cleanup(free_ptr) struct named *named = NULL;

	named = calloc(values->apps_count + 1, sizeof(*named));
	if (!named) {
		loader->out_of_memory = true;
		return;
	}
	for (size_t i = 0; i < values->apps_count; i++)
		named[i] = (struct named){values->apps[i].name, i};
	qsort(named, values->apps_count, sizeof(*named), compare_named);
	for (size_t i = 1; i < values->apps_count; i++)
		if (!strcmp(named[i - 1].name, named[i].name))
			wrong(loader, named[i].index, "name",
			      "the application '%s' stands here a second time",
			      named[i].name);
}

static void read_apps(struct loader *loader, const struct config_yaml_values *values)
{
	struct config *config = loader->config;

	check_names(loader, values);
	config->apps = calloc(values->apps_count + 1, sizeof(*config->apps));
	if (!config->apps)
		loader->out_of_memory = true;
	for (size_t i = 0; i < values->apps_count && !loader->out_of_memory; i++) {
		read_app(loader, i, &values->apps[i], &config->apps[i]);
		config->app_count++;
	}
	if (!loader->out_of_memory)
		qsort(config->apps, config->app_count, sizeof(*config->apps),
		      compare_apps);
}

static void read_defaults(struct loader *loader, const struct config_yaml_values *values)
{
	struct app_config *defaults = &loader->config->defaults;

	*defaults = (struct app_config){
		.name = copy(loader, ""),
		.origins = read_origins(loader, CONFIG_YAML_TOP),
		.verify = true,
		.keep = KEEP_DEFAULT,
		.warm = values->warm == CONFIG_SWITCH_ON,
	};
	read_keep(loader, CONFIG_YAML_TOP, values->keep, &defaults->keep);
}

static void read_values(struct loader *loader, const struct config_yaml_values *values)
{
	struct config *config = loader->config;

	read_folder(loader, "mount", values->mount, "/srv/deployfs", &config->mount);
	read_folder(loader, "store", values->store, "/var/lib/deployfs", &config->store);
	read_folder(loader, "runtime", values->runtime, "/run/deployfs",
		    &config->runtime);
	make_socket(loader);
	read_group(loader, values->group);
	read_path(loader, "credentials", values->credentials, "/etc/deployfs/credentials",
		  &config->credentials);
	read_path(loader, "known_hosts", values->known_hosts, "/etc/deployfs/known_hosts",
		  &config->known_hosts);
	read_path(loader, "ca_file", values->ca_file, NULL, &config->ca_file);
	config->reserve_bytes = RESERVE_BYTES;
	config->reserve_percent = RESERVE_PERCENT;
	read_reserve(loader, values->reserve);
	config->connect_timeout_ms = 10 * SECOND_MS;
	read_timeout(loader, "connect_timeout", values->connect_timeout,
		     &config->connect_timeout_ms);
	config->stall_timeout_ms = 30 * SECOND_MS;
	read_timeout(loader, "stall_timeout", values->stall_timeout,
		     &config->stall_timeout_ms);
	read_defaults(loader, values);
	if (!loader->out_of_memory)
		read_apps(loader, values);
}

/* @path: kept in the configuration; may be NULL */
static int parse_config(const char *path, const char *text, size_t size,
			struct config **ret, struct config_problems *problems)
{
	cleanup(config_free_ptr) struct config *config = calloc(1, sizeof(*config));
	cleanup(config_yaml_free_ptr) struct config_yaml *yaml = NULL;
	struct loader loader = {.config = config, .problems = problems};
	int r;

	if (!config)
		return -ENOMEM;
	r = config_yaml_parse(text, size, &yaml, problems);
	if (r < 0)
		return r;
	loader.yaml = yaml;
	if (path)
		config->path = copy(&loader, path);
	read_values(&loader, config_yaml_values(yaml));
	if (loader.out_of_memory)
		return -ENOMEM;
	if (problems->count)
		return -EINVAL;
	*ret = take_ptr(config);
	return 0;
}

int config_load(const char *path, bool must_exist, struct config **ret, struct error *err)
{
	struct config_problems problems = {.path = path};
	cleanup(free_ptr) char *text = NULL;
	size_t size = 0;
	int r;

	r = file_read(path, FILE_SIZE_MAX, &text, &size);
	if (r == -ENOENT && !must_exist)
		r = parse_config(NULL, "", 0, ret, &problems);
	else if (r == -EFBIG)
		return error_set(err, -EINVAL, "'%s' is larger than 1 MiB", path);
	else if (r < 0)
		return error_set(err, r, "cannot read '%s': %s", path, strerror(-r));
	else
		r = parse_config(path, text, size, ret, &problems);
	if (r == -EINVAL)
		return error_set(err, r, "%s", problems.text);
	if (r < 0)
		return error_set(err, r, "cannot load '%s': %s", path, strerror(-r));
	return 0;
}

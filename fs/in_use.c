/* SPDX-License-Identifier: Apache-2.0 */
#include "in_use.h"

#include "holders.h"
#include "name.h"

#include <stdio.h>
#include <string.h>

#define HOLDERS_MAX 100 /* told of one version */

/* Give every version that is to be looked at an empty list. Returns how many there are.
 */
static size_t begin(json_t *apps, bool all)
{
	size_t i, count = 0;
	json_t *app, *version;
	const char *name;

	json_object_foreach (apps, name, app) {
		json_array_foreach (json_object_get(app, "versions"), i, version) {
			const char *state =
				json_string_value(json_object_get(version, "state"));

			if (!all && strcmp(state ? state : "", "removing") != 0)
				continue;
			json_object_set_new(version, "in_use", json_array());
			count++;
		}
	}
	return count;
}

/* One component of a path, which a space ends too: no name has one, and the kernel marks
 * what is gone by " (deleted)". */
static const char *component(const char *path, char *name, size_t size)
{
	size_t length;

	if (*path != '/')
		return NULL;
	length = strcspn(++path, "/ ");
	if (length == 0 || length >= size)
		return NULL;
	snprintf(name, size, "%.*s", (int)length, path);
	return path + length;
}

static json_t *version_at(json_t *apps, const char *path)
{
	char app[NAME_LENGTH_MAX + 1], name[NAME_LENGTH_MAX + 1];
	json_t *version;
	size_t i;

	path = component(path, app, sizeof(app));
	if (!path || !component(path, name, sizeof(name)))
		return NULL;
	json_array_foreach (json_object_get(json_object_get(apps, app), "versions"), i,
			    version) {
		const char *known =
			json_string_value(json_object_get(version, "version"));

		if (known && !strcmp(known, name))
			return version;
	}
	return NULL;
}

/* A process is told once a version, by the first of its uses; a bind always. */
static bool told(const json_t *list, const struct holder *holder)
{
	const json_t *last = json_array_get(list, json_array_size(list) - 1);

	return holder->how != HOLDER_BOUND &&
	       json_integer_value(json_object_get(last, "pid")) == holder->pid;
}

static void add(void *context, const struct holder *holder)
{
	json_t *list = json_object_get(version_at(context, holder->path), "in_use");
	char how[512];
	json_t *one;

	if (!json_is_array(list) || json_array_size(list) >= HOLDERS_MAX ||
	    told(list, holder))
		return;
	holder_how(holder, how, sizeof(how));
	/* A name or path that is not UTF-8 is left out, the process is not. */
	one = json_pack("{s:i, s:s, s:s?, s:s}", "pid", (int)holder->pid, "name", "",
			"container", *holder->container ? holder->container : NULL, "how",
			"bind mount");
	json_object_set_new(one, "name", json_string(holder->name));
	json_object_set_new(one, "how", json_string(how));
	json_array_append_new(list, one);
}

void in_use_fill(json_t *apps, dev_t device, bool all)
{
	if (begin(apps, all) > 0)
		holders_each(device, add, apps);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "origins.h"

#include "clock.h"
#include "log.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define ORIGINS_MAX 256

struct origin {
	char *url;
	char *error; /* NULL: it answered */
	int64_t since_ns;
};

struct origins {
	pthread_mutex_t lock; /* guards what follows */
	struct origin origins[ORIGINS_MAX];
	size_t count;
};

struct origins *origins_new(void)
{
	struct origins *origins = calloc(1, sizeof(*origins));

	if (origins)
		pthread_mutex_init(&origins->lock, NULL);
	return origins;
}

void origins_free(struct origins *origins)
{
	if (!origins)
		return;
	for (size_t i = 0; i < origins->count; i++) {
		free(origins->origins[i].url);
		free(origins->origins[i].error);
	}
	pthread_mutex_destroy(&origins->lock);
	free(origins);
}

static struct origin *find(struct origins *origins, const char *url)
{
	for (size_t i = 0; i < origins->count; i++)
		if (!strcmp(origins->origins[i].url, url))
			return &origins->origins[i];
	return NULL;
}

static void note(struct origins *origins, const char *url, const char *error)
{
	struct origin *origin = find(origins, url);
	bool was_online = origin && !origin->error;

	if (!origin) {
		if (origins->count == ORIGINS_MAX)
			return;
		origin = &origins->origins[origins->count];
		origin->url = strdup(url);
		if (!origin->url)
			return;
		origins->count++;
		origin->since_ns = clock_wall_ns();
	} else if (was_online != !error) {
		origin->since_ns = clock_wall_ns();
	}
	free(origin->error);
	origin->error = error ? strdup(error) : NULL;
	if (error && was_online)
		log_warning("an origin went offline: url='%s' error='%s'", url, error);
}

void origins_note(struct origins *origins, const char *url, const char *error)
{
	pthread_mutex_lock(&origins->lock);
	note(origins, url, error);
	pthread_mutex_unlock(&origins->lock);
}

static json_t *one(const struct origin *origin, const char *url)
{
	char since[CLOCK_TEXT_SIZE];

	if (!origin)
		return json_pack("{s:s, s:s, s:n, s:n}", "url", url, "state", "unknown",
				 "since", "error");
	return json_pack("{s:s, s:s, s:s, s:s?}", "url", url, "state",
			 origin->error ? "offline" : "online", "since",
			 clock_format(origin->since_ns, since), "error", origin->error);
}

json_t *origins_json(struct origins *origins, char *const *configured)
{
	json_t *array = json_array();

	pthread_mutex_lock(&origins->lock);
	for (; *configured; configured++)
		json_array_append_new(array,
				      one(find(origins, *configured), *configured));
	pthread_mutex_unlock(&origins->lock);
	return array;
}

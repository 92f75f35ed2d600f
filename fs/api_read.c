/* SPDX-License-Identifier: Apache-2.0 */
#include "api_private.h"
#include "cleanup.h"
#include "clock.h"
#include "in_use.h"
#include "jobs.h"
#include "origins.h"
#include "process.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WAIT_MAX_S 60
#define NS_PER_US  1000.0

void api_store_use(struct service *service, struct api_store_use *ret)
{
	cleanup(free_ptr) struct partial *partials = NULL;
	size_t count = 0;

	*ret = (struct api_store_use){0};
	catalog_bytes(service->store->catalog, &ret->packs, NULL);
	store_partials(service->store, &partials, &count, NULL);
	for (size_t i = 0; i < count; i++)
		ret->partial += partials[i].bytes;
}

static json_t *space_json(struct service *service)
{
	struct space space = {0};
	struct api_store_use use;

	service_space(service, &space, NULL);
	api_store_use(service, &use);
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "total", (json_int_t)space.total,
			 "free", (json_int_t)space.free, "reserve",
			 (json_int_t)space.reserve, "packs", (json_int_t)use.packs,
			 "partial", (json_int_t)use.partial);
}

static json_t *latency_json(const struct histogram *histogram)
{
	struct tally tally;

	histogram_read(histogram, &tally);
	if (tally.count == 0)
		return json_pack("{s:i, s:n, s:n, s:n}", "count", 0, "mean_us", "p50_us",
				 "p99_us");
	return json_pack("{s:I, s:f, s:f, s:f}", "count", (json_int_t)tally.count,
			 "mean_us", (double)tally_mean_ns(&tally) / NS_PER_US, "p50_us",
			 (double)tally_quantile_ns(&tally, 50) / NS_PER_US, "p99_us",
			 (double)tally_quantile_ns(&tally, 99) / NS_PER_US);
}

static json_t *requests_json(const struct metrics *metrics, uint64_t *ret_total)
{
	json_t *requests = json_object();

	for (int kind = 0; kind < REQUEST_KINDS; kind++) {
		uint64_t count = atomic_load_explicit(&metrics->received[kind],
						      memory_order_relaxed);

		*ret_total += count;
		json_object_set_new(requests, apps_request_name((enum apps_request)kind),
				    json_integer((json_int_t)count));
	}
	return requests;
}

static json_t *fuse_json(const struct service *service)
{
	const struct metrics *metrics = &service->metrics;
	json_t *latency = json_object(), *requests;
	struct apps_load load;
	uint64_t total = 0;

	apps_load(service->apps, &load);
	requests = requests_json(metrics, &total);
	for (int kind = 0; kind < REQUEST_KINDS; kind++)
		json_object_set_new(latency, apps_request_name((enum apps_request)kind),
				    latency_json(&metrics->answered[kind]));
	return json_pack("{s:I, s:o, s:I, s:o, s:i, s:i, s:o}", "total",
			 (json_int_t)total, "requests", requests, "read_bytes",
			 (json_int_t)metrics_get(metrics, METRIC_READ_BYTES), "latency",
			 latency, "threads", (int)load.threads, "busy", (int)load.busy,
			 "waiting",
			 load.waiting < 0 ? json_null() : json_integer(load.waiting));
}

json_t *api_origins(struct service *service)
{
	struct config_use *use = service_config(service);
	const struct config *config = use->config;
	json_t *all = origins_json(service->origins, config->defaults.origins);

	for (size_t i = 0; i < config->app_count; i++) {
		json_t *more;

		if (config->apps[i].origins == config->defaults.origins)
			continue;
		more = origins_json(service->origins, config->apps[i].origins);
		json_array_extend(all, more);
		json_decref(more);
	}
	service_config_done(service, use);
	return all;
}

static json_t *supervisor_json(const struct shared *shared)
{
	int64_t last_ns = atomic_load(&shared->last_ns);
	char time[CLOCK_TEXT_SIZE], text[PROCESS_EXIT_SIZE];

	return json_pack("{s:i, s:I, s:I, s:s?, s:s?}", "pid",
			 (int)atomic_load(&shared->supervisor), "generation",
			 (json_int_t)atomic_load(&shared->generation), "restarts",
			 (json_int_t)atomic_load(&shared->restarts), "last_exit",
			 last_ns ? process_exit_text(atomic_load(&shared->last_status),
						     text)
				 : NULL,
			 "last_exit_time", last_ns ? clock_format(last_ns, time) : NULL);
}

uint64_t api_damaged(struct service *service)
{
	uint64_t count = 0;

	catalog_count_damaged(service->store->catalog, &count, NULL);
	return count;
}

int api_get_status(struct api_request *request, json_t **ret, struct error *err)
{
	struct service *service = request->service;
	uint64_t apps, versions;

	view_counts(service->view, &apps, &versions);
	*ret = json_pack(
		"{s:s, s:i, s:I, s:s, s:s, s:b, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}",
		"version", DEPLOYFS_VERSION, "pid", (int)getpid(), "uptime_s",
		(json_int_t)((clock_monotonic_ms() - service->started_ms) / 1000),
		"mount", service->mount.base, "store", service->store->path, "healthy",
		service_healthy(service), "apps", (json_int_t)apps, "versions",
		(json_int_t)versions, "damaged", (json_int_t)api_damaged(service),
		"space", space_json(service), "origins", api_origins(service), "fuse",
		fuse_json(service), "jobs", jobs_list(service->jobs, true), "supervisor",
		supervisor_json(service->place.shared));
	return *ret ? 0 : error_set(err, -ENOMEM, "not enough memory");
}

static json_t *version_json(const struct version *version)
{
	char sum[SHA256_TEXT_SIZE], time[CLOCK_TEXT_SIZE];

	return json_pack("{s:s, s:s, s:[], s:b, s:b, s:s?, s:s?, s:s, s:I, s:I, s:I, s:I,"
			 " s:s, s:s?, s:s, s:s, s:n}",
			 "version", version->name, "state",
			 version_state_name(version->state), "channels", "pinned",
			 version->pinned, "bad", version->bad, "bad_reason",
			 version->bad ? version->bad_reason : NULL, "damaged",
			 *version->damage ? version->damage : NULL, "sha256",
			 sha256_format(version->sha256, sum), "package_bytes",
			 (json_int_t)version->package_bytes, "unpacked_bytes",
			 (json_int_t)version->unpacked_bytes, "stored_bytes",
			 (json_int_t)version->stored_bytes, "files",
			 (json_int_t)version->files, "verified", version->verified,
			 "origin", *version->origin ? version->origin : NULL, "imported",
			 clock_format(version->imported_ns, time), "imported_by",
			 version->imported_by, "in_use");
}

/* Applications by name, while their versions and channels are gathered. */
static json_t *app_of(json_t *apps, const char *name)
{
	json_t *app = json_object_get(apps, name);

	if (!app) {
		app = json_pack("{s:s, s:{}, s:[]}", "name", name, "channels",
				"versions");
		json_object_set_new(apps, name, app);
	}
	return app;
}

static int add_version(void *context, const struct version *version)
{
	json_t *app = app_of(context, version->app);

	return json_array_append_new(json_object_get(app, "versions"),
				     version_json(version)) < 0
		       ? -ENOMEM
		       : 0;
}

static int add_channel(void *context, const struct channel *channel)
{
	json_t *app = app_of(context, channel->app), *version;
	size_t i;

	json_object_set_new(json_object_get(app, "channels"), channel->name,
			    json_string(channel->version));
	json_array_foreach (json_object_get(app, "versions"), i, version) {
		const char *name = json_string_value(json_object_get(version, "version"));

		if (!strcmp(name, channel->version))
			json_array_append_new(json_object_get(version, "channels"),
					      json_string(channel->name));
	}
	return 0;
}

static int newer_first(const void *left, const void *right)
{
	json_t *const *a = left, *const *b = right;

	return -version_compare(json_string_value(json_object_get(*a, "version")),
				json_string_value(json_object_get(*b, "version")));
}

/* An array of objects with a member "version", newest first. */
static int sort_versions(json_t *array)
{
	size_t count = json_array_size(array);
	cleanup(free_ptr) json_t **sorted = calloc(count + 1, sizeof(*sorted));

	if (!sorted)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		sorted[i] = json_incref(json_array_get(array, i));
	qsort(sorted, count, sizeof(*sorted), newer_first);
	json_array_clear(array);
	for (size_t i = 0; i < count; i++)
		json_array_append_new(array, sorted[i]);
	return 0;
}

/* Add an application to an object by name. One at a time: a change waits for no more. */
static int gather(struct service *service, const char *app, json_t *apps,
		  struct error *err)
{
	struct catalog *catalog = service->store->catalog;
	int r = app_of(apps, app) ? 0 : error_set(err, -ENOMEM, "not enough memory");

	if (r == 0)
		r = catalog_each_version(catalog, app, add_version, apps, err);
	if (r == 0)
		r = catalog_each_channel(catalog, app, add_channel, apps, err);
	return r;
}

int api_get_apps(struct api_request *request, json_t **ret, struct error *err)
{
	struct service *service = request->service;
	cleanup(free_ptr) char(*names)[NAME_LENGTH_MAX + 1] = NULL;
	json_t *apps = json_object(), *list = json_array(), *app;
	const char *name;
	size_t count = 0;
	int r = catalog_app_names(service->store->catalog, &names, &count, err);

	for (size_t i = 0; r == 0 && i < count; i++)
		r = gather(service, names[i], apps, err);
	if (r < 0) {
		json_decref(apps);
		json_decref(list);
		return r;
	}
	in_use_fill(apps, service->mount.device, false);
	/* Objects keep the order in which they were filled: by name. */
	json_object_foreach (apps, name, app) {
		sort_versions(json_object_get(app, "versions"));
		json_array_append(list, app);
	}
	json_decref(apps);
	*ret = json_pack("{s:o}", "apps", list);
	return 0;
}

/* Whether the configuration wants a flip of the application to be warm. */
static bool is_warmed(const struct api_request *request)
{
	struct config_use *use = service_config(request->service);
	bool warm = config_app(use->config, request->app)->warm;

	service_config_done(request->service, use);
	return warm;
}

int api_get_app(struct api_request *request, json_t **ret, struct error *err)
{
	const char *in_use = api_query(request, "in_use");
	json_t *apps = NULL, *app;
	int r;

	if (in_use && strcmp(in_use, "true") != 0 && strcmp(in_use, "false") != 0)
		return error_set(err, -EINVAL, "'in_use' is true or false");
	r = catalog_find_app(request->service->store->catalog, request->app, err);
	if (r == 0) {
		apps = json_object();
		r = gather(request->service, request->app, apps, err);
	}
	if (r < 0) {
		json_decref(apps);
		return r;
	}
	app = app_of(apps, request->app);
	in_use_fill(apps, request->service->mount.device,
		    in_use && !strcmp(in_use, "true"));
	sort_versions(json_object_get(app, "versions"));
	json_object_set_new(app, "warm", json_boolean(is_warmed(request)));
	*ret = json_pack("{s:O}", "app", app);
	json_decref(apps);
	return 0;
}

static int add_generation(void *context, const struct generation *generation)
{
	char time[CLOCK_TEXT_SIZE];

	return json_array_append_new(
		       context,
		       json_pack("{s:I, s:s, s:s, s:s, s:s?, s:s, s:s, s:s}",
				 "generation", (json_int_t)generation->number, "time",
				 clock_format(generation->time_ns, time), "who",
				 generation->who, "verb", generation->verb, "from",
				 generation->from, "to", generation->to, "reason",
				 generation->reason, "result", generation->result)) < 0
		       ? -ENOMEM
		       : 0;
}

int api_get_history(struct api_request *request, json_t **ret, struct error *err)
{
	const char *channel = api_query(request, "channel");
	json_t *generations = json_array();
	int r;

	if (!channel)
		channel = CHANNEL_DEFAULT;
	r = catalog_history(request->service->store->catalog, request->app, channel,
			    add_generation, generations, err);
	if (r < 0) {
		json_decref(generations);
		return r;
	}
	*ret = json_pack("{s:s, s:s, s:o}", "app", request->app, "channel", channel,
			 "generations", generations);
	return *ret ? 0 : error_set(err, -EINVAL, "the channel's name is not UTF-8");
}

int api_get_jobs(struct api_request *request, json_t **ret, struct error *err)
{
	*ret = json_pack("{s:o}", "jobs", jobs_list(request->service->jobs, false));
	return *ret ? 0 : error_set(err, -ENOMEM, "not enough memory");
}

int api_get_job(struct api_request *request, json_t **ret, struct error *err)
{
	const char *after = api_query(request, "after"),
		   *wait = api_query(request, "wait_s");
	uint64_t seconds = 0, sequence = 0;
	json_t *job;
	int r = wait ? api_number(wait, "'wait_s'", &seconds, err) : 0;

	if (r == 0 && after)
		r = api_number(after, "'after'", &sequence, err);
	if (r == 0 && seconds > WAIT_MAX_S)
		r = error_set(err, -EINVAL, "'wait_s' is %d at most", WAIT_MAX_S);
	if (r == 0)
		r = jobs_get(request->service->jobs, request->id, sequence,
			     after ? seconds * 1000 : 0, &job, err);
	if (r == 0)
		*ret = json_pack("{s:o}", "job", job);
	return r;
}

/* Which of the listed versions are here. */
static int mark_present(void *context, const struct version *version)
{
	json_t *entry;
	size_t i;

	json_array_foreach (context, i, entry) {
		const char *name = json_string_value(json_object_get(entry, "version"));

		if (name && !strcmp(name, version->name) &&
		    version->state == VERSION_PRESENT)
			json_object_set_new(entry, "present", json_true());
	}
	return 0;
}

int api_get_available(struct api_request *request, json_t **ret, struct error *err)
{
	json_t *result = NULL, *versions;
	int r = jobs_available(request->service->jobs, request->app, &result, err);

	if (r < 0)
		return r;
	versions = json_object_get(result, "versions");
	r = catalog_each_version(request->service->store->catalog, request->app,
				 mark_present, versions, err);
	if (r < 0) {
		json_decref(result);
		return r;
	}
	json_object_set_new(result, "app", json_string(request->app));
	*ret = result;
	return 0;
}

static int add_pointed(void *context, const struct channel *channel)
{
	return json_array_append_new(context,
				     json_pack("{s:s, s:s}", "channel", channel->name,
					       "version", channel->version)) < 0
		       ? -ENOMEM
		       : 0;
}

/* The warmth of the version that each channel points at; previous is one of them. */
int api_get_warmth(struct api_request *request, json_t **ret, struct error *err)
{
	struct catalog *catalog = request->service->store->catalog;
	json_t *channels = json_array();
	json_t *entry;
	size_t i;
	int r = catalog_find_app(catalog, request->app, err);

	if (r == 0)
		r = catalog_each_channel(catalog, request->app, add_pointed, channels,
					 err);
	json_array_foreach (channels, i, entry) {
		const char *version =
			json_string_value(json_object_get(entry, "version"));
		json_t *warmth = NULL;

		if (r == 0)
			r = jobs_warmth(request->service->jobs, request->app, version,
					&warmth, err);
		if (r == 0)
			json_object_update(entry, warmth);
		json_decref(warmth);
	}
	if (r < 0) {
		json_decref(channels);
		return r;
	}
	*ret = json_pack("{s:s, s:o}", "app", request->app, "channels", channels);
	return 0;
}

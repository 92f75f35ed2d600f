/* SPDX-License-Identifier: Apache-2.0 */
/*
 * GET /v1/metrics: what was counted (metrics.h), and what is true at this moment
 */
#include "api_private.h"
#include "clock.h"
#include "jobs.h"
#include "metrics.h"
#include "origins.h"

#include <errno.h>
#include <string.h>

static void gauge(struct exposition *e, const char *name, const char *help,
		  uint64_t number)
{
	exposition_family(e, name, "gauge", help);
	exposition_sample(e, name, number, NULL);
}

static void write_worker(struct service *service, struct exposition *e)
{
	const struct shared *shared = service->place.shared;
	const char *info = "deployfs_build_info";
	const char *restarts = "deployfs_worker_restarts_total";
	uint64_t now_ms = clock_monotonic_ms();

	exposition_family(e, info, "gauge", "Always 1; the version of deployfsd.");
	exposition_sample(e, info, 1, "version", DEPLOYFS_VERSION, NULL);
	gauge(e, "deployfs_healthy", "Whether the daemon has its mount.",
	      service_healthy(service));
	gauge(e, "deployfs_worker_uptime_seconds",
	      "Since when the counters count: the age of the worker.",
	      (now_ms - service->started_ms) / 1000);
	gauge(e, "deployfs_worker_generation",
	      "Workers since the supervisor was started first.",
	      atomic_load(&shared->generation));
	exposition_family(e, restarts, "counter", "Those of them that died.");
	exposition_sample(e, restarts, atomic_load(&shared->restarts), NULL);
}

static void write_kernel(struct service *service, struct exposition *e)
{
	struct apps_load load;

	apps_load(service->apps, &load);
	gauge(e, "deployfs_fuse_threads", "Threads that answer the kernel.",
	      load.threads);
	gauge(e, "deployfs_fuse_threads_busy", "Those that work on a request.",
	      load.busy);
	if (load.waiting >= 0)
		gauge(e, "deployfs_fuse_requests_waiting",
		      "Requests in the kernel that have no reply yet.",
		      (uint64_t)load.waiting);
}

static void write_sources(struct service *service, struct exposition *e)
{
	const char *sources = "deployfs_read_bytes_total";
	struct pack_counts packs;

	pack_set_counts(service->store->packs, &packs);
	exposition_family(e, sources, "counter",
			  "Bytes of files and link targets answered, by where they came "
			  "from.");
	exposition_sample(e, sources, packs.first_bytes, "source", "pack_first", NULL);
	exposition_sample(e, sources, packs.again_bytes, "source", "pack_again", NULL);
	exposition_sample(e, sources, view_memory_bytes(service->view), "source",
			  "memory", NULL);
	gauge(e, "deployfs_packs", "Packs in the store.", packs.packs);
	gauge(e, "deployfs_packs_loaded", "Those whose metadata is in memory.",
	      packs.loaded);
	gauge(e, "deployfs_packs_loaded_bytes", "Bytes of this metadata.",
	      packs.meta_bytes);
}

static void write_queues(struct service *service, struct exposition *e)
{
	const struct metrics *metrics = &service->metrics;
	uint64_t closed = metrics_get(metrics, METRIC_API_CLOSED);
	unsigned queued, running;

	jobs_counts(service->jobs, &queued, &running);
	gauge(e, "deployfs_jobs_queued", "Jobs that wait for their turn.", queued);
	gauge(e, "deployfs_jobs_running", "Jobs that run.", running);
	gauge(e, "deployfs_api_connections", "Connections of the API.",
	      metrics_get(metrics, METRIC_API_OPENED) - closed);
}

static void write_content(struct service *service, struct exposition *e)
{
	uint64_t apps, versions;

	view_counts(service->view, &apps, &versions);
	gauge(e, "deployfs_apps", "Applications.", apps);
	gauge(e, "deployfs_versions", "Versions of them.", versions);
	gauge(e, "deployfs_versions_damaged", "Versions with damage.",
	      api_damaged(service));
}

static void write_disk(struct service *service, struct exposition *e)
{
	struct api_store_use use;
	struct space space;

	api_store_use(service, &use);
	gauge(e, "deployfs_store_packs_bytes", "What all packs take.", use.packs);
	gauge(e, "deployfs_store_partial_bytes", "What partial downloads take.",
	      use.partial);
	if (service_space(service, &space, NULL) < 0)
		return;
	gauge(e, "deployfs_disk_size_bytes", "The disk of the store.", space.total);
	gauge(e, "deployfs_disk_free_bytes", "What is free on it.", space.free);
	gauge(e, "deployfs_disk_reserve_bytes", "What is kept free of it.",
	      space.reserve);
}

/* One of which nobody has asked anything yet is left out. */
static void write_origins(struct service *service, struct exposition *e)
{
	const char *up = "deployfs_origin_up";
	json_t *origins = api_origins(service), *origin;
	size_t i;

	exposition_family(e, up, "gauge", "Whether an origin gave the last answer.");
	json_array_foreach (origins, i, origin) {
		const char *state = json_string_value(json_object_get(origin, "state"));
		const char *url = json_string_value(json_object_get(origin, "url"));

		if (url && state && strcmp(state, "unknown") != 0)
			exposition_sample(e, up, !strcmp(state, "online"), "url", url,
					  NULL);
	}
	json_decref(origins);
}

int api_get_metrics(struct api_request *request, json_t **ret, struct error *err)
{
	struct service *service = request->service;
	struct exposition e;

	if (exposition_open(&e) < 0)
		return error_set(err, -ENOMEM, "not enough memory");
	write_worker(service, &e);
	metrics_write(&service->metrics, &e);
	write_kernel(service, &e);
	write_sources(service, &e);
	write_queues(service, &e);
	write_content(service, &e);
	write_disk(service, &e);
	write_origins(service, &e);
	request->text_type = EXPOSITION_CONTENT_TYPE;
	if (exposition_close(&e, &request->text) < 0)
		return error_set(err, -ENOMEM, "not enough memory");
	return 0;
}

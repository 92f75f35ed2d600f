/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What nothing keeps is removed: everything but what a channel points at, previous, what
 * is pinned, and the newest versions of each application. A plan is made first, so that
 * it can be shown without doing it, with a reason for every version.
 */
#include "cleanup.h"
#include "clock.h"
#include "reaper.h"
#include "service.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One version in the plan of a gc. */
struct plan_entry {
	struct version version;
	char reason[200];
	bool remove;
};

struct plan {
	struct service *service;
	const struct config *config;
	struct plan_entry *entries;
	size_t count, room;
};

static int plan_add(void *context, const struct version *version)
{
	struct plan *plan = context;

	if (version->state != VERSION_PRESENT)
		return 0;
	if (plan->count == plan->room) {
		size_t room = plan->room ? plan->room * 2 : 64;
		struct plan_entry *larger =
			realloc(plan->entries, room * sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		plan->entries = larger;
		plan->room = room;
	}
	plan->entries[plan->count++] = (struct plan_entry){.version = *version};
	return 0;
}

static int plan_compare(const void *left, const void *right)
{
	const struct plan_entry *a = left, *b = right;

	return -version_compare(a->version.name, b->version.name);
}

static int plan_channel(void *context, const struct channel *channel)
{
	struct plan *plan = context;

	for (size_t i = 0; i < plan->count; i++) {
		struct plan_entry *entry = &plan->entries[i];
		size_t size = strlen(entry->reason);

		if (strcmp(entry->version.name, channel->version))
			continue;
		snprintf(entry->reason + size, sizeof(entry->reason) - size, "%s%.130s",
			 size ? ", " : "", channel->name);
	}
	return 0;
}

static void plan_decide(struct plan *plan)
{
	for (size_t i = 0; i < plan->count; i++) {
		struct plan_entry *entry = &plan->entries[i];
		unsigned newer = (unsigned)i;
		unsigned keep = config_app(plan->config, entry->version.app)->keep;

		if (entry->reason[0])
			continue;
		if (entry->version.pinned) {
			snprintf(entry->reason, sizeof(entry->reason), "pinned");
		} else if (newer < keep) {
			snprintf(entry->reason, sizeof(entry->reason),
				 "one of the newest %u", keep);
		} else {
			snprintf(entry->reason, sizeof(entry->reason),
				 "no channel or pin keeps it, and %u are newer", newer);
			entry->remove = true;
		}
	}
}

/* Of one application: the catalog is held up no longer than that takes. */
static int plan_make(struct plan *plan, const char *app, struct error *err)
{
	struct catalog *catalog = plan->service->store->catalog;
	int r = catalog_each_version(catalog, app, plan_add, plan, err);

	if (r < 0)
		return r;
	if (plan->count)
		qsort(plan->entries, plan->count, sizeof(plan->entries[0]), plan_compare);
	r = catalog_each_channel(catalog, app, plan_channel, plan, err);
	if (r == 0)
		plan_decide(plan);
	return r;
}

static int plan_run(struct plan *plan, bool dry_run, json_t *ret, struct error *err)
{
	for (size_t i = 0; i < plan->count; i++) {
		struct plan_entry *entry = &plan->entries[i];
		const struct version *version = &entry->version;
		struct error why = {0};

		/* Somebody may have flipped to it since the plan was made: then it stays.
		 */
		if (entry->remove && !dry_run &&
		    service_hide(plan->service, version->app, version->name, NULL, &why) <
			    0) {
			entry->remove = false;
			snprintf(entry->reason, sizeof(entry->reason), "%.190s",
				 why.text);
		}
		if (json_array_append_new(
			    ret, json_pack("{s:s, s:s, s:s, s:s, s:I}", "app",
					   version->app, "version", version->name,
					   "action", entry->remove ? "remove" : "keep",
					   "reason", entry->reason, "bytes",
					   (json_int_t)version->stored_bytes)) < 0)
			return error_set(err, -ENOMEM, "not enough memory");
	}
	return 0;
}

static int plans_run(struct service *s, const struct config *config, bool dry_run,
		     json_t *ret, struct error *err)
{
	cleanup(free_ptr) char(*names)[NAME_LENGTH_MAX + 1] = NULL;
	struct plan plan = {.service = s, .config = config};
	size_t count = 0;
	int r = catalog_app_names(s->store->catalog, &names, &count, err);

	for (size_t i = 0; r == 0 && i < count; i++) {
		plan.count = 0;
		r = plan_make(&plan, names[i], err);
		if (r == 0)
			r = plan_run(&plan, dry_run, ret, err);
	}
	free(plan.entries);
	return r;
}

static int partials_run(struct service *s, bool dry_run, json_t *ret, uint64_t *freed,
			struct error *err)
{
	cleanup(free_ptr) struct partial *partials = NULL;
	size_t count = 0;
	int r = store_partials(s->store, &partials, &count, err);

	for (size_t i = 0; r == 0 && i < count; i++) {
		bool old = clock_wall_ns() - partials[i].mtime_ns > PARTIAL_KEPT_NS;
		char path[4096], name[300];

		snprintf(name, sizeof(name), "partial/%s", partials[i].name);
		if (old && !dry_run && unlink(store_path(s->store, name, path)) == 0)
			*freed += partials[i].bytes;
		json_array_append_new(
			ret, json_pack("{s:s, s:I, s:s, s:s}", "file", partials[i].name,
				       "bytes", (json_int_t)partials[i].bytes, "action",
				       old ? "remove" : "keep", "reason",
				       old ? "not touched for seven days"
					   : "the next fetch resumes it"));
	}
	return r;
}

int service_gc(struct service *s, bool dry_run, json_t **ret, struct error *err)
{
	struct config_use *use = service_config(s);
	json_t *versions = json_array(), *partials = json_array();
	uint64_t freed = 0, freed_partials = 0;
	int r = plans_run(s, use->config, dry_run, versions, err);

	if (r == 0)
		r = partials_run(s, dry_run, partials, &freed_partials, err);
	if (r == 0 && !dry_run && reaper_run(s, &freed, NULL) != 0)
		reaper_kick(s);
	service_config_done(s, use);
	if (r < 0) {
		json_decref(versions);
		json_decref(partials);
		return r;
	}
	*ret = json_pack("{s:i, s:b, s:o, s:o, s:I}", "schema", 1, "dry_run", dry_run,
			 "versions", versions, "partials", partials, "freed_bytes",
			 (json_int_t)(freed + freed_partials));
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps I4 (commit, view, notifications, reply), I8 (a start needs no origin, and one
 * damaged package keeps no other from being shown) and I10 (removal waits for holders).
 *
 * Lock order: reap, then sharing; change alone. None is held during a notification but
 * reap, which no request ever needs.
 */
#include "service.h"

#include "cleanup.h"
#include "clock.h"
#include "holders.h"
#include "jobs.h"
#include "log.h"
#include "origins.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define REAP_AGAIN_S 2    /* while somebody holds a removed version */
#define REAP_IDLE_S  3600 /* for old partial downloads */

/* Changes of one command, from the catalog's commit to the last notification. */
static void show(struct service *s, const struct change_list *changes)
{
	for (size_t i = 0; i < changes->count; i++)
		if (view_apply(s->view, &changes->changes[i]) < 0)
			log_error("out of memory while showing a change of '%s': restart "
				  "deployfsd",
				  changes->changes[i].app);
}

static void notify(struct service *s, const struct change_list *changes)
{
	for (size_t i = 0; i < changes->count; i++)
		apps_notify(s->apps, &changes->changes[i]);
}

/* The end of every change: the catalog has committed (@r 0) and s->change is held. */
static int change_end(struct service *s, int r, const struct change_list *changes)
{
	if (r == 0)
		show(s, changes);
	pthread_mutex_unlock(&s->change);
	if (r == 0)
		notify(s, changes);
	return r;
}

int service_flip(struct service *s, const char *app, const char *channel,
		 const char *version, const char *who, const char *reason,
		 struct flip *ret, struct error *err)
{
	cleanup(change_list_done) struct change_list changes = {0};
	int r;

	pthread_mutex_lock(&s->change);
	r = catalog_flip(s->store->catalog, app, channel, version, who, reason, ret,
			 &changes, err);
	return change_end(s, r, &changes);
}

int service_rollback(struct service *s, const char *app, const char *channel,
		     const char *who, const char *reason, struct flip *ret,
		     struct error *err)
{
	cleanup(change_list_done) struct change_list changes = {0};
	int r;

	pthread_mutex_lock(&s->change);
	r = catalog_rollback(s->store->catalog, app, channel, who, reason, ret, &changes,
			     err);
	return change_end(s, r, &changes);
}

int service_check_new(struct service *s, const char *app, const char *version,
		      const unsigned char *sha256, bool *ret_shown, struct error *err)
{
	cleanup(change_list_done) struct change_list changes = {0};
	int r;

	pthread_mutex_lock(&s->change);
	r = catalog_check_new(s->store->catalog, app, version, sha256, &changes, err);
	r = change_end(s, r, &changes);
	*ret_shown = r == 0 && changes.count > 0;
	return r;
}

int service_add(struct service *s, const struct version *version, struct error *err)
{
	cleanup(change_list_done) struct change_list changes = {0};
	int r;

	pthread_mutex_lock(&s->change);
	r = store_add(s->store, version, &changes, err);
	return change_end(s, r, &changes);
}

int service_share_begin(struct service *s, const atomic_bool *cancelled)
{
	int r = 0;

	pthread_mutex_lock(&s->sharing);
	while (s->sharing_taken && !(cancelled && *cancelled))
		pthread_cond_wait(&s->sharing_free, &s->sharing);
	if (cancelled && *cancelled)
		r = -ECANCELED;
	else
		s->sharing_taken = true;
	pthread_mutex_unlock(&s->sharing);
	return r;
}

bool service_share_try(struct service *s)
{
	bool free;

	pthread_mutex_lock(&s->sharing);
	free = !s->sharing_taken;
	s->sharing_taken = true;
	pthread_mutex_unlock(&s->sharing);
	return free;
}

void service_share_end(struct service *s)
{
	pthread_mutex_lock(&s->sharing);
	s->sharing_taken = false;
	pthread_cond_broadcast(&s->sharing_free);
	pthread_mutex_unlock(&s->sharing);
}

void service_share_wake(struct service *s)
{
	pthread_mutex_lock(&s->sharing);
	pthread_cond_broadcast(&s->sharing_free);
	pthread_mutex_unlock(&s->sharing);
}

/* Versions that are hidden, but not yet free. */
struct hidden {
	struct version *versions;
	size_t count, room;
};

static int hidden_add(void *context, const struct version *version)
{
	struct hidden *hidden = context;

	if (version->state != VERSION_REMOVING)
		return 0;
	if (hidden->count == hidden->room) {
		size_t room = hidden->room ? hidden->room * 2 : 8;
		struct version *larger =
			realloc(hidden->versions, room * sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		hidden->versions = larger;
		hidden->room = room;
	}
	hidden->versions[hidden->count++] = *version;
	return 0;
}

static bool version_held(struct service *s, const struct version *version)
{
	struct change change = {
		.kind = CHANGE_VERSION_GONE,
		.node = version_root(version),
		.pack = version->pack,
	};
	struct pack_stat app;

	if (view_lookup(s->view, VIEW_ROOT, version->app, &app) < 0)
		return true;
	change.app_node = app.node;
	memcpy(change.app, version->app, sizeof(change.app));
	memcpy(change.name, version->name, sizeof(change.name));
	return apps_held(s->apps, &change) != 0;
}

/* Free what nobody holds. Returns how many hidden versions are still held, or an error.
 */
static int reap(struct service *s, uint64_t *ret_freed, struct error *err)
{
	struct hidden hidden = {0};
	bool now = false;
	int held = 0, r;

	pthread_mutex_lock(&s->reap);
	r = catalog_each_version(s->store->catalog, NULL, hidden_add, &hidden, err);
	for (size_t i = 0; r == 0 && i < hidden.count; i++) {
		if (version_held(s, &hidden.versions[i])) {
			held++;
			continue;
		}
		r = catalog_forget(s->store->catalog, hidden.versions[i].id, err);
	}
	/* Not while a package is just being compared with what might be freed: later,
	 * then. */
	if (r == 0)
		now = service_share_try(s);
	if (now) {
		r = store_sweep(s->store, ret_freed, err);
		service_share_end(s);
	}
	pthread_mutex_unlock(&s->reap);
	free(hidden.versions);
	return r < 0 ? r : held + (now ? 0 : 1);
}

static void reaper_kick(struct service *s)
{
	pthread_mutex_lock(&s->reaper_lock);
	s->reaper_kicked = true;
	pthread_cond_signal(&s->reaper_wake);
	pthread_mutex_unlock(&s->reaper_lock);
}

/* One round of the reaper: how long until the next, in seconds. */
static int reap_round(struct service *s)
{
	struct error err = {0};
	uint64_t freed = 0;
	int r = reap(s, &freed, &err);

	if (r < 0)
		log_error("cannot free removed versions: %s", err.text);
	if (freed)
		log_info("freed the space of removed versions: bytes=%llu",
			 (unsigned long long)freed);
	if (store_sweep_partials(s->store, &err) < 0)
		log_error("cannot remove old partial downloads: %s", err.text);
	return r ? REAP_AGAIN_S : REAP_IDLE_S;
}

static void *reaper(void *context)
{
	struct service *s = context;

	pthread_mutex_lock(&s->reaper_lock);
	while (!s->reaper_stop) {
		struct timespec until;
		int seconds;

		pthread_mutex_unlock(&s->reaper_lock);
		seconds = reap_round(s);
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += seconds;
		pthread_mutex_lock(&s->reaper_lock);
		if (!s->reaper_stop && !s->reaper_kicked)
			pthread_cond_timedwait(&s->reaper_wake, &s->reaper_lock, &until);
		s->reaper_kicked = false;
	}
	pthread_mutex_unlock(&s->reaper_lock);
	return NULL;
}

static int hide(struct service *s, const char *app, const char *version,
		struct error *err)
{
	cleanup(change_list_done) struct change_list changes = {0};
	char text[350];
	int r;

	if (holders_over(s->mount.device, app, version, text, sizeof(text)))
		return error_set(err, -EBUSY,
				 "something is mounted inside version '%s' of '%s', and "
				 "would be lost: %s",
				 version, app, text);
	pthread_mutex_lock(&s->change);
	r = catalog_hide(s->store->catalog, app, version, &changes, err);
	return change_end(s, r, &changes);
}

int service_remove(struct service *s, const char *app, const char *version,
		   bool *ret_removed, uint64_t *ret_freed, struct error *err)
{
	struct version known;
	int r = hide(s, app, version, err);

	if (r < 0)
		return r;
	*ret_freed = 0;
	/* It is hidden for good: a failure to free is the reaper's to try again. */
	r = reap(s, ret_freed, NULL);
	if (r != 0)
		reaper_kick(s);
	r = catalog_find(s->store->catalog, app, version, &known, err);
	*ret_removed = r == 0 && known.state == VERSION_REMOVED;
	return r;
}

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
	int order = strcmp(a->version.app, b->version.app);

	return order ? order : -version_compare(a->version.name, b->version.name);
}

static int plan_channel(void *context, const struct channel *channel)
{
	struct plan *plan = context;

	for (size_t i = 0; i < plan->count; i++) {
		struct plan_entry *entry = &plan->entries[i];
		size_t size = strlen(entry->reason);

		if (strcmp(entry->version.app, channel->app) ||
		    strcmp(entry->version.name, channel->version))
			continue;
		snprintf(entry->reason + size, sizeof(entry->reason) - size, "%s%.130s",
			 size ? ", " : "", channel->name);
	}
	return 0;
}

static void plan_decide(struct plan *plan)
{
	unsigned newer = 0;

	for (size_t i = 0; i < plan->count; i++) {
		struct plan_entry *entry = &plan->entries[i];
		unsigned keep = config_app(plan->config, entry->version.app)->keep;

		newer = i > 0 && !strcmp(entry[-1].version.app, entry->version.app)
				? newer + 1
				: 0;
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

static int plan_make(struct plan *plan, struct error *err)
{
	struct catalog *catalog = plan->service->store->catalog;
	int r = catalog_each_version(catalog, NULL, plan_add, plan, err);

	if (r < 0)
		return r;
	if (plan->count)
		qsort(plan->entries, plan->count, sizeof(plan->entries[0]), plan_compare);
	r = catalog_each_channel(catalog, NULL, plan_channel, plan, err);
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
		    hide(plan->service, version->app, version->name, &why) < 0) {
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
	struct plan plan = {.service = s, .config = use->config};
	json_t *versions = json_array(), *partials = json_array();
	uint64_t freed = 0, freed_partials = 0;
	int r = plan_make(&plan, err);

	if (r == 0)
		r = plan_run(&plan, dry_run, versions, err);
	if (r == 0)
		r = partials_run(s, dry_run, partials, &freed_partials, err);
	if (r == 0 && !dry_run && reap(s, &freed, NULL) != 0)
		reaper_kick(s);
	free(plan.entries);
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

struct config_use *service_config(struct service *s)
{
	struct config_use *use;

	pthread_mutex_lock(&s->config_lock);
	use = s->config;
	use->users++;
	pthread_mutex_unlock(&s->config_lock);
	return use;
}

void service_config_done(struct service *s, struct config_use *use)
{
	bool last;

	pthread_mutex_lock(&s->config_lock);
	last = --use->users == 0;
	pthread_mutex_unlock(&s->config_lock);
	if (last) {
		config_free(use->config);
		free(use);
	}
}

static int config_take(struct service *s, struct config *config)
{
	struct config_use *use = calloc(1, sizeof(*use)), *old;

	if (!use)
		return -ENOMEM;
	use->config = config;
	use->users = 1;
	pthread_mutex_lock(&s->config_lock);
	old = s->config;
	s->config = use;
	pthread_mutex_unlock(&s->config_lock);
	if (old)
		service_config_done(s, old);
	return 0;
}

int service_reload(struct service *s, struct error *err)
{
	struct config_use *use = service_config(s);
	struct config *config = NULL;
	int r;

	if (!use->config->path)
		r = config_load(CONFIG_PATH_DEFAULT, false, &config, err);
	else
		r = config_load(use->config->path, true, &config, err);
	if (r == -ENOENT)
		r = error_set(err, -EINVAL, "%s", err->text);
	if (r == 0 && (strcmp(config->mount, use->config->mount) ||
		       strcmp(config->store, use->config->store) ||
		       strcmp(config->runtime, use->config->runtime)))
		r = error_set(
			err, -EINVAL,
			"'mount', 'store' and 'runtime' cannot change while deployfsd "
			"runs: restart it");
	service_config_done(s, use);
	if (r == 0)
		r = config_take(s, config);
	else
		config_free(config);
	if (r == 0)
		log_info("the configuration was read again");
	return r;
}

int service_space(struct service *s, struct space *ret, struct error *err)
{
	struct config_use *use = service_config(s);
	int r = space_of(s->store->path, use->config->reserve_bytes,
			 use->config->reserve_percent, ret);

	service_config_done(s, use);
	if (r < 0)
		return error_set(err, r, "cannot look at the disk of '%s': %s",
				 s->store->path, strerror(-r));
	if (s->apps)
		apps_set_space(s->apps, ret->total, ret->free);
	return 0;
}

static int show_one(void *context, const struct change *change)
{
	return view_apply(context, change);
}

static int remember_one(void *context, const struct change *change)
{
	return view_remember(context, change);
}

static int view_fill(struct service *s, struct error *err)
{
	int r;

	s->view = view_new(s->store->packs);
	if (!s->view)
		return error_set(err, -ENOMEM, "not enough memory");
	r = catalog_settle(s->store->catalog, DEPLOYFS_VERSION, err);
	if (r == 0)
		r = catalog_each_change(s->store->catalog, show_one, s->view, err);
	if (r == 0)
		r = catalog_each_leaf(s->store->catalog, remember_one, s->view, err);
	return r;
}

static void conditions_init(struct service *s)
{
	pthread_condattr_t monotonic;

	pthread_mutex_init(&s->change, NULL);
	pthread_mutex_init(&s->sharing, NULL);
	pthread_mutex_init(&s->config_lock, NULL);
	pthread_mutex_init(&s->reap, NULL);
	pthread_mutex_init(&s->reaper_lock, NULL);
	pthread_mutex_init(&s->leave, NULL);
	pthread_cond_init(&s->sharing_free, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&s->reaper_wake, &monotonic);
	pthread_condattr_destroy(&monotonic);
}

void service_free(struct service *s)
{
	if (s->reaper_started) {
		pthread_mutex_lock(&s->reaper_lock);
		s->reaper_stop = true;
		pthread_cond_signal(&s->reaper_wake);
		pthread_mutex_unlock(&s->reaper_lock);
		pthread_join(s->reaper, NULL);
	}
	jobs_free(s->jobs);
	apps_stop(s->apps);
	mount_done(&s->mount);
	view_free(s->view);
	store_close(s->store);
	origins_free(s->origins);
	if (s->config)
		service_config_done(s, s->config);
	free(s);
}

static int threads_start(struct service *s, struct error *err)
{
	s->jobs = jobs_new(s);
	if (!s->jobs)
		return error_set(err, -ENOMEM, "not enough memory");
	if (pthread_create(&s->reaper, NULL, reaper, s))
		return error_set(err, -EAGAIN, "cannot start a thread");
	s->reaper_started = true;
	return 0;
}

static int start(struct service *s, const struct config *config, struct error *err)
{
	struct space space;
	int r = store_open(config->store, true, &s->store, err);

	if (r == 0)
		r = view_fill(s, err);
	if (r == 0)
		r = mount_apps(config->mount, &s->mount, err);
	if (r == 0)
		r = apps_start(&s->mount, s->view, &s->apps, err);
	if (r == 0)
		r = threads_start(s, err);
	if (r == 0)
		service_space(s, &space, NULL);
	return r;
}

int service_start(struct config *config, struct service **ret, struct error *err)
{
	struct service *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return error_set(err, -ENOMEM, "not enough memory");
	conditions_init(s);
	s->mount.fd = -1;
	s->started_ms = clock_monotonic_ms();
	s->origins = origins_new();
	if (!s->origins || config_take(s, config) < 0) {
		service_free(s);
		return error_set(err, -ENOMEM, "not enough memory");
	}
	r = start(s, config, err);
	if (r < 0) {
		struct config_use *use = s->config;

		/* The configuration stays the caller's. */
		s->config = NULL;
		free(use);
		mount_leave(&s->mount, true, NULL);
		service_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

int service_leave(struct service *s, bool force, struct error *err)
{
	int r;

	pthread_mutex_lock(&s->leave);
	r = mount_leave(&s->mount, force, err);
	pthread_mutex_unlock(&s->leave);
	return r;
}

bool service_healthy(struct service *s)
{
	bool here;

	pthread_mutex_lock(&s->leave);
	here = mount_here(&s->mount);
	pthread_mutex_unlock(&s->leave);
	return here;
}

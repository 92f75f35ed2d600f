/* SPDX-License-Identifier: Apache-2.0 */
#include "reaper.h"

#include "cleanup.h"
#include "clock.h"
#include "log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define REAP_AGAIN_S 2    /* while somebody holds a removed version */
#define REAP_IDLE_S  3600 /* for old partial downloads */

#define COPY_PAUSE_MS 5000  /* at least, between two copies of the catalog */
#define COPY_AGAIN_MS 60000 /* after one that failed */
#define COPY_LOAD     20    /* a copy takes at most this part of the time */

/* Versions that are hidden, but not yet free. */
struct hidden {
	struct version *versions;
	size_t count, room;
};

static int hidden_add(void *context, const struct version *version)
{
	struct hidden *hidden = context;

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
int reaper_run(struct service *s, uint64_t *ret_freed, struct error *err)
{
	struct hidden hidden = {0};
	bool now = false;
	int held = 0, r;

	pthread_mutex_lock(&s->reap);
	r = catalog_each_removing(s->store->catalog, hidden_add, &hidden, err);
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

void reaper_kick(struct service *s)
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
	int r = reaper_run(s, &freed, &err);

	if (r < 0)
		log_error("cannot free removed versions: %s", err.text);
	if (freed)
		log_info("freed the space of removed versions: bytes=%llu",
			 (unsigned long long)freed);
	if (store_sweep_partials(s->store, &err) < 0)
		log_error("cannot remove old partial downloads: %s", err.text);
	return r ? REAP_AGAIN_S : REAP_IDLE_S;
}

/* After a commit, under the catalog's lock. */
static void catalog_changed(void *context)
{
	struct service *s = context;

	pthread_mutex_lock(&s->reaper_lock);
	if (!s->catalog_changed)
		pthread_cond_signal(&s->reaper_wake);
	s->catalog_changed = true;
	pthread_mutex_unlock(&s->reaper_lock);
}

/* Copy the catalog, and keep room for changes; nobody waits for either. Returns how long
 * the next copy is to be put off, in milliseconds. */
static uint64_t copy_round(struct service *s, bool *told)
{
	uint64_t start = clock_monotonic_ms(), took;
	struct error err = {0};
	char path[4096];
	int r = catalog_make_room(s->store->catalog, &err);

	if (r == 0)
		r = catalog_backup(s->store->catalog,
				   store_path(s->store, "catalog.bak", path), &err);
	if (r < 0 && !*told)
		log_warning("the catalog's copy is not up to date: %s", err.text);
	*told = r < 0;
	if (r < 0)
		return COPY_AGAIN_MS;
	took = (clock_monotonic_ms() - start) * COPY_LOAD;
	return took > COPY_PAUSE_MS ? took : COPY_PAUSE_MS;
}

/* What the reaper's thread has to do, and when; on the monotonic clock. */
struct agenda {
	uint64_t reap_ms, copy_ms;
	bool copy_failed; /* and that was told */
};

static void wait_for_work(struct service *s, const struct agenda *agenda)
{
	uint64_t until_ms = agenda->reap_ms;
	struct timespec until;

	if (s->catalog_changed && agenda->copy_ms < until_ms)
		until_ms = agenda->copy_ms;
	until.tv_sec = (time_t)(until_ms / 1000);
	until.tv_nsec = (long)(until_ms % 1000) * 1000000;
	if (until_ms > clock_monotonic_ms())
		pthread_cond_timedwait(&s->reaper_wake, &s->reaper_lock, &until);
}

static void work(struct service *s, struct agenda *agenda, bool kicked, bool copy)
{
	if (kicked || clock_monotonic_ms() >= agenda->reap_ms) {
		int seconds = reap_round(s);

		agenda->reap_ms = clock_monotonic_ms() + (uint64_t)seconds * 1000;
	}
	if (copy) {
		uint64_t pause = copy_round(s, &agenda->copy_failed);

		agenda->copy_ms = clock_monotonic_ms() + pause;
	}
}

static void *reaper_main(void *context)
{
	struct service *s = context;
	struct agenda agenda = {0};
	bool stop = false;

	pthread_mutex_lock(&s->reaper_lock);
	while (!stop) {
		bool kicked, copy;

		if (!s->reaper_stop && !s->reaper_kicked)
			wait_for_work(s, &agenda);
		/* At the end the copy is brought up to date, whenever the last one was.
		 */
		stop = s->reaper_stop;
		kicked = s->reaper_kicked && !stop;
		copy = s->catalog_changed &&
		       (stop || clock_monotonic_ms() >= agenda.copy_ms);
		s->reaper_kicked = false;
		if (copy)
			s->catalog_changed = false;
		pthread_mutex_unlock(&s->reaper_lock);
		work(s, &agenda, kicked, copy);
		pthread_mutex_lock(&s->reaper_lock);
		if (copy && agenda.copy_failed)
			s->catalog_changed = true;
	}
	pthread_mutex_unlock(&s->reaper_lock);
	return NULL;
}

int reaper_start(struct service *s, struct error *err)
{
	s->catalog_changed = true; /* who knows what was copied last */
	catalog_on_change(s->store->catalog, catalog_changed, s);
	if (pthread_create(&s->reaper, NULL, reaper_main, s))
		return error_set(err, -EAGAIN, "cannot start a thread");
	s->reaper_started = true;
	return 0;
}

void reaper_stop(struct service *s)
{
	if (!s->reaper_started)
		return;
	pthread_mutex_lock(&s->reaper_lock);
	s->reaper_stop = true;
	pthread_cond_signal(&s->reaper_wake);
	pthread_mutex_unlock(&s->reaper_lock);
	pthread_join(s->reaper, NULL);
	s->reaper_started = false;
}

int service_remove(struct service *s, const char *app, const char *version,
		   const char *key, bool *ret_removed, uint64_t *ret_freed,
		   struct error *err)
{
	struct version known;
	int r = service_hide(s, app, version, key, err);

	if (r < 0)
		return r;
	*ret_freed = 0;
	/* It is hidden for good: a failure to free is the reaper's to try again. */
	r = reaper_run(s, ret_freed, NULL);
	if (r != 0)
		reaper_kick(s);
	r = catalog_find(s->store->catalog, app, version, &known, err);
	*ret_removed = r == 0 && known.state == VERSION_REMOVED;
	return r;
}

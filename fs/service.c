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
#include "reaper.h"
#include "scrub.h"
#include "scrubber.h"
#include "status_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CLOCK_STEP_MS 100 /* more, and the wall clock was set */

/* Changes of one command, from the catalog's commit to the last notification. While we
 * begin there may be nothing yet that shows them. */
static void show(struct service *s, const struct change_list *changes)
{
	for (size_t i = 0; s->view && i < changes->count; i++)
		if (view_apply(s->view, &changes->changes[i]) < 0)
			log_error("out of memory while showing a change of '%s': restart "
				  "deployfsd",
				  changes->changes[i].app);
}

static void notify(struct service *s, const struct change_list *changes)
{
	for (size_t i = 0; s->apps && i < changes->count; i++)
		apps_notify(s->apps, &changes->changes[i]);
}

/* Every change begins before the catalog commits. Who dies between the two leaves the
 * count above 0, and its successor notifies for it. */
static void change_begin(struct service *s)
{
	struct shared *shared = s->place.shared;

	pthread_mutex_lock(&s->changing_lock);
	if (atomic_load(&shared->changing) == 0) {
		atomic_store(&shared->changing_since_ns, clock_wall_ns());
		atomic_store(&shared->changing_since_ms, clock_monotonic_ms());
	}
	atomic_fetch_add(&shared->changing, 1);
	pthread_mutex_unlock(&s->changing_lock);
	pthread_mutex_lock(&s->change);
}

/* Whether status.json is another one after these: it has applications and channels. */
static bool in_status(const struct change_list *changes)
{
	for (size_t i = 0; i < changes->count; i++)
		switch (changes->changes[i].kind) {
		case CHANGE_APP:
		case CHANGE_LINK:
		case CHANGE_LINK_GONE:
			return true;
		default:
			break;
		}
	return false;
}

/* The end of every change: the catalog has committed (@r 0). One that was @repeated is in
 * the view already, but who made it may not have notified yet. */
static int change_end_of(struct service *s, int r, bool repeated,
			 const struct change_list *changes)
{
	uint64_t committed_ns = clock_monotonic_ns();

	if (r == 0 && !repeated)
		show(s, changes);
	pthread_mutex_unlock(&s->change);
	if (r == 0)
		notify(s, changes);
	if (r == 0 && changes->count > 0)
		histogram_add(&s->metrics.notifications,
			      clock_monotonic_ns() - committed_ns);
	if (r == 0 && !repeated && in_status(changes))
		status_file_kick(s->status_file);
	atomic_fetch_sub(&s->place.shared->changing, 1);
	return r;
}

static int change_end(struct service *s, int r, const struct change_list *changes)
{
	return change_end_of(s, r, false, changes);
}

/* The end of a flip or rollback that began at @began_ns. */
static int flip_end(struct service *s, int r, const struct flip *flip,
		    const struct change_list *changes, uint64_t began_ns)
{
	r = change_end_of(s, r, flip->repeated, changes);
	if (r == 0 && flip->changed && !flip->repeated)
		histogram_add(&s->metrics.flips, clock_monotonic_ns() - began_ns);
	return r;
}

int service_flip(struct service *s, const char *app, const char *channel,
		 const char *version, const char *who, const char *reason,
		 const char *key, struct flip *ret, struct error *err)
{
	cleanup(change_list_done) struct change_list changes = {0};
	uint64_t began_ns = clock_monotonic_ns();
	int r;

	change_begin(s);
	r = catalog_flip(s->store->catalog, app, channel, version, who, reason, key, ret,
			 &changes, err);
	return flip_end(s, r, ret, &changes, began_ns);
}

int service_rollback(struct service *s, const char *app, const char *channel,
		     const char *who, const char *reason, const char *key,
		     struct flip *ret, struct error *err)
{
	cleanup(change_list_done) struct change_list changes = {0};
	uint64_t began_ns = clock_monotonic_ns();
	int r;

	change_begin(s);
	r = catalog_rollback(s->store->catalog, app, channel, who, reason, key, ret,
			     &changes, err);
	return flip_end(s, r, ret, &changes, began_ns);
}

int service_check_new(struct service *s, const char *app, const char *version,
		      const unsigned char *sha256, bool *ret_shown, struct error *err)
{
	cleanup(change_list_done) struct change_list changes = {0};
	int r;

	change_begin(s);
	r = catalog_check_new(s->store->catalog, app, version, sha256, &changes, err);
	r = change_end(s, r, &changes);
	*ret_shown = r == 0 && changes.count > 0;
	return r;
}

int service_add(struct service *s, const struct version *version, struct error *err)
{
	cleanup(change_list_done) struct change_list changes = {0};
	int r;

	change_begin(s);
	r = store_add(s->store, version, &changes, err);
	return change_end(s, r, &changes);
}

static void damage_log(struct service *s, uint64_t pack, const char *damage)
{
	cleanup(free_ptr) struct damage *known = NULL;
	const char *app = "-", *version = "-";
	size_t count = 0;

	if (!*damage) {
		log_info("nothing in the pack is damaged any more: pack=%llu",
			 (unsigned long long)pack);
		return;
	}
	catalog_damage(s->store->catalog, &known, &count, NULL);
	for (size_t i = count; i > 0; i--)
		if (known[i - 1].pack == pack) {
			app = known[i - 1].app;
			version = known[i - 1].version;
		}
	log_error("stored content is damaged: app=%s version=%s pack=%llu damage='%s'",
		  app, version, (unsigned long long)pack, damage);
}

int service_set_damage(struct service *s, uint64_t pack, const char *damage,
		       const uint64_t *users, size_t user_count, struct error *err)
{
	cleanup(change_list_done) struct change_list changes = {0};
	int r;

	change_begin(s);
	r = catalog_set_damage(s->store->catalog, pack, damage, users, user_count,
			       &changes, err);
	if (change_end(s, r < 0 ? r : 0, &changes) < 0)
		return r;
	if (r > 0)
		damage_log(s, pack, damage);
	return 0;
}

int service_settle_status(struct service *s, struct error *err)
{
	cleanup(change_list_done) struct change_list changes = {0};
	int r;

	change_begin(s);
	r = catalog_settle_status(s->store->catalog, &changes, err);
	return change_end(s, r, &changes);
}

int service_record(struct service *s, struct scrub *scrub, struct error *err)
{
	cleanup(free_ptr) uint64_t *users = NULL;
	size_t count = 0;
	char text[256];
	int r = scrub_users(scrub, &users, &count, err);

	return r < 0 ? r
		     : service_set_damage(s, scrub->id,
					  scrub_text(scrub, text, sizeof(text)), users,
					  count, err);
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
int service_hide(struct service *s, const char *app, const char *version, const char *key,
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
	change_begin(s);
	r = catalog_hide(s->store->catalog, app, version, key, &changes, err);
	return change_end(s, r, &changes);
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
	r = catalog_each_change(s->store->catalog, show_one, s->view, err);
	if (r == 0)
		r = catalog_each_leaf(s->store->catalog, remember_one, s->view, err);
	return r;
}

static void conditions_init(struct service *s)
{
	pthread_condattr_t monotonic;

	pthread_mutex_init(&s->change, NULL);
	pthread_mutex_init(&s->changing_lock, NULL);
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

/* What changes the catalog by itself. The reaper last: it copies what the others wrote.
 */
static void writers_stop(struct service *s)
{
	scrubber_stop(s->scrubber);
	jobs_free(s->jobs);
	s->jobs = NULL;
	status_file_stop(s->status_file);
	reaper_stop(s);
}

void service_free(struct service *s)
{
	writers_stop(s);
	if (s->apps)
		s->mount.fd = -1; /* libfuse closes it */
	apps_stop(s->apps);
	scrubber_free(s->scrubber);
	status_file_free(s->status_file);
	mount_done(&s->mount);
	view_free(s->view);
	store_close(s->store);
	origins_free(s->origins);
	if (s->config)
		service_config_done(s, s->config);
	free(s);
}

struct service *service_new(struct config *config, const struct service_place *place)
{
	struct service *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	conditions_init(s);
	s->place = *place;
	s->mount.fd = -1;
	s->started_ms = clock_monotonic_ms();
	s->origins = origins_new();
	if (!s->origins || config_take(s, config) < 0) {
		service_free(s);
		return NULL;
	}
	return s;
}

int service_serve(struct service *s, struct error *err)
{
	const struct shared_session *session =
		&s->place.shared->sessions[s->place.session];
	const struct apps_place place = {s->place.shared, s->place.session,
					 s->place.bank};
	bool opened = !s->store;
	int r = 0;

	if (opened)
		r = store_open(s->config->config->store, STORE_SERVE, &s->store, err);
	if (r == 0)
		r = view_fill(s, err);
	if (r < 0 && opened) {
		view_free(s->view);
		store_close(s->store);
		s->view = NULL;
		s->store = NULL;
	}
	if (r < 0)
		return r;
	r = mount_adopt(s->place.shared->base, session->path, session->device,
			s->place.fuse_fd, &s->mount);
	if (r < 0)
		return error_set(err, r, "not enough memory");
	return apps_start(&s->mount, s->view, &place, &s->metrics, &s->apps, err);
}

/* What the catalog says of itself, and what the kernel may have of before. */
static int settle(struct service *s, struct error *err)
{
	cleanup(change_list_done) struct change_list changes = {0};
	int r;

	change_begin(s);
	r = catalog_settle_version(s->store->catalog, DEPLOYFS_VERSION, &changes, err);
	r = change_end(s, r, &changes);
	return r == 0 ? service_settle_status(s, err) : r;
}

int service_own(struct service *s, bool wait, struct error *err)
{
	int r;

	if (s->store)
		r = store_own(s->store, wait, err);
	else
		r = store_open(s->config->config->store, wait ? STORE_WAIT : STORE_OWN,
			       &s->store, err);
	return r == 0 ? settle(s, err) : r;
}

/* Where the wall clock was set meanwhile, all changes may be of that time. */
static int64_t changing_since_ns(const struct shared *shared)
{
	int64_t since_ns = atomic_load(&shared->changing_since_ns);
	uint64_t since_ms = atomic_load(&shared->changing_since_ms);
	int64_t wall_ms = (clock_wall_ns() - since_ns) / 1000000;
	int64_t monotonic_ms = (int64_t)(clock_monotonic_ms() - since_ms);

	return llabs(wall_ms - monotonic_ms) > CLOCK_STEP_MS
		       ? 0
		       : since_ns - CLOCK_STEP_MS * 1000000LL;
}

struct again {
	struct service *service;
	int64_t since_ns;
};

/* Changes that a predecessor may have made and not notified. To ask the kernel of each
 * version would load the packs of all. */
static int notify_again(void *context, const struct change *change)
{
	const struct again *again = context;

	if (change->kind == CHANGE_TEXT || change->app_time_ns >= again->since_ns)
		apps_notify_again(again->service->apps, change);
	return 0;
}

int service_begin(struct service *s, struct error *err)
{
	uint32_t changing = atomic_load(&s->place.shared->changing);
	struct again again = {s, changing_since_ns(s->place.shared)};
	struct space space;
	int r = 0;

	if (changing) {
		log_info("notifying the kernel again: changes were under way");
		r = catalog_each_change(s->store->catalog, notify_again, &again, err);
		atomic_fetch_sub(&s->place.shared->changing, changing);
	}
	if (r == 0) {
		s->jobs = jobs_new(s, &s->place.keeper);
		if (!s->jobs)
			return error_set(err, -ENOMEM, "not enough memory");
		r = status_file_start(s, &s->status_file, err);
	}
	if (r == 0)
		r = reaper_start(s, err);
	if (r == 0)
		r = scrubber_start(s, &s->scrubber, err);
	if (r == 0)
		service_space(s, &space, NULL);
	/* Once a connection. */
	if (r == 0 && !atomic_load(&s->place.shared->taught)) {
		apps_teach(s->apps);
		atomic_store(&s->place.shared->taught, true);
	}
	return r;
}

void service_finish(struct service *s)
{
	writers_stop(s);
	store_release(s->store);
}

void service_recover(struct service *s)
{
	if (s->apps)
		apps_recover(s->apps);
}

int service_leave(struct service *s, bool force, struct error *err)
{
	int r;

	pthread_mutex_lock(&s->leave);
	if (s->jobs)
		jobs_leave_mount(s->jobs);
	r = mount_leave(&s->mount, force, err);
	if (r == 0)
		atomic_store(&s->place.shared->ended, true);
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

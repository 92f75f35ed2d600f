/* SPDX-License-Identifier: Apache-2.0 */
/*
 * service.h - what the daemon does when it is asked to: the store, the mount and the jobs
 * together
 *
 * A change is: the catalog's transaction, then the view, both under one lock so that all
 * agree on their order; then, without it, the notifications; then the reply (I4).
 */
#pragma once

#include "apps.h"
#include "config.h"
#include "error.h"
#include "jobs.h"
#include "metrics.h"
#include "mount.h"
#include "shared.h"
#include "space.h"
#include "store.h"
#include "view.h"

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct jobs;
struct origins;
struct scrub;
struct scrubber;
struct status_file;

/** Where a worker finds what the supervisor holds. */
struct service_place {
	struct shared *shared;
	unsigned session, bank;
	int fuse_fd; /* of the session; taken over by service_serve() */
	struct jobs_keeper keeper;
};

struct service {
	struct service_place place;
	struct store *store;
	struct view *view;
	struct mount mount;
	struct apps *apps;
	struct jobs *jobs;
	struct origins *origins;
	struct scrubber *scrubber;
	struct metrics metrics;
	struct status_file *status_file;
	uint64_t started_ms; /* monotonic */

	pthread_mutex_t changing_lock; /* who raises shared.changing from 0 says when */
	pthread_mutex_t change;  /* catalog and view change together; taken before neither
				  * a FUSE lock nor a notification */
	pthread_mutex_t sharing; /* guards sharing_taken */
	pthread_cond_t sharing_free;
	bool sharing_taken;

	pthread_mutex_t config_lock; /* guards config */
	struct config_use *config;

	pthread_mutex_t reap;        /* one look for what can be freed at a time */
	pthread_mutex_t reaper_lock; /* guards the five below */
	pthread_cond_t reaper_wake;
	bool reaper_stop, reaper_kicked;
	bool catalog_changed; /* since catalog.bak was written */
	pthread_t reaper;
	bool reaper_started;

	pthread_mutex_t leave; /* one attempt to unmount at a time */
};

/** A configuration in use; it stays as it is while somebody has it. */
struct config_use {
	struct config *config;
	int users;
};

/**
 * service_new() - nothing is opened yet
 * @config: taken over
 * Return: NULL when out of memory; then @config stays the caller's.
 */
struct service *service_new(struct config *config, const struct service_place *place);

/**
 * service_serve() - answer the kernel
 * Without service_own() before it, as a successor of a worker that died: reads the
 * catalog, writes nothing. As short as it can be: this is the pause that containers see.
 * Return: 0; -EBADMSG the catalog is damaged: service_own() rebuilds it; what the catalog
 * and apps_start() give.
 */
int service_serve(struct service *service, struct error *err);

/**
 * service_own() - take the store for writing: lock it, sweep what was left behind
 * @wait: for a predecessor that is about to end
 * Return: 0; what store_open() gives.
 */
int service_own(struct service *service, bool wait, struct error *err);

/**
 * service_begin() - after both: notify again where a predecessor may have died before it
 * could, begin to work on jobs and removals
 */
int service_begin(struct service *service, struct error *err);

/**
 * service_finish() - for a successor of another program: put everything down but reading
 * Requests of the API have ended before. The store's lock is free afterwards.
 */
void service_finish(struct service *service);

/** service_recover() - a predecessor is gone now, see apps_recover() */
void service_recover(struct service *service);

/**
 * service_leave() - unmount
 * @force: even when the mount is in use
 * Return: 0; -EBUSY, saying who uses it, and everything goes on.
 */
int service_leave(struct service *service, bool force, struct error *err);

/** service_healthy() - whether the mount is there */
bool service_healthy(struct service *service);

/** service_free() - after service_leave(): end the jobs, close the store */
void service_free(struct service *service);

/** service_config(), service_config_done() - hold the present configuration, let it go */
struct config_use *service_config(struct service *service);
void service_config_done(struct service *service, struct config_use *use);

/**
 * service_reload() - read the configuration again
 * Return: 0; -EINVAL it is wrong, or changes mount, store or runtime, which needs a
 * restart.
 */
int service_reload(struct service *service, struct error *err);

/* Changes; the errors are the catalog's. */
int service_flip(struct service *service, const char *app, const char *channel,
		 const char *version, const char *who, const char *reason,
		 const char *key, struct flip *ret, struct error *err);
int service_rollback(struct service *service, const char *app, const char *channel,
		     const char *who, const char *reason, const char *key,
		     struct flip *ret, struct error *err);
int service_check_new(struct service *service, const char *app, const char *version,
		      const unsigned char *sha256, bool *ret_shown, struct error *err);
int service_add(struct service *service, const struct version *version,
		struct error *err);

/**
 * service_set_damage() - record what is damaged in a pack ("": nothing any more), log it
 * when it is new, and show what follows from it: `previous` may move
 * @users: as of catalog_set_damage()
 */
int service_set_damage(struct service *service, uint64_t pack, const char *damage,
		       const uint64_t *users, size_t user_count, struct error *err);

/** service_record() - the same from the findings of a scrub */
int service_record(struct service *service, struct scrub *scrub, struct error *err);

/** service_settle_status() - show in .deployfs/status.json what has changed */
int service_settle_status(struct service *service, struct error *err);

/**
 * service_hide() - begin a removal: the name disappears, the data stays
 * Return: as catalog_hide(); -EBUSY when something is mounted inside it.
 */
int service_hide(struct service *service, const char *app, const char *version,
		 const char *key, struct error *err);

/**
 * service_remove() - hide a version and free what nobody holds
 * @ret_removed: whether its space was given back already
 * @ret_freed:   bytes
 */
int service_remove(struct service *service, const char *app, const char *version,
		   const char *key, bool *ret_removed, uint64_t *ret_freed,
		   struct error *err);

/** service_gc() - remove what nothing keeps; the reply of POST /v1/gc */
int service_gc(struct service *service, bool dry_run, json_t **ret, struct error *err);

/** service_space() - the store's disk, with the configured reserve */
int service_space(struct service *service, struct space *ret, struct error *err);

/**
 * service_share_begin() - the right to share stored content, or to free it; one at a time
 * @cancelled: looked at when woken by service_share_wake(); gives up when it is true; may
 * be NULL Return: 0; -ECANCELED.
 */
int service_share_begin(struct service *service, const atomic_bool *cancelled);
/** service_share_try() - the same without waiting. Return: whether it was free. */
bool service_share_try(struct service *service);
void service_share_end(struct service *service);
void service_share_wake(struct service *service);

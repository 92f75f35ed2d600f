/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jobs.h - fetches, imports, verifications, repairs, warmings: who wants them, how far
 * they are, their processes
 *
 * A job belongs to the daemon, not to the connection that asked for it. Whoever asks for
 * the same again joins it as one more waiter; only the last waiter's cancellation ends
 * it.
 */
#pragma once

#include "error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct jobs;
struct service;

/** Somebody who survives this process and holds descriptors for the next one. */
struct jobs_keeper {
	/** keep() - a copy of @fd under @name. Return: 0 or a negative errno. */
	int (*keep)(void *context, const char *name, int fd);
	/** kept() - Return: a descriptor of the caller's own; -ENOENT. */
	int (*kept)(void *context, const char *name);
	/** drop() - of what is not there, too */
	void (*drop)(void *context, const char *name);
	void *context;
};

/**
 * jobs_new() - read the records of a predecessor and go on with what it had not ended
 * @keeper: must outlive the jobs; NULL: an import that was interrupted has failed
 *
 * After everything that a job needs is there: they run at once. The predecessor must be
 * gone, or have put its jobs down. Return: NULL when out of memory.
 */
struct jobs *jobs_new(struct service *service, const struct jobs_keeper *keeper);

/** jobs_stop() - the end for good: cancel what runs, take nothing new, let go who waits
 * in jobs_get(); jobs_free() then removes the records */
void jobs_stop(struct jobs *jobs);

/**
 * jobs_put_down() - stop for a successor
 * Kills what runs, waits for it, takes nothing new, lets go who waits in jobs_get(); the
 * jobs are still told as they were. Their records stay, and are the successor's when it
 * returns.
 */
void jobs_put_down(struct jobs *jobs);

/** jobs_free() - after jobs_stop(), else with jobs_put_down(). NULL is allowed. */
void jobs_free(struct jobs *jobs);

/** What a job is asked to do. */
struct job_order {
	const char *kind; /* "fetch", "import", "verify", "repair", "warm" */
	const char *app;
	const char *version; /* NULL: the latest; all */
	const char *channel; /* warm: points at the version in use; else NULL */
	const char *sha256;  /* import: NULL or hexadecimal */
	const char *who;     /* for the catalog */
	const char *key;     /* of the request; NULL: it has none */
	int archive_fd;      /* import: the file, taken over; else -1 */
};

/**
 * jobs_join() - the job that a request with this key was given before, ended or not
 * @order: without archive_fd
 * @ret, @ret_waiter: as of jobs_start(), what they were then
 *
 * Return: 1; 0 no remembered job has this key; -EINVAL it was used for another request.
 */
int jobs_join(struct jobs *jobs, const struct job_order *order, json_t **ret,
	      uint64_t *ret_waiter, struct error *err);

/**
 * jobs_start() - start a job, or join the one that has the key or does the same
 * @ret:        the job as in docs/api.md
 * @ret_waiter: what jobs_cancel() takes
 *
 * Return: 0; -EBUSY when a hundred jobs wait already; -ENOMEM; -EINVAL as jobs_join().
 */
int jobs_start(struct jobs *jobs, const struct job_order *order, json_t **ret,
	       uint64_t *ret_waiter, struct error *err);

/**
 * jobs_get() - a job
 * @after, @wait_ms: wait until its sequence is larger than @after, or so long
 * Return: 0; -ENOENT.
 */
int jobs_get(struct jobs *jobs, uint64_t id, uint64_t after, uint64_t wait_ms,
	     json_t **ret, struct error *err);

/** jobs_list() - all that are remembered; @running: only those that have not ended */
json_t *jobs_list(struct jobs *jobs, bool running);

/** jobs_counts() - how many wait for their turn, and how many run */
void jobs_counts(struct jobs *jobs, unsigned *ret_queued, unsigned *ret_running);

/**
 * jobs_cancel() - give up a job
 * @waiter: 0: for everybody; else only this one's interest
 * @ret:    the job afterwards
 * Return: 1 the job is cancelled; 0 others wait for it, or it has ended; -ENOENT.
 */
int jobs_cancel(struct jobs *jobs, uint64_t id, uint64_t waiter, json_t **ret,
		struct error *err);

/**
 * jobs_warmth() - how much of a version the kernel has in memory
 * Like jobs_available().
 * @ret: as in docs/api.md
 * Return: 0; what warm_measure() gives.
 */
int jobs_warmth(struct jobs *jobs, const char *app, const char *version, json_t **ret,
		struct error *err);

/**
 * jobs_leave_mount() - end the jobs that use the mount, which is to be unmounted
 * Waits until their processes are gone.
 */
void jobs_leave_mount(struct jobs *jobs);

/**
 * jobs_available() - what the origin's SHA256SUMS lists for an application
 * Starts a process as a job does, and waits for it; not a job that others see.
 * @ret: {"origin":…, "versions":[…]} as in docs/api.md
 * Return: 0; what fetch_sums() gives.
 */
int jobs_available(struct jobs *jobs, const char *app, json_t **ret, struct error *err);

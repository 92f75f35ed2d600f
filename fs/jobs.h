/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jobs.h - fetches, imports and verifications: who wants them, how far they are, their
 * processes
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

/** jobs_new() - NULL when out of memory */
struct jobs *jobs_new(struct service *service);

/** jobs_stop() - kill what runs, take nothing new, let go who waits in jobs_get() */
void jobs_stop(struct jobs *jobs);

/** jobs_free() - kill what runs and wait for it. NULL is allowed. */
void jobs_free(struct jobs *jobs);

/** What a job is asked to do. */
struct job_order {
	const char *kind; /* "fetch", "import", "verify" */
	const char *app;
	const char *version; /* NULL: the latest; all */
	const char *sha256;  /* import: NULL or hexadecimal */
	const char *who;     /* for the catalog */
	int archive_fd;      /* import: the file, taken over; else -1 */
};

/**
 * jobs_start() - start a job, or join the one that does the same
 * @ret:        the job as in docs/api.md
 * @ret_waiter: what jobs_cancel() takes
 *
 * Return: 0; -EBUSY when a hundred jobs wait already; -ENOMEM.
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

/**
 * jobs_cancel() - give up a job
 * @waiter: 0: for everybody; else only this one's interest
 * @ret:    the job afterwards
 * Return: 1 the job is cancelled; 0 others wait for it, or it has ended; -ENOENT.
 */
int jobs_cancel(struct jobs *jobs, uint64_t id, uint64_t waiter, json_t **ret,
		struct error *err);

/**
 * jobs_available() - what the origin's SHA256SUMS lists for an application
 * Starts a process as a job does, and waits for it; not a job that others see.
 * @ret: {"origin":…, "versions":[…]} as in docs/api.md
 * Return: 0; what fetch_sums() gives.
 */
int jobs_available(struct jobs *jobs, const char *app, json_t **ret, struct error *err);

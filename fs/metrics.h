/* SPDX-License-Identifier: Apache-2.0 */
/*
 * metrics.h - what a worker counts while it works, for GET /v1/metrics and /v1/status
 *
 * The service owns one. Whoever counts adds with relaxed atomics and waits for nothing;
 * what is true at a moment and needs no counting (queues, memory, disk space) is asked
 * for in api_metrics.c when somebody reads. All begins at 0 with each worker, which who
 * reads counters expects of a restart.
 */
#pragma once

#include "exposition.h"
#include "histogram.h"
#include "job_kind.h"

#include <stdatomic.h>
#include <stdint.h>

/** The kernel's requests by kind. */
enum apps_request {
	REQUEST_LOOKUP,
	REQUEST_GETATTR,
	REQUEST_READLINK,
	REQUEST_READ,
	REQUEST_READDIR,
	REQUEST_READDIRPLUS,
	REQUEST_FORGET,
	REQUEST_IOCTL, /* isatty(3), mostly: the kernel asks each time, whatever the
			  answer */
	REQUEST_OTHER, /* statfs, and what is answered once with ENOSYS: open, opendir,
			  flush */
	REQUEST_KINDS
};

/** Plain counters. One that is added here gets its name and meaning in metrics.c. */
enum metric {
	METRIC_READ_BYTES,  /* of replies to READ */
	METRIC_INVAL_ENTRY, /* notifications of the kernel */
	METRIC_INVAL_INODE,
	METRIC_EXPIRE_ENTRY,
	METRIC_API_OPENED, /* connections of the API */
	METRIC_API_CLOSED,
	METRIC_COUNT
};

#define METRICS_SCHEMES  7
#define METRICS_JOB_ENDS 3

struct metrics {
	_Atomic uint64_t counters[METRIC_COUNT];
	_Atomic uint64_t received[REQUEST_KINDS];
	struct histogram answered[REQUEST_KINDS]; /* from receipt to reply */
	struct histogram flips;         /* also rollbacks: from the order to the end */
	struct histogram notifications; /* of a change, from commit to the end */
	_Atomic uint64_t fetched[METRICS_SCHEMES];
	_Atomic uint64_t jobs[JOB_KINDS][METRICS_JOB_ENDS];
};

/** apps_request_name() - "lookup", … */
const char *apps_request_name(enum apps_request kind);

/** metrics_add() - @count more */
static inline void metrics_add(struct metrics *metrics, enum metric metric,
			       uint64_t count)
{
	atomic_fetch_add_explicit(&metrics->counters[metric], count,
				  memory_order_relaxed);
}

/** metrics_get() - how many so far */
static inline uint64_t metrics_get(const struct metrics *metrics, enum metric metric)
{
	return atomic_load_explicit(&metrics->counters[metric], memory_order_relaxed);
}

/** metrics_fetched() - @bytes came from an origin of @scheme ("ftp", …) */
void metrics_fetched(struct metrics *metrics, const char *scheme, uint64_t bytes);

/** metrics_job_ended() - a job of @kind ("fetch", …), as "done", "failed" or "cancelled"
 */
void metrics_job_ended(struct metrics *metrics, const char *kind, const char *how);

/** metrics_write() - all of it as text */
void metrics_write(const struct metrics *metrics, struct exposition *e);

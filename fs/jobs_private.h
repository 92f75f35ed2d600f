/* SPDX-License-Identifier: Apache-2.0 */
/*
 * jobs_private.h - what jobs.c (the life of a job) and job_record.c (what of it survives
 * the daemon) share
 */
#pragma once

#include "catalog.h"
#include "digest.h"
#include "job_kind.h"
#include "jobs.h"
#include "name.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>

enum job_state {
	STATE_QUEUED,
	STATE_RUNNING,
	STATE_DONE,
	STATE_FAILED,
	STATE_CANCELLED,
};

/** One who asked for a job; his number is his place in the array, counted from 1. */
struct job_waiter {
	bool waits;
	char key[REQUEST_KEY_MAX + 1]; /* of his request; "": none */
};

struct job {
	struct jobs *jobs;
	struct job *next; /* in jobs->list, newest first */
	uint64_t id;
	const struct job_kind *kind;
	char app[NAME_LENGTH_MAX + 1], version[NAME_LENGTH_MAX + 1];
	char channel[NAME_LENGTH_MAX + 1]; /* of a warming; "" */
	char sha256[SHA256_TEXT_SIZE];
	char who[64];
	bool latest;   /* version was left to the origin; "" until it has said which */
	bool taken_up; /* a predecessor of this daemon began it */
	int archive_fd;
	pthread_t thread;

	/* guarded by jobs->lock */
	enum job_state state;
	atomic_bool cancelled; /* somebody has asked; read without the lock too */
	atomic_bool put_down;  /* cancelled, but to be taken up again by a successor */
	bool threaded;         /* its thread has to be joined */
	bool finished;         /* its thread ends without waiting for anything */
	unsigned starts;       /* how often its process was started, in all daemons */
	uint64_t waiting;      /* how many of the waiters wait */
	struct job_waiter *waiters;
	uint64_t waiter_count;
	pid_t pid;
	uint64_t sequence;
	char stage[32], source[1024];
	uint64_t bytes, total, rate;
	uint64_t rate_at_ms, rate_bytes;
	bool downloads;   /* it has told of a download */
	uint64_t fetched; /* of the download in hand, as it was told last */
	int64_t started_ns, ended_ns;
	json_t *warnings, *result;
	struct error error;
};

struct jobs {
	struct service *service;
	const struct jobs_keeper *keeper; /* NULL: nothing keeps descriptors for us */
	int records;          /* the folder of the records, locked; -1: none are kept */
	pthread_mutex_t lock; /* guards what follows, and the records; no other lock is
			       * taken under it */
	pthread_cond_t changed;
	struct job *list;
	struct job *listings; /* of jobs_available(): in no list that others see */
	unsigned listing_count;
	uint64_t next_id;
	unsigned running;
	unsigned places; /* that are taken, of those that a job waits for */
	bool stopping;   /* nothing new is taken */
	bool stopped;    /* for good: no successor takes up anything */
};

/** job_ended() - done, failed or cancelled */
static inline bool job_ended(const struct job *job)
{
	return job->state >= STATE_DONE;
}

/** job_state_name() - "queued", "running", … */
const char *job_state_name(enum job_state state);

/** job_new() - one that is in no list yet; takes order->archive_fd over. NULL: no memory.
 */
struct job *job_new(struct jobs *jobs, const struct job_order *order);
void job_free(struct job *job);

/**
 * records_open() - the folder of the records in @runtime, made if need be and locked
 * Return: a descriptor; -EBUSY another daemon has it; what the file system gives.
 */
int records_open(const char *runtime, struct error *err);

/**
 * records_read() - put the jobs that have a record into jobs->list, and count on
 * What is no record is removed. Those that had not ended are queued, without a thread.
 */
void records_read(struct jobs *jobs);

/** record_write() - the record of @job as it is now; jobs->lock is held. A failure costs
 * no more than the record, and is logged. */
void record_write(const struct job *job);

/** record_remove() - forget @job */
void record_remove(const struct job *job);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * job.h - starting a job of the daemon and following it to its end
 *
 * A job belongs to the daemon: it goes on when deployctl ends. Only the first Ctrl-C
 * takes back what this command asked for; the job is then cancelled unless others wait
 * for it.
 */
#pragma once

#include "command.h"
#include "error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define JOB_UNKNOWN UINT64_MAX

/** A JOB of docs/api.md; texts and objects belong to the reply it was read from. */
struct job {
	uint64_t id;
	uint64_t sequence;
	const char *kind;
	const char *app;
	const char *version; /* NULL: not known yet, or all */
	const char *state;
	const char *stage; /* NULL: none yet */
	uint64_t bytes;    /* these four JOB_UNKNOWN where the daemon does not know */
	uint64_t bytes_total;
	uint64_t rate;
	uint64_t eta_s;
	json_t *warnings;
	json_t *result; /* NULL or null until done */
	json_t *error;
};

/** job_read() - 0; -EIO when @json is no JOB */
int job_read(json_t *json, struct job *ret, struct error *err);

/** job_ended() - whether it is done, failed or cancelled */
bool job_ended(const struct job *job);

/**
 * job_run() - start a job and wait for its end
 * @app, @kind: POST @body to /v1/apps/APP/KIND
 * @progress: the value of --progress, NULL for auto; it has been checked
 * @ret:      the last reply, the caller's, also when the job failed; untouched when there
 *            is none
 * @ret_job:  its job, as long as @ret lives; set when @ret is
 *
 * Shows progress and warnings on stderr and, with --json, the last reply on stdout. While
 * the job runs SIGINT is blocked and taken from a descriptor; the second one ends the
 * program.
 *
 * Return: 0 when the job is done; what its error.code stands for; -ECANCELED;
 * -ECONNREFUSED when the daemon could not be reached again; other failures of
 * client_request().
 */
int job_run(struct command *command, const char *app, const char *kind,
	    const json_t *body, const char *progress, json_t **ret, struct job *ret_job,
	    struct error *err);

/**
 * job_report_package() - say on stdout what a fetch or import that is done has brought
 *
 * Return: 0; -EALREADY when the version was there before; -EIO.
 */
int job_report_package(const struct command *command, const struct job *job,
		       struct error *err);

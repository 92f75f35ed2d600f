/* SPDX-License-Identifier: Apache-2.0 */
#include "job.h"

#include "cleanup.h"
#include "fd.h"
#include "print.h"
#include "progress.h"
#include "reply.h"
#include "size.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define POLL_WAIT_S    "30"
#define POLL_PERIOD_MS 100 /* a job that moves fast is looked at no more often */

struct follower {
	struct command *command;
	struct progress progress;
	int interrupt_fd; /* SIGINT; -1 once it came */
	uint64_t waiter;
	const char *started_kind; /* of the first reply, which is kept for them */
	const char *started_app;
	json_t *first; /* owned */
	json_t *reply; /* owned; what job was read from */
	struct job job;
};

int job_read(json_t *json, struct job *ret, struct error *err)
{
	json_t *version, *stage, *bytes, *total, *rate, *eta;
	json_int_t id, sequence;
	struct job job = {0};
	int r;

	r = reply_read(
		json, err,
		"{s:I, s:I, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
		"id", &id, "sequence", &sequence, "kind", &job.kind, "app", &job.app,
		"state", &job.state, "version", &version, "stage", &stage, "bytes",
		&bytes, "bytes_total", &total, "rate", &rate, "eta_s", &eta, "warnings",
		&job.warnings, "result", &job.result, "error", &job.error);
	if (r < 0)
		return r;
	job.id = (uint64_t)id;
	job.sequence = (uint64_t)sequence;
	job.version = reply_text(version, NULL);
	job.stage = reply_text(stage, NULL);
	job.bytes = reply_number(bytes, JOB_UNKNOWN);
	job.bytes_total = reply_number(total, JOB_UNKNOWN);
	job.rate = reply_number(rate, JOB_UNKNOWN);
	job.eta_s = reply_number(eta, JOB_UNKNOWN);
	*ret = job;
	return 0;
}

bool job_ended(const struct job *job)
{
	return !strcmp(job->state, "done") || !strcmp(job->state, "failed") ||
	       !strcmp(job->state, "cancelled");
}

/* From here SIGINT waits in a descriptor. */
static int interrupt_open(struct follower *follower, struct error *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_BLOCK, &set, NULL) == 0)
		follower->interrupt_fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (follower->interrupt_fd < 0)
		return error_set(err, -errno, "cannot wait for signals: %s",
				 strerror(errno));
	client_interrupt_by(follower->command->client, follower->interrupt_fd);
	return 0;
}

/* From here SIGINT ends the program again. The one that @taken says came is not seen
 * twice. */
static void interrupt_close(struct follower *follower, bool taken)
{
	struct signalfd_siginfo info;
	sigset_t set;

	if (follower->interrupt_fd < 0)
		return;
	if (taken && read(follower->interrupt_fd, &info, sizeof(info)) < 0)
		print_line(stderr, "deployctl: cannot read the signal: %s",
			   strerror(errno));
	client_interrupt_by(follower->command->client, -1);
	fd_close(&follower->interrupt_fd);
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void follower_done(struct follower *follower)
{
	interrupt_close(follower, false);
	json_decref(follower->first);
	json_decref(follower->reply);
}

/* -EINTR when Ctrl-C comes meanwhile. */
static int follower_pause(const struct follower *follower, int ms)
{
	struct pollfd fd = {.fd = follower->interrupt_fd, .events = POLLIN};

	return poll(&fd, 1, ms) > 0 ? -EINTR : 0;
}

/* Takes the reply over, on success only. */
static int follower_take(struct follower *follower, json_t *reply, struct error *err)
{
	struct job job;
	json_t *json;
	int r;

	r = reply_read(reply, err, "{s:o}", "job", &json);
	if (r == 0)
		r = job_read(json, &job, err);
	if (r < 0) {
		json_decref(reply);
		return r;
	}
	json_decref(follower->reply);
	follower->reply = reply;
	follower->job = job;
	return 0;
}

static int follower_start(struct follower *follower, const char *url, const json_t *body,
			  struct error *err)
{
	json_t *reply = NULL;
	json_int_t waiter;
	int r;

	r = client_request(follower->command->client, "POST", url, body, &reply, err);
	if (r == -EINTR) {
		interrupt_close(follower, true);
		return error_set(err, -ECANCELED,
				 "interrupted before deployfsd had answered: see with "
				 "'deployctl status' whether it has begun");
	}
	if (r < 0) {
		command_show(follower->command, reply);
		json_decref(reply);
		return r;
	}
	r = follower_take(follower, reply, err);
	if (r == 0)
		r = reply_read(follower->reply, err, "{s:I}", "waiter", &waiter);
	if (r < 0)
		return r;
	follower->waiter = (uint64_t)waiter;
	follower->first = json_incref(follower->reply);
	follower->started_kind = follower->job.kind;
	follower->started_app = follower->job.app;
	return 0;
}

/* A daemon that was stopped and started anew counts its jobs from the beginning. */
static int gone(const struct follower *follower, struct error *err)
{
	return error_set(err, -EIO,
			 "deployfsd was restarted and no longer knows this job: give the "
			 "same command again, it goes on where this %s was",
			 follower->started_kind);
}

static int ask(struct follower *follower, struct error *err)
{
	cleanup(free_ptr) char *url = NULL;
	char id[24], after[24];
	json_t *reply = NULL;
	int r;

	snprintf(id, sizeof(id), "%ju", (uintmax_t)follower->job.id);
	snprintf(after, sizeof(after), "%ju", (uintmax_t)follower->job.sequence);
	r = client_url(&url, err, "/v1/jobs/", id, "?after=", after,
		       "&wait_s=", POLL_WAIT_S, NULL);
	if (r == 0)
		r = client_request(follower->command->client, "GET", url, NULL, &reply,
				   err);
	if (r == -ECONNREFUSED)
		return error_set(
			err, r,
			"lost the connection to deployfsd: the job goes on if it still "
			"runs, else start deployfsd: the same command resumes it");
	if (r < 0) {
		json_decref(reply);
		return r == -ENOENT ? gone(follower, err) : r;
	}
	r = follower_take(follower, reply, err);
	if (r < 0)
		return r;
	if (strcmp(follower->job.kind, follower->started_kind) != 0 ||
	    strcmp(follower->job.app, follower->started_app) != 0)
		return gone(follower, err);
	return 0;
}

/* Gives the waiter back. 0 when the job had ended before. */
static int cancel(struct follower *follower, struct error *err)
{
	cleanup(free_ptr) char *url = NULL;
	char id[24], waiter[24];
	json_t *reply = NULL;
	struct error why;
	int changed, r;

	interrupt_close(follower, true);
	snprintf(id, sizeof(id), "%ju", (uintmax_t)follower->job.id);
	snprintf(waiter, sizeof(waiter), "%ju", (uintmax_t)follower->waiter);
	r = client_url(&url, err, "/v1/jobs/", id, "?waiter=", waiter, NULL);
	if (r < 0)
		return r;
	r = client_request(follower->command->client, "DELETE", url, NULL, &reply, &why);
	if (r < 0) {
		json_decref(reply);
		return error_set(err, r, "cannot cancel, the job may go on: %s",
				 why.text);
	}
	changed = reply_changed(reply, err);
	r = follower_take(follower, reply, err);
	if (changed < 0 || r < 0)
		return changed < 0 ? changed : r;
	if (!changed && job_ended(&follower->job))
		return 0;
	return error_set(
		err, -ECANCELED, "%s",
		changed ? "cancelled; what is already there is kept, and the same "
			  "command goes on from it"
			: "not cancelled: another client waits for the same job, and "
			  "it goes on");
}

static int follow(struct follower *follower, struct error *err)
{
	int r = 0;

	while (!job_ended(&follower->job)) {
		progress_show(&follower->progress, &follower->job, follower->reply);
		r = follower_pause(follower, POLL_PERIOD_MS);
		if (r == 0)
			r = ask(follower, err);
		if (r == -EINTR)
			return cancel(follower, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* What the end of the job means. */
static int job_result(const struct job *job, struct error *err)
{
	const char *code, *message;
	int r;

	if (!strcmp(job->state, "done"))
		return 0;
	if (!json_is_object(job->error) && !strcmp(job->state, "cancelled"))
		return error_set(err, -ECANCELED, "the %s was cancelled", job->kind);
	r = reply_read(job->error, err, "{s:s, s:s}", "code", &code, "message", &message);
	if (r < 0)
		return r;
	return error_set(err, error_from_name(code), "%s", message);
}

static void show_warnings(const struct job *job)
{
	json_t *warning;
	size_t i;

	json_array_foreach (job->warnings, i, warning)
		print_line(stderr, "deployctl: warning: %s", reply_text(warning, "?"));
}

static int start_and_follow(struct follower *follower, const char *url,
			    const json_t *body, struct error *err)
{
	int r;

	r = interrupt_open(follower, err);
	if (r < 0)
		return r;
	r = follower_start(follower, url, body, err);
	if (r < 0)
		return r;
	r = follow(follower, err);
	progress_end(&follower->progress, &follower->job);
	if (r < 0 && r != -ECANCELED)
		return r; /* how it ended is not known */
	if (!follower->command->json)
		show_warnings(&follower->job);
	command_show(follower->command, follower->reply);
	return r < 0 ? r : job_result(&follower->job, err);
}

int job_run(struct command *command, const char *app, const char *kind,
	    const json_t *body, const char *progress, json_t **ret, struct job *ret_job,
	    struct error *err)
{
	cleanup(follower_done) struct follower follower = {
		.command = command,
		.interrupt_fd = -1,
	};
	cleanup(free_ptr) char *url = NULL;
	int r = client_url(&url, err, "/v1/apps/", app, "/", kind, NULL);

	if (r < 0)
		return r;
	command->json |= progress && !strcmp(progress, "json");
	progress_init(&follower.progress, progress, command->json);
	r = start_and_follow(&follower, url, body, err);
	if (follower.reply) {
		*ret = take_ptr(follower.reply);
		*ret_job = follower.job;
	}
	return r;
}

static void report_brought(const struct job *job, const char *version)
{
	char unpacked[32], stored[32], text[32];
	uint64_t shared = reply_number(json_object_get(job->result, "shared_files"), 0);
	uint64_t resumed = reply_number(json_object_get(job->result, "resumed_bytes"), 0);
	uint64_t files = reply_number(json_object_get(job->result, "files"), 0);

	print_line(stdout,
		   "%s: %s is here: %ju file%s, %s; %s of that are new in the store",
		   job->app, version, (uintmax_t)files, files == 1 ? "" : "s",
		   reply_size(json_object_get(job->result, "unpacked_bytes"), unpacked),
		   reply_size(json_object_get(job->result, "stored_bytes"), stored));
	if (shared)
		print_line(stdout, "%ju %s shared with what was there before",
			   (uintmax_t)shared, shared == 1 ? "file is" : "files are");
	if (resumed)
		print_line(stdout, "the download went on after %s",
			   size_format(resumed, text));
}

int job_report_package(const struct command *command, const struct job *job,
		       struct error *err)
{
	const char *version;
	int changed;
	int r;

	r = reply_read(job->result, err, "{s:b, s:s}", "changed", &changed, "version",
		       &version);
	if (r < 0)
		return r;
	if (!changed)
		return error_set(err, -EALREADY, "%s: %s is here already", job->app,
				 version);
	if (!command->json)
		report_brought(job, version);
	return 0;
}

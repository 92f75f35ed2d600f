/* SPDX-License-Identifier: Apache-2.0 */
#include "clock.h"
#include "print.h"
#include "reply.h"
#include "verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define UPGRADE_MS        60000
#define UPGRADE_ANSWER_MS 5000
#define UPGRADE_PAUSE_MS  50

enum {
	OPTION_FORCE,
};

static const struct verb_option options[] = {
	[OPTION_FORCE] = {"force", 0, NULL, "stop: even if somebody uses the mount"},
	{0},
};

static int call(struct command *command, const char *action, const json_t *body,
		const char *done, const char *unchanged, struct error *err)
{
	cleanup(json_decrefp) json_t *reply = NULL;
	cleanup(free_ptr) char *url = NULL;
	int r;

	r = client_url(&url, err, "/v1/daemon/", action, NULL);
	if (r == 0)
		r = command_call(command, "POST", url, body, &reply, err);
	if (r == 0)
		r = reply_changed(reply, err);
	if (r < 0)
		return r;
	if (r == 0)
		return error_set(err, -EALREADY, "%s", unchanged);
	if (!command->json)
		print_line(stdout, "%s", done);
	return 0;
}

static int stop(struct command *command, struct error *err)
{
	cleanup(json_decrefp) json_t *body = NULL;
	int r;

	r = body_make(&body, err, "{s:b}", "force",
		      command->values[OPTION_FORCE] != NULL);
	if (r < 0)
		return r;
	return call(command, "stop", body, "deployfsd has unmounted and ends",
		    "deployfsd is ending already", err);
}

/* Which worker answers: a number that grows with each. */
struct worker {
	json_int_t generation, pid;
	char version[64];
};

static int worker_read(struct command *command, struct worker *ret, json_t **ret_reply,
		       struct error *err)
{
	cleanup(json_decrefp) json_t *reply = NULL;
	cleanup(free_ptr) char *url = NULL;
	const char *version;
	int r;

	r = client_url(&url, err, "/v1/status", NULL);
	if (r == 0)
		r = client_request(command->client, "GET", url, NULL, &reply, err);
	if (r == 0 && !json_is_object(json_object_get(reply, "supervisor")))
		return error_set(err, -EIO,
				 "this deployfsd has no supervisor, so it cannot be "
				 "replaced in place: restart it");
	if (r == 0)
		r = reply_read(reply, err, "{s:s, s:I, s:{s:I}}", "version", &version,
			       "pid", &ret->pid, "supervisor", "generation",
			       &ret->generation);
	if (r < 0)
		return r;
	snprintf(ret->version, sizeof(ret->version), "%s", version);
	if (ret_reply)
		*ret_reply = take_ptr(reply);
	return 0;
}

/* Meanwhile the socket may be without a worker: that is no failure yet. */
static int wait_for_worker(struct command *command, json_int_t before, struct worker *now,
			   json_t **ret_reply, struct error *err)
{
	const struct timespec pause = {.tv_nsec = UPGRADE_PAUSE_MS * 1000000L};
	const uint64_t deadline = clock_monotonic_ms() + UPGRADE_MS;
	int r;

	client_limit(command->client, UPGRADE_ANSWER_MS);
	for (;;) {
		cleanup(json_decrefp) json_t *reply = NULL;

		r = worker_read(command, now, &reply, err);
		if (r == 0 && now->generation != before) {
			*ret_reply = take_ptr(reply);
			return 0;
		}
		if (r < 0 && r != -ECONNREFUSED)
			return r;
		if (clock_monotonic_ms() >= deadline)
			return error_set(err, -ETIMEDOUT,
					 "no new deployfsd serves after %d s: see its "
					 "log, and 'deployctl doctor'",
					 UPGRADE_MS / 1000);
		nanosleep(&pause, NULL);
	}
}

static int upgrade(struct command *command, struct error *err)
{
	cleanup(json_decrefp) json_t *reply = NULL, *status = NULL;
	cleanup(free_ptr) char *url = NULL;
	struct worker before, now;
	int r;

	client_limit(command->client, UPGRADE_ANSWER_MS);
	r = worker_read(command, &before, NULL, err);
	if (r == 0)
		r = client_url(&url, err, "/v1/daemon/upgrade", NULL);
	client_limit(command->client, 0);
	if (r == 0)
		r = client_request(command->client, "POST", url, NULL, &reply, err);
	if (r < 0 || reply_changed(reply, err) <= 0)
		command_show(command, reply);
	if (r == 0)
		r = reply_changed(reply, err);
	if (r < 0)
		return r;
	if (r == 0)
		return error_set(err, -EALREADY, "deployfsd is being replaced already");
	r = wait_for_worker(command, before.generation, &now, &status, err);
	command_show(command, status);
	if (r == 0 && !command->json)
		print_line(stdout, "deployfsd %s serves now (pid %jd)", now.version,
			   (intmax_t)now.pid);
	return r;
}

static int run(struct command *command, struct error *err)
{
	const char *action = command->arguments[0];

	if (!strcmp(action, "stop"))
		return stop(command, err);
	if (command->values[OPTION_FORCE])
		return command_usage(command, err, "--force is for stop only");
	if (!strcmp(action, "upgrade"))
		return upgrade(command, err);
	if (!strcmp(action, "reload"))
		return call(command, "reload", NULL, "the configuration was read again",
			    "the configuration is as it was", err);
	return command_usage(command, err, "'%s' is none of stop, reload, upgrade",
			     action);
}

const struct verb verb_daemon = {
	.name = "daemon",
	.synopsis = "stop [--force] | reload | upgrade",
	.summary = "end the daemon, reload its configuration, or replace it in place",
	.help = "stop: unmount and end the daemon; refused where somebody uses the "
		"mount, unless\n"
		"forced. reload: read the configuration again. upgrade: go on with the "
		"program that\n"
		"is on the disk now; nobody who uses the mount notices.",
	.options = options,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};

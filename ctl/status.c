/* SPDX-License-Identifier: Apache-2.0 */
#include "job.h"
#include "print.h"
#include "progress.h"
#include "reply.h"
#include "size.h"
#include "supervisor.h"
#include "verbs.h"
#include "warmth.h"

#include <errno.h>
#include <stdio.h>

#define ANSWER_MS 3000

enum {
	OPTION_WARM,
};

static const struct verb_option options[] = {
	[OPTION_WARM] = {"warm", 0, NULL, "how much of the versions in use is in memory"},
	{0},
};

static int print_daemon(json_t *reply, struct error *err)
{
	json_int_t pid, uptime_s, apps, versions;
	const char *version, *mount;
	uint64_t damaged;
	char text[32];
	int healthy;
	int r;

	r = reply_read(reply, err, "{s:s, s:I, s:I, s:s, s:b, s:I, s:I}", "version",
		       &version, "pid", &pid, "uptime_s", &uptime_s, "mount", &mount,
		       "healthy", &healthy, "apps", &apps, "versions", &versions);
	if (r < 0)
		return r;
	print_line(stdout, "deployfsd  %s, pid %jd, up %s, %s", version, (intmax_t)pid,
		   duration_format((uint64_t)uptime_s, text),
		   healthy ? "healthy" : "NOT HEALTHY");
	print_line(stdout, "mount      %s: %jd app%s, %jd version%s", mount,
		   (intmax_t)apps, apps == 1 ? "" : "s", (intmax_t)versions,
		   versions == 1 ? "" : "s");
	damaged = reply_number(json_object_get(reply, "damaged"), 0);
	if (damaged)
		print_line(stdout,
			   "DAMAGE     %ju version%s: 'deployctl list' names them",
			   (uintmax_t)damaged, damaged == 1 ? "" : "s");
	return 0;
}

static int print_store(json_t *reply, struct error *err)
{
	char texts[5][32];
	json_t *sizes[5];
	const char *store;
	int r;

	r = reply_read(reply, err, "{s:s, s:{s:o, s:o, s:o, s:o, s:o}}", "store", &store,
		       "space", "total", &sizes[0], "free", &sizes[1], "reserve",
		       &sizes[2], "packs", &sizes[3], "partial", &sizes[4]);
	if (r < 0)
		return r;
	for (size_t i = 0; i < 5; i++)
		reply_size(sizes[i], texts[i]);
	print_line(stdout, "store      %s: %s in packs, %s in partial downloads", store,
		   texts[3], texts[4]);
	print_line(stdout, "disk       %s free of %s, %s are kept free", texts[1],
		   texts[0], texts[2]);
	return 0;
}

static int print_origin(json_t *json, struct error *err)
{
	const char *url, *state, *problem;
	json_t *since, *error;
	int r;

	r = reply_read(json, err, "{s:s, s:s, s:o, s:o}", "url", &url, "state", &state,
		       "since", &since, "error", &error);
	if (r < 0)
		return r;
	problem = reply_text(error, NULL);
	print_line(stdout, "origin     %s: %s%s%s%s%s", url, state,
		   json_is_string(since) ? " since " : "", reply_text(since, ""),
		   problem ? ": " : "", problem ? problem : "");
	return 0;
}

static int print_job(json_t *json, struct error *err)
{
	cleanup(free_ptr) char *text = NULL;
	struct job job;
	int r;

	r = job_read(json, &job, err);
	if (r < 0)
		return r;
	text = progress_format(&job);
	print_line(stdout, "job %-6ju %s %s", (uintmax_t)job.id, job.kind,
		   text ? text : "");
	return 0;
}

static int print_each(json_t *reply, const char *name,
		      int (*print)(json_t *json, struct error *err), struct error *err)
{
	json_t *list, *one;
	size_t i;
	int r;

	r = reply_read(reply, err, "{s:o}", name, &list);
	if (r < 0)
		return r;
	json_array_foreach (list, i, one) {
		r = print(one, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* What most requests are; a daemon that is older than this program does not tell. */
static void print_latency(json_t *latency)
{
	static const char *const operations[] = {"lookup", "readdirplus", "read"};
	char text[256] = "";
	size_t size = 0;

	for (size_t i = 0; i < sizeof(operations) / sizeof(operations[0]); i++) {
		json_t *of = json_object_get(latency, operations[i]);
		json_t *mean = json_object_get(of, "mean_us");
		json_t *most = json_object_get(of, "p99_us");

		if (json_is_number(mean) && json_is_number(most))
			size += (size_t)snprintf(text + size, sizeof(text) - size,
						 "%s%s %.0f us (99 %%: %.0f)",
						 size ? ", " : "", operations[i],
						 json_number_value(mean),
						 json_number_value(most));
		if (size >= sizeof(text))
			return;
	}
	if (size)
		print_line(stdout, "latency    %s", text);
}

static int print_requests(json_t *reply, struct error *err)
{
	json_t *fuse, *read_bytes;
	char text[32], waiting[64] = "";
	uint64_t waits;
	json_int_t total;
	int r;

	r = reply_read(reply, err, "{s:o}", "fuse", &fuse);
	if (r == 0)
		r = reply_read(fuse, err, "{s:I, s:o}", "total", &total, "read_bytes",
			       &read_bytes);
	if (r < 0)
		return r;
	waits = reply_number(json_object_get(fuse, "waiting"), 0);
	if (waits)
		snprintf(waiting, sizeof(waiting), ", %ju without a reply",
			 (uintmax_t)waits);
	print_line(stdout, "requests   %jd of the kernel, %s read%s", (intmax_t)total,
		   reply_size(read_bytes, text), waiting);
	print_latency(json_object_get(fuse, "latency"));
	return 0;
}

/* Nobody answers: what the supervisor has left behind, beside the error. */
static void tell_supervisor(struct command *command, const struct error *err)
{
	cleanup(json_decrefp) json_t *reply = NULL;
	struct supervisor supervisor;
	char text[512];

	supervisor_read(command->runtime, &supervisor);
	if (command->json) {
		reply = json_pack("{s:i, s:{s:s, s:s}, s:o}", "schema", 1, "error",
				  "code", error_name(err->code), "message", err->text,
				  "supervisor", supervisor_json(&supervisor));
		command_show(command, reply);
	} else if (supervisor.known) {
		supervisor_text(&supervisor, text, sizeof(text));
		print_line(stdout, "deployfsd  does not answer: %s", text);
	}
}

/* The status, with --warm what is in memory as its member "warm". */
static int ask(struct command *command, json_t **ret, struct error *err)
{
	cleanup(json_decrefp) json_t *reply = NULL, *warmth = NULL;
	cleanup(free_ptr) char *url = NULL;
	int r;

	client_limit(command->client, ANSWER_MS);
	r = client_url(&url, err, "/v1/status", NULL);
	if (r == 0)
		r = client_request(command->client, "GET", url, NULL, &reply, err);
	client_limit(command->client, 0);
	if (r == 0 && command->values[OPTION_WARM]) {
		r = warmth_gather(command, &warmth, err);
		if (r < 0)
			return r;
		json_object_set(reply, "warm", warmth);
	}
	command_show(command, reply);
	*ret = take_ptr(reply);
	return r;
}

static int run(struct command *command, struct error *err)
{
	cleanup(json_decrefp) json_t *reply = NULL;
	int r = ask(command, &reply, err);

	if (r == -ECONNREFUSED && !reply)
		tell_supervisor(command, err);
	if (r < 0 || command->json)
		return r;
	r = print_daemon(reply, err);
	if (r == 0)
		r = print_store(reply, err);
	if (r == 0)
		r = print_requests(reply, err);
	if (r == 0)
		r = print_each(reply, "origins", print_origin, err);
	if (r == 0)
		r = print_each(reply, "jobs", print_job, err);
	if (r == 0)
		r = warmth_print(json_object_get(reply, "warm"), err);
	return r;
}

const struct verb verb_status = {
	.name = "status",
	.synopsis = "[--warm]",
	.summary = "the daemon, its mount, store, origins and running jobs",
	.help = "The daemon, its mount, store and origins, running jobs. Where it does "
		"not answer\n"
		"within 3 s: what its supervisor has written last.",
	.options = options,
	.arguments_min = 0,
	.arguments_max = 0,
	.run = run,
};

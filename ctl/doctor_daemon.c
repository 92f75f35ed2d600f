/* SPDX-License-Identifier: Apache-2.0 */
#include "cleanup.h"
#include "client.h"
#include "clock.h"
#include "deadline.h"
#include "doctor.h"
#include "fd.h"
#include "procfs.h"
#include "reply.h"
#include "size.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define CMDLINE_MAX     4096
#define DAEMONS_MAX     16
#define NEARLY_FULL     5 /* percent that are free */
#define ENVIRONMENT_MAX (1 << 20)

/* The daemons that run with our configuration. */
struct daemons {
	const char *config; /* real path */
	pid_t pids[DAEMONS_MAX];
	size_t count;
};

static bool same_file(const char *config, pid_t pid, const char *path)
{
	char directory[PATH_MAX], joined[2 * PATH_MAX], real[PATH_MAX];

	if (*path != '/' && process_link(pid, "cwd", directory, sizeof(directory)) == 0)
		snprintf(joined, sizeof(joined), "%s/%s", directory, path);
	else
		snprintf(joined, sizeof(joined), "%s", path);
	return realpath(joined, real) && !strcmp(real, config);
}

/* The configuration that a process was started with, by the words of its command line.
 * NULL: it is no daemon of its own, but a worker or a job. */
static const char *config_of(pid_t pid, const char *words, size_t size, char *text,
			     size_t room)
{
	cleanup(free_ptr) char *environment = NULL;
	const char *config = NULL;
	char path[64];
	size_t length;

	for (const char *word = words; word < words + size; word += strlen(word) + 1) {
		if (!strcmp(word, "--worker") || !strcmp(word, "--job"))
			return NULL;
		if (!strcmp(word, "--config"))
			config = word + strlen(word) + 1;
		else if (!strncmp(word, "--config=", 9))
			config = word + 9;
	}
	if (config)
		return config < words + size ? config : NULL;
	snprintf(path, sizeof(path), "/proc/%d/environ", (int)pid);
	snprintf(text, room, "%s", CONFIG_PATH_DEFAULT);
	if (file_read(path, ENVIRONMENT_MAX, &environment, &length) < 0)
		return text;
	for (const char *word = environment; word < environment + length;
	     word += strlen(word) + 1)
		if (!strncmp(word, "DEPLOYFS_CONFIG=", 16) && word[16])
			snprintf(text, room, "%s", word + 16);
	return text;
}

static void add_daemon(void *context, pid_t pid)
{
	struct daemons *daemons = context;
	cleanup(free_ptr) char *words = NULL;
	char path[64], name[PROCESS_NAME_SIZE], text[PATH_MAX];
	const char *config;
	size_t size;

	if (strcmp(process_name(pid, name), "deployfsd") != 0)
		return;
	snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
	if (file_read(path, CMDLINE_MAX, &words, &size) < 0)
		return;
	config = config_of(pid, words, size, text, sizeof(text));
	if (config && same_file(daemons->config, pid, config) &&
	    daemons->count < DAEMONS_MAX)
		daemons->pids[daemons->count++] = pid;
}

static void check_daemons(struct doctor *doctor)
{
	char real[PATH_MAX], text[DAEMONS_MAX * 12] = "";
	struct daemons daemons = {.config = real};

	if (!realpath(doctor->config->path, real))
		snprintf(real, sizeof(real), "%s", doctor->config->path);
	process_each(add_daemon, &daemons);
	for (size_t i = 0; i < daemons.count; i++) {
		size_t at = strlen(text);

		snprintf(text + at, sizeof(text) - at, "%s%d", i ? ", " : "",
			 (int)daemons.pids[i]);
	}
	if (daemons.count > 1)
		finding_add(&doctor->findings, FINDING_PROBLEM, "daemons",
			    "%zu daemons run with the configuration '%s', pids %s: only "
			    "one can have the store; end the others",
			    daemons.count, real, text);
	else if (daemons.count == 0 && !doctor->status)
		finding_add(&doctor->findings, FINDING_PROBLEM, "daemons",
			    "no deployfsd runs with the configuration '%s': start it",
			    real);
	else if (daemons.count == 1)
		finding_add(&doctor->findings, FINDING_OK, "daemons",
			    "one deployfsd runs with this configuration, pid %s", text);
}

static void check_supervisor(struct doctor *doctor)
{
	const struct supervisor *s = &doctor->supervisor;
	char text[512];

	if (!s->known)
		return;
	supervisor_text(s, text, sizeof(text));
	if (!strcmp(s->state, "held-back"))
		finding_add(&doctor->findings, FINDING_PROBLEM, "supervisor",
			    "%s: what was read once is still served; see the log for why "
			    "the worker ends, and report it",
			    text);
	else if (!s->pid && doctor->status)
		finding_add(&doctor->findings, FINDING_WARNING, "supervisor",
			    "%s: the worker will not be replaced when it ends", text);
	else if (!s->pid && strcmp(s->state, "ended") != 0)
		finding_add(&doctor->findings, FINDING_PROBLEM, "supervisor",
			    "%s: it did not end by itself; start deployfsd", text);
	else if (s->pid)
		finding_add(&doctor->findings, FINDING_OK, "supervisor", "%s", text);
}

static void check_origins(struct doctor *doctor)
{
	json_t *origins = json_object_get(doctor->status, "origins"), *origin;
	size_t i;

	json_array_foreach (origins, i, origin)
		if (!strcmp(reply_text(json_object_get(origin, "state"), ""), "offline"))
			finding_add(&doctor->findings, FINDING_WARNING, "origin",
				    "the origin '%s' did not answer when it was asked "
				    "last: %s; what is here goes on without it",
				    reply_text(json_object_get(origin, "url"), "?"),
				    reply_text(json_object_get(origin, "error"), "?"));
}

/* Either by the state, or by a member of its own. */
static bool damaged(json_t *version)
{
	json_t *damage = json_object_get(version, "damaged");

	return !strcmp(reply_text(json_object_get(version, "state"), ""), "damaged") ||
	       json_is_true(damage) || json_array_size(damage) > 0 ||
	       reply_number(damage, 0) > 0;
}

static void check_app(struct doctor *doctor, json_t *app)
{
	json_t *versions = json_object_get(app, "versions"), *version;
	const char *name = reply_text(json_object_get(app, "name"), "?");
	size_t i;

	json_array_foreach (versions, i, version) {
		const char *text = reply_text(json_object_get(version, "version"), "?");

		if (damaged(version))
			finding_add(&doctor->findings, FINDING_PROBLEM, "damage",
				    "'%s' %s is damaged on the disk: 'deployctl verify "
				    "%s %s' names the files, removing and fetching it "
				    "again mends it",
				    name, text, name, text);
	}
}

static void check_versions(struct doctor *doctor, struct client *client)
{
	cleanup(json_decrefp) json_t *reply = NULL;
	cleanup(free_ptr) char *url = NULL;
	json_t *app;
	size_t i;

	if (client_url(&url, NULL, "/v1/apps", NULL) < 0 ||
	    client_request(client, "GET", url, NULL, &reply, NULL) < 0)
		return;
	json_array_foreach (json_object_get(reply, "apps"), i, app)
		check_app(doctor, app);
}

static void check_status(struct doctor *doctor)
{
	json_t *status = doctor->status;
	char up[32];

	if (json_is_false(json_object_get(status, "healthy")))
		finding_add(&doctor->findings, FINDING_PROBLEM, "api",
			    "deployfsd answers, but says that its mount is not there: "
			    "something has unmounted or covered it; restart deployfsd");
	else
		finding_add(&doctor->findings, FINDING_OK, "api",
			    "deployfsd %s answers, pid %ju, up %s",
			    reply_text(json_object_get(status, "version"), "?"),
			    (uintmax_t)reply_number(json_object_get(status, "pid"), 0),
			    duration_format(
				    reply_number(json_object_get(status, "uptime_s"), 0),
				    up));
}

void doctor_daemon(struct doctor *doctor)
{
	cleanup(client_close_ptr) struct client *client = NULL;
	cleanup(free_ptr) char *url = NULL;
	struct error err = {0};
	int r = client_open(doctor->config->socket, &client, &err);

	supervisor_read(doctor->config->runtime, &doctor->supervisor);
	if (r == 0)
		r = client_url(&url, &err, "/v1/status", NULL);
	if (r == 0) {
		client_limit(client, DEADLINE_MS);
		r = client_request(client, "GET", url, NULL, &doctor->status, &err);
	}
	if (r < 0) {
		json_decref(doctor->status);
		doctor->status = NULL;
		finding_add(&doctor->findings, FINDING_PROBLEM, "api", "%s", err.text);
	} else {
		check_status(doctor);
	}
	check_supervisor(doctor);
	check_daemons(doctor);
	check_origins(doctor);
	if (r == 0)
		check_versions(doctor, client);
}

/* What the child that asks the disk fills in. */
struct room {
	const char *store;
	uint64_t total, free;
};

static int ask_disk(void *context)
{
	struct room *room = context;
	struct statvfs st;

	if (statvfs(room->store, &st) < 0)
		return errno;
	room->total = st.f_blocks * st.f_frsize;
	room->free = st.f_bavail * st.f_frsize;
	return 0;
}

static int room_of(const char *store, struct room *ret)
{
	struct room *room = mmap(NULL, sizeof(*room), PROT_READ | PROT_WRITE,
				 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int r;

	if (room == MAP_FAILED)
		return -errno;
	room->store = store;
	r = deadline_run(ask_disk, room, DEADLINE_MS);
	if (r == 0)
		*ret = *room;
	munmap(room, sizeof(*room));
	return r;
}

void doctor_disk(struct doctor *doctor)
{
	const char *store = doctor->config->store;
	json_t *space = json_object_get(doctor->status, "space");
	uint64_t reserve = reply_number(json_object_get(space, "reserve"), 0);
	struct room room = {0};
	char free[32], total[32], kept[32];
	int r = room_of(store, &room);

	if (r == -ENOENT && !doctor->status)
		return;
	if (r < 0) {
		finding_add(&doctor->findings, FINDING_PROBLEM, "disk",
			    "cannot ask the disk of the store '%s' for its room: %s",
			    store, strerror(-r));
		return;
	}
	size_format(room.free, free);
	size_format(room.total, total);
	size_format(reserve, kept);
	if (room.free < reserve)
		finding_add(
			&doctor->findings, FINDING_PROBLEM, "disk",
			"the disk of '%s' has %s free, less than the %s that are kept "
			"free: nothing can be fetched, all else goes on; 'deployctl "
			"gc' makes room",
			store, free, kept);
	else if (room.free < 2 * reserve || room.free < room.total / 100 * NEARLY_FULL)
		finding_add(
			&doctor->findings, FINDING_WARNING, "disk",
			"the disk of '%s' has only %s of %s free: 'deployctl gc' makes "
			"room",
			store, free, total);
	else
		finding_add(&doctor->findings, FINDING_OK, "disk",
			    "the disk of '%s' has %s of %s free", store, free, total);
}

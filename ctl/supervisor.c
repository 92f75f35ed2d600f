/* SPDX-License-Identifier: Apache-2.0 */
#include "supervisor.h"

#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "procfs.h"
#include "reply.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_SIZE_MAX (64 * 1024)

/* The process that a member names, if it is alive and of ours. */
static pid_t daemon_pid(json_t *json)
{
	uint64_t pid = reply_number(json, 0);
	char name[PROCESS_NAME_SIZE];

	if (pid == 0 || pid > INT32_MAX)
		return 0;
	/* A thread may have renamed the process: the beginning has to do. */
	return strncmp(process_name((pid_t)pid, name), "deployfs", 8) ? 0 : (pid_t)pid;
}

static void take_text(json_t *json, char *text, size_t size)
{
	snprintf(text, size, "%s", reply_text(json, ""));
}

void supervisor_read(const char *runtime, struct supervisor *ret)
{
	cleanup(json_decrefp) json_t *json = NULL;
	cleanup(free_ptr) char *path = NULL, *text = NULL;
	cleanup(fd_close) int fd = -1;
	struct stat st;
	size_t size;

	*ret = (struct supervisor){0};
	if (asprintf(&path, "%s/supervisor.json", runtime) < 0) {
		path = NULL;
		return;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    file_read_fd(fd, FILE_SIZE_MAX, &text, &size) < 0)
		return;
	json = json_loadb(text, size, 0, NULL);
	if (!json_is_object(json))
		return;
	ret->known = true;
	ret->pid = daemon_pid(json_object_get(json, "pid"));
	ret->worker = daemon_pid(json_object_get(json, "worker"));
	ret->restarts = reply_number(json_object_get(json, "restarts"), 0);
	take_text(json_object_get(json, "state"), ret->state, sizeof(ret->state));
	take_text(json_object_get(json, "last_exit"), ret->last_exit,
		  sizeof(ret->last_exit));
	take_text(json_object_get(json, "next_start"), ret->next_start,
		  sizeof(ret->next_start));
	clock_format(st.st_mtim.tv_sec * 1000000000LL, ret->written);
}

static json_t *text_or_null(const char *text)
{
	return *text ? json_string(text) : json_null();
}

static json_t *pid_or_null(pid_t pid)
{
	return pid ? json_integer(pid) : json_null();
}

json_t *supervisor_json(const struct supervisor *s)
{
	if (!s->known)
		return json_null();
	return json_pack("{s:o, s:o, s:o, s:I, s:o, s:o, s:s}", "pid",
			 pid_or_null(s->pid), "worker", pid_or_null(s->worker), "state",
			 text_or_null(s->state), "restarts", (json_int_t)s->restarts,
			 "last_exit", text_or_null(s->last_exit), "next_start",
			 text_or_null(s->next_start), "written", s->written);
}

void supervisor_text(const struct supervisor *s, char *text, size_t size)
{
	char who[64] = "no supervisor runs";
	const char *state = s->state;
	size_t at;

	if (s->pid)
		snprintf(who, sizeof(who), "supervisor pid %d", (int)s->pid);
	if (!strcmp(state, "held-back"))
		state = "the worker is held back";
	else if (!strcmp(state, "running"))
		state = s->worker ? "the worker runs" : "the worker is gone";
	else if (!strcmp(state, "ended"))
		state = "it was ended";
	snprintf(text, size, "%s; as of %s: %s, %ju restart%s", who, s->written,
		 *state ? state : "no state", (uintmax_t)s->restarts,
		 s->restarts == 1 ? "" : "s");
	at = strlen(text);
	if (s->worker)
		snprintf(text + at, size - at, ", worker pid %d", (int)s->worker);
	at = strlen(text);
	if (s->last_exit[0])
		snprintf(text + at, size - at, ", last ended by %s", s->last_exit);
	at = strlen(text);
	if (s->next_start[0])
		snprintf(text + at, size - at, ", next start %s", s->next_start);
}

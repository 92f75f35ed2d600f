/* SPDX-License-Identifier: Apache-2.0 */
#include "procfs.h"

#include "cleanup.h"
#include "fd.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROC_FILE_MAX (1 << 20)

void process_each(void (*each)(void *context, pid_t pid), void *context)
{
	cleanup(dir_close) DIR *proc = opendir("/proc");
	struct dirent *entry;

	while (proc && (entry = readdir(proc))) {
		pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

		if (pid > 0 && pid != getpid())
			each(context, pid);
	}
}

static int read_proc(pid_t pid, const char *name, char **ret)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	return file_read(path, PROC_FILE_MAX, ret, NULL);
}

const char *process_name(pid_t pid, char text[static PROCESS_NAME_SIZE])
{
	cleanup(free_ptr) char *content = NULL;

	text[0] = '\0';
	if (read_proc(pid, "comm", &content) == 0)
		snprintf(text, PROCESS_NAME_SIZE, "%.*s", (int)strcspn(content, "\n"),
			 content);
	return text;
}

bool process_container(pid_t pid, char id[static PROCESS_CONTAINER_SIZE])
{
	cleanup(free_ptr) char *content = NULL;

	id[0] = '\0';
	if (read_proc(pid, "cgroup", &content) < 0)
		return false;
	for (const char *at = content; *at; at++) {
		size_t digits = strspn(at, "0123456789abcdef");

		if (digits == 64) {
			snprintf(id, PROCESS_CONTAINER_SIZE, "%.12s", at);
			return true;
		}
		if (digits > 0)
			at += digits - 1;
	}
	return false;
}

char process_state(pid_t pid)
{
	cleanup(free_ptr) char *content = NULL;
	const char *at;

	if (read_proc(pid, "stat", &content) < 0)
		return 0;
	/* "4711 (a name with ) in it) S 1 …" */
	at = strrchr(content, ')');
	return at && at[1] == ' ' ? at[2] : 0;
}

int process_link(pid_t pid, const char *name, char *target, size_t size)
{
	char path[320];
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
	length = readlink(path, target, size - 1);
	if (length < 0)
		return -errno;
	target[length] = '\0';
	return 0;
}

ino_t process_namespace(pid_t pid)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", (int)pid);
	return stat(path, &st) == 0 ? st.st_ino : 0;
}

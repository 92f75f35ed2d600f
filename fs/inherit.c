/* SPDX-License-Identifier: Apache-2.0 */
#include "inherit.h"

#include "cleanup.h"
#include "fd.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int inherit_add(struct inherit *list, const char *name, int fd)
{
	if (list->count == INHERIT_MAX)
		return -E2BIG;
	snprintf(list->entries[list->count].name, INHERIT_NAME, "%s", name);
	list->entries[list->count++].fd = fd;
	return 0;
}

static size_t place(const struct inherit *list, const char *name)
{
	size_t at = 0;

	while (at < list->count && strcmp(list->entries[at].name, name))
		at++;
	return at;
}

int inherit_find(const struct inherit *list, const char *name)
{
	size_t at = place(list, name);

	return at < list->count ? list->entries[at].fd : -ENOENT;
}

void inherit_drop(struct inherit *list, const char *name)
{
	size_t at = place(list, name);

	if (at == list->count)
		return;
	close(list->entries[at].fd);
	list->entries[at] = list->entries[--list->count];
}

const char *inherit_format(const struct inherit *list,
			   char text[static INHERIT_TEXT_SIZE])
{
	size_t at = 0;

	text[0] = '\0';
	for (size_t i = 0; i < list->count; i++)
		at += (size_t)snprintf(text + at, INHERIT_TEXT_SIZE - at, "%s%s=%d",
				       i ? "," : "", list->entries[i].name,
				       list->entries[i].fd);
	return text;
}

/* One "name=number"; the descriptor is ours afterwards. */
static int parse_one(struct inherit *list, char *text, int pidfd)
{
	char *number = strchr(text, '='), *end;
	long fd;
	int r;

	if (!number || number == text || number - text >= INHERIT_NAME)
		return -EINVAL;
	*number++ = '\0';
	fd = strtol(number, &end, 10);
	if (end == number || *end || fd < 0 || fd > INT_MAX)
		return -EINVAL;
	if (pidfd >= 0)
		fd = syscall(SYS_pidfd_getfd, pidfd, (int)fd, 0);
	if (fd < 0 || fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
		return -errno;
	r = inherit_add(list, text, (int)fd);
	if (r < 0 && pidfd >= 0)
		close((int)fd);
	return r;
}

int inherit_parse(struct inherit *list, const char *text, pid_t pid)
{
	cleanup(free_ptr) char *copy = strdup(text);
	cleanup(fd_close) int pidfd = -1;
	char *rest = NULL;
	int r = 0;

	if (!copy)
		return -ENOMEM;
	if (pid) {
		pidfd = process_open(pid);
		if (pidfd < 0)
			return pidfd;
	}
	for (char *one = strtok_r(copy, ",", &rest); one && r == 0;
	     one = strtok_r(NULL, ",", &rest))
		r = parse_one(list, one, pidfd);
	return r;
}

void inherit_pass(const struct inherit *list, bool pass)
{
	for (size_t i = 0; i < list->count; i++)
		fcntl(list->entries[i].fd, F_SETFD, pass ? 0 : FD_CLOEXEC);
}

void inherit_done(struct inherit *list)
{
	for (size_t i = 0; i < list->count; i++)
		close(list->entries[i].fd);
	list->count = 0;
}

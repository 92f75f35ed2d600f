/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A thread that is killed while it waits for an answer from the mount waits on. As long
 * as it holds /dev/fuse itself, the kernel does not give up on the answer either: where
 * nobody is left to give it, such a process would stay for ever, with the store's lock
 * and the socket. So the thread that waits has a table of descriptors of its own, an
 * empty one.
 */
#include "own_lookup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/stat.h>
#include <unistd.h>

struct question {
	const char *path;
	int (*ask)(const char *path);
	int answer;
};

static int look_up(const char *path)
{
	struct stat st;

	return lstat(path, &st) < 0 ? -errno : 0;
}

static int open_and_close(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 || close(fd) < 0 ? -errno : 0;
}

static void *ask(void *context)
{
	struct question *question = context;

	if (close_range(0, UINT_MAX, CLOSE_RANGE_UNSHARE) < 0)
		question->answer = -EAGAIN;
	else
		question->answer = question->ask(question->path);
	return NULL;
}

static int answer(const char *path, int (*ask_it)(const char *path))
{
	struct question question = {path, ask_it, -EAGAIN};
	pthread_t thread;

	if (pthread_create(&thread, NULL, ask, &question))
		return -EAGAIN;
	pthread_join(thread, NULL);
	return question.answer;
}

int own_lookup(const char *path)
{
	return answer(path, look_up);
}

int own_open(const char *path)
{
	return answer(path, open_and_close);
}

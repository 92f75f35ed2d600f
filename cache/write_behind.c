/* SPDX-License-Identifier: Apache-2.0 */
#include "write_behind.h"

#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

struct write_behind {
	int fd;
	pthread_t thread;
	pthread_mutex_t lock; /* guards what follows, but for the content of buffers */
	pthread_cond_t changed;
	bool busy; /* there is something to write, or it is being written */
	bool stop;
	int failure; /* the first one; nothing is written after it */
	size_t size;
	uint64_t offset, stays;
	unsigned filling; /* the buffer that is not the thread's */

	uint64_t begun; /* the thread's: what the disk was told to begin with ends here */
	char *buffers[2];
};

/* So that little is left to do for who makes it durable in the end. A hint: what fails
 * here fails there again. */
static void disk_begin(struct write_behind *behind, uint64_t stays)
{
	if (stays <= behind->begun)
		return;
	sync_file_range(behind->fd, (off_t)behind->begun, (off_t)(stays - behind->begun),
			SYNC_FILE_RANGE_WRITE);
	behind->begun = stays;
}

static void *write_all(void *context)
{
	struct write_behind *behind = context;

	pthread_mutex_lock(&behind->lock);
	for (;;) {
		int r;

		while (!behind->busy && !behind->stop)
			pthread_cond_wait(&behind->changed, &behind->lock);
		if (behind->stop)
			break;
		pthread_mutex_unlock(&behind->lock);
		r = fd_pwrite_all(behind->fd, behind->buffers[!behind->filling],
				  behind->size, behind->offset);
		if (r == 0)
			disk_begin(behind, behind->stays);
		pthread_mutex_lock(&behind->lock);
		behind->failure = r;
		behind->busy = false;
		pthread_cond_signal(&behind->changed);
	}
	pthread_mutex_unlock(&behind->lock);
	return NULL;
}

int write_behind_new(int fd, struct write_behind **ret)
{
	struct write_behind *behind = calloc(1, sizeof(*behind));
	int r = -ENOMEM;

	if (!behind)
		return r;
	behind->fd = fd;
	behind->buffers[0] = malloc(WRITE_BEHIND_SIZE);
	behind->buffers[1] = malloc(WRITE_BEHIND_SIZE);
	pthread_mutex_init(&behind->lock, NULL);
	pthread_cond_init(&behind->changed, NULL);
	if (behind->buffers[0] && behind->buffers[1])
		r = -pthread_create(&behind->thread, NULL, write_all, behind);
	if (r < 0) {
		free(behind->buffers[0]);
		free(behind->buffers[1]);
		free(behind);
		return r;
	}
	*ret = behind;
	return 0;
}

char *write_behind_buffer(const struct write_behind *behind)
{
	return behind->buffers[behind->filling];
}

int write_behind_wait(struct write_behind *behind)
{
	int r;

	pthread_mutex_lock(&behind->lock);
	while (behind->busy)
		pthread_cond_wait(&behind->changed, &behind->lock);
	r = behind->failure;
	pthread_mutex_unlock(&behind->lock);
	return r;
}

int write_behind_put(struct write_behind *behind, size_t size, uint64_t offset,
		     uint64_t stays)
{
	int r = write_behind_wait(behind);

	if (r < 0 || size == 0)
		return r;
	pthread_mutex_lock(&behind->lock);
	behind->filling = !behind->filling;
	behind->size = size;
	behind->offset = offset;
	behind->stays = stays;
	behind->busy = true;
	pthread_cond_signal(&behind->changed);
	pthread_mutex_unlock(&behind->lock);
	return 0;
}

void write_behind_free(struct write_behind *behind)
{
	if (!behind)
		return;
	pthread_mutex_lock(&behind->lock);
	behind->stop = true;
	pthread_cond_signal(&behind->changed);
	pthread_mutex_unlock(&behind->lock);
	pthread_join(behind->thread, NULL);
	pthread_cond_destroy(&behind->changed);
	pthread_mutex_destroy(&behind->lock);
	free(behind->buffers[0]);
	free(behind->buffers[1]);
	free(behind);
}

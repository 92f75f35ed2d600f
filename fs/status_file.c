/* SPDX-License-Identifier: Apache-2.0 */
#include "status_file.h"

#include "clock.h"
#include "log.h"
#include "service.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PAUSE_MS     100 /* at least, between two rounds */
#define PAUSE_MAX_MS 900
#define LOAD         20 /* a round takes this part of the time, where that is in between */
#define AGAIN_MS     10000

struct status_file {
	struct service *service;
	pthread_t thread;
	bool started;
	int wake; /* eventfd */
	atomic_bool stop;
};

/* One round: how long the next one is to be put off, in milliseconds. */
static uint64_t write_round(struct status_file *file)
{
	uint64_t start = clock_monotonic_ms(), pause;
	struct error err = {0};

	if (service_settle_status(file->service, &err) < 0) {
		log_error("cannot write '.deployfs/status.json': %s", err.text);
		status_file_kick(file);
		return AGAIN_MS;
	}
	pause = (clock_monotonic_ms() - start) * LOAD;
	if (pause > PAUSE_MAX_MS)
		return PAUSE_MAX_MS;
	return pause > PAUSE_MS ? pause : PAUSE_MS;
}

/* Until then, or the end. Kicks are for afterwards. */
static void rest(struct status_file *file, uint64_t until_ms)
{
	uint64_t now_ms;

	while (!file->stop && (now_ms = clock_monotonic_ms()) < until_ms)
		poll(NULL, 0,
		     until_ms - now_ms < PAUSE_MS ? (int)(until_ms - now_ms) : PAUSE_MS);
}

static void *status_file_main(void *context)
{
	struct status_file *file = context;
	eventfd_t times;

	for (;;) {
		uint64_t until_ms;

		eventfd_read(file->wake, &times); /* waits */
		if (file->stop)
			return NULL;
		until_ms = clock_monotonic_ms() + write_round(file);
		rest(file, until_ms);
	}
}

int status_file_start(struct service *service, struct status_file **ret,
		      struct error *err)
{
	struct status_file *file = calloc(1, sizeof(*file));

	if (!file)
		return error_set(err, -ENOMEM, "not enough memory");
	*ret = file;
	file->service = service;
	file->wake = eventfd(0, EFD_CLOEXEC);
	if (file->wake < 0)
		return error_set(err, -errno, "cannot make an eventfd");
	if (pthread_create(&file->thread, NULL, status_file_main, file))
		return error_set(err, -EAGAIN, "cannot start a thread");
	file->started = true;
	return 0;
}

void status_file_kick(struct status_file *file)
{
	if (file)
		eventfd_write(file->wake, 1);
}

void status_file_stop(struct status_file *file)
{
	if (!file || !file->started)
		return;
	file->stop = true;
	eventfd_write(file->wake, 1);
	pthread_join(file->thread, NULL);
	file->started = false;
}

void status_file_free(struct status_file *file)
{
	if (!file)
		return;
	if (file->wake >= 0)
		close(file->wake);
	free(file);
}

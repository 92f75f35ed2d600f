/* SPDX-License-Identifier: Apache-2.0 */
#include "file_hash.h"

#include "cleanup.h"
#include "fd.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#define TICK_NS 100000000L

struct file_hash {
	int fd; /* borrowed */
	pthread_t thread;
	char *piece;        /* FILE_HASH_PIECE bytes; the thread's */
	struct sha256 *sum; /* the thread's while `busy` */

	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t changed;
	uint64_t size;   /* bytes that are there */
	uint64_t hashed; /* of them */
	int failure;     /* a negative errno: hashing has ended */
	bool busy;       /* the thread works without the lock */
	bool awaited;    /* somebody waits for the last byte */
	bool ending;
};

/* A whole piece at a time, unless somebody waits for less. */
static bool has_work(const struct file_hash *hash)
{
	uint64_t left = hash->size - hash->hashed;

	return hash->failure == 0 &&
	       (left >= FILE_HASH_PIECE || (left > 0 && hash->awaited));
}

static void piece_hash(struct file_hash *hash)
{
	uint64_t left = hash->size - hash->hashed, at = hash->hashed;
	size_t n = left < FILE_HASH_PIECE ? (size_t)left : FILE_HASH_PIECE;
	int r;

	hash->busy = true;
	pthread_mutex_unlock(&hash->lock);
	r = fd_pread_all(hash->fd, hash->piece, n, at);
	if (r == 0)
		sha256_update(hash->sum, hash->piece, n);
	pthread_mutex_lock(&hash->lock);
	hash->busy = false;
	if (r < 0)
		hash->failure = r;
	else
		hash->hashed += n;
}

static void *hash_thread(void *context)
{
	struct file_hash *hash = context;

	pthread_mutex_lock(&hash->lock);
	while (!hash->ending) {
		if (has_work(hash)) {
			piece_hash(hash);
			continue;
		}
		pthread_cond_broadcast(&hash->changed);
		pthread_cond_wait(&hash->changed, &hash->lock);
	}
	pthread_mutex_unlock(&hash->lock);
	return NULL;
}

static void parts_free(struct file_hash *hash)
{
	pthread_cond_destroy(&hash->changed);
	pthread_mutex_destroy(&hash->lock);
	sha256_free(hash->sum);
	free(hash->piece);
	free(hash);
}

int file_hash_new(int fd, struct file_hash **ret)
{
	struct file_hash *hash = calloc(1, sizeof(*hash));
	pthread_condattr_t monotonic;
	int r;

	if (!hash)
		return -ENOMEM;
	hash->fd = fd;
	pthread_mutex_init(&hash->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&hash->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	hash->piece = malloc(FILE_HASH_PIECE);
	hash->sum = sha256_new();
	r = hash->piece && hash->sum
		    ? -pthread_create(&hash->thread, NULL, hash_thread, hash)
		    : -ENOMEM;
	if (r < 0) {
		parts_free(hash);
		return r;
	}
	*ret = hash;
	return 0;
}

void file_hash_free(struct file_hash *hash)
{
	if (!hash)
		return;
	pthread_mutex_lock(&hash->lock);
	hash->ending = true;
	pthread_cond_broadcast(&hash->changed);
	pthread_mutex_unlock(&hash->lock);
	pthread_join(hash->thread, NULL);
	parts_free(hash);
}

void file_hash_grown(struct file_hash *hash, uint64_t size)
{
	pthread_mutex_lock(&hash->lock);
	hash->size = size;
	if (!hash->busy && has_work(hash))
		pthread_cond_broadcast(&hash->changed);
	pthread_mutex_unlock(&hash->lock);
}

void file_hash_reset(struct file_hash *hash)
{
	pthread_mutex_lock(&hash->lock);
	hash->failure = -ECANCELED; /* the thread stops after this piece */
	while (hash->busy)
		pthread_cond_wait(&hash->changed, &hash->lock);
	hash->size = hash->hashed = 0;
	hash->failure = 0;
	sha256_reset(hash->sum);
	pthread_mutex_unlock(&hash->lock);
}

/* Wait a moment for the thread; the lock is held. */
static void wait_tick(struct file_hash *hash)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += TICK_NS;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_nsec -= 1000000000L;
		until.tv_sec++;
	}
	pthread_cond_timedwait(&hash->changed, &hash->lock, &until);
}

int file_hash_sum(struct file_hash *hash, file_hash_tick_fn *tick, void *context,
		  unsigned char ret[static SHA256_SIZE])
{
	int r;

	pthread_mutex_lock(&hash->lock);
	hash->awaited = true;
	pthread_cond_broadcast(&hash->changed);
	while (hash->failure == 0 && hash->hashed < hash->size) {
		uint64_t hashed;

		wait_tick(hash);
		hashed = hash->hashed;
		pthread_mutex_unlock(&hash->lock);
		if (tick)
			tick(context, hashed);
		pthread_mutex_lock(&hash->lock);
	}
	hash->awaited = false;
	r = hash->failure;
	if (r == 0 && !sha256_peek(hash->sum, ret))
		r = -ENOMEM;
	pthread_mutex_unlock(&hash->lock);
	return r;
}

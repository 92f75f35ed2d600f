/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A ring of pieces. Those from `first` on, `count` of them, are filled; the reader has
 * the first one until it asks for the next. The thread fills the one behind the last,
 * without the lock. Each side wakes the other only where that may wait: the reader at an
 * empty ring, the thread, which rests at a full one, at one that is half empty.
 */
#include "unpack_ahead.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define PIECES 32

struct piece {
	size_t size;
	uint64_t consumed; /* bytes of the file, when it was filled */
	unsigned char data[DECOMPRESS_PIECE_SIZE];
};

struct unpack_ahead {
	struct decompressor *from;
	pthread_t thread;
	pthread_mutex_t lock; /* guards what follows, but for the content of pieces */
	pthread_cond_t filled, emptied;
	unsigned first, count;
	bool stop;
	bool ended;           /* the thread fills no more: with result and failure */
	int result;           /* 0: the stream's end */
	struct error failure; /* of a negative result */

	/* the reader's */
	bool reading; /* the first piece is in use */
	uint64_t consumed;
	struct piece pieces[PIECES];
};

/* The next piece to fill, when there is one; NULL: stop. */
static struct piece *piece_wait(struct unpack_ahead *ahead)
{
	struct piece *piece = NULL;

	pthread_mutex_lock(&ahead->lock);
	if (ahead->count == PIECES)
		while (ahead->count > PIECES / 2 && !ahead->stop)
			pthread_cond_wait(&ahead->emptied, &ahead->lock);
	if (!ahead->stop)
		piece = &ahead->pieces[(ahead->first + ahead->count) % PIECES];
	pthread_mutex_unlock(&ahead->lock);
	return piece;
}

static void piece_done(struct unpack_ahead *ahead, int result,
		       const struct error *failure)
{
	pthread_mutex_lock(&ahead->lock);
	if (result > 0) {
		ahead->count++;
	} else {
		ahead->ended = true;
		ahead->result = result;
		ahead->failure = *failure;
	}
	if (result <= 0 || ahead->count == 1)
		pthread_cond_signal(&ahead->filled);
	pthread_mutex_unlock(&ahead->lock);
}

static void *fill(void *context)
{
	struct unpack_ahead *ahead = context;
	struct piece *piece;
	int r = 1;

	while (r > 0 && (piece = piece_wait(ahead))) {
		struct error failure = {0};

		r = decompressor_read(ahead->from, piece->data, &piece->size, &failure);
		piece->consumed = decompressor_consumed(ahead->from);
		piece_done(ahead, r, &failure);
	}
	return NULL;
}

int unpack_ahead_new(struct decompressor *from, struct unpack_ahead **ret,
		     struct error *err)
{
	/* Pieces that a small package does not reach take no memory. */
	struct unpack_ahead *ahead = calloc(1, sizeof(*ahead));
	int r;

	if (!ahead)
		return error_set(err, -ENOMEM, "cannot read the package: out of memory");
	ahead->from = from;
	ahead->consumed = decompressor_consumed(from);
	pthread_mutex_init(&ahead->lock, NULL);
	pthread_cond_init(&ahead->filled, NULL);
	pthread_cond_init(&ahead->emptied, NULL);
	r = -pthread_create(&ahead->thread, NULL, fill, ahead);
	if (r < 0) {
		free(ahead);
		return error_set(err, r, "cannot start a thread to unpack with: %s",
				 strerror(-r));
	}
	*ret = ahead;
	return 0;
}

/* With the lock. */
static void piece_release(struct unpack_ahead *ahead)
{
	if (!ahead->reading)
		return;
	ahead->reading = false;
	ahead->first = (ahead->first + 1) % PIECES;
	if (--ahead->count == PIECES / 2)
		pthread_cond_signal(&ahead->emptied);
}

int unpack_ahead_read(struct unpack_ahead *ahead, const void **ret_data, size_t *ret_size,
		      struct error *err)
{
	struct piece *piece;

	pthread_mutex_lock(&ahead->lock);
	piece_release(ahead);
	while (ahead->count == 0 && !ahead->ended)
		pthread_cond_wait(&ahead->filled, &ahead->lock);
	piece = ahead->count ? &ahead->pieces[ahead->first] : NULL;
	ahead->reading = piece != NULL;
	pthread_mutex_unlock(&ahead->lock);
	if (!piece)
		return ahead->result < 0
			       ? error_set(err, ahead->result, "%s", ahead->failure.text)
			       : 0;
	ahead->consumed = piece->consumed;
	*ret_data = piece->data;
	*ret_size = piece->size;
	return 1;
}

uint64_t unpack_ahead_consumed(const struct unpack_ahead *ahead)
{
	return ahead->consumed;
}

void unpack_ahead_free(struct unpack_ahead *ahead)
{
	if (!ahead)
		return;
	pthread_mutex_lock(&ahead->lock);
	ahead->stop = true;
	pthread_cond_signal(&ahead->emptied);
	pthread_mutex_unlock(&ahead->lock);
	pthread_join(ahead->thread, NULL);
	pthread_cond_destroy(&ahead->filled);
	pthread_cond_destroy(&ahead->emptied);
	pthread_mutex_destroy(&ahead->lock);
	free(ahead);
}

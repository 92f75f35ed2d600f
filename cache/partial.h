/* SPDX-License-Identifier: Apache-2.0 */
/*
 * partial.h - a download that is under way, or was, as a file
 *
 * Its name is the package's, its content the first bytes of it, as far as anybody knows.
 * The SHA-256 runs along in a thread of its own: it is complete soon after the file is.
 * An exclusive flock(2) on the descriptor says who may write.
 */
#pragma once

#include "error.h"
#include "file_hash.h"

#include <stdint.h>

struct partial {
	char *path;
	int fd;           /* O_RDWR, locked */
	uint64_t size;    /* bytes there */
	uint64_t resumed; /* of them, from an earlier run */
	uint64_t reserve; /* bytes to be left free on its disk */
	uint64_t checked; /* size at which free space was looked at last */
	struct file_hash *hash;
};

#define PARTIAL_NONE     \
	{                \
		.fd = -1 \
	}

/**
 * partial_open() - open or create, lock, and hash what is there
 * @dir, @file:  where; @file is a checked name
 * @reserve:     bytes to be left free on the disk
 * @tick:        told of what is hashed; may be NULL
 * @ret:         to be cleared with partial_close()
 *
 * Blocks while another process has it. What cannot be read is dropped.
 *
 * Return: 0; -ENOMEM; -EAGAIN: no thread; or the negative errno of open(2),
 * flock(2), ftruncate(2).
 */
int partial_open(const char *dir, const char *file, uint64_t reserve,
		 file_hash_tick_fn *tick, void *context, struct partial *ret,
		 struct error *err);

/** partial_close() - unlock and free; the file stays. Clean-up function. */
void partial_close(struct partial *partial);

/**
 * partial_room() - whether a package of @total bytes has room
 * @total: bytes of the whole file; 0 when unknown: the reserve must be free now
 * Return: 0; -ENOSPC, saying how much is missing; the negative errno of fstatvfs(3).
 */
int partial_room(struct partial *partial, uint64_t total, struct error *err);

/**
 * partial_append() - write the next bytes, to be hashed
 * Looks at the free space every 16 MiB. Return: 0; -ENOSPC; what pwrite(2) gave. The
 * bytes before stay as they are after a failure.
 */
int partial_append(struct partial *partial, const void *data, size_t size,
		   struct error *err);

/** partial_reset() - drop all bytes; 0 or the negative errno of ftruncate(2) */
int partial_reset(struct partial *partial, struct error *err);

/**
 * partial_sum() - the SHA-256 of what is there
 * Waits for what is not hashed yet. Return: 0; -ENOMEM; the errors of reading it.
 */
int partial_sum(const struct partial *partial, unsigned char ret[static SHA256_SIZE],
		struct error *err);

/** partial_unlink() - remove the file: it is of no use to anybody */
void partial_unlink(struct partial *partial);

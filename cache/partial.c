/* SPDX-License-Identifier: Apache-2.0 */
#include "partial.h"

#include "cleanup.h"
#include "fd.h"
#include "size.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define CHECK_INTERVAL (16 * 1024 * 1024)

static int partial_fail(const struct partial *partial, int code, const char *verb,
			struct error *err)
{
	return error_set(err, code, "cannot %s '%s': %s", verb, partial->path,
			 strerror(-code));
}

void partial_close(struct partial *partial)
{
	file_hash_free(partial->hash);
	fd_close(&partial->fd);
	free(partial->path);
	*partial = (struct partial)PARTIAL_NONE;
}

static int lock(int fd)
{
	int r;

	do
		r = flock(fd, LOCK_EX);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

/* Who had the lock before may have removed the name: then the lock is on nothing. */
static int open_locked(struct partial *partial, struct error *err)
{
	for (;;) {
		cleanup(fd_close) int fd = -1;
		struct stat stat;
		int r;

		fd = open(partial->path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (fd < 0)
			return partial_fail(partial, -errno, "open", err);
		r = lock(fd);
		if (r < 0)
			return partial_fail(partial, r, "lock", err);
		if (fstat(fd, &stat) < 0)
			return partial_fail(partial, -errno, "open", err);
		if (!S_ISREG(stat.st_mode))
			return error_set(err, -EINVAL, "'%s' is not a regular file",
					 partial->path);
		if (stat.st_nlink == 0)
			continue;
		partial->fd = fd_take(&fd);
		return 0;
	}
}

int partial_reset(struct partial *partial, struct error *err)
{
	file_hash_reset(partial->hash);
	if (ftruncate(partial->fd, 0) < 0)
		return partial_fail(partial, -errno, "truncate", err);
	partial->size = partial->resumed = partial->checked = 0;
	return 0;
}

/* What is there from an earlier run. */
static int hash_present(struct partial *partial, file_hash_tick_fn *tick, void *context)
{
	unsigned char sum[SHA256_SIZE];
	struct stat stat;

	if (fstat(partial->fd, &stat) < 0)
		return -errno;
	partial->size = (uint64_t)stat.st_size;
	file_hash_grown(partial->hash, partial->size);
	return file_hash_sum(partial->hash, tick, context, sum);
}

int partial_open(const char *dir, const char *file, uint64_t reserve,
		 file_hash_tick_fn *tick, void *context, struct partial *ret,
		 struct error *err)
{
	cleanup(partial_close) struct partial partial = PARTIAL_NONE;
	int r;

	partial.reserve = reserve;
	if (asprintf(&partial.path, "%s/%s", dir, file) < 0) {
		partial.path = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	r = open_locked(&partial, err);
	if (r < 0)
		return r;
	r = file_hash_new(partial.fd, &partial.hash);
	if (r == 0)
		r = hash_present(&partial, tick, context);
	if (r == -ENOMEM || !partial.hash)
		return partial_fail(&partial, r, "hash", err);
	if (r < 0)
		r = partial_reset(&partial, err);
	if (r < 0)
		return r;
	partial.resumed = partial.size;
	*ret = partial;
	partial = (struct partial)PARTIAL_NONE;
	return 0;
}

int partial_room(struct partial *partial, uint64_t total, struct error *err)
{
	uint64_t need = total > partial->size ? total - partial->size : 0;
	char missing[32], reserve[32];
	struct statvfs disk;
	uint64_t free_bytes;

	if (fstatvfs(partial->fd, &disk) < 0)
		return partial_fail(partial, -errno, "ask for the space of", err);
	free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
	if (__builtin_add_overflow(need, partial->reserve, &need))
		need = UINT64_MAX;
	if (need <= free_bytes)
		return 0;
	return error_set(err, -ENOSPC,
			 "no space for '%s': %s more must be free, of which %s are the "
			 "reserve; remove versions ('deployctl gc') or make room",
			 partial->path, size_format(need - free_bytes, missing),
			 size_format(partial->reserve, reserve));
}

int partial_append(struct partial *partial, const void *data, size_t size,
		   struct error *err)
{
	int r;

	if (partial->size - partial->checked >= CHECK_INTERVAL) {
		r = partial_room(partial, 0, err);
		if (r < 0)
			return r;
		partial->checked = partial->size;
	}
	r = fd_pwrite_all(partial->fd, data, size, partial->size);
	if (r < 0) {
		/* What was written of it is not hashed: it must not be there. */
		if (ftruncate(partial->fd, (off_t)partial->size) < 0)
			partial_unlink(partial);
		return partial_fail(partial, r, "write", err);
	}
	partial->size += size;
	file_hash_grown(partial->hash, partial->size);
	return 0;
}

int partial_sum(const struct partial *partial, unsigned char ret[static SHA256_SIZE],
		struct error *err)
{
	int r = file_hash_sum(partial->hash, NULL, NULL, ret);

	return r < 0 ? partial_fail(partial, r, "hash", err) : 0;
}

void partial_unlink(struct partial *partial)
{
	/* The lock is ours, so that it is the file that was opened. */
	unlink(partial->path);
}

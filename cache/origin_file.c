/* SPDX-License-Identifier: Apache-2.0 */
/*
 * origin_file.c - a folder of this machine: a disk that was carried in, or a mount
 *
 * A read from a mount that hangs blocks for as long as it hangs: nothing in a process can
 * bound it, and so the job that does it is killed as a whole.
 */
#include "cleanup.h"
#include "fd.h"
#include "origin.h"
#include "origin_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_SIZE (512 * 1024)

static int folder_of(const char *url, char **ret, struct error *err)
{
	struct url parsed;
	char *folder;
	int r;

	if (url[0] == '/') {
		folder = strdup(url);
	} else {
		r = origin_parse(url, &parsed, err);
		if (r < 0)
			return r;
		folder = origin_folder(parsed.path);
	}
	if (!folder)
		return error_set(err, -ENOMEM, "out of memory");
	*ret = folder;
	return 0;
}

static int open_error(int code, const char *folder, const char *url, const char *path,
		      struct error *err)
{
	if ((code == -ENOENT || code == -ENOTDIR) && access(folder, F_OK) < 0)
		return origin_error(err, -EHOSTUNREACH, url, path,
				    "the folder '%s' is not there: is its disk mounted?",
				    folder);
	if (code == -ENOENT || code == -ENOTDIR)
		return origin_error(err, -ENOENT, url, path, "there is no such file");
	if (code == -EACCES || code == -EPERM)
		return origin_error(err, -EACCES, url, path, "%s", strerror(-code));
	return origin_error(err, -EPROTO, url, path, "%s", strerror(-code));
}

static int file_open(const char *url, const char *path, int *ret, struct error *err)
{
	cleanup(free_ptr) char *folder = NULL;
	cleanup(free_ptr) char *name = NULL;
	int fd, r;

	r = folder_of(url, &folder, err);
	if (r < 0)
		return r;
	if (asprintf(&name, "%s/%s", folder, path) < 0) {
		name = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	/* O_NONBLOCK: the open of a fifo must not wait for its writer. */
	fd = open(name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return open_error(-errno, folder, url, path, err);
	*ret = fd;
	return 0;
}

static bool same_state(const struct stat *left, const struct stat *right)
{
	return left->st_size == right->st_size &&
	       left->st_mtim.tv_sec == right->st_mtim.tv_sec &&
	       left->st_mtim.tv_nsec == right->st_mtim.tv_nsec;
}

static ssize_t read_some(int fd, void *buffer, uint64_t offset)
{
	ssize_t n;

	do
		n = pread(fd, buffer, READ_SIZE, (off_t)offset);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

int origin_file_read(const char *url, const char *path, uint64_t offset,
		     uint64_t size_max, const struct origin_options *options,
		     uint64_t *ret_size, origin_sink_fn *sink, void *context,
		     struct error *err)
{
	cleanup(free_ptr) char *buffer = malloc(READ_SIZE);
	cleanup(fd_close) int fd = -1;
	struct stat before, after;
	uint64_t size;
	int r;

	if (!buffer)
		return error_set(err, -ENOMEM, "out of memory");
	r = file_open(url, path, &fd, err);
	if (r < 0)
		return r;
	if (fstat(fd, &before) < 0)
		return origin_error(err, -EPROTO, url, path, "%s", strerror(errno));
	if (!S_ISREG(before.st_mode))
		return origin_error(err, -EPROTO, url, path, "it is not a regular file");
	size = (uint64_t)before.st_size;
	if (size > size_max)
		return origin_error(err, -EFBIG, url, path,
				    "it has %ju bytes, and %ju are allowed",
				    (uintmax_t)size, (uintmax_t)size_max);
	if (offset > size)
		return origin_error(err, -ESPIPE, url, path,
				    "it ends before the byte to go on at");
	if (ret_size)
		*ret_size = size;
	while (offset < size) {
		ssize_t n = read_some(fd, buffer, offset);

		if (n < 0)
			return origin_error(err, -ECONNRESET, url, path, "%s",
					    strerror((int)-n));
		if (n == 0)
			break;
		if ((uint64_t)n > size - offset)
			n = (ssize_t)(size - offset);
		r = sink(context, buffer, (size_t)n);
		if (r < 0)
			return r;
		offset += (uint64_t)n;
	}
	if (offset < size || fstat(fd, &after) < 0 || !same_state(&before, &after))
		return origin_error(err, -ECONNRESET, url, path,
				    "it changed while it was read");
	return 0;
}

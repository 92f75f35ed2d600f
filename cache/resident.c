/* SPDX-License-Identifier: Apache-2.0 */
#include "resident.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define WINDOW_PAGES 4096 /* that are looked at in one go */

int resident_open(int folder, const char *path, int flags)
{
	const struct open_how how = {
		.flags = (uint64_t)flags | O_CLOEXEC,
		.resolve = RESOLVE_CACHED | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
	};
	long fd = syscall(SYS_openat2, folder, path, &how, sizeof(how));

	if (fd >= 0)
		return (int)fd;
	/* EINVAL: a kernel that knows openat2(2) but not RESOLVE_CACHED. */
	return errno == ENOSYS || errno == EINVAL ? -EOPNOTSUPP : -errno;
}

/* A range that grows from page to page, and over the ends of windows. */
struct range {
	uint64_t from, to; /* equal: none */
};

static int range_end(struct range *range,
		     int (*each)(void *context, uint64_t offset, uint64_t size),
		     void *context)
{
	int r = range->to > range->from
			? each(context, range->from, range->to - range->from)
			: 0;

	range->from = range->to = 0;
	return r;
}

/* One window, mapped at @map. */
static int window_each(void *map, uint64_t offset, size_t size, size_t page,
		       struct range *range,
		       int (*each)(void *context, uint64_t offset, uint64_t size),
		       void *context)
{
	unsigned char there[WINDOW_PAGES];
	int r = 0;

	if (mincore(map, size, there) < 0)
		return -errno;
	for (size_t at = 0; r == 0 && at < size; at += page) {
		size_t length = size - at < page ? size - at : page;

		if (!(there[at / page] & 1)) {
			r = range_end(range, each, context);
			continue;
		}
		if (range->to == range->from)
			range->from = offset + at;
		range->to = offset + at + length;
	}
	return r;
}

int resident_each(int fd, uint64_t size,
		  int (*each)(void *context, uint64_t offset, uint64_t size),
		  void *context)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), window = page * WINDOW_PAGES;
	struct range range = {0};
	int r = 0;

	for (uint64_t offset = 0; r == 0 && offset < size; offset += window) {
		size_t length = size - offset < window ? (size_t)(size - offset) : window;
		void *map = mmap(NULL, length, PROT_NONE, MAP_SHARED, fd, (off_t)offset);

		if (map == MAP_FAILED)
			return -errno;
		r = window_each(map, offset, length, page, &range, each, context);
		munmap(map, length);
	}
	return r == 0 ? range_end(&range, each, context) : r;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "space.h"

#include "size.h"

#include <errno.h>
#include <sys/statvfs.h>

int space_of(const char *path, uint64_t reserve_bytes, unsigned reserve_percent,
	     struct space *ret)
{
	struct statvfs st;
	uint64_t by_percent;

	if (statvfs(path, &st) < 0)
		return -errno;
	ret->total = (uint64_t)st.f_blocks * st.f_frsize;
	ret->free = (uint64_t)st.f_bavail * st.f_frsize;
	by_percent = ret->total / 100 * reserve_percent;
	ret->reserve = by_percent > reserve_bytes ? by_percent : reserve_bytes;
	return 0;
}

int space_check(const struct space *space, uint64_t bytes, const char *for_what,
		struct error *err)
{
	char need[32], have[32], keep[32];

	if (space->free >= space->reserve && space->free - space->reserve >= bytes)
		return 0;
	return error_set(
		err, -ENOSPC,
		"not enough space for %s: %s needed, %s free, of which %s are kept "
		"in reserve; 'deployctl gc' removes old versions, 'reserve' in the "
		"configuration sets the reserve",
		for_what, size_format(bytes, need), size_format(space->free, have),
		size_format(space->reserve, keep));
}

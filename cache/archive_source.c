/* SPDX-License-Identifier: Apache-2.0 */
#include "archive_source.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

int archive_source_wait(const struct archive_source *source, uint64_t offset,
			uint64_t *ret_end, struct error *err)
{
	struct stat status;

	if (source->wait)
		return source->wait(source->context, offset, ret_end, err);
	if (fstat(source->fd, &status) < 0)
		return error_set(err, -errno, "cannot read the package: %s",
				 strerror(errno));
	*ret_end = (uint64_t)status.st_size;
	return 0;
}

void archive_source_stop(const struct archive_source *source)
{
	if (source->stop)
		source->stop(source->context);
}

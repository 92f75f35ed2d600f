/* SPDX-License-Identifier: Apache-2.0 */
#include "job_kind.h"

#include <string.h>

const struct job_kind job_kinds[JOB_KINDS] = {
	{.name = "fetch", .stage = "checksums", .makes_pack = true},
	{.name = "import",
	 .stage = "checksums",
	 .needs_version = true,
	 .makes_pack = true},
	{.name = "verify", .stage = "verify"},
	{.name = "repair", .stage = "check", .needs_version = true},
	{.name = "warm",
	 .stage = "warm",
	 .needs_version = true,
	 .needs_channel = true,
	 .uses_mount = true},
	{.name = "list", .stage = "checksums", .unseen = true},
	{.name = "warmth", .stage = "checksums", .uses_mount = true, .unseen = true},
};

const struct job_kind *job_kind_find(const char *name)
{
	for (size_t i = 0; i < JOB_KINDS; i++)
		if (!strcmp(job_kinds[i].name, name))
			return &job_kinds[i];
	return NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "mountinfo.h"

#include "cleanup.h"
#include "fd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define MOUNTINFO_MAX (64 * 1024 * 1024)

/* "\040" and the like become the byte they stand for. */
static void unescape(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] &&
		    text[3]) {
			*to++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 |
				       (text[3] - '0'));
			text += 3;
		} else {
			*to++ = *text;
		}
	}
	*to = '\0';
}

/* 36 35 98:0 /root /point rw,noatime shared:1 master:2 - ext4 /dev/root rw */
static bool parse(char *line, struct mountinfo *ret)
{
	char *rest = NULL, *field, *device;
	unsigned major, minor;

	*ret = (struct mountinfo){0};
	field = strtok_r(line, " ", &rest);
	if (!field)
		return false;
	ret->id = (unsigned)strtoul(field, NULL, 10);
	field = strtok_r(NULL, " ", &rest);
	ret->parent = field ? (unsigned)strtoul(field, NULL, 10) : 0;
	device = strtok_r(NULL, " ", &rest);
	if (!device || sscanf(device, "%u:%u", &major, &minor) != 2)
		return false;
	ret->device = makedev(major, minor);
	ret->root = strtok_r(NULL, " ", &rest);
	ret->point = strtok_r(NULL, " ", &rest);
	ret->options = strtok_r(NULL, " ", &rest);
	while ((field = strtok_r(NULL, " ", &rest)) && strcmp(field, "-")) {
		sscanf(field, "shared:%u", &ret->shared);
		sscanf(field, "master:%u", &ret->master);
	}
	ret->type = strtok_r(NULL, " ", &rest);
	strtok_r(NULL, " ", &rest);
	ret->super = strtok_r(NULL, " ", &rest);
	if (!ret->super)
		return false;
	unescape((char *)ret->root);
	unescape((char *)ret->point);
	return true;
}

int mountinfo_each(pid_t pid, bool (*each)(void *context, const struct mountinfo *info),
		   void *context)
{
	cleanup(free_ptr) char *text = NULL;
	char path[64], *rest = NULL;
	int r;

	if (pid)
		snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
	else
		snprintf(path, sizeof(path), "/proc/self/mountinfo");
	r = file_read(path, MOUNTINFO_MAX, &text, NULL);
	if (r < 0)
		return r;
	for (char *line = strtok_r(text, "\n", &rest); line;
	     line = strtok_r(NULL, "\n", &rest)) {
		struct mountinfo info;

		if (parse(line, &info) && !each(context, &info))
			break;
	}
	return 0;
}

bool mountinfo_option(const char *options, const char *option)
{
	size_t size = strlen(option);

	for (const char *at = options; at;
	     at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL)
		if (!strncmp(at, option, size) && (at[size] == ',' || at[size] == '\0'))
			return true;
	return false;
}

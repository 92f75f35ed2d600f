/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS 200 /* for the reader of stderr */

static enum log_level shown = LOG_LEVEL_INFO;

static const char *level_name(enum log_level level)
{
	switch (level) {
	case LOG_LEVEL_ERROR:
		return "error";
	case LOG_LEVEL_WARNING:
		return "warning";
	case LOG_LEVEL_INFO:
		return "info";
	case LOG_LEVEL_DEBUG:
		return "debug";
	}
	return "?";
}

void log_init(enum log_level level)
{
	shown = level;
}

/* One write a line, so that lines of several threads stay whole. Who reads them may stand
 * still, journald or the end of a pipe: what serves containers does not wait for that. */
static void line_write(const char *line, size_t size)
{
	static atomic_uint lost;
	struct pollfd ready = {STDERR_FILENO, POLLOUT, 0};
	unsigned count;

	if (poll(&ready, 1, WAIT_MS) == 0) {
		atomic_fetch_add(&lost, 1);
		return;
	}
	count = atomic_exchange(&lost, 0);
	if (count && dprintf(STDERR_FILENO, "%s%u lines were lost: nobody read them\n",
			     getenv("JOURNAL_STREAM") ? "<4>" : "warning: ", count) < 0)
		return;
	if (write(STDERR_FILENO, line, size) < 0)
		return; /* nowhere left to say it */
}

void log_at(enum log_level level, const char *format, ...)
{
	char line[2048];
	size_t size;
	va_list args;

	if (level > shown)
		return;
	if (getenv("JOURNAL_STREAM")) {
		size = (size_t)snprintf(line, sizeof(line), "<%d>", (int)level);
	} else {
		time_t now = time(NULL);
		struct tm tm;

		gmtime_r(&now, &tm);
		size = strftime(line, sizeof(line), "%FT%TZ ", &tm);
		size += (size_t)snprintf(line + size, sizeof(line) - size,
					 "%s: ", level_name(level));
	}
	va_start(args, format);
	vsnprintf(line + size, sizeof(line) - size - 1, format, args);
	va_end(args);
	for (char *c = line; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	size = strlen(line);
	line[size++] = '\n';
	line_write(line, size);
}

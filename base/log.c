/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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
	/* One write a line, so that lines of several threads stay whole. */
	if (write(STDERR_FILENO, line, size) < 0)
		return; /* nowhere left to say it */
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * log.h - one line on stderr an event
 *
 * Under systemd (JOURNAL_STREAM is set) each line starts with <N>, the syslog level;
 * elsewhere with the time in UTC and the level's name. A failure is logged once, by who
 * handles it: "message 'name'" and key=value pairs. Never a secret.
 */
#pragma once

enum log_level {
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7,
};

/** log_init() - what to show: @level and everything more urgent. Default: info. */
void log_init(enum log_level level);

/** log_at() - one line; control characters are replaced, 2 KiB at most. Thread-safe.
 * Waits 200 ms at most for who reads stderr; then the line is counted as lost. */
void log_at(enum log_level level, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

#define log_error(...)   log_at(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)    log_at(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)   log_at(LOG_LEVEL_DEBUG, __VA_ARGS__)

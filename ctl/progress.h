/* SPDX-License-Identifier: Apache-2.0 */
/*
 * progress.h - how far a job is: a bar on a terminal, plain lines elsewhere, JSON
 */
#pragma once

#include "job.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum progress_kind {
	PROGRESS_NONE,
	PROGRESS_BAR,   /* on stderr, one line that is written over */
	PROGRESS_PLAIN, /* on stderr, a line at each stage and every few seconds */
	PROGRESS_JSON,  /* on stdout, each reply as a line */
};

struct progress {
	enum progress_kind kind;
	bool bar_shown;
	char stage[32];
	uint64_t next_ms; /* of the monotonic clock: no plain line of one stage before */
};

/** progress_valid() - whether @text is a value of --progress; NULL is */
bool progress_valid(const char *text);

/**
 * progress_init() - choose by --progress
 * @text: a valid value; NULL is "auto"
 * @json: --json was given: auto then shows nothing
 */
void progress_init(struct progress *progress, const char *text, bool json);

/**
 * progress_show() - the job has moved
 * @reply: what @job was read from
 */
void progress_show(struct progress *progress, const struct job *job, const json_t *reply);

/** progress_end() - the job has ended, or is left alone: clear the bar, or a last line */
void progress_end(struct progress *progress, const struct job *job);

/** progress_format() - "shop 1.4.2: download 45 %, 331.2 MiB of ..."; the caller's; NULL:
 * out of memory */
char *progress_format(const struct job *job);

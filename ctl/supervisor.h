/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supervisor.h - what the supervisor has written about itself and its worker
 *
 * <runtime>/supervisor.json is there for the time when the API does not answer. It may be
 * old, cut short or wrong: nothing is taken from it that was not checked.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct supervisor {
	bool known;     /* there is such a file, and it can be read */
	pid_t pid;      /* 0: none is named, or the process is no deployfsd (any more) */
	pid_t worker;   /* the same */
	char state[32]; /* "running", "held-back", "ended"; "" where it does not say */
	uint64_t restarts;
	char last_exit[128]; /* "signal 11 (Segmentation fault)"; "": none yet */
	char next_start[64]; /* a time; "": none is planned */
	char written[32];    /* when the file was written */
};

/** supervisor_read() - @runtime: the daemon's directory */
void supervisor_read(const char *runtime, struct supervisor *ret);

/** supervisor_json() - the same for --json, the caller's; null where it is not known */
json_t *supervisor_json(const struct supervisor *supervisor);

/** supervisor_text() - "the worker is held back after 31 restarts, …" into @text */
void supervisor_text(const struct supervisor *supervisor, char *text, size_t size);

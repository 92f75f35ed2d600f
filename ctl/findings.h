/* SPDX-License-Identifier: Apache-2.0 */
/*
 * findings.h - what doctor has to say, one line each
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

enum finding_level {
	FINDING_OK,
	FINDING_WARNING,
	FINDING_PROBLEM,
};

struct findings {
	bool json;    /* gather them; otherwise each is printed at once */
	json_t *list; /* owned; NULL: none yet */
	unsigned counts[FINDING_PROBLEM + 1];
};

/**
 * finding_add() - one more
 * @check: one word that says what was looked at, stable, for programs
 * @format: printf format: what is the case, on what, and what to do about it
 */
void finding_add(struct findings *findings, enum finding_level level, const char *check,
		 const char *format, ...) __attribute__((format(printf, 4, 5)));

/** findings_end() - with @json print them all; free them; returns how many problems there
 * were */
unsigned findings_end(struct findings *findings);

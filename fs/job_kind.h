/* SPDX-License-Identifier: Apache-2.0 */
/*
 * job_kind.h - what kinds of jobs there are: one that is added is added here
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define JOB_KINDS 7

struct job_kind {
	const char *name;
	const char *stage;  /* until its process tells another one */
	bool needs_version; /* it is about one, which is given */
	bool needs_channel;
	bool makes_pack; /* that the daemon adopts */
	bool uses_mount; /* its process has files of our own mount open */
	bool unseen;     /* the answer to a question, and no job for others to see */
};

extern const struct job_kind job_kinds[JOB_KINDS];

/** job_kind_find() - by its name; NULL: there is none */
const struct job_kind *job_kind_find(const char *name);

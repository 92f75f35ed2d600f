/* SPDX-License-Identifier: Apache-2.0 */
/*
 * worker.h - the process that does all the work, and may die at any moment
 *
 * Forked from the supervisor, without an exec: to load the libraries again would be most
 * of the pause that containers see.
 */
#pragma once

#include "config.h"
#include "holdings.h"

/** Why a worker starts. */
enum worker_reason {
	WORKER_FIRST,    /* nobody waits yet */
	WORKER_DIED,     /* the one before died: reads wait */
	WORKER_UPGRADED, /* the one before reads on until we do, and has finished the rest
			  */
};

struct worker_start {
	struct holdings *holdings; /* a copy of the supervisor's */
	struct config *config;     /* its last good one, for when the file is broken
				    * now; the child's; may be NULL */
	enum worker_reason reason;
	unsigned bank;
};

/**
 * worker_main() - in the child of the supervisor's fork(2)
 * Return: the exit code. 0: it has unmounted, or was told to quit. Others: it could not
 * start.
 */
int worker_main(const struct worker_start *start);

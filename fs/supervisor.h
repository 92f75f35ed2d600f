/* SPDX-License-Identifier: Apache-2.0 */
/*
 * supervisor.h - holds the descriptors, starts workers, watches them
 */
#pragma once

#include "config.h"
#include "holdings.h"

enum supervisor_reason {
	SUPERVISOR_FIRST,   /* nothing served before */
	SUPERVISOR_NEXT,    /* the one before is gone; a worker may live */
	SUPERVISOR_UPGRADE, /* the same process, another program: replace the worker too
			     */
};

/**
 * supervisor_run() - until the mount is gone, or somebody else supervises
 * @holdings, @config: taken over; @config is used where the file cannot be read later,
 * NULL is allowed
 * Return: the exit code.
 */
int supervisor_run(struct holdings *holdings, struct config *config,
		   enum supervisor_reason reason);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pace.h - whether a transfer still gets on
 *
 * A transfer is given up when the server does not answer within the connect timeout, when
 * no byte comes for the stall timeout, and when over a stall timeout fewer than
 * PACE_RATE_MIN bytes a second came: a server that trickles would keep a job for ever.
 * The time that the receiver of the bytes takes does not count.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define PACE_RATE_MIN 1024 /* bytes a second; a modem of 1990 is twice as fast */

struct pace {
	uint64_t connect_ms; /* limits */
	uint64_t stall_ms;
	bool answered;
	uint64_t last_ms;      /* when anything came last */
	uint64_t window_ms;    /* since when window_bytes are counted */
	uint64_t window_bytes; /* what came since */
};

/** pace_begin() - a request starts now */
void pace_begin(struct pace *pace, uint64_t connect_ms, uint64_t stall_ms);

/** pace_answer() - the server said something */
void pace_answer(struct pace *pace);

/**
 * pace_bytes() - bytes of the file came
 * @busy_ms: how long their receiver took
 */
void pace_bytes(struct pace *pace, uint64_t bytes, uint64_t busy_ms);

/**
 * pace_check() - whether to go on
 * @ret_why: what to tell the operator, static; untouched when all is well
 * Return: 0 or -ETIMEDOUT.
 */
int pace_check(struct pace *pace, const char **ret_why);

/* SPDX-License-Identifier: Apache-2.0 */
#include "pace.h"

#include "clock.h"

#include <errno.h>

void pace_begin(struct pace *pace, uint64_t connect_ms, uint64_t stall_ms)
{
	uint64_t now = clock_monotonic_ms();

	*pace = (struct pace){
		.connect_ms = connect_ms,
		.stall_ms = stall_ms,
		.last_ms = now,
		.window_ms = now,
	};
}

void pace_answer(struct pace *pace)
{
	pace->last_ms = clock_monotonic_ms();
	if (!pace->answered)
		pace->window_ms = pace->last_ms;
	pace->answered = true;
}

void pace_bytes(struct pace *pace, uint64_t bytes, uint64_t busy_ms)
{
	pace_answer(pace);
	pace->window_ms += busy_ms;
	pace->window_bytes += bytes;
}

int pace_check(struct pace *pace, const char **ret_why)
{
	uint64_t now = clock_monotonic_ms();
	uint64_t limit = pace->answered ? pace->stall_ms : pace->connect_ms;

	if (now > pace->last_ms && now - pace->last_ms >= limit) {
		*ret_why = pace->answered ? "no byte came within the stall timeout"
					  : "no answer within the connect timeout";
		return -ETIMEDOUT;
	}
	if (!pace->answered || now < pace->window_ms + pace->stall_ms)
		return 0;
	if (pace->window_bytes * 1000 < PACE_RATE_MIN * (now - pace->window_ms)) {
		*ret_why = "the server sends less than 1 KiB a second";
		return -ETIMEDOUT;
	}
	pace->window_ms = now;
	pace->window_bytes = 0;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clock.h - timers use the monotonic clock, records the wall clock
 */
#pragma once

#include <stdint.h>

/** clock_monotonic_ms() - milliseconds that no change of the wall clock moves */
uint64_t clock_monotonic_ms(void);

/** clock_monotonic_ns() - the same in nanoseconds, for what is short */
uint64_t clock_monotonic_ns(void);

/** clock_wall_ns() - nanoseconds since 1970, UTC */
int64_t clock_wall_ns(void);

#define CLOCK_TEXT_SIZE 32

/** clock_format() - "2026-11-22T22:46:42Z" into @text; returns @text */
const char *clock_format(int64_t wall_ns, char text[static CLOCK_TEXT_SIZE]);

/* SPDX-License-Identifier: Apache-2.0 */
#include "pace.h"

#include "clock.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define CONNECT_MS 10000
#define STALL_MS   30000

static uint64_t now_ms;

/* -Wl,--wrap: time passes when the test says so */
uint64_t __wrap_clock_monotonic_ms(void);
uint64_t __wrap_clock_monotonic_ms(void)
{
	return now_ms;
}

static struct pace begun(void)
{
	struct pace pace;

	now_ms = 1000;
	pace_begin(&pace, CONNECT_MS, STALL_MS);
	return pace;
}

static void assert_goes_on(struct pace *pace)
{
	const char *why = "untouched";

	assert_int_equal(pace_check(pace, &why), 0);
	assert_string_equal(why, "untouched");
}

static void assert_given_up(struct pace *pace, const char *reason)
{
	const char *why = NULL;

	assert_int_equal(pace_check(pace, &why), -ETIMEDOUT);
	assert_string_equal(why, reason);
}

static void first_answer_has_the_connect_timeout(void **state)
{
	struct pace pace = begun();

	now_ms += CONNECT_MS - 1;
	assert_goes_on(&pace);
	now_ms += 1;
	assert_given_up(&pace, "no answer within the connect timeout");
}

static void silence_after_the_answer_has_the_stall_timeout(void **state)
{
	struct pace pace = begun();

	now_ms += CONNECT_MS - 1;
	pace_answer(&pace);
	now_ms += STALL_MS - 1;
	pace_bytes(&pace, 1000000, 0);
	now_ms += STALL_MS - 1;
	assert_goes_on(&pace);
	now_ms += 1;
	assert_given_up(&pace, "no byte came within the stall timeout");
}

static void trickle_is_given_up_after_a_stall_timeout(void **state)
{
	struct pace pace = begun();

	pace_answer(&pace);
	for (int i = 0; i < 29; i++) {
		now_ms += 1000;
		pace_bytes(&pace, 1000, 0);
		assert_goes_on(&pace);
	}
	now_ms += 1000;
	pace_bytes(&pace, 1000, 0);
	assert_given_up(&pace, "the server sends less than 1 KiB a second");
}

static void slow_but_steady_goes_on_for_ever(void **state)
{
	struct pace pace = begun();

	pace_answer(&pace);
	for (int i = 0; i < 1000; i++) {
		now_ms += 1000;
		pace_bytes(&pace, PACE_RATE_MIN, 0);
		assert_goes_on(&pace);
	}
}

static void time_of_the_receiver_does_not_count(void **state)
{
	struct pace pace = begun();

	pace_answer(&pace);
	for (int i = 0; i < 10; i++) {
		now_ms += 60000; /* a slow disk */
		pace_bytes(&pace, PACE_RATE_MIN, 60000);
		assert_goes_on(&pace);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(first_answer_has_the_connect_timeout),
		cmocka_unit_test(silence_after_the_answer_has_the_stall_timeout),
		cmocka_unit_test(trickle_is_given_up_after_a_stall_timeout),
		cmocka_unit_test(slow_but_steady_goes_on_for_ever),
		cmocka_unit_test(time_of_the_receiver_does_not_count),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

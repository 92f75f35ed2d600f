/* SPDX-License-Identifier: Apache-2.0 */
#include "size.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void sizes_are_read_in_powers_of_1024_and_of_1000(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} cases[] = {
		{"0", 0},
		{"4096", 4096},
		{"17B", 17},
		{"17 B", 17},
		{"2KiB", 2048},
		{"512 MiB", 512ULL << 20},
		{"1GiB", 1ULL << 30},
		{"3TiB", 3ULL << 40},
		{"1kB", 1000},
		{"1KB", 1000},
		{"10MB", 10000000},
		{"2GB", 2000000000},
		{"1TB", 1000000000000},
		{"1.5GiB", 3ULL << 29},
		{"0.25 KiB", 256},
		{"1.0000009MB", 1000000},
		{"9223372036854775807", INT64_MAX},
	};
	uint64_t bytes;

	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_int_equal(size_parse(cases[i].text, &bytes), 0);
		assert_int_equal(bytes, cases[i].bytes);
	}
}

static void what_is_no_size_is_refused_and_leaves_the_result(void **state)
{
	static const char *const texts[] = {
		"",       " 1", "1 ", "-1",    "+1",   "GiB", "1K",   "1kib", "1Gib",
		"1 GiB ", "1.", ".5", "1.GiB", "1..5", "1e3", "0x10", "1 2",  "1\tGiB",
	};
	uint64_t bytes = 42;

	for (size_t i = 0; i < COUNT(texts); i++)
		assert_int_equal(size_parse(texts[i], &bytes), -EINVAL);
	assert_int_equal(bytes, 42);
}

static void a_size_beyond_63_bits_is_out_of_range(void **state)
{
	static const char *const texts[] = {
		"9223372036854775808", "18446744073709551616", "99999999999999999999999",
		"8388608TiB",          "99999999TiB",
	};
	uint64_t bytes = 42;

	for (size_t i = 0; i < COUNT(texts); i++)
		assert_int_equal(size_parse(texts[i], &bytes), -ERANGE);
	assert_int_equal(bytes, 42);
}

static void sizes_are_written_with_one_decimal(void **state)
{
	char text[32];

	assert_string_equal(size_format(0, text), "0 B");
	assert_string_equal(size_format(1023, text), "1023 B");
	assert_string_equal(size_format(1024, text), "1.0 KiB");
	assert_string_equal(size_format(1536, text), "1.5 KiB");
	assert_string_equal(size_format(1503238554, text), "1.4 GiB");
	assert_string_equal(size_format(740ULL << 20, text), "740.0 MiB");
	assert_string_equal(size_format(1ULL << 40, text), "1.0 TiB");
	assert_string_equal(size_format(UINT64_MAX, text), "16.0 EiB");
}

static void rounding_up_moves_to_the_next_unit(void **state)
{
	char text[32];

	assert_string_equal(size_format((1ULL << 20) - 1, text), "1.0 MiB");
	assert_string_equal(size_format((1ULL << 40) - 1, text), "1.0 TiB");
	assert_string_equal(size_format(1048524, text), "1023.9 KiB");
}

static void durations_are_read_with_their_unit(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
	} cases[] = {
		{"500ms", 500},    {"0s", 0},
		{"30s", 30000},    {"5min", 300000},
		{"5 min", 300000}, {"2h", 7200000},
		{"7d", 604800000}, {"3653d", 315619200000},
	};
	uint64_t ms;

	for (size_t i = 0; i < COUNT(cases); i++) {
		assert_int_equal(duration_parse(cases[i].text, &ms), 0);
		assert_int_equal(ms, cases[i].ms);
	}
}

static void what_is_no_duration_is_refused_and_leaves_the_result(void **state)
{
	static const char *const texts[] = {"",   "30",   "s",      "-1s",
					    "1m", "1.5h", "5 mins", "1 S"};
	uint64_t ms = 42;

	for (size_t i = 0; i < COUNT(texts); i++)
		assert_int_equal(duration_parse(texts[i], &ms), -EINVAL);
	assert_int_equal(duration_parse("3654d", &ms), -ERANGE);
	assert_int_equal(duration_parse("99999999999999999999d", &ms), -ERANGE);
	assert_int_equal(duration_parse("9999999999999999999d", &ms), -ERANGE);
	assert_int_equal(ms, 42);
}

static void durations_are_written_in_their_two_largest_units(void **state)
{
	char text[32];

	assert_string_equal(duration_format(0, text), "0s");
	assert_string_equal(duration_format(4, text), "4s");
	assert_string_equal(duration_format(60, text), "1min");
	assert_string_equal(duration_format(200, text), "3min 20s");
	assert_string_equal(duration_format(3600, text), "1h");
	assert_string_equal(duration_format(7500, text), "2h 5min");
	assert_string_equal(duration_format(7559, text), "2h 5min");
	assert_string_equal(duration_format(90000, text), "1d 1h");
	assert_string_equal(duration_format(UINT64_MAX, text), "213503982334601d 7h");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_read_in_powers_of_1024_and_of_1000),
		cmocka_unit_test(what_is_no_size_is_refused_and_leaves_the_result),
		cmocka_unit_test(a_size_beyond_63_bits_is_out_of_range),
		cmocka_unit_test(sizes_are_written_with_one_decimal),
		cmocka_unit_test(rounding_up_moves_to_the_next_unit),
		cmocka_unit_test(durations_are_read_with_their_unit),
		cmocka_unit_test(what_is_no_duration_is_refused_and_leaves_the_result),
		cmocka_unit_test(durations_are_written_in_their_two_largest_units),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "exposition.h"
#include "histogram.h"
#include "metrics.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define US UINT64_C(1000)
#define S  UINT64_C(1000000000)

static void a_bound_belongs_to_its_bucket_and_a_nanosecond_more_to_the_next(void **state)
{
	assert_int_equal(histogram_bucket(0), 0);
	for (unsigned i = 0; i < HISTOGRAM_BOUNDS; i++) {
		uint64_t ns = histogram_bound_us(i) * US;

		assert_int_equal(histogram_bucket(ns), i);
		assert_int_equal(histogram_bucket(ns + 1), i + 1);
	}
	assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BOUNDS);
}

static void what_was_added_is_read(void **state)
{
	struct histogram histogram = {0};
	struct tally tally;

	histogram_add(&histogram, 700);
	histogram_add(&histogram, 3 * US);
	histogram_add(&histogram, 4 * US);
	histogram_add(&histogram, 100 * S);
	histogram_read(&histogram, &tally);
	assert_int_equal(tally.count, 4);
	assert_int_equal(tally.buckets[0], 1);
	assert_int_equal(tally.buckets[2], 2);
	assert_int_equal(tally.buckets[HISTOGRAM_BOUNDS], 1);
	assert_int_equal(tally.sum_ns, 700 + 7 * US + 100 * S);
	assert_int_equal(tally_mean_ns(&tally), tally.sum_ns / 4);
}

static void an_empty_one_has_no_mean_and_no_quantile(void **state)
{
	struct tally tally = {0};

	assert_int_equal(tally_mean_ns(&tally), 0);
	assert_int_equal(tally_quantile_ns(&tally, 50), 0);
	assert_int_equal(tally_quantile_ns(&tally, 100), 0);
}

static void a_quantile_lies_in_the_bucket_that_it_falls_into(void **state)
{
	struct histogram histogram = {0};
	struct tally tally;

	for (int i = 0; i < 98; i++)
		histogram_add(&histogram, 10 * US); /* 8 to 16 µs */
	histogram_add(&histogram, 900 * US);        /* 512 to 1024 µs */
	histogram_add(&histogram, 100 * S);
	histogram_read(&histogram, &tally);
	assert_int_equal(tally_quantile_ns(&tally, 1), 8 * US + 8 * US / 98);
	assert_int_equal(tally_quantile_ns(&tally, 49), 12 * US);
	assert_int_equal(tally_quantile_ns(&tally, 98), 16 * US);
	assert_int_equal(tally_quantile_ns(&tally, 99), 1024 * US);
	assert_int_equal(tally_quantile_ns(&tally, 100),
			 histogram_bound_us(HISTOGRAM_BOUNDS - 1) * US);
}

static void of_one_each_quantile_is_the_end_of_its_bucket(void **state)
{
	struct histogram histogram = {0};
	struct tally tally;

	histogram_add(&histogram, 5 * US);
	histogram_read(&histogram, &tally);
	for (unsigned percent = 1; percent <= 100; percent++)
		assert_int_equal(tally_quantile_ns(&tally, percent), 8 * US);
}

#define THREADS 4
#define TIMES   100000

static void *add_many(void *context)
{
	for (uint64_t i = 0; i < TIMES; i++)
		histogram_add(context, i);
	return NULL;
}

static void nothing_is_lost_when_many_add_at_once(void **state)
{
	struct histogram histogram = {0};
	pthread_t threads[THREADS];
	struct tally tally;

	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, add_many, &histogram),
				 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	histogram_read(&histogram, &tally);
	assert_int_equal(tally.count, THREADS * TIMES);
	assert_int_equal(tally.sum_ns, (uint64_t)THREADS * TIMES * (TIMES - 1) / 2);
}

static char *text_of(struct exposition *e)
{
	char *text = NULL;

	assert_int_equal(exposition_close(e, &text), 0);
	return text;
}

static void a_family_has_its_head_and_samples_with_labels(void **state)
{
	struct exposition e;
	char *text;

	assert_int_equal(exposition_open(&e), 0);
	exposition_family(&e, "things_total", "counter", "Things of all kinds.");
	exposition_sample(&e, "things_total", 7, NULL);
	exposition_sample(&e, "things_total", UINT64_MAX, "kind", "a", "way", "b", NULL);
	text = text_of(&e);
	assert_string_equal(text, "# HELP things_total Things of all kinds.\n"
				  "# TYPE things_total counter\n"
				  "things_total 7\n"
				  "things_total{kind=\"a\",way=\"b\"} "
				  "18446744073709551615\n");
	free(text);
}

static void quotes_backslashes_and_newlines_in_labels_are_escaped(void **state)
{
	struct exposition e;
	char *text;

	assert_int_equal(exposition_open(&e), 0);
	exposition_sample(&e, "x", 1, "url", "a\"b\\c\nd{e},f=é", NULL);
	text = text_of(&e);
	assert_string_equal(text, "x{url=\"a\\\"b\\\\c\\nd{e},f=é\"} 1\n");
	free(text);
}

static void a_histogram_is_cumulative_and_in_seconds(void **state)
{
	struct histogram histogram = {0};
	struct exposition e;
	struct tally tally;
	char *text;

	histogram_add(&histogram, 1500);
	histogram_add(&histogram, 2 * S);
	histogram_add(&histogram, 9 * S);
	histogram_read(&histogram, &tally);
	assert_int_equal(exposition_open(&e), 0);
	exposition_histogram(&e, "t_seconds", &tally, "op", "read", NULL);
	text = text_of(&e);
	assert_non_null(strstr(text,
			       "t_seconds_bucket{op=\"read\",le=\"0.000001\"} 0\n"
			       "t_seconds_bucket{op=\"read\",le=\"0.000002\"} 1\n"
			       "t_seconds_bucket{op=\"read\",le=\"0.000004\"} 1\n"));
	assert_non_null(strstr(text,
			       "t_seconds_bucket{op=\"read\",le=\"1.048576\"} 1\n"
			       "t_seconds_bucket{op=\"read\",le=\"2.097152\"} 2\n"));
	assert_non_null(strstr(text, "t_seconds_bucket{op=\"read\",le=\"8.388608\"} 2\n"
				     "t_seconds_bucket{op=\"read\",le=\"+Inf\"} 3\n"
				     "t_seconds_sum{op=\"read\"} 11.000001500\n"
				     "t_seconds_count{op=\"read\"} 3\n"));
	free(text);
}

static unsigned occurrences(const char *text, const char *part)
{
	unsigned count = 0;

	while ((text = strstr(text, part))) {
		count++;
		text++;
	}
	return count;
}

static void every_counter_is_described(void **state)
{
	struct metrics metrics = {0};
	struct exposition e;
	char *text;

	/* Each has a number of its own, which must be found once. */
	for (unsigned i = 0; i < METRIC_COUNT; i++)
		metrics_add(&metrics, (enum metric)i, 4711000 + i);
	assert_int_equal(exposition_open(&e), 0);
	metrics_write(&metrics, &e);
	text = text_of(&e);
	for (unsigned i = 0; i < METRIC_COUNT; i++) {
		char number[32];

		snprintf(number, sizeof(number), " %u\n", 4711000 + i);
		assert_int_equal(occurrences(text, number), 1);
	}
	assert_null(strstr(text, "(null)"));
	free(text);
}

static void what_has_no_place_is_not_counted(void **state)
{
	struct metrics metrics = {0}, empty = {0};

	metrics_fetched(&metrics, "gopher", 1);
	metrics_job_ended(&metrics, "list", "done");
	metrics_job_ended(&metrics, "fetch", "running");
	assert_memory_equal(&metrics, &empty, sizeof(empty));
	metrics_fetched(&metrics, "https", 3);
	metrics_fetched(&metrics, "https", 4);
	metrics_job_ended(&metrics, "verify", "failed");
	assert_memory_not_equal(&metrics, &empty, sizeof(empty));
}

static void fetches_and_jobs_are_counted_by_kind(void **state)
{
	struct metrics metrics = {0};
	struct exposition e;
	char *text;

	metrics_fetched(&metrics, "https", 3);
	metrics_fetched(&metrics, "https", 4);
	metrics_job_ended(&metrics, "verify", "failed");
	metrics_job_ended(&metrics, "warm", "done");
	assert_int_equal(exposition_open(&e), 0);
	metrics_write(&metrics, &e);
	text = text_of(&e);
	assert_non_null(
		strstr(text, "deployfs_fetched_bytes_total{scheme=\"https\"} 7\n"));
	assert_non_null(
		strstr(text, "deployfs_fetched_bytes_total{scheme=\"http\"} 0\n"));
	assert_non_null(strstr(text, "deployfs_jobs_ended_total{kind=\"verify\",result="
				     "\"failed\"} 1\n"));
	assert_non_null(strstr(text, "deployfs_jobs_ended_total{kind=\"verify\",result="
				     "\"done\"} 0\n"));
	assert_non_null(strstr(
		text, "deployfs_jobs_ended_total{kind=\"warm\",result=\"done\"} 1\n"));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_bound_belongs_to_its_bucket_and_a_nanosecond_more_to_the_next),
		cmocka_unit_test(what_was_added_is_read),
		cmocka_unit_test(an_empty_one_has_no_mean_and_no_quantile),
		cmocka_unit_test(a_quantile_lies_in_the_bucket_that_it_falls_into),
		cmocka_unit_test(of_one_each_quantile_is_the_end_of_its_bucket),
		cmocka_unit_test(nothing_is_lost_when_many_add_at_once),
		cmocka_unit_test(a_family_has_its_head_and_samples_with_labels),
		cmocka_unit_test(quotes_backslashes_and_newlines_in_labels_are_escaped),
		cmocka_unit_test(a_histogram_is_cumulative_and_in_seconds),
		cmocka_unit_test(every_counter_is_described),
		cmocka_unit_test(what_has_no_place_is_not_counted),
		cmocka_unit_test(fetches_and_jobs_are_counted_by_kind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

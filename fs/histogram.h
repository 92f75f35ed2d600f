/* SPDX-License-Identifier: Apache-2.0 */
/*
 * histogram.h - how long something took, counted in buckets that double in width
 *
 * Any number of threads add; a reader sees each of them at most once and needs no lock.
 */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

/** Bucket i holds what took at most 2^i µs, the first 1 µs, the last bounded one 8.4 s;
 * one more holds what took longer. */
#define HISTOGRAM_BOUNDS  24
#define HISTOGRAM_BUCKETS (HISTOGRAM_BOUNDS + 1)

/** All zero: empty. */
struct histogram {
	_Atomic uint64_t buckets[HISTOGRAM_BUCKETS];
	_Atomic uint64_t sum_ns;
};

/** What a histogram held when it was read. */
struct tally {
	uint64_t buckets[HISTOGRAM_BUCKETS];
	uint64_t count; /* the sum of the buckets */
	uint64_t sum_ns;
};

/** histogram_bucket() - the bucket for what took @ns */
unsigned histogram_bucket(uint64_t ns);

/** histogram_bound_us() - the longest time that belongs to @bucket, which is bounded */
uint64_t histogram_bound_us(unsigned bucket);

/** histogram_add() - once more, taking @ns; waits for nothing */
void histogram_add(struct histogram *histogram, uint64_t ns);

/** histogram_read() - what it holds; while others add, the sum may be ahead of the count
 */
void histogram_read(const struct histogram *histogram, struct tally *ret);

/** tally_mean_ns() - 0 where nothing was counted */
uint64_t tally_mean_ns(const struct tally *tally);

/**
 * tally_quantile_ns() - the time within which @percent of all were done
 * @percent: 1 to 100
 * An estimate: inside a bucket they are taken to be spread evenly, and what took longer
 * than the last bound counts as that. Return: 0 where nothing was counted.
 */
uint64_t tally_quantile_ns(const struct tally *tally, unsigned percent);

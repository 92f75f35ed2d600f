/* SPDX-License-Identifier: Apache-2.0 */
#include "histogram.h"

#define NS_PER_US 1000

unsigned histogram_bucket(uint64_t ns)
{
	uint64_t above =
		ns ? (ns - 1) / NS_PER_US : 0; /* a bound belongs to its bucket */
	unsigned bucket = above ? 64 - (unsigned)__builtin_clzll(above) : 0;

	return bucket < HISTOGRAM_BOUNDS ? bucket : HISTOGRAM_BOUNDS;
}

uint64_t histogram_bound_us(unsigned bucket)
{
	return UINT64_C(1) << bucket;
}

void histogram_add(struct histogram *histogram, uint64_t ns)
{
	atomic_fetch_add_explicit(&histogram->sum_ns, ns, memory_order_relaxed);
	atomic_fetch_add_explicit(&histogram->buckets[histogram_bucket(ns)], 1,
				  memory_order_relaxed);
}

void histogram_read(const struct histogram *histogram, struct tally *ret)
{
	*ret = (struct tally){0};
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		ret->buckets[i] = atomic_load_explicit(&histogram->buckets[i],
						       memory_order_relaxed);
		ret->count += ret->buckets[i];
	}
	ret->sum_ns = atomic_load_explicit(&histogram->sum_ns, memory_order_relaxed);
}

uint64_t tally_mean_ns(const struct tally *tally)
{
	return tally->count ? tally->sum_ns / tally->count : 0;
}

/* The time of the @rank-th of those in @bucket, counted from 1. */
static uint64_t within(const struct tally *tally, unsigned bucket, uint64_t rank)
{
	uint64_t low = bucket ? histogram_bound_us(bucket - 1) * NS_PER_US : 0, width;

	if (bucket == HISTOGRAM_BOUNDS)
		return low;
	width = histogram_bound_us(bucket) * NS_PER_US - low;
	return low +
	       (uint64_t)((double)width * (double)rank / (double)tally->buckets[bucket]);
}

uint64_t tally_quantile_ns(const struct tally *tally, unsigned percent)
{
	uint64_t rank =
		tally->count / 100 * percent + (tally->count % 100 * percent + 99) / 100;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		if (tally->buckets[i] && rank <= tally->buckets[i])
			return within(tally, i, rank);
		rank -= tally->buckets[i];
	}
	return 0;
}

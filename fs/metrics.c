/* SPDX-License-Identifier: Apache-2.0 */
#include "metrics.h"

#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* How a plain counter is shown; those of one name follow each other, and then have a
 * label. */
struct description {
	const char *name, *help, *label, *value;
};

#define NOTIFICATIONS "deployfs_notifications_total", "Notifications sent to the kernel."

static const struct description descriptions[METRIC_COUNT] = {
	[METRIC_READ_BYTES] = {"deployfs_fuse_read_bytes_total",
			       "Bytes of the replies to READ."},
	[METRIC_INVAL_ENTRY] = {NOTIFICATIONS, "kind", "inval_entry"},
	[METRIC_INVAL_INODE] = {NOTIFICATIONS, "kind", "inval_inode"},
	[METRIC_EXPIRE_ENTRY] = {NOTIFICATIONS, "kind", "expire_entry"},
	[METRIC_API_OPENED] = {"deployfs_api_connections_opened_total",
			       "Connections of the API so far."},
	[METRIC_API_CLOSED] = {"deployfs_api_connections_closed_total",
			       "Those of them that have ended."},
};

static const char *const requests[REQUEST_KINDS] = {
	"lookup",      "getattr", "readlink", "read",  "readdir",
	"readdirplus", "forget",  "ioctl",    "other",
};

static const char *const schemes[METRICS_SCHEMES] = {
	"ftp", "ftps", "sftp", "http", "https", "nfs", "file",
};

static const char *const job_ends[METRICS_JOB_ENDS] = {"done", "failed", "cancelled"};

const char *apps_request_name(enum apps_request kind)
{
	return requests[kind];
}

/* @count where it is none of them */
static size_t find(const char *const *names, size_t count, const char *name)
{
	size_t i = 0;

	while (i < count && strcmp(names[i], name))
		i++;
	return i;
}

static uint64_t load(const _Atomic uint64_t *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

void metrics_fetched(struct metrics *metrics, const char *scheme, uint64_t bytes)
{
	size_t i = find(schemes, COUNT(schemes), scheme);

	if (i < COUNT(schemes))
		atomic_fetch_add_explicit(&metrics->fetched[i], bytes,
					  memory_order_relaxed);
}

void metrics_job_ended(struct metrics *metrics, const char *kind, const char *how)
{
	const struct job_kind *of = job_kind_find(kind);
	size_t i = find(job_ends, COUNT(job_ends), how);

	if (of && !of->unseen && i < COUNT(job_ends))
		atomic_fetch_add_explicit(&metrics->jobs[of - job_kinds][i], 1,
					  memory_order_relaxed);
}

/* The histograms first: what was answered had been received. */
static void write_requests(const struct metrics *metrics, struct exposition *e)
{
	const char *duration = "deployfs_fuse_request_duration_seconds";
	const char *received = "deployfs_fuse_requests_received_total";
	struct tally tally;

	exposition_family(e, duration, "histogram",
			  "Requests of the kernel, from receipt to reply.");
	for (int kind = 0; kind < REQUEST_KINDS; kind++) {
		histogram_read(&metrics->answered[kind], &tally);
		exposition_histogram(e, duration, &tally, "operation", requests[kind],
				     NULL);
	}
	exposition_family(e, received, "counter",
			  "Requests of the kernel, also those not answered yet.");
	for (int kind = 0; kind < REQUEST_KINDS; kind++)
		exposition_sample(e, received, load(&metrics->received[kind]),
				  "operation", requests[kind], NULL);
}

static void write_histogram(struct exposition *e, const char *name, const char *help,
			    const struct histogram *histogram)
{
	struct tally tally;

	histogram_read(histogram, &tally);
	exposition_family(e, name, "histogram", help);
	exposition_histogram(e, name, &tally, NULL);
}

static void write_counters(const struct metrics *metrics, struct exposition *e)
{
	const char *family = "";

	for (size_t i = 0; i < METRIC_COUNT; i++) {
		const struct description *d = &descriptions[i];

		if (strcmp(d->name, family) != 0)
			exposition_family(e, d->name, "counter", d->help);
		family = d->name;
		exposition_sample(e, d->name, load(&metrics->counters[i]), d->label,
				  d->value, NULL);
	}
}

static void write_jobs(const struct metrics *metrics, struct exposition *e)
{
	const char *ended = "deployfs_jobs_ended_total";
	const char *fetched = "deployfs_fetched_bytes_total";

	exposition_family(e, ended, "counter", "Jobs that have ended.");
	for (size_t i = 0; i < JOB_KINDS; i++)
		for (size_t j = 0; j < COUNT(job_ends) && !job_kinds[i].unseen; j++)
			exposition_sample(e, ended, load(&metrics->jobs[i][j]), "kind",
					  job_kinds[i].name, "result", job_ends[j], NULL);
	exposition_family(e, fetched, "counter", "Bytes of packages that origins sent.");
	for (size_t i = 0; i < COUNT(schemes); i++)
		exposition_sample(e, fetched, load(&metrics->fetched[i]), "scheme",
				  schemes[i], NULL);
}

void metrics_write(const struct metrics *metrics, struct exposition *e)
{
	write_requests(metrics, e);
	write_counters(metrics, e);
	write_histogram(e, "deployfs_flip_duration_seconds",
			"Flips and rollbacks, from the order until no path walk sees the "
			"old target.",
			&metrics->flips);
	write_histogram(e, "deployfs_notification_duration_seconds",
			"Changes of what is shown, from the catalog's commit until the "
			"kernel has dropped what was before.",
			&metrics->notifications);
	write_jobs(metrics, e);
}

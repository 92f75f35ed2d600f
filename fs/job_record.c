/* SPDX-License-Identifier: Apache-2.0 */
/*
 * <runtime>/jobs/ID.json, mode 0600 in a folder of mode 0700:
 *
 *   {"schema":1, "id":7, "kind":"fetch", "app":"shop", "version":"1.4.2", "latest":false,
 *    "channel":null, "sha256":null, "who":"root", "state":"running", "starts":1,
 * "sequence":3, "started_ns":…, "ended_ns":0, "waiters":[{"key":"…", "waits":true}]}
 *
 * and once it has ended also stage, source, bytes, bytes_total, warnings, result, error.
 * Written when the job is asked for, before each start of its process, and at its end;
 * not with its progress. A rename puts it into place. It is not made durable: a job is to
 * survive the daemon, not the machine.
 *
 * Nothing in a record is believed: who can write there is root, but a full disk and an
 * older program are nobody.
 */
#include "jobs_private.h"

#include "cleanup.h"
#include "fd.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define RECORDS_MAX     200
#define RECORD_SIZE_MAX (4 * 1024 * 1024)
#define WAITERS_MAX     1000 /* that are recorded */
#define NAME_SIZE       48

/* Of the sequence, what one life of the daemon may use: a client that knows a number of
 * the life before is answered at once. */
#define SEQUENCE_LIFE (1ULL << 32)

static const char *record_name(uint64_t id, char text[static NAME_SIZE])
{
	snprintf(text, NAME_SIZE, "%llu.json", (unsigned long long)id);
	return text;
}

int records_open(const char *runtime, struct error *err)
{
	cleanup(free_ptr) char *path = NULL;
	cleanup(fd_close) int fd = -1;
	struct stat st;
	int r = dir_make(runtime, 0755);

	if (r < 0)
		return error_set(err, r, "cannot make '%s': %s", runtime, strerror(-r));
	if (asprintf(&path, "%s/jobs", runtime) < 0) {
		path = NULL;
		return error_set(err, -ENOMEM, "not enough memory");
	}
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return error_set(err, -errno, "cannot make '%s': %s", path,
				 strerror(errno));
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(err, -errno, "cannot open '%s': %s", path,
				 strerror(errno));
	if (st.st_uid != geteuid() || (st.st_mode & 0022))
		return error_set(err, -EPERM, "others may write into '%s': remove it",
				 path);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return error_set(err, errno == EWOULDBLOCK ? -EBUSY : -errno,
				 "another deployfsd uses '%s'", path);
	return fd_take(&fd);
}

static json_t *text_or_null(const char *text)
{
	return *text ? json_string(text) : json_null();
}

static json_t *waiters_json(const struct job *job)
{
	json_t *array = json_array();

	for (uint64_t i = 0; i < job->waiter_count && i < WAITERS_MAX; i++)
		json_array_append_new(array, json_pack("{s:o, s:b}", "key",
						       text_or_null(job->waiters[i].key),
						       "waits", job->waiters[i].waits));
	return array;
}

static json_t *record_json(const struct job *job)
{
	json_t *json = json_pack(
		"{s:i, s:I, s:s, s:s, s:o, s:b, s:o, s:o, s:s, s:s, s:i, s:I, s:I, s:I,"
		" s:o}",
		"schema", 1, "id", (json_int_t)job->id, "kind", job->kind->name, "app",
		job->app, "version", text_or_null(job->version), "latest", job->latest,
		"channel", text_or_null(job->channel), "sha256",
		text_or_null(job->sha256), "who", job->who, "state",
		job_state_name(job->state), "starts", (int)job->starts, "sequence",
		(json_int_t)job->sequence, "started_ns", (json_int_t)job->started_ns,
		"ended_ns", (json_int_t)job->ended_ns, "waiters", waiters_json(job));
	cleanup(json_decrefp) json_t *end = NULL;

	if (!json || !job_ended(job))
		return json;
	end = json_pack("{s:s, s:o, s:I, s:I, s:O, s:O?, s:{s:i, s:s}}", "stage",
			job->stage, "source", text_or_null(job->source), "bytes",
			(json_int_t)job->bytes, "bytes_total", (json_int_t)job->total,
			"warnings", job->warnings, "result", job->result, "error", "code",
			job->error.code, "text", job->error.text);
	if (!end || json_object_update(json, end) < 0) {
		json_decref(json);
		return NULL;
	}
	return json;
}

static int write_as(int folder, const char *temporary, const char *name, const char *text)
{
	cleanup(fd_close) int fd =
		openat(folder, temporary,
		       O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r;

	if (fd < 0)
		return -errno;
	r = fd_write_all(fd, text, strlen(text));
	if (r == 0 && renameat(folder, temporary, folder, name) < 0)
		r = -errno;
	if (r < 0)
		unlinkat(folder, temporary, 0);
	return r;
}

void record_write(const struct job *job)
{
	cleanup(json_decrefp) json_t *json = NULL;
	cleanup(free_ptr) char *text = NULL;
	char name[NAME_SIZE], temporary[NAME_SIZE + 8];
	int r = -ENOMEM;

	if (job->jobs->records < 0)
		return;
	record_name(job->id, name);
	snprintf(temporary, sizeof(temporary), ".%s.tmp", name);
	json = record_json(job);
	if (json)
		text = json_dumps(json, JSON_COMPACT | JSON_ENSURE_ASCII);
	if (text)
		r = write_as(job->jobs->records, temporary, name, text);
	if (r < 0)
		log_warning("cannot write the record of job %llu, it will not survive "
			    "deployfsd: %s",
			    (unsigned long long)job->id, strerror(-r));
}

void record_remove(const struct job *job)
{
	char name[NAME_SIZE];

	if (job->jobs->records >= 0)
		unlinkat(job->jobs->records, record_name(job->id, name), 0);
}

const char *job_state_name(enum job_state state)
{
	static const char *const names[] = {"queued", "running", "done", "failed",
					    "cancelled"};

	return names[state];
}

static bool state_parse(const char *name, enum job_state *ret)
{
	for (int state = STATE_QUEUED; state <= STATE_CANCELLED; state++)
		if (!strcmp(name, job_state_name((enum job_state)state))) {
			*ret = (enum job_state)state;
			return true;
		}
	return false;
}

static bool order_valid(const struct job_order *order)
{
	const struct job_kind *kind = job_kind_find(order->kind);
	unsigned char sum[SHA256_SIZE];

	return kind && !kind->unseen && name_valid(order->app) &&
	       (order->version ? name_valid(order->version) : !kind->needs_version) &&
	       (order->channel ? name_valid(order->channel) : !kind->needs_channel) &&
	       (!order->sha256 ||
		sha256_parse(order->sha256, strlen(order->sha256), sum));
}

static int waiters_read(struct job *job, const json_t *waiters)
{
	size_t i, count = json_array_size(waiters);
	json_t *waiter;

	if (!json_is_array(waiters) || count > WAITERS_MAX)
		return -EBADMSG;
	job->waiters = calloc(count + 1, sizeof(*job->waiters));
	if (!job->waiters)
		return -ENOMEM;
	json_array_foreach (waiters, i, waiter) {
		const char *key = json_string_value(json_object_get(waiter, "key"));

		if (key && !request_key_valid(key))
			return -EBADMSG;
		snprintf(job->waiters[i].key, sizeof(job->waiters[i].key), "%s",
			 key ? key : "");
		job->waiters[i].waits = json_is_true(json_object_get(waiter, "waits"));
		job->waiting += job->waiters[i].waits;
	}
	job->waiter_count = count;
	return 0;
}

/* How an ended one ended. */
static int end_read(struct job *job, json_t *json)
{
	const char *stage, *text;
	json_t *source, *warnings, *result;
	json_int_t bytes, total;
	int code;

	if (json_unpack(json, "{s:s, s:o, s:I, s:I, s:o, s:o, s:{s:i, s:s}}", "stage",
			&stage, "source", &source, "bytes", &bytes, "bytes_total", &total,
			"warnings", &warnings, "result", &result, "error", "code", &code,
			"text", &text) < 0 ||
	    !json_is_array(warnings) || bytes < 0 || total < 0 || code > 0)
		return -EBADMSG;
	snprintf(job->stage, sizeof(job->stage), "%s", stage);
	if (json_is_string(source))
		snprintf(job->source, sizeof(job->source), "%s",
			 json_string_value(source));
	job->bytes = (uint64_t)bytes;
	job->total = (uint64_t)total;
	json_array_extend(job->warnings, warnings);
	if (json_is_object(result))
		job->result = json_incref(result);
	if (code < 0)
		error_set(&job->error, code, "%s", text);
	return 0;
}

DEFINE_CLEANUP(struct job, job_free)

static int job_read(struct jobs *jobs, uint64_t id, json_t *json, struct job **ret)
{
	cleanup(job_free_ptr) struct job *job = NULL;
	struct job_order order = {.archive_fd = -1};
	json_t *version, *sha256, *waiters, *channel = NULL;
	json_int_t number, sequence, started, ended;
	int latest, starts, r;
	const char *state;

	if (json_unpack(
		    json,
		    "{s:I, s:s, s:s, s:o, s:b, s?o, s:o, s:s, s:s, s:i, s:I, s:I, s:I, "
		    "s:o}",
		    "id", &number, "kind", &order.kind, "app", &order.app, "version",
		    &version, "latest", &latest, "channel", &channel, "sha256", &sha256,
		    "who", &order.who, "state", &state, "starts", &starts, "sequence",
		    &sequence, "started_ns", &started, "ended_ns", &ended, "waiters",
		    &waiters) < 0)
		return -EBADMSG;
	order.version = json_string_value(version);
	order.channel = json_string_value(channel);
	order.sha256 = json_string_value(sha256);
	if ((uint64_t)number != id || starts < 0 || sequence < 0 || !order_valid(&order))
		return -EBADMSG;
	job = job_new(jobs, &order);
	if (!job)
		return -ENOMEM;
	if (!state_parse(state, &job->state))
		return -EBADMSG;
	job->id = id;
	job->latest = latest;
	job->taken_up = true;
	job->starts = (unsigned)starts;
	job->started_ns = started;
	job->ended_ns = ended;
	job->sequence = (uint64_t)sequence;
	r = waiters_read(job, waiters);
	if (r == 0 && job_ended(job)) {
		job->finished = true;
		r = end_read(job, json);
	} else if (r == 0) {
		job->state = STATE_QUEUED;
		job->sequence += SEQUENCE_LIFE;
	}
	if (r < 0)
		return r;
	*ret = take_ptr(job);
	return 0;
}

static int record_read(struct jobs *jobs, uint64_t id, struct job **ret)
{
	cleanup(json_decrefp) json_t *json = NULL;
	cleanup(free_ptr) char *text = NULL;
	cleanup(fd_close) int fd = -1;
	char name[NAME_SIZE];
	struct stat st;
	size_t size;
	int r;

	fd = openat(jobs->records, record_name(id, name),
		    O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_uid != geteuid())
		return -EBADMSG;
	r = file_read_fd(fd, RECORD_SIZE_MAX, &text, &size);
	if (r < 0)
		return r;
	json = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
	return json ? job_read(jobs, id, json, ret) : -EBADMSG;
}

/* The number in the name of a record; 0: it is none. */
static uint64_t record_id(const char *name)
{
	char again[NAME_SIZE];
	uint64_t id = 0;

	/* No more digits than a keeper's name has room for, and than there will ever be.
	 */
	if (*name >= '1' && *name <= '9' && strspn(name, "0123456789") < 12)
		id = strtoull(name, NULL, 10);
	return id && !strcmp(name, record_name(id, again)) ? id : 0;
}

static void drop(struct jobs *jobs, const char *name, const char *why)
{
	log_warning("'%s' among the records of jobs is removed: %s", name, why);
	if (unlinkat(jobs->records, name, 0) < 0)
		log_warning("cannot remove '%s': %s", name, strerror(errno));
}

static int descending(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? 1 : a > b ? -1 : 0;
}

/* The ids of the newest RECORDS_MAX records, ascending. */
static size_t ids_read(struct jobs *jobs, uint64_t ids[static RECORDS_MAX + 1])
{
	cleanup(dir_close) DIR *dir = NULL;
	int fd = openat(jobs->records, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;
	char name[NAME_SIZE];
	size_t count = 0;

	if (fd >= 0)
		dir = fdopendir(fd);
	if (!dir)
		return 0;
	while ((entry = readdir(dir))) {
		uint64_t id = record_id(entry->d_name);

		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		if (!id) {
			drop(jobs, entry->d_name, "it is none");
			continue;
		}
		ids[count++] = id;
		qsort(ids, count, sizeof(*ids), descending);
		if (count > RECORDS_MAX)
			drop(jobs, record_name(ids[--count], name), "there are too many");
	}
	for (size_t i = 0; i < count / 2; i++) {
		uint64_t id = ids[i];

		ids[i] = ids[count - 1 - i];
		ids[count - 1 - i] = id;
	}
	return count;
}

void records_read(struct jobs *jobs)
{
	uint64_t ids[RECORDS_MAX + 1];
	size_t count = ids_read(jobs, ids);
	char name[NAME_SIZE];

	for (size_t i = 0; i < count; i++) {
		struct job *job = NULL;
		int r = record_read(jobs, ids[i], &job);

		jobs->next_id = ids[i] + 1;
		if (r < 0) {
			drop(jobs, record_name(ids[i], name), strerror(-r));
			continue;
		}
		job->next = jobs->list;
		jobs->list = job;
	}
}

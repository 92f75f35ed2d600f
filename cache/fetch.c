/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetch.c - mirrors, tries, and the sum that decides
 *
 * What must stay true: the bytes of the file that is handed on are those that were hashed
 * (what was appended is read again to be hashed, under a lock); a mirror is blamed for
 * wrong bytes only when all of them came from it in one stream, or came a second time; a
 * failure of this machine (disk, memory, credentials file) ends the fetch, and is never
 * put down to a server; a package without a sum is never continued from bytes of an
 * earlier run or of another mirror, since nothing would show that they do not fit.
 */
#include "fetch.h"

#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "name.h"
#include "origin.h"
#include "partial.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define SUMS_NAME      "SHA256SUMS"
#define SUMS_SIZE_MAX  (8 * 1024 * 1024)
#define TRIES_MAX      4  /* without progress, at one mirror */
#define TRIES_ALL_MAX  20 /* at all of them */
#define BACKOFF_MS     500
#define BACKOFF_MAX_MS 8000
#define PROGRESS_MS    100
#define NEWEST_SHOWN   5

struct fetch {
	const struct fetch_request *request;
	const struct fetch_watch *watch;
	struct error *err;
	size_t mirrors; /* count of request->origins */

	const char *url;   /* the mirror in use */
	const char *heard; /* the one that SHA256SUMS came from */
	bool answered;     /* the one in use has said something in this run */
	struct error *why; /* what it failed with */
	unsigned tries_all;
	uint64_t total;       /* the file's size, as the mirror tells; 0: unknown */
	uint64_t stream_from; /* offset at which the last stream began */
	bool room_checked;    /* for that stream */
	bool local;           /* this machine failed, and @err says how */
	uint64_t progress_ms; /* when it was told last */

	bool listing; /* SHA256SUMS is read, into @list; else a package, into @partial */
	char *list;
	size_t list_size;
	struct partial partial;

	char *complaints; /* each mirror's reason, joined */
	int worst;        /* the code to end with */
	bool absent;      /* a mirror said that it has no such file */
};

static void fetch_clear(struct fetch *f)
{
	partial_close(&f->partial);
	free(f->list);
	free(f->complaints);
}

static int fetch_begin(struct fetch *f, const struct fetch_request *request,
		       const struct fetch_watch *watch, struct error *err)
{
	*f = (struct fetch){
		.request = request,
		.watch = watch,
		.err = err,
		.partial = PARTIAL_NONE,
	};
	while (request->origins && request->origins[f->mirrors])
		f->mirrors++;
	if (!f->mirrors)
		return error_set(err, -EINVAL,
				 "no origin is configured for '%s': set 'origin' in "
				 "deployfs.yaml, or import a file",
				 request->app);
	if (!name_valid(request->app) ||
	    (request->version && !name_valid(request->version)))
		return error_set(err, -EINVAL, "'%s' '%s' is not a name and a version",
				 request->app, request->version ? request->version : "");
	f->url = request->origins[0];
	return 0;
}

static void tell_origin(const struct fetch *f, const struct error *err)
{
	if (f->watch && f->watch->origin)
		f->watch->origin(f->watch->context, f->url, err);
}

static void tell_warning(const struct fetch *f, const struct error *why)
{
	if (f->watch && f->watch->warning)
		f->watch->warning(f->watch->context, why->text);
}

static void tell_progress(struct fetch *f, uint64_t bytes, bool at_once)
{
	uint64_t now = clock_monotonic_ms();

	if (!f->watch || !f->watch->progress)
		return;
	if (!at_once && now < f->progress_ms + PROGRESS_MS)
		return;
	f->progress_ms = now;
	f->watch->progress(f->watch->context, f->listing ? "checksums" : "download",
			   bytes, f->total, f->url);
}

/* Keep a mirror's reason for the text when all have failed. */
static int complain(struct fetch *f, const struct error *why)
{
	char *longer;

	if (asprintf(&longer, "%s%s%s", f->complaints ? f->complaints : "",
		     f->complaints ? "; " : "", why->text) < 0)
		return error_set(f->err, -ENOMEM, "out of memory");
	free(f->complaints);
	f->complaints = longer;
	if (f->worst != -EBADMSG)
		f->worst = why->code;
	return 0;
}

static int list_take(struct fetch *f, const void *data, size_t size)
{
	char *larger = realloc(f->list, f->list_size + size + 1);

	if (!larger) {
		f->local = true;
		return error_set(f->err, -ENOMEM, "out of memory");
	}
	f->list = larger;
	memcpy(f->list + f->list_size, data, size);
	f->list_size += size;
	f->list[f->list_size] = '\0';
	return 0;
}

/* A size that the mirror made up must not stop the others: no room for it is the
 * mirror's failure. Without one, or while writing, it is ours. */
static int package_take(struct fetch *f, const void *data, size_t size)
{
	int r;

	if (!f->room_checked) {
		r = partial_room(&f->partial, f->total, f->total ? f->why : f->err);
		if (r < 0) {
			f->local = !f->total;
			return r;
		}
		f->room_checked = true;
	}
	r = partial_append(&f->partial, data, size, f->err);
	if (r < 0) {
		f->local = true;
		return r;
	}
	tell_progress(f, f->partial.size, false);
	return 0;
}

static int on_bytes(void *context, const void *data, size_t size)
{
	struct fetch *f = context;

	return f->listing ? list_take(f, data, size) : package_take(f, data, size);
}

static void on_hashed(void *context, uint64_t bytes)
{
	tell_progress(context, bytes, false);
}

static bool is_transient(int code)
{
	return code == -ETIMEDOUT || code == -ECONNRESET || code == -EHOSTUNREACH ||
	       code == -EPROTO || code == -ESPIPE;
}

/* Whether the origin counts as online with such a result. */
static bool is_answer(int code)
{
	return code == 0 || code == -ENOENT || code == -EFBIG || code == -ENOSPC;
}

/* A mirror that was not reached at all is not waited for: the next one may be. */
static bool worth_another(const struct fetch *f, int code, unsigned tries)
{
	if (!is_transient(code) || tries >= TRIES_MAX || f->tries_all >= TRIES_ALL_MAX)
		return false;
	return f->answered || (code != -EHOSTUNREACH && code != -ETIMEDOUT);
}

/* 0.5 s, 1 s, 2 s, ... 8 s, less a random part of up to a half: hosts that were cut off
 * together do not come back together. */
static void back_off(unsigned tries)
{
	uint64_t ms = (uint64_t)BACKOFF_MS << (tries - 1);
	struct timespec wait;
	uint32_t random;

	if (ms > BACKOFF_MAX_MS)
		ms = BACKOFF_MAX_MS;
	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != sizeof(random))
		random = (uint32_t)clock_wall_ns();
	ms -= random % (ms / 2);
	wait.tv_sec = (time_t)(ms / 1000);
	wait.tv_nsec = (long)(ms % 1000) * 1000000;
	while (nanosleep(&wait, &wait) < 0 && errno == EINTR)
		;
}

/* One request. The list is never continued: it is short, and may be another one now. */
static int mirror_try(struct fetch *f, const char *path,
		      const struct origin_options *options)
{
	uint64_t size_max = f->listing ? SUMS_SIZE_MAX : f->request->size_max;

	f->list_size = 0;
	f->stream_from = f->listing ? 0 : f->partial.size;
	f->room_checked = false;
	f->total = 0;
	f->tries_all++;
	return origin_read(f->url, path, f->stream_from, size_max, options, &f->total,
			   on_bytes, f, f->why);
}

/* The list is read from its start each time: what came of it is none. */
static bool has_progress(const struct fetch *f)
{
	return !f->listing && f->partial.size > f->stream_from;
}

static int mirror_retry(struct fetch *f, const char *path,
			const struct origin_options *options)
{
	unsigned tries = 0;

	for (;;) {
		int r = mirror_try(f, path, options), e;

		if (r == 0 || f->local)
			return r;
		if (f->total || has_progress(f))
			f->answered = true;
		if (r != -ESPIPE && has_progress(f))
			tries = 0;
		if (!worth_another(f, r, ++tries))
			return r;
		if (r == -ESPIPE && !f->listing) {
			e = partial_reset(&f->partial, f->err);
			f->local = e < 0;
			if (e < 0)
				return e;
		}
		if (r != -ESPIPE || f->stream_from == 0)
			back_off(tries);
	}
}

/* Ask the mirror in use for @path, until it has it or has failed for good. */
static int mirror_ask(struct fetch *f, const char *path, struct error *why)
{
	const struct fetch_request *request = f->request;
	struct credential credential = {0};
	struct origin_options options = {
		.known_hosts = request->known_hosts,
		.ca_file = request->ca_file,
		.credential = &credential,
		.connect_timeout_ms = request->connect_timeout_ms,
		.stall_timeout_ms = request->stall_timeout_ms,
	};
	int r;

	if (request->credentials) {
		r = credential_find(request->credentials, f->url, &credential, f->err);
		if (r < 0) {
			f->local = true;
			return r;
		}
	}
	f->why = why;
	f->total = 0;
	f->answered = f->heard && !strcmp(f->heard, f->url);
	tell_progress(f, f->listing ? 0 : f->partial.size, true);
	r = mirror_retry(f, path, &options);
	credential_done(&credential);
	if (r == -ENOMEM && !f->local) {
		f->local = true;
		return error_set(f->err, r, "%s", why->text);
	}
	if (!f->local)
		tell_origin(f, is_answer(r) ? NULL : why);
	return r;
}

/* What the mirror in use gave as SHA256SUMS. A list that cannot be read is its failure.
 */
static int list_parse(const struct fetch *f, struct sums *ret, struct error *why)
{
	struct error problem;
	int r;

	if (f->list_size > 0 && memchr(f->list, '\0', f->list_size))
		r = error_set(&problem, -EBADMSG, "it is not a text");
	else
		r = sums_parse(f->list_size ? f->list : "", f->request->app, ret,
			       &problem);
	if (r == 0)
		return 0;
	return error_set(why, r, "'%s/%s/" SUMS_NAME "': %s", f->url, f->request->app,
			 problem.text);
}

/* Why no mirror gave a list; -ENOENT only when all of them said that they have none. */
static int list_missing(const struct fetch *f)
{
	const char *app = f->request->app;

	if (f->complaints)
		return error_set(f->err, f->worst, "%s", f->complaints);
	return error_set(
		f->err, -ENOENT,
		"%s has no '%s/" SUMS_NAME "': is the name right? Whoever "
		"publishes it makes the list with 'cd %s && sha256sum *.tar.* > " SUMS_NAME
		"'",
		f->mirrors == 1 ? f->url : "none of the origins", app, app);
}

/* SHA256SUMS of the first mirror that has one; f->url is that mirror then. */
static int list_read(struct fetch *f, struct sums *ret)
{
	cleanup(free_ptr) char *path = NULL;

	if (asprintf(&path, "%s/" SUMS_NAME, f->request->app) < 0) {
		path = NULL;
		return error_set(f->err, -ENOMEM, "out of memory");
	}
	f->listing = true;
	for (size_t i = 0; i < f->mirrors; i++) {
		struct error why;
		int r;

		f->url = f->request->origins[i];
		r = mirror_ask(f, path, &why);
		if (f->local)
			return r;
		if (r == 0)
			r = list_parse(f, ret, &why);
		if (r == 0)
			return 0;
		if (r == -EBADMSG)
			tell_warning(f, &why);
		if (r == -ENOENT)
			f->absent = true;
		else if (complain(f, &why) < 0)
			return -ENOMEM;
	}
	return list_missing(f);
}

static bool is_skipped(const char *version, char *const *skip)
{
	for (; skip && *skip; skip++)
		if (!strcmp(version, *skip))
			return true;
	return false;
}

const struct sums_entry *fetch_choose(const struct sums *sums, char *const *skip)
{
	for (size_t i = 0; i < sums->count; i++) {
		const char *version = sums->entries[i].version;

		if (!version_is_prerelease(version) && !is_skipped(version, skip))
			return &sums->entries[i];
	}
	return NULL;
}

int fetch_sums(const struct fetch_request *request, const struct fetch_watch *watch,
	       struct sums *ret, const char **ret_origin, struct error *err)
{
	cleanup(fetch_clear) struct fetch f = {.partial = PARTIAL_NONE};
	int r = fetch_begin(&f, request, watch, err);

	if (r < 0)
		return r;
	r = list_read(&f, ret);
	if (r == 0 && ret_origin)
		*ret_origin = f.url;
	return r;
}

static int version_missing(const struct fetch *f, const struct sums *sums)
{
	const char *app = f->request->app;
	char newest[512] = "";
	size_t size = 0;

	if (!sums->count)
		return error_set(f->err, -ENOENT,
				 "'%s/%s/" SUMS_NAME "' lists no package of '%s'", f->url,
				 app, app);
	if (!f->request->version)
		return error_set(f->err, -ENOENT,
				 "every version of '%s' at '%s' is a pre-release or "
				 "marked bad: name one",
				 app, f->url);
	for (size_t i = 0; i < sums->count && i < NEWEST_SHOWN; i++) {
		int n = snprintf(newest + size, sizeof(newest) - size, "%s%s",
				 i ? ", " : "", sums->entries[i].version);

		if (n < 0 || (size_t)n >= sizeof(newest) - size)
			break;
		size += (size_t)n;
	}
	return error_set(f->err, -ENOENT, "'%s' has no version '%s' at '%s'; newest: %s",
			 app, f->request->version, f->url, newest);
}

/* Hand the verified file on. */
static int finish(struct fetch *f, const char *version, const char *file, bool listed,
		  struct fetch_result *ret)
{
	struct fetch_result result = {
		.version = strdup(version),
		.file = strdup(file),
		.origin = strdup(f->url),
		.partial_path = strdup(f->partial.path),
		.fd = -1,
		.size = f->partial.size,
		.resumed = f->partial.resumed,
		.listed = listed,
	};
	int r = partial_sum(&f->partial, result.sha256, f->err);

	if (r == 0 &&
	    (!result.version || !result.file || !result.origin || !result.partial_path))
		r = error_set(f->err, -ENOMEM, "out of memory");
	if (r < 0) {
		fetch_result_done(&result);
		return r;
	}
	if (lseek(f->partial.fd, 0, SEEK_SET) < 0) {
		r = -errno;
		fetch_result_done(&result);
		return error_set(f->err, r, "cannot read '%s': %s", f->partial.path,
				 strerror(-r));
	}
	f->total = f->partial.size;
	tell_progress(f, f->partial.size, true);
	result.fd = fd_take(&f->partial.fd);
	*ret = result;
	return 0;
}

/* No mirror gave it. What is there stays where it can be continued. */
static int give_up(struct fetch *f, const char *file, bool keep)
{
	if (!keep || f->partial.size == 0)
		partial_unlink(&f->partial);
	if (f->worst == -ENOENT)
		return error_set(f->err, -ENOENT,
				 "'%s' is listed, but not there (not complete yet?): %s",
				 file, f->complaints);
	return error_set(f->err, f->worst, "%s", f->complaints);
}

static int partial_matches(const struct fetch *f, const struct sums_entry *entry,
			   bool *ret)
{
	unsigned char sum[SHA256_SIZE];
	int r = partial_sum(&f->partial, sum, f->err);

	if (r == 0)
		*ret = !memcmp(sum, entry->sha256, sizeof(sum));
	return r;
}

/* The listed file from the mirror in use. Bytes that were continued may be of another
 * file than the rest: they are dropped once before the mirror is blamed. */
static int mirror_listed(struct fetch *f, const char *path,
			 const struct sums_entry *entry, struct error *why)
{
	for (bool again = false;; again = true) {
		bool matches = false;
		int r = mirror_ask(f, path, why);

		if (r < 0)
			return r;
		r = partial_matches(f, entry, &matches);
		if (r == 0 && matches)
			return 0;
		if (r == 0)
			r = partial_reset(&f->partial, f->err);
		if (r < 0) {
			f->local = true;
			return r;
		}
		if (again || f->stream_from == 0)
			break;
	}
	error_set(why, -EBADMSG,
		  "'%s/%s' does not match its SHA-256 in " SUMS_NAME " of '%s'", f->url,
		  path, f->heard);
	tell_warning(f, why);
	return -EBADMSG;
}

static size_t mirror_index(const struct fetch *f, const char *url)
{
	size_t i = 0;

	while (f->request->origins[i] != url)
		i++;
	return i;
}

/* The mirror that had the list comes first: those before it did not answer just now. */
static int package_listed(struct fetch *f, const struct sums_entry *entry,
			  struct fetch_result *ret)
{
	cleanup(free_ptr) char *path = NULL;
	size_t first = mirror_index(f, f->heard);
	bool matches = false;
	int r;

	if (asprintf(&path, "%s/%s", f->request->app, entry->file) < 0) {
		path = NULL;
		return error_set(f->err, -ENOMEM, "out of memory");
	}
	r = partial_open(f->request->partial_dir, entry->file, f->request->reserve_bytes,
			 on_hashed, f, &f->partial, f->err);
	if (r < 0)
		return r;
	r = partial_matches(f, entry, &matches);
	if (r == 0 && matches)
		return finish(f, entry->version, entry->file, true, ret);
	for (size_t i = 0; r == 0 && i < f->mirrors; i++) {
		struct error why;

		f->url = f->request->origins[(first + i) % f->mirrors];
		r = mirror_listed(f, path, entry, &why);
		if (r == 0)
			return finish(f, entry->version, entry->file, true, ret);
		if (!f->local)
			r = complain(f, &why);
	}
	return r < 0 ? r : give_up(f, entry->file, true);
}

/* One name at the mirror in use. On failure nothing of it stays. */
static int mirror_unlisted(struct fetch *f, const char *file, struct error *why)
{
	cleanup(free_ptr) char *path = NULL;
	int r = partial_open(f->request->partial_dir, file, f->request->reserve_bytes,
			     NULL, NULL, &f->partial, f->err);

	if (r == 0)
		r = partial_reset(&f->partial, f->err);
	if (r == 0 && asprintf(&path, "%s/%s", f->request->app, file) < 0) {
		path = NULL;
		r = error_set(f->err, -ENOMEM, "out of memory");
	}
	f->local = r < 0;
	if (r == 0)
		r = mirror_ask(f, path, why);
	if (r < 0 && f->partial.fd >= 0)
		partial_unlink(&f->partial);
	if (r < 0)
		partial_close(&f->partial);
	return r;
}

/* The endings in their order at the mirror in use; -ENOENT when it has none of them. */
static int mirror_endings(struct fetch *f, struct fetch_result *ret, struct error *why)
{
	const char *version = f->request->version;

	for (size_t i = 0; package_endings[i]; i++) {
		cleanup(free_ptr) char *file = NULL;
		int r;

		if (asprintf(&file, "%s-%s%s", f->request->app, version,
			     package_endings[i]) < 0) {
			file = NULL;
			f->local = true;
			return error_set(f->err, -ENOMEM, "out of memory");
		}
		r = mirror_unlisted(f, file, why);
		if (r == 0) {
			r = finish(f, version, file, false, ret);
			f->local = r < 0;
			return r;
		}
		if (r != -ENOENT)
			return r;
	}
	return -ENOENT;
}

static int package_unlisted(struct fetch *f, struct fetch_result *ret)
{
	for (size_t i = 0; i < f->mirrors; i++) {
		struct error why;
		int r;

		f->url = f->request->origins[i];
		r = mirror_endings(f, ret, &why);
		if (r == 0 || f->local)
			return r;
		if (r != -ENOENT && complain(f, &why) < 0)
			return -ENOMEM;
	}
	if (f->complaints)
		return error_set(f->err, f->worst, "%s", f->complaints);
	return error_set(f->err, -ENOENT,
			 "no origin lists version '%s' of '%s' or has a '%s/%s-%s%s' (or "
			 "with another ending)",
			 f->request->version, f->request->app, f->request->app,
			 f->request->app, f->request->version, package_endings[0]);
}

/* What was said of SHA256SUMS does not belong to the package. */
static void forget_complaints(struct fetch *f)
{
	free(f->complaints);
	f->complaints = NULL;
	f->worst = 0;
	f->listing = false;
}

int fetch_package(const struct fetch_request *request, const struct fetch_watch *watch,
		  struct fetch_result *ret, struct error *err)
{
	cleanup(fetch_clear) struct fetch f = {.partial = PARTIAL_NONE};
	cleanup(sums_done) struct sums sums = {0};
	const struct sums_entry *entry;
	bool unlisted = !request->verify && request->version;
	int r = fetch_begin(&f, request, watch, err);

	if (r < 0)
		return r;
	r = list_read(&f, &sums);
	if (r < 0 && (f.local || !unlisted || !f.absent))
		return r;
	forget_complaints(&f);
	if (r < 0)
		return package_unlisted(&f, ret);
	f.heard = f.url;
	entry = request->version ? sums_find(&sums, request->version)
				 : fetch_choose(&sums, request->skip);
	if (entry)
		return package_listed(&f, entry, ret);
	return unlisted ? package_unlisted(&f, ret) : version_missing(&f, &sums);
}

void fetch_result_done(struct fetch_result *result)
{
	free(result->version);
	free(result->file);
	free(result->origin);
	free(result->partial_path);
	fd_close(&result->fd);
	*result = (struct fetch_result){.fd = -1};
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetch.h - a package from an origin or its mirrors into a verified file
 *
 * Runs in the job process only. The file that is handed on is the one that was hashed, by
 * its descriptor (I6).
 */
#pragma once

#include "config.h"
#include "digest.h"
#include "error.h"
#include "sums.h"

#include <stdbool.h>
#include <stdint.h>

/** How a fetch tells what it does. Called often; it must be quick. */
struct fetch_watch {
	/* @stage: "checksums", "download"; @total: 0 where unknown; @source: the mirror's
	 * URL */
	void (*progress)(void *context, const char *stage, uint64_t bytes, uint64_t total,
			 const char *source);
	/* an origin answered (@err NULL) or did not */
	void (*origin)(void *context, const char *url, const struct error *err);
	void (*warning)(void *context, const char *text);
	void *context;
};

struct fetch_request {
	const char *app;
	const char
		*version;  /* NULL: the newest that is neither pre-release nor in @skip */
	char *const *skip; /* versions marked bad, NULL-terminated; for @version NULL */
	char *const *origins; /* URLs in order, NULL-terminated */
	bool verify;          /* false: a package that no SHA256SUMS lists is accepted */
	const char *partial_dir; /* partial downloads: <partial_dir>/<file name> */
	uint64_t reserve_bytes;  /* to be left free on the disk of partial_dir */
	uint64_t size_max;       /* bytes a package may have */
	const char *credentials; /* the credentials file */
	const char *known_hosts;
	const char *ca_file;
	uint64_t connect_timeout_ms;
	uint64_t stall_timeout_ms;
};

struct fetch_result {
	char *version;
	char *file;         /* "shop-1.4.2.tar.zst" */
	char *origin;       /* URL it came from */
	char *partial_path; /* to be unlinked after the import */
	int fd;             /* the verified file, open for reading at offset 0 */
	uint64_t size;      /* bytes */
	uint64_t resumed;   /* bytes that were there from an earlier try */
	unsigned char sha256[SHA256_SIZE];
	bool listed; /* whether SHA256SUMS named it */
};

/**
 * fetch_sums() - an application's SHA256SUMS from the first origin that has it
 * Return: 0; the errors of fetch_package().
 */
int fetch_sums(const struct fetch_request *request, const struct fetch_watch *watch,
	       struct sums *ret, const char **ret_origin, struct error *err);

/**
 * fetch_choose() - the version that a fetch without one means
 * @sums: newest first
 * @skip: versions marked bad, NULL-terminated; may be NULL
 * Return: the newest entry that is neither a pre-release nor in @skip, or NULL.
 */
const struct sums_entry *fetch_choose(const struct sums *sums, char *const *skip);

/**
 * fetch_package() - download, resume, verify
 *
 * Reads SHA256SUMS from the first mirror that has it (the other mirrors' lists are not
 * asked), checks space, then reads the package: that mirror first, then the others in
 * their order. A mirror is retried with jittered back-off on transient failures, resumed
 * at the offset: 4 tries, counted afresh after progress, at most 20 in all; one that
 * could not be reached at all is not retried, as the next one may be up. The partial file
 * is locked with flock(2), so that two processes never write it; what is there is hashed
 * first. Bytes that do not match are dropped: once for the same mirror where it had
 * continued what was there; then it is named in a warning, and the next one is asked from
 * offset 0.
 *
 * With @verify false, where the mirrors that answer say that they have no list, or the
 * list does not have the version, the names <app>-<version><ending> are tried, from
 * offset 0.
 *
 * On failure the partial file stays when it may be resumed, and is unlinked when it is
 * empty, its content was proved wrong, or nothing could prove it right. The result is
 * cleared with fetch_result_done(); its descriptor holds the lock.
 *
 * Return: 0; -ENOENT: no origin lists the version (says which are newest), or has the
 * file; -EBADMSG: a mirror's bytes do not match and no other one's do, or the list is
 * malformed; -ENOSPC: the reserve would be touched (says how much is missing); -EFBIG;
 * -EACCES: refused to these credentials; -EPERM: a server could not be authenticated, or
 * the credentials file is open to others; -EHOSTUNREACH, -ETIMEDOUT, -ECONNRESET,
 * -EPROTO: the last mirror's failure, when all failed; @err names every mirror with its
 * reason; -EINVAL: no origin is configured, or a name or the credentials file is
 * malformed; -ENOMEM; the negative errno of the disk.
 */
int fetch_package(const struct fetch_request *request, const struct fetch_watch *watch,
		  struct fetch_result *ret, struct error *err);

/** fetch_result_done() - close and free what is in @result; the partial file stays */
void fetch_result_done(struct fetch_result *result);

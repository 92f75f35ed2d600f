/* SPDX-License-Identifier: Apache-2.0 */
/*
 * origin.h - where packages come from: one file of one server, read as a stream
 *
 * An origin's URL names the folder that holds <app>/SHA256SUMS and
 * <app>/<app>-<version>.tar.*. Directory listings are never read. Runs in the job process
 * only: everything here blocks, bounded by the timeouts.
 */
#pragma once

#include "config.h"
#include "error.h"

#include <stdbool.h>
#include <stdint.h>

/** What every request needs; borrowed pointers that outlive the request. */
struct origin_options {
	const char *known_hosts;             /* NULL: no SFTP server is known */
	const char *ca_file;                 /* NULL: the system's */
	const struct credential *credential; /* may be NULL, as may be its members */
	uint64_t connect_timeout_ms;         /* until the server's first answer */
	uint64_t stall_timeout_ms; /* without a byte, or below the slowest pace */
};

/**
 * origin_sink_fn() - takes bytes in order
 * Return: 0 to go on, a negative errno to end the transfer with it.
 */
typedef int origin_sink_fn(void *context, const void *data, size_t size);

/**
 * origin_read() - stream a file from an offset on
 * @url:       the origin, as configured
 * @path:      below it, "shop/shop-1.0.tar.zst"; made of checked names, never escaped by
 *             the caller
 * @offset:    bytes to leave out
 * @size_max:  bytes of the whole file at most; more ends the transfer with -EFBIG
 * @ret_size:  the whole file's size as soon as the server tells it, before the first byte
 *             is sunk; else untouched; may be NULL
 * @sink, @context: called with the bytes from @offset on
 *
 * Blocks; one request, never retried. Ignores SIGPIPE for the whole process from the
 * first call on. Not thread-safe.
 *
 * Return: 0 when the server said that the file is complete;
 * -ENOENT: there is no such file; -EACCES: refused to these credentials; -ESPIPE: cannot
 * resume at @offset (drop what was sunk and start again at 0: an FTP server that ignores
 * REST shows it only at the end); -EFBIG; -ETIMEDOUT: no connection or no byte in
 * time; -ECONNRESET: broken in the middle, changed while it was read, or fewer bytes than
 * the server announced; -EHOSTUNREACH: cannot connect or resolve, or the origin's folder
 * is not there; -EPERM: the server could not be authenticated (TLS, host key), never to
 * be retried; -EPROTO: anything else the server said; -EINVAL: not a URL we know (see
 * url.h); -ENOMEM. What @sink returned, if it was that; @err is untouched then. Otherwise
 * @err says what was read from where, without secrets. Transient (worth a retry):
 * -ETIMEDOUT -ECONNRESET -EHOSTUNREACH -EPROTO -ESPIPE.
 */
int origin_read(const char *url, const char *path, uint64_t offset, uint64_t size_max,
		const struct origin_options *options, uint64_t *ret_size,
		origin_sink_fn *sink, void *context, struct error *err);

/* The protocols, one file each; the same contract as origin_read(). */
int origin_curl_read(const char *url, const char *path, uint64_t offset,
		     uint64_t size_max, const struct origin_options *options,
		     uint64_t *ret_size, origin_sink_fn *sink, void *context,
		     struct error *err);
int origin_nfs_read(const char *url, const char *path, uint64_t offset, uint64_t size_max,
		    const struct origin_options *options, uint64_t *ret_size,
		    origin_sink_fn *sink, void *context, struct error *err);
int origin_file_read(const char *url, const char *path, uint64_t offset,
		     uint64_t size_max, const struct origin_options *options,
		     uint64_t *ret_size, origin_sink_fn *sink, void *context,
		     struct error *err);

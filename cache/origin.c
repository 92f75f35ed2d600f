/* SPDX-License-Identifier: Apache-2.0 */
#include "origin.h"

#include "cleanup.h"
#include "origin_private.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Long enough for a known_hosts line with an RSA key of 4096 bits. */
#define REASON_MAX 1024

typedef int origin_read_fn(const char *url, const char *path, uint64_t offset,
			   uint64_t size_max, const struct origin_options *options,
			   uint64_t *ret_size, origin_sink_fn *sink, void *context,
			   struct error *err);

/* URLs are shown without the slashes at their end. */
static int url_length(const char *url)
{
	size_t size = strlen(url);

	while (size > 1 && url[size - 1] == '/')
		size--;
	return (int)size;
}

int origin_error(struct error *err, int code, const char *url, const char *path,
		 const char *format, ...)
{
	char reason[REASON_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(reason, sizeof(reason), format, args);
	va_end(args);
	return error_set(err, code, "cannot read '%.*s/%s': %s", url_length(url), url,
			 path, reason);
}

static origin_read_fn *reader_of(const char *scheme)
{
	if (!strcmp(scheme, "file"))
		return origin_file_read;
	return strcmp(scheme, "nfs") ? origin_curl_read : origin_nfs_read;
}

int origin_parse(const char *url, struct url *ret, struct error *err)
{
	struct error why;
	int r = url_parse(url, ret, &why);

	return r < 0 ? error_set(err, r, "an origin cannot be used: %s", why.text) : 0;
}

static int hex_value(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *at =
		c ? strchr(digits, c >= 'A' && c <= 'F' ? c - 'A' + 'a' : c) : NULL;

	return at ? (int)(at - digits) : -1;
}

char *origin_folder(const char *path)
{
	cleanup(free_ptr) char *folder = strdup(*path ? path : "/");
	char *to = folder;

	if (!folder)
		return NULL;
	for (const char *from = folder; *from; from++) {
		int high = *from == '%' ? hex_value(from[1]) : -1;
		int low = high >= 0 ? hex_value(from[2]) : -1;

		if (low < 0) {
			*to++ = *from;
			continue;
		}
		if (high == 0 && low == 0)
			return NULL;
		*to++ = (char)(high << 4 | low);
		from += 2;
	}
	while (to > folder + 1 && to[-1] == '/')
		to--;
	*to = '\0';
	return take_ptr(folder);
}

int origin_read(const char *url, const char *path, uint64_t offset, uint64_t size_max,
		const struct origin_options *options, uint64_t *ret_size,
		origin_sink_fn *sink, void *context, struct error *err)
{
	origin_read_fn *read = origin_file_read;
	struct url parsed;
	int r;

	/* libnfs and the TLS libraries write to sockets without MSG_NOSIGNAL. */
	signal(SIGPIPE, SIG_IGN);
	if (url[0] != '/') {
		r = origin_parse(url, &parsed, err);
		if (r < 0)
			return r;
		read = reader_of(parsed.scheme);
	}
	return read(url, path, offset, size_max, options, ret_size, sink, context, err);
}

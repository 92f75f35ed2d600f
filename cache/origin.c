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

static const struct scheme {
	const char *name;
	origin_read_fn *read;
} schemes[] = {
	{"ftp", origin_curl_read},  {"ftps", origin_curl_read},
	{"sftp", origin_curl_read}, {"http", origin_curl_read},
	{"https", origin_curl_read}, {"nfs", origin_nfs_read},
	{"file", origin_file_read},
};

#define SCHEME_COUNT (sizeof(schemes) / sizeof(schemes[0]))

DEFINE_CLEANUP(CURLU, curl_url_cleanup)

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

static const struct scheme *scheme_find(const char *name)
{
	for (size_t i = 0; i < SCHEME_COUNT; i++)
		if (!strcmp(schemes[i].name, name))
			return &schemes[i];
	return NULL;
}

char *origin_url_part(CURLU *parsed, CURLUPart part)
{
	char *text = NULL, *copy;

	if (curl_url_get(parsed, part, &text, CURLU_URLDECODE) != CURLUE_OK)
		return NULL;
	copy = strdup(text);
	curl_free(text);
	return copy;
}

static bool url_has(CURLU *parsed, CURLUPart part)
{
	cleanup(free_ptr) char *text = origin_url_part(parsed, part);

	return text && *text;
}

static int url_refuse(CURLUcode code, const char *url, struct error *err)
{
	if (code == CURLUE_OUT_OF_MEMORY)
		return error_set(err, -ENOMEM, "out of memory");
	if (code == CURLUE_USER_NOT_ALLOWED)
		return error_set(err, -EINVAL,
				 "an origin's URL has a user or password in it: "
				 "they belong into the credentials file");
	if (strchr(url, '@')) /* perhaps a password in a URL that is malformed besides */
		return error_set(err, -EINVAL, "an origin's URL is malformed: %s",
				 curl_url_strerror(code));
	return error_set(err, -EINVAL, "'%s' is not a URL of an origin: %s", url,
			 curl_url_strerror(code));
}

int origin_url_parse(const char *url, CURLU **ret, struct error *err)
{
	cleanup(curl_url_cleanup_ptr) CURLU *parsed = curl_url();
	cleanup(free_ptr) char *name = NULL;
	CURLUcode code;

	if (!parsed)
		return error_set(err, -ENOMEM, "out of memory");
	code = curl_url_set(parsed, CURLUPART_URL, url,
			    CURLU_NON_SUPPORT_SCHEME | CURLU_DISALLOW_USER);
	if (code != CURLUE_OK)
		return url_refuse(code, url, err);
	name = origin_url_part(parsed, CURLUPART_SCHEME);
	if (!name || !scheme_find(name))
		return error_set(err, -EINVAL,
				 "'%s' is not a URL of an origin: it must begin with "
				 "ftp:// ftps:// sftp:// http:// https:// nfs:// file:// "
				 "or be an absolute path",
				 url);
	if (strcmp(name, "file") && !url_has(parsed, CURLUPART_HOST))
		return error_set(err, -EINVAL, "the origin '%s' names no host", url);
	if (url_has(parsed, CURLUPART_QUERY) || url_has(parsed, CURLUPART_FRAGMENT))
		return error_set(err, -EINVAL,
				 "the origin '%s' has a query or fragment: it must name "
				 "a folder",
				 url);
	*ret = take_ptr(parsed);
	return 0;
}

int origin_url_check(const char *url, struct error *err)
{
	cleanup(curl_url_cleanup_ptr) CURLU *parsed = NULL;

	if (url[0] == '/')
		return 0;
	return origin_url_parse(url, &parsed, err);
}

int origin_read(const char *url, const char *path, uint64_t offset, uint64_t size_max,
		const struct origin_options *options, uint64_t *ret_size,
		origin_sink_fn *sink, void *context, struct error *err)
{
	cleanup(curl_url_cleanup_ptr) CURLU *parsed = NULL;
	cleanup(free_ptr) char *name = NULL;
	origin_read_fn *read = origin_file_read;
	int r;

	/* libnfs and the TLS libraries write to sockets without MSG_NOSIGNAL. */
	signal(SIGPIPE, SIG_IGN);
	if (url[0] != '/') {
		r = origin_url_parse(url, &parsed, err);
		if (r < 0)
			return r;
		name = origin_url_part(parsed, CURLUPART_SCHEME);
		if (!name)
			return error_set(err, -ENOMEM, "out of memory");
		read = scheme_find(name)->read;
	}
	return read(url, path, offset, size_max, options, ret_size, sink, context, err);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "url.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#define DIGITS  "0123456789"

#define PORT_MAX 65535

static const char *const schemes[] = {"file",  "ftp", "ftps", "http",
				      "https", "nfs", "sftp", NULL};

/* tolower(3) follows the locale. */
static void lower_copy(char *to, const char *from, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		char c = from[i];

		to[i] = c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
	}
	to[size] = '\0';
}

static bool has_blank_or_control(const char *text)
{
	for (const char *c = text; *c; c++)
		if ((unsigned char)*c <= ' ' || *c == 0x7f)
			return true;
	return false;
}

static bool scheme_known(const char *scheme)
{
	for (size_t i = 0; schemes[i]; i++)
		if (!strcmp(schemes[i], scheme))
			return true;
	return false;
}

static int parse_scheme(const char *text, size_t size, struct url *url, struct error *err)
{
	if (size < sizeof(url->scheme)) {
		lower_copy(url->scheme, text, size);
		if (scheme_known(url->scheme))
			return 0;
	}
	return error_set(err, -EINVAL,
			 "unknown URL scheme '%.*s': use ftp, ftps, sftp, http, https, "
			 "nfs, file or an absolute path",
			 size < 16 ? (int)size : 16, text);
}

static int parse_port(const char *text, size_t size, unsigned *ret, struct error *err)
{
	unsigned port = 0;

	for (size_t i = 0; i < size && port <= PORT_MAX; i++) {
		if (!memchr(DIGITS, text[i], strlen(DIGITS)))
			return error_set(err, -EINVAL, "the URL's port is not a number");
		port = port * 10 + (unsigned)(text[i] - '0');
	}
	if (port < 1 || port > PORT_MAX)
		return error_set(err, -EINVAL, "the URL's port is not within 1 to %d",
				 PORT_MAX);
	*ret = port;
	return 0;
}

/* How much of @text is the host, the brackets of an IPv6 address included. */
static size_t host_size(const char *text)
{
	size_t inner;

	if (*text != '[')
		return strspn(text, LETTERS DIGITS "._-");
	inner = strspn(text + 1, DIGITS "abcdefABCDEF:.");
	return inner > 0 && text[1 + inner] == ']' ? inner + 2 : 0;
}

static int parse_server(const char *text, size_t size, struct url *url, struct error *err)
{
	size_t host = host_size(text);

	if (size == 0)
		return error_set(err, -EINVAL, "the URL names no server");
	if (host == 0 || host >= sizeof(url->host))
		return error_set(err, -EINVAL, "the URL's server is not a host name");
	lower_copy(url->host, text, host);
	if (host == size)
		return 0;
	if (text[host] != ':')
		return error_set(err, -EINVAL, "the URL's server is not a host name");
	return parse_port(text + host + 1, size - host - 1, &url->port, err);
}

static int parse_file(const char *server, size_t size, struct url *url, struct error *err)
{
	char host[sizeof("localhost")];

	if (size >= sizeof(host))
		return error_set(err, -EINVAL, "a file URL is written file:///PATH");
	lower_copy(host, server, size);
	if ((size > 0 && strcmp(host, "localhost")) || *url->path != '/')
		return error_set(err, -EINVAL, "a file URL is written file:///PATH");
	return 0;
}

int url_parse(const char *text, struct url *ret, struct error *err)
{
	size_t scheme = strspn(text, LETTERS DIGITS "+.-"), size;
	struct url url = {0};
	const char *server;
	int r;

	if (scheme == 0 || strncmp(text + scheme, "://", 3))
		return error_set(err, -EINVAL, "neither a URL nor an absolute path");
	if (has_blank_or_control(text))
		return error_set(err, -EINVAL, "the URL contains a blank: write %%20");
	server = text + scheme + 3;
	size = strcspn(server, "/?#");
	url.path = server + size;
	if (memchr(server, '@', size))
		return error_set(err, -EINVAL,
				 "the URL contains a user or password: these belong in "
				 "the credentials file");
	if (strpbrk(url.path, "?#"))
		return error_set(err, -EINVAL, "the URL has a query or fragment");
	r = parse_scheme(text, scheme, &url, err);
	if (r < 0)
		return r;
	r = strcmp(url.scheme, "file") ? parse_server(server, size, &url, err)
				       : parse_file(server, size, &url, err);
	if (r < 0)
		return r;
	*ret = url;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * url.h - the parts of an origin's URL
 */
#pragma once

#include "error.h"

#define URL_SCHEME_SIZE 8
#define URL_HOST_SIZE   256

struct url {
	char scheme[URL_SCHEME_SIZE]; /* lower case: ftp ftps sftp http https nfs file */
	char host[URL_HOST_SIZE];     /* lower case; with the brackets of an IPv6 address;
					 "" for file */
	unsigned port;                /* 1 to 65535; 0: not given */
	const char *path;             /* "" or from the '/' on; points into the text */
};

/**
 * url_parse() - take a URL to its parts
 * @text: not NULL; the result's path borrows from it
 * @ret:  untouched on failure
 * @err:  says what is wrong in a way that can follow "FILE:LINE: "; never quotes more of
 *        the text than its scheme, as there may be a password in it
 *
 * A URL with a user or password, a query or a fragment is refused, and so are blanks and
 * control characters. Escapes (%20) are left as they are.
 *
 * Return: 0; -EINVAL.
 */
int url_parse(const char *text, struct url *ret, struct error *err);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sums.h - SHA256SUMS, the list of an application's versions
 */
#pragma once

#include "digest.h"
#include "error.h"

#include <stddef.h>

/** The endings a package may have, in the order in which they are tried; NULL-terminated.
 */
extern const char *const package_endings[];

struct sums_entry {
	char *version;
	char *file; /* "shop-1.4.2.tar.zst" */
	unsigned char sha256[SHA256_SIZE];
};

struct sums {
	struct sums_entry *entries; /* newest version first */
	size_t count;
};

/**
 * sums_parse() - read what sha256sum(1) writes
 * @text: NUL-terminated; "HEX  NAME" or "HEX *NAME" a line; CRLF, blank lines and lines
 *        starting with '#' are allowed; a leading "./" of a name is left out
 * @app:  entries of other names than <app>-<version><ending> are passed over
 * @ret:  to be cleared with sums_done(); untouched on failure
 *
 * Return: 0; -EBADMSG with the line's number when a line is malformed (an HTML page,
 * say), a version is listed twice with different sums or endings, or there are more than
 * 100,000 lines; -ENOMEM.
 */
int sums_parse(const char *text, const char *app, struct sums *ret, struct error *err);

/** sums_done() - free what is in @sums */
void sums_done(struct sums *sums);

/** sums_find() - the entry of a version, or NULL */
const struct sums_entry *sums_find(const struct sums *sums, const char *version);

/**
 * sums_size_without_ending() - how much of "shop-1.4.2.tar.zst" is "shop-1.4.2"
 *
 * Return: 0 for a file that does not end as packages do.
 */
size_t sums_size_without_ending(const char *name, size_t size);

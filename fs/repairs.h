/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repairs.h - the daemon's half of a repair job
 *
 * A repair is of one version: every damaged pack that it needs is read again and mended,
 * first with what the store has, then with the version's package from the origin, which
 * the job's process has unpacked. Whatever is mended stays so when the rest fails.
 */
#pragma once

#include "digest.h"
#include "error.h"
#include "scrub.h"
#include "service.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>

struct repair;

/**
 * repair_new() - what is known to be damaged of a version
 * @cancelled: looked at while it waits for the right to share; borrowed, as is @pace
 * Return: 0; -ENOENT no such version; the catalog's.
 */
int repair_new(struct service *service, const char *app, const char *version,
	       const atomic_bool *cancelled, const struct scrub_pace *pace,
	       struct repair **ret, struct error *err);
void repair_free(struct repair *repair);

/**
 * repair_here() - read the packs, mend what the store has elsewhere
 * @ret_left: whether something is left that a package could mend
 * Return: 0; -EBADMSG something is left that none could; -ECANCELED; the disk's.
 */
int repair_here(struct repair *repair, bool *ret_left, struct error *err);

/** repair_sha256() - what the package must have, hexadecimal */
void repair_sha256(const struct repair *repair, char text[static SHA256_TEXT_SIZE]);

/**
 * repair_with() - mend from a pack that holds all of the version's package
 * @donor_fd: what the job has made
 * @origin:   where it came from, for the result
 * Return: 0; -EBADMSG something is damaged that the package does not have; as above.
 */
int repair_with(struct repair *repair, int donor_fd, const char *origin,
		struct error *err);

/** repair_result() - the job's result, see docs/api.md; a new object */
json_t *repair_result(const struct repair *repair);

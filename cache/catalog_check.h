/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog_check.h - whether a catalog, or its copy, can be believed
 */
#pragma once

#include "error.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A catalog that is looked at, not used. */
struct catalog_copy {
	sqlite3 *db;     /* NULL: not whole */
	bool newer;      /* whole, and made by a newer deployfs */
	bool consistent; /* no row contradicts another one, or a pack */
	int64_t time_ns;
	int64_t next_node, next_pack; /* what it would give out next */
	unsigned char *backup;        /* its own copy, whole; NULL: there is none */
	size_t backup_size;
	bool as_backup; /* it is byte for byte what its copy is */
};

/**
 * catalog_copy_open() - a database file with its WAL
 * @backup: what catalog_backup() has made of it, which vouches for what is in both: that
 * is not looked at again. May be missing; NULL: look at everything.
 * catalog_copy_load() - what catalog_backup() has written, checked by its checksum
 *
 * Whole: `PRAGMA integrity_check` (which has all of quick_check, and finds an index that
 * says other things than its table), and the schema is the one of its version.
 *
 * Return: 0, with @ret->db set; -ENOENT; -EBADMSG with what is wrong; what the disk
 * gives.
 */
int catalog_copy_open(const char *path, const char *backup, struct catalog_copy *ret,
		      struct error *err);
int catalog_copy_load(const char *path, struct catalog_copy *ret, struct error *err);
void catalog_copy_done(struct catalog_copy *copy); /* clean-up function */

/**
 * catalog_copy_check() - compare the rows with each other and with the packs
 * @packs: the directory; a header's checksum makes it the better witness
 * Of what its copy vouches for no header is read. Sets @copy->consistent, also when it is
 * only older than the packs, or its copy. Return: 0; -EBADMSG with what is wrong; what
 * the disk gives.
 */
int catalog_copy_check(struct catalog_copy *copy, const char *packs, struct error *err);

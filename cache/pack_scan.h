/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack_scan.h - what the files in packs/ say of themselves, without a catalog
 */
#pragma once

#include "error.h"
#include "pack.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A file packs/ID.pack. */
struct pack_file {
	uint64_t id;    /* by its name */
	uint64_t bytes; /* on the disk */
	bool known;     /* the header is right, and of this id: what follows is true */
	struct pack_header header;
	uint64_t *deps; /* NULL: they could not be read */
	size_t dep_count;
};

/** pack_file_id() - the ID of "ID.pack"; 0 for other names */
uint64_t pack_file_id(const char *name);

/** pack_file_read() - one pack's header. Return: 0; -EBADMSG; what the disk gives. */
int pack_file_read(const char *directory, uint64_t id, struct pack_file *ret,
		   struct error *err);

/** pack_retired() - whether the pack is marked as one that has lost its version */
bool pack_retired(const struct pack_header *header);

/**
 * pack_retire() - mark it so, durably
 * Eight bytes of one sector, not under the header's checksum: whole or not at all.
 */
int pack_retire(const char *path, struct error *err);

/**
 * pack_scan() - all packs of a directory, ascending by id, with what they need
 * Reads all metadata, one pack after the other. A pack that cannot be read is one that is
 * not known.
 */
int pack_scan(const char *directory, struct pack_file **ret, size_t *ret_count,
	      struct error *err);
void pack_files_free(struct pack_file *files, size_t count);

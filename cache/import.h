/* SPDX-License-Identifier: Apache-2.0 */
/*
 * import.h - a verified package file becomes a pack
 *
 * Runs in the job process: this is where hostile input is parsed. Reads the store to find
 * equal content; writes nothing but the pack's file.
 */
#pragma once

#include "archive_source.h"
#include "error.h"
#include "manifest.h"
#include "store.h"

#include <stdbool.h>
#include <stdint.h>

struct import_request {
	/* What is unpacked; for as long as it grows nobody knows whether it is the right
	 * file, and the caller throws the pack away when it was not (I6). */
	struct archive_source archive;
	uint64_t archive_size; /* bytes of all of it */
	int pack_fd;           /* empty, for reading and writing, borrowed */
	struct manifest_policy policy;
	uint64_t unpack_limit; /* bytes; 0: by the archive's size */
	bool alone;            /* store everything, share nothing: to repair from it */
	bool fresh;            /* no version of the application was ever here: all that is
				* unpacked will take space, as far as can be known before */
	uint64_t reserve_bytes; /* to be left free on the pack's disk */
};

struct import_result {
	uint64_t files, unpacked, stored,
		shared; /* shared: files with an earlier node's id */
};

/** How an import tells what it does. */
struct import_watch {
	void (*progress)(void *context, uint64_t bytes, uint64_t total);
	void (*warning)(void *context, const char *text);
	void *context;
};

/**
 * import_package() - read all of a package, store what is new of it
 * @store: opened for reading
 *
 * Return: 0, the pack being complete but for its ids; -EBADMSG the package breaks a rule,
 * is damaged or beyond the limit (names the entry); -ENOSPC the reserve would be touched;
 * -ENOMEM; what the disk gives.
 */
int import_package(struct store *store, const struct import_request *request,
		   const struct import_watch *watch, struct import_result *ret,
		   struct error *err);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verify.h - read again what is stored for versions, and compare it with its checksums
 */
#pragma once

#include "error.h"
#include "store.h"

#include <stdint.h>

/** How a verification tells what it does. */
struct verify_watch {
	void (*progress)(void *context, uint64_t bytes, uint64_t total);
	/* @path: "" when the whole version cannot be read */
	void (*bad)(void *context, const char *version, const char *path,
		    const char *problem);
	void *context;
};

struct verify_result {
	uint64_t versions, files, bytes, bad; /* bytes: read; bad: files, or versions */
};

/**
 * verify_app() - every file of one version, or of all present ones
 * @version: NULL for all
 * Reads from the disk what other versions share too; blocks as long as that takes. Packs
 * that are damaged have a note afterwards, for pack_set_next_damaged().
 *
 * Return: 0; -EBADMSG something is not as it was imported, *@ret being filled all the
 * same; -ENOENT no such application or version; -ENOMEM.
 */
int verify_app(struct store *store, const char *app, const char *version,
	       const struct verify_watch *watch, struct verify_result *ret,
	       struct error *err);

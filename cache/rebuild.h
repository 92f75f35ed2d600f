/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rebuild.h - a catalog that is damaged, lost, or older than its packs is made again
 *
 * Both work on the files of a store whose lock is held and whose catalog is not open.
 */
#pragma once

#include "error.h"

/**
 * catalog_check() - whether the catalog of the store @path can be used
 *
 * Reads all of it, catalog.bak and the headers of all packs: for a start, not for a
 * hand-over to another process.
 *
 * Return: 0: it can, or there is nothing yet, or it is of a newer deployfs, which
 * catalog_open() says; -EBADMSG with what is wrong: store_rebuild() is needed; what the
 * disk gives.
 */
int catalog_check(const char *path, struct error *err);

/**
 * store_rebuild() - put a new catalog in its place
 * @why: what catalog_check() has said, for the log
 *
 * From the youngest of catalog.db and catalog.bak that is whole, and from the packs. The
 * old one is kept as catalog.db.damaged. Whole or not at all: interrupted, it is done
 * again at the next start. Logs what was lost.
 */
int store_rebuild(const char *path, const char *why, struct error *err);

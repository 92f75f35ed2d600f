/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reconcile.h - make the rows of a catalog agree with the packs that are there
 */
#pragma once

#include "catalog.h"
#include "pack_scan.h"

/* Ids that may have been given out after the copy that a rebuild begins with: to a large
 * package or two that are gone again, and to any number of flips. */
#define RECONCILE_NODE_GAP (1LL << 24)
#define RECONCILE_PACK_GAP 1024

/** What a reconciliation has found. */
struct reconciled {
	unsigned versions; /* present in the end */
	unsigned found;    /* of them, known from their packs only */
	unsigned gone;     /* versions whose pack is not there any more */
	unsigned channels; /* that had to be dropped, since they pointed at such a version
			    */
};

/**
 * catalog_reconcile() - bring a catalog up to date with the packs, in one transaction
 * @catalog: empty, or a copy from some time before
 * @trusted: no row of it contradicts another one; else links, applications and histories
 *           get new ids, or go
 */
int catalog_reconcile(struct catalog *catalog, const struct pack_file *files,
		      size_t count, bool trusted, struct reconciled *ret,
		      struct error *err);

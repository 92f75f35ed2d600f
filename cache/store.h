/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store.h - the store's directory: who may use it, what lies where, how a pack gets in
 * and its space back out
 *
 *   lock        flock(2)ed by the daemon; holds its pid
 *   catalog.db  apps, versions, channels, generations     (catalog.h)
 *   index.db    hashes, to find equal content             (index.h)
 *   packs/      <id>.pack                                  (pack.h)
 *   partial/    downloads that were not finished
 *   tmp/        packs that are being made; emptied at a start
 *
 * The daemon opens it for writing and serialises changes by store_lock(); a job opens it
 * for reading.
 */
#pragma once

#include "catalog.h"
#include "error.h"
#include "index.h"
#include "pack.h"

#include <stdbool.h>
#include <stdint.h>

struct store {
	char *path;
	int lock_fd; /* -1: opened for reading */
	struct catalog *catalog;
	struct index *index;
	struct pack_set *packs;
};

enum store_mode {
	STORE_READ,  /* a job: catalog and index read-only */
	STORE_SERVE, /* the successor of a worker that died: the catalog, for now */
	STORE_OWN,   /* the daemon: makes what is missing, takes the lock */
	STORE_WAIT,  /* the same, and waits for the lock */
};

/**
 * store_open() - open or make a store
 * STORE_OWN and STORE_WAIT sweep what a crash left behind. After STORE_SERVE nothing is
 * written before store_own().
 *
 * Return: 0; -EBUSY another daemon has it (says its pid); -EPERM not root's, or open to
 * others; -EINVAL on a file system that cannot hold it (NFS, FUSE, tmpfs is allowed);
 * what the disk and the databases give.
 */
int store_open(const char *path, enum store_mode mode, struct store **ret,
	       struct error *err);

/**
 * store_own() - take a store that was opened to be served
 * @wait: for a predecessor that has the lock, however long it takes to end
 */
int store_own(struct store *store, bool wait, struct error *err);

/** store_release() - let a successor own it; the packs can be read on */
void store_release(struct store *store);

void store_close(struct store *store);

/** store_path() - "<store>/<name>" into @text */
const char *store_path(const struct store *store, const char *name,
		       char text[static 4096]);

/**
 * store_adopt() - put a finished pack into its place, durable but not yet visible
 * @fd:        the pack, complete but for its ids; the header is written here
 * @temporary: its name in tmp/
 * @version:   app, name, sha256, package_bytes, origin are the caller's; pack, node range
 *             and stored_bytes are filled
 *
 * Nothing in the pack is believed: all of it is checked as at every load. One syncfs(2);
 * blocks for as long as that takes. A power cut before store_add() leaves nothing (I9).
 *
 * Return: 0; -EBADMSG the pack is not right; what the disk gives.
 */
int store_adopt(struct store *store, int fd, const char *temporary,
		struct version *version, struct error *err);

/**
 * store_add() - make an adopted pack a version
 * Return: as catalog_add_version(); on failure, or where a hidden version of this content
 * came back instead, the pack is removed again.
 */
int store_add(struct store *store, const struct version *version,
	      struct change_list *changes, struct error *err);

/**
 * store_index() - bring index.db up to date with the packs
 * Blocks for about a second a hundred thousand files; holds no lock of the caller.
 */
int store_index(struct store *store, struct error *err);

/** store_renew_index() - begin index.db anew; store_index() fills it */
int store_renew_index(struct store *store, struct error *err);

/**
 * store_sweep() - give back the space of packs that lost their version
 * @ret_freed: bytes given back; may be NULL
 *
 * What other versions share with them is kept; what nobody needs is punched out, a pack
 * with nothing left is unlinked. Not while a job runs that could just be about to share
 * from them.
 */
int store_sweep(struct store *store, uint64_t *ret_freed, struct error *err);

/**
 * store_live_objects() - which objects of a pack any version still uses
 * @ret: one byte an object, malloc()ed, the caller's; NULL: all of them, or the pack
 * cannot be loaded
 */
int store_live_objects(struct store *store, uint64_t pack, bool **ret, struct error *err);

/** store_unlink_pack() - a pack that never became a version */
void store_unlink_pack(struct store *store, uint64_t id);

/** A partial download. */
struct partial {
	char name[256];
	uint64_t bytes;
	int64_t mtime_ns;
};

#define PARTIAL_KEPT_NS                                                 \
	(7LL * 24 * 3600 * 1000000000) /* then gc and a start remove it \
					*/

/**
 * store_sweep_partials() - remove downloads that nobody has touched for PARTIAL_KEPT_NS,
 * or whose version is present
 */
int store_sweep_partials(const struct store *store, struct error *err);

/** store_partials() - what lies in partial/; malloc()ed, the caller's */
int store_partials(const struct store *store, struct partial **ret, size_t *ret_count,
		   struct error *err);

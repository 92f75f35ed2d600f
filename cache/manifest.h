/* SPDX-License-Identifier: Apache-2.0 */
/*
 * manifest.h - all names of a package, while it is imported
 *
 * Sees what archive.h cannot, because it needs more than one entry: that no name comes
 * twice, that no file or symlink is used as a directory, that a hard link names an
 * earlier regular file of the package. In the end it makes the arrays of a pack.
 */
#pragma once

#include "archive.h"
#include "digest.h"
#include "error.h"
#include "pack.h"

#include <stdbool.h>
#include <stdint.h>

struct manifest;

/** How attributes are decided where the archive does not. */
struct manifest_policy {
	uid_t uid;
	gid_t gid;
	bool contained; /* refuse symlinks that are absolute or leave the package */
};

/** Where a file's or symlink's content lies. */
struct body {
	uint64_t pack; /* 0: in the pack that is being made */
	uint32_t object;
	uint64_t size;
	struct checksum content; /* pack_content_hash() */
};

/** manifest_new() - NULL when out of memory */
struct manifest *manifest_new(const struct manifest_policy *policy);
void manifest_free(struct manifest *manifest);

/**
 * manifest_add() - one entry of the archive
 * @ret: its number, for manifest_set_body()
 *
 * Return: 0; -EBADMSG naming the entry and the rule it breaks; -ENOMEM.
 */
int manifest_add(struct manifest *manifest, const struct archive_item *item,
		 uint32_t *ret, struct error *err);

/** manifest_set_body() - where the content of a file or symlink lies */
void manifest_set_body(struct manifest *manifest, uint32_t number,
		       const struct body *body);

/**
 * manifest_share_fn() - look for an earlier node of the same identity
 * @body:     where its content lies
 * @node:     complete but for dep and object
 * @ret_pack, @ret_index: the earlier node
 * Return: 1 when there is one; 0 when not; a negative errno.
 */
typedef int manifest_share_fn(void *context, const struct body *body,
			      const struct pack_node *node, uint64_t *ret_pack,
			      uint32_t *ret_index);

/** What a finished manifest amounts to. */
struct manifest_summary {
	uint32_t files;      /* regular files and symlinks, hard links counted once */
	uint32_t shared;     /* of them: with an earlier node's id */
	uint32_t case_twins; /* names that differ from a sibling in case only */
	char case_twin[PACK_PATH_MAX + 1]; /* the first of them */
};

/**
 * manifest_finish() - the arrays nodes, dirs, entries, deps and names of a pack
 * @share: asked for every file and symlink in archive order; may be NULL
 * @ret:   the five arrays and their counts are set; malloc()ed, the caller's
 *
 * Return: 0; -ENOMEM; what @share returned.
 */
int manifest_finish(struct manifest *manifest, manifest_share_fn *share, void *context,
		    struct pack_meta *ret, struct manifest_summary *ret_summary,
		    struct error *err);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * repair.h - write what belongs there over the damaged parts of a pack
 *
 * Block by block and in place: ids, offsets and all else stay, and nobody who has a file
 * open notices more than that it can be read again. A block is written only when it has
 * the checksum that the damaged pack's own metadata has for it, so whatever the source, a
 * repair can fail but not put wrong bytes there (I7). The header and the metadata are
 * mended from their copy in the pack.
 */
#pragma once

#include "error.h"
#include "scrub.h"

#include <stddef.h>

/**
 * repair_from() - mend what has the same blocks somewhere in @donor
 * @scrub: its list of bad blocks becomes shorter by what was mended
 * @donor: loaded; may be the damaged pack itself
 *
 * Durable, and read back from the disk, when it returns.
 *
 * Return: 0; the negative errno of the disk, with nothing that was right made wrong.
 */
int repair_from(struct scrub *scrub, const struct pack *donor, size_t *ret_mended,
		struct error *err);

/** repair_parts() - mend header and metadata from what could be loaded of the two copies
 */
int repair_parts(struct scrub *scrub, struct error *err);

/**
 * repair_from_store() - repair_parts(), then repair_from() all packs, newest first
 * @mended: told of each pack that had something; NULL is allowed
 */
int repair_from_store(struct scrub *scrub,
		      void (*mended)(void *context, const struct pack *donor,
				     size_t blocks),
		      void *context, struct error *err);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack_make.h - packs for tests, made as an import makes them, but from memory
 *
 * Every failure ends the test. Names come in the archive's order.
 */
#pragma once

#include "manifest.h"
#include "pack.h"
#include "pack_writer.h"

#include <stddef.h>
#include <stdint.h>

#define MAKE_MTIME_S 1700000000

struct make {
	int fd;
	uint64_t id;
	struct manifest *manifest;
	struct pack_writer *writer;
};

/** make_begin() - "<dir>/<id>.pack", with the owner root */
void make_begin(struct make *make, const char *dir, uint64_t id,
		pack_writer_find_fn *find, void *context);

void make_directory(struct make *make, const char *path);
void make_symlink(struct make *make, const char *path, const char *target);
void make_hardlink(struct make *make, const char *path, const char *target);

/** make_file() - returns where the content went */
struct body make_file(struct make *make, const char *path, const void *data, size_t size);

/** make_file_begin(), make_file_end() - the same; the caller feeds make->writer between
 */
uint32_t make_file_begin(struct make *make, const char *path, uint64_t size);
struct body make_file_end(struct make *make, uint32_t number);

/** make_end() - complete with ids and close; returns what the catalog would know */
struct pack_key make_end(struct make *make, uint64_t first_node, manifest_share_fn *share,
			 void *context);

/** make_bytes() - @size bytes that follow from @seed; malloc()ed */
char *make_bytes(size_t size, unsigned seed);

/* SPDX-License-Identifier: Apache-2.0 */
#include "pack_make.h"

#include "cleanup.h"
#include "fd.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

void make_begin(struct make *make, const char *dir, uint64_t id,
		pack_writer_find_fn *find, void *context)
{
	static const struct manifest_policy root_owns;
	char path[4096];

	snprintf(path, sizeof(path), "%s/%llu.pack", dir, (unsigned long long)id);
	make->id = id;
	make->fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(make->fd >= 0);
	make->manifest = manifest_new(&root_owns);
	make->writer = pack_writer_new(make->fd, find, context);
	assert_non_null(make->manifest);
	assert_non_null(make->writer);
}

static uint32_t item_add(struct make *make, enum archive_type type, const char *path,
			 const char *target, uint64_t size)
{
	struct archive_item item = {
		.type = type,
		.path = path,
		.target = target,
		.size = size,
		.mode = type == ARCHIVE_TYPE_DIRECTORY ? 0755 : 0644,
		.mtime_s = MAKE_MTIME_S,
		.mtime_ns = 5,
	};
	struct error err = {0};
	uint32_t number;

	if (manifest_add(make->manifest, &item, &number, &err) < 0)
		fail_msg("%s", err.text);
	return number;
}

void make_directory(struct make *make, const char *path)
{
	item_add(make, ARCHIVE_TYPE_DIRECTORY, path, NULL, 0);
}

void make_hardlink(struct make *make, const char *path, const char *target)
{
	item_add(make, ARCHIVE_TYPE_HARDLINK, path, target, 0);
}

uint32_t make_file_begin(struct make *make, const char *path, uint64_t size)
{
	uint32_t number = item_add(make, ARCHIVE_TYPE_FILE, path, NULL, size);

	assert_int_equal(pack_writer_begin(make->writer, size), 0);
	return number;
}

struct body make_file_end(struct make *make, uint32_t number)
{
	struct body body;

	assert_int_equal(pack_writer_end(make->writer, &body), 0);
	manifest_set_body(make->manifest, number, &body);
	return body;
}

struct body make_file(struct make *make, const char *path, const void *data, size_t size)
{
	uint32_t number = make_file_begin(make, path, size);

	assert_int_equal(pack_writer_data(make->writer, data, size, 0), 0);
	return make_file_end(make, number);
}

void make_symlink(struct make *make, const char *path, const char *target)
{
	uint32_t number = item_add(make, ARCHIVE_TYPE_SYMLINK, path, target, 0);

	assert_int_equal(pack_writer_begin(make->writer, strlen(target)), 0);
	assert_int_equal(pack_writer_data(make->writer, target, strlen(target), 0), 0);
	make_file_end(make, number);
}

struct pack_key make_end(struct make *make, uint64_t first_node, manifest_share_fn *share,
			 void *context)
{
	struct pack_header header = {.app = "shop", .version = "1.0"};
	struct pack_meta meta = {0};
	struct manifest_summary summary;
	struct error err = {0};

	assert_int_equal(manifest_finish(make->manifest, share, context, &meta, &summary,
					 &err),
			 0);
	assert_int_equal(pack_writer_finish(make->writer, &meta, &header), 0);
	header.pack_id = make->id;
	header.first_node = first_node;
	assert_int_equal(pack_header_write(make->fd, &header), 0);
	fd_close(&make->fd);
	free(meta.nodes);
	free(meta.dirs);
	free(meta.entries);
	free(meta.deps);
	free(meta.names);
	manifest_free(make->manifest);
	pack_writer_free(make->writer);
	return (struct pack_key){make->id, first_node, header.node_count,
				 header.dir_count};
}

char *make_bytes(size_t size, unsigned seed)
{
	char *bytes = malloc(size + 1);
	unsigned state = seed * 2654435761u + 1;

	assert_non_null(bytes);
	for (size_t i = 0; i < size; i++) {
		state = state * 1664525 + 1013904223;
		bytes[i] = (char)(state >> 24);
	}
	return bytes;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "pack_scan.h"

#include "cleanup.h"
#include "fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

uint64_t pack_file_id(const char *name)
{
	char *end;
	uint64_t id = strtoull(name, &end, 10);

	return *name >= '1' && *name <= '9' && !strcmp(end, ".pack") ? id : 0;
}

bool pack_retired(const struct pack_header *header)
{
	return !memcmp(header->retired, PACK_RETIRED, sizeof(header->retired));
}

int pack_retire(const char *path, struct error *err)
{
	cleanup(fd_close) int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct pack_header header;
	struct stat st;
	uint64_t copy;
	int r = fd < 0 || fstat(fd, &st) < 0 ? -errno : 0;

	if (r == 0)
		r = fd_pread_all(fd, &header, sizeof(header), 0);
	copy = r == 0 ? pack_header_copy(&header) : 0;
	if (r == 0)
		r = fd_pwrite_all(fd, PACK_RETIRED, sizeof(PACK_RETIRED),
				  offsetof(struct pack_header, retired));
	/* Where the header is damaged, its copy is not where that says. */
	if (r == 0 && copy && copy + PACK_HEADER_SIZE == (uint64_t)st.st_size)
		r = fd_pwrite_all(fd, PACK_RETIRED, sizeof(PACK_RETIRED),
				  copy + offsetof(struct pack_header, retired));
	if (r == 0 && fdatasync(fd) < 0)
		r = -errno;
	return r < 0 ? error_set(err, r, "cannot mark '%s' as removed: %s", path,
				 strerror(-r))
		     : 0;
}

static int header_open(const char *directory, uint64_t id, struct pack_file *ret,
		       int *ret_fd, struct error *err)
{
	cleanup(fd_close) int fd = -1;
	const char *fault = "cut off";
	struct pack_header copy;
	char path[4096];
	struct stat st;
	int r;

	*ret = (struct pack_file){.id = id};
	snprintf(path, sizeof(path), "%s/%llu.pack", directory, (unsigned long long)id);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0 || fstat(fd, &st) < 0)
		return error_set(err, -errno, "cannot open '%s': %s", path,
				 strerror(errno));
	ret->bytes = (uint64_t)st.st_blocks * 512;
	r = S_ISREG(st.st_mode) ? fd_pread_all(fd, &ret->header, sizeof(ret->header), 0)
				: -ENODATA;
	if (r < 0 && r != -ENODATA)
		return error_set(err, r, "cannot read '%s': %s", path, strerror(-r));
	if (r == 0)
		fault = pack_header_fault(&ret->header, (uint64_t)st.st_size);
	/* A second one lies at the end. */
	if (fault && st.st_size > 2 * PACK_HEADER_SIZE &&
	    fd_pread_all(fd, &copy, sizeof(copy),
			 (uint64_t)st.st_size - PACK_HEADER_SIZE) == 0 &&
	    !pack_header_fault(&copy, (uint64_t)st.st_size)) {
		ret->header = copy;
		fault = NULL;
	}
	if (!fault && (ret->header.pack_id != id || !name_valid(ret->header.app) ||
		       !name_valid(ret->header.version)))
		fault = "it is another pack than its name says";
	if (fault)
		return error_set(err, -EBADMSG, "'%s' is damaged: %s", path, fault);
	ret->known = true;
	*ret_fd = fd_take(&fd);
	return 0;
}

int pack_file_read(const char *directory, uint64_t id, struct pack_file *ret,
		   struct error *err)
{
	cleanup(fd_close) int fd = -1;

	return header_open(directory, id, ret, &fd, err);
}

/* Where the deps begin in the metadata: behind all that pack.c lays out before them. */
static uint64_t deps_offset(const struct pack_header *header)
{
	return (uint64_t)header->object_count * sizeof(struct pack_object) +
	       (uint64_t)header->node_count * sizeof(struct pack_node) +
	       (uint64_t)header->dir_count * sizeof(struct pack_dir) +
	       (uint64_t)header->entry_count * sizeof(struct pack_entry) +
	       (uint64_t)header->check_count * sizeof(struct checksum);
}

/* Damaged metadata leave deps NULL: such a pack serves nothing anyway. */
static int deps_read(struct pack_file *file, int fd, struct error *err)
{
	const struct pack_header *header = &file->header;
	cleanup(free_ptr) char *meta = NULL;
	uint64_t at = deps_offset(header), size = header->dep_count * 8ULL;
	struct checksum sum;

	if (at > header->meta_size || size > header->meta_size - at)
		return 0;
	meta = malloc(header->meta_size + 1);
	file->deps = calloc(header->dep_count + 1ULL, sizeof(file->deps[0]));
	if (!meta || !file->deps)
		return error_set(err, -ENOMEM,
				 "not enough memory for the metadata of "
				 "pack %llu",
				 (unsigned long long)file->id);
	if (fd_pread_all(fd, meta, header->meta_size, header->meta_offset) == 0) {
		sum = checksum_of(meta, header->meta_size);
		if (checksum_equal(&sum, &header->meta_hash)) {
			memcpy(file->deps, meta + at, size);
			file->dep_count = header->dep_count;
			return 0;
		}
	}
	free(take_ptr(file->deps));
	return 0;
}

void pack_files_free(struct pack_file *files, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(files[i].deps);
	free(files);
}

static int by_id(const void *left, const void *right)
{
	const struct pack_file *a = left, *b = right;

	return a->id < b->id ? -1 : a->id > b->id;
}

static int scan_one(const char *directory, uint64_t id, struct pack_file *ret,
		    struct error *err)
{
	cleanup(fd_close) int fd = -1;
	int r = header_open(directory, id, ret, &fd, err);

	/* Whatever keeps this one from being read, the others are to come back. */
	return r < 0 ? 0 : deps_read(ret, fd, err);
}

int pack_scan(const char *directory, struct pack_file **ret, size_t *ret_count,
	      struct error *err)
{
	cleanup(dir_close) DIR *dir = opendir(directory);
	struct pack_file *files = NULL;
	size_t count = 0, room = 0;
	struct dirent *entry;
	int r = 0;

	if (!dir)
		return error_set(err, -errno, "cannot read '%s': %s", directory,
				 strerror(errno));
	while (r == 0 && (entry = readdir(dir))) {
		uint64_t id = pack_file_id(entry->d_name);

		if (id == 0)
			continue;
		if (count == room) {
			struct pack_file *larger;

			room = room ? room * 2 : 64;
			larger = realloc(files, room * sizeof(*files));
			if (!larger) {
				r = error_set(err, -ENOMEM, "not enough memory");
				break;
			}
			files = larger;
		}
		r = scan_one(directory, id, &files[count++], err);
	}
	if (r < 0) {
		pack_files_free(files, count);
		return r;
	}
	if (count)
		qsort(files, count, sizeof(files[0]), by_id);
	*ret = files;
	*ret_count = count;
	return 0;
}

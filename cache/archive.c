/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two ways to libarchive, one set of rules behind it:
 *
 *   tar   file -> decompressor, ahead -> (tar_walk beside it) -> libarchive's tar reader
 *   zip   file -> zip_directory checks the structure   -> libarchive's seeking zip reader
 *
 * Neither the filters of libarchive nor its idea of an end are used (decompress.h,
 * tar_walk.h say why), and each of its warnings is a refusal: a wrong CRC in a zip is
 * one, and so are headers that it could read in part only.
 *
 * Names and targets are taken as stored, from tar_walk and zip_directory, wherever
 * libarchive 3.6 would bring them to Unicode's form C: in pax headers and in zips.
 */
#include "archive.h"

#include "cleanup.h"
#include "decompress.h"
#include "package_kind.h"
#include "package_path.h"
#include "stripped.h"
#include "tar_walk.h"
#include "unpack_ahead.h"
#include "zip_directory.h"

/* libarchive's own: meson.build keeps our folder out of the search for <...>. */
#include <archive.h>
#include <archive_entry.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ZIP_PIECE_SIZE ((size_t)64 << 10)
#define TAR_BLOCK_SIZE ((size_t)512)

/* What libarchive may read in search of one header. Only the maps of sparse files are
 * large; it keeps some 100 bytes in memory for each 4 bytes of them. */
#define HEADER_SIZE_MAX ((uint64_t)8 << 20)

enum reader_state {
	READER_READING,
	READER_ENDED,
	READER_FAILED,
};

struct archive_reader {
	struct archive_source source;
	archive_warning_fn *warning;
	void *context;
	enum reader_state state;
	struct error failure; /* in READER_FAILED */
	struct archive *lib;  /* NULL: a zip without entries */

	/* tar */
	struct decompressor *stream;
	struct unpack_ahead *ahead; /* has the stream */
	uint64_t stream_size;       /* bytes, 0: not known */
	struct tar_walk *walk;
	unsigned char *first; /* DECOMPRESS_PIECE_SIZE bytes; the stream's first piece,
				 until libarchive has taken it */
	size_t first_size;
	struct error stream_failure; /* of a call-back; code 0: none */
	uint64_t header_size;        /* bytes read in search of one header */
	bool in_header;
	bool stream_ended;

	/* zip */
	struct zip_directory *zip;
	size_t zip_number; /* of the next entry */
	char zip_name[UINT16_MAX + 1];
	uint64_t zip_offset, zip_read;
	unsigned char *zip_piece; /* ZIP_PIECE_SIZE bytes */

	/* the current entry */
	struct archive_entry *entry; /* belongs to lib */
	struct tar_record tar_record;
	const struct zip_record *zip_record; /* belongs to zip */
	char path[PACKAGE_PATH_SIZE];
	char target[PACKAGE_PATH_SIZE];
	bool has_content;     /* a regular file that was not read to its end */
	uint64_t item_size;   /* bytes */
	uint64_t item_end;    /* of the last piece */
	uint64_t item_bytes;  /* given out */
	uint64_t item_mapped; /* bytes that must be given out: without the holes */

	struct stripped stripped;
};

DEFINE_CLEANUP(struct archive_reader, archive_close)

/* --- failures --- */

/* Everything that fails does so for good. */
static int fail(struct archive_reader *reader, struct error *err)
{
	reader->state = READER_FAILED;
	return error_set(err, reader->failure.code, "%s", reader->failure.text);
}

static int refuse(struct archive_reader *reader, const char *path, const char *rule)
{
	char text[PACKAGE_PATH_TEXT_SIZE];

	return error_set(&reader->failure, -EBADMSG, "'%s' %s",
			 package_path_text(path, text), rule);
}

static int no_memory(struct archive_reader *reader)
{
	return error_set(&reader->failure, -ENOMEM,
			 "cannot read the package: out of memory");
}

/* What libarchive could not do with the entry @path; or after it, when @after is set. */
static int lib_failure(struct archive_reader *reader, const char *path, bool after)
{
	const char *reason = archive_error_string(reader->lib);
	char text[PACKAGE_PATH_TEXT_SIZE];

	if (reader->stream_failure.code) {
		reader->failure = reader->stream_failure;
		return reader->failure.code;
	}
	if (archive_errno(reader->lib) == ENOMEM)
		return no_memory(reader);
	if (!reason)
		reason = "no reason given";
	if (!strncmp(reason, "Truncated", strlen("Truncated")))
		return error_set(
			&reader->failure, -EBADMSG,
			"the package is cut off in or after '%s': fetch it again",
			package_path_text(path, text));
	if (after && !*path)
		return error_set(
			&reader->failure, -EBADMSG,
			"the first entry is damaged (%s): fetch the package again",
			reason);
	return error_set(&reader->failure, -EBADMSG,
			 "%s'%s' is damaged (%s): fetch the package again",
			 after ? "what follows " : "", package_path_text(path, text),
			 reason);
}

/* --- libarchive reads a tar --- */

/* The next piece of the stream, shown to the walk. Return: 1; 0 at the end; an error. */
static int stream_read(struct archive_reader *reader, const void **data, size_t *size)
{
	int r = 1;

	if (reader->first_size) {
		*data = reader->first;
		*size = reader->first_size;
		reader->first_size = 0;
	} else {
		r = unpack_ahead_read(reader->ahead, data, size, &reader->stream_failure);
		reader->stream_ended = r == 0;
	}
	if (r > 0 && tar_walk_feed(reader->walk, *data, *size) < 0)
		r = error_set(&reader->stream_failure, -ENOMEM,
			      "cannot read the package: out of memory");
	return r;
}

static la_ssize_t tar_read(struct archive *lib, void *context, const void **ret)
{
	struct archive_reader *reader = context;
	size_t size = 0;
	int r = stream_read(reader, ret, &size);

	if (r > 0 && reader->in_header) {
		reader->header_size += size;
		if (reader->header_size > HEADER_SIZE_MAX)
			r = error_set(
				&reader->stream_failure, -EBADMSG,
				"the package has a header that is too large (more than "
				"8 MiB)");
	}
	if (r < 0) {
		archive_set_error(lib, EIO, "%s", reader->stream_failure.text);
		return -1;
	}
	return (la_ssize_t)size;
}

static int tar_open(struct archive_reader *reader)
{
	int r;

	reader->walk = tar_walk_new();
	reader->lib = archive_read_new();
	if (!reader->walk || !reader->lib)
		return no_memory(reader);
	reader->stream_size = decompressor_size(reader->stream);
	r = unpack_ahead_new(reader->stream, &reader->ahead, &reader->failure);
	if (r < 0)
		return r;
	archive_read_support_format_tar(reader->lib);
	if (archive_read_open(reader->lib, reader, NULL, tar_read, NULL) != ARCHIVE_OK)
		return lib_failure(reader, "", true);
	return 0;
}

/* --- libarchive reads a zip --- */

static la_ssize_t zip_read(struct archive *lib, void *context, const void **ret)
{
	struct archive_reader *reader = context;
	ssize_t n;

	do {
		n = pread(reader->source.fd, reader->zip_piece, ZIP_PIECE_SIZE,
			  (off_t)reader->zip_offset);
	} while (n < 0 && errno == EINTR);
	if (n < 0) {
		error_set(&reader->stream_failure, -errno, "cannot read the package: %s",
			  strerror(errno));
		archive_set_error(lib, errno, "%s", reader->stream_failure.text);
		return -1;
	}
	reader->zip_offset += (uint64_t)n;
	reader->zip_read += (uint64_t)n;
	*ret = reader->zip_piece;
	return n;
}

static la_int64_t zip_seek(struct archive *lib, void *context, la_int64_t offset,
			   int whence)
{
	struct archive_reader *reader = context;
	struct stat status;

	if (whence == SEEK_CUR)
		offset += (la_int64_t)reader->zip_offset;
	if (whence == SEEK_END && fstat(reader->source.fd, &status) == 0)
		offset += status.st_size;
	if (offset < 0)
		return ARCHIVE_FATAL;
	reader->zip_offset = (uint64_t)offset;
	return offset;
}

static int zip_open(struct archive_reader *reader)
{
	uint64_t end;
	/* A zip is read from its end. */
	int r = archive_source_wait(&reader->source, UINT64_MAX, &end, &reader->failure);

	if (r == 0)
		r = zip_directory_open(reader->source.fd, &reader->zip, &reader->failure);
	if (r < 0 || zip_directory_count(reader->zip) == 0)
		return r;
	reader->zip_piece = malloc(ZIP_PIECE_SIZE);
	reader->lib = archive_read_new();
	if (!reader->zip_piece || !reader->lib)
		return no_memory(reader);
	archive_read_support_format_zip_seekable(reader->lib);
	archive_read_set_read_callback(reader->lib, zip_read);
	archive_read_set_seek_callback(reader->lib, zip_seek);
	archive_read_set_callback_data(reader->lib, reader);
	if (archive_read_open1(reader->lib) != ARCHIVE_OK)
		return lib_failure(reader, "", true);
	return 0;
}

/* --- what kind of file it is --- */

static bool is_zip(const unsigned char *data, size_t size)
{
	return size >= 4 && (!memcmp(data, "PK\3\4", 4) || !memcmp(data, "PK\5\6", 4));
}

/* The stream of a zip is the file itself: the decompressor leaves alone what it does not
 * know, and its first piece shows what it is. */
static int reader_open(struct archive_reader *reader)
{
	int r;

	reader->first = malloc(DECOMPRESS_PIECE_SIZE);
	if (!reader->first)
		return no_memory(reader);
	r = decompressor_open(&reader->source, &reader->stream, &reader->failure);
	if (r == 0)
		r = decompressor_read(reader->stream, reader->first, &reader->first_size,
				      &reader->failure);
	if (r < 0)
		return r;
	if (r > 0 && decompressor_is_plain(reader->stream) &&
	    is_zip(reader->first, reader->first_size)) {
		decompressor_free(take_ptr(reader->stream));
		return zip_open(reader);
	}
	if (r > 0 && reader->first_size >= TAR_BLOCK_SIZE &&
	    tar_walk_block_check(reader->first))
		return tar_open(reader);
	return error_set(
		&reader->failure, -EBADMSG,
		"%s%s is not a package format: tar (plain or packed with gzip, bzip2, "
		"xz or zstd) or zip is",
		package_kind_name(reader->first, reader->first_size),
		decompressor_is_plain(reader->stream) ? "" : " in a compressor's format");
}

int archive_open(const struct archive_source *source, archive_warning_fn *warning,
		 void *context, struct archive_reader **ret, struct error *err)
{
	cleanup(archive_close_ptr) struct archive_reader *reader =
		calloc(1, sizeof(*reader));

	if (!reader)
		return error_set(err, -ENOMEM, "cannot open the package: out of memory");
	reader->source = *source;
	reader->warning = warning;
	reader->context = context;
	if (reader_open(reader) < 0)
		return fail(reader, err);
	*ret = take_ptr(reader);
	return 0;
}

/* --- one entry --- */

static const char *lib_path(struct archive_reader *reader)
{
	return archive_entry_pathname(reader->entry);
}

/* The name as it is stored; NULL when libarchive has none. */
static const char *entry_path(struct archive_reader *reader)
{
	if (reader->zip_record)
		return reader->zip_name;
	return reader->tar_record.path ? reader->tar_record.path : lib_path(reader);
}

static int item_path(struct archive_reader *reader, bool directory)
{
	const char *path = entry_path(reader);
	const char *rule;

	if (!path)
		return refuse(reader, reader->tar_record.name,
			      "has a name that is not valid "
			      "UTF-8");
	rule = package_path_check(path, directory, reader->path);
	return rule ? refuse(reader, path, rule) : 0;
}

static int item_symlink(struct archive_reader *reader)
{
	const char *target = reader->tar_record.link, *rule;
	int r;

	if (reader->zip_record) {
		r = zip_directory_target(reader->zip, reader->zip_record, reader->target,
					 &reader->failure);
		if (r < 0)
			return r;
		target = reader->target;
	}
	if (!target)
		target = archive_entry_symlink(reader->entry);
	rule = target ? package_target_check(target) : "is empty";
	if (rule) {
		char path[PACKAGE_PATH_TEXT_SIZE], text[PACKAGE_PATH_TEXT_SIZE];

		return error_set(&reader->failure, -EBADMSG,
				 "'%s' is a symlink whose target '%s' %s",
				 package_path_text(reader->path, path),
				 package_path_text(target ? target : "", text), rule);
	}
	if (target != reader->target)
		strcpy(reader->target, target); /* the check found that it fits */
	return 0;
}

static int item_hardlink(struct archive_reader *reader)
{
	const char *target = reader->tar_record.link, *rule;
	char path[PACKAGE_PATH_TEXT_SIZE], text[PACKAGE_PATH_TEXT_SIZE];

	if (!target)
		target = archive_entry_hardlink(reader->entry);
	rule = target ? package_path_check(target, false, reader->target) : "is empty";
	if (!rule)
		return 0;
	return error_set(&reader->failure, -EBADMSG,
			 "'%s' is a hard link whose target '%s' %s",
			 package_path_text(reader->path, path),
			 package_path_text(target ? target : "", text), rule);
}

/* How many bytes of content there must be, the holes left out. */
static uint64_t entry_mapped(struct archive_reader *reader)
{
	uint64_t mapped = 0;
	la_int64_t offset, size;

	if (archive_entry_sparse_reset(reader->entry) == 0)
		return reader->item_size;
	while (archive_entry_sparse_next(reader->entry, &offset, &size) == ARCHIVE_OK)
		mapped += (uint64_t)size;
	return mapped;
}

static int item_file(struct archive_reader *reader)
{
	la_int64_t size = archive_entry_size(reader->entry);

	if (!archive_entry_size_is_set(reader->entry) || size < 0)
		return refuse(reader, reader->path, "has no size");
	if (reader->zip_record && (uint64_t)size != reader->zip_record->size)
		return refuse(reader, reader->path, "has sizes in the zip that disagree");
	reader->item_size = (uint64_t)size;
	reader->item_mapped = entry_mapped(reader);
	if (reader->tar_record.type == 'S' &&
	    reader->item_mapped != reader->tar_record.size)
		return refuse(reader, reader->path, "has a damaged sparse map");
	reader->item_end = reader->item_bytes = 0;
	reader->has_content = true;
	return 0;
}

static int item_directory(struct archive_reader *reader)
{
	uint64_t size =
		reader->zip_record ? reader->zip_record->size : reader->tar_record.size;

	return size ? refuse(reader, reader->path, "is a directory with data") : 0;
}

static const char *type_problem(mode_t type)
{
	switch (type) {
	case AE_IFCHR:
		return "is a character device: only directories, files and links can be "
		       "in a "
		       "package";
	case AE_IFBLK:
		return "is a block device: only directories, files and links can be in a "
		       "package";
	case AE_IFIFO:
		return "is a fifo: only directories, files and links can be in a package";
	case AE_IFSOCK:
		return "is a socket: only directories, files and links can be in a "
		       "package";
	default:
		return "is of an unknown type: only directories, files and links can be "
		       "in a "
		       "package";
	}
}

static int item_type(struct archive_reader *reader, enum archive_type *ret)
{
	mode_t type = archive_entry_filetype(reader->entry);

	/* libarchive leaves the type of hard links open, and takes for one whatever has a
	 * target in its pax header. */
	if (reader->tar_record.type == '1')
		*ret = ARCHIVE_TYPE_HARDLINK;
	else if (archive_entry_hardlink(reader->entry))
		return refuse(reader, entry_path(reader),
			      "has a target but is not a link");
	else if (type == AE_IFDIR)
		*ret = ARCHIVE_TYPE_DIRECTORY;
	else if (type == AE_IFREG)
		*ret = ARCHIVE_TYPE_FILE;
	else if (type == AE_IFLNK)
		*ret = ARCHIVE_TYPE_SYMLINK;
	else
		return refuse(reader, entry_path(reader), type_problem(type));
	return 0;
}

static int item_by_type(struct archive_reader *reader, enum archive_type type)
{
	switch (type) {
	case ARCHIVE_TYPE_DIRECTORY:
		return item_directory(reader);
	case ARCHIVE_TYPE_FILE:
		return item_file(reader);
	case ARCHIVE_TYPE_SYMLINK:
		return item_symlink(reader);
	case ARCHIVE_TYPE_HARDLINK:
		return item_hardlink(reader);
	}
	return -EINVAL;
}

static void item_mtime(struct archive_reader *reader, struct archive_item *item)
{
	long ns = archive_entry_mtime_nsec(reader->entry);

	item->mtime_s = archive_entry_mtime(reader->entry);
	/* A pax header says -1.5, and libarchive takes it for half a second after -1. */
	if (item->mtime_s < 0 && item->mtime_s > INT64_MIN && ns > 0) {
		item->mtime_s--;
		ns = 1000000000 - ns;
	}
	item->mtime_ns = ns >= 0 && ns < 1000000000 ? (uint32_t)ns : 0;
}

static int item_fill(struct archive_reader *reader, struct archive_item *ret)
{
	struct archive_item item = {0};
	int r = item_type(reader, &item.type);

	if (r == 0)
		r = item_path(reader, item.type == ARCHIVE_TYPE_DIRECTORY);
	if (r == 0)
		r = item_by_type(reader, item.type);
	if (r == 0)
		r = stripped_note(&reader->stripped, reader->entry, reader->path);
	if (r == -ENOMEM)
		return no_memory(reader);
	if (r < 0)
		return r;
	item.path = reader->path;
	if (item.type == ARCHIVE_TYPE_SYMLINK || item.type == ARCHIVE_TYPE_HARDLINK)
		item.target = reader->target;
	if (item.type == ARCHIVE_TYPE_FILE)
		item.size = reader->item_size;
	item.mode = archive_entry_mode(reader->entry) & 0777;
	item_mtime(reader, &item);
	*ret = item;
	return 0;
}

/* --- the sequence of entries --- */

static int tar_refuse_record(struct archive_reader *reader, const char *path,
			     const char *problem)
{
	const struct tar_record *record = &reader->tar_record;
	char text[128];

	if (record->path)
		path = record->path;
	if (!record->unknown)
		return refuse(reader, path ? path : record->name, problem);
	snprintf(text, sizeof(text), "%s: type '%c'", problem,
		 isprint((unsigned char)record->type) ? record->type : '?');
	return refuse(reader, path ? path : record->name, text);
}

/* What the walk found must be what libarchive found, at the same place. */
static int tar_match(struct archive_reader *reader)
{
	struct tar_record *record = &reader->tar_record;
	uint64_t position = (uint64_t)archive_read_header_position(reader->lib);

	if (!tar_walk_next(reader->walk, record) || record->start != position)
		return error_set(&reader->failure, -EBADMSG,
				 "the entry at byte %" PRIu64
				 " of the tar has a damaged header: "
				 "fetch the package again",
				 position);
	if (record->problem)
		return tar_refuse_record(reader, lib_path(reader), record->problem);
	return 0;
}

static int tar_end_refuse(struct archive_reader *reader)
{
	return error_set(&reader->failure, -EBADMSG, "%s: fetch the package again",
			 tar_walk_end_problem(reader->walk));
}

/* libarchive failed on an entry; the walk may know better why. */
static int tar_refuse(struct archive_reader *reader)
{
	struct tar_record *record = &reader->tar_record;

	if (reader->stream_failure.code)
		return lib_failure(reader, reader->path, true);
	if (tar_walk_next(reader->walk, record)) {
		if (record->problem)
			return tar_refuse_record(reader, NULL, record->problem);
		return lib_failure(reader, record->path ? record->path : record->name,
				   false);
	}
	if (reader->stream_ended && tar_walk_end_problem(reader->walk))
		return tar_end_refuse(reader);
	return lib_failure(reader, reader->path, true);
}

/* libarchive is content. It stops at the first block of zeros: read on to the file's end,
 * where the walk must have met nothing but the end marker. */
static int tar_end(struct archive_reader *reader)
{
	struct tar_record *record = &reader->tar_record;
	const void *data;
	size_t size;
	int r;

	do {
		if (tar_walk_next(reader->walk, record))
			return tar_refuse_record(reader, NULL,
						 record->problem
							 ? record->problem
							 : "follows the tar's end");
		r = stream_read(reader, &data, &size);
	} while (r > 0 && !tar_walk_is_stopped(reader->walk));
	if (r < 0) {
		reader->failure = reader->stream_failure;
		return r;
	}
	return tar_walk_end_problem(reader->walk) ? tar_end_refuse(reader) : 0;
}

/* Names differ where libarchive changes them: other than ASCII, and the '/' it adds. */
static bool zip_name_fits(const struct zip_record *record, const char *path)
{
	for (size_t i = 0; i < record->name_size; i++)
		if (record->name[i] & 0x80)
			return true;
	return path && !strncmp(path, record->name, record->name_size) &&
	       (!path[record->name_size] || !strcmp(path + record->name_size, "/"));
}

static int zip_match(struct archive_reader *reader)
{
	if (reader->zip_number >= zip_directory_count(reader->zip))
		return error_set(&reader->failure, -EBADMSG,
				 "the zip has more entries than its central directory");
	reader->zip_record = zip_directory_record(reader->zip, reader->zip_number++);
	memcpy(reader->zip_name, reader->zip_record->name, reader->zip_record->name_size);
	reader->zip_name[reader->zip_record->name_size] = '\0';
	if (!zip_name_fits(reader->zip_record, lib_path(reader)))
		return refuse(reader, entry_path(reader),
			      "has two names in the zip that "
			      "disagree");
	return 0;
}

static int zip_end(struct archive_reader *reader)
{
	if (reader->zip_number == zip_directory_count(reader->zip))
		return 0;
	return error_set(&reader->failure, -EBADMSG,
			 "the zip has fewer entries than its central directory");
}

static int reader_end(struct archive_reader *reader)
{
	int r = reader->zip ? zip_end(reader) : tar_end(reader);

	if (r < 0)
		return r;
	reader->state = READER_ENDED;
	stripped_tell(&reader->stripped, reader->warning, reader->context);
	return 0;
}

/* Content that the caller left: its checksum counts all the same. */
static int content_skip(struct archive_reader *reader)
{
	const void *data;
	uint64_t offset;
	size_t size;
	int r;

	do {
		r = archive_read(reader, &data, &size, &offset, NULL);
	} while (r > 0);
	return r;
}

static int lib_next(struct archive_reader *reader)
{
	int r;

	tar_record_done(&reader->tar_record);
	reader->zip_record = NULL;
	reader->header_size = 0;
	reader->in_header = true;
	r = archive_read_next_header(reader->lib, &reader->entry);
	reader->in_header = false;
	return r;
}

static int reader_next(struct archive_reader *reader, struct archive_item *ret)
{
	int r = content_skip(reader);

	if (r < 0)
		return r;
	if (!reader->lib)
		return reader_end(reader);
	r = lib_next(reader);
	if (r == ARCHIVE_EOF && !reader->stream_failure.code)
		return reader_end(reader);
	if (r != ARCHIVE_OK && reader->zip)
		return lib_failure(reader, reader->path, true);
	if (r != ARCHIVE_OK)
		return tar_refuse(reader);
	r = reader->zip ? zip_match(reader) : tar_match(reader);
	if (r == 0)
		r = item_fill(reader, ret);
	return r < 0 ? r : 1;
}

int archive_next(struct archive_reader *reader, struct archive_item *ret,
		 struct error *err)
{
	int r = 0;

	if (reader->state == READER_READING)
		r = reader_next(reader, ret);
	if (r < 0 || reader->state == READER_FAILED)
		return fail(reader, err);
	return r;
}

/* --- content --- */

static int content_end(struct archive_reader *reader)
{
	reader->has_content = false;
	if (reader->item_bytes == reader->item_mapped)
		return 0;
	return refuse(
		reader, reader->path,
		"is damaged (its content does not fit its size or its sparse map): fetch "
		"the package again");
}

static int content_check(struct archive_reader *reader, la_int64_t offset, size_t size)
{
	if (offset < 0 || (uint64_t)offset < reader->item_end ||
	    (uint64_t)offset > reader->item_size ||
	    size > reader->item_size - (uint64_t)offset)
		return refuse(
			reader, reader->path,
			"is damaged (its content is larger than its size, or its sparse "
			"map is out of order): fetch the package again");
	reader->item_end = (uint64_t)offset + size;
	reader->item_bytes += size;
	return 1;
}

static int content_read(struct archive_reader *reader, const void **data, size_t *size,
			la_int64_t *offset)
{
	int r;

	do {
		*size = 0;
		r = archive_read_data_block(reader->lib, data, size, offset);
	} while (r == ARCHIVE_OK && *size == 0);
	if (r == ARCHIVE_EOF)
		return content_end(reader);
	if (r != ARCHIVE_OK)
		return lib_failure(reader, reader->path, false);
	return content_check(reader, *offset, *size);
}

int archive_read(struct archive_reader *reader, const void **ret_data, size_t *ret_size,
		 uint64_t *ret_offset, struct error *err)
{
	const void *data;
	la_int64_t offset;
	size_t size;
	int r = 0;

	if (reader->state == READER_READING && reader->has_content)
		r = content_read(reader, &data, &size, &offset);
	if (r < 0 || reader->state == READER_FAILED)
		return fail(reader, err);
	if (r == 0)
		return 0;
	*ret_data = data;
	*ret_size = size;
	*ret_offset = (uint64_t)offset;
	return 1;
}

uint64_t archive_unpacked_size(const struct archive_reader *reader)
{
	uint64_t size = reader->stream_size;

	for (size_t i = 0; reader->zip && i < zip_directory_count(reader->zip); i++)
		size += zip_directory_record(reader->zip, i)->size;
	return size;
}

uint64_t archive_consumed(const struct archive_reader *reader)
{
	struct stat status;

	if (reader->ahead)
		return unpack_ahead_consumed(reader->ahead);
	/* The central directory is read twice. */
	if (fstat(reader->source.fd, &status) == 0 &&
	    reader->zip_read > (uint64_t)status.st_size)
		return (uint64_t)status.st_size;
	return reader->zip_read;
}

void archive_close(struct archive_reader *reader)
{
	if (!reader)
		return;
	archive_source_stop(&reader->source);
	stripped_tell(&reader->stripped, reader->warning, reader->context);
	if (reader->lib)
		archive_read_free(reader->lib);
	stripped_done(&reader->stripped);
	tar_record_done(&reader->tar_record);
	tar_walk_free(reader->walk);
	unpack_ahead_free(reader->ahead);
	decompressor_free(reader->stream);
	free(reader->first);
	zip_directory_free(reader->zip);
	free(reader->zip_piece);
	free(reader);
}

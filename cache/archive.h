/* SPDX-License-Identifier: Apache-2.0 */
/*
 * archive.h - a package file, read entry by entry
 *
 * libarchive is a reader only (I5). What comes out of here keeps the rules of a package;
 * what does not keep them is refused with the entry's name:
 *
 *  - formats tar (ustar, pax, gnu, v7) and zip; filters none, gzip, bzip2, xz, zstd for
 *    tar; by content
 *  - names: relative, valid UTF-8, no control characters (U+0080 to U+009F neither), no
 *    empty, "." or ".." component, each component at most 255 bytes, 4095 in all. A
 *    leading "./" and a trailing '/' of a directory are left out; "./" or "." itself,
 *    as a directory, is the package's root (name ""). Otherwise byte by byte as stored,
 *    in whatever form of Unicode
 *  - types: directory, regular file, symlink, hard link; only files have content. A fifo
 *    in a zip is a file (Info-ZIP says fifo for what it read from a pipe). A target of a
 *    symlink is 1 to 4095 bytes of UTF-8 without control characters
 *  - set-uid, set-gid, sticky, file capabilities, xattrs, ACLs, file flags are stripped,
 *    with one warning a kind that names the first entry and counts them
 *  - damage: a wrong CRC (gzip's and zip's too), a cut (at an entry boundary too: a tar
 *    needs its two zero blocks), anything but zeros (64 MiB at most) after a tar's end,
 *    garbage after the compressed data, a sparse map that does not fit its data
 *  - a zip whose central directory and local headers disagree, whose entries overlap or
 *    leave gaps, which begins or ends with something else; methods other than stored and
 *    deflated; encryption; '\' in names that were packed on DOS or Windows
 *  - tar: volume labels, continued files, incremental dumps, global pax headers that set
 *    names or sizes; anything about which this code and libarchive do not agree
 *  - memory is bounded: a zstd window of at most 128 MiB, xz at most 256 MiB, a zip's
 *    central directory of 64 MiB, 8 MiB of headers before one entry
 *
 * Whether names repeat, parents are files, or a hard link's target exists is the
 * manifest's business (manifest.h), which sees all entries. So are budgets: an item's
 * size may be a terabyte of hole.
 */
#pragma once

#include "archive_source.h"
#include "error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct archive_reader;

enum archive_type {
	ARCHIVE_TYPE_DIRECTORY,
	ARCHIVE_TYPE_FILE,
	ARCHIVE_TYPE_SYMLINK,
	ARCHIVE_TYPE_HARDLINK,
};

/** One entry; the strings belong to the reader and hold until the next call. */
struct archive_item {
	enum archive_type type;
	const char *path;   /* checked, relative, "" for the root */
	const char *target; /* symlink: as stored; hard link: a checked path; else NULL */
	uint64_t size;      /* regular file: bytes, holes counted */
	mode_t mode;        /* permission bits only, 0 to 0777 */
	int64_t mtime_s;
	uint32_t mtime_ns; /* 0 to 999,999,999 */
};

/** archive_warning_fn() - something was stripped or looks odd; @text is a whole sentence
 */
typedef void archive_warning_fn(void *context, const char *text);

/**
 * archive_open() - begin to read the package in a file
 * @source:   copied; its file and context are borrowed until archive_close(), which calls
 *            its stop(); read with pread(2) from offset 0
 * @warning:  called by the last archive_next(), or by archive_close() when reading ended
 *            early; may be NULL
 *
 * Needs a UTF-8 locale: call setlocale(LC_ALL, "C.UTF-8") once in the process before.
 *
 * May block on the disk and on the source, of which it needs the first 64 KiB, and of a
 * zip all: a zip's end says where everything is. Of a zip it reads all headers.
 *
 * Return: 0; -EBADMSG "an HTML or XML page is not a package format: …" for everything
 * that is not tar or zip, and where a zip's structure or the first piece of the
 * compressed data breaks a rule above; -ENOMEM; the negative errno of pread(2) or
 * of the source.
 */
int archive_open(const struct archive_source *source, archive_warning_fn *warning,
		 void *context, struct archive_reader **ret, struct error *err);

/**
 * archive_next() - the next entry; data that was not read is skipped
 *
 * Content that is skipped is verified like content that is read.
 *
 * Return: 1 with *@ret filled; 0 at the end, when everything up to the file's last byte
 * was found right; -EBADMSG with the entry's name and the rule it breaks; -EIO or another
 * negative errno of pread(2); -ENOMEM. After the end or a failure: the same again. What
 * was read before a failure is not to be trusted.
 */
int archive_next(struct archive_reader *reader, struct archive_item *ret,
		 struct error *err);

/**
 * archive_read() - the next piece of the current regular file's content
 * @ret_data:   belongs to the reader until the next call
 * @ret_size:   bytes, 1 or more
 * @ret_offset: in the file; a gap to the end of the last piece is a hole, and so is a gap
 * to the item's size at the end
 *
 * Return: 1; 0 at the end of the file; the errors of archive_next(). Never more bytes
 * than the item's size.
 */
int archive_read(struct archive_reader *reader, const void **ret_data, size_t *ret_size,
		 uint64_t *ret_offset, struct error *err);

/**
 * archive_unpacked_size() - bytes that the package unpacks to, where they are known
 * before it is read: of a zip, a plain tar, and a zstd file that announces them. A hint.
 * Return: 0 where they are not known.
 */
uint64_t archive_unpacked_size(const struct archive_reader *reader);

/** archive_consumed() - bytes of the package file that have been read, for progress */
uint64_t archive_consumed(const struct archive_reader *reader);

/** archive_close() - NULL is allowed */
void archive_close(struct archive_reader *reader);

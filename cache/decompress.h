/* SPDX-License-Identifier: Apache-2.0 */
/*
 * decompress.h - a file's content as a stream of bytes whose end is known for certain
 *
 * gzip, bzip2, xz, zstd, or none of them; by the file's first bytes, not by its name.
 * Every member, stream or frame of the compressor is unpacked, each with its own checksum
 * verified. The end of the stream is the end of the file: what follows the last member
 * and is not another one is refused, and so is a file that ends inside one.
 *
 * The libraries are used directly. libarchive 3.6's filters check no CRC of gzip, leave
 * what follows the last member of gzip and bzip2 unread, and set no limit to xz's memory
 * (a dictionary of 3 GiB was accepted). Its zstd would do, but four of a kind are simpler
 * than three and one.
 */
#pragma once

#include "archive_source.h"
#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DECOMPRESS_ZSTD_WINDOW_LOG 27             /* 128 MiB */
#define DECOMPRESS_XZ_MEMORY       (256ull << 20) /* bytes */
#define DECOMPRESS_PIECE_SIZE      ((size_t)64 << 10)

struct decompressor;

/**
 * decompressor_open() - begin to unpack a file
 * @source: copied; read with pread(2) from offset 0
 *
 * Waits for the first 64 KiB. Return: 0; -ENOMEM; the negative errno of pread(2) or of
 * the source.
 */
int decompressor_open(const struct archive_source *source, struct decompressor **ret,
		      struct error *err);

/**
 * decompressor_read() - the next bytes of the stream
 * @buffer:   DECOMPRESS_PIECE_SIZE bytes
 * @ret_size: bytes; the whole of the buffer except at the end
 *
 * Return: 1; 0 at the end, when the file's last byte was read and found right; -EBADMSG
 * when it is damaged, cut off, followed by something else or needs too much memory;
 * -ENOMEM; the negative errno of pread(2). After a failure: the same failure again.
 */
int decompressor_read(struct decompressor *d, void *buffer, size_t *ret_size,
		      struct error *err);

/** decompressor_is_plain() - whether the file was packed with none of the compressors */
bool decompressor_is_plain(const struct decompressor *d);

/**
 * decompressor_size() - bytes of the whole stream, where they are known before
 * A plain file's size, unless it still grows; what the first frame of a zstd file
 * announces, which a compressor that reads from a pipe does not. Announced by whoever
 * made the file: a hint. Return: 0 where it is not known.
 */
uint64_t decompressor_size(const struct decompressor *d);

/** decompressor_consumed() - bytes of the file that were read */
uint64_t decompressor_consumed(const struct decompressor *d);

/** decompressor_free() - NULL is allowed */
void decompressor_free(struct decompressor *d);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A member is what one run of a compressor wrote: gzip's member, bzip2's and xz's stream,
 * zstd's frame. States:
 *
 *   BETWEEN  -- the next bytes begin a member --> MEMBER
 *            -- the file has ended            --> END
 *   MEMBER   -- the member's end was verified --> BETWEEN
 *   any      -- damage                        --> FAILED
 */
#include "decompress.h"

#include "cleanup.h"

#include <bzlib.h>
#include <errno.h>
#include <lzma.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define ZSTD_HEAD_SIZE 18 /* the longest frame header, RFC 8878 3.1.1.1 and the magic */
#define INPUT_SIZE     ((size_t)64 << 10)
#define MAGIC_SIZE     6 /* bytes, as many as the longest magic has */

enum step {
	STEP_MORE, /* call again */
	STEP_END,  /* the member is complete and was verified */
};

enum state {
	STATE_BETWEEN,
	STATE_MEMBER,
	STATE_END,
	STATE_FAILED,
};

/* How one compressor is driven. The functions work on the buffers of the decompressor. */
struct codec {
	const char *name;
	bool (*magic)(const unsigned char *data, size_t size);
	bool padding; /* zeros may follow a member, in fours */
	int (*start)(struct decompressor *d, struct error *err); /* of a member */
	int (*step)(struct decompressor *d, struct error *err);  /* enum step or error */
	void (*stop)(struct decompressor *d);
};

struct decompressor {
	struct archive_source source;
	uint64_t file_end;    /* what the source has, as far as we know */
	uint64_t file_offset; /* where the next pread(2) begins */
	bool file_ended;      /* there is nothing behind file_offset */
	const struct codec *codec;
	enum state state;
	struct error failure; /* in STATE_FAILED */
	bool started;         /* the library's state below exists */
	union {
		z_stream gzip;
		bz_stream bzip2;
		lzma_stream xz;
		ZSTD_DStream *zstd;
	};
	size_t input_at, input_end;
	unsigned char *output; /* the caller's, DECOMPRESS_PIECE_SIZE bytes */
	size_t output_end;
	unsigned char input[INPUT_SIZE];
};

DEFINE_CLEANUP(struct decompressor, decompressor_free)

static unsigned char *input_data(struct decompressor *d)
{
	return d->input + d->input_at;
}

static size_t input_size(const struct decompressor *d)
{
	return d->input_end - d->input_at;
}

static bool input_is_last(const struct decompressor *d)
{
	return d->file_ended;
}

static int damaged(struct decompressor *d, struct error *err, const char *reason)
{
	uint64_t offset = d->file_offset - input_size(d);

	return error_set(
		err, -EBADMSG,
		"the %s data are damaged near byte %llu of the file (%s): fetch the "
		"package again",
		d->codec->name, (unsigned long long)offset, reason);
}

static int no_memory(struct decompressor *d, struct error *err)
{
	return error_set(err, -ENOMEM, "cannot unpack the %s data: out of memory",
			 d->codec->name);
}

/* --- none --- */

static int plain_start(struct decompressor *d, struct error *err)
{
	return 0;
}

static int plain_step(struct decompressor *d, struct error *err)
{
	size_t room = DECOMPRESS_PIECE_SIZE - d->output_end;
	size_t size = input_size(d) < room ? input_size(d) : room;

	memcpy(d->output + d->output_end, input_data(d), size);
	d->input_at += size;
	d->output_end += size;
	return input_size(d) == 0 && input_is_last(d) ? STEP_END : STEP_MORE;
}

static void plain_stop(struct decompressor *d)
{
}

static bool plain_magic(const unsigned char *data, size_t size)
{
	return true;
}

/* --- gzip --- */

static bool gzip_magic(const unsigned char *data, size_t size)
{
	return size >= 3 && !memcmp(data, "\x1f\x8b\x08", 3);
}

static int gzip_start(struct decompressor *d, struct error *err)
{
	if (d->started)
		return inflateReset(&d->gzip) == Z_OK ? 0 : -EINVAL;
	/* 16: only gzip's format, whose CRC and length inflate() then verifies. */
	return inflateInit2(&d->gzip, 15 + 16) == Z_OK ? 0 : no_memory(d, err);
}

static int gzip_step(struct decompressor *d, struct error *err)
{
	z_stream *z = &d->gzip;
	int r;

	z->next_in = input_data(d);
	z->avail_in = (uInt)input_size(d);
	z->next_out = d->output + d->output_end;
	z->avail_out = (uInt)(DECOMPRESS_PIECE_SIZE - d->output_end);
	r = inflate(z, Z_NO_FLUSH);
	d->input_at = d->input_end - z->avail_in;
	d->output_end = DECOMPRESS_PIECE_SIZE - z->avail_out;
	switch (r) {
	case Z_STREAM_END:
		return STEP_END;
	case Z_OK:
	case Z_BUF_ERROR:
		return STEP_MORE;
	case Z_MEM_ERROR:
		return no_memory(d, err);
	default:
		return damaged(d, err, z->msg ? z->msg : "inflate failed");
	}
}

static void gzip_stop(struct decompressor *d)
{
	inflateEnd(&d->gzip);
}

/* --- bzip2 --- */

static bool bzip2_magic(const unsigned char *data, size_t size)
{
	return size >= 4 && !memcmp(data, "BZh", 3) && data[3] >= '1' && data[3] <= '9';
}

static int bzip2_start(struct decompressor *d, struct error *err)
{
	if (d->started)
		BZ2_bzDecompressEnd(&d->bzip2);
	d->started = false;
	memset(&d->bzip2, 0, sizeof(d->bzip2));
	return BZ2_bzDecompressInit(&d->bzip2, 0, 0) == BZ_OK ? 0 : no_memory(d, err);
}

static int bzip2_step(struct decompressor *d, struct error *err)
{
	bz_stream *b = &d->bzip2;
	int r;

	b->next_in = (char *)input_data(d);
	b->avail_in = (unsigned)input_size(d);
	b->next_out = (char *)d->output + d->output_end;
	b->avail_out = (unsigned)(DECOMPRESS_PIECE_SIZE - d->output_end);
	r = BZ2_bzDecompress(b);
	d->input_at = d->input_end - b->avail_in;
	d->output_end = DECOMPRESS_PIECE_SIZE - b->avail_out;
	switch (r) {
	case BZ_STREAM_END:
		return STEP_END;
	case BZ_OK:
		return STEP_MORE;
	case BZ_MEM_ERROR:
		return no_memory(d, err);
	default:
		return damaged(d, err, "a checksum or the format is wrong");
	}
}

static void bzip2_stop(struct decompressor *d)
{
	BZ2_bzDecompressEnd(&d->bzip2);
}

/* --- xz --- */

static bool xz_magic(const unsigned char *data, size_t size)
{
	return size >= 6 && !memcmp(data,
				    "\xfd"
				    "7zXZ\0",
				    6);
}

static int xz_start(struct decompressor *d, struct error *err)
{
	/* An integrity check that this liblzma cannot verify is refused. */
	const uint32_t flags = LZMA_TELL_UNSUPPORTED_CHECK;
	int r;

	if (!d->started)
		d->xz = (lzma_stream)LZMA_STREAM_INIT;
	r = lzma_stream_decoder(&d->xz, DECOMPRESS_XZ_MEMORY, flags);
	return r == LZMA_OK ? 0 : no_memory(d, err);
}

static int xz_step(struct decompressor *d, struct error *err)
{
	lzma_stream *x = &d->xz;
	int r;

	x->next_in = input_data(d);
	x->avail_in = input_size(d);
	x->next_out = d->output + d->output_end;
	x->avail_out = DECOMPRESS_PIECE_SIZE - d->output_end;
	r = lzma_code(x, LZMA_RUN);
	d->input_at = d->input_end - x->avail_in;
	d->output_end = DECOMPRESS_PIECE_SIZE - x->avail_out;
	switch (r) {
	case LZMA_STREAM_END:
		return STEP_END;
	case LZMA_OK:
	case LZMA_BUF_ERROR:
		return STEP_MORE;
	case LZMA_MEM_ERROR:
		return no_memory(d, err);
	case LZMA_MEMLIMIT_ERROR:
		return error_set(
			err, -EBADMSG,
			"unpacking needs %llu MiB of memory, more than the 256 MiB "
			"allowed for xz: pack it with a smaller dictionary (xz -9 or "
			"less)",
			(unsigned long long)(lzma_memusage(x) >> 20));
	case LZMA_UNSUPPORTED_CHECK:
		return damaged(d, err, "an integrity check of an unknown kind");
	default:
		return damaged(d, err, "a checksum or the format is wrong");
	}
}

static void xz_stop(struct decompressor *d)
{
	lzma_end(&d->xz);
}

/* --- zstd --- */

static bool zstd_magic(const unsigned char *data, size_t size)
{
	if (size < 4)
		return false;
	if (!memcmp(data, "\x28\xb5\x2f\xfd", 4))
		return true;
	/* A skippable frame, as pzstd writes in front. */
	return (data[0] & 0xf0) == 0x50 && !memcmp(data + 1, "\x2a\x4d\x18", 3);
}

static int zstd_start(struct decompressor *d, struct error *err)
{
	if (d->started) {
		ZSTD_DCtx_reset(d->zstd, ZSTD_reset_session_only);
		return 0;
	}
	d->zstd = ZSTD_createDStream();
	if (!d->zstd)
		return no_memory(d, err);
	ZSTD_DCtx_setParameter(d->zstd, ZSTD_d_windowLogMax, DECOMPRESS_ZSTD_WINDOW_LOG);
	return 0;
}

static int zstd_step(struct decompressor *d, struct error *err)
{
	ZSTD_inBuffer in = {d->input, d->input_end, d->input_at};
	ZSTD_outBuffer out = {d->output, DECOMPRESS_PIECE_SIZE, d->output_end};
	size_t r = ZSTD_decompressStream(d->zstd, &out, &in);

	d->input_at = in.pos;
	d->output_end = out.pos;
	if (!ZSTD_isError(r))
		return r == 0 ? STEP_END : STEP_MORE;
	switch (ZSTD_getErrorCode(r)) {
	case ZSTD_error_memory_allocation:
		return no_memory(d, err);
	case ZSTD_error_frameParameter_windowTooLarge:
		return error_set(
			err, -EBADMSG,
			"unpacking needs a zstd window of more than 128 MiB: pack it "
			"with --long=27 or less");
	default:
		return damaged(d, err, ZSTD_getErrorName(r));
	}
}

static void zstd_stop(struct decompressor *d)
{
	ZSTD_freeDStream(d->zstd);
}

static const struct codec codecs[] = {
	{"gzip", gzip_magic, false, gzip_start, gzip_step, gzip_stop},
	{"bzip2", bzip2_magic, false, bzip2_start, bzip2_step, bzip2_stop},
	{"xz", xz_magic, true, xz_start, xz_step, xz_stop},
	{"zstd", zstd_magic, false, zstd_start, zstd_step, zstd_stop},
	{"plain", plain_magic, false, plain_start, plain_step, plain_stop}, /* the last */
};

/* --- the stream --- */

/* Learn how far the file reaches, when all that was there is read. */
static int file_wait(struct decompressor *d, struct error *err)
{
	int r = 0;

	if (d->file_offset == d->file_end && !d->file_ended) {
		r = archive_source_wait(&d->source, d->file_offset, &d->file_end, err);
		d->file_ended = r == 0 && d->file_end <= d->file_offset;
	}
	return r;
}

static int input_read(struct decompressor *d, struct error *err)
{
	uint64_t left = d->file_end - d->file_offset;
	size_t room = INPUT_SIZE - d->input_end;
	ssize_t n;

	do {
		n = pread(d->source.fd, d->input + d->input_end,
			  left < room ? left : room, (off_t)d->file_offset);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return error_set(err, -errno, "cannot read the package: %s",
				 strerror(errno));
	if (n == 0)
		return error_set(err, -EIO,
				 "the package became shorter while it was read");
	d->input_end += (size_t)n;
	d->file_offset += (uint64_t)n;
	return 0;
}

/* Read on when there is room; what is left over is moved to the front. */
static int input_fill(struct decompressor *d, struct error *err)
{
	memmove(d->input, input_data(d), input_size(d));
	d->input_end -= d->input_at;
	d->input_at = 0;
	while (d->input_end < INPUT_SIZE) {
		int r = file_wait(d, err);

		if (r == 0 && !d->file_ended)
			r = input_read(d, err);
		if (r < 0 || d->file_ended)
			return r;
	}
	return 0;
}

static int member_start(struct decompressor *d, struct error *err)
{
	int r = d->codec->start(d, err);

	if (r < 0)
		return r;
	d->started = true;
	d->state = STATE_MEMBER;
	return 0;
}

static int skip_padding(struct decompressor *d, struct error *err)
{
	size_t zeros = 0;

	while (zeros < input_size(d) && !input_data(d)[zeros])
		zeros++;
	if (input_size(d) - zeros < MAGIC_SIZE && !input_is_last(d))
		zeros -= zeros % 4; /* the rest of a group may be in the next piece */
	if (zeros % 4)
		return error_set(err, -EBADMSG,
				 "there are odd zeros after the end of the %s "
				 "data: fetch the package again",
				 d->codec->name);
	d->input_at += zeros;
	return 0;
}

static int between(struct decompressor *d, struct error *err)
{
	int r;

	do {
		r = input_size(d) < MAGIC_SIZE ? input_fill(d, err) : 0;
		if (r == 0 && d->codec->padding)
			r = skip_padding(d, err);
		if (r < 0)
			return r;
	} while (input_size(d) < MAGIC_SIZE && !input_is_last(d));
	if (input_size(d) == 0) {
		d->state = STATE_END;
		return 0;
	}
	if (!d->codec->magic(input_data(d), input_size(d)))
		return error_set(
			err, -EBADMSG,
			"there are other data after the end of the %s data, at byte "
			"%llu of the file: fetch the package again",
			d->codec->name,
			(unsigned long long)(d->file_offset - input_size(d)));
	return member_start(d, err);
}

static int member(struct decompressor *d, struct error *err)
{
	size_t input, output = d->output_end;
	int r;

	if (input_size(d) == 0) {
		r = input_fill(d, err);
		if (r < 0)
			return r;
	}
	input = input_size(d);
	r = d->codec->step(d, err);
	if (r < 0)
		return r;
	if (r == STEP_END) {
		d->state = STATE_BETWEEN;
		return 0;
	}
	if (input_size(d) < input || d->output_end > output)
		return 0;
	if (input > 0)
		return damaged(d, err, "it makes no progress");
	return error_set(
		err, -EBADMSG,
		"the %s data are cut off after %llu bytes: fetch the package again",
		d->codec->name, (unsigned long long)d->file_offset);
}

static int output_fill(struct decompressor *d, struct error *err)
{
	int r = 0;

	while (r == 0 && d->output_end < DECOMPRESS_PIECE_SIZE && d->state != STATE_END)
		r = d->state == STATE_MEMBER ? member(d, err) : between(d, err);
	return r;
}

int decompressor_read(struct decompressor *d, void *buffer, size_t *ret_size,
		      struct error *err)
{
	d->output = buffer;
	d->output_end = 0;
	if (d->state != STATE_FAILED && output_fill(d, &d->failure) < 0)
		d->state = STATE_FAILED;
	if (d->state == STATE_FAILED)
		return error_set(err, d->failure.code, "%s", d->failure.text);
	if (d->output_end == 0)
		return 0;
	*ret_size = d->output_end;
	return 1;
}

static const struct codec *codec_find(const unsigned char *data, size_t size)
{
	const struct codec *codec = codecs;

	while (!codec->magic(data, size))
		codec++;
	return codec;
}

int decompressor_open(const struct archive_source *source, struct decompressor **ret,
		      struct error *err)
{
	cleanup(decompressor_free_ptr) struct decompressor *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return error_set(err, -ENOMEM, "cannot open the package: out of memory");
	d->source = *source;
	d->state = STATE_BETWEEN;
	r = input_fill(d, err);
	if (r < 0)
		return r;
	d->codec = codec_find(d->input, d->input_end);
	*ret = take_ptr(d);
	return 0;
}

bool decompressor_is_plain(const struct decompressor *d)
{
	return d->codec->magic == plain_magic;
}

uint64_t decompressor_size(const struct decompressor *d)
{
	unsigned char head[ZSTD_HEAD_SIZE];
	unsigned long long size;
	ssize_t n;

	if (decompressor_is_plain(d))
		return d->source.wait ? 0 : d->file_end;
	if (d->codec->magic != zstd_magic)
		return 0;
	n = pread(d->source.fd, head, sizeof(head), 0);
	size = n > 0 ? ZSTD_getFrameContentSize(head, (size_t)n)
		     : ZSTD_CONTENTSIZE_UNKNOWN;
	return size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR ? 0
										  : size;
}

uint64_t decompressor_consumed(const struct decompressor *d)
{
	return d->file_offset;
}

void decompressor_free(struct decompressor *d)
{
	if (!d)
		return;
	if (d->started)
		d->codec->stop(d);
	free(d);
}

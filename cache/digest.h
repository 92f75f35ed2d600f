/* SPDX-License-Identifier: Apache-2.0 */
/*
 * digest.h - SHA-256 for authenticity (libcrypto), XXH3-128 for bit rot and likeness
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SHA256_SIZE      32
#define SHA256_TEXT_SIZE 65 /* 64 hexadecimal digits and the NUL */
#define CHECKSUM_SIZE    16

struct sha256; /* a running SHA-256 */

/** sha256_new() - NULL when out of memory */
struct sha256 *sha256_new(void);
void sha256_free(struct sha256 *sum);
void sha256_reset(struct sha256 *sum);
void sha256_update(struct sha256 *sum, const void *data, size_t size);
/** sha256_final() - the sum of all since the last reset; reset before further use */
void sha256_final(struct sha256 *sum, unsigned char ret[static SHA256_SIZE]);

/**
 * sha256_peek() - the sum so far, which goes on unchanged; false when out of memory
 */
bool sha256_peek(const struct sha256 *sum, unsigned char ret[static SHA256_SIZE]);

/** sha256_format() - lower-case hexadecimal; returns @text */
const char *sha256_format(const unsigned char sum[static SHA256_SIZE],
			  char text[static SHA256_TEXT_SIZE]);

/** sha256_parse() - from 64 hexadecimal digits of either case, @size being 64; else false
 */
bool sha256_parse(const char *text, size_t size, unsigned char ret[static SHA256_SIZE]);

/** A 128-bit XXH3 sum in its canonical (big-endian) form. */
struct checksum {
	unsigned char bytes[CHECKSUM_SIZE];
};

/** checksum_of() - the checksum of @size bytes */
struct checksum checksum_of(const void *data, size_t size);

/** checksum_equal() */
bool checksum_equal(const struct checksum *left, const struct checksum *right);

/* SPDX-License-Identifier: Apache-2.0 */
#include "digest.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct sha256 {
	EVP_MD_CTX *context;
};

struct sha256 *sha256_new(void)
{
	struct sha256 *sum = calloc(1, sizeof(*sum));

	if (!sum)
		return NULL;
	sum->context = EVP_MD_CTX_new();
	if (!sum->context || !EVP_DigestInit_ex(sum->context, EVP_sha256(), NULL)) {
		sha256_free(sum);
		return NULL;
	}
	return sum;
}

void sha256_free(struct sha256 *sum)
{
	if (!sum)
		return;
	EVP_MD_CTX_free(sum->context);
	free(sum);
}

void sha256_reset(struct sha256 *sum)
{
	/* Cannot fail on a context that was initialised with the same type before. */
	EVP_DigestInit_ex(sum->context, NULL, NULL);
}

void sha256_update(struct sha256 *sum, const void *data, size_t size)
{
	EVP_DigestUpdate(sum->context, data, size);
}

void sha256_final(struct sha256 *sum, unsigned char ret[static SHA256_SIZE])
{
	EVP_DigestFinal_ex(sum->context, ret, NULL);
}

bool sha256_peek(const struct sha256 *sum, unsigned char ret[static SHA256_SIZE])
{
	EVP_MD_CTX *copy = EVP_MD_CTX_new();
	bool done = copy && EVP_MD_CTX_copy_ex(copy, sum->context) &&
		    EVP_DigestFinal_ex(copy, ret, NULL);

	EVP_MD_CTX_free(copy);
	return done;
}

const char *sha256_format(const unsigned char sum[static SHA256_SIZE],
			  char text[static SHA256_TEXT_SIZE])
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < SHA256_SIZE; i++) {
		text[2 * i] = digits[sum[i] >> 4];
		text[2 * i + 1] = digits[sum[i] & 15];
	}
	text[SHA256_TEXT_SIZE - 1] = '\0';
	return text;
}

static int digit_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool sha256_parse(const char *text, size_t size, unsigned char ret[static SHA256_SIZE])
{
	unsigned char sum[SHA256_SIZE];

	if (size != SHA256_TEXT_SIZE - 1)
		return false;
	for (size_t i = 0; i < SHA256_SIZE; i++) {
		int high = digit_value(text[2 * i]), low = digit_value(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		sum[i] = (unsigned char)(high << 4 | low);
	}
	memcpy(ret, sum, sizeof(sum));
	return true;
}

struct checksum checksum_of(const void *data, size_t size)
{
	XXH128_canonical_t canonical;
	struct checksum sum;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits(data, size));
	memcpy(sum.bytes, canonical.digest, sizeof(sum.bytes));
	return sum;
}

bool checksum_equal(const struct checksum *left, const struct checksum *right)
{
	return !memcmp(left->bytes, right->bytes, sizeof(left->bytes));
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A version is compared as a sequence of tokens, each of which has its place in one total
 * order: pre-release word < end < character or number. So the order of versions is total
 * too, and a sort of any list of them has one result.
 */
#include "name.h"

#include <string.h>
#include <strings.h>

enum token_kind {
	TOKEN_PRERELEASE,
	TOKEN_END,
	TOKEN_TEXT,
};

struct token {
	enum token_kind kind;
	unsigned word;      /* of a pre-release: its place in words[] */
	char c;             /* of text: the character, '0' for a number */
	const char *digits; /* of a number: without leading zeros */
	size_t digit_count;
};

struct reader {
	const char *at;
	const char *end;
	bool words;  /* a pre-release word may still come */
	bool digits; /* a digit has come */
};

/* In the order of the alphabet, which is their order as versions. */
static const char *const words[] = {
	"a", "alpha", "b", "beta", "dev", "nightly", "pre", "preview", "rc", "snapshot",
};

#define WORD_COUNT (sizeof(words) / sizeof(words[0]))

/* ctype.h depends on the locale; names do not. */
static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool name_valid(const char *name)
{
	size_t size = strnlen(name, NAME_LENGTH_MAX + 1);

	if (size == 0 || size > NAME_LENGTH_MAX)
		return false;
	if (!is_digit(name[0]) && !is_letter(name[0]))
		return false;
	for (size_t i = 1; i < size; i++)
		if (!is_digit(name[i]) && !is_letter(name[i]) && !strchr("._+-", name[i]))
			return false;
	return true;
}

/* The place in words[] of the letters that begin at @text; WORD_COUNT if it is none. */
static unsigned word_find(const char *text, const char *end)
{
	size_t size = 0;
	unsigned i;

	while (text + size < end && is_letter(text[size]))
		size++;
	for (i = 0; i < WORD_COUNT; i++)
		if (strlen(words[i]) == size && !strncasecmp(words[i], text, size))
			break;
	return i;
}

/* A pre-release word, with the separators before it: it must begin a part, and a digit
 * must have come before. */
static bool reader_take_word(struct reader *reader, struct token *ret)
{
	const char *text = reader->at;
	unsigned word;

	if (!reader->words || !reader->digits || is_letter(text[-1]))
		return false;
	while (text < reader->end && !is_digit(*text) && !is_letter(*text))
		text++;
	word = word_find(text, reader->end);
	if (word == WORD_COUNT)
		return false;
	reader->at = text + strlen(words[word]);
	reader->words = false;
	*ret = (struct token){.kind = TOKEN_PRERELEASE, .word = word};
	return true;
}

static struct token reader_take_number(struct reader *reader)
{
	struct token token = {.kind = TOKEN_TEXT, .c = '0'};

	while (reader->at < reader->end && *reader->at == '0')
		reader->at++;
	reader->digits = true;
	token.digits = reader->at;
	while (reader->at < reader->end && is_digit(*reader->at))
		reader->at++;
	token.digit_count = (size_t)(reader->at - token.digits);
	return token;
}

static struct token reader_take(struct reader *reader)
{
	struct token token = {.kind = TOKEN_END};

	if (reader->at == reader->end || reader_take_word(reader, &token))
		return token;
	if (is_digit(*reader->at))
		return reader_take_number(reader);
	return (struct token){.kind = TOKEN_TEXT, .c = *reader->at++};
}

static int token_compare(const struct token *left, const struct token *right)
{
	if (left->kind != right->kind)
		return left->kind < right->kind ? -1 : 1;
	if (left->word != right->word)
		return left->word < right->word ? -1 : 1;
	if (left->c != right->c)
		return left->c < right->c ? -1 : 1;
	if (left->digit_count != right->digit_count)
		return left->digit_count < right->digit_count ? -1 : 1;
	return left->digits ? memcmp(left->digits, right->digits, left->digit_count) : 0;
}

static int reader_compare(struct reader left, struct reader right)
{
	struct token a, b;
	int order;

	do {
		a = reader_take(&left);
		b = reader_take(&right);
		order = token_compare(&a, &b);
	} while (order == 0 && a.kind != TOKEN_END);
	return order;
}

/* What comes before the build metadata, and the metadata with its '+'. */
static struct reader reader_of_version(const char *version)
{
	return (struct reader){
		.at = version,
		.end = strchrnul(version, '+'),
		.words = true,
	};
}

static struct reader reader_of_build(const char *version)
{
	return (struct reader){
		.at = strchrnul(version, '+'),
		.end = strchr(version, '\0'),
	};
}

int version_compare(const char *left, const char *right)
{
	int order;

	order = reader_compare(reader_of_version(left), reader_of_version(right));
	if (order == 0)
		order = reader_compare(reader_of_build(left), reader_of_build(right));
	return order ? order : strcmp(left, right);
}

bool version_is_prerelease(const char *version)
{
	struct reader reader = reader_of_version(version);
	struct token token;

	do {
		token = reader_take(&reader);
	} while (token.kind == TOKEN_TEXT);
	return token.kind == TOKEN_PRERELEASE;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "size.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define KIB 1024ULL
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define TIB (1024 * GIB)

#define SECOND_MS       1000ULL
#define MINUTE_MS       (60 * SECOND_MS)
#define HOUR_MS         (60 * MINUTE_MS)
#define DAY_MS          (24 * HOUR_MS)
#define DURATION_MAX_MS (3653 * DAY_MS)

struct unit {
	const char *name;
	uint64_t factor;
};

static const struct unit size_units[] = {
	{"", 1},
	{"B", 1},
	{"KiB", KIB},
	{"MiB", MIB},
	{"GiB", GIB},
	{"TiB", TIB},
	{"kB", 1000ULL},
	{"KB", 1000ULL},
	{"MB", 1000000ULL},
	{"GB", 1000000000ULL},
	{"TB", 1000000000000ULL},
	{NULL, 0},
};

static const struct unit duration_units[] = {
	{"ms", 1},      {"s", SECOND_MS}, {"min", MINUTE_MS},
	{"h", HOUR_MS}, {"d", DAY_MS},    {NULL, 0},
};

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* The digits at *@text; moves *@text behind them. */
static int parse_whole(const char **text, uint64_t *ret)
{
	const char *c = *text;
	uint64_t value = 0;

	if (!is_digit(*c))
		return -EINVAL;
	for (; is_digit(*c); c++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*c - '0'), &value))
			return -ERANGE;
	*text = c;
	*ret = value;
	return 0;
}

/* ".25" as 250,000 millionths; what comes after the sixth digit is cut. */
static int parse_millionths(const char **text, uint64_t *ret)
{
	const char *c = *text;
	uint64_t value = 0, weight = 100000;

	*ret = 0;
	if (*c != '.')
		return 0;
	c++;
	if (!is_digit(*c))
		return -EINVAL;
	for (; is_digit(*c); c++, weight /= 10)
		value += (uint64_t)(*c - '0') * weight;
	*text = c;
	*ret = value;
	return 0;
}

/* @name may have blanks before it, but none alone. */
static const struct unit *unit_find(const struct unit *units, const char *name)
{
	if (*name == ' ') {
		name += strspn(name, " ");
		if (!*name)
			return NULL;
	}
	for (; units->name; units++)
		if (!strcmp(units->name, name))
			return units;
	return NULL;
}

int size_parse(const char *text, uint64_t *ret_bytes)
{
	uint64_t whole, millionths, bytes;
	const struct unit *unit;
	int r;

	r = parse_whole(&text, &whole);
	if (r < 0)
		return r;
	r = parse_millionths(&text, &millionths);
	if (r < 0)
		return r;
	unit = unit_find(size_units, text);
	if (!unit)
		return -EINVAL;
	if (__builtin_mul_overflow(whole, unit->factor, &bytes) ||
	    __builtin_add_overflow(bytes, millionths * unit->factor / 1000000, &bytes) ||
	    bytes > INT64_MAX)
		return -ERANGE;
	*ret_bytes = bytes;
	return 0;
}

const char *size_format(uint64_t bytes, char text[static 32])
{
	static const char *const names[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	uint64_t unit = KIB, tenths;
	unsigned i = 0;

	if (bytes < KIB) {
		snprintf(text, 32, "%u B", (unsigned)bytes);
		return text;
	}
	/* Rounded first, so that 1023.97 KiB is 1.0 MiB and not 1024.0 KiB. */
	for (;; i++, unit *= 1024) {
		tenths = bytes / unit * 10 +
			 (bytes % unit / (unit / KIB) * 10 + 512) / 1024;
		if (tenths < 10240 || i == sizeof(names) / sizeof(names[0]) - 1)
			break;
	}
	snprintf(text, 32, "%u.%u %s", (unsigned)(tenths / 10), (unsigned)(tenths % 10),
		 names[i]);
	return text;
}

int duration_parse(const char *text, uint64_t *ret_ms)
{
	const struct unit *unit;
	uint64_t whole, ms;
	int r;

	r = parse_whole(&text, &whole);
	if (r < 0)
		return r;
	unit = unit_find(duration_units, text);
	if (!unit)
		return -EINVAL;
	if (__builtin_mul_overflow(whole, unit->factor, &ms) || ms > DURATION_MAX_MS)
		return -ERANGE;
	*ret_ms = ms;
	return 0;
}

const char *duration_format(uint64_t seconds, char text[static 32])
{
	static const struct {
		const char *name, *rest_name;
		uint64_t seconds, rest;
	} steps[] = {
		{"d", "h", 86400, 3600},
		{"h", "min", 3600, 60},
		{"min", "s", 60, 1},
	};

	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
		unsigned long whole = seconds / steps[i].seconds;
		unsigned rest = (unsigned)(seconds % steps[i].seconds / steps[i].rest);

		if (whole && rest)
			snprintf(text, 32, "%lu%s %u%s", whole, steps[i].name, rest,
				 steps[i].rest_name);
		else if (whole)
			snprintf(text, 32, "%lu%s", whole, steps[i].name);
		if (whole)
			return text;
	}
	snprintf(text, 32, "%us", (unsigned)seconds);
	return text;
}

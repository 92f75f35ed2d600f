/* SPDX-License-Identifier: Apache-2.0 */
#include "package_kind.h"

#include <ctype.h>
#include <string.h>

static const struct known_kind {
	const char *magic;
	size_t size;
	const char *name;
} known_kinds[] = {
	{"\xed\xab\xee\xdb", 4, "an rpm package"},
	{"!<arch>\n", 8, "a Debian package or static library"},
	{"\x7f"
	 "ELF",
	 4, "a program"},
	{"7z\xbc\xaf\x27\x1c", 6, "a 7-Zip archive"},
	{"Rar!", 4, "a RAR archive"},
	{"#!", 2, "a script"},
	{"PK", 2, "a part of a zip"},
};

const char *package_kind_name(const unsigned char *data, size_t size)
{
	size_t at = 0;

	if (size == 0)
		return "an empty file";
	for (size_t i = 0; i < sizeof(known_kinds) / sizeof(known_kinds[0]); i++)
		if (size >= known_kinds[i].size &&
		    !memcmp(data, known_kinds[i].magic, known_kinds[i].size))
			return known_kinds[i].name;
	while (at < size && isspace(data[at]))
		at++;
	if (at < size && data[at] == '<')
		return "an HTML or XML page";
	return "a file of an unknown kind";
}

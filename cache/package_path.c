/* SPDX-License-Identifier: Apache-2.0 */
#include "package_path.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* The length of the character at @text and its code point; 0 when it is not UTF-8. */
static size_t utf8_character(const unsigned char *text, uint32_t *ret)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	uint32_t point;
	size_t size;

	if (text[0] < 0x80) {
		*ret = text[0];
		return 1;
	}
	if ((text[0] & 0xe0) == 0xc0)
		size = 2;
	else if ((text[0] & 0xf0) == 0xe0)
		size = 3;
	else if ((text[0] & 0xf8) == 0xf0)
		size = 4;
	else
		return 0;
	point = text[0] & (0x7fu >> size);
	for (size_t i = 1; i < size; i++) {
		if ((text[i] & 0xc0) != 0x80) /* the NUL at the end, too */
			return 0;
		point = point << 6 | (text[i] & 0x3f);
	}
	if (point < least[size] || point > 0x10ffff ||
	    (point >= 0xd800 && point <= 0xdfff))
		return 0;
	*ret = point;
	return size;
}

static bool is_control(uint32_t point)
{
	return point < 0x20 || (point >= 0x7f && point < 0xa0);
}

static const char *text_check(const char *text)
{
	const unsigned char *c = (const unsigned char *)text;

	while (*c) {
		uint32_t point;
		size_t size = utf8_character(c, &point);

		if (!size)
			return "is not valid UTF-8";
		if (is_control(point))
			return "contains a control character";
		c += size;
	}
	return NULL;
}

static const char *component_check(const char *name, size_t size)
{
	if (size == 0)
		return "has an empty component";
	if (size == 1 && name[0] == '.')
		return "has a '.' component";
	if (size == 2 && !memcmp(name, "..", 2))
		return "has a '..' component";
	if (size > PACKAGE_COMPONENT_MAX)
		return "has a component of more than 255 bytes";
	return NULL;
}

static const char *components_check(const char *path, size_t size)
{
	const char *end = path + size;

	for (;;) {
		const char *slash = memchr(path, '/', (size_t)(end - path));
		size_t length = (size_t)((slash ? slash : end) - path);
		const char *rule = component_check(path, length);

		if (rule || !slash)
			return rule;
		path = slash + 1;
	}
}

const char *package_path_check(const char *path, bool directory,
			       char ret[static PACKAGE_PATH_SIZE])
{
	const char *rule = text_check(path);
	size_t size = strlen(path);

	if (rule)
		return rule;
	if (size == 0)
		return "is an empty name";
	if (path[0] == '/')
		return "is an absolute path";
	if (directory && (!strcmp(path, ".") || !strcmp(path, "./"))) {
		ret[0] = '\0';
		return NULL;
	}
	if (!strncmp(path, "./", 2)) {
		path += 2;
		size -= 2;
	}
	if (directory && size > 0 && path[size - 1] == '/')
		size--;
	if (size >= PACKAGE_PATH_SIZE)
		return "is longer than 4095 bytes";
	rule = components_check(path, size);
	if (rule)
		return rule;
	memcpy(ret, path, size);
	ret[size] = '\0';
	return NULL;
}

const char *package_target_check(const char *target)
{
	if (!*target)
		return "is empty";
	if (strlen(target) >= PACKAGE_PATH_SIZE)
		return "is longer than 4095 bytes";
	return text_check(target);
}

const char *package_path_text(const char *path, char text[static PACKAGE_PATH_TEXT_SIZE])
{
	/* Room for one more character and the dots must always be left. */
	const size_t limit = PACKAGE_PATH_TEXT_SIZE - 8;
	const unsigned char *c = (const unsigned char *)path;
	size_t used = 0;

	while (*c && used < limit) {
		uint32_t point = 0;
		size_t size = utf8_character(c, &point);

		if (size && !is_control(point)) {
			memcpy(text + used, c, size);
			used += size;
			c += size;
		} else {
			used += (size_t)sprintf(text + used, "\\x%02x", *c++);
		}
	}
	strcpy(text + used, *c ? "..." : "");
	return text;
}

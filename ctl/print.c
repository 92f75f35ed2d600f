/* SPDX-License-Identifier: Apache-2.0 */
#include "print.h"

#include "cleanup.h"

#include <stdarg.h>

/* C0, DEL, and C1 as UTF-8 writes it (U+0080 to U+009F: 0xc2 and one more byte). */
void print_clean(char *text)
{
	for (unsigned char *c = (unsigned char *)text; *c; c++) {
		if (*c < ' ' || *c == 0x7f) {
			*c = '?';
		} else if (c[0] == 0xc2 && c[1] >= 0x80 && c[1] <= 0x9f) {
			c[0] = '?';
			c[1] = '?';
		}
	}
}

void print_line(FILE *out, const char *format, ...)
{
	cleanup(free_ptr) char *text = NULL;
	va_list args;
	int size;

	va_start(args, format);
	size = vasprintf(&text, format, args);
	va_end(args);
	if (size < 0) {
		text = NULL;
		return;
	}
	print_clean(text);
	fprintf(out, "%s\n", text);
}

void print_json(const json_t *value)
{
	cleanup(free_ptr) char *text =
		json_dumps(value, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_ENCODE_ANY);

	if (!text)
		return;
	/* The one control character that jansson leaves as it is. */
	for (const char *c = text; *c; c++) {
		if (*c == 0x7f)
			fputs("\\u007f", stdout);
		else
			putchar(*c);
	}
	putchar('\n');
	fflush(stdout);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "table.h"

#include "cleanup.h"
#include "print.h"

#include <errno.h>
#include <string.h>

void table_init(struct table *table, const struct column *columns, size_t count)
{
	*table = (struct table){.columns = columns, .column_count = count};
}

void table_done(struct table *table)
{
	for (size_t i = 0; i < table->cell_count; i++)
		free(table->cells[i]);
	free(table->cells);
	*table = (struct table){0};
}

static int add_cell(struct table *table, const char *text)
{
	cleanup(free_ptr) char *cell = strdup(text);

	if (!cell)
		return -ENOMEM;
	print_clean(cell);
	if (table->cell_count == table->room) {
		size_t room = table->room ? table->room * 2 : 64;
		char **cells = reallocarray(table->cells, room, sizeof(*cells));

		if (!cells)
			return -ENOMEM;
		table->cells = cells;
		table->room = room;
	}
	table->cells[table->cell_count++] = take_ptr(cell);
	return 0;
}

int table_add(struct table *table, const char *const *cells, struct error *err)
{
	for (size_t i = 0; i < table->column_count; i++)
		if (add_cell(table, cells[i]) < 0)
			return error_set(err, -ENOMEM, "out of memory");
	return 0;
}

/* Characters, not bytes: the bytes of UTF-8 that do not go on with one. */
static size_t text_width(const char *text)
{
	size_t width = 0;

	for (; *text; text++)
		width += (*text & 0xc0) != 0x80;
	return width;
}

static size_t column_width(const struct table *table, size_t column)
{
	size_t width = text_width(table->columns[column].title);

	for (size_t i = column; i < table->cell_count; i += table->column_count) {
		size_t cell = text_width(table->cells[i]);

		if (cell > width)
			width = cell;
	}
	return width;
}

/* Blanks are held back until text follows: no line ends with one. */
static void print_cell(FILE *out, const char *text, size_t width, bool right, size_t *gap)
{
	size_t blanks = width - text_width(text);

	if (*text) {
		fprintf(out, "%*s%s", (int)(*gap + (right ? blanks : 0)), "", text);
		*gap = right ? 0 : blanks;
	} else {
		*gap += width;
	}
	*gap += 2;
}

void table_print(const struct table *table, FILE *out)
{
	const size_t count = table->column_count;
	cleanup(free_ptr) size_t *widths = calloc(count, sizeof(*widths));
	size_t gap = 0;

	if (!widths || table->cell_count == 0)
		return;
	for (size_t i = 0; i < count; i++)
		widths[i] = column_width(table, i);
	for (size_t i = 0; i < count; i++)
		print_cell(out, table->columns[i].title, widths[i],
			   table->columns[i].right, &gap);
	for (size_t i = 0; i < table->cell_count; i++) {
		if (i % count == 0) {
			fputc('\n', out);
			gap = 0;
		}
		print_cell(out, table->cells[i], widths[i % count],
			   table->columns[i % count].right, &gap);
	}
	fputc('\n', out);
}

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
	for (size_t i = 0; i < table->note_count; i++)
		free(table->notes[i].text);
	free(table->notes);
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

int table_note(struct table *table, const char *text, struct error *err)
{
	cleanup(free_ptr) char *copy = strdup(text);

	if (table->note_count == table->note_room) {
		size_t room = table->note_room ? table->note_room * 2 : 16;
		struct table_note *notes =
			reallocarray(table->notes, room, sizeof(*notes));

		if (!notes)
			return error_set(err, -ENOMEM, "out of memory");
		table->notes = notes;
		table->note_room = room;
	}
	if (!copy)
		return error_set(err, -ENOMEM, "out of memory");
	print_clean(copy);
	table->notes[table->note_count++] =
		(struct table_note){table->cell_count, take_ptr(copy)};
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

/* The notes from @note on that stand before the cell @place; returns the next one. */
static size_t print_notes(const struct table *table, size_t note, size_t place, FILE *out)
{
	for (; note < table->note_count && table->notes[note].after <= place; note++)
		fprintf(out, "  %s\n", table->notes[note].text);
	return note;
}

void table_print(const struct table *table, FILE *out)
{
	const size_t count = table->column_count;
	cleanup(free_ptr) size_t *widths = calloc(count, sizeof(*widths));
	size_t gap = 0, note = 0;

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
			note = print_notes(table, note, i, out);
		}
		print_cell(out, table->cells[i], widths[i % count],
			   table->columns[i % count].right, &gap);
	}
	fputc('\n', out);
	print_notes(table, note, table->cell_count, out);
}

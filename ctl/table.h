/* SPDX-License-Identifier: Apache-2.0 */
/*
 * table.h - aligned columns
 */
#pragma once

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct column {
	const char *title;
	bool right; /* numbers and sizes */
};

/** A line of text between two rows. */
struct table_note {
	size_t after; /* cells that come before it */
	char *text;   /* owned */
};

struct table {
	const struct column *columns;
	size_t column_count;
	char **cells; /* owned; row by row */
	size_t cell_count;
	size_t room;
	struct table_note *notes; /* owned */
	size_t note_count;
	size_t note_room;
};

/** table_init() - an empty table; @columns must outlive it */
void table_init(struct table *table, const struct column *columns, size_t count);

/** table_done() - clean-up function */
void table_done(struct table *table);

/**
 * table_add() - one more row
 * @cells: as many as there are columns; copied, control characters replaced; an empty one
 *         is fine
 *
 * Return: 0; -ENOMEM, with a part of the row added.
 */
int table_add(struct table *table, const char *const *cells, struct error *err);

/**
 * table_note() - a line of text below the row that was added last
 * @text: copied, control characters replaced
 *
 * Return: 0; -ENOMEM.
 */
int table_note(struct table *table, const char *text, struct error *err);

/** table_print() - titles and rows; nothing at all when there is no row */
void table_print(const struct table *table, FILE *out);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * print.h - what reaches the terminal
 *
 * Names, reasons and messages come from other people's packages and commands. All text
 * goes out through here, so that none of it can steer the terminal.
 */
#pragma once

#include <jansson.h>
#include <stdio.h>

#define ERASE_LINE "\r\033[K" /* of a terminal */

/** print_clean() - replace the control characters in @text, a UTF-8 string, by '?' */
void print_clean(char *text);

/**
 * print_line() - one line of text for people
 * @out:    stdout or stderr
 * @format: printf format without a newline; control characters in the result are
 *          replaced
 */
void print_line(FILE *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/** print_json() - @value in one line of ASCII on stdout, flushed; all else is escaped */
void print_json(const json_t *value);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * package_path.h - the rules for names and link targets in a package
 *
 * They hold whatever the archive's format is. A rule that is broken comes back as words
 * that fit after the entry's name: "'a/../b' has a '..' component".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define PACKAGE_PATH_SIZE      4096 /* the longest path, 4095 bytes, and the NUL */
#define PACKAGE_COMPONENT_MAX  255
#define PACKAGE_PATH_TEXT_SIZE 256

/**
 * package_path_check() - whether @path may be a name in a package
 * @path:      as the archive has it; not NULL
 * @directory: a trailing '/' is left out, and "." and "./" are the root, ""
 * @ret:       the path without a leading "./"; untouched on failure
 *
 * Return: NULL; or the rule that is broken, a static string.
 */
const char *package_path_check(const char *path, bool directory,
			       char ret[static PACKAGE_PATH_SIZE]);

/**
 * package_target_check() - whether @target may be what a symlink says
 * Anything goes that is UTF-8 without control characters, 1 to 4095 bytes.
 *
 * Return: NULL; or the rule that is broken, a static string.
 */
const char *package_target_check(const char *target);

/**
 * package_path_text() - @path for a message
 * What is not printable UTF-8 becomes \xNN; what is long is cut, with "..." in its place.
 *
 * Return: @text.
 */
const char *package_path_text(const char *path, char text[static PACKAGE_PATH_TEXT_SIZE]);

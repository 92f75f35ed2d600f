/* SPDX-License-Identifier: Apache-2.0 */
/*
 * package_kind.h - what a file is that is no package, in words for who fetched it
 */
#pragma once

#include <stddef.h>

/**
 * package_kind_name() - "an rpm package", "an HTML or XML page", "an empty file"
 * @data: the file's first @size bytes; may be NULL when @size is 0
 *
 * Return: a static string, "a file of an unknown kind" where nothing fits.
 */
const char *package_kind_name(const unsigned char *data, size_t size);

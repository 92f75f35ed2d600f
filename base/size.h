/* SPDX-License-Identifier: Apache-2.0 */
/*
 * size.h - amounts of bytes and of time, as people write them
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/**
 * size_parse() - "1GiB", "512 MiB", "10MB", "4096"
 * Units: B KiB MiB GiB TiB (powers of 1024), kB KB MB GB TB (of 1000); a fraction is
 * allowed. Return: 0; -EINVAL for anything else; -ERANGE when it does not fit in 63 bits.
 */
int size_parse(const char *text, uint64_t *ret_bytes);

/** size_format() - "1.4 GiB", "512 B" into @text; returns @text */
const char *size_format(uint64_t bytes, char text[static 32]);

/**
 * duration_parse() - "500ms", "30s", "5 min", "2h", "7d"
 * Return: 0; -EINVAL; -ERANGE beyond ten years.
 */
int duration_parse(const char *text, uint64_t *ret_ms);

/** duration_format() - "4s", "3min 20s", "2h 5min" into @text; returns @text */
const char *duration_format(uint64_t seconds, char text[static 32]);

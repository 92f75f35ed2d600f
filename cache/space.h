/* SPDX-License-Identifier: Apache-2.0 */
/*
 * space.h - how much of the disk may be used
 */
#pragma once

#include "error.h"

#include <stdint.h>

/** What is free on the disk of a path, and what must stay so. */
struct space {
	uint64_t total,
		free; /* bytes; free: for root, without the file system's own reserve */
	uint64_t reserve; /* the larger of the two settings */
};

/** space_of() - Return: 0; the negative errno of statvfs(3). Does not wait for anything.
 */
int space_of(const char *path, uint64_t reserve_bytes, unsigned reserve_percent,
	     struct space *ret);

/**
 * space_check() - whether @bytes more leave the reserve untouched
 * @for_what: "the download", for the error
 * Return: 0; -ENOSPC with how much is missing and what to do.
 */
int space_check(const struct space *space, uint64_t bytes, const char *for_what,
		struct error *err);

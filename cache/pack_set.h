/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack_set.h - what pack.c and pack_set.c share: loading once, freeing last
 */
#pragma once

#include "pack.h"

/** pack_load_unlocked() - the work of pack_load(); one caller at a time for a pack */
int pack_load_unlocked(struct pack *pack, struct error *err);

/** pack_set_count() - pack_read() hands out @size bytes; @first: a checksum was compared.
 * NULL is allowed. */
void pack_set_count(struct pack_set *set, bool first, uint64_t size);

/** pack_clear() - close and free what a load, whole or not, has made */
void pack_clear(struct pack *pack);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack_set.h - what pack.c and pack_set.c share: loading once, freeing last
 */
#pragma once

#include "pack.h"

/** pack_load_unlocked() - the work of pack_load(); one caller at a time for a pack */
int pack_load_unlocked(struct pack *pack, struct error *err);

/** pack_clear() - close and free what a load, whole or not, has made */
void pack_clear(struct pack *pack);

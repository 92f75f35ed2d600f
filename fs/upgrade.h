/* SPDX-License-Identifier: Apache-2.0 */
/*
 * upgrade.h - replacing ourselves by the program that is on the disk now
 */
#pragma once

#include "error.h"
#include "shared.h"

/**
 * upgrade_begin() - try the new program, then ask the supervisor to become it
 *
 * The program must start, take over this layout of the shared memory, and find the
 * configuration right. Takes up to 10 seconds; returns before the upgrade is done: then
 * shared->generation has grown.
 *
 * Return: 0; -EBUSY an upgrade is under way; -EINVAL the new program refuses, with what
 * it said; -ENOENT there is no program.
 */
int upgrade_begin(struct shared *shared, struct error *err);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * in_use.h - "in_use" of the versions in a reply: who holds them
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

/**
 * in_use_fill() - look who holds the versions of applications
 * @apps:   APP objects by name, as in docs/api.md
 * @device: of the mounted file system
 * @all:    every version; otherwise only those that are removed and still held
 *
 * "in_use" of a version that was not looked at stays as it is. Reads all of /proc, once,
 * and only where there is a version to look at; never touches the file system.
 */
void in_use_fill(json_t *apps, dev_t device, bool all);

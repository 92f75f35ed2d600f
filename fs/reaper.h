/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reaper.h - removed versions: freed when nobody holds them any more (I10)
 *
 * A thread that looks again every two seconds while something is held, and every hour for
 * partial downloads that nobody came back for. It also copies the catalog to catalog.bak
 * after changes, at most every five seconds, and at the end.
 */
#pragma once

#include "error.h"
#include "service.h"

#include <stdint.h>

/** reaper_start() - Return: 0; -EAGAIN. */
int reaper_start(struct service *service, struct error *err);

/** reaper_stop() - wait for its end; nothing where it was not started */
void reaper_stop(struct service *service);

/** reaper_kick() - look again soon */
void reaper_kick(struct service *service);

/**
 * reaper_run() - free now what nobody holds
 * @ret_freed: bytes that were given back are added
 * Return: how many removed versions are still held, or could not be looked at because a
 * job is just sharing content; a negative errno.
 */
int reaper_run(struct service *service, uint64_t *ret_freed, struct error *err);

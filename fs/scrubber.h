/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scrubber.h - find damage before somebody needs the bytes, and have it repaired
 *
 * A thread. Once a week it reads all packs, 20 MiB a second at most and in the idle I/O
 * class, and goes on after a restart where it was. Where a reader or a verification met
 * damage (pack_note_damage()) it records that at once. For every damaged pack it starts
 * repair jobs: at once, then after one minute, two, and so on to a day, each time with
 * the package of another version that needs the pack.
 */
#pragma once

#include "error.h"

struct scrubber;
struct service;

/** scrubber_start() - Return: 0; -ENOMEM; -EAGAIN; what eventfd(2) gives. */
int scrubber_start(struct service *service, struct scrubber **ret, struct error *err);

/** scrubber_stop() - wait for its end. NULL is allowed. */
void scrubber_stop(struct scrubber *scrubber);

/** scrubber_free() - after the threads that read packs have ended. NULL is allowed. */
void scrubber_free(struct scrubber *scrubber);

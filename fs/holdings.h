/* SPDX-License-Identifier: Apache-2.0 */
/*
 * holdings.h - what a supervisor holds for its workers, and how it comes to it
 *
 * Names: "state" the shared memory, "api" the listening socket, "fuse-NAME" /dev/fuse of
 * a session, "keepN" what a worker had kept.
 */
#pragma once

#include "config.h"
#include "error.h"
#include "inherit.h"
#include "shared.h"

#include <stdbool.h>

struct holdings {
	struct shared *shared;
	struct inherit list;
};

/**
 * holdings_make() - after holdings_find() has found nothing: mount, read the kernel's
 * FUSE_INIT, make the socket: a first start
 *
 * Return: 0; -EBUSY somebody is mounted there or listens; what mount(2) gives. On failure
 * nothing stays.
 */
int holdings_make(const struct config *config, bool debug, struct holdings *ret,
		  struct error *err);

/** holdings_inherit() - from --inherit. Return: 0; -EPROTO another layout; -EINVAL. */
int holdings_inherit(const char *text, struct holdings *ret, struct error *err);

/**
 * holdings_find() - from systemd's FDSTORE, or from a worker whose supervisor is gone
 * Makes the runtime directory. Return: 1 found; 0 there is nothing to take over; -EBUSY
 * another supervisor lives; -EPERM others can write into the runtime directory.
 */
int holdings_find(const struct config *config, struct holdings *ret, struct error *err);

/** holdings_publish() - tell <runtime>/holder and systemd where they are; best effort */
void holdings_publish(const struct holdings *holdings, pid_t worker);

/** holdings_keep() - hold one more, @fd is the list's then. Return: 0; -E2BIG. */
int holdings_keep(struct holdings *holdings, const char *name, int fd);

/** holdings_drop() - close it, here and at systemd; nothing where the name is unknown */
void holdings_drop(struct holdings *holdings, const char *name);

/** holdings_end() - after the unmount: remove what lies in the runtime directory, close
 */
void holdings_end(struct holdings *holdings);

/** holdings_unmount() - without a worker; as mount_leave() */
int holdings_unmount(struct holdings *holdings, bool force, struct error *err);

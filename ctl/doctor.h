/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor.h - looking at everything from the outside
 *
 * Nothing here may hang, whatever the state of daemon and mount: what touches the mount
 * is done in a child (deadline.h), the API has a limit, and of processes only that part
 * of /proc is read which needs none of their locks.
 */
#pragma once

#include "config.h"
#include "findings.h"
#include "supervisor.h"

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#define DOCTOR_TYPE "fuse.deployfs"

/** What one look has found so far; each part reads what those before it have left. */
struct doctor {
	struct findings findings;
	struct config *config; /* owned */
	json_t *status;        /* GET /v1/status, owned; NULL: no answer */
	struct supervisor supervisor;
	char base[4096]; /* the configured mount, without symlinks */
	char apps[4128];
	bool base_there; /* the base is a mount of its own */
	dev_t base_device;
	char base_root[4096];
	unsigned base_group; /* 0: it is not shared */
	bool mounted;        /* something of ours is mounted at apps */
	bool answers;        /* and it answers */
	dev_t device;        /* its file system */
};

/** doctor_config() - the configuration; @path is what --config named, or NULL */
void doctor_config(struct doctor *doctor, const char *path);

/** doctor_daemon() - API, supervisor, number of daemons, what the API itself tells */
void doctor_daemon(struct doctor *doctor);

/** doctor_disk() - room on the disk of the store */
void doctor_disk(struct doctor *doctor);

/** doctor_mount() - whether it is there, as it must be, and answers; if not, why not */
void doctor_mount(struct doctor *doctor);

/** doctor_binds() - whether the binds in other mount namespaces follow and live */
void doctor_binds(struct doctor *doctor);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * shared.h - what supervisor and workers have in common: a memfd that all of them map
 *
 * Keeps I3 and I12: what a successor needs and cannot read from the store lies here, and
 * not in a worker's memory. The supervisor looks at words of it and never follows what a
 * worker has written: no pointer, no offset, no length in here is the worker's.
 *
 *   struct shared, then the request slots: sessions × banks × slots, each SLOT_SIZE
 *
 * A bank is one worker's set of slots, one a serving thread. A thread receives a request
 * straight into its slot and empties it after the reply, so that a successor finds what
 * was not answered. Where the kernel can resend (Linux 6.9) the slots are not looked at.
 */
#pragma once

#include "error.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SHARED_LAYOUT \
	5 /* of struct shared: a binary with another one is not taken over */
#define SHARED_SESSIONS 4
#define SHARED_BANKS    8
#define SHARED_SLOTS    4
#define SHARED_KEPT     128
#define SHARED_NAME     16
/* The kernel refuses to hand a request to a buffer that could not hold the largest. */
#define SHARED_SLOT_SIZE (1024 * 1024 + 4096)
#define SHARED_INIT_SIZE 4096

/** A mounted file system: its /dev/fuse is inherited under the same name. */
struct shared_session {
	char name[SHARED_NAME]; /* "apps"; "": unused */
	char path[PATH_MAX];
	uint64_t device;
	uint32_t init_size;
	char init[SHARED_INIT_SIZE]; /* the kernel's FUSE_INIT, as it came */
};

enum bank_state {
	BANK_FREE,
	BANK_USED,
	BANK_DYING, /* its worker was killed, but is not gone yet */
	BANK_DEAD,  /* its worker is gone: what lies in the slots was not answered */
};

struct shared_bank {
	_Atomic int state;
	/* Since when each serving thread works on its request, monotonic ms; 0: it waits.
	 */
	_Atomic uint64_t busy_ms[SHARED_SESSIONS][SHARED_SLOTS];
};

enum kept_state {
	KEPT_FREE,
	KEPT_OFFERED, /* the worker has it: the supervisor shall take a copy */
	KEPT_HELD,
	KEPT_DROPPED, /* the supervisor shall close its copy */
};

/** A descriptor that a worker wants its successors to have. */
struct shared_kept {
	_Atomic int state;
	char name[SHARED_NAME];
	int worker_fd; /* its number there */
};

/** What a worker asks of the supervisor, as bits. */
enum {
	WISH_UPGRADE = 1,
	WISH_STAY = 2, /* it was to unmount, and somebody uses the mount */
};

/** How far a worker is. */
enum worker_stage {
	STAGE_NONE,
	STAGE_STARTING,
	STAGE_SERVING,  /* reads go on */
	STAGE_READY,    /* the API answers */
	STAGE_FINISHED, /* put everything down but the reads: a successor may own the
			   store */
};

/** What the supervisor asks of a worker. */
enum order {
	ORDER_NONE,
	ORDER_FINISH, /* → STAGE_FINISHED */
	ORDER_QUIT,   /* end without unmounting */
};

/** One worker's words; two at once during an upgrade, by bank. */
struct shared_worker {
	_Atomic pid_t pid;
	_Atomic pid_t canary; /* a thread that only waits: it ends when the worker does */
	_Atomic uint64_t beat_ms; /* monotonic: its main thread is alive */
	_Atomic int stage;
	_Atomic int order;
};

struct shared {
	char magic[16];
	uint32_t layout;

	/* Written once, before the first worker. */
	char program[PATH_MAX]; /* what an upgrade executes */
	char config[PATH_MAX];  /* "": the default, which may be missing */
	char runtime[PATH_MAX], socket[PATH_MAX], base[PATH_MAX];
	bool debug, old_kernel; /* for tests: do as on Linux 6.1, which Debian 12 has */
	struct shared_session sessions[SHARED_SESSIONS];

	/* Written by the supervisor. */
	_Atomic pid_t supervisor;
	_Atomic bool left;           /* it has ended on purpose, for a new one to come */
	_Atomic uint32_t generation; /* of workers, from 1 */
	_Atomic uint32_t restarts;   /* workers that died */
	_Atomic int last_status;     /* wait(2)'s, of the last that died */
	_Atomic int64_t last_ns;     /* when, wall clock; 0: none did */
	_Atomic uint32_t bank;       /* of the worker that is to serve */

	/* Written by workers. */
	_Atomic uint32_t wishes;
	_Atomic bool ended;  /* unmounted: the supervisor ends too */
	_Atomic bool taught; /* the kernel knows what it need not ask: apps_teach() */
	_Atomic uint32_t changing; /* changes between commit and notification */
	/* Before the first of these, by both clocks: see service_begin(). */
	_Atomic int64_t changing_since_ns;  /* wall */
	_Atomic uint64_t changing_since_ms; /* monotonic */
	struct shared_worker workers[SHARED_BANKS];
	struct shared_bank banks[SHARED_BANKS];
	struct shared_kept kept[SHARED_KEPT];
};

/** shared_make() - a new one; *@ret_fd is its memfd. Return: 0; a negative errno. */
int shared_make(struct shared **ret, int *ret_fd, struct error *err);

/** shared_map() - map one that was inherited. Return: 0; -EPROTO of another layout. */
int shared_map(int fd, struct shared **ret, struct error *err);

/** shared_slot() - where a serving thread receives: SHARED_SLOT_SIZE bytes */
void *shared_slot(struct shared *shared, unsigned session, unsigned bank, unsigned slot);

/** shared_session_find() - by name; its number, or -ENOENT */
int shared_session_find(const struct shared *shared, const char *name);

/** shared_kept_name() - "keep7", by which kept[7] is inherited, into @name */
const char *shared_kept_name(int number, char name[static SHARED_NAME]);

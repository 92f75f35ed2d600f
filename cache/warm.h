/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warm.h - have the kernel know of a new version what it knows of the one in use
 *
 * Equal files of two versions are one file to the kernel: what was read of the one is in
 * memory for the other. All else is unknown when a version was never used: its names,
 * attributes and listings, and the content of files that are not equal. Here all of that
 * is asked for through the mount, as far as the kernel has it of the version in use at
 * the same path.
 */
#pragma once

#include "error.h"
#include "name.h"
#include "store.h"

#include <stdbool.h>
#include <stdint.h>

struct warm_request {
	const char *folder; /* where applications are mounted */
	const char *app;
	const char *version; /* to be warmed */
	const char *channel; /* points at the version in use */
};

/** How a warming tells what it does. */
struct warm_watch {
	void (*progress)(void *context, uint64_t bytes, uint64_t total);
	void (*warning)(void *context, const char *text);
	void *context;
};

struct warm_result {
	char from[NAME_LENGTH_MAX + 1]; /* "": the channel is new */
	uint64_t files, bytes;          /* that were read */
	uint64_t kept_bytes;            /* in memory already: of files that are equal */
	uint64_t left_bytes;            /* that were to be read and were not */
};

/**
 * warm_version() - read of a version what is in memory of the one that a channel points
 * at
 *
 * Goes through the mount, so the caller must not be who serves it, nor hold /dev/fuse: a
 * process of its own, that can be killed at any time. Takes the time of the reading; ends
 * early, with a warning, where memory gets short: what is warm by now is not to be pushed
 * out. Files that cannot be read are left, with a warning.
 *
 * Return: 0; -ENOENT no such version, or it was removed meanwhile; -EOPNOTSUPP before
 * Linux 5.12; -ENOMEM; what the store gives.
 */
int warm_version(struct store *store, const struct warm_request *request,
		 const struct warm_watch *watch, struct warm_result *ret,
		 struct error *err);

struct warmth {
	uint64_t files, bytes;           /* of the version */
	uint64_t warm_files, warm_bytes; /* that can be read without any request */
};

/**
 * warm_measure() - how much of a version the kernel has in memory, names and content
 * @request: without a channel
 * Asks who serves the mount for no more than the way there; reads nothing. Return: as
 * warm_version().
 */
int warm_measure(struct store *store, const struct warm_request *request,
		 struct warmth *ret, struct error *err);

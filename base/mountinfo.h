/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mountinfo.h - lines of /proc/PID/mountinfo (proc(5))
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

struct mountinfo {
	unsigned id;
	unsigned parent; /* the id of the mount that it is mounted on */
	dev_t device;
	const char *root;    /* in the file system */
	const char *point;   /* where it is mounted, octal escapes undone */
	const char *options; /* of the mount: "ro,nosuid,nodev" */
	const char *type;
	const char *super; /* options of the file system */
	unsigned shared;   /* peer group; 0: not shared */
	unsigned master;   /* peer group it is a slave of; 0: none */
};

/**
 * mountinfo_each() - call @each for every mount of a process
 * @pid: 0 for ourselves
 * The strings hold during the call. @each returns false to end.
 * Return: 0; the negative errno of open(2).
 */
int mountinfo_each(pid_t pid, bool (*each)(void *context, const struct mountinfo *info),
		   void *context);

/** mountinfo_option() - whether a comma-separated list has an option */
bool mountinfo_option(const char *options, const char *option);

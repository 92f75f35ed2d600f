/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.h - where the daemon's socket, mount and store are
 */
#pragma once

#include "cleanup.h"
#include "error.h"

#define CONFIG_PATH_DEFAULT "/etc/deployfs/deployfs.yaml"

struct config {
	const char *path; /* the file; not owned */
	char *mount;      /* all four owned, absolute */
	char *store;
	char *runtime;
	char *socket; /* <runtime>/deployfs.sock */
};

/**
 * config_open() - read those places from the configuration
 * @path: what --config names, or NULL: then what DEPLOYFS_CONFIG names, and then
 *        /etc/deployfs/deployfs.yaml, which may be missing
 * @ret:  the caller's, to be given to config_close(); untouched on failure
 *
 * The other keys are not looked at: whether they are right is for the daemon.
 *
 * Return: 0; -EINVAL when a file that was named is missing, or one cannot be read or is
 * wrong.
 */
int config_open(const char *path, struct config **ret, struct error *err);

/** config_defaults() - the same without a file; @path as above, for messages */
int config_defaults(const char *path, struct config **ret, struct error *err);

/** config_close() - NULL is not allowed */
void config_close(struct config *config);

DEFINE_CLEANUP(struct config, config_close)

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.h - where the daemon's socket is
 */
#pragma once

#include "error.h"

/**
 * config_socket() - find the socket through the configuration
 * @path: what --config names, or NULL: then what DEPLOYFS_CONFIG names, and then
 *        /etc/deployfs/deployfs.yaml, which may be missing
 * @ret:  <runtime>/deployfs.sock, the caller's to free(); untouched on failure
 *
 * Only the key `runtime` is looked at: whether the others are right is for the daemon.
 *
 * Return: 0; -EINVAL when a file that was named is missing, or one cannot be read or is
 * wrong.
 */
int config_socket(const char *path, char **ret, struct error *err);

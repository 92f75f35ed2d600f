/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flip.h - what flip and rollback have in common
 */
#pragma once

#include "command.h"

/**
 * flip_call() - send a flip or rollback and tell what became of it
 * @verb:    "flip" or "rollback", the last part of the URL
 * @version: NULL for a rollback
 * @channel: NULL: the daemon's default
 * @reason:  NULL: none
 *
 * Return: 0; -EALREADY; -EINVAL when a name cannot be one; failures of command_call().
 */
int flip_call(struct command *command, const char *verb, const char *version,
	      const char *channel, const char *reason, struct error *err);

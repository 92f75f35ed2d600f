/* SPDX-License-Identifier: Apache-2.0 */
/*
 * warmth.h - how much of the versions in use is in memory, for status
 */
#pragma once

#include "command.h"

/**
 * warmth_gather() - ask for every application
 * @ret: an array of the replies of GET /v1/apps/APP/warmth, the caller's; untouched on
 *       failure
 *
 * Takes some microseconds for each file that was used. Return: 0; failures of
 * client_request().
 */
int warmth_gather(struct command *command, json_t **ret, struct error *err);

/** warmth_print() - a line for each channel. Return: 0; -EIO. */
int warmth_print(json_t *warmth, struct error *err);

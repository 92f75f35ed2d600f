/* SPDX-License-Identifier: Apache-2.0 */
/*
 * origins.h - which origins answered when they were asked last, and since when
 */
#pragma once

#include <jansson.h>

struct origins;

struct origins *origins_new(void);
void origins_free(struct origins *origins);

/** origins_note() - an origin has answered (@error NULL) or has not */
void origins_note(struct origins *origins, const char *url, const char *error);

/** origins_json() - as in /v1/status; the configured ones that were never asked are
 * "unknown" */
json_t *origins_json(struct origins *origins, char *const *configured);

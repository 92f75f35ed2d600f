/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reply.h - reading what the daemon answers, and writing what it is asked
 *
 * A reply that is not as docs/api.md says is a failure with a message, never a crash.
 */
#pragma once

#include "error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/**
 * reply_read() - take members out of a reply
 * @json:   an object, or anything else, which is then refused
 * @format: as of json_unpack(3); what is taken is owned by @json. Members that may be
 *          null are taken with 'o' and read with reply_text() and reply_number().
 *
 * Return: 0; -EIO "unexpected reply" when a member is missing or of another type.
 */
int reply_read(json_t *json, struct error *err, const char *format, ...);

/** reply_unexpected() - -EIO with a message that says @what is wrong with the reply */
int reply_unexpected(struct error *err, const char *what);

/** reply_text() - the string, or @otherwise where @json is NULL, null or no string */
const char *reply_text(const json_t *json, const char *otherwise);

/** reply_number() - the number; @otherwise where it is NULL, null, negative or none */
uint64_t reply_number(const json_t *json, uint64_t otherwise);

/** reply_size() - the number in bytes as people read it, "-" where there is none */
const char *reply_size(const json_t *json, char text[static 32]);

/** reply_changed() - its "changed": 1, 0, or -EIO where the reply has none */
int reply_changed(json_t *reply, struct error *err);

/**
 * body_make() - the body of a request
 * @ret:    the caller's; untouched on failure
 * @format: as of json_pack(3)
 *
 * Return: 0; -EINVAL where a string is not UTF-8.
 */
int body_make(json_t **ret, struct error *err, const char *format, ...);

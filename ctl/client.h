/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.h - HTTP and JSON over the daemon's Unix socket
 */
#pragma once

#include "cleanup.h"
#include "error.h"

#include <jansson.h>

struct client;

/**
 * client_open() - get ready to talk; does not connect yet
 * @socket: path, copied
 * @ret:    the caller's, to be given to client_close(); untouched on failure
 *
 * Return: 0; -ENOMEM.
 */
int client_open(const char *socket, struct client **ret, struct error *err);

/** client_close() - NULL is not allowed */
void client_close(struct client *client);

DEFINE_CLEANUP(struct client, client_close)

/**
 * client_interrupt_by() - end requests when a descriptor becomes readable
 * @fd: stays the caller's; -1: nothing interrupts requests, as at first
 */
void client_interrupt_by(struct client *client, int fd);

/**
 * client_limit() - how long a request may take from here on
 * @ms: milliseconds; 0: for ever, as at first
 */
void client_limit(struct client *client, unsigned ms);

/**
 * client_request() - ask the daemon
 * @method: "GET", "POST", "PUT" or "DELETE"
 * @url:    from client_url()
 * @body:   NULL: none
 * @ret:    the reply, also where it tells of a failure, the caller's; untouched when
 *          there is none
 *
 * Blocks until the daemon has answered, or as long as client_limit() said. When the
 * connection breaks before that, or a daemon that has answered before is away, the
 * request is sent again for a minute (DEPLOYCTL_PATIENCE, in seconds), or once more that
 * limit; all but a GET carry an Idempotency-Key, the same each time, so that nothing is
 * done twice. After two seconds without an answer a line on stderr says that we wait.
 *
 * Return: 0; what the reply's error.code stands for; -ECONNREFUSED when the daemon cannot
 * be reached or the connection broke and nobody came back; -EINTR when interrupted; -EIO
 * when the reply is not JSON.
 */
int client_request(struct client *client, const char *method, const char *url,
		   const json_t *body, json_t **ret, struct error *err);

/**
 * client_url() - put a URL together
 * @ret: the caller's to free(); untouched on failure
 *
 * What follows @err are strings, the last one NULL: literal parts and values in turn, and
 * the values are escaped: client_url(&url, err, "/v1/apps/", app, "/history?channel=",
 * channel, NULL).
 *
 * Return: 0; -ENOMEM.
 */
int client_url(char **ret, struct error *err, ...) __attribute__((sentinel));

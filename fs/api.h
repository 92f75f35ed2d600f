/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api.h - HTTP on a Unix socket, as docs/api.md says
 */
#pragma once

#include "error.h"
#include "service.h"

#include <stdint.h>

struct api;

/**
 * api_start() - begin to serve
 * @socket:  listens already (api_socket.h); stays the caller's
 * @stop_fd: an eventfd that becomes readable when a client has asked the daemon to stop
 * Return: 0; -EIO; -ENOMEM.
 */
int api_start(struct service *service, int socket, int stop_fd, struct api **ret,
	      struct error *err);

/**
 * api_quiesce() - take no more connections
 * Who connects from now on waits in the socket's queue for the next worker.
 */
void api_quiesce(struct api *api);

/**
 * api_finish() - after api_quiesce(): answer what was asked, end
 * @deadline_ms: monotonic; what is not answered by then is cut off
 */
void api_finish(struct api *api, uint64_t deadline_ms);

/** api_stop() - end now. NULL is allowed. */
void api_stop(struct api *api);

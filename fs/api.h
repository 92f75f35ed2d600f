/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api.h - HTTP with JSON on a Unix socket, as docs/api.md describes it
 */
#pragma once

#include "error.h"
#include "service.h"

struct api;

/**
 * api_start() - make the socket and serve it, each connection by a thread of its own
 * @stop_fd: an eventfd that is written after the reply to POST /v1/daemon/stop was sent;
 * borrowed Return: 0; -EBUSY another daemon serves this socket; what the sockets give.
 */
int api_start(struct service *service, const char *runtime, const char *socket,
	      int stop_fd, struct api **ret, struct error *err);

/** api_stop() - end all connections, remove the socket. NULL is allowed. */
void api_stop(struct api *api);

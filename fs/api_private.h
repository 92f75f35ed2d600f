/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api_private.h - one request, as api.c (transport, routes, rights) hands it to
 * api_read.c and api_change.c
 */
#pragma once

#include "error.h"
#include "service.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct MHD_Connection;

struct api_request {
	struct service *service;
	struct MHD_Connection *connection;
	int fd;    /* of the connection */
	uid_t uid; /* of the peer */
	gid_t gid;
	const char *app;     /* from the path; NULL where the route has none; checked */
	const char *version; /* the same */
	const char *id_text; /* the same, of a job */
	uint64_t id;         /* its number */
	const char *key;     /* Idempotency-Key; NULL where there is none; checked */
	json_t *body;        /* an object; {} where there was none */
	int status; /* HTTP status of a success; 200 unless the handler says more */
	bool stop;  /* end the daemon once the reply was sent */
	char *text; /* the reply where it is not JSON; freed by the dispatcher */
	const char *text_type; /* its Content-Type */
};

/**
 * api_handler_fn() - do it
 * @ret: the reply; the dispatcher adds "schema". Untouched where request->text is it.
 * Return: 0; a negative errno with @err, which decides the HTTP status.
 */
typedef int api_handler_fn(struct api_request *request, json_t **ret, struct error *err);

/** api_query() - a query argument, or NULL */
const char *api_query(const struct api_request *request, const char *name);

/**
 * api_number() - a number as text
 * @what: what it is for, for the message
 * Return: 0; -EINVAL it is none, or has more than 64 bits.
 */
int api_number(const char *text, const char *what, uint64_t *ret, struct error *err);

/** api_who() - the name of the peer's user, for records */
void api_who(const struct api_request *request, char *text, size_t size);

/** What the store takes on its disk; bytes. */
struct api_store_use {
	uint64_t packs, partial;
};

/** api_store_use() - 0 where it cannot be found out */
void api_store_use(struct service *service, struct api_store_use *ret);

/** api_damaged() - how many versions are damaged */
uint64_t api_damaged(struct service *service);

/** api_origins() - every origin that the configuration names, once, as in /v1/status */
json_t *api_origins(struct service *service);

api_handler_fn api_get_status, api_get_apps, api_get_app, api_get_history,
	api_get_available, api_get_warmth, api_get_jobs, api_get_job, api_get_metrics;
api_handler_fn api_fetch, api_import, api_verify, api_repair, api_warm, api_cancel,
	api_flip, api_rollback, api_pin, api_unpin, api_remove, api_gc, api_daemon_stop,
	api_daemon_reload, api_daemon_upgrade;

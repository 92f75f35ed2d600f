/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transport, routes and rights. A request is gathered (64 KiB at most), matched with the
 * table of routes, its names are checked, its peer's rights too; then one handler runs.
 */
#include "api.h"

#include "api_private.h"
#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "log.h"
#include "name.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <malloc.h>
#include <microhttpd.h>
#include <poll.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY_MAX        65536
#define CONNECTIONS_MAX 512
#define CONNECTIONS_OTHER_MAX \
	128               /* of users who may only read: they cannot shut others out */
#define IDLE_S         90 /* longer than the longest wait_s */
#define STACK_SIZE     (512 * 1024)
#define PARTS_MAX      8
#define FINISH_LOOK_MS 2
#define TRIM_SIZE      (1 << 20)

struct api {
	struct service *service;
	struct MHD_Daemon *daemon;
	int stop_fd;
	atomic_int others;   /* connections of users who may only read */
	atomic_int requests; /* that came and are not answered yet */
};

/* One request while it comes in. */
struct incoming {
	char *body;
	size_t size;
	bool too_large;
	bool stop;
};

/* APP, VERSION and ID stand for one part of the path. */
static const struct route {
	const char *method, *path;
	api_handler_fn *handler;
} routes[] = {
	{"GET", "status", api_get_status},
	{"GET", "metrics", api_get_metrics},
	{"GET", "apps", api_get_apps},
	{"GET", "apps/APP", api_get_app},
	{"GET", "apps/APP/history", api_get_history},
	{"GET", "apps/APP/available", api_get_available},
	{"GET", "apps/APP/warmth", api_get_warmth},
	{"GET", "jobs", api_get_jobs},
	{"GET", "jobs/ID", api_get_job},
	{"DELETE", "jobs/ID", api_cancel},
	{"POST", "apps/APP/fetch", api_fetch},
	{"POST", "apps/APP/import", api_import},
	{"POST", "apps/APP/verify", api_verify},
	{"POST", "apps/APP/repair", api_repair},
	{"POST", "apps/APP/warm", api_warm},
	{"POST", "apps/APP/flip", api_flip},
	{"POST", "apps/APP/rollback", api_rollback},
	{"PUT", "apps/APP/versions/VERSION/pin", api_pin},
	{"DELETE", "apps/APP/versions/VERSION/pin", api_unpin},
	{"DELETE", "apps/APP/versions/VERSION", api_remove},
	{"POST", "gc", api_gc},
	{"POST", "daemon/stop", api_daemon_stop},
	{"POST", "daemon/reload", api_daemon_reload},
	{"POST", "daemon/upgrade", api_daemon_upgrade},
};

static int http_status(int code)
{
	static const struct {
		const char *name;
		int status;
	} table[] = {
		{"forbidden", 403}, {"usage", 400},        {"not-found", 404},
		{"conflict", 409},  {"verification", 422}, {"no-space", 507},
	};
	const char *name = error_name(code);

	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (!strcmp(table[i].name, name))
			return table[i].status;
	return 500;
}

const char *api_query(const struct api_request *request, const char *name)
{
	return MHD_lookup_connection_value(request->connection, MHD_GET_ARGUMENT_KIND,
					   name);
}

int api_number(const char *text, const char *what, uint64_t *ret, struct error *err)
{
	char *end = NULL;

	errno = 0;
	if (*text >= '0' && *text <= '9')
		*ret = strtoull(text, &end, 10);
	if (!end || *end || errno)
		return error_set(err, -EINVAL, "'%.100s' is not a number for %s", text,
				 what);
	return 0;
}

void api_who(const struct api_request *request, char *text, size_t size)
{
	struct passwd entry, *found = NULL;
	char buffer[4096];

	if (getpwuid_r(request->uid, &entry, buffer, sizeof(buffer), &found) == 0 &&
	    found)
		snprintf(text, size, "%s", found->pw_name);
	else
		snprintf(text, size, "uid %u", (unsigned)request->uid);
}

/* Whether a peer is root or in the configured group, by what the kernel says of it. */
static bool may_change(struct service *service, int fd, const struct ucred *peer)
{
	struct config_use *use;
	struct group entry, *found = NULL;
	char buffer[16384];
	gid_t groups[256];
	socklen_t size = sizeof(groups);
	bool may = peer->uid == 0;

	if (may)
		return true;
	use = service_config(service);
	if (getgrnam_r(use->config->group, &entry, buffer, sizeof(buffer), &found) == 0 &&
	    found) {
		may = peer->gid == found->gr_gid;
		if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) == 0)
			for (size_t i = 0; i < size / sizeof(groups[0]); i++)
				may |= groups[i] == found->gr_gid;
	}
	service_config_done(service, use);
	return may;
}

static bool peer_of(int fd, struct ucred *ret)
{
	socklen_t size = sizeof(*ret);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, ret, &size) == 0;
}

static int connection_fd(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);

	return info ? info->connect_fd : -1;
}

/* @text: taken over */
static enum MHD_Result reply_text(struct MHD_Connection *connection, int status,
				  char *text, const char *type)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(
		strlen(text), text, MHD_RESPMEM_MUST_FREE);
	enum MHD_Result sent;

	if (!response) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(response, "Content-Type", type);
	sent = MHD_queue_response(connection, (unsigned)status, response);
	MHD_destroy_response(response);
	return sent;
}

static enum MHD_Result reply(struct MHD_Connection *connection, int status, json_t *json)
{
	char *text = json ? json_dumps(json, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;

	json_decref(json);
	/* Of thousands of versions it is some hundred megabytes in small pieces. */
	if (text && strlen(text) > TRIM_SIZE)
		malloc_trim(0);
	if (!text) {
		text = strdup("{\"schema\":1,\"error\":{\"code\":\"failed\","
			      "\"message\":\"not enough memory\"}}");
		status = 500;
	}
	if (!text)
		return MHD_NO;
	return reply_text(connection, status, text, "application/json");
}

static enum MHD_Result reply_error(struct MHD_Connection *connection, int status,
				   const struct error *err)
{
	return reply(connection, status,
		     json_pack("{s:i, s:{s:s, s:s}}", "schema", 1, "error", "code",
			       error_name(err->code), "message", err->text));
}

/* The parts of a path below /v1/. */
struct parts {
	char text[1024];
	char *part[PARTS_MAX];
	size_t count;
};

static bool path_split(const char *url, struct parts *ret)
{
	char *rest = NULL;

	ret->count = 0;
	if (strncmp(url, "/v1/", 4) || strlen(url + 4) >= sizeof(ret->text) ||
	    strstr(url, "//"))
		return false;
	snprintf(ret->text, sizeof(ret->text), "%s", url + 4);
	for (char *part = strtok_r(ret->text, "/", &rest); part;
	     part = strtok_r(NULL, "/", &rest)) {
		if (ret->count == PARTS_MAX)
			return false;
		ret->part[ret->count++] = part;
	}
	return true;
}

static bool route_match(const struct route *route, const struct parts *parts,
			struct api_request *request)
{
	const char *at = route->path;

	request->app = request->version = request->id_text = NULL;
	for (size_t i = 0; i < parts->count; i++) {
		size_t size = strcspn(at, "/");

		if (size == 0)
			return false;
		if (!strncmp(at, "APP", size) && size == 3)
			request->app = parts->part[i];
		else if (!strncmp(at, "VERSION", size) && size == 7)
			request->version = parts->part[i];
		else if (!strncmp(at, "ID", size) && size == 2)
			request->id_text = parts->part[i];
		else if (strlen(parts->part[i]) != size ||
			 strncmp(at, parts->part[i], size))
			return false;
		at += size;
		at += *at == '/';
	}
	return *at == '\0';
}

/* The route of a request; NULL with *@ret_known telling whether another method would do.
 */
static const struct route *route_find(const char *method, const struct parts *parts,
				      struct api_request *request, bool *ret_known)
{
	*ret_known = false;
	for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
		if (!route_match(&routes[i], parts, request))
			continue;
		*ret_known = true;
		if (!strcmp(routes[i].method, method))
			return &routes[i];
	}
	return NULL;
}

static int body_parse(const struct incoming *incoming, json_t **ret, struct error *err)
{
	json_error_t why;

	if (incoming->size == 0) {
		*ret = json_object();
		return *ret ? 0 : -ENOMEM;
	}
	*ret = json_loadb(incoming->body, incoming->size, JSON_REJECT_DUPLICATES, &why);
	if (*ret && !json_is_object(*ret)) {
		json_decref(*ret);
		*ret = NULL;
		return error_set(err, -EINVAL, "the body is not a JSON object");
	}
	if (!*ret)
		return error_set(err, -EINVAL, "the body is not JSON: line %d: %s",
				 why.line, why.text);
	return 0;
}

static int names_check(struct api_request *request, struct error *err)
{
	if (request->id_text)
		return api_number(request->id_text, "a job", &request->id, err);
	if (request->app && !name_valid(request->app))
		return error_set(
			err, -EINVAL,
			"'%.140s' is not a name for an application: letters, digits "
			"and . _ + - are allowed, a letter or digit first",
			request->app);
	if (request->version && !name_valid(request->version))
		return error_set(
			err, -EINVAL,
			"'%.140s' is not a name for a version: letters, digits and "
			". _ + - are allowed, a letter or digit first",
			request->version);
	return 0;
}

static int key_check(struct api_request *request, struct error *err)
{
	request->key = MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND,
						   "Idempotency-Key");
	if (request->key && !request_key_valid(request->key))
		return error_set(err, -EINVAL,
				 "'%.100s' is no Idempotency-Key: 1 to %d letters, "
				 "digits, '-' and '_' are",
				 request->key, REQUEST_KEY_MAX);
	return 0;
}

static int run(struct api *api, const struct route *route, struct api_request *request,
	       const struct incoming *incoming, json_t **ret, struct error *err)
{
	int fd = connection_fd(request->connection);
	struct ucred peer;
	int r;

	if (!peer_of(fd, &peer))
		return error_set(err, -EPERM, "cannot find out who is asking");
	request->fd = fd;
	request->uid = peer.uid;
	request->gid = peer.gid;
	if (strcmp(route->method, "GET") && !may_change(api->service, fd, &peer))
		return error_set(err, -EPERM,
				 "only root and members of the group that 'group' in the "
				 "configuration names may change things");
	r = names_check(request, err);
	if (r == 0)
		r = key_check(request, err);
	if (r == 0)
		r = body_parse(incoming, &request->body, err);
	if (r == 0)
		r = route->handler(request, ret, err);
	json_decref(request->body);
	return r;
}

static enum MHD_Result answer(struct api *api, struct MHD_Connection *connection,
			      const char *url, const char *method,
			      struct incoming *incoming)
{
	struct api_request request = {
		.service = api->service,
		.connection = connection,
		.status = 200,
	};
	struct error err = {0};
	const struct route *route;
	struct parts parts;
	json_t *json = NULL;
	bool known = false;
	int r;

	if (incoming->too_large) {
		error_set(&err, -EINVAL, "the body has more than %d bytes", BODY_MAX);
		return reply_error(connection, 413, &err);
	}
	route = path_split(url, &parts) ? route_find(method, &parts, &request, &known)
					: NULL;
	if (!route && known) {
		error_set(&err, -EINVAL, "'%.200s' does not take %s", url, method);
		return reply_error(connection, 405, &err);
	}
	if (!route) {
		error_set(&err, -ENOENT,
			  "there is no '%.200s' in this API: see docs/api.md", url);
		return reply_error(connection, 404, &err);
	}
	r = run(api, route, &request, incoming, &json, &err);
	log_debug("request: method=%s path='%.200s' uid=%u result=%d", method, url,
		  (unsigned)request.uid, r);
	if (r < 0) {
		json_decref(json);
		err.code = r;
		return reply_error(connection, http_status(r), &err);
	}
	if (request.text)
		return reply_text(connection, request.status, request.text,
				  request.text_type);
	incoming->stop = request.stop;
	json_object_set_new(json, "schema", json_integer(1));
	return reply(connection, request.status, json);
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection,
				  const char *url, const char *method,
				  const char *version, const char *data, size_t *size,
				  void **state)
{
	struct api *api = context;
	struct incoming *incoming = *state;

	if (!incoming) {
		*state = calloc(1, sizeof(*incoming));
		atomic_fetch_add(&api->requests, *state != NULL);
		return *state ? MHD_YES : MHD_NO;
	}
	if (*size > 0) {
		char *larger;

		if (incoming->size + *size > BODY_MAX) {
			incoming->too_large = true;
			*size = 0;
			return MHD_YES;
		}
		larger = realloc(incoming->body, incoming->size + *size);
		if (!larger)
			return MHD_NO;
		incoming->body = larger;
		memcpy(incoming->body + incoming->size, data, *size);
		incoming->size += *size;
		*size = 0;
		return MHD_YES;
	}
	return answer(api, connection, url, method, incoming);
}

static void on_completed(void *context, struct MHD_Connection *connection, void **state,
			 enum MHD_RequestTerminationCode why)
{
	struct api *api = context;
	struct incoming *incoming = *state;

	if (!incoming)
		return;
	if (incoming->stop && eventfd_write(api->stop_fd, 1) < 0)
		log_error("cannot tell the main thread to stop");
	atomic_fetch_sub(&api->requests, 1);
	free(incoming->body);
	free(incoming);
	*state = NULL;
}

/* Users who may only read get a share of the connections, so that a flood of theirs
 * leaves root its way in. */
static void on_connection(void *context, struct MHD_Connection *connection, void **state,
			  enum MHD_ConnectionNotificationCode what)
{
	struct api *api = context;
	int fd = connection_fd(connection);
	struct ucred peer;

	metrics_add(&api->service->metrics,
		    what == MHD_CONNECTION_NOTIFY_CLOSED ? METRIC_API_CLOSED
							 : METRIC_API_OPENED,
		    1);
	if (what == MHD_CONNECTION_NOTIFY_CLOSED) {
		if (*state)
			atomic_fetch_sub(&api->others, 1);
		return;
	}
	if (fd < 0 || !peer_of(fd, &peer) || peer.uid == 0)
		return;
	*state = api;
	if (atomic_fetch_add(&api->others, 1) >= CONNECTIONS_OTHER_MAX)
		shutdown(fd, SHUT_RDWR);
}

int api_start(struct service *service, int socket, int stop_fd, struct api **ret,
	      struct error *err)
{
	struct api *api = calloc(1, sizeof(*api));
	int fd = fcntl(socket, F_DUPFD_CLOEXEC, 0);

	if (!api || fd < 0) {
		free(api);
		fd_close(&fd);
		return error_set(err, -ENOMEM, "not enough memory");
	}
	api->service = service;
	api->stop_fd = stop_fd;
	api->daemon = MHD_start_daemon(
		MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION |
			MHD_USE_POLL | MHD_USE_ITC,
		0, NULL, NULL, on_request, api, MHD_OPTION_LISTEN_SOCKET, fd,
		MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
		MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S,
		MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_SIZE,
		MHD_OPTION_NOTIFY_COMPLETED, on_completed, api,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, api, MHD_OPTION_END);
	if (!api->daemon) {
		close(fd);
		free(api);
		return error_set(err, -EIO, "cannot serve the API");
	}
	*ret = api;
	return 0;
}

void api_quiesce(struct api *api)
{
	int fd = MHD_quiesce_daemon(api->daemon);

	fd_close(&fd);
}

void api_finish(struct api *api, uint64_t deadline_ms)
{
	while (atomic_load(&api->requests) > 0 && clock_monotonic_ms() < deadline_ms)
		poll(NULL, 0, FINISH_LOOK_MS);
	MHD_stop_daemon(api->daemon);
	free(api);
}

void api_stop(struct api *api)
{
	if (!api)
		return;
	MHD_stop_daemon(api->daemon);
	free(api);
}

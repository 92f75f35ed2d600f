/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon may die under a request and come back. A request whose connection breaks is
 * sent again for a while; each change has a key, by which the daemon knows a repetition.
 */
#include "client.h"

#include "clock.h"
#include "print.h"
#include "reply.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define REPLY_SIZE_MAX   (64 * 1024 * 1024)
#define PATIENCE_MS      60000 /* as long as a supervisor pauses at most */
#define RETRY_PERIOD_MS  200
#define SILENCE_MS       2000 /* without a word to the user */
#define UUID_HEADER_SIZE 64

struct client {
	char *socket;
	CURL *easy;
	CURLM *multi;
	int interrupt_fd; /* not owned; -1: none */
	uint64_t patience_ms;
	unsigned limit_ms; /* 0: none */
	bool expected;     /* it has answered before: that it is away is a break, too */

	/* Of the request under way; monotonic clock, 0: not */
	uint64_t broke_ms;
	uint64_t tell_ms; /* when the user is to be told that we wait */
};

/* What came as the body of a reply. */
struct buffer {
	char *data;
	size_t size;
};

static void buffer_done(struct buffer *buffer)
{
	free(buffer->data);
}

static void headers_free(struct curl_slist **headers)
{
	curl_slist_free_all(*headers);
}

void client_close(struct client *client)
{
	curl_easy_cleanup(client->easy);
	curl_multi_cleanup(client->multi);
	free(client->socket);
	free(client);
}

/* How long a request that breaks is sent again; DEPLOYCTL_PATIENCE, in seconds. */
static uint64_t patience_ms(void)
{
	const char *text = getenv("DEPLOYCTL_PATIENCE");
	char *end;
	unsigned long seconds;

	if (!text || *text < '0' || *text > '9')
		return PATIENCE_MS;
	seconds = strtoul(text, &end, 10);
	return *end || seconds > 86400 ? PATIENCE_MS : seconds * 1000ULL;
}

int client_open(const char *socket, struct client **ret, struct error *err)
{
	cleanup(client_close_ptr) struct client *client = calloc(1, sizeof(*client));

	if (!client)
		return error_set(err, -ENOMEM, "out of memory");
	client->interrupt_fd = -1;
	client->patience_ms = patience_ms();
	client->socket = strdup(socket);
	client->easy = curl_easy_init();
	client->multi = curl_multi_init();
	if (!client->socket || !client->easy || !client->multi)
		return error_set(err, -ENOMEM, "out of memory");
	*ret = take_ptr(client);
	return 0;
}

void client_interrupt_by(struct client *client, int fd)
{
	client->interrupt_fd = fd;
}

void client_limit(struct client *client, unsigned ms)
{
	client->limit_ms = ms;
}

static size_t buffer_add(char *data, size_t one, size_t size, void *context)
{
	struct buffer *buffer = context;
	char *larger;

	if (size > REPLY_SIZE_MAX - buffer->size)
		return 0;
	larger = realloc(buffer->data, buffer->size + size + 1);
	if (!larger)
		return 0;
	memcpy(larger + buffer->size, data, size);
	buffer->data = larger;
	buffer->size += size;
	return size;
}

/* The result of the one transfer, once it has ended. */
static bool transfer_ended(CURLM *multi, CURLcode *ret)
{
	CURLMsg *message;
	int left;

	while ((message = curl_multi_info_read(multi, &left))) {
		if (message->msg != CURLMSG_DONE)
			continue;
		*ret = message->data.result;
		return true;
	}
	return false;
}

/* One line for a user who begins to wonder. */
static void tell(struct client *client)
{
	if (!client->tell_ms || clock_monotonic_ms() < client->tell_ms)
		return;
	client->tell_ms = 0;
	if (isatty(STDERR_FILENO))
		fputs(ERASE_LINE, stderr);
	print_line(stderr, "deployctl: deployfsd does not answer yet, waiting …");
}

/* curl_easy_perform() that @interrupt_fd ends at once, not at the next second. */
static int transfer_run(struct client *client, CURLcode *ret)
{
	struct curl_waitfd interrupt = {.fd = client->interrupt_fd,
					.events = CURL_WAIT_POLLIN};
	const unsigned count = client->interrupt_fd >= 0;
	int running;

	for (;;) {
		if (curl_multi_perform(client->multi, &running) != CURLM_OK)
			return -EIO;
		if (transfer_ended(client->multi, ret))
			return 0;
		interrupt.revents = 0;
		if (curl_multi_poll(client->multi, &interrupt, count, 1000, NULL) !=
		    CURLM_OK)
			return -EIO;
		if (interrupt.revents)
			return -EINTR;
		tell(client);
	}
}

static int transfer(struct client *client, CURLcode *ret)
{
	int r;

	if (curl_multi_add_handle(client->multi, client->easy) != CURLM_OK)
		return -EIO;
	r = transfer_run(client, ret);
	curl_multi_remove_handle(client->multi, client->easy);
	return r;
}

static int connect_error(struct client *client, struct error *err)
{
	long os_error = 0;

	curl_easy_getinfo(client->easy, CURLINFO_OS_ERRNO, &os_error);
	if (os_error == EACCES || os_error == EPERM)
		return error_set(err, -ECONNREFUSED,
				 "no permission to use the socket '%s'", client->socket);
	return error_set(
		err, -ECONNREFUSED,
		"deployfsd does not answer on the socket '%s' (%s): start deployfsd, "
		"or see its log for why it ended",
		client->socket,
		os_error ? strerror((int)os_error) : "it cannot be connected");
}

static int transfer_error(struct client *client, CURLcode code, struct error *err)
{
	switch (code) {
	case CURLE_OK:
		return 0;
	case CURLE_COULDNT_CONNECT:
		return connect_error(client, err);
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
		return error_set(
			err, -ECONNREFUSED,
			"the connection to deployfsd on '%s' broke before it had "
			"answered: see with 'deployctl status' whether it runs",
			client->socket);
	case CURLE_OPERATION_TIMEDOUT:
		return error_set(
			err, -ECONNREFUSED,
			"deployfsd takes connections on the socket '%s', but has not "
			"answered within %u s: 'deployctl doctor' looks for the reason",
			client->socket, client->limit_ms / 1000);
	case CURLE_OUT_OF_MEMORY:
		return error_set(err, -ENOMEM, "out of memory");
	default:
		return reply_unexpected(err, curl_easy_strerror(code));
	}
}

/* Whether the request may fare better when it is sent again. */
static bool is_break(struct client *client, CURLcode code)
{
	long os_error = 0;

	switch (code) {
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
	case CURLE_RECV_ERROR:
	case CURLE_SEND_ERROR:
		return true;
	case CURLE_COULDNT_CONNECT:
		curl_easy_getinfo(client->easy, CURLINFO_OS_ERRNO, &os_error);
		/* EAGAIN: it is there, and more wait for it than it can queue. */
		return os_error == EAGAIN || ((client->broke_ms || client->expected) &&
					      os_error != EACCES && os_error != EPERM);
	default:
		return false;
	}
}

/* The errno that an error reply stands for; 0 for a good one. */
static int reply_error(json_t *reply, long status, struct error *err)
{
	const bool has_error = json_is_object(json_object_get(reply, "error"));
	const char *code, *message;
	char what[64];
	int r;

	if (!has_error && status < 400)
		return 0;
	snprintf(what, sizeof(what), "HTTP status %ld without a reason", status);
	if (!has_error)
		return reply_unexpected(err, what);
	r = reply_read(reply, err, "{s:{s:s, s:s}}", "error", "code", &code, "message",
		       &message);
	if (r < 0)
		return r;
	return error_set(err, error_from_name(code), "%s", message);
}

static int reply_parse(const struct buffer *buffer, long status, json_t **ret,
		       struct error *err)
{
	cleanup(json_decrefp) json_t *reply = NULL;
	json_error_t problem;
	char what[64];
	int r;

	reply = json_loadb(buffer->data ? buffer->data : "", buffer->size, 0, &problem);
	snprintf(what, sizeof(what), "HTTP status %ld, and no JSON object", status);
	if (!json_is_object(reply))
		return reply_unexpected(err, what);
	r = reply_error(reply, status, err);
	*ret = take_ptr(reply);
	return r;
}

/* curl_easy_reset() has kept the connection, and a GET uses it again. A change is sent on
 * a new one: libcurl would repeat it by itself when a used one turns out to be dead, and
 * not every change has a key that the daemon knows. */
static void transfer_prepare(struct client *client, const char *method, const char *url,
			     const char *body, struct buffer *buffer)
{
	CURL *easy = client->easy;

	curl_easy_reset(easy);
	curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, client->socket);
	curl_easy_setopt(easy, CURLOPT_URL, url);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http");
	curl_easy_setopt(easy, CURLOPT_PROXY, "");
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_USERAGENT, "deployctl/" DEPLOYFS_VERSION);
	curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)client->limit_ms);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, buffer_add);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, buffer);
	curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, (long)(strcmp(method, "GET") != 0));
	if (body)
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, body);
	else if (!strcmp(method, "POST"))
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, "");
	curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, method);
}

/* A random UUID (RFC 9562, version 4) as a header. */
static int key_header(char text[static UUID_HEADER_SIZE])
{
	unsigned char b[16];

	if (getrandom(b, sizeof(b), 0) != sizeof(b))
		return -EIO;
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	snprintf(text, UUID_HEADER_SIZE,
		 "Idempotency-Key: %02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
		 "%02x%02x%02x%02x%02x%02x",
		 b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11],
		 b[12], b[13], b[14], b[15]);
	return 0;
}

static int header_add(struct curl_slist **headers, const char *text)
{
	struct curl_slist *longer = curl_slist_append(*headers, text);

	if (!longer)
		return -ENOMEM;
	*headers = longer;
	return 0;
}

/* The headers of a request, the same at each attempt. */
static int headers_make(const char *method, bool body, struct curl_slist **ret,
			struct error *err)
{
	char key[UUID_HEADER_SIZE];
	int r = 0;

	if (body)
		r = header_add(ret, "Content-Type: application/json");
	if (r == 0 && strcmp(method, "GET") != 0) {
		if (key_header(key) < 0)
			return error_set(err, -EIO, "the system gives no random numbers");
		r = header_add(ret, key);
	}
	return r < 0 ? error_set(err, r, "out of memory") : 0;
}

/* One attempt. 1: the connection broke, as @err says, and there is time for another. */
static int attempt(struct client *client, json_t **ret, struct buffer *buffer,
		   struct error *err)
{
	CURLcode code = CURLE_OK;
	long status = 0;
	uint64_t now_ms, patience_ms;
	int r = transfer(client, &code);

	if (r == -EINTR)
		return error_set(err, r, "interrupted before the daemon had answered");
	if (r < 0)
		return error_set(err, r, "cannot talk to deployfsd on the socket '%s'",
				 client->socket);
	r = transfer_error(client, code, err);
	if (r == 0) {
		client->expected = true;
		curl_easy_getinfo(client->easy, CURLINFO_RESPONSE_CODE, &status);
		return reply_parse(buffer, status, ret, err);
	}
	if (!is_break(client, code))
		return r;
	now_ms = clock_monotonic_ms();
	if (!client->broke_ms) {
		client->broke_ms = now_ms;
		client->tell_ms = client->limit_ms ? 0 : now_ms + SILENCE_MS;
	}
	patience_ms = client->limit_ms ? client->limit_ms : client->patience_ms;
	return now_ms - client->broke_ms < patience_ms ? 1 : r;
}

/* -EINTR when Ctrl-C comes meanwhile. */
static int pause_for(struct client *client, int ms, struct error *err)
{
	struct pollfd fd = {.fd = client->interrupt_fd, .events = POLLIN};

	if (poll(&fd, 1, ms) > 0)
		return error_set(err, -EINTR,
				 "interrupted before the daemon had answered");
	tell(client);
	return 0;
}

int client_request(struct client *client, const char *method, const char *url,
		   const json_t *body, json_t **ret, struct error *err)
{
	cleanup(headers_free) struct curl_slist *headers = NULL;
	cleanup(free_ptr) char *text = NULL;
	int r;

	if (body)
		text = json_dumps(body, JSON_COMPACT);
	if (body && !text)
		return error_set(err, -ENOMEM, "out of memory");
	r = headers_make(method, body, &headers, err);
	if (r < 0)
		return r;
	client->broke_ms = 0;
	/* Who asks to be kept waiting is not told that he waits, nor who knows how long.
	 */
	client->tell_ms = strstr(url, "wait_s=") || client->limit_ms
				  ? 0
				  : clock_monotonic_ms() + SILENCE_MS;
	for (;;) {
		cleanup(buffer_done) struct buffer buffer = {0};

		transfer_prepare(client, method, url, text, &buffer);
		curl_easy_setopt(client->easy, CURLOPT_HTTPHEADER, headers);
		r = attempt(client, ret, &buffer, err);
		if (r <= 0)
			return r;
		r = pause_for(client, RETRY_PERIOD_MS, err);
		if (r < 0)
			return r;
	}
}

/* Appends @part to *@url, which grows. */
static int url_add(char **url, const char *part, bool escape)
{
	char *escaped = escape ? curl_easy_escape(NULL, part, 0) : NULL;
	char *longer;
	int r;

	if (escape && !escaped)
		return -ENOMEM;
	r = asprintf(&longer, "%s%s", *url, escape ? escaped : part);
	curl_free(escaped);
	if (r < 0)
		return -ENOMEM;
	free(*url);
	*url = longer;
	return 0;
}

int client_url(char **ret, struct error *err, ...)
{
	cleanup(free_ptr) char *url = strdup("http://deployfs");
	bool escape = false;
	const char *part;
	va_list args;
	int r = url ? 0 : -ENOMEM;

	va_start(args, err);
	for (; r == 0 && (part = va_arg(args, const char *)); escape = !escape)
		r = url_add(&url, part, escape);
	va_end(args);
	if (r < 0)
		return error_set(err, r, "out of memory");
	*ret = take_ptr(url);
	return 0;
}

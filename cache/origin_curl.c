/* SPDX-License-Identifier: Apache-2.0 */
/*
 * origin_curl.c - FTP, FTPS, SFTP, HTTP and HTTPS through libcurl
 *
 * One request, one stream. libcurl is told to trust nothing from the environment: no
 * .netrc, no proxy, no host from a PASV reply, no other protocol than the URL's own
 * (http may be sent on to https, never back). Server and size are judged before the first
 * byte is handed on, and what came is counted here again: libcurl calls a file whole
 * whose announced size it did not know.
 */
#include "cleanup.h"
#include "clock.h"
#include "origin.h"
#include "origin_private.h"
#include "pace.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <curl/curl.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define BUFFER_SIZE   (512L * 1024)
#define REDIRECTS_MAX 5L
#define PORT_FTPS     990 /* TLS from the first byte; AUTH TLS on all others */
#define PORT_SSH      22
#define REPLY_MAX     160
#define KEY_TEXT_MAX  1400 /* an RSA key of 8192 bits in base64 */

enum protocol {
	PROTOCOL_FTP,
	PROTOCOL_SFTP,
	PROTOCOL_HTTP
};

struct transfer {
	const char *url;
	const char *path;
	uint64_t offset;
	uint64_t size_max;
	const struct origin_options *options;
	struct url server;
	uint64_t *ret_size;
	origin_sink_fn *sink;
	void *context;

	CURL *curl;
	enum protocol protocol;
	struct pace pace;
	const char *why;  /* for a code of ours; NULL: libcurl knows */
	int failed;       /* our own reason to end it */
	bool sink_failed; /* it is the sink's, and so is its text */
	bool begun;       /* the answer was judged, bytes are handed on */
	bool size_known;
	uint64_t size; /* of the whole file */
	uint64_t at;   /* offset of the next byte */

	int reply;                  /* FTP: the last reply's code */
	char reply_text[REPLY_MAX]; /* and its line */
	bool has_first, has_total;  /* HTTP: what Content-Range told */
	uint64_t first, total;
	char *key_line; /* SFTP: for known_hosts; NULL: not known */
	bool key_changed;
	char detail[CURL_ERROR_SIZE];
};

DEFINE_CLEANUP(CURL, curl_easy_cleanup)
DEFINE_CLEANUP(struct curl_slist, curl_slist_free_all)

static int transfer_fail(struct transfer *t, int code, const char *why)
{
	t->failed = code;
	t->why = why;
	return code;
}

/* The server's answer is there and no byte was handed on yet. */
static int transfer_begin(struct transfer *t)
{
	curl_off_t rest = -1;
	long status = 0;

	t->begun = true;
	curl_easy_getinfo(t->curl, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &rest);
	if (t->protocol == PROTOCOL_HTTP) {
		curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
		if (t->offset > 0 && (status != 206 || !t->has_first))
			return transfer_fail(t, -ESPIPE, "the server cannot resume");
		if (t->offset > 0 && t->first != t->offset)
			return transfer_fail(t, -ESPIPE,
					     "the server sends another range");
		if (t->offset == 0 && status != 200)
			return transfer_fail(t, -EPROTO,
					     "the server sends no whole file");
	}
	if (rest >= 0) {
		t->size_known = true;
		t->size = t->offset + (uint64_t)rest;
	}
	if (t->size_known && t->offset > 0 && t->has_total && t->total != t->size)
		return transfer_fail(t, -ESPIPE, "the server sends another range");
	if (t->size_known && t->size > t->size_max)
		return transfer_fail(t, -EFBIG, "the file is larger than allowed");
	if (t->size_known && t->ret_size)
		*t->ret_size = t->size;
	return 0;
}

static int transfer_bytes(struct transfer *t, const void *data, size_t size)
{
	uint64_t before;
	int r;

	if (!t->begun) {
		r = transfer_begin(t);
		if (r < 0)
			return r;
	}
	if (t->size_known && size > t->size - t->at)
		return transfer_fail(t, t->offset ? -ESPIPE : -EPROTO,
				     "the server sends more bytes than it announced");
	if (size > t->size_max - t->at)
		return transfer_fail(t, -EFBIG, "the file is larger than allowed");
	before = clock_monotonic_ms();
	r = t->sink(t->context, data, size);
	pace_bytes(&t->pace, size, clock_monotonic_ms() - before);
	if (r < 0) {
		t->sink_failed = true;
		return transfer_fail(t, r, NULL);
	}
	t->at += size;
	return 0;
}

static size_t on_bytes(char *data, size_t unit, size_t count, void *context)
{
	size_t size = unit * count;

	return transfer_bytes(context, data, size) < 0 ? size ^ 1 : size;
}

static int on_progress(void *context, curl_off_t down_total, curl_off_t down,
		       curl_off_t up_total, curl_off_t up)
{
	struct transfer *t = context;
	const char *why = NULL;
	int r = pace_check(&t->pace, &why);

	if (r == 0)
		return 0;
	transfer_fail(t, r, why);
	return 1;
}

/* "213 1024": the last line of an FTP reply */
static void ftp_reply(struct transfer *t, const char *line, size_t size)
{
	if (size < 4 || !isdigit((unsigned char)line[0]) ||
	    !isdigit((unsigned char)line[1]) || !isdigit((unsigned char)line[2]) ||
	    line[3] != ' ')
		return;
	t->reply = (line[0] - '0') * 100 + (line[1] - '0') * 10 + line[2] - '0';
	while (size > 0 && isspace((unsigned char)line[size - 1]))
		size--;
	snprintf(t->reply_text, sizeof(t->reply_text), "%.*s", (int)size, line);
}

static bool parse_number(const char **at, uint64_t *ret)
{
	uint64_t value = 0;
	const char *c = *at;

	for (; isdigit((unsigned char)*c); c++)
		if (__builtin_mul_overflow(value, 10, &value) ||
		    __builtin_add_overflow(value, (unsigned)(*c - '0'), &value))
			return false;
	if (c == *at)
		return false;
	*at = c;
	*ret = value;
	return true;
}

/* "bytes 100-199/200", "bytes 100-199" and a star for the total, or for the range */
static void http_range(struct transfer *t, const char *text)
{
	uint64_t last;

	text += strspn(text, " \t");
	if (strncasecmp(text, "bytes", 5) != 0)
		return;
	text += 5;
	text += strspn(text, " \t");
	if (*text == '*')
		text++;
	else if (parse_number(&text, &t->first) && *text++ == '-' &&
		 parse_number(&text, &last))
		t->has_first = true;
	else
		return;
	if (*text++ == '/')
		t->has_total = parse_number(&text, &t->total);
}

static void http_header(struct transfer *t, const char *line, size_t size)
{
	static const char name[] = "content-range:";
	char text[128];

	if (size >= 5 &&
	    !strncmp(line, "HTTP/", 5)) /* another answer, after a redirect */
		t->has_first = t->has_total = false;
	if (size >= sizeof(text) || size < sizeof(name) ||
	    strncasecmp(line, name, sizeof(name) - 1) != 0)
		return;
	memcpy(text, line, size);
	text[size] = '\0';
	http_range(t, text + sizeof(name) - 1);
}

static size_t on_header(char *line, size_t unit, size_t count, void *context)
{
	struct transfer *t = context;
	size_t size = unit * count;

	pace_answer(&t->pace);
	if (t->protocol == PROTOCOL_FTP)
		ftp_reply(t, line, size);
	else
		http_header(t, line, size);
	return size;
}

/* A key blob begins with its algorithm's name: 4 bytes of length, then the text. */
static void key_describe(struct transfer *t, const struct curl_khkey *key)
{
	char text[KEY_TEXT_MAX], port[16] = "";
	bool default_port = !t->server.port || t->server.port == PORT_SSH;
	uint32_t size;

	if (key->len < 4 || (key->len + 2) / 3 * 4 >= sizeof(text))
		return;
	memcpy(&size, key->key, sizeof(size));
	size = ntohl(size);
	if (size > key->len - 4 || size > 64)
		return;
	EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)key->key,
			(int)key->len);
	if (!default_port)
		snprintf(port, sizeof(port), "]:%u", t->server.port);
	if (asprintf(&t->key_line, "%s%s%s %.*s %s", default_port ? "" : "[",
		     t->server.host, port, (int)size, key->key + 4, text) < 0)
		t->key_line = NULL;
}

static int on_host_key(CURL *curl, const struct curl_khkey *known,
		       const struct curl_khkey *found, enum curl_khmatch match,
		       void *context)
{
	struct transfer *t = context;

	if (match == CURLKHMATCH_OK)
		return CURLKHSTAT_FINE;
	t->key_changed = match == CURLKHMATCH_MISMATCH;
	if (!t->key_line)
		key_describe(t, found);
	transfer_fail(t, -EPERM, NULL);
	return CURLKHSTAT_REJECT;
}

static int setup_common(struct transfer *t)
{
	CURL *c = t->curl;
	const struct origin_options *o = t->options;
	int bad = 0;

	bad |= curl_easy_setopt(c, CURLOPT_ERRORBUFFER, t->detail);
	bad |= curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	bad |= curl_easy_setopt(c, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
	bad |= curl_easy_setopt(c, CURLOPT_PROXY, "");
	bad |= curl_easy_setopt(c, CURLOPT_NOPROXY, "*");
	bad |= curl_easy_setopt(c, CURLOPT_BUFFERSIZE, BUFFER_SIZE);
	bad |= curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS,
				(long)o->connect_timeout_ms);
	bad |= curl_easy_setopt(c, CURLOPT_SERVER_RESPONSE_TIMEOUT,
				(long)(o->stall_timeout_ms + 999) / 1000);
	bad |= curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
	bad |= curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
	bad |= curl_easy_setopt(c, CURLOPT_XFERINFODATA, t);
	bad |= curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_bytes);
	bad |= curl_easy_setopt(c, CURLOPT_WRITEDATA, t);
	bad |= curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	bad |= curl_easy_setopt(c, CURLOPT_HEADERDATA, t);
	bad |= curl_easy_setopt(c, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)t->offset);
	return bad;
}

static int setup_tls(struct transfer *t)
{
	CURL *c = t->curl;
	int bad = 0;

	bad |= curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 1L);
	bad |= curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 2L);
	if (!t->options->ca_file)
		return bad;
	/* Just these: the folder of the system's certificates would add to them. */
	bad |= curl_easy_setopt(c, CURLOPT_CAINFO, t->options->ca_file);
	bad |= curl_easy_setopt(c, CURLOPT_CAPATH, NULL);
	return bad;
}

static int setup_credential(struct transfer *t)
{
	const struct credential *credential = t->options->credential;
	CURL *c = t->curl;
	long methods = CURLSSH_AUTH_PASSWORD | CURLSSH_AUTH_KEYBOARD;
	int bad = 0;

	if (credential && credential->user)
		bad |= curl_easy_setopt(c, CURLOPT_USERNAME, credential->user);
	if (credential && credential->password)
		bad |= curl_easy_setopt(c, CURLOPT_PASSWORD, credential->password);
	if (t->protocol != PROTOCOL_SFTP)
		return bad;
	if (credential && credential->key_file) {
		methods = CURLSSH_AUTH_PUBLICKEY;
		bad |= curl_easy_setopt(c, CURLOPT_SSH_PRIVATE_KEYFILE,
					credential->key_file);
	}
	/* Without this libcurl tries root's agent and keys. */
	bad |= curl_easy_setopt(c, CURLOPT_SSH_AUTH_TYPES, methods);
	return bad;
}

static int setup_protocol(struct transfer *t, struct curl_slist *headers)
{
	const struct origin_options *o = t->options;
	CURL *c = t->curl;
	int bad = 0;

	switch (t->protocol) {
	case PROTOCOL_FTP:
		bad |= curl_easy_setopt(c, CURLOPT_FTP_SKIP_PASV_IP, 1L);
		bad |= curl_easy_setopt(c, CURLOPT_FTP_USE_EPSV, 1L);
		bad |= curl_easy_setopt(c, CURLOPT_FTP_FILEMETHOD,
					(long)CURLFTPMETHOD_SINGLECWD);
		break;
	case PROTOCOL_SFTP:
		/* Without a file libcurl would ask nobody and accept every key. */
		bad |= curl_easy_setopt(c, CURLOPT_SSH_KNOWNHOSTS,
					o->known_hosts ? o->known_hosts : "/dev/null");
		bad |= curl_easy_setopt(c, CURLOPT_SSH_KEYFUNCTION, on_host_key);
		bad |= curl_easy_setopt(c, CURLOPT_SSH_KEYDATA, t);
		break;
	case PROTOCOL_HTTP:
		bad |= curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers);
		bad |= curl_easy_setopt(c, CURLOPT_HTTP_CONTENT_DECODING, 0L);
		bad |= curl_easy_setopt(c, CURLOPT_FAILONERROR, 1L);
		bad |= curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
		bad |= curl_easy_setopt(c, CURLOPT_MAXREDIRS, REDIRECTS_MAX);
		bad |= curl_easy_setopt(c, CURLOPT_HTTPAUTH, (long)CURLAUTH_BASIC);
		bad |= curl_easy_setopt(c, CURLOPT_USERAGENT,
					"deployfs/" DEPLOYFS_VERSION);
		break;
	}
	return bad;
}

/* Each name of the path is escaped; what the URL has is escaped as it should be. */
static char *path_escape(const char *path)
{
	cleanup(free_ptr) char *whole = strdup("");

	while (whole && *path) {
		size_t length = strcspn(path, "/");
		char *escaped = curl_easy_escape(NULL, path, (int)length), *longer;

		if (!escaped || asprintf(&longer, "%s/%s", whole, escaped) < 0)
			longer = NULL;
		curl_free(escaped);
		free(whole);
		whole = longer;
		path += length;
		path += *path == '/';
	}
	return take_ptr(whole);
}

/* FTPS is "ftps" to libcurl with TLS from the first byte, else "ftp" with AUTH TLS. */
static const char *curl_scheme(const struct url *server)
{
	bool explicit_tls = server->port && server->port != PORT_FTPS;

	return !strcmp(server->scheme, "ftps") && explicit_tls ? "ftp" : server->scheme;
}

static int setup_url(struct transfer *t)
{
	cleanup(free_ptr) char *path = path_escape(t->path);
	cleanup(free_ptr) char *url = NULL;
	const struct url *server = &t->server;
	size_t folder = strlen(server->path);
	char port[16] = "";

	while (folder > 0 && server->path[folder - 1] == '/')
		folder--;
	if (server->port)
		snprintf(port, sizeof(port), ":%u", server->port);
	if (!path || asprintf(&url, "%s://%s%s%.*s%s", curl_scheme(server), server->host,
			      port, (int)folder, server->path, path) < 0)
		url = NULL;
	return url ? (int)curl_easy_setopt(t->curl, CURLOPT_URL, url) : -ENOMEM;
}

static int setup_scheme(struct transfer *t)
{
	const char *scheme = t->server.scheme, *allowed = curl_scheme(&t->server);
	int bad = 0;

	t->protocol = PROTOCOL_FTP;
	if (!strcmp(scheme, "ftps")) {
		bad |= curl_easy_setopt(t->curl, CURLOPT_USE_SSL, (long)CURLUSESSL_ALL);
		bad |= curl_easy_setopt(t->curl, CURLOPT_FTPSSLAUTH,
					(long)CURLFTPAUTH_TLS);
	} else if (!strcmp(scheme, "sftp")) {
		t->protocol = PROTOCOL_SFTP;
	} else if (!strncmp(scheme, "http", 4)) {
		t->protocol = PROTOCOL_HTTP;
		allowed = strcmp(scheme, "http") ? "https" : "http,https";
	}
	bad |= curl_easy_setopt(t->curl, CURLOPT_PROTOCOLS_STR, allowed);
	bad |= curl_easy_setopt(t->curl, CURLOPT_REDIR_PROTOCOLS_STR, allowed);
	return bad;
}

static int transfer_setup(struct transfer *t, struct curl_slist *headers)
{
	return setup_scheme(t) || setup_url(t) || setup_common(t) || setup_tls(t) ||
			       setup_credential(t) || setup_protocol(t, headers)
		       ? -ENOMEM
		       : 0;
}

static int host_key_error(struct transfer *t, struct error *err)
{
	const char *file = t->options->known_hosts;

	if (!t->key_line)
		return origin_error(err, -EPERM, t->url, t->path,
				    "the server's host key is not known");
	if (t->key_changed)
		return origin_error(err, -EPERM, t->url, t->path,
				    "the server's host key has CHANGED; only if that is "
				    "expected, replace its line in '%s' by: %s",
				    file ? file : "known_hosts", t->key_line);
	return origin_error(err, -EPERM, t->url, t->path,
			    "the server's host key is not known; if it is the right "
			    "one, add this line to '%s': %s",
			    file ? file : "known_hosts", t->key_line);
}

static int http_error(struct transfer *t, struct error *err)
{
	long status = 0;
	int code = -EPROTO;

	curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status == 404 || status == 410)
		code = -ENOENT;
	else if (status == 401 || status == 403)
		code = -EACCES;
	return origin_error(err, code, t->url, t->path, "the server answers %ld%s",
			    status,
			    code == -ENOENT   ? ", no such file"
			    : code == -EACCES ? ", not allowed"
					      : "");
}

/* An FTP server could repeat what it was sent: no secret goes from there into a log. */
static const char *reply_shown(const struct transfer *t)
{
	const struct credential *credential = t->options->credential;

	if (credential && credential->password && *credential->password &&
	    strstr(t->reply_text, credential->password))
		return "(a reply that repeats the password)";
	return t->reply_text;
}

static int ftp_error(struct transfer *t, struct error *err)
{
	int code = -EPROTO;

	if (t->reply == 550)
		code = -ENOENT;
	else if (t->reply == 530 || t->reply == 532 || t->reply == 430)
		code = -EACCES;
	return origin_error(err, code, t->url, t->path, "the server answers '%s'",
			    reply_shown(t));
}

static int class_of(CURLcode result)
{
	switch (result) {
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_CONNECT:
		return -EHOSTUNREACH;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_PARTIAL_FILE:
	case CURLE_GOT_NOTHING:
	case CURLE_SEND_ERROR:
	case CURLE_RECV_ERROR:
		return -ECONNRESET;
	case CURLE_FTP_COULDNT_USE_REST:
	case CURLE_RANGE_ERROR:
	case CURLE_BAD_DOWNLOAD_RESUME:
		return -ESPIPE;
	case CURLE_REMOTE_FILE_NOT_FOUND:
		return -ENOENT;
	case CURLE_REMOTE_ACCESS_DENIED:
	case CURLE_LOGIN_DENIED:
		return -EACCES;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_USE_SSL_FAILED:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_INVALIDCERTSTATUS:
		return -EPERM;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	case CURLE_URL_MALFORMAT:
		return -EINVAL;
	default:
		return -EPROTO;
	}
}

static int transfer_error(struct transfer *t, CURLcode result, struct error *err)
{
	int code = class_of(result);

	if (t->failed == -EPERM && t->protocol == PROTOCOL_SFTP)
		return host_key_error(t, err);
	if (t->failed)
		return origin_error(err, t->failed, t->url, t->path, "%s", t->why);
	if (result == CURLE_HTTP_RETURNED_ERROR)
		return http_error(t, err);
	if (t->protocol == PROTOCOL_FTP && t->reply >= 400 && code != -EPERM &&
	    code != -ESPIPE && code != -ECONNRESET && code != -EHOSTUNREACH)
		return ftp_error(t, err);
	return origin_error(err, code, t->url, t->path, "%s",
			    t->detail[0] ? t->detail : curl_easy_strerror(result));
}

/* HTTP 416: there is nothing behind the offset. It is the file's end, or not our file. */
static int http_end(struct transfer *t, struct error *err)
{
	if (!t->has_total || t->total != t->offset)
		return origin_error(err, -ESPIPE, t->url, t->path,
				    "the server cannot resume there");
	if (t->ret_size)
		*t->ret_size = t->total;
	return 0;
}

/* libcurl is content; whether the file is whole is seen here. */
static int transfer_finish(struct transfer *t, struct error *err)
{
	/* Without a byte behind an offset: libcurl compared the offset with the size. */
	bool at_end = !t->begun && t->offset > 0 && t->protocol != PROTOCOL_HTTP;

	if (!t->begun && !at_end && transfer_begin(t) < 0)
		return transfer_error(t, CURLE_OK, err);
	if (t->size_known && t->at < t->size)
		return origin_error(err, -ECONNRESET, t->url, t->path,
				    "the server sent fewer bytes than it announced");
	if (t->ret_size)
		*t->ret_size = t->at;
	return 0;
}

static int transfer_run(struct transfer *t, struct error *err)
{
	CURLcode result;
	long status = 0;

	pace_begin(&t->pace, t->options->connect_timeout_ms,
		   t->options->stall_timeout_ms);
	result = curl_easy_perform(t->curl);
	if (t->sink_failed)
		return t->failed;
	curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
	if (t->protocol == PROTOCOL_HTTP && status == 416 && t->offset > 0 &&
	    (result == CURLE_OK || result == CURLE_HTTP_RETURNED_ERROR))
		return http_end(t, err);
	if (t->failed || result != CURLE_OK)
		return transfer_error(t, result, err);
	return transfer_finish(t, err);
}

int origin_curl_read(const char *url, const char *path, uint64_t offset,
		     uint64_t size_max, const struct origin_options *options,
		     uint64_t *ret_size, origin_sink_fn *sink, void *context,
		     struct error *err)
{
	cleanup(curl_slist_free_all_ptr) struct curl_slist *headers =
		curl_slist_append(NULL, "Accept-Encoding: identity");
	cleanup(curl_easy_cleanup_ptr) CURL *curl = curl_easy_init();
	struct transfer transfer = {
		.url = url,
		.path = path,
		.offset = offset,
		.size_max = size_max,
		.options = options,
		.ret_size = ret_size,
		.sink = sink,
		.context = context,
		.curl = curl,
		.at = offset,
	};
	int r;

	if (offset > size_max)
		return origin_error(err, -EFBIG, url, path,
				    "the file is larger than allowed");
	if (!curl || !headers)
		return error_set(err, -ENOMEM, "out of memory");
	r = origin_parse(url, &transfer.server, err);
	if (r < 0)
		return r;
	r = transfer_setup(&transfer, headers);
	if (r < 0)
		return origin_error(err, r, url, path, "cannot set up the transfer");
	r = transfer_run(&transfer, err);
	free(transfer.key_line);
	return r;
}

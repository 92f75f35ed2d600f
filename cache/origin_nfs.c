/* SPDX-License-Identifier: Apache-2.0 */
/*
 * origin_nfs.c - NFSv4 and NFSv3 without a kernel client, through libnfs
 *
 * What libnfs 4.0 does to its callers, and what is done about it: it waits for ever, so
 * that only its asynchronous calls are used, in a loop with deadlines of our own; it does
 * not recover an NFSv4 context, so that every failure ends the context, and the next
 * request makes another under another client name; its errno of a failed read is not the
 * server's, so that all of them are taken for a broken connection; a read of more than
 * 1 MiB kills it, so that they are of READ_SIZE. It resolves names without a limit, and
 * takes the first address only, so that it is given addresses.
 */
#include "cleanup.h"
#include "clock.h"
#include "origin.h"
#include "origin_private.h"
#include "pace.h"

#include <sys/time.h>

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <nfsc/libnfs.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __SANITIZE_ADDRESS__
/* libnfs 4.0 never frees the client name. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:nfs4_set_client_name\n";
}
#endif

#define READ_SIZE     (512u * 1024)
#define READ_DEPTH    4    /* reads under way at once */
#define POLL_MS       500  /* at most, so that the pace is looked at */
#define CLOSE_MS      1000 /* for a good-bye */
#define VERSION_3     3
#define VERSION_4     4
#define VERIFIER_SIZE 8

/* One read under way. libnfs may call back until its context is gone. */
struct slot {
	uint64_t offset; /* of the first byte wanted */
	uint32_t size;   /* bytes wanted; 0: not in use */
	uint32_t have;   /* bytes that came */
	bool waiting;    /* a request is under way */
	int status;      /* negative: it failed */
	char *buffer;    /* READ_SIZE */
};

/* One other call under way. */
struct call {
	bool done;
	int status;
	void *data;              /* what open gave */
	struct nfs_stat_64 stat; /* what fstat gave */
};

struct reader {
	const char *url;
	const char *path;
	const struct origin_options *options;
	struct url server; /* its port 0: found by NFS itself */
	char *export;

	struct nfs_context *nfs;
	struct nfsfh *file;
	struct call call;
	struct slot slots[READ_DEPTH];
	struct pace pace;
	struct error *err;
};

static int reader_error(struct reader *r, int code, const char *what)
{
	const char *detail = r->nfs ? nfs_get_error(r->nfs) : NULL;

	return origin_error(r->err, code, r->url, r->path, "%s%s%s", what,
			    detail && *detail ? ": " : "", detail ? detail : "");
}

static void on_call(int status, struct nfs_context *nfs, void *data, void *context)
{
	struct call *call = context;

	call->status = status;
	call->data = status < 0 ? NULL : data;
	call->done = true;
}

static void on_stat(int status, struct nfs_context *nfs, void *data, void *context)
{
	struct call *call = context;

	if (status >= 0)
		memcpy(&call->stat, data, sizeof(call->stat));
	call->status = status;
	call->done = true;
}

static void on_read(int status, struct nfs_context *nfs, void *data, void *context)
{
	struct slot *slot = context;

	slot->waiting = false;
	slot->status = status;
	if (status <= 0)
		return;
	if ((uint32_t)status > slot->size - slot->have)
		slot->status = -EPROTO;
	else
		memcpy(slot->buffer + slot->have, data, (size_t)status);
}

/* Close the context; what is under way is called back from in here. */
static void reader_disconnect(struct reader *r)
{
	if (!r->nfs)
		return;
	nfs_destroy_context(r->nfs);
	r->nfs = NULL;
	r->file = NULL;
	for (size_t i = 0; i < READ_DEPTH; i++)
		r->slots[i].size = 0;
}

static void reader_free(struct reader *r)
{
	reader_disconnect(r);
	for (size_t i = 0; i < READ_DEPTH; i++)
		free(r->slots[i].buffer);
	free(r->export);
	free(r);
}
DEFINE_CLEANUP(struct reader, reader_free)

/* One turn of the loop: wait for the socket, let libnfs work. */
static int reader_turn(struct reader *r, uint64_t wait_ms)
{
	struct pollfd poll_fd = {
		.fd = nfs_get_fd(r->nfs),
		.events = (short)nfs_which_events(r->nfs),
	};
	int n;

	if (poll_fd.fd < 0)
		return -ECONNRESET;
	n = poll(&poll_fd, 1, wait_ms < POLL_MS ? (int)wait_ms : POLL_MS);
	if (n < 0 && errno != EINTR)
		return -ECONNRESET;
	if (n > 0 && nfs_service(r->nfs, poll_fd.revents) < 0)
		return -ECONNRESET;
	return 0;
}

/* Until r->call is done. The call's own status is in there. */
static int reader_wait(struct reader *r, uint64_t limit_ms)
{
	uint64_t end = clock_monotonic_ms() + limit_ms;

	while (!r->call.done) {
		uint64_t now = clock_monotonic_ms();
		int e;

		if (now >= end)
			return -ETIMEDOUT;
		e = reader_turn(r, end - now);
		if (e < 0 && !r->call.done)
			return e;
	}
	return 0;
}

static void random_name(char *text, size_t size, char verifier[static VERIFIER_SIZE])
{
	unsigned char random[VERIFIER_SIZE * 2] = {0};
	uint64_t number;

	/* Short only before the machine has collected any; the pid and time help then. */
	if (getrandom(random, sizeof(random), 0) != sizeof(random)) {
		number = clock_monotonic_ms();
		memcpy(random, &number, sizeof(number));
	}
	memcpy(verifier, random, VERIFIER_SIZE);
	memcpy(&number, random + VERIFIER_SIZE, sizeof(number));
	snprintf(text, size, "deployfs-%d-%016jx", (int)getpid(), (uintmax_t)number);
}

/* The port can be given by the arguments of a URL only. */
static int set_port(struct reader *r)
{
	char text[64];
	struct nfs_url *parsed;

	if (!r->server.port)
		return 0;
	snprintf(text, sizeof(text), "nfs://h/?nfsport=%u", r->server.port);
	parsed = nfs_parse_url_incomplete(r->nfs, text);
	if (!parsed)
		return -ENOMEM;
	nfs_destroy_url(parsed);
	return 0;
}

static int reader_context(struct reader *r, int version)
{
	char name[64], verifier[VERIFIER_SIZE];

	r->nfs = nfs_init_context();
	if (!r->nfs || set_port(r) < 0)
		return error_set(r->err, -ENOMEM, "out of memory");
	random_name(name, sizeof(name), verifier);
	nfs_set_autoreconnect(r->nfs, 0);
	nfs_set_dircache(r->nfs, 0);
	nfs_set_version(r->nfs, version);
	if (version == VERSION_4) {
		nfs4_set_client_name(r->nfs, name);
		nfs4_set_verifier(r->nfs, verifier);
	}
	return 0;
}

/* The class of a failed mount or open; other errnos of libnfs say nothing. */
static int status_class(int status, int otherwise)
{
	if (status == -ENOENT || status == -ENOTDIR)
		return -ENOENT;
	if (status == -EACCES || status == -EPERM)
		return -EACCES;
	return otherwise;
}

static int reader_mount(struct reader *r, const char *address, int version)
{
	int e = reader_context(r, version);

	if (e < 0)
		return e;
	r->call = (struct call){0};
	if (nfs_mount_async(r->nfs, address, r->export, on_call, &r->call) < 0)
		return reader_error(r, -EHOSTUNREACH, "cannot connect");
	e = reader_wait(r, r->options->connect_timeout_ms);
	if (e == -ETIMEDOUT)
		return reader_error(r, -ETIMEDOUT,
				    "the server does not answer within the connect "
				    "timeout");
	if (e < 0)
		return reader_error(r, -EHOSTUNREACH, "cannot connect");
	if (r->call.status == 0)
		return 0;
	e = status_class(r->call.status, -EHOSTUNREACH);
	return reader_error(r, e,
			    e == -EHOSTUNREACH ? "cannot connect, or it is no NFS server"
					       : "cannot mount the export");
}

/* With a port it is NFSv4 there. Without one a server that has no NFSv4, or has the
 * folder under another name in it, is asked in NFSv3. */
static int mount_versions(struct reader *r, const char *address)
{
	struct error first, second, *err = r->err;
	int e, e3;

	if (r->server.port)
		return reader_mount(r, address, VERSION_4);
	r->err = &first;
	e = reader_mount(r, address, VERSION_4);
	e3 = e;
	if (e < 0 && e != -ETIMEDOUT && e != -ENOMEM) {
		reader_disconnect(r);
		r->err = &second;
		e3 = reader_mount(r, address, VERSION_3);
	}
	r->err = err;
	if (e3 == 0)
		return 0;
	if (e == -EHOSTUNREACH && e3 != e)
		return error_set(err, e3, "%s", second.text);
	return error_set(err, e, "%s", first.text);
}

struct lookup {
	struct gaicb request;
	char name[NI_MAXHOST];
};

/* getaddrinfo(3) with a deadline. Where the look-up cannot be cancelled, it is left to
 * itself with its memory: the job ends soon. */
static int resolve(const char *host, uint64_t limit_ms, struct addrinfo **ret)
{
	static const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct timespec limit = {
		.tv_sec = (time_t)(limit_ms / 1000),
		.tv_nsec = (long)(limit_ms % 1000) * 1000000,
	};
	struct lookup *lookup = calloc(1, sizeof(*lookup));
	struct gaicb *list[1];
	int r;

	if (!lookup)
		return EAI_MEMORY;
	snprintf(lookup->name, sizeof(lookup->name), "%s", host);
	lookup->request.ar_name = lookup->name;
	lookup->request.ar_request = &hints;
	list[0] = &lookup->request;
	r = getaddrinfo_a(GAI_NOWAIT, list, 1, NULL);
	if (r) {
		free(lookup);
		return r;
	}
	do
		r = gai_suspend((const struct gaicb *const *)list, 1, &limit);
	while (r == EAI_INTR);
	if (r == EAI_AGAIN && gai_cancel(list[0]) == EAI_NOTCANCELED)
		return EAI_AGAIN;
	r = gai_error(list[0]);
	if (r == 0)
		*ret = list[0]->ar_result;
	free(lookup);
	return r;
}
DEFINE_CLEANUP(struct addrinfo, freeaddrinfo)

static int reader_connect(struct reader *r)
{
	cleanup(freeaddrinfo_ptr) struct addrinfo *found = NULL;
	int e = resolve(r->server.host, r->options->connect_timeout_ms, &found);

	if (e == EAI_MEMORY)
		return error_set(r->err, -ENOMEM, "out of memory");
	if (e)
		return origin_error(r->err, -EHOSTUNREACH, r->url, r->path,
				    "cannot find the host '%s': %s", r->server.host,
				    gai_strerror(e));
	for (struct addrinfo *at = found; at; at = at->ai_next) {
		char address[NI_MAXHOST];

		e = getnameinfo(at->ai_addr, at->ai_addrlen, address, sizeof(address),
				NULL, 0, NI_NUMERICHOST);
		if (e)
			return origin_error(r->err, -EHOSTUNREACH, r->url, r->path,
					    "cannot use an address of '%s': %s",
					    r->server.host, gai_strerror(e));
		reader_disconnect(r);
		e = mount_versions(r, address);
		if (e != -EHOSTUNREACH)
			return e;
	}
	return e;
}

static int reader_open(struct reader *r)
{
	cleanup(free_ptr) char *name = NULL;
	int e;

	if (asprintf(&name, "/%s", r->path) < 0) {
		name = NULL;
		return error_set(r->err, -ENOMEM, "out of memory");
	}
	r->call = (struct call){0};
	if (nfs_open_async(r->nfs, name, O_RDONLY, on_call, &r->call) < 0)
		return reader_error(r, -EPROTO, "cannot open it");
	e = reader_wait(r, r->options->connect_timeout_ms);
	if (e < 0)
		return reader_error(r, e, "the server does not answer to an open");
	if (r->call.status < 0)
		return reader_error(r, status_class(r->call.status, -EPROTO),
				    "cannot open it");
	r->file = r->call.data;
	return 0;
}

static int reader_stat(struct reader *r, struct nfs_stat_64 *ret)
{
	int e;

	r->call = (struct call){0};
	if (nfs_fstat64_async(r->nfs, r->file, on_stat, &r->call) < 0)
		return reader_error(r, -ECONNRESET, "cannot ask for its size");
	e = reader_wait(r, r->options->stall_timeout_ms);
	if (e < 0)
		return reader_error(r, e, "the server does not answer");
	if (r->call.status < 0)
		return reader_error(r, -ECONNRESET, "cannot ask for its size");
	*ret = r->call.stat;
	return 0;
}

/* Tell the server; libnfs frees the file with the call, answered or cancelled. */
static void reader_close(struct reader *r)
{
	r->call = (struct call){0};
	if (nfs_close_async(r->nfs, r->file, on_call, &r->call) == 0)
		(void)reader_wait(r, CLOSE_MS);
	r->file = NULL;
}

/* A server may send less than it was asked for: the rest is asked for again. */
static int slot_ask(struct reader *r, struct slot *slot)
{
	slot->status = 0;
	slot->waiting = true;
	if (nfs_pread_async(r->nfs, r->file, slot->offset + slot->have,
			    slot->size - slot->have, on_read, slot) == 0)
		return 0;
	slot->waiting = false;
	return reader_error(r, -ECONNRESET, "cannot read");
}

static int slot_begin(struct reader *r, struct slot *slot, uint64_t *at, uint64_t size)
{
	uint64_t rest = size - *at;

	slot->offset = *at;
	slot->size = rest < READ_SIZE ? (uint32_t)rest : READ_SIZE;
	slot->have = 0;
	*at += slot->size;
	return slot_ask(r, slot);
}

/* Take what came into the slots; ask for what is missing. */
static int slots_collect(struct reader *r)
{
	for (size_t i = 0; i < READ_DEPTH; i++) {
		struct slot *slot = &r->slots[i];
		int e;

		if (!slot->size || slot->waiting || slot->have == slot->size)
			continue;
		if (slot->status < 0)
			return reader_error(r, -ECONNRESET, "the read failed");
		if (slot->status == 0)
			return origin_error(r->err, -ECONNRESET, r->url, r->path,
					    "it ends before its size");
		pace_bytes(&r->pace, (uint64_t)slot->status, 0);
		slot->have += (uint32_t)slot->status;
		if (slot->have == slot->size)
			continue;
		e = slot_ask(r, slot);
		if (e < 0)
			return e;
	}
	return 0;
}

static int slot_wait(struct reader *r, const struct slot *slot)
{
	const char *why = NULL;

	while (slot->have < slot->size) {
		int e = pace_check(&r->pace, &why);

		if (e < 0)
			return origin_error(r->err, e, r->url, r->path, "%s", why);
		e = reader_turn(r, POLL_MS);
		if (e < 0)
			return reader_error(r, e, "the connection broke");
		e = slots_collect(r);
		if (e < 0)
			return e;
	}
	return 0;
}

static int reader_stream(struct reader *r, uint64_t offset, uint64_t size,
			 origin_sink_fn *sink, void *context)
{
	uint64_t asked = offset;
	size_t head = 0;

	pace_begin(&r->pace, r->options->stall_timeout_ms, r->options->stall_timeout_ms);
	for (size_t i = 0; i < READ_DEPTH && asked < size; i++) {
		int e = slot_begin(r, &r->slots[i], &asked, size);

		if (e < 0)
			return e;
	}
	while (offset < size) {
		struct slot *slot = &r->slots[head];
		uint64_t before;
		int e = slot_wait(r, slot);

		if (e < 0)
			return e;
		before = clock_monotonic_ms();
		e = sink(context, slot->buffer, slot->size);
		if (e < 0)
			return e;
		pace_bytes(&r->pace, 0, clock_monotonic_ms() - before);
		offset += slot->size;
		slot->size = 0;
		if (asked < size)
			e = slot_begin(r, slot, &asked, size);
		if (e < 0)
			return e;
		head = (head + 1) % READ_DEPTH;
	}
	return 0;
}

static int reader_judge(struct reader *r, const struct nfs_stat_64 *stat, uint64_t offset,
			uint64_t size_max)
{
	if (!S_ISREG(stat->nfs_mode))
		return origin_error(r->err, -EPROTO, r->url, r->path,
				    "it is not a regular file");
	if (stat->nfs_size > size_max)
		return origin_error(r->err, -EFBIG, r->url, r->path,
				    "it has %ju bytes, and %ju are allowed",
				    (uintmax_t)stat->nfs_size, (uintmax_t)size_max);
	if (offset > stat->nfs_size)
		return origin_error(r->err, -ESPIPE, r->url, r->path,
				    "it ends before the byte to go on at");
	return 0;
}

static bool same_state(const struct nfs_stat_64 *left, const struct nfs_stat_64 *right)
{
	return left->nfs_size == right->nfs_size && left->nfs_mtime == right->nfs_mtime &&
	       left->nfs_mtime_nsec == right->nfs_mtime_nsec;
}

static int reader_read(struct reader *r, uint64_t offset, uint64_t size_max,
		       uint64_t *ret_size, origin_sink_fn *sink, void *context)
{
	struct nfs_stat_64 before, after;
	int e = reader_stat(r, &before);

	if (e < 0)
		return e;
	e = reader_judge(r, &before, offset, size_max);
	if (e < 0)
		return e;
	if (ret_size)
		*ret_size = before.nfs_size;
	e = reader_stream(r, offset, before.nfs_size, sink, context);
	if (e < 0)
		return e;
	e = reader_stat(r, &after);
	if (e < 0)
		return e;
	if (!same_state(&before, &after))
		return origin_error(r->err, -ECONNRESET, r->url, r->path,
				    "it changed while it was read");
	return 0;
}

/* "[::1]" is how a URL writes an address, "::1" how the resolver does. */
static void host_normalise(char *host)
{
	size_t size = strlen(host);

	if (size < 2 || host[0] != '[')
		return;
	memmove(host, host + 1, size - 2);
	host[size - 2] = '\0';
}

static int reader_new(const char *url, const char *path,
		      const struct origin_options *options, struct error *err,
		      struct reader **ret)
{
	cleanup(reader_free_ptr) struct reader *r = calloc(1, sizeof(*r));
	int e;

	if (!r)
		return error_set(err, -ENOMEM, "out of memory");
	r->url = url;
	r->path = path;
	r->options = options;
	r->err = err;
	e = origin_parse(url, &r->server, err);
	if (e < 0)
		return e;
	host_normalise(r->server.host);
	r->export = origin_folder(r->server.path);
	if (!r->export)
		return error_set(err, -ENOMEM, "out of memory");
	for (size_t i = 0; i < READ_DEPTH; i++) {
		r->slots[i].buffer = malloc(READ_SIZE);
		if (!r->slots[i].buffer)
			return error_set(err, -ENOMEM, "out of memory");
	}
	*ret = take_ptr(r);
	return 0;
}

int origin_nfs_read(const char *url, const char *path, uint64_t offset, uint64_t size_max,
		    const struct origin_options *options, uint64_t *ret_size,
		    origin_sink_fn *sink, void *context, struct error *err)
{
	cleanup(reader_free_ptr) struct reader *r = NULL;
	int e = reader_new(url, path, options, err, &r);

	if (e < 0)
		return e;
	e = reader_connect(r);
	if (e < 0)
		return e;
	e = reader_open(r);
	if (e < 0)
		return e;
	e = reader_read(r, offset, size_max, ret_size, sink, context);
	reader_close(r);
	return e;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "api_private.h"
#include "cleanup.h"
#include "fd.h"
#include "jobs.h"
#include "log.h"
#include "name.h"
#include "upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REASON_MAX 1000
#define GROUPS_MAX 256 /* of a caller; with more, none is used */

static int body_wrong(const json_error_t *why, struct error *err)
{
	static const char left[] = "left unpacked: ";
	const char *member = strstr(why->text, left);

	if (member)
		return error_set(err, -EINVAL,
				 "the request has a member that is not known: %s",
				 member + strlen(left));
	return error_set(err, -EINVAL, "the request is wrong: %s", why->text);
}

static int check_version(const char *version, struct error *err)
{
	if (!name_valid(version))
		return error_set(
			err, -EINVAL,
			"'%.140s' is not a name for a version: letters, digits and "
			". _ + - are allowed, a letter or digit first",
			version);
	return 0;
}

static int check_words(const char *channel, const char *reason, struct error *err)
{
	if (!name_valid(channel))
		return error_set(
			err, -EINVAL,
			"'%.140s' is not a name for a channel: letters, digits and "
			". _ + - are allowed, a letter or digit first",
			channel);
	if (strlen(reason) > REASON_MAX)
		return error_set(err, -EINVAL, "the reason has more than %d bytes",
				 REASON_MAX);
	return 0;
}

static int job_reply(struct api_request *request, json_t *job, uint64_t waiter,
		     json_t **ret, struct error *err)
{
	request->status = 202;
	*ret = json_pack("{s:o, s:I}", "job", job, "waiter", (json_int_t)waiter);
	return *ret ? 0 : error_set(err, -ENOMEM, "not enough memory");
}

/* A repetition is not judged by how things are by now: it gets its job. 1: it has. */
static int job_again(struct api_request *request, const struct job_order *order,
		     json_t **ret, struct error *err)
{
	uint64_t waiter;
	json_t *job;
	int r = jobs_join(request->service->jobs, order, &job, &waiter, err);

	if (r > 0 && job_reply(request, job, waiter, ret, err) < 0)
		return err->code;
	return r;
}

/* @order: without who */
static int job_start(struct api_request *request, const struct job_order *order,
		     json_t **ret, struct error *err)
{
	struct job_order whole = *order;
	char who[64];
	uint64_t waiter;
	json_t *job;
	int r;

	api_who(request, who, sizeof(who));
	whole.who = who;
	r = jobs_start(request->service->jobs, &whole, &job, &waiter, err);
	return r < 0 ? r : job_reply(request, job, waiter, ret, err);
}

int api_fetch(struct api_request *request, json_t **ret, struct error *err)
{
	struct job_order order = {.kind = "fetch",
				  .app = request->app,
				  .key = request->key,
				  .archive_fd = -1};
	json_error_t why;
	int latest = 0, r = 0;

	if (json_unpack_ex(request->body, &why, JSON_STRICT, "{s?s, s?b}", "version",
			   &order.version, "latest", &latest) < 0)
		return body_wrong(&why, err);
	if (!order.version == !latest)
		return error_set(err, -EINVAL,
				 "a fetch takes either a version or 'latest'");
	if (order.version)
		r = check_version(order.version, err);
	if (r < 0)
		return r;
	return job_start(request, &order, ret, err);
}

/* Open a file with the rights of who asks for it, not with ours. The ids are this
 * thread's. */
static int open_as(const struct api_request *request, const char *path)
{
	gid_t groups[GROUPS_MAX];
	socklen_t size = sizeof(groups);
	int fd, saved;

	if (getsockopt(request->fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
		size = 0;
	/* The system call and not setgroups(3), which changes all threads. */
	if (syscall(SYS_setgroups, size / sizeof(groups[0]), groups) < 0)
		return -errno;
	setfsgid(request->gid);
	setfsuid(request->uid);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	saved = errno;
	setfsuid(geteuid());
	setfsgid(getegid());
	if (syscall(SYS_setgroups, 0, NULL) < 0)
		log_error("cannot drop the groups of a caller: %s", strerror(errno));
	return fd < 0 ? -saved : fd;
}

static int open_package(const struct api_request *request, const char *path,
			struct error *err)
{
	struct stat st;
	cleanup(fd_close) int fd = -1;

	if (path[0] != '/')
		return error_set(err, -EINVAL, "'%s' is not an absolute path", path);
	fd = open_as(request, path);
	if (fd < 0)
		return error_set(err, fd, "cannot open '%s': %s", path, strerror(-fd));
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "'%s' is not a regular file", path);
	return fd_take(&fd);
}

int api_import(struct api_request *request, json_t **ret, struct error *err)
{
	struct job_order order = {
		.kind = "import", .app = request->app, .key = request->key};
	unsigned char sum[SHA256_SIZE];
	bool shown;
	json_error_t why;
	const char *file;
	int r;

	if (json_unpack_ex(request->body, &why, JSON_STRICT, "{s:s, s:s, s?s}", "version",
			   &order.version, "file", &file, "sha256", &order.sha256) < 0)
		return body_wrong(&why, err);
	r = check_version(order.version, err);
	if (r == 0 && order.sha256 &&
	    !sha256_parse(order.sha256, strlen(order.sha256), sum))
		r = error_set(err, -EINVAL, "'sha256' is not 64 hexadecimal digits");
	if (r == 0)
		r = job_again(request, &order, ret, err);
	if (r != 0)
		return r < 0 ? r : 0;
	/* What the name means may be settled before the work: a channel's name, say.
	 * Known content is only known after it. */
	r = service_check_new(request->service, request->app, order.version,
			      order.sha256 ? sum : NULL, &shown, err);
	if (r < 0 && r != -EALREADY)
		return r;
	order.archive_fd = open_package(request, file, err);
	if (order.archive_fd < 0)
		return order.archive_fd;
	return job_start(request, &order, ret, err);
}

int api_verify(struct api_request *request, json_t **ret, struct error *err)
{
	struct job_order order = {.kind = "verify",
				  .app = request->app,
				  .key = request->key,
				  .archive_fd = -1};
	struct version known;
	json_error_t why;
	int r;

	if (json_unpack_ex(request->body, &why, JSON_STRICT, "{s?s}", "version",
			   &order.version) < 0)
		return body_wrong(&why, err);
	r = order.version ? check_version(order.version, err) : 0;
	if (r == 0)
		r = job_again(request, &order, ret, err);
	if (r != 0)
		return r < 0 ? r : 0;
	if (order.version)
		r = catalog_find(request->service->store->catalog, request->app,
				 order.version, &known, err);
	else
		r = catalog_find_app(request->service->store->catalog, request->app, err);
	if (r < 0)
		return r;
	return job_start(request, &order, ret, err);
}

int api_repair(struct api_request *request, json_t **ret, struct error *err)
{
	struct job_order order = {
		.kind = "repair", .app = request->app, .archive_fd = -1};
	struct version known;
	json_error_t why;
	int r;

	if (json_unpack_ex(request->body, &why, JSON_STRICT, "{s:s}", "version",
			   &order.version) < 0)
		return body_wrong(&why, err);
	r = check_version(order.version, err);
	if (r == 0)
		r = catalog_find(request->service->store->catalog, request->app,
				 order.version, &known, err);
	if (r < 0)
		return r;
	return job_start(request, &order, ret, err);
}

int api_warm(struct api_request *request, json_t **ret, struct error *err)
{
	struct job_order order = {.kind = "warm",
				  .app = request->app,
				  .channel = CHANNEL_DEFAULT,
				  .key = request->key,
				  .archive_fd = -1};
	struct version known;
	json_error_t why;
	int r;

	if (json_unpack_ex(request->body, &why, JSON_STRICT, "{s:s, s?s}", "version",
			   &order.version, "channel", &order.channel) < 0)
		return body_wrong(&why, err);
	r = check_words(order.channel, "", err);
	if (r == 0)
		r = check_version(order.version, err);
	if (r == 0)
		r = job_again(request, &order, ret, err);
	if (r != 0)
		return r < 0 ? r : 0;
	r = catalog_find(request->service->store->catalog, request->app, order.version,
			 &known, err);
	if (r < 0)
		return r;
	return job_start(request, &order, ret, err);
}

int api_cancel(struct api_request *request, json_t **ret, struct error *err)
{
	const char *text = api_query(request, "waiter");
	uint64_t waiter = 0;
	json_t *job;
	int r = text ? api_number(text, "a waiter", &waiter, err) : 0;

	if (r == 0 && text && waiter == 0)
		r = error_set(err, -EINVAL, "waiters are counted from 1");
	if (r == 0)
		r = jobs_cancel(request->service->jobs, request->id, waiter, &job, err);
	if (r < 0)
		return r;
	*ret = json_pack("{s:b, s:o}", "changed", r, "job", job);
	return 0;
}

static json_t *flip_json(const struct flip *flip)
{
	json_t *notes = json_array();

	if (flip->note[0])
		json_array_append_new(notes, json_string(flip->note));
	return json_pack("{s:b, s:s, s:s, s:o, s:s?, s:s, s:s?, s:o}", "changed",
			 flip->changed, "app", flip->app, "channel", flip->channel,
			 "generation",
			 flip->generation ? json_integer((json_int_t)flip->generation)
					  : json_null(),
			 "from", *flip->from ? flip->from : NULL, "to", flip->to,
			 "previous", *flip->previous ? flip->previous : NULL, "notes",
			 notes);
}

static void flip_log(const char *verb, const struct flip *flip, const char *who,
		     const char *reason)
{
	if (flip->changed && !flip->repeated)
		log_info("%s: app=%s channel=%s generation=%llu from=%s to=%s who=%s "
			 "reason='%s'",
			 verb, flip->app, flip->channel,
			 (unsigned long long)flip->generation,
			 *flip->from ? flip->from : "-", flip->to, who, reason);
}

int api_flip(struct api_request *request, json_t **ret, struct error *err)
{
	const char *version, *channel = CHANNEL_DEFAULT, *reason = "";
	json_error_t why;
	struct flip flip;
	char who[64];
	int r;

	if (json_unpack_ex(request->body, &why, JSON_STRICT, "{s:s, s?s, s?s}", "version",
			   &version, "channel", &channel, "reason", &reason) < 0)
		return body_wrong(&why, err);
	r = check_words(channel, reason, err);
	if (r == 0)
		r = check_version(version, err);
	if (r < 0)
		return r;
	api_who(request, who, sizeof(who));
	r = service_flip(request->service, request->app, channel, version, who, reason,
			 request->key, &flip, err);
	if (r < 0)
		return r;
	flip_log("flip", &flip, who, reason);
	*ret = flip_json(&flip);
	return 0;
}

int api_rollback(struct api_request *request, json_t **ret, struct error *err)
{
	const char *channel = CHANNEL_DEFAULT, *reason = "";
	json_error_t why;
	struct flip flip;
	char who[64];
	int r;

	if (json_unpack_ex(request->body, &why, JSON_STRICT, "{s?s, s?s}", "channel",
			   &channel, "reason", &reason) < 0)
		return body_wrong(&why, err);
	r = check_words(channel, reason, err);
	if (r < 0)
		return r;
	api_who(request, who, sizeof(who));
	r = service_rollback(request->service, request->app, channel, who, reason,
			     request->key, &flip, err);
	if (r < 0)
		return r;
	flip_log("rollback", &flip, who, reason);
	*ret = flip_json(&flip);
	return 0;
}

static int set_pin(struct api_request *request, bool pinned, json_t **ret,
		   struct error *err)
{
	int r = catalog_pin(request->service->store->catalog, request->app,
			    request->version, pinned, request->key, err);

	if (r < 0)
		return r;
	*ret = json_pack("{s:b, s:s, s:s, s:b}", "changed", r, "app", request->app,
			 "version", request->version, "pinned", pinned);
	return 0;
}

int api_pin(struct api_request *request, json_t **ret, struct error *err)
{
	return set_pin(request, true, ret, err);
}

int api_unpin(struct api_request *request, json_t **ret, struct error *err)
{
	return set_pin(request, false, ret, err);
}

int api_remove(struct api_request *request, json_t **ret, struct error *err)
{
	uint64_t freed;
	bool removed;
	char who[64];
	int r = service_remove(request->service, request->app, request->version,
			       request->key, &removed, &freed, err);

	if (r < 0)
		return r;
	api_who(request, who, sizeof(who));
	log_info("removed: app=%s version=%s who=%s state=%s freed=%llu", request->app,
		 request->version, who, removed ? "removed" : "removing",
		 (unsigned long long)freed);
	*ret = json_pack("{s:b, s:s, s:s, s:s, s:I}", "changed", 1, "app", request->app,
			 "version", request->version, "state",
			 removed ? "removed" : "removing", "freed_bytes",
			 (json_int_t)freed);
	return 0;
}

int api_gc(struct api_request *request, json_t **ret, struct error *err)
{
	json_error_t why;
	int dry_run = 0;

	if (json_unpack_ex(request->body, &why, JSON_STRICT, "{s?b}", "dry_run",
			   &dry_run) < 0)
		return body_wrong(&why, err);
	return service_gc(request->service, dry_run, ret, err);
}

int api_daemon_stop(struct api_request *request, json_t **ret, struct error *err)
{
	json_error_t why;
	int force = 0, r;

	if (json_unpack_ex(request->body, &why, JSON_STRICT, "{s?b}", "force", &force) <
	    0)
		return body_wrong(&why, err);
	r = service_leave(request->service, force, err);
	if (r < 0)
		return r;
	request->stop = true;
	*ret = json_pack("{s:b}", "changed", 1);
	return 0;
}

int api_daemon_upgrade(struct api_request *request, json_t **ret, struct error *err)
{
	struct shared *shared = request->service->place.shared;
	uint32_t generation = atomic_load(&shared->generation);
	int r = upgrade_begin(shared, err);

	if (r < 0)
		return r;
	request->status = 202;
	*ret = json_pack("{s:b, s:I}", "changed", 1, "generation",
			 (json_int_t)generation);
	return 0;
}

int api_daemon_reload(struct api_request *request, json_t **ret, struct error *err)
{
	int r = service_reload(request->service, err);

	if (r == 0)
		*ret = json_pack("{s:b}", "changed", 1);
	return r;
}

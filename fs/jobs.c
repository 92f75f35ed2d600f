/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queued → running → done | failed | cancelled
 *
 * Each job has a thread, which waits for a place, starts the process, reads what it says
 * and in the end adopts the pack. A process downloads beside others, but asks before it
 * unpacks: one package at a time is compared with what the store has, so that equal files
 * of any two versions meet (I2).
 *
 * What the process says is not believed: lines are bounded, numbers are checked, the pack
 * is validated as at every load.
 *
 * A job that the death of the daemon interrupts is begun again by the next one, from its
 * record (job_record.c). It may have committed before: done_before() finds out.
 */
#include "jobs_private.h"

#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "job.h"
#include "log.h"
#include "origins.h"
#include "repairs.h"
#include "service.h"
#include "url.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RUNNING_MAX   4
#define QUEUED_MAX    100
#define ENDED_KEPT    100
#define WARNINGS_KEPT 20
#define RATE_EVERY_MS 1000
#define STARTS_MAX    3 /* a job that its daemon does not survive is not tried again */

static void job_touch(struct job *job)
{
	job->sequence++;
	pthread_cond_broadcast(&job->jobs->changed);
}

void job_free(struct job *job)
{
	json_decref(job->warnings);
	json_decref(job->result);
	fd_close(&job->archive_fd);
	free(job->waiters);
	free(job);
}

static json_t *time_json(int64_t wall_ns)
{
	char text[CLOCK_TEXT_SIZE];

	return wall_ns ? json_string(clock_format(wall_ns, text)) : json_null();
}

static json_t *number_or_null(uint64_t number)
{
	return number ? json_integer((json_int_t)number) : json_null();
}

static json_t *job_json(const struct job *job)
{
	json_t *json = json_pack(
		"{s:I, s:s, s:s, s:s?, s:s, s:s, s:I, s:o, s:o, s:o, s:I, s:s?, s:O, s:o,"
		" s:o, s:O?, s:n}",
		"id", (json_int_t)job->id, "kind", job->kind->name, "app", job->app,
		"version", *job->version ? job->version : NULL, "state",
		job_state_name(job->state), "stage", job->stage, "bytes",
		(json_int_t)job->bytes, "bytes_total", number_or_null(job->total), "rate",
		number_or_null(job->rate), "eta_s",
		job->rate && job->total > job->bytes
			? json_integer(
				  (json_int_t)((job->total - job->bytes) / job->rate))
			: json_null(),
		"sequence", (json_int_t)job->sequence, "source",
		*job->source ? job->source : NULL, "warnings", job->warnings, "started",
		time_json(job->started_ns), "ended", time_json(job->ended_ns), "result",
		job->result, "error");

	if (json && job->error.code)
		json_object_set_new(json, "error",
				    json_pack("{s:s, s:s}", "code",
					      error_name(job->error.code), "message",
					      job->error.text));
	return json;
}

/* Messages of the process. */

/* @bytes of a download are here; the first that are told may be of an earlier one that it
 * resumes, as are fewer than before. */
static void on_download(struct job *job, uint64_t bytes)
{
	struct url url = {.scheme = "file"}; /* of a plain path */

	if (job->downloads && bytes > job->fetched &&
	    (*job->source == '/' ||
	     url_parse(job->source, &url, &(struct error){0}) == 0))
		metrics_fetched(&job->jobs->service->metrics, url.scheme,
				bytes - job->fetched);
	job->downloads = true;
	job->fetched = bytes;
}

static void on_progress(struct job *job, const json_t *progress)
{
	const char *stage = json_string_value(json_object_get(progress, "stage"));
	const char *source = json_string_value(json_object_get(progress, "source"));
	json_int_t bytes = json_integer_value(json_object_get(progress, "bytes"));
	json_int_t total = json_integer_value(json_object_get(progress, "total"));
	uint64_t now_ms = clock_monotonic_ms();

	if (!stage || bytes < 0 || total < 0)
		return;
	if (strcmp(stage, job->stage)) {
		snprintf(job->stage, sizeof(job->stage), "%s", stage);
		job->rate = 0;
		job->rate_at_ms = now_ms;
		job->rate_bytes = (uint64_t)bytes;
	}
	if (source)
		snprintf(job->source, sizeof(job->source), "%s", source);
	if (!strcmp(stage, "download"))
		on_download(job, (uint64_t)bytes);
	job->bytes = (uint64_t)bytes;
	job->total = (uint64_t)total;
	if (now_ms - job->rate_at_ms >= RATE_EVERY_MS && job->bytes >= job->rate_bytes) {
		uint64_t rate = (job->bytes - job->rate_bytes) * 1000 /
				(now_ms - job->rate_at_ms);

		job->rate = job->rate ? (job->rate + rate) / 2 : rate;
		job->rate_at_ms = now_ms;
		job->rate_bytes = job->bytes;
	}
}

static void on_message(struct job *job, json_t *message)
{
	json_t *progress = json_object_get(message, "progress");
	json_t *warning = json_object_get(message, "warning");
	json_t *result = json_object_get(message, "result");
	json_t *failure = json_object_get(message, "error");
	const char *version = json_string_value(json_object_get(message, "version"));

	if (progress)
		on_progress(job, progress);
	if (json_is_string(warning) && json_array_size(job->warnings) < WARNINGS_KEPT) {
		json_array_append(job->warnings, warning);
		log_warning("%s of '%s' %s: %s", job->kind->name, job->app, job->version,
			    json_string_value(warning));
	}
	if (version && job->latest && name_valid(version)) {
		snprintf(job->version, sizeof(job->version), "%s", version);
		record_write(job);
	}
	if (json_is_object(failure)) {
		json_int_t code = json_integer_value(json_object_get(failure, "code"));
		const char *text = json_string_value(json_object_get(failure, "text"));

		error_set(&job->error, code < 0 && code > -4096 ? (int)code : -EIO, "%s",
			  text ? text : "the job failed");
	}
	if (json_is_object(result)) {
		json_decref(job->result);
		job->result = json_incref(result);
	}
	job_touch(job);
}

static void on_origin(struct job *job, const json_t *origin)
{
	const char *url = json_string_value(json_object_get(origin, "url"));

	if (url)
		origins_note(job->jobs->service->origins, url,
			     json_string_value(json_object_get(origin, "error")));
}

/* The process wants to unpack: let it, when nobody else does. */
static int on_ready(struct job *job, int fd, bool *sharing)
{
	struct error err = {0};
	int r = *sharing ? -EPROTO
			 : service_share_begin(job->jobs->service, &job->cancelled);

	if (r < 0)
		return r;
	*sharing = true;
	/* What came before must be findable, or equal files would not meet. */
	r = store_index(job->jobs->service->store, &err);
	if (r < 0)
		log_warning("cannot index the store, less content will be shared: %s",
			    err.text);
	return fd_write_all(fd, "g", 1);
}

static int on_line(struct job *job, int fd, const char *line, size_t size, bool *sharing)
{
	json_t *message = json_loadb(line, size, 0, NULL);
	int r = 0;

	if (!json_is_object(message)) {
		json_decref(message);
		return -EPROTO;
	}
	if (json_object_get(message, "origin"))
		on_origin(job, json_object_get(message, "origin"));
	if (json_object_get(message, "ready"))
		r = on_ready(job, fd, sharing);
	pthread_mutex_lock(&job->jobs->lock);
	on_message(job, message);
	pthread_mutex_unlock(&job->jobs->lock);
	json_decref(message);
	return r;
}

/* Everything the process says, until it ends. */
static int listen_to(struct job *job, int fd, bool *sharing)
{
	cleanup(free_ptr) char *buffer = malloc(JOB_LINE_MAX);
	size_t size = 0;

	if (!buffer)
		return -ENOMEM;
	for (;;) {
		ssize_t n = read(fd, buffer + size, JOB_LINE_MAX - size);
		char *end;

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : 0;
		size += (size_t)n;
		while ((end = memchr(buffer, '\n', size))) {
			size_t line = (size_t)(end - buffer);
			int r = on_line(job, fd, buffer, line, sharing);

			if (r < 0)
				return r;
			size -= line + 1;
			memmove(buffer, end + 1, size);
		}
		if (size == JOB_LINE_MAX)
			return -EPROTO;
	}
}

/* The process and what it works on. */
struct work {
	int socket, pack;
	char temporary[64];
	bool sharing; /* we hold the right to share */
	bool adopted; /* the temporary file is gone from tmp/ */
};

static void work_done(struct job *job, struct work *work)
{
	char path[4096], name[80];

	fd_close(&work->socket);
	fd_close(&work->pack);
	if (work->sharing)
		service_share_end(job->jobs->service);
	if (!*work->temporary || work->adopted)
		return;
	snprintf(name, sizeof(name), "tmp/%s", work->temporary);
	unlink(store_path(job->jobs->service->store, name, path));
}

static int pack_create(struct job *job, struct work *work)
{
	char path[4096], name[80];

	snprintf(work->temporary, sizeof(work->temporary), "job-%llu.pack",
		 (unsigned long long)job->id);
	snprintf(name, sizeof(name), "tmp/%s", work->temporary);
	store_path(job->jobs->service->store, name, path);
	work->pack = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (work->pack < 0)
		return error_set(&job->error, -errno, "cannot make '%s': %s", path,
				 strerror(errno));
	return 0;
}

static int request_send(struct job *job, int fd, const struct config *config)
{
	struct space space;
	json_t *request;
	char *line;
	int r = service_space(job->jobs->service, &space, &job->error);

	if (r < 0)
		return r;
	request = job_request(job->kind->name, job->app,
			      *job->version ? job->version : NULL,
			      *job->channel ? job->channel : NULL, config, space.reserve,
			      *job->sha256 ? job->sha256 : NULL);
	line = request ? json_dumps(request, JSON_COMPACT) : NULL;
	json_decref(request);
	if (!line)
		return error_set(&job->error, -ENOMEM, "not enough memory");
	r = fd_write_all(fd, line, strlen(line));
	if (r == 0)
		r = fd_write_all(fd, "\n", 1);
	free(line);
	return r < 0 ? error_set(&job->error, r, "the job does not listen") : 0;
}

/* Descriptors of the child: 0 null, 1 and 2 our stderr, 3 socket, 4 archive, 5 pack. */
static int spawn(struct job *job, int socket, int archive, int pack, pid_t *ret)
{
	static char program[] = "deployfsd", mode[] = "--job";
	char *argv[] = {program, mode, NULL};
	char *env[] = {(char *)"LANG=C.UTF-8", (char *)"PATH=/usr/bin:/bin", NULL};
	posix_spawn_file_actions_t actions;
	int high[3], count = 0, r = 0;
	const int wanted[3] = {socket, archive, pack};

	/* Above the targets, so that no dup2 overwrites a source. */
	for (; count < 3; count++) {
		high[count] = wanted[count] < 0
				      ? -1
				      : fcntl(wanted[count], F_DUPFD_CLOEXEC, 10);
		if (wanted[count] >= 0 && high[count] < 0)
			r = -errno;
	}
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, 2, 1);
	for (int i = 0; i < 3; i++)
		if (high[i] >= 0)
			posix_spawn_file_actions_adddup2(&actions, high[i],
							 JOB_SOCKET_FD + i);
	if (r == 0)
		r = -posix_spawn(ret, "/proc/self/exe", &actions, NULL, argv, env);
	posix_spawn_file_actions_destroy(&actions);
	for (int i = 0; i < count; i++)
		fd_close(&high[i]);
	return r;
}

static bool repairs(const struct job *job)
{
	return !strcmp(job->kind->name, "repair");
}

static int process_start(struct job *job, struct work *work, const struct config *config)
{
	int pair[2], r;
	pid_t pid;

	if (job->kind->makes_pack || repairs(job)) {
		r = pack_create(job, work);
		if (r < 0)
			return r;
	}
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return error_set(&job->error, -errno, "cannot make a socket: %s",
				 strerror(errno));
	work->socket = pair[0];
	r = spawn(job, pair[1], job->archive_fd, work->pack, &pid);
	close(pair[1]);
	if (r < 0)
		return error_set(&job->error, r, "cannot start the job's process: %s",
				 strerror(-r));
	pthread_mutex_lock(&job->jobs->lock);
	job->pid = pid;
	if (job->cancelled)
		kill(pid, SIGKILL);
	pthread_mutex_unlock(&job->jobs->lock);
	return request_send(job, work->socket, config);
}

/* Reap it; what it leaves unsaid is said for it. */
static int process_end(struct job *job, int listened)
{
	pid_t pid;
	int status = 0;

	pthread_mutex_lock(&job->jobs->lock);
	pid = job->pid;
	job->pid = 0;
	if (pid && listened < 0)
		kill(pid, SIGKILL);
	pthread_mutex_unlock(&job->jobs->lock);
	if (pid)
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	if (job->cancelled)
		return error_set(&job->error, -ECANCELED, "cancelled");
	if (job->error.code)
		return job->error.code;
	if (WIFSIGNALED(status))
		return error_set(
			&job->error, -EIO,
			"the job's process was ended by signal %d (%s): nothing was "
			"changed, try again",
			WTERMSIG(status), strsignal(WTERMSIG(status)));
	if (!job->result)
		return error_set(&job->error, -EIO,
				 "the job's process ended without a result: nothing was "
				 "changed, try again");
	return 0;
}

static const char *text_of(const struct job *job, const char *key)
{
	const char *text = json_string_value(json_object_get(job->result, key));

	return text ? text : "";
}

static uint64_t number_of(const struct job *job, const char *key)
{
	json_int_t number = json_integer_value(json_object_get(job->result, key));

	return number > 0 ? (uint64_t)number : 0;
}

/* The partial download has become a version: it is not needed any more. */
static void partial_unlink(struct job *job)
{
	const char *file = text_of(job, "file");
	char path[4096], name[320];

	if (!*file || strchr(file, '/') || strlen(file) > 255)
		return;
	snprintf(name, sizeof(name), "partial/%s", file);
	unlink(store_path(job->jobs->service->store, name, path));
}

static int adopt(struct job *job, struct work *work)
{
	struct service *service = job->jobs->service;
	struct version version = {
		.package_bytes = number_of(job, "package_bytes"),
		.unpacked_bytes = number_of(job, "unpacked_bytes"),
		.files = number_of(job, "files"),
		.imported_ns = clock_wall_ns(),
	};
	const char *sum = text_of(job, "sha256");
	bool shown;
	int r;

	/* Without the right to share nobody has kept what it names from being freed. */
	if (!work->sharing || !sha256_parse(sum, strlen(sum), version.sha256) ||
	    !name_valid(job->version))
		return error_set(&job->error, -EIO, "the job's result makes no sense");
	snprintf(version.app, sizeof(version.app), "%s", job->app);
	snprintf(version.name, sizeof(version.name), "%s", job->version);
	snprintf(version.verified, sizeof(version.verified), "%s",
		 text_of(job, "verified"));
	snprintf(version.origin, sizeof(version.origin), "%s", text_of(job, "origin"));
	snprintf(version.imported_by, sizeof(version.imported_by), "%s", job->who);

	r = service_check_new(service, version.app, version.name, version.sha256, &shown,
			      &job->error);
	if (r < 0 || shown)
		return r;
	work->adopted = true; /* renamed, or removed by store_adopt() from then on */
	r = store_adopt(service->store, work->pack, work->temporary, &version,
			&job->error);
	if (r < 0) {
		work->adopted = false;
		return r;
	}
	r = service_add(service, &version, &job->error);
	if (r == 0)
		json_object_set_new(job->result, "stored_bytes",
				    json_integer((json_int_t)version.stored_bytes));
	return r;
}

static void result_trim(struct job *job)
{
	json_object_del(job->result, "file");
	json_object_del(job->result, "origin");
	json_object_del(job->result, "verified");
	json_object_del(job->result, "package_bytes");
}

static void set_stage(struct job *job, const char *stage)
{
	pthread_mutex_lock(&job->jobs->lock);
	snprintf(job->stage, sizeof(job->stage), "%s", stage);
	job->bytes = job->total;
	job->rate = 0;
	job_touch(job);
	pthread_mutex_unlock(&job->jobs->lock);
}

/* What a verify has found is told to who repairs. */
static void damage_note(struct job *job)
{
	struct pack_set *packs = job->jobs->service->store->packs;
	json_t *id;
	size_t i;

	json_array_foreach (json_object_get(job->result, "packs"), i, id) {
		struct pack *pack = pack_set_get(packs, (uint64_t)json_integer_value(id));

		if (pack)
			pack_note_damage(pack);
		pack_unref(pack);
	}
	json_object_del(job->result, "packs");
}

/* @repair: NULL unless it is one */
static int process_work(struct job *job, struct repair *repair)
{
	struct service *service = job->jobs->service;
	struct config_use *use = service_config(service);
	struct work work = {.socket = -1, .pack = -1};
	bool changed;
	int r = process_start(job, &work, use->config);

	if (r == 0)
		r = listen_to(job, work.socket, &work.sharing);
	fd_close(&work.socket);
	r = process_end(job, r);
	if (r == 0 && job->downloads)
		on_download(job, number_of(job, "package_bytes"));
	changed = json_is_true(json_object_get(job->result, "changed"));
	if (r == 0 && changed && job->kind->makes_pack) {
		set_stage(job, "commit");
		r = adopt(job, &work);
		if (r == 0)
			partial_unlink(job);
	}
	if (r == 0 && repair) {
		set_stage(job, "commit");
		r = repair_with(repair, work.pack, text_of(job, "origin"), &job->error);
		partial_unlink(job);
	}
	damage_note(job);
	if (job->result && job->kind->makes_pack)
		result_trim(job);
	work_done(job, &work);
	service_config_done(service, use);
	return r;
}

/* What a keeper knows an archive by. */
static const char *kept_name(const struct job *job, char text[static 40])
{
	snprintf(text, 40, "job-%llu", (unsigned long long)job->id);
	return text;
}

/* The archive of an import, for a successor. Without it the import would have to be asked
 * for again, no more than that. */
static void archive_keep(const struct job *job)
{
	const struct jobs_keeper *keeper = job->jobs->keeper;
	char name[40];
	int r;

	if (!keeper || job->archive_fd < 0)
		return;
	/* One of a predecessor that died before it had written this number down. */
	keeper->drop(keeper->context, kept_name(job, name));
	r = keeper->keep(keeper->context, kept_name(job, name), job->archive_fd);
	if (r < 0)
		log_warning("import of '%s' %s cannot go on after a restart: %s",
			    job->app, job->version, strerror(-r));
}

static void archive_drop(const struct job *job)
{
	const struct jobs_keeper *keeper = job->jobs->keeper;
	char name[40];

	if (keeper && !strcmp(job->kind->name, "import"))
		keeper->drop(keeper->context, kept_name(job, name));
}

static void archive_find(struct job *job)
{
	const struct jobs_keeper *keeper = job->jobs->keeper;
	char name[40];

	if (keeper && !strcmp(job->kind->name, "import"))
		job->archive_fd = keeper->kept(keeper->context, kept_name(job, name));
}

/* It was killed for a successor that goes on with it: its record says where. That it was
 * interrupted was not its fault. */
static void job_put_down(struct job *job)
{
	struct jobs *jobs = job->jobs;

	pthread_mutex_lock(&jobs->lock);
	job->error = (struct error){0};
	if (job->state == STATE_RUNNING && job->starts > 0)
		job->starts--;
	record_write(job);
	pthread_mutex_unlock(&jobs->lock);
}

static int repair_step(void *context, uint64_t bytes)
{
	struct job *job = context;

	pthread_mutex_lock(&job->jobs->lock);
	job->bytes += bytes;
	job_touch(job);
	pthread_mutex_unlock(&job->jobs->lock);
	return job->cancelled ? -ECANCELED : 0;
}

/* What the machine has itself first; the origin for the rest. */
static int repair_work(struct job *job)
{
	struct scrub_pace pace = {repair_step, job};
	struct repair *repair = NULL;
	bool left = false;
	json_t *result;
	int r = repair_new(job->jobs->service, job->app, job->version, &job->cancelled,
			   &pace, &repair, &job->error);

	if (r < 0)
		return r;
	r = repair_here(repair, &left, &job->error);
	if (r == 0 && left) {
		repair_sha256(repair, job->sha256);
		r = process_work(job, repair);
	}
	result = repair_result(repair);
	pthread_mutex_lock(&job->jobs->lock);
	json_decref(job->result);
	job->result = result;
	pthread_mutex_unlock(&job->jobs->lock);
	repair_free(repair);
	return r;
}

static int job_work(struct job *job)
{
	return repairs(job) ? repair_work(job) : process_work(job, NULL);
}

static void job_end(struct job *job, int r)
{
	struct jobs *jobs = job->jobs;

	pthread_mutex_lock(&jobs->lock);
	if (job->state == STATE_RUNNING) {
		jobs->running--;
		jobs->places -= !job->kind->uses_mount;
	}
	job->state = r == 0           ? STATE_DONE
		     : job->cancelled ? STATE_CANCELLED
				      : STATE_FAILED;
	if (r == -EALREADY) {
		/* It came by another way while we worked: that is what was wanted. */
		job->state = STATE_DONE;
		job->error = (struct error){0};
		json_decref(job->result);
		job->result =
			json_pack("{s:b, s:s}", "changed", 0, "version", job->version);
	} else if (r < 0 && job->result && job->kind->makes_pack) {
		json_decref(job->result);
		job->result = NULL;
	}
	job->ended_ns = clock_wall_ns();
	job->rate = 0;
	if (r == 0)
		job->bytes = job->total;
	archive_drop(job);
	fd_close(&job->archive_fd);
	job_touch(job);
	record_write(job);
	metrics_job_ended(&jobs->service->metrics, job->kind->name,
			  job_state_name(job->state));
	pthread_mutex_unlock(&jobs->lock);
	if (r == 0 || r == -EALREADY)
		log_info("%s ended: app=%s version=%s who=%s", job->kind->name, job->app,
			 job->version, job->who);
	else
		log_warning("%s failed: app=%s version=%s who=%s error='%s'",
			    job->kind->name, job->app, job->version, job->who,
			    job->error.text);
}

/* Wait for one of RUNNING_MAX places. A warming does not: a flip waits for it, and
 * downloads may take hours. */
static int place_take(struct job *job)
{
	struct jobs *jobs = job->jobs;
	int r = 0;

	pthread_mutex_lock(&jobs->lock);
	while (jobs->places >= RUNNING_MAX && !job->kind->uses_mount && !job->cancelled)
		pthread_cond_wait(&jobs->changed, &jobs->lock);
	if (job->cancelled) {
		r = error_set(&job->error, -ECANCELED, "cancelled");
	} else {
		jobs->running++;
		jobs->places += !job->kind->uses_mount;
		job->state = STATE_RUNNING;
		job->rate_at_ms = clock_monotonic_ms();
		job->starts++;
		job_touch(job);
		record_write(job);
	}
	pthread_mutex_unlock(&jobs->lock);
	return r;
}

/* Whether a job that is taken up again had committed its version before the daemon died:
 * who waits for it is told what it brought, not that it was here already. */
static bool done_before(struct job *job)
{
	char sum[SHA256_TEXT_SIZE];
	struct version version;
	json_t *result;

	if (!job->kind->makes_pack || !*job->version ||
	    catalog_find(job->jobs->service->store->catalog, job->app, job->version,
			 &version, NULL) < 0 ||
	    version.state != VERSION_PRESENT || version.imported_ns < job->started_ns)
		return false;
	result = json_pack("{s:b, s:s, s:s, s:I, s:I, s:I, s:n}", "changed", 1, "version",
			   version.name, "sha256", sha256_format(version.sha256, sum),
			   "files", (json_int_t)version.files, "unpacked_bytes",
			   (json_int_t)version.unpacked_bytes, "stored_bytes",
			   (json_int_t)version.stored_bytes, "shared_files");
	if (!strcmp(job->kind->name, "fetch"))
		json_object_set_new(result, "resumed_bytes", json_null());
	pthread_mutex_lock(&job->jobs->lock);
	job->result = result;
	pthread_mutex_unlock(&job->jobs->lock);
	return true;
}

/* Before a job is begun again. 1: it was done; 0: go on. */
static int look_back(struct job *job)
{
	if (!job->taken_up)
		return 0;
	if (done_before(job))
		return 1;
	if (job->starts >= STARTS_MAX)
		return error_set(&job->error, -EIO,
				 "deployfsd died %u times while this ran, and it is not "
				 "tried again: its log may say why",
				 job->starts);
	if (!strcmp(job->kind->name, "import") && job->archive_fd < 0)
		return error_set(
			&job->error, -EIO,
			"the daemon was restarted while it ran: import it again");
	return 0;
}

/* After the end nobody waits for it: what came in is made findable for the next. When
 * another one is unpacking the one after it will do that. */
static void index_later(struct job *job)
{
	struct service *service = job->jobs->service;
	struct error err = {0};

	bool stopping;

	pthread_mutex_lock(&job->jobs->lock);
	stopping = job->jobs->stopping;
	pthread_mutex_unlock(&job->jobs->lock);
	if (stopping || !job->kind->makes_pack || !service_share_try(service))
		return;
	if (store_index(service->store, &err) < 0)
		log_warning("cannot index the store: %s", err.text);
	service_share_end(service);
}

static void *job_thread(void *context)
{
	struct job *job = context;
	int r = look_back(job);

	if (r == 0)
		r = place_take(job);
	if (r == 0)
		r = job_work(job);
	r = r > 0 ? 0 : r;
	if (r < 0 && r != -EALREADY && job->put_down)
		job_put_down(job);
	else
		job_end(job, r);
	if (r == 0)
		index_later(job);
	pthread_mutex_lock(&job->jobs->lock);
	job->finished = true;
	pthread_cond_broadcast(&job->jobs->changed);
	pthread_mutex_unlock(&job->jobs->lock);
	return NULL;
}

static int thread_start(struct job *job, struct error *err)
{
	int r = pthread_create(&job->thread, NULL, job_thread, job);

	if (r)
		return error_set(err, -r, "cannot start a thread: %s", strerror(r));
	job->threaded = true;
	return 0;
}

static void thread_join(struct job *job)
{
	if (job->threaded)
		pthread_join(job->thread, NULL);
	job->threaded = false;
}

/* What a predecessor had not ended goes on, under its old id. */
static void take_up(struct jobs *jobs)
{
	struct service *service = jobs->service;
	struct config_use *use = service_config(service);
	struct error err = {0};

	jobs->records = records_open(use->config->runtime, &err);
	service_config_done(service, use);
	if (jobs->records < 0) {
		log_warning("jobs will not survive deployfsd: %s", err.text);
		return;
	}
	records_read(jobs);
	for (struct job *job = jobs->list; job; job = job->next) {
		if (job_ended(job))
			continue;
		log_info(
			"%s is taken up again: id=%llu app=%s version=%s who=%s starts=%u",
			job->kind->name, (unsigned long long)job->id, job->app,
			job->version, job->who, job->starts);
		archive_find(job);
		if (thread_start(job, &job->error) < 0) {
			job_end(job, job->error.code);
			job->finished = true;
		}
	}
}

struct jobs *jobs_new(struct service *service, const struct jobs_keeper *keeper)
{
	struct jobs *jobs = calloc(1, sizeof(*jobs));
	pthread_condattr_t monotonic;

	if (!jobs)
		return NULL;
	jobs->service = service;
	jobs->keeper = keeper;
	jobs->next_id = 1;
	pthread_mutex_init(&jobs->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&jobs->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	take_up(jobs);
	return jobs;
}

static void cancel(struct job *job)
{
	job->cancelled = true;
	if (job->pid)
		kill(job->pid, SIGKILL);
	pthread_cond_broadcast(&job->jobs->changed);
}

void jobs_stop(struct jobs *jobs)
{
	pthread_mutex_lock(&jobs->lock);
	jobs->stopping = jobs->stopped = true;
	for (struct job *job = jobs->list; job; job = job->next)
		if (!job_ended(job))
			cancel(job);
	for (struct job *job = jobs->listings; job; job = job->next)
		cancel(job);
	pthread_cond_broadcast(&jobs->changed);
	pthread_mutex_unlock(&jobs->lock);
	service_share_wake(jobs->service);
}

void jobs_put_down(struct jobs *jobs)
{
	pthread_mutex_lock(&jobs->lock);
	jobs->stopping = true;
	for (struct job *job = jobs->list; job; job = job->next) {
		if (job_ended(job) || job->cancelled)
			continue;
		job->put_down = true;
		cancel(job);
	}
	pthread_cond_broadcast(&jobs->changed);
	pthread_mutex_unlock(&jobs->lock);
	service_share_wake(jobs->service);
	/* Nobody adds to the list from here, or takes from it. */
	for (struct job *job = jobs->list; job; job = job->next)
		thread_join(job);
	fd_close(&jobs->records);
}

void jobs_free(struct jobs *jobs)
{
	if (!jobs)
		return;
	if (!jobs->stopped)
		jobs_put_down(jobs);
	while (jobs->list) {
		struct job *job = jobs->list;

		jobs->list = job->next;
		thread_join(job);
		record_remove(job);
		job_free(job);
	}
	fd_close(&jobs->records);
	pthread_cond_destroy(&jobs->changed);
	pthread_mutex_destroy(&jobs->lock);
	free(jobs);
}

/* Forget the oldest of the ended ones. */
static void trim(struct jobs *jobs)
{
	unsigned kept = 0;

	for (struct job **at = &jobs->list; *at;) {
		struct job *job = *at;

		if (!job->finished || ++kept <= ENDED_KEPT) {
			at = &job->next;
			continue;
		}
		*at = job->next;
		thread_join(job);
		record_remove(job);
		job_free(job);
	}
}

/* But for the file of an import. */
static bool same_work(const struct job *job, const struct job_order *order)
{
	return !strcmp(job->kind->name, order->kind) && !strcmp(job->app, order->app) &&
	       (order->version ? !strcmp(job->version, order->version)
			       : job->latest || !*job->version) &&
	       !strcmp(job->channel, order->channel ? order->channel : "");
}

static bool same_sum(const struct job *job, const struct job_order *order)
{
	return !strcmp(job->sha256, order->sha256 ? order->sha256 : "");
}

/* Whether two imports are of the same file, which has not changed in between. */
static bool same_archive(const struct job *job, const struct job_order *order)
{
	struct stat theirs, ours;

	if (job->archive_fd < 0 || order->archive_fd < 0)
		return job->archive_fd < 0 && order->archive_fd < 0;
	return fstat(job->archive_fd, &theirs) == 0 &&
	       fstat(order->archive_fd, &ours) == 0 && theirs.st_dev == ours.st_dev &&
	       theirs.st_ino == ours.st_ino && theirs.st_size == ours.st_size &&
	       same_sum(job, order);
}

static struct job *find_same(struct jobs *jobs, const struct job_order *order)
{
	for (struct job *job = jobs->list; job; job = job->next)
		if (!job_ended(job) && !job->cancelled && same_work(job, order) &&
		    same_archive(job, order))
			return job;
	return NULL;
}

static unsigned count_waiting(const struct jobs *jobs)
{
	unsigned count = 0;

	for (const struct job *job = jobs->list; job; job = job->next)
		count += !job_ended(job);
	return count;
}

struct job *job_new(struct jobs *jobs, const struct job_order *order)
{
	struct job *job = calloc(1, sizeof(*job));

	if (!job)
		return NULL;
	job->warnings = json_array();
	job->jobs = jobs;
	job->archive_fd = order->archive_fd;
	job->latest = !order->version && !strcmp(order->kind, "fetch");
	job->started_ns = clock_wall_ns();
	job->kind = job_kind_find(order->kind);
	snprintf(job->app, sizeof(job->app), "%s", order->app);
	snprintf(job->version, sizeof(job->version), "%s",
		 order->version ? order->version : "");
	snprintf(job->channel, sizeof(job->channel), "%s",
		 order->channel ? order->channel : "");
	snprintf(job->sha256, sizeof(job->sha256), "%s",
		 order->sha256 ? order->sha256 : "");
	snprintf(job->who, sizeof(job->who), "%s", order->who);
	snprintf(job->stage, sizeof(job->stage), "%s", job->kind->stage);
	return job;
}

static int start(struct jobs *jobs, const struct job_order *order, struct job **ret,
		 struct error *err)
{
	struct job *job;
	int r;

	if (jobs->stopping)
		return error_set(err, -EBUSY, "deployfsd is ending");
	if (count_waiting(jobs) >= QUEUED_MAX)
		return error_set(err, -EBUSY, "%d jobs wait already: try again later",
				 QUEUED_MAX);
	trim(jobs);
	job = job_new(jobs, order);
	if (!job)
		return error_set(err, -ENOMEM, "not enough memory");
	job->id = jobs->next_id++;
	archive_keep(job);
	r = thread_start(job, err);
	if (r < 0) {
		archive_drop(job);
		job->archive_fd = -1;
		job_free(job);
		return r;
	}
	job->next = jobs->list;
	jobs->list = job;
	*ret = job;
	return 0;
}

static int waiter_add(struct job *job, const char *key, uint64_t *ret)
{
	struct job_waiter *larger =
		realloc(job->waiters, (size_t)(job->waiter_count + 1) * sizeof(*larger));
	struct job_waiter *waiter;

	if (!larger)
		return -ENOMEM;
	job->waiters = larger;
	waiter = &larger[job->waiter_count];
	waiter->waits = true;
	snprintf(waiter->key, sizeof(waiter->key), "%s", key ? key : "");
	job->waiting++;
	*ret = ++job->waiter_count;
	return 0;
}

/* Who gives up twice, or never waited, does not count for others. */
static void waiter_drop(struct job *job, uint64_t waiter)
{
	if (waiter == 0 || waiter > job->waiter_count || !job->waiters[waiter - 1].waits)
		return;
	job->waiters[waiter - 1].waits = false;
	job->waiting--;
	record_write(job);
}

/* Who came with this key, and for which job. */
static struct job *find_key(struct jobs *jobs, const char *key, uint64_t *ret_waiter)
{
	for (struct job *job = jobs->list; key && job; job = job->next)
		for (uint64_t i = 0; i < job->waiter_count; i++)
			if (!strcmp(job->waiters[i].key, key)) {
				*ret_waiter = i + 1;
				return job;
			}
	return NULL;
}

/* jobs_join() with the lock held. */
static int join(struct jobs *jobs, const struct job_order *order, json_t **ret,
		uint64_t *ret_waiter, struct error *err)
{
	uint64_t waiter;
	struct job *job = find_key(jobs, order->key, &waiter);

	if (!job)
		return 0;
	if (!same_work(job, order) || !same_sum(job, order))
		return error_set(err, -EINVAL,
				 "this Idempotency-Key was used for another request: "
				 "give each request a key of its own");
	*ret = job_json(job);
	*ret_waiter = waiter;
	return 1;
}

int jobs_join(struct jobs *jobs, const struct job_order *order, json_t **ret,
	      uint64_t *ret_waiter, struct error *err)
{
	int r;

	pthread_mutex_lock(&jobs->lock);
	r = join(jobs, order, ret, ret_waiter, err);
	pthread_mutex_unlock(&jobs->lock);
	return r;
}

/* Start a job or join one; the lock is held. @archive_fd: -1 once a job has it. */
static int start_or_join(struct jobs *jobs, const struct job_order *order,
			 int *archive_fd, json_t **ret, uint64_t *ret_waiter,
			 struct error *err)
{
	struct job *job;
	int r = join(jobs, order, ret, ret_waiter, err);

	if (r != 0)
		return r < 0 ? r : 0;
	job = find_same(jobs, order);
	if (!job) {
		r = start(jobs, order, &job, err);
		if (r == 0)
			*archive_fd = -1;
	}
	if (r == 0 && waiter_add(job, order->key, ret_waiter) < 0)
		r = error_set(err, -ENOMEM, "not enough memory");
	if (r < 0)
		return r;
	/* Its thread waits for the lock: nobody has seen the job before its record. */
	record_write(job);
	*ret = job_json(job);
	return 0;
}

int jobs_start(struct jobs *jobs, const struct job_order *order, json_t **ret,
	       uint64_t *ret_waiter, struct error *err)
{
	int archive_fd = order->archive_fd;
	int r;

	pthread_mutex_lock(&jobs->lock);
	r = start_or_join(jobs, order, &archive_fd, ret, ret_waiter, err);
	pthread_mutex_unlock(&jobs->lock);
	fd_close(&archive_fd);
	return r;
}

/* What everybody may ask for is done by a process that is no job for others to see: a few
 * at a time, so that nobody can make the daemon flood the origin, or itself. */
static int listing_begin(struct jobs *jobs, struct job *job, struct error *err)
{
	int r = 0;

	pthread_mutex_lock(&jobs->lock);
	if (jobs->stopping || jobs->listing_count >= RUNNING_MAX) {
		r = error_set(err, -EBUSY,
			      "%d others are asking the same just now: try again later",
			      RUNNING_MAX);
	} else {
		jobs->listing_count++;
		job->next = jobs->listings;
		jobs->listings = job;
	}
	pthread_mutex_unlock(&jobs->lock);
	return r;
}

static void listing_end(struct jobs *jobs, struct job *job)
{
	struct job **at = &jobs->listings;

	pthread_mutex_lock(&jobs->lock);
	while (*at != job)
		at = &(*at)->next;
	*at = job->next;
	jobs->listing_count--;
	pthread_cond_broadcast(&jobs->changed);
	pthread_mutex_unlock(&jobs->lock);
}

static int listing_run(struct jobs *jobs, const struct job_order *order, json_t **ret,
		       struct error *err)
{
	struct job *job = job_new(jobs, order);
	int r;

	if (!job)
		return error_set(err, -ENOMEM, "not enough memory");
	r = listing_begin(jobs, job, err);
	if (r < 0) {
		job_free(job);
		return r;
	}
	r = job_work(job);
	if (r < 0)
		error_set(err, r, "%s", job->error.text);
	else
		*ret = json_incref(job->result);
	listing_end(jobs, job);
	job_free(job);
	return r;
}

int jobs_available(struct jobs *jobs, const char *app, json_t **ret, struct error *err)
{
	const struct job_order order = {
		.kind = "list", .app = app, .who = "", .archive_fd = -1};

	return listing_run(jobs, &order, ret, err);
}

int jobs_warmth(struct jobs *jobs, const char *app, const char *version, json_t **ret,
		struct error *err)
{
	const struct job_order order = {.kind = "warmth",
					.app = app,
					.version = version,
					.who = "",
					.archive_fd = -1};

	return listing_run(jobs, &order, ret, err);
}

static struct job *find(struct jobs *jobs, uint64_t id)
{
	for (struct job *job = jobs->list; job; job = job->next)
		if (job->id == id)
			return job;
	return NULL;
}

static int not_found(uint64_t id, struct error *err)
{
	return error_set(
		err, -ENOENT,
		"there is no job %llu: the last %d are remembered, until deployfsd is "
		"stopped",
		(unsigned long long)id, ENDED_KEPT);
}

int jobs_get(struct jobs *jobs, uint64_t id, uint64_t after, uint64_t wait_ms,
	     json_t **ret, struct error *err)
{
	struct timespec until;
	struct job *job;
	int r = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(wait_ms / 1000);
	pthread_mutex_lock(&jobs->lock);
	/* The job may be forgotten while we wait: look it up again each time. */
	while ((job = find(jobs, id)) && wait_ms && job->sequence <= after &&
	       !job_ended(job) && !jobs->stopping && r == 0)
		r = pthread_cond_timedwait(&jobs->changed, &jobs->lock, &until);
	if (job)
		*ret = job_json(job);
	pthread_mutex_unlock(&jobs->lock);
	return job ? 0 : not_found(id, err);
}

json_t *jobs_list(struct jobs *jobs, bool running)
{
	json_t *array = json_array();

	pthread_mutex_lock(&jobs->lock);
	for (const struct job *job = jobs->list; job; job = job->next)
		if (!running || !job_ended(job))
			json_array_append_new(array, job_json(job));
	pthread_mutex_unlock(&jobs->lock);
	return array;
}

void jobs_counts(struct jobs *jobs, unsigned *ret_queued, unsigned *ret_running)
{
	pthread_mutex_lock(&jobs->lock);
	*ret_queued = count_waiting(jobs) - jobs->running;
	*ret_running = jobs->running;
	pthread_mutex_unlock(&jobs->lock);
}

/* What was killed ends soon; the reply shall say so. False: it was too late, the job was
 * committing already. */
static bool wait_end(struct jobs *jobs, uint64_t id)
{
	const struct job *job;
	bool was_cancelled;

	pthread_mutex_lock(&jobs->lock);
	while ((job = find(jobs, id)) && !job_ended(job) && !job->finished)
		pthread_cond_wait(&jobs->changed, &jobs->lock);
	was_cancelled = !job || job->state == STATE_CANCELLED;
	pthread_mutex_unlock(&jobs->lock);
	return was_cancelled;
}

/* Cancel what uses the mount. Return: whether any of it is left. */
static bool cancel_users(struct jobs *jobs)
{
	bool left = false;

	for (struct job *job = jobs->list; job; job = job->next)
		if (job->kind->uses_mount && !job_ended(job)) {
			cancel(job);
			left = true;
		}
	for (struct job *job = jobs->listings; job; job = job->next)
		if (job->kind->uses_mount) {
			cancel(job);
			left = true;
		}
	return left;
}

void jobs_leave_mount(struct jobs *jobs)
{
	pthread_mutex_lock(&jobs->lock);
	while (cancel_users(jobs))
		pthread_cond_wait(&jobs->changed, &jobs->lock);
	pthread_mutex_unlock(&jobs->lock);
}

int jobs_cancel(struct jobs *jobs, uint64_t id, uint64_t waiter, json_t **ret,
		struct error *err)
{
	struct job *job;
	int r = 0;

	pthread_mutex_lock(&jobs->lock);
	job = find(jobs, id);
	if (job && !job_ended(job)) {
		waiter_drop(job, waiter);
		if (!waiter || job->waiting == 0) {
			cancel(job);
			r = 1;
		}
	}
	pthread_mutex_unlock(&jobs->lock);
	if (!job)
		return not_found(id, err);
	service_share_wake(jobs->service);
	if (r > 0)
		r = wait_end(jobs, id);
	return jobs_get(jobs, id, 0, 0, ret, err) < 0 ? -ENOENT : r;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "job.h"

#include "cleanup.h"
#include "clock.h"
#include "digest.h"
#include "fd.h"
#include "fetch.h"
#include "import.h"
#include "store.h"
#include "verify.h"
#include "warm.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROGRESS_EVERY_MS 200
#define PACKAGE_SIZE_MAX  (1ULL << 42) /* 4 TiB: beyond it a server is lying */
#define BAD_FILES_TOLD    100
#define READ_SIZE         (1024 * 1024)
#define OOM_SCORE         "500"

struct job {
	json_t *request;
	struct store *store;
	uint64_t told_ms; /* when progress was told last */
	char stage[32];
	json_t *bad; /* verify: what was found */
};

static void json_free(json_t **json)
{
	json_decref(*json);
}

json_t *job_request(const char *kind, const char *app, const char *version,
		    const char *channel, const struct config *config, uint64_t reserve,
		    const char *sha256)
{
	const struct app_config *exceptions = config_app(config, app);
	json_t *origins = json_array();

	for (char **origin = exceptions->origins; *origin; origin++)
		json_array_append_new(origins, json_string(*origin));
	return json_pack(
		"{s:s, s:s, s:s?, s:s?, s:s?, s:s, s:s, s:o, s:b, s:b, s:I, s:I, s:I, s:I, s:s, s:s,"
		" s:s?, s:I, s:I}",
		"kind", kind, "app", app, "version", version, "channel", channel,
		"sha256", sha256, "mount", config->mount, "store", config->store,
		"origins", origins, "verify", exceptions->verify, "contained",
		exceptions->contained, "uid", (json_int_t)exceptions->uid, "gid",
		(json_int_t)exceptions->gid, "unpack_limit",
		(json_int_t)exceptions->unpack_limit, "reserve", (json_int_t)reserve,
		"credentials", config->credentials, "known_hosts", config->known_hosts,
		"ca_file", config->ca_file, "connect_timeout_ms",
		(json_int_t)config->connect_timeout_ms, "stall_timeout_ms",
		(json_int_t)config->stall_timeout_ms);
}

static const char *text_of(const struct job *job, const char *key)
{
	return json_string_value(json_object_get(job->request, key));
}

static uint64_t number_of(const struct job *job, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(job->request, key));
}

/* One line to the daemon; when it is gone nobody needs us. */
static void tell(json_t *message)
{
	char *line =
		message ? json_dumps(message, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
	size_t size = line ? strlen(line) : 0;

	json_decref(message);
	if (!line)
		_exit(1);
	line[size] = '\n';
	if (fd_write_all(JOB_SOCKET_FD, line, size + 1) < 0)
		_exit(1);
	free(line);
}

/* Text of others may hold anything; JSON holds UTF-8 only. */
static json_t *safe_string(const char *text)
{
	json_t *string = json_string(text);

	if (!string) {
		cleanup(free_ptr) char *copy = strdup(text);

		for (char *c = copy; c && *c; c++)
			if ((unsigned char)*c >= 0x80)
				*c = '?';
		string = json_string(copy ? copy : "");
	}
	return string;
}

static void on_progress(void *context, const char *stage, uint64_t bytes, uint64_t total,
			const char *source)
{
	struct job *job = context;
	uint64_t now_ms = clock_monotonic_ms();

	if (!strcmp(stage, job->stage) && now_ms - job->told_ms < PROGRESS_EVERY_MS)
		return;
	snprintf(job->stage, sizeof(job->stage), "%s", stage);
	job->told_ms = now_ms;
	tell(json_pack("{s:{s:s, s:I, s:I, s:s?}}", "progress", "stage", stage, "bytes",
		       (json_int_t)bytes, "total", (json_int_t)total, "source", source));
}

static void on_unpack(void *context, uint64_t bytes, uint64_t total)
{
	on_progress(context, "unpack", bytes, total, NULL);
}

static void on_warning(void *context, const char *text)
{
	tell(json_pack("{s:o}", "warning", safe_string(text)));
}

static void on_origin(void *context, const char *url, const struct error *err)
{
	tell(json_pack("{s:{s:s, s:o}}", "origin", "url", url, "error",
		       err ? safe_string(err->text) : json_null()));
}

static void policy_of(const struct job *job, struct import_request *ret)
{
	ret->policy = (struct manifest_policy){
		.uid = (uid_t)number_of(job, "uid"),
		.gid = (gid_t)number_of(job, "gid"),
		.contained = json_is_true(json_object_get(job->request, "contained")),
	};
	ret->unpack_limit = number_of(job, "unpack_limit");
	ret->reserve_bytes = number_of(job, "reserve");
	ret->pack_fd = JOB_PACK_FD;
}

static json_t *result_of(const char *version, const unsigned char *sha256, uint64_t size,
			 const struct import_result *imported)
{
	char text[SHA256_TEXT_SIZE];

	return json_pack("{s:b, s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "changed", 1,
			 "version", version, "sha256", sha256_format(sha256, text),
			 "package_bytes", (json_int_t)size, "files",
			 (json_int_t)imported->files, "unpacked_bytes",
			 (json_int_t)imported->unpacked, "stored_bytes",
			 (json_int_t)imported->stored, "shared_files",
			 (json_int_t)imported->shared);
}

/* Ask the daemon for the right to share content, and look at the store as it is then. */
static int store_reopen(struct job *job, struct error *err)
{
	char path[4096], go;

	snprintf(path, sizeof(path), "%s", job->store->path);
	tell(json_pack("{s:b}", "ready", 1));
	if (read(JOB_SOCKET_FD, &go, 1) != 1)
		_exit(1);
	store_close(job->store);
	job->store = NULL;
	return store_open(path, false, &job->store, err);
}

static int import_from(struct job *job, int fd, uint64_t size, const char *version,
		       const unsigned char *sha256, json_t **ret, struct error *err)
{
	struct import_watch watch = {on_unpack, on_warning, job};
	struct import_request request = {.archive = {.fd = fd}, .archive_size = size};
	struct import_result imported;
	int r;

	policy_of(job, &request);
	r = store_reopen(job, err);
	if (r < 0)
		return r;
	request.fresh = catalog_find_app(job->store->catalog, text_of(job, "app"),
					 NULL) == -ENOENT;
	r = import_package(job->store, &request, &watch, &imported, err);
	if (r == 0)
		*ret = result_of(version, sha256, size, &imported);
	return r;
}

static char **strings_of(const json_t *array)
{
	char **strings = calloc(json_array_size(array) + 1, sizeof(*strings));

	for (size_t i = 0; strings && i < json_array_size(array); i++)
		strings[i] = (char *)json_string_value(json_array_get(array, i));
	return strings;
}

/* Whether the version is known, and under which sum. 1, 0 or a negative errno. */
static int known_version(struct job *job, const char *version, struct version *ret)
{
	int r = catalog_find(job->store->catalog, text_of(job, "app"), version, ret,
			     NULL);

	return r == 0 ? 1 : r == -ENOENT ? 0 : r;
}

/* A version never changes: what the origin lists must be what we know by that name. */
static int compare_known(struct job *job, const struct sums_entry *entry, json_t **ret,
			 struct error *err)
{
	char ours[SHA256_TEXT_SIZE], theirs[SHA256_TEXT_SIZE];
	struct version known;
	int r = known_version(job, entry->version, &known);

	if (r <= 0)
		return r;
	if (memcmp(known.sha256, entry->sha256, SHA256_SIZE))
		return error_set(err, -EEXIST,
				 "version '%s' of '%s' is known with other content: here "
				 "sha256 %s, at the origin %s; a version never changes, "
				 "publish a new one",
				 entry->version, known.app,
				 sha256_format(known.sha256, ours),
				 sha256_format(entry->sha256, theirs));
	if (known.state == VERSION_PRESENT)
		*ret = json_pack("{s:b, s:s}", "changed", 0, "version", entry->version);
	return 0;
}

/* Before the download: which version is meant, and whether it is one that we know. */
static int fetch_prepare(struct job *job, struct fetch_request *request,
			 const struct fetch_watch *watch, struct sums *sums, json_t **ret,
			 struct error *err)
{
	const struct sums_entry *entry;
	const char *origin;
	struct error why = {0};
	struct version known;
	int here = request->version ? known_version(job, request->version, &known) : 0;
	int r;

	if (here < 0 || (request->version && here == 0))
		return here;
	r = fetch_sums(request, watch, sums, &origin, &why);
	if (r < 0 && request->version && here > 0 && known.state == VERSION_PRESENT) {
		on_warning(job, why.text);
		*ret = json_pack("{s:b, s:s}", "changed", 0, "version", request->version);
		return 0;
	}
	if (r < 0)
		return request->version && !request->verify
			       ? 0
			       : error_set(err, r, "%s", why.text);
	entry = request->version ? sums_find(sums, request->version)
				 : fetch_choose(sums, request->skip);
	if (!entry && request->version && known.state == VERSION_PRESENT) {
		on_warning(job, "the origin's list does not have this version");
		*ret = json_pack("{s:b, s:s}", "changed", 0, "version", request->version);
	}
	if (!entry && request->version)
		return 0;
	if (!entry)
		return error_set(
			err, -ENOENT,
			"the origin lists no version of '%s' that is neither bad nor "
			"a pre-release: name the version to fetch",
			request->app);
	request->version = entry->version;
	tell(json_pack("{s:s}", "version", entry->version));
	return compare_known(job, entry, ret, err);
}

static int fetch_and_import(struct job *job, const struct fetch_request *request,
			    const struct fetch_watch *watch, json_t **ret,
			    struct error *err)
{
	cleanup(fetch_result_done) struct fetch_result fetched = {.fd = -1};
	int r = fetch_package(request, watch, &fetched, err);

	if (r < 0)
		return r;
	r = import_from(job, fetched.fd, fetched.size, fetched.version, fetched.sha256,
			ret, err);
	if (r < 0)
		return r;
	json_object_set_new(*ret, "resumed_bytes",
			    json_integer((json_int_t)fetched.resumed));
	json_object_set_new(*ret, "file", json_string(fetched.file));
	json_object_set_new(*ret, "origin", json_string(fetched.origin));
	json_object_set_new(*ret, "verified",
			    json_string(fetched.listed ? "sha256sums" : "off"));
	return 0;
}

static void strings_free(char ***skip)
{
	free(*skip);
}

/* The parts of a request that come from the configuration; the strings stay the job's. */
static void request_fill(struct job *job, char *const *origins,
			 char partial_dir[static 4096], struct fetch_request *ret)
{
	*ret = (struct fetch_request){
		.app = text_of(job, "app"),
		.version = text_of(job, "version"),
		.origins = origins,
		.verify = json_is_true(json_object_get(job->request, "verify")),
		.partial_dir = store_path(job->store, "partial", partial_dir),
		.reserve_bytes = number_of(job, "reserve"),
		.size_max = PACKAGE_SIZE_MAX,
		.credentials = text_of(job, "credentials"),
		.known_hosts = text_of(job, "known_hosts"),
		.ca_file = text_of(job, "ca_file"),
		.connect_timeout_ms = number_of(job, "connect_timeout_ms"),
		.stall_timeout_ms = number_of(job, "stall_timeout_ms"),
	};
}

static int job_fetch(struct job *job, json_t **ret, struct error *err)
{
	cleanup(strings_free) char **origins =
		strings_of(json_object_get(job->request, "origins"));
	cleanup(strings_free) char **skip = NULL;
	cleanup(sums_done) struct sums sums = {0};
	struct fetch_watch watch = {on_progress, on_origin, on_warning, job};
	struct fetch_request request;
	char partial_dir[4096];
	int r;

	if (!origins)
		return error_set(err, -ENOMEM, "not enough memory");
	request_fill(job, origins, partial_dir, &request);
	r = catalog_bad_versions(job->store->catalog, request.app, &skip, err);
	if (r < 0)
		return r;
	request.skip = skip;
	r = fetch_prepare(job, &request, &watch, &sums, ret, err);
	if (r < 0 || *ret)
		return r;
	return fetch_and_import(job, &request, &watch, ret, err);
}

static int job_list(struct job *job, json_t **ret, struct error *err)
{
	cleanup(strings_free) char **origins =
		strings_of(json_object_get(job->request, "origins"));
	cleanup(sums_done) struct sums sums = {0};
	struct fetch_watch watch = {on_progress, on_origin, on_warning, job};
	struct fetch_request request;
	char partial_dir[4096], sum[SHA256_TEXT_SIZE];
	json_t *versions = json_array();
	const char *origin;
	int r;

	if (!origins || !versions)
		return error_set(err, -ENOMEM, "not enough memory");
	request_fill(job, origins, partial_dir, &request);
	r = fetch_sums(&request, &watch, &sums, &origin, err);
	for (size_t i = 0; r == 0 && i < sums.count; i++)
		json_array_append_new(
			versions,
			json_pack("{s:s, s:s, s:s, s:b}", "version",
				  sums.entries[i].version, "file", sums.entries[i].file,
				  "sha256", sha256_format(sums.entries[i].sha256, sum),
				  "present", 0));
	if (r < 0) {
		json_decref(versions);
		return r;
	}
	*ret = json_pack("{s:s, s:o}", "origin", origin, "versions", versions);
	return 0;
}

/* Whether the origin's list has the content that we know, before all of it comes. An
 * origin without a list may have the package all the same. */
static int check_listed(const struct fetch_request *request,
			const struct fetch_watch *watch, const char *expected,
			struct error *err)
{
	cleanup(sums_done) struct sums sums = {0};
	const struct sums_entry *entry;
	char theirs[SHA256_TEXT_SIZE];
	const char *origin;

	if (fetch_sums(request, watch, &sums, &origin, NULL) < 0)
		return 0;
	entry = sums_find(&sums, request->version);
	if (!entry || !strcmp(sha256_format(entry->sha256, theirs), expected))
		return 0;
	return error_set(err, -EBADMSG,
			 "the origin cannot repair version '%s' of '%s': it has other "
			 "content under that name, sha256 %s and not %s",
			 request->version, request->app, theirs, expected);
}

static int repair_unpack(struct job *job, const struct fetch_result *fetched,
			 struct error *err)
{
	struct import_watch watch = {on_unpack, on_warning, job};
	struct import_request request = {
		.archive = {.fd = fetched->fd},
		.archive_size = fetched->size,
		.alone = true,
		.fresh = true,
	};
	struct import_result imported;

	policy_of(job, &request);
	return import_package(job->store, &request, &watch, &imported, err);
}

/* The package of a version once more, all of it in a pack that shares nothing: the daemon
 * takes the blocks from it that are damaged. */
static int job_repair(struct job *job, json_t **ret, struct error *err)
{
	cleanup(strings_free) char **origins =
		strings_of(json_object_get(job->request, "origins"));
	cleanup(fetch_result_done) struct fetch_result fetched = {.fd = -1};
	struct fetch_watch watch = {on_progress, on_origin, on_warning, job};
	const char *expected = text_of(job, "sha256");
	char partial_dir[4096], sum[SHA256_TEXT_SIZE];
	struct fetch_request request;
	int r;

	if (!origins)
		return error_set(err, -ENOMEM, "not enough memory");
	if (!expected || !text_of(job, "version"))
		return error_set(err, -EINVAL, "a repair needs version and sha256");
	request_fill(job, origins, partial_dir, &request);
	r = check_listed(&request, &watch, expected, err);
	if (r == 0)
		r = fetch_package(&request, &watch, &fetched, err);
	if (r < 0)
		return r;
	if (strcmp(sha256_format(fetched.sha256, sum), expected))
		return error_set(
			err, -EBADMSG,
			"'%s' cannot repair version '%s' of '%s': its package has "
			"sha256 %s and not %s",
			fetched.origin, request.version, request.app, sum, expected);
	r = repair_unpack(job, &fetched, err);
	if (r == 0)
		*ret = json_pack("{s:b, s:s, s:s}", "changed", 1, "file", fetched.file,
				 "origin", fetched.origin);
	return r;
}

static int hash_file(struct job *job, int fd, uint64_t size,
		     unsigned char ret[static SHA256_SIZE], struct error *err)
{
	cleanup(free_ptr) char *buffer = malloc(READ_SIZE);
	struct sha256 *sum = sha256_new();
	int r = 0;

	if (!buffer || !sum)
		r = -ENOMEM;
	for (uint64_t at = 0; r == 0 && at < size; at += READ_SIZE) {
		size_t n = size - at < READ_SIZE ? (size_t)(size - at) : READ_SIZE;

		r = fd_pread_all(fd, buffer, n, at);
		if (r == 0)
			sha256_update(sum, buffer, n);
		on_progress(job, "checksums", at + n, size, NULL);
	}
	if (r == 0)
		sha256_final(sum, ret);
	sha256_free(sum);
	return r < 0 ? error_set(err, r, "cannot read the package: %s", strerror(-r)) : 0;
}

static int job_import(struct job *job, json_t **ret, struct error *err)
{
	const char *expected = text_of(job, "sha256");
	unsigned char sha256[SHA256_SIZE];
	char text[SHA256_TEXT_SIZE];
	struct stat st;
	int r;

	if (fstat(JOB_ARCHIVE_FD, &st) < 0)
		return error_set(err, -errno, "cannot look at the package: %s",
				 strerror(errno));
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "the package is not a regular file");
	r = hash_file(job, JOB_ARCHIVE_FD, (uint64_t)st.st_size, sha256, err);
	if (r < 0)
		return r;
	sha256_format(sha256, text);
	if (expected && strcasecmp(expected, text))
		return error_set(err, -EBADMSG,
				 "the package has sha256 %s, not %s as was asked for",
				 text, expected);
	r = import_from(job, JOB_ARCHIVE_FD, (uint64_t)st.st_size,
			text_of(job, "version"), sha256, ret, err);
	if (r == 0)
		json_object_set_new(*ret, "verified",
				    json_string(expected ? "sha256" : "off"));
	return r;
}

static void on_verify(void *context, uint64_t bytes, uint64_t total)
{
	on_progress(context, "verify", bytes, total, NULL);
}

static void on_bad(void *context, const char *version, const char *path,
		   const char *problem)
{
	struct job *job = context;

	if (json_array_size(job->bad) < BAD_FILES_TOLD)
		json_array_append_new(
			job->bad, json_pack("{s:s, s:o, s:s}", "version", version, "path",
					    safe_string(path), "problem", problem));
}

/* The ids of all packs that were found damaged on the way. */
static json_t *damaged_packs(struct job *job)
{
	json_t *packs = json_array();
	struct pack *pack;

	while (packs && (pack = pack_set_next_damaged(job->store->packs))) {
		json_array_append_new(packs, json_integer((json_int_t)pack->key.id));
		pack_unref(pack);
	}
	return packs;
}

static int job_verify(struct job *job, json_t **ret, struct error *err)
{
	struct verify_watch watch = {on_verify, on_bad, job};
	struct verify_result result;
	int r;

	job->bad = json_array();
	if (!job->bad)
		return error_set(err, -ENOMEM, "not enough memory");
	r = verify_app(job->store, text_of(job, "app"), text_of(job, "version"), &watch,
		       &result, err);
	if (r == 0 || r == -EBADMSG)
		*ret = json_pack("{s:b, s:I, s:I, s:I, s:O, s:o}", "changed", 1,
				 "versions", (json_int_t)result.versions, "files",
				 (json_int_t)result.files, "bytes",
				 (json_int_t)result.bytes, "bad", job->bad, "packs",
				 damaged_packs(job));
	json_decref(job->bad);
	return r;
}

static void on_warm(void *context, uint64_t bytes, uint64_t total)
{
	on_progress(context, "warm", bytes, total, NULL);
}

static void warm_request_fill(struct job *job, char folder[static 4096],
			      struct warm_request *ret)
{
	snprintf(folder, 4096, "%s/apps", text_of(job, "mount"));
	*ret = (struct warm_request){
		.folder = folder,
		.app = text_of(job, "app"),
		.version = text_of(job, "version"),
		.channel = text_of(job, "channel"),
	};
}

static int job_warm(struct job *job, json_t **ret, struct error *err)
{
	struct warm_watch watch = {on_warm, on_warning, job};
	struct warm_request request;
	struct warm_result result;
	char folder[4096];
	int r;

	warm_request_fill(job, folder, &request);
	r = warm_version(job->store, &request, &watch, &result, err);
	if (r < 0)
		return r;
	*ret = json_pack("{s:b, s:s, s:s?, s:I, s:I, s:I, s:I}", "changed",
			 result.bytes > 0, "version", request.version, "from",
			 *result.from ? result.from : NULL, "files",
			 (json_int_t)result.files, "bytes", (json_int_t)result.bytes,
			 "kept_bytes", (json_int_t)result.kept_bytes, "left_bytes",
			 (json_int_t)result.left_bytes);
	return 0;
}

static int job_warmth(struct job *job, json_t **ret, struct error *err)
{
	struct warm_request request;
	struct warmth warmth;
	char folder[4096];
	int r;

	warm_request_fill(job, folder, &request);
	r = warm_measure(job->store, &request, &warmth, err);
	if (r < 0)
		return r;
	*ret = json_pack("{s:s, s:I, s:I, s:I, s:I}", "version", request.version, "files",
			 (json_int_t)warmth.files, "bytes", (json_int_t)warmth.bytes,
			 "warm_files", (json_int_t)warmth.warm_files, "warm_bytes",
			 (json_int_t)warmth.warm_bytes);
	return 0;
}

static int job_run(struct job *job, json_t **ret, struct error *err)
{
	const char *kind = text_of(job, "kind");
	int r = store_open(text_of(job, "store"), STORE_READ, &job->store, err);

	if (r < 0)
		return r;
	if (!strcmp(kind, "fetch"))
		return job_fetch(job, ret, err);
	if (!strcmp(kind, "import"))
		return job_import(job, ret, err);
	if (!strcmp(kind, "list"))
		return job_list(job, ret, err);
	if (!strcmp(kind, "repair"))
		return job_repair(job, ret, err);
	if (!strcmp(kind, "warm"))
		return job_warm(job, ret, err);
	if (!strcmp(kind, "warmth"))
		return job_warmth(job, ret, err);
	return job_verify(job, ret, err);
}

/* The first line of the socket. */
static json_t *request_read(void)
{
	cleanup(free_ptr) char *line = calloc(1, JOB_LINE_MAX + 1);
	size_t size = 0;

	while (line && size < JOB_LINE_MAX) {
		ssize_t n = read(JOB_SOCKET_FD, line + size, JOB_LINE_MAX - size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return NULL;
		size += (size_t)n;
		if (line[size - 1] == '\n')
			return json_loadb(line, size, 0, NULL);
	}
	return NULL;
}

/* Where memory runs out a job is to go, and not the daemon, whose score it has got. A
 * core of it would have the package's size. */
static void be_expendable(void)
{
	cleanup(fd_close) int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	/* Raising it is always allowed. */
	if (fd >= 0)
		fd_write_all(fd, OOM_SCORE, strlen(OOM_SCORE));
	prctl(PR_SET_DUMPABLE, 0);
}

int job_main(void)
{
	struct job job = {0};
	cleanup(json_free) json_t *result = NULL;
	struct error err = {0};
	int r;

	/* With the daemon gone nobody could adopt what we make. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	be_expendable();
	signal(SIGPIPE, SIG_IGN);
	setlocale(LC_ALL, "C.UTF-8");
	job.request = request_read();
	if (!job.request || !text_of(&job, "kind") || !text_of(&job, "app") ||
	    !text_of(&job, "store"))
		return 1;
	r = job_run(&job, &result, &err);
	if (r < 0)
		tell(json_pack("{s:{s:i, s:o}}", "error", "code", r, "text",
			       safe_string(err.text)));
	if (result)
		tell(json_pack("{s:O}", "result", result));
	store_close(job.store);
	json_decref(job.request);
	return r < 0 ? 1 : 0;
}

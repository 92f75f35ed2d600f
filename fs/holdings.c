/* SPDX-License-Identifier: Apache-2.0 */
#include "holdings.h"

#include "api_socket.h"
#include "cleanup.h"
#include "fd.h"
#include "log.h"
#include "mount.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define LEAVE_MS   3000
#define READ_SIZE  (1 << 20) /* the kernel wants room for the largest request */
#define BARRIER_US 5000000   /* for systemd to have read what we have told it */

/* FUSE_INIT is the first request of a connection and waits since mount(2) returned. Each
 * worker is fed these bytes; nobody here looks into them. */
static int init_read(int fd, struct shared_session *session, struct error *err)
{
	cleanup(free_ptr) char *buffer = malloc(READ_SIZE);
	ssize_t size = buffer ? read(fd, buffer, READ_SIZE) : -1;

	if (size <= 0 || size > (ssize_t)sizeof(session->init))
		return error_set(err, size < 0 ? -errno : -EPROTO,
				 "cannot read what the kernel offers at /dev/fuse: %s",
				 size < 0 ? strerror(errno) : "an unknown request");
	memcpy(session->init, buffer, (size_t)size);
	session->init_size = (uint32_t)size;
	return 0;
}

static int session_add(struct holdings *holdings, unsigned number, const char *name,
		       struct mount *mount, struct error *err)
{
	struct shared_session *session = &holdings->shared->sessions[number];
	char entry[INHERIT_NAME];
	int fd = fd_take(&mount->fd);

	snprintf(entry, sizeof(entry), "fuse-%s", name);
	if (inherit_add(&holdings->list, entry, fd) < 0)
		return error_set(err, -E2BIG, "too many descriptors");
	snprintf(session->name, sizeof(session->name), "%s", name);
	snprintf(session->path, sizeof(session->path), "%s", mount->apps);
	session->device = mount->device;
	return init_read(fd, session, err);
}

/* What an upgrade executes: the file by its name, which another one may have then. */
static int program_path(char *ret, size_t size, struct error *err)
{
	ssize_t length = readlink("/proc/self/exe", ret, size - 1);

	if (length < 0)
		return error_set(err, -errno, "cannot find out which program this is");
	ret[length] = '\0';
	return 0;
}

static void settings_fill(struct shared *shared, const struct config *config, bool debug)
{
	snprintf(shared->config, sizeof(shared->config), "%s",
		 config->path ? config->path : "");
	snprintf(shared->runtime, sizeof(shared->runtime), "%s", config->runtime);
	snprintf(shared->socket, sizeof(shared->socket), "%s", config->socket);
	shared->debug = debug;
	shared->old_kernel = getenv("DEPLOYFS_TEST_NO_RESEND") != NULL;
}

/* What lies there is believed: 'holder' names the process that we take descriptors from.
 */
static int runtime_make(const char *runtime, struct error *err)
{
	struct stat st;
	int r = dir_make(runtime, 0755);

	if (r < 0 || stat(runtime, &st) < 0)
		return error_set(err, r < 0 ? r : -errno, "cannot make '%s': %s", runtime,
				 strerror(r < 0 ? -r : errno));
	if (st.st_uid != geteuid() || st.st_mode & 022)
		return error_set(
			err, -EPERM,
			"others than root can write into '%s': 'chown root' and 'chmod "
			"755' it, or set another 'runtime'",
			runtime);
	return 0;
}

static int socket_add(struct holdings *holdings, const struct config *config,
		      struct error *err)
{
	int fd = api_socket_make(config->socket, err);

	if (fd < 0)
		return fd;
	return inherit_add(&holdings->list, "api", fd);
}

static int mount_add(struct holdings *holdings, const struct config *config,
		     struct error *err)
{
	struct mount mount = {.fd = -1};
	int r = mount_apps(config->mount, &mount, err);

	if (r < 0)
		return r;
	snprintf(holdings->shared->base, sizeof(holdings->shared->base), "%s",
		 mount.base);
	r = session_add(holdings, 0, "apps", &mount, err);
	if (r < 0)
		mount_leave(&mount, true, NULL);
	mount_done(&mount);
	return r;
}

int holdings_make(const struct config *config, bool debug, struct holdings *ret,
		  struct error *err)
{
	struct holdings holdings = {0};
	int fd, r = shared_make(&holdings.shared, &fd, err);

	if (r < 0)
		return r;
	inherit_add(&holdings.list, "state", fd);
	settings_fill(holdings.shared, config, debug);
	r = program_path(holdings.shared->program, sizeof(holdings.shared->program), err);
	if (r == 0)
		r = socket_add(&holdings, config, err);
	if (r == 0)
		r = mount_add(&holdings, config, err);
	if (r < 0) {
		if (inherit_find(&holdings.list, "api") >= 0)
			unlink(config->socket);
		inherit_done(&holdings.list);
		return r;
	}
	*ret = holdings;
	return 0;
}

/* The list is there: map the memory, and see that nothing is missing. Nothing is written:
 * it may be somebody else's yet. */
static int complete(struct holdings *holdings, struct error *err)
{
	int state = inherit_find(&holdings->list, "state"), r;
	char name[INHERIT_NAME];

	if (state < 0 || inherit_find(&holdings->list, "api") < 0)
		return error_set(err, -EINVAL, "descriptors are missing");
	r = shared_map(state, &holdings->shared, err);
	for (int i = 0; r == 0 && i < SHARED_SESSIONS; i++) {
		const struct shared_session *session = &holdings->shared->sessions[i];

		snprintf(name, sizeof(name), "fuse-%.10s", session->name);
		if (*session->name && inherit_find(&holdings->list, name) < 0)
			r = error_set(err, -EINVAL, "the descriptor of '%s' is missing",
				      session->path);
	}
	return r;
}

int holdings_inherit(const char *text, struct holdings *ret, struct error *err)
{
	struct holdings holdings = {0};
	int r = inherit_parse(&holdings.list, text, 0);

	if (r < 0)
		return error_set(err, r, "--inherit is for deployfsd itself");
	r = complete(&holdings, err);
	if (r < 0)
		return r;
	*ret = holdings;
	return 0;
}

static void store_remove(const char *name)
{
	sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

/* Its copy of the socket would go on to listen, as if another deployfsd were there. */
static void store_forget(struct inherit *list)
{
	for (size_t i = 0; i < list->count; i++)
		store_remove(list->entries[i].name);
	sd_notify_barrier(0, BARRIER_US);
	inherit_done(list);
}

static int from_systemd(struct holdings *ret)
{
	struct holdings holdings = {0};
	struct error why = {0};
	char **names = NULL;
	int count = sd_listen_fds_with_names(1, &names);

	for (int i = 0; i < count; i++)
		inherit_add(&holdings.list, names[i], SD_LISTEN_FDS_START + i);
	for (int i = 0; i < count; i++)
		free(names[i]);
	free(names);
	if (count <= 0)
		return 0;
	if (complete(&holdings, &why) < 0) {
		log_warning("what systemd kept cannot be used: %s", why.text);
		store_forget(&holdings.list);
		return 0;
	}
	*ret = holdings;
	return 1;
}

static const char *holder_path(const char *runtime, char path[static 4096])
{
	snprintf(path, 4096, "%.4000s/holder", runtime);
	return path;
}

/* The file may be of long ago, and the number another process's by now: what is got must
 * be our shared memory. */
static int from_worker(const struct config *config, struct holdings *ret)
{
	struct holdings holdings = {0};
	cleanup(free_ptr) char *text = NULL;
	struct error why = {0};
	char path[4096], *list;
	int worker = 0, at = 0;

	if (file_read(holder_path(config->runtime, path), 65536, &text, NULL) < 0)
		return 0;
	if (sscanf(text, "%d %n", &worker, &at) != 1 || worker <= 0 || at == 0)
		return 0;
	list = text + at;
	list[strcspn(list, "\n")] = '\0';
	if (inherit_parse(&holdings.list, list, worker) < 0 ||
	    complete(&holdings, &why) < 0) {
		inherit_done(&holdings.list);
		return 0;
	}
	*ret = holdings;
	return 1;
}

/* Whether another supervisor has it all. Under systemd there shall be but the one that
 * systemd has started: another one, which a worker has started meanwhile, leaves. */
static bool is_supervised(const struct shared *shared)
{
	pid_t other = atomic_load(&shared->supervisor);
	cleanup(fd_close) int fd = -1;

	if (other == getpid() || !process_ours(other))
		return false;
	if (!getenv("NOTIFY_SOCKET") || process_signal(other, SIGUSR2) < 0)
		return true;
	fd = process_open(other);
	if (fd >= 0)
		poll(&(struct pollfd){fd, POLLIN, 0}, 1, LEAVE_MS);
	return process_ours(other);
}

int holdings_find(const struct config *config, struct holdings *ret, struct error *err)
{
	int r = runtime_make(config->runtime, err);

	if (r == 0)
		r = from_systemd(ret);
	if (r == 0)
		r = from_worker(config, ret);
	if (r > 0 && is_supervised(ret->shared)) {
		pid_t other = atomic_load(&ret->shared->supervisor);

		inherit_done(&ret->list);
		return error_set(err, -EBUSY,
				 "another deployfsd (pid %d) serves '%s' already",
				 (int)other, config->socket);
	}
	return r;
}

static void store_add(const char *name, int fd)
{
	char text[64];

	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s", name);
	sd_pid_notify_with_fds(0, 0, text, &fd, 1);
}

int holdings_keep(struct holdings *holdings, const char *name, int fd)
{
	int r = inherit_add(&holdings->list, name, fd);

	if (r == 0)
		store_add(name, fd);
	return r;
}

void holdings_drop(struct holdings *holdings, const char *name)
{
	if (inherit_find(&holdings->list, name) >= 0)
		store_remove(name);
	inherit_drop(&holdings->list, name);
}

void holdings_publish(const struct holdings *holdings, pid_t worker)
{
	char path[4096], list[INHERIT_TEXT_SIZE], text[INHERIT_TEXT_SIZE + 32];
	int r;

	for (size_t i = 0; i < holdings->list.count; i++)
		store_add(holdings->list.entries[i].name, holdings->list.entries[i].fd);
	holder_path(holdings->shared->runtime, path);
	snprintf(text, sizeof(text), "%d %s\n", (int)worker,
		 inherit_format(&holdings->list, list));
	r = file_replace(path, text, 0600);
	if (r < 0)
		log_warning("cannot write '%s': %s", path, strerror(-r));
}

void holdings_end(struct holdings *holdings)
{
	static const char *const files[] = {"holder", "supervisor.json"};
	char path[4200];

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", holdings->shared->runtime,
			 files[i]);
		unlink(path);
	}
	unlink(holdings->shared->socket);
	for (size_t i = 0; i < holdings->list.count; i++)
		store_remove(holdings->list.entries[i].name);
	inherit_done(&holdings->list);
}

int holdings_unmount(struct holdings *holdings, bool force, struct error *err)
{
	const struct shared_session *session = &holdings->shared->sessions[0];
	struct mount mount;
	int r = mount_adopt(holdings->shared->base, session->path, session->device, -1,
			    &mount);

	if (r < 0)
		return error_set(err, r, "not enough memory");
	r = mount_leave(&mount, force, err);
	mount_done(&mount);
	return r;
}

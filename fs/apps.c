/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps I1 (a callback reads memory and local blobs) and the kernel's half of I4 (after a
 * notification returns nobody sees the old state).
 *
 * Each callback is decode, call the view, reply once. No lock is held at the reply. Ids
 * never mean anything else later (I2), so FORGET has nothing to do.
 *
 * Nothing in here is needed by a successor (I3): FUSE_INIT lies in the shared memory, and
 * requests are received into its slots. That a request may be answered twice, by us and
 * by a predecessor that was about to, does no harm: the kernel takes the first.
 */
#define FUSE_USE_VERSION 317

#include "apps.h"

#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "holders.h"
#include "log.h"
#include "own_lookup.h"

#include <dirent.h>
#include <errno.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <linux/fuse.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define FOREVER       ((double)INT_MAX) /* seconds: nothing changes without a notification */
#define READ_AHEAD    1024              /* KiB; 128 is the kernel's default */
#define LIST_MAX      (128 * 1024)      /* bytes of one reply to readdir */
#define BACKGROUND    64                /* requests that the kernel sends ahead */
#define READ_END_MS   20                /* for a killed thread to leave the kernel */
#define NOTIFY_RESEND 7                 /* libfuse 3.17's headers do not have it */
#define WAKE_SIGNAL   SIGRTMIN          /* ends a thread's wait for a request */
#define WAKE_EVERY_NS 20000000
#define NS_PER_MS     1000000
#define WAITING_MAX   64 /* bytes of a number in fusectl */

/* A serving thread and where it receives its requests. */
struct server {
	struct apps *apps;
	pthread_t thread;
	void *slot;
	_Atomic uint64_t *busy_ms;
};

struct apps {
	struct view *view;
	const struct mount *mount;
	struct apps_place place;
	struct fuse_session *session;
	struct server servers[SHARED_SLOTS];
	size_t thread_count;
	struct metrics *metrics;
	_Atomic uint64_t space_total, space_free;
};

/* Reply buffers: one a thread, made once and touched, so that no reply waits for memory.
 */
static __thread char *read_buffer;
static __thread char *list_buffer;

/* By the header of a request, before anything looks at it: what has no operation of ours
 * (ioctl, getxattr, flush) is counted too. */
static enum apps_request request_kind(const struct fuse_buf *request)
{
	const struct fuse_in_header *header = request->mem;

	if (request->size < sizeof(*header))
		return REQUEST_OTHER;
	switch (header->opcode) {
	case FUSE_LOOKUP:
		return REQUEST_LOOKUP;
	case FUSE_GETATTR:
		return REQUEST_GETATTR;
	case FUSE_READLINK:
		return REQUEST_READLINK;
	case FUSE_READ:
		return REQUEST_READ;
	case FUSE_READDIR:
		return REQUEST_READDIR;
	case FUSE_READDIRPLUS:
		return REQUEST_READDIRPLUS;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
		return REQUEST_FORGET;
	case FUSE_IOCTL:
		return REQUEST_IOCTL;
	default:
		return REQUEST_OTHER;
	}
}

static struct apps *apps_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static void to_stat(const struct pack_stat *from, struct stat *to)
{
	*to = (struct stat){
		.st_ino = from->node,
		.st_mode = from->mode,
		.st_nlink = from->nlink,
		.st_uid = from->uid,
		.st_gid = from->gid,
		.st_size = (off_t)from->size,
		.st_blocks = (blkcnt_t)from->blocks,
		.st_blksize = 4096,
		.st_mtim = {from->mtime_s, from->mtime_ns},
		.st_atim = {from->mtime_s, from->mtime_ns},
		.st_ctim = {from->mtime_s, from->mtime_ns},
	};
}

static void to_entry(const struct pack_stat *from, struct fuse_entry_param *to)
{
	*to = (struct fuse_entry_param){
		.ino = from->node,
		.attr_timeout = FOREVER,
		.entry_timeout = FOREVER,
	};
	to_stat(from, &to->attr);
}

static void on_init(void *userdata, struct fuse_conn_info *conn)
{
	fuse_unset_feature_flag(conn, FUSE_CAP_READDIRPLUS_AUTO);
	fuse_unset_feature_flag(conn, FUSE_CAP_SPLICE_READ);
	fuse_unset_feature_flag(conn, FUSE_CAP_SPLICE_WRITE);
	fuse_unset_feature_flag(conn, FUSE_CAP_SPLICE_MOVE);
	fuse_set_feature_flag(conn, FUSE_CAP_READDIRPLUS);
	fuse_set_feature_flag(conn, FUSE_CAP_CACHE_SYMLINKS);
	fuse_set_feature_flag(conn, FUSE_CAP_NO_OPEN_SUPPORT);
	fuse_set_feature_flag(conn, FUSE_CAP_NO_OPENDIR_SUPPORT);
	fuse_set_feature_flag(conn, FUSE_CAP_AUTO_INVAL_DATA);
	fuse_set_feature_flag(conn, FUSE_CAP_PARALLEL_DIROPS);
	fuse_set_feature_flag(conn, FUSE_CAP_ASYNC_READ);
	conn->max_background = BACKGROUND;
	conn->congestion_threshold = BACKGROUND * 3 / 4;
	conn->max_readahead = READ_AHEAD * 1024;
}

static void on_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct apps *apps = apps_of(req);
	struct fuse_entry_param entry = {.entry_timeout = FOREVER};
	struct pack_stat stat;
	int r;

	if (strlen(name) > PACK_COMPONENT_MAX) {
		fuse_reply_err(req, ENAMETOOLONG);
		return;
	}
	r = view_lookup(apps->view, parent, name, &stat);

	/* A name that is not there is remembered too: entry.ino is 0. */
	if (r == 0)
		to_entry(&stat, &entry);
	if (r == 0 || r == -ENOENT)
		fuse_reply_entry(req, &entry);
	else
		fuse_reply_err(req, -r);
}

static void on_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *file)
{
	struct apps *apps = apps_of(req);
	struct pack_stat from;
	struct stat stat;
	int r = view_stat(apps->view, node, &from);

	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	to_stat(&from, &stat);
	fuse_reply_attr(req, &stat, FOREVER);
}

static void on_readlink(fuse_req_t req, fuse_ino_t node)
{
	struct apps *apps = apps_of(req);
	char target[PACK_PATH_MAX + 1];
	const void *data;
	size_t size;
	int r = view_read(apps->view, node, 0, PACK_PATH_MAX, read_buffer, &data, &size);

	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	memcpy(target, data, size);
	target[size] = '\0';
	fuse_reply_readlink(req, target);
}

static void on_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *file)
{
	fuse_reply_err(req,
		       ENOSYS); /* the kernel never asks again, and keeps its caches */
}

static void on_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset,
		    struct fuse_file_info *file)
{
	struct apps *apps = apps_of(req);
	const void *data;
	size_t got;
	int r = view_read(apps->view, node, (uint64_t)offset, size, read_buffer, &data,
			  &got);

	if (r < 0) {
		fuse_reply_err(req, -r);
		return;
	}
	metrics_add(apps->metrics, METRIC_READ_BYTES, got);
	fuse_reply_buf(req, data, got);
}

/* A listing that grows until the kernel's buffer is full. */
struct listing {
	fuse_req_t req;
	size_t size, room;
	bool plus;
};

static bool list_entry(void *context, const struct view_entry *entry)
{
	struct listing *listing = context;
	struct fuse_entry_param param = {0};
	char *to = list_buffer + listing->size;
	size_t room = listing->room - listing->size, needed;

	/* Without attributes param.ino is 0: the kernel takes the name and asks when it
	 * needs more. */
	if (entry->has_stat)
		to_entry(&entry->stat, &param);
	param.attr.st_ino = entry->node;
	if (!entry->has_stat)
		param.attr.st_mode = DTTOIF(entry->type);
	if (listing->plus)
		needed = fuse_add_direntry_plus(listing->req, to, room, entry->name,
						&param, (off_t)entry->next);
	else
		needed = fuse_add_direntry(listing->req, to, room, entry->name,
					   &param.attr, (off_t)entry->next);
	if (needed > room)
		return false;
	listing->size += needed;
	return true;
}

static void list(fuse_req_t req, struct apps *apps, fuse_ino_t node, size_t size,
		 off_t offset, bool plus)
{
	struct listing listing = {
		.req = req,
		.room = size < LIST_MAX ? size : LIST_MAX,
		.plus = plus,
	};
	int r = view_list(apps->view, node, (uint64_t)offset, plus, list_entry, &listing);

	if (r < 0)
		fuse_reply_err(req, -r);
	else
		fuse_reply_buf(req, list_buffer, listing.size);
}

static void on_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset,
		       struct fuse_file_info *file)
{
	list(req, apps_of(req), node, size, offset, false);
}

static void on_readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset,
			   struct fuse_file_info *file)
{
	list(req, apps_of(req), node, size, offset, true);
}

static void on_forget(fuse_req_t req, fuse_ino_t node, uint64_t count)
{
	fuse_reply_none(req);
}

static void on_forget_multi(fuse_req_t req, size_t count,
			    struct fuse_forget_data *forgets)
{
	fuse_reply_none(req);
}

static void on_statfs(fuse_req_t req, fuse_ino_t node)
{
	struct apps *apps = apps_of(req);
	struct statvfs st = {
		.f_bsize = 4096,
		.f_frsize = 4096,
		.f_blocks = atomic_load(&apps->space_total) / 4096,
		.f_bfree = atomic_load(&apps->space_free) / 4096,
		.f_bavail = atomic_load(&apps->space_free) / 4096,
		.f_namemax = PACK_COMPONENT_MAX,
	};

	fuse_reply_statfs(req, &st);
}

/* Whatever changes something is refused by the kernel: the mount is read-only. These are
 * for the day on which somebody has remounted it otherwise. */

static void refuse(fuse_req_t req)
{
	fuse_reply_err(req, EROFS);
}

static void on_setattr(fuse_req_t req, fuse_ino_t node, struct stat *attr, int which,
		       struct fuse_file_info *file)
{
	refuse(req);
}

static void on_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		     dev_t device)
{
	refuse(req);
}

static void on_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	refuse(req);
}

static void on_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	refuse(req);
}

static void on_symlink(fuse_req_t req, const char *target, fuse_ino_t parent,
		       const char *name)
{
	refuse(req);
}

static void on_rename(fuse_req_t req, fuse_ino_t parent, const char *name,
		      fuse_ino_t new_parent, const char *new_name, unsigned flags)
{
	refuse(req);
}

static void on_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t parent, const char *name)
{
	refuse(req);
}

static void on_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		      struct fuse_file_info *file)
{
	refuse(req);
}

static void on_write(fuse_req_t req, fuse_ino_t node, const char *data, size_t size,
		     off_t offset, struct fuse_file_info *file)
{
	refuse(req);
}

static void on_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t offset,
			 off_t size, struct fuse_file_info *file)
{
	refuse(req);
}

static const struct fuse_lowlevel_ops operations = {
	.init = on_init,
	.lookup = on_lookup,
	.getattr = on_getattr,
	.readlink = on_readlink,
	.open = on_open,
	.opendir = on_open,
	.read = on_read,
	.readdir = on_readdir,
	.readdirplus = on_readdirplus,
	.forget = on_forget,
	.forget_multi = on_forget_multi,
	.statfs = on_statfs,
	.setattr = on_setattr,
	.mknod = on_mknod,
	.mkdir = on_mkdir,
	.unlink = on_unlink,
	.rmdir = on_unlink,
	.symlink = on_symlink,
	.rename = on_rename,
	.link = on_link,
	.create = on_create,
	.write = on_write,
	.fallocate = on_fallocate,
};

static bool buffers_make(void)
{
	if (read_buffer)
		return true;
	read_buffer = malloc(PACK_READ_BUFFER);
	list_buffer = malloc(LIST_MAX);
	if (!read_buffer || !list_buffer)
		return false;
	memset(read_buffer, 0, PACK_READ_BUFFER);
	memset(list_buffer, 0, LIST_MAX);
	return true;
}

static void buffers_free(void)
{
	free(read_buffer);
	free(list_buffer);
	read_buffer = list_buffer = NULL;
}

/* @received_ns: when it came, monotonic */
static void process(struct apps *apps, struct fuse_buf *request, uint64_t received_ns)
{
	struct metrics *metrics = apps->metrics;
	enum apps_request kind = request_kind(request);

	atomic_fetch_add_explicit(&metrics->received[kind], 1, memory_order_relaxed);
	fuse_session_process_buf(apps->session, request);
	histogram_add(&metrics->answered[kind], clock_monotonic_ns() - received_ns);
}

/* A slot is empty while the length in its header is 0. The kernel writes the header
 * first, and a thread that is killed in the middle of read(2) ends only behind it: once
 * the thread is gone, what has a length is whole. */
static void slot_clear(void *slot)
{
	((struct fuse_in_header *)slot)->len = 0;
}

/* read(2) and not fuse_session_receive_buf(): that wants to own the buffer. */
static void *serve(void *context)
{
	struct server *server = context;
	struct apps *apps = server->apps;

	while (buffers_make() && !fuse_session_exited(apps->session)) {
		struct fuse_buf request = {.mem = server->slot};
		ssize_t size = read(apps->mount->fd, server->slot, SHARED_SLOT_SIZE);
		uint64_t now_ns;

		/* ENOENT: who asked was interrupted before we had it. */
		if (size < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
			continue;
		if (size <= 0)
			break; /* unmounted */
		now_ns = clock_monotonic_ns();
		atomic_store_explicit(server->busy_ms, now_ns / NS_PER_MS,
				      memory_order_relaxed);
		request.size = (size_t)size;
		process(apps, &request, now_ns);
		slot_clear(server->slot);
		atomic_store_explicit(server->busy_ms, 0, memory_order_relaxed);
	}
	buffers_free();
	return NULL;
}

static int session_make(struct apps *apps, struct error *err)
{
	char name[] = "deployfsd", path[32];
	char *argv[] = {name, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);

	apps->session = fuse_session_new(&args, &operations, sizeof(operations), apps);
	fuse_opt_free_args(&args);
	if (!apps->session)
		return error_set(err, -EIO, "libfuse refused to make a session");
	/* The mount is ours already: libfuse takes the descriptor and leaves the rest
	 * alone. */
	snprintf(path, sizeof(path), "/dev/fd/%d", apps->mount->fd);
	if (fuse_session_mount(apps->session, path) != 0)
		return error_set(err, -EIO, "libfuse refused the descriptor");
	return 0;
}

/* Each worker is told what the kernel can do by the same bytes. The kernel takes the
 * first reply; a later one gets ENOENT, which libfuse ignores. */
static int session_init(struct apps *apps, struct error *err)
{
	const struct shared_session *from =
		&apps->place.shared->sessions[apps->place.session];
	cleanup(free_ptr) char *copy = malloc(SHARED_INIT_SIZE);
	struct fuse_buf request = {.mem = copy, .size = from->init_size};

	if (!copy)
		return error_set(err, -ENOMEM, "not enough memory");
	memcpy(copy, from->init, SHARED_INIT_SIZE);
	fuse_session_process_buf(apps->session, &request);
	if (fuse_session_exited(apps->session))
		return error_set(err, -EPROTO, "the kernel's FUSE is too old");
	return 0;
}

/* Have the kernel hand out again whatever was read and not answered, whoever read it
 * (FUSE_NOTIFY_RESEND, Linux 6.9). */
static bool resend(struct apps *apps)
{
	struct fuse_out_header notice = {.len = sizeof(notice), .error = NOTIFY_RESEND};

	return !apps->place.shared->old_kernel &&
	       write(apps->mount->fd, &notice, sizeof(notice)) == sizeof(notice);
}

/* What lies in a slot; size 0 when it is empty. */
static size_t slot_size(const struct apps *apps, unsigned bank, unsigned number)
{
	const struct fuse_in_header *slot =
		shared_slot(apps->place.shared, apps->place.session, bank, number);
	size_t size = slot->len;

	return size < sizeof(*slot) || size > SHARED_SLOT_SIZE ? 0 : size;
}

static void slot_recover(struct apps *apps, unsigned bank, unsigned number, bool clear)
{
	void *slot = shared_slot(apps->place.shared, apps->place.session, bank, number);
	struct fuse_buf request = {.size = slot_size(apps, bank, number)};

	if (request.size == 0 || !buffers_make())
		return;
	request.mem = malloc(request.size);
	if (!request.mem)
		return;
	memcpy(request.mem, slot, request.size);
	process(apps, &request, clock_monotonic_ns());
	free(request.mem);
	if (clear)
		slot_clear(slot);
}

/* Of a worker that is not quite gone a thread may still be inside read(2), where the
 * kernel is just writing. What it has come back with is whole; what it has not was
 * written in a microsecond, once the thread gets to run: it is given the time. */
static void bank_recover_dying(struct apps *apps, unsigned bank)
{
	const struct shared_bank *words = &apps->place.shared->banks[bank];
	bool back[SHARED_SLOTS], wait = false;

	for (unsigned i = 0; i < SHARED_SLOTS; i++) {
		back[i] = atomic_load(&words->busy_ms[apps->place.session][i]) != 0;
		if (back[i])
			slot_recover(apps, bank, i, false);
		else
			wait |= slot_size(apps, bank, i) != 0;
	}
	if (wait)
		poll(NULL, 0, READ_END_MS);
	for (unsigned i = 0; i < SHARED_SLOTS; i++)
		if (!back[i])
			slot_recover(apps, bank, i, false);
}

static void bank_recover_dead(struct apps *apps, unsigned bank)
{
	for (unsigned i = 0; i < SHARED_SLOTS; i++)
		slot_recover(apps, bank, i, true);
}

void apps_recover(struct apps *apps)
{
	struct shared_bank *banks = apps->place.shared->banks;
	bool resent = false, tried = false;

	for (unsigned bank = 0; bank < SHARED_BANKS; bank++) {
		int state = atomic_load(&banks[bank].state);

		if (bank == apps->place.bank ||
		    (state != BANK_DYING && state != BANK_DEAD))
			continue;
		if (!tried)
			resent = resend(apps);
		tried = true;
		if (!resent && state == BANK_DYING)
			bank_recover_dying(apps, bank);
		if (!resent && state == BANK_DEAD)
			bank_recover_dead(apps, bank);
		if (state == BANK_DEAD)
			atomic_store(&banks[bank].state, BANK_FREE);
	}
	buffers_free();
}

/* Our bank may be that of a dead worker into which nobody has looked. */
static void own_bank_recover(struct apps *apps)
{
	if (resend(apps))
		return;
	bank_recover_dead(apps, apps->place.bank);
	buffers_free();
}

static void on_wake(int number)
{
}

/* A thread that waits for a request is woken by a signal. One may be too early: again
 * until it has ended. */
static void thread_end(pthread_t thread)
{
	struct timespec until;

	do {
		pthread_kill(thread, WAKE_SIGNAL);
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += WAKE_EVERY_NS;
		if (until.tv_nsec >= 1000000000) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000;
		}
	} while (pthread_timedjoin_np(thread, NULL, &until) == ETIMEDOUT);
}

static void threads_join(struct apps *apps)
{
	for (size_t i = 0; i < apps->thread_count; i++)
		thread_end(apps->servers[i].thread);
	apps->thread_count = 0;
}

static int threads_start(struct apps *apps, struct error *err)
{
	struct shared *shared = apps->place.shared;
	unsigned bank = apps->place.bank, session = apps->place.session;

	/* Without SA_RESTART: it shall interrupt. */
	sigaction(WAKE_SIGNAL, &(struct sigaction){.sa_handler = on_wake}, NULL);
	while (apps->thread_count < SHARED_SLOTS) {
		unsigned number = (unsigned)apps->thread_count;
		struct server *server = &apps->servers[number];
		int r;

		server->apps = apps;
		server->slot = shared_slot(shared, session, bank, number);
		server->busy_ms = &shared->banks[bank].busy_ms[session][number];
		slot_clear(server->slot);
		atomic_store(server->busy_ms, 0);
		r = pthread_create(&server->thread, NULL, serve, server);
		if (r)
			return error_set(err, -r, "cannot start a thread: %s",
					 strerror(r));
		apps->thread_count++;
	}
	return 0;
}

int apps_start(const struct mount *mount, struct view *view,
	       const struct apps_place *place, struct metrics *metrics, struct apps **ret,
	       struct error *err)
{
	struct apps *apps = calloc(1, sizeof(*apps));
	int r;

	if (!apps)
		return error_set(err, -ENOMEM, "not enough memory");
	apps->mount = mount;
	apps->view = view;
	apps->place = *place;
	apps->metrics = metrics;
	r = session_make(apps, err);
	if (r == 0)
		r = session_init(apps, err);
	if (r == 0)
		own_bank_recover(apps);
	if (r == 0)
		r = threads_start(apps, err);
	if (r < 0) {
		apps_stop(apps);
		return r;
	}
	apps_recover(apps);
	mount_read_ahead(mount, READ_AHEAD);
	*ret = apps;
	return 0;
}

void apps_teach(struct apps *apps)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/.deployfs/version", apps->mount->apps);
	own_open(path);
}

void apps_stop(struct apps *apps)
{
	if (!apps)
		return;
	/* Unmounted does not mean gone: a bind or an open file elsewhere keeps the file
	 * system, and then no read of /dev/fuse ends by itself. Its users get ENOTCONN
	 * when the last descriptor is closed. */
	if (apps->session)
		fuse_session_exit(apps->session);
	threads_join(apps);
	if (apps->session)
		fuse_session_destroy(apps->session);
	free(apps);
}

/* The notifications of the kernel, counted. */

static void inval_entry(struct apps *apps, uint64_t dir, const char *name)
{
	metrics_add(apps->metrics, METRIC_INVAL_ENTRY, 1);
	fuse_lowlevel_notify_inval_entry(apps->session, dir, name, strlen(name));
}

static int expire_entry(struct apps *apps, uint64_t dir, const char *name)
{
	metrics_add(apps->metrics, METRIC_EXPIRE_ENTRY, 1);
	return fuse_lowlevel_notify_expire_entry(apps->session, dir, name, strlen(name));
}

/* @offset: -1 the attributes only; 0 the content too, of a directory its listing */
static int inval_inode(struct apps *apps, uint64_t node, off_t offset)
{
	metrics_add(apps->metrics, METRIC_INVAL_INODE, 1);
	return fuse_lowlevel_notify_inval_inode(apps->session, node, offset, 0);
}

static void forget_name(struct apps *apps, uint64_t dir, const char *name)
{
	/* -ENOENT: the kernel knows no such name. Fine: the call has waited for listings
	 * that were under way in this directory, which is what it is for. */
	inval_entry(apps, dir, name);
	inval_inode(apps, dir, 0);
}

/* Of a directory that may be in use: inval_entry would detach what is mounted below it.
 * Linux before 6.2 has nothing else. There who works in a removed version gets ENOENT
 * from getcwd(3); that nothing is mounted in it our callers have seen. */
static void expire_name(struct apps *apps, uint64_t dir, const char *name)
{
	if (apps->place.shared->old_kernel || expire_entry(apps, dir, name) == -ENOSYS)
		inval_entry(apps, dir, name);
	inval_inode(apps, dir, 0);
}

void apps_notify(struct apps *apps, const struct change *change)
{
	switch (change->kind) {
	case CHANGE_APP:
		forget_name(apps, VIEW_ROOT, change->app);
		break;
	case CHANGE_VERSION:
	case CHANGE_LINK:
	case CHANGE_LINK_GONE:
		forget_name(apps, change->app_node, change->name);
		break;
	case CHANGE_TEXT:
		forget_name(apps, VIEW_STATUS, change->name);
		break;
	case CHANGE_VERSION_GONE:
		expire_name(apps, change->app_node, change->name);
		break;
	}
}

/* Whether a path walk still finds nothing where the view has a name. */
static bool is_missed(const struct apps *apps, const struct change *change)
{
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%s/%s", apps->mount->apps, change->app,
		 change->name);
	return own_lookup(path) < 0;
}

void apps_notify_again(struct apps *apps, const struct change *change)
{
	switch (change->kind) {
	case CHANGE_APP:
		if (is_missed(apps, change))
			forget_name(apps, VIEW_ROOT, change->app);
		inval_inode(apps, VIEW_ROOT, 0);
		/* It may have gone, which no row tells. */
		forget_name(apps, change->app_node, CHANNEL_PREVIOUS);
		break;
	case CHANGE_VERSION:
		if (is_missed(apps, change))
			forget_name(apps, change->app_node, change->name);
		break;
	default:
		apps_notify(apps, change);
	}
}

/* Names directly below a hidden version: their dentries would keep its root in memory. */
struct children {
	struct apps *apps;
	uint64_t root;
};

static bool forget_child(void *context, const struct view_entry *entry)
{
	struct children *children = context;

	if (strcmp(entry->name, ".") && strcmp(entry->name, ".."))
		inval_entry(children->apps, children->root, entry->name);
	return true;
}

int apps_held(struct apps *apps, const struct change *change)
{
	struct children children = {apps, change->node};
	char path[PATH_MAX];

	/* What is mounted inside a bind of it would be detached by what follows. */
	if (holders_inside(apps->mount->device, change->app, change->name))
		return 1;
	apps_notify(apps, change);
	/* One look-up of the expired name: the answer "not there" lets the kernel drop
	 * it. */
	snprintf(path, sizeof(path), "%s/%s/%s", apps->mount->apps, change->app,
		 change->name);
	if (own_lookup(path) != -ENOENT)
		return 1;
	view_list(apps->view, change->node, 0, false, forget_child, &children);
	return inval_inode(apps, change->node, -1) != -ENOENT;
}

void apps_set_space(struct apps *apps, uint64_t total, uint64_t free)
{
	atomic_store(&apps->space_total, total);
	atomic_store(&apps->space_free, free);
}

/* A number in fusectl, which names a connection by the kernel's own form of its device.
 */
static int64_t requests_waiting(const struct apps *apps)
{
	cleanup(free_ptr) char *text = NULL;
	char path[96];
	size_t size;

	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%u/waiting",
		 major(apps->mount->device) << 20 | minor(apps->mount->device));
	if (file_read(path, WAITING_MAX, &text, &size) < 0)
		return -1;
	return strtoll(text, NULL, 10);
}

void apps_load(const struct apps *apps, struct apps_load *ret)
{
	*ret = (struct apps_load){
		.threads = (unsigned)apps->thread_count,
		.waiting = requests_waiting(apps),
	};
	for (size_t i = 0; i < apps->thread_count; i++)
		ret->busy += atomic_load_explicit(apps->servers[i].busy_ms,
						  memory_order_relaxed) != 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main thread beats, and waits for signals; a second one brings the service up, so
 * that nothing that it may have to wait for looks like a hang.
 *
 *   starting → serving → ready → finished → (quit)
 *
 * SIGTERM, SIGINT unmount and end. SIGUSR1: look at the supervisor's words. SIGHUP:
 * upgrade.
 */
#include "worker.h"

#include "api.h"
#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "jobs.h"
#include "keeper.h"
#include "log.h"
#include "process.h"
#include "service.h"
#include "upgrade.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define BEAT_MS       500
#define FINISH_MS     8000 /* for requests that are being answered */
#define OWN_AGAIN_MS  5000
#define SYSTEMD_MS    30000 /* for systemd to start the supervisor again */
#define EXIT_CONFLICT 4
#define ARENAS_MAX    4 /* of malloc(3): a thread a connection would make many */

static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, 0};

struct worker {
	const struct worker_start *start;
	struct shared *shared;
	struct shared_worker *words;
	struct config *config; /* until the service takes it */
	struct service *service;
	struct api *api;
	int signals, stop, supervisor_fd;
	pid_t supervisor;
	uint64_t alone_ms; /* since when there is no supervisor; 0: there is one */
	pthread_t beginner, errands, finisher;
	bool finishing; /* the finisher was started */
	struct keeper keeper;
	sem_t looked;        /* posted whenever the supervisor has said something */
	sem_t errand;        /* the same, for the thread that does what may take time */
	atomic_int failed;   /* a negative errno: could not start */
	atomic_bool leaving; /* asked to unmount and end, perhaps before it was ready */
	atomic_bool ending;
	atomic_bool not_owning; /* serves, but cannot have the store */
};

static void set_stage(struct worker *w, enum worker_stage stage)
{
	atomic_store(&w->words->stage, stage);
	process_signal(atomic_load(&w->shared->supervisor), SIGUSR1);
	/* What was said to us before this stage could not be done then. */
	kill(getpid(), SIGUSR1);
}

static int config_read(struct worker *w)
{
	const char *path = w->shared->config;
	struct error err = {0};
	int r = config_load(*path ? path : CONFIG_PATH_DEFAULT, *path != '\0', &w->config,
			    &err);

	if (r == 0)
		return 0;
	log_error("%s", err.text);
	if (!w->start->config)
		return r;
	log_error("going on with the configuration of before: correct the file");
	w->config = w->start->config;
	return 0;
}

static bool predecessor_serves(const struct worker *w)
{
	for (unsigned i = 0; i < SHARED_BANKS; i++)
		if (i != w->start->bank && atomic_load(&w->shared->workers[i].pid) &&
		    atomic_load(&w->shared->workers[i].stage) == STAGE_FINISHED)
			return true;
	return false;
}

/* From here on only we answer the kernel: what we change nobody else can contradict. */
static void wait_for_predecessor(struct worker *w)
{
	while (w->start->reason == WORKER_UPGRADED && predecessor_serves(w))
		sem_wait(&w->looked);
}

/* Serve first and own later, where reads wait; not from a damaged catalog, which only
 * the owner may rebuild. */
static int begin_to_serve(struct worker *w, bool *ret_owned, struct error *err)
{
	int r;

	*ret_owned = w->start->reason != WORKER_DIED;
	if (!*ret_owned) {
		r = service_serve(w->service, err);
		if (r != -EBADMSG)
			return r;
		log_warning("cannot serve yet: %s", err->text);
		*ret_owned = true;
	}
	r = service_own(w->service, w->start->reason != WORKER_FIRST, err);
	return r == 0 ? service_serve(w->service, err) : r;
}

/* Whatever keeps us from it, a disk that has become read-only say, keeps nobody from
 * reading. But what is damaged is not served on. */
static int own_at_last(struct worker *w, struct error *err)
{
	struct pollfd stop = {w->stop, POLLIN, 0};
	int r;

	while ((r = service_own(w->service, true, err)) < 0 && r != -EBADMSG) {
		log_error(
			"what is stored can be read, and nothing be changed: %s; trying again "
			"every %d s",
			err->text, OWN_AGAIN_MS / 1000);
		atomic_store(&w->not_owning, true);
		if (poll(&stop, 1, OWN_AGAIN_MS) > 0)
			break;
	}
	atomic_store(&w->not_owning, false);
	return r;
}

static int begin(struct worker *w, struct error *err)
{
	bool owned;
	int r = begin_to_serve(w, &owned, err);

	if (r < 0)
		return r;
	set_stage(w, STAGE_SERVING);
	wait_for_predecessor(w);
	if (!owned)
		r = own_at_last(w, err);
	if (r == 0)
		r = service_begin(w->service, err);
	if (r == 0)
		r = api_start(w->service, inherit_find(&w->start->holdings->list, "api"),
			      w->stop, &w->api, err);
	return r;
}

static void *beginner_main(void *context)
{
	struct worker *w = context;
	struct error err = {0};
	int r = begin(w, &err);

	if (r < 0) {
		log_error("cannot start: %s", err.text);
		atomic_store(&w->failed, r);
		eventfd_write(w->stop, 1);
		return NULL;
	}
	malloc_trim(0); /* what it took to begin */
	set_stage(w, STAGE_READY);
	log_info("ready: version=%s mount=%s store=%s socket=%s generation=%u",
		 DEPLOYFS_VERSION, w->shared->base, w->service->store->path,
		 w->shared->socket, atomic_load(&w->shared->generation));
	return NULL;
}

/* Put everything down for the successor but the reading. In a thread of its own: a commit
 * may take longer than a heartbeat. */
static void *finish_main(void *context)
{
	struct worker *w = context;

	api_quiesce(w->api);
	jobs_put_down(w->service->jobs);
	api_finish(w->api, clock_monotonic_ms() + FINISH_MS);
	w->api = NULL;
	service_finish(w->service);
	set_stage(w, STAGE_FINISHED);
	return NULL;
}

static void finish(struct worker *w)
{
	if (w->finishing || atomic_load(&w->words->stage) != STAGE_READY)
		return;
	if (pthread_create(&w->finisher, NULL, finish_main, w) == 0)
		w->finishing = true;
	else
		log_error("cannot finish: cannot start a thread");
}

/* By its end the supervisor sees that we are dying: see process_open_thread(). */
static void *canary_main(void *context)
{
	struct worker *w = context;

	atomic_store(&w->words->canary, gettid());
	process_signal(atomic_load(&w->shared->supervisor), SIGUSR1);
	for (;;)
		pause();
	return NULL;
}

static void canary_start(struct worker *w)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, canary_main, w) == 0)
		pthread_detach(thread);
}

static void supervisor_watch(struct worker *w)
{
	pid_t pid = atomic_load(&w->shared->supervisor);

	if (pid == w->supervisor && w->supervisor_fd >= 0)
		return;
	fd_close(&w->supervisor_fd);
	w->supervisor = pid;
	w->supervisor_fd = process_open_ours(pid);
	if (w->supervisor_fd >= 0)
		w->alone_ms = 0;
}

/* What the supervisor has said. True: quit. */
static bool listen_to(struct worker *w)
{
	int order = atomic_load(&w->words->order);

	supervisor_watch(w);
	sem_post(&w->looked);
	sem_post(&w->errand);
	if (order == ORDER_FINISH)
		finish(w);
	return order == ORDER_QUIT;
}

static void *upgrade_main(void *context)
{
	struct worker *w = context;
	struct error err = {0};

	if (upgrade_begin(w->shared, &err) < 0)
		log_error("no upgrade: %s", err.text);
	return NULL;
}

/* Trying the new program takes longer than a heartbeat may. */
static void upgrade_later(struct worker *w)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, upgrade_main, w) == 0)
		pthread_detach(thread);
}

/* Whether the signal ends us. */
static bool signal_handle(struct worker *w)
{
	struct signalfd_siginfo info;

	if (read(w->signals, &info, sizeof(info)) != sizeof(info))
		return false;
	switch (info.ssi_signo) {
	case SIGUSR1:
		return listen_to(w);
	case SIGHUP:
		upgrade_later(w);
		return false;
	default:
		atomic_store(&w->leaving, true);
		sem_post(&w->errand);
		return false;
	}
}

/* Unmount, now that we can look at who uses the mount. */
static void leave(struct worker *w)
{
	struct error err = {0};

	if (!atomic_load(&w->leaving) || (atomic_load(&w->words->stage) != STAGE_READY &&
					  !atomic_load(&w->not_owning)))
		return;
	atomic_store(&w->leaving, false);
	if (service_leave(w->service, false, &err) == 0) {
		eventfd_write(w->stop, 1);
		return;
	}
	log_error("not ending: %s", err.text);
	atomic_fetch_or(&w->shared->wishes, WISH_STAY);
	process_signal(atomic_load(&w->shared->supervisor), SIGUSR1);
}

/* What a predecessor left in its slots is read from a disk that may be slow, and who uses
 * the mount is looked for in all of /proc: both may take longer than a heartbeat. */
static void *errands_main(void *context)
{
	struct worker *w = context;

	while (!atomic_load(&w->ending)) {
		if (sem_wait(&w->errand) < 0)
			continue;
		service_recover(w->service);
		leave(w);
	}
	return NULL;
}

/* The supervisor is gone. Under systemd that starts it again; otherwise we do. One that
 * has left for a new one to come is waited for. */
static void supervisor_lost(struct worker *w)
{
	struct error err = {0};
	uint64_t now_ms = clock_monotonic_ms();

	fd_close(&w->supervisor_fd);
	if (!w->alone_ms) {
		w->alone_ms = now_ms;
		if (!atomic_load(&w->shared->left))
			log_warning("the supervisor (pid %d) is gone",
				    (int)w->supervisor);
	}
	if (atomic_load(&w->shared->left) ||
	    (getenv("NOTIFY_SOCKET") && now_ms - w->alone_ms < SYSTEMD_MS))
		return;
	w->alone_ms = now_ms;
	pthread_mutex_lock(&w->keeper.lock);
	if (process_supervisor(w->shared, w->keeper.list, &err) < 0)
		log_error("%s", err.text);
	pthread_mutex_unlock(&w->keeper.lock);
}

/* Until somebody has us end. */
static void loop(struct worker *w)
{
	for (;;) {
		struct pollfd fds[] = {{w->signals, POLLIN, 0},
				       {w->stop, POLLIN, 0},
				       {w->supervisor_fd, POLLIN, 0}};

		atomic_store(&w->words->beat_ms, clock_monotonic_ms());
		poll(fds, 3, BEAT_MS);
		if (fds[1].revents)
			return;
		if (fds[0].revents && signal_handle(w))
			return;
		supervisor_watch(w);
		if (w->supervisor_fd < 0 || fds[2].revents)
			supervisor_lost(w);
	}
}

static int run(struct worker *w)
{
	const struct jobs_keeper keeper = {
		.keep = keeper_keep,
		.kept = keeper_kept,
		.drop = keeper_drop,
		.context = &w->keeper,
	};
	const struct service_place place = {
		.shared = w->shared,
		.session = 0,
		.bank = w->start->bank,
		.fuse_fd = fcntl(inherit_find(&w->start->holdings->list, "fuse-apps"),
				 F_DUPFD_CLOEXEC, 0),
		.keeper = keeper,
	};

	keeper_init(&w->keeper, w->start->holdings);
	w->service = service_new(w->config, &place);
	if (!w->service || place.fuse_fd < 0 || w->signals < 0 || w->stop < 0) {
		log_error("cannot start: not enough memory, or descriptors");
		return -ENOMEM;
	}
	canary_start(w);
	if (pthread_create(&w->errands, NULL, errands_main, w) ||
	    pthread_create(&w->beginner, NULL, beginner_main, w)) {
		log_error("cannot start: cannot start a thread");
		return -EAGAIN;
	}
	loop(w);
	return atomic_load(&w->failed);
}

static int exit_code(int r)
{
	return r == -EBUSY ? EXIT_CONFLICT : EXIT_FAILURE;
}

/* A supervisor that came after ours had died may have taken us for one that was never
 * started: it starts another, and two would contradict each other. It looks for our
 * number once more after it has said so. */
static bool is_wanted(const struct worker *w)
{
	return atomic_load(&w->shared->banks[w->start->bank].state) == BANK_USED;
}

int worker_main(const struct worker_start *start)
{
	struct worker w = {
		.start = start,
		.shared = start->holdings->shared,
		.words = &start->holdings->shared->workers[start->bank],
		.signals = process_signals(signals),
		.stop = eventfd(0, EFD_CLOEXEC),
		.supervisor_fd = -1,
	};
	int r;

	prctl(PR_SET_NAME, "deployfs-worker");
	mallopt(M_ARENA_MAX, ARENAS_MAX);
	sem_init(&w.looked, 0, 0);
	sem_init(&w.errand, 0, 0);
	atomic_store(&w.words->beat_ms, clock_monotonic_ms());
	atomic_store(&w.words->pid, getpid());
	if (!is_wanted(&w)) {
		atomic_store(&w.words->pid, 0);
		return EXIT_SUCCESS;
	}
	supervisor_watch(&w);
	r = config_read(&w);
	if (r == 0)
		r = run(&w);
	if (r < 0) {
		/* What is half up may be waiting for anything: no clean-up that waits
		 * too. */
		_exit(exit_code(r));
	}
	atomic_store(&w.ending, true);
	sem_post(&w.errand);
	pthread_join(w.errands, NULL);
	pthread_join(w.beginner, NULL);
	if (w.finishing)
		pthread_join(w.finisher, NULL);
	if (w.service->jobs)
		jobs_stop(w.service->jobs);
	api_stop(w.api);
	service_free(w.service);
	if (atomic_load(&w.shared->ended))
		log_info("ended");
	return EXIT_SUCCESS;
}

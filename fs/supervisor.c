/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps I12: the mount lives as long as this does, and this does next to nothing. It
 * waits for one of
 *
 *   a worker's first thread ended     → start the next worker (or end, after an unmount)
 *   a worker's process ended          → its request slots are final: tell who serves
 *   SIGUSR1                           → a worker has changed a word: look
 *   a tick, twice a second            → is the heartbeat fresh?
 *   SIGTERM, SIGINT, SIGHUP           → pass on to the worker
 *   SIGUSR2                           → leave: another supervisor is about to come
 *
 * Workers, by bank:   free → (fork) → serving → [finishing] → dying → gone
 *
 * It never waits for anything else, never for a worker to be reaped above all: one that
 * was killed while it notified the kernel ends only after its successor has answered.
 */
#include "supervisor.h"

#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "log.h"
#include "process.h"
#include "worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#define TICK_MS        500
#define LEADER_LOOK_MS 20    /* where the kernel cannot tell us */
#define WHOLE_MS       10    /* for the rest of a worker of which a thread has ended */
#define HANG_MS        2000  /* without a heartbeat */
#define BUSY_MS        15000 /* one request: disks may be slow */
#define HANG_MAX_MS    60000
#define FINISH_MS      10000 /* for a worker to put everything down */
#define QUIT_MS        5000
#define DEATHS_MAX     30 /* in DEATHS_MS: more, and pauses begin */
#define DEATHS_MS      10000
#define PAUSE_MAX_MS   60000
#define QUIET_MS       60000 /* of a worker's life: what was before is forgiven */
#define OOM_SUPERVISOR (-1000)
#define OOM_WORKER     (-900)
#define EXIT_CONFLICT  4

static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, 0};

/* A worker that is not gone. */
struct watched {
	pid_t pid;         /* 0: none */
	int canary, whole; /* pidfds */
	uint64_t started_ms;
	uint64_t deadline_ms; /* for what was ordered; 0: none */
	bool dying;
};

struct supervisor {
	struct holdings holdings;
	struct shared *shared;
	struct config *config;
	struct watched watched[SHARED_BANKS];
	int serving;   /* bank; -1: none */
	int ended;     /* bank of the last that died while it served; -1: none */
	int finishing; /* bank of the one that is being replaced; -1: none */
	bool first;    /* no worker has been ready yet */
	bool ready_told;
	int end_signal;        /* that asked us to end, until a worker refuses; 0: none */
	bool leave_if_refused; /* systemd waits for our end, whatever the worker says */
	uint64_t start_at_ms;  /* a worker is to be started then; 0: none is */
	enum worker_reason start_reason;
	uint64_t deaths[DEATHS_MAX];
	unsigned death_next;
	uint64_t pause_ms, busy_ms;
	uint64_t tick_ms; /* of the last one */
	int signals;
	int exit_code; /* -1: go on */
};

static struct shared_worker *words_of(struct supervisor *s, int bank)
{
	return &s->shared->workers[bank];
}

/* For who cannot ask the API, since there is no worker. */
static void tell_file(struct supervisor *s)
{
	char path[4200], text[512], when[CLOCK_TEXT_SIZE] = "", exit[PROCESS_EXIT_SIZE];
	pid_t worker = s->serving >= 0 ? s->watched[s->serving].pid : 0;
	bool held = s->serving < 0 && s->start_at_ms > clock_monotonic_ms();
	int r;

	if (held)
		clock_format(clock_wall_ns() + ((int64_t)s->start_at_ms -
						(int64_t)clock_monotonic_ms()) *
						       1000000,
			     when);
	process_exit_text(atomic_load(&s->shared->last_status), exit);
	snprintf(text, sizeof(text),
		 "{\"pid\":%d,\"worker\":%d,\"state\":\"%s\",\"restarts\":%u,"
		 "\"last_exit\":%s%s%s,\"next_start\":%s%s%s}\n",
		 (int)getpid(), (int)worker, held ? "held-back" : "running",
		 atomic_load(&s->shared->restarts),
		 atomic_load(&s->shared->last_ns) ? "\"" : "",
		 atomic_load(&s->shared->last_ns) ? exit : "null",
		 atomic_load(&s->shared->last_ns) ? "\"" : "", held ? "\"" : "",
		 held ? when : "null", held ? "\"" : "");
	snprintf(path, sizeof(path), "%s/supervisor.json", s->shared->runtime);
	r = file_replace(path, text, 0644);
	if (r < 0)
		log_warning("cannot write '%s': %s", path, strerror(-r));
}

/* Where workers die before they serve nobody frees a dead one's bank. The next one takes
 * it then, and looks into its slots first. */
static int bank_free(const struct supervisor *s)
{
	static const int wanted[] = {BANK_FREE, BANK_DEAD};

	for (int i = 0; i < 2; i++)
		for (int bank = 0; bank < SHARED_BANKS; bank++)
			if (!s->watched[bank].pid &&
			    atomic_load(&s->shared->banks[bank].state) == wanted[i])
				return bank;
	return -1;
}

static void watch(struct supervisor *s, int bank, pid_t pid)
{
	struct watched *watched = &s->watched[bank];

	*watched = (struct watched){
		.pid = pid,
		.canary = -1,
		.whole = process_open_ours(pid),
		.started_ms = clock_monotonic_ms(),
	};
}

/* Once a worker has said which thread to watch. */
static void watch_canaries(struct supervisor *s)
{
	for (int bank = 0; bank < SHARED_BANKS; bank++) {
		struct watched *watched = &s->watched[bank];

		if (watched->pid && !watched->dying && watched->canary < 0 &&
		    !s->shared->old_kernel)
			watched->canary = process_open_thread(
				atomic_load(&words_of(s, bank)->canary));
	}
}

static void unwatch(struct watched *watched)
{
	fd_close(&watched->canary);
	fd_close(&watched->whole);
	*watched = (struct watched){.canary = -1, .whole = -1};
}

/* By its pidfd: the number of one that we have not started may be another process's. */
static void signal_worker(struct supervisor *s, int bank, int number)
{
	if (bank >= 0 && s->watched[bank].whole >= 0)
		syscall(SYS_pidfd_send_signal, s->watched[bank].whole, number, NULL, 0);
}

/* In the child: nothing of the supervisor's is left but what it holds. */
static int become_worker(struct supervisor *s, int bank, enum worker_reason reason)
{
	struct worker_start start = {
		.holdings = &s->holdings,
		.config = s->config,
		.reason = reason,
		.bank = (unsigned)bank,
	};

	setsid();
	fd_close(&s->signals);
	for (int i = 0; i < SHARED_BANKS; i++) {
		fd_close(&s->watched[i].canary);
		fd_close(&s->watched[i].whole);
	}
	process_protect(OOM_WORKER, s->shared->debug);
	return worker_main(&start);
}

/* Words of a worker are set here, before it runs: it shall find what is said to it. */
static void words_reset(struct supervisor *s, int bank)
{
	struct shared_worker *words = words_of(s, bank);

	atomic_store(&words->order, ORDER_NONE);
	atomic_store(&words->stage, STAGE_STARTING);
	atomic_store(&words->canary, 0);
	atomic_store(&words->beat_ms, clock_monotonic_ms());
	atomic_store(&s->shared->banks[bank].state, BANK_USED);
}

static void start_later(struct supervisor *s, uint64_t pause_ms,
			enum worker_reason reason)
{
	s->start_at_ms = clock_monotonic_ms() + pause_ms;
	s->start_reason = reason;
}

/* A copy of what the worker offers. It may have given up waiting for us meanwhile. */
static void keep_offered(struct supervisor *s, struct shared_kept *kept, const char *name)
{
	int fd = (int)syscall(SYS_pidfd_getfd, s->watched[s->serving].whole,
			      kept->worker_fd, 0);
	int r = fd < 0 ? -errno : holdings_keep(&s->holdings, name, fd);
	int offered = KEPT_OFFERED;

	if (r < 0) {
		log_warning(
			"an import will not survive a death of the worker: cannot copy "
			"its file's descriptor: %s%s",
			strerror(-r),
			r == -EPERM ? "; the capability SYS_PTRACE is missing" : "");
		fd_close(&fd);
	}
	if (!atomic_compare_exchange_strong(&kept->state, &offered,
					    r < 0 ? KEPT_FREE : KEPT_HELD))
		holdings_drop(&s->holdings, name);
}

/* What a worker wants kept; its end does not close our copies. */
static void keep(struct supervisor *s, int number)
{
	struct shared_kept *kept = &s->shared->kept[number];
	int state = atomic_load(&kept->state);
	char name[INHERIT_NAME];

	shared_kept_name(number, name);
	if (state == KEPT_OFFERED && s->serving >= 0)
		keep_offered(s, kept, name);
	if (state == KEPT_DROPPED) {
		holdings_drop(&s->holdings, name);
		atomic_store(&kept->state, KEPT_FREE);
	}
}

/* What systemd has given us may have been dropped while nobody supervised. */
static void kept_tidy(struct supervisor *s)
{
	char name[INHERIT_NAME];

	for (int i = 0; i < SHARED_KEPT; i++) {
		shared_kept_name(i, name);
		if (atomic_load(&s->shared->kept[i].state) == KEPT_FREE)
			holdings_drop(&s->holdings, name);
	}
}

/* What a dead worker had offered is a number that means something else in the next. */
static void offers_forget(struct supervisor *s)
{
	for (int i = 0; i < SHARED_KEPT; i++) {
		int offered = KEPT_OFFERED;

		atomic_compare_exchange_strong(&s->shared->kept[i].state, &offered,
					       KEPT_FREE);
	}
}

static void start_worker(struct supervisor *s)
{
	int bank = bank_free(s);
	pid_t pid;

	s->start_at_ms = 0;
	if (bank < 0) {
		/* Eight workers that the kernel does not let go: a disk that hangs. */
		start_later(s, TICK_MS, s->start_reason);
		return;
	}
	words_reset(s, bank);
	offers_forget(s);
	atomic_fetch_add(&s->shared->generation, 1);
	pid = fork();
	if (pid == 0)
		exit(become_worker(s, bank, s->start_reason));
	if (pid < 0) {
		log_error("cannot start a worker: %s", strerror(errno));
		atomic_store(&s->shared->banks[bank].state, BANK_DEAD);
		start_later(s, TICK_MS, s->start_reason);
		return;
	}
	atomic_store(&words_of(s, bank)->pid, pid);
	watch(s, bank, pid);
	/* Its predecessor may have died, or been replaced, before it could. */
	if (s->end_signal)
		signal_worker(s, bank, s->end_signal);
	s->serving = bank;
	atomic_store(&s->shared->bank, (uint32_t)bank);
	holdings_publish(&s->holdings, pid);
	tell_file(s);
}

/* Have who serves look at the words. */
static void nudge(struct supervisor *s, int bank)
{
	if (bank >= 0 && !s->watched[bank].dying)
		signal_worker(s, bank, SIGUSR1);
}

static void give_order(struct supervisor *s, int bank, enum order order,
		       uint64_t within_ms)
{
	atomic_store(&words_of(s, bank)->order, order);
	s->watched[bank].deadline_ms = clock_monotonic_ms() + within_ms;
	nudge(s, bank);
}

/* How long to wait before the next start: not at all, but after a burst. */
static uint64_t pause_after(struct supervisor *s, uint64_t lived_ms)
{
	uint64_t now_ms = clock_monotonic_ms();
	uint64_t oldest_ms = s->deaths[s->death_next];

	s->deaths[s->death_next] = now_ms;
	s->death_next = (s->death_next + 1) % DEATHS_MAX;
	if (lived_ms > QUIET_MS)
		s->pause_ms = 0;
	if (s->pause_ms)
		s->pause_ms =
			s->pause_ms * 2 > PAUSE_MAX_MS ? PAUSE_MAX_MS : s->pause_ms * 2;
	else if (oldest_ms && now_ms - oldest_ms < DEATHS_MS)
		s->pause_ms = 1000;
	if (s->pause_ms)
		log_error("the worker died %d times in a short time: the next one starts "
			  "in %llu s; what is in memory can be read meanwhile",
			  DEATHS_MAX, (unsigned long long)s->pause_ms / 1000);
	return s->pause_ms;
}

/* The exit status, where it is known: of a worker that another supervisor has started it
 * is not, nor of one that is not gone yet. */
static int status_of(pid_t pid, bool *ret_known)
{
	siginfo_t info = {0};

	*ret_known = waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
		     info.si_pid == pid;
	if (!*ret_known)
		return SIGKILL;
	return info.si_code == CLD_EXITED ? (info.si_status & 0xff) << 8
					  : info.si_status & 0x7f;
}

static void end(struct supervisor *s, int code)
{
	s->exit_code = code;
}

/* The one that serves has ended. */
static void serving_ended(struct supervisor *s, const struct watched *watched)
{
	bool known;
	int status = status_of(watched->pid, &known);
	uint64_t lived_ms = clock_monotonic_ms() - watched->started_ms, pause_ms;
	enum worker_reason reason = s->finishing >= 0 ? s->start_reason : WORKER_DIED;

	s->ended = s->serving;
	s->serving = -1;
	atomic_store(&s->shared->last_status, status);
	atomic_store(&s->shared->last_ns, clock_wall_ns());
	atomic_fetch_add(&s->shared->restarts, 1);
	if (s->first && known && WIFEXITED(status)) {
		/* It has said why it cannot start. */
		end(s, WEXITSTATUS(status));
		return;
	}
	if (known)
		log_error("the worker (pid %d) ended: %s%d; starting the next",
			  (int)watched->pid, WIFEXITED(status) ? "code " : "signal ",
			  WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
	else
		log_error("the worker (pid %d) is ending; starting the next",
			  (int)watched->pid);
	pause_ms = pause_after(s, lived_ms);
	start_later(s, pause_ms, s->first ? WORKER_FIRST : reason);
	tell_file(s);
}

static void leader_ended(struct supervisor *s, int bank)
{
	struct watched *watched = &s->watched[bank];

	/* Mostly the rest is gone in no time, and then there is an exit status. */
	poll(&(struct pollfd){watched->whole, POLLIN, 0}, 1,
	     s->first || atomic_load(&s->shared->ended) ? QUIT_MS : WHOLE_MS);
	watched->dying = true;
	fd_close(&watched->canary);
	atomic_store(&s->shared->banks[bank].state, BANK_DYING);
	if (atomic_load(&s->shared->ended)) {
		end(s, EXIT_SUCCESS);
		return;
	}
	if (bank == s->serving)
		serving_ended(s, watched);
}

static void whole_ended(struct supervisor *s, int bank)
{
	struct watched *watched = &s->watched[bank];
	int status;
	bool known;

	if (!watched->dying)
		leader_ended(s, bank);
	status = status_of(watched->pid, &known);
	if (known && bank == s->ended) {
		/* When the next one was started it was not known yet. */
		atomic_store(&s->shared->last_status, status);
		tell_file(s);
	}
	if (bank == s->ended)
		s->ended = -1;
	waitpid(watched->pid, NULL, WNOHANG);
	unwatch(watched);
	atomic_store(&words_of(s, bank)->stage, STAGE_NONE);
	atomic_store(&words_of(s, bank)->pid, 0);
	atomic_store(&s->shared->banks[bank].state, BANK_DEAD);
	if (bank == s->finishing) {
		s->finishing = -1;
		/* It died before it had put everything down: no successor was started. */
		if (s->serving < 0 && !s->start_at_ms && s->exit_code < 0)
			start_later(s, 0, WORKER_DIED);
	}
	nudge(s, s->serving);
}

static void upgrade(struct supervisor *s)
{
	int r;

	/* Not now: the tick looks again. */
	if (s->finishing >= 0 || s->serving < 0)
		return;
	atomic_fetch_and(&s->shared->wishes, ~(uint32_t)WISH_UPGRADE);
	r = process_exec_supervisor(s->shared->program, &s->holdings.list, true);
	log_error("no upgrade: cannot execute '%s': %s; install it again",
		  s->shared->program, strerror(-r));
}

/* The worker that is to be replaced is ready for that: the store is free. */
static void replace(struct supervisor *s)
{
	s->finishing = s->serving;
	s->watched[s->finishing].deadline_ms = 0;
	s->start_reason = WORKER_UPGRADED;
	start_worker(s);
}

static void ready(struct supervisor *s)
{
	s->first = false;
	if (s->ready_told)
		return;
	s->ready_told = true;
	sd_notify(0, "READY=1\nSTATUS=serving");
	tell_file(s);
}

/* The worker goes on, and the next supervisor finds it. */
static void leave(struct supervisor *s)
{
	log_info("leaving; the mount is served on, 'deployctl daemon stop' ends that");
	atomic_store(&s->shared->left, true);
	sd_notify(0, "STOPPING=1");
	end(s, EXIT_SUCCESS);
}

/* A worker has changed a word. */
static void listen_to(struct supervisor *s)
{
	int stage = s->serving >= 0 ? atomic_load(&words_of(s, s->serving)->stage)
				    : STAGE_NONE;

	watch_canaries(s);
	for (int i = 0; i < SHARED_KEPT; i++)
		keep(s, i);
	if (stage == STAGE_READY)
		ready(s);
	if (stage == STAGE_FINISHED && s->finishing < 0)
		replace(s);
	else if (stage >= STAGE_SERVING && s->finishing >= 0 &&
		 atomic_load(&words_of(s, s->finishing)->order) != ORDER_QUIT)
		give_order(s, s->finishing, ORDER_QUIT, QUIT_MS);
	if (atomic_load(&s->shared->wishes) & WISH_UPGRADE)
		upgrade(s);
	if (atomic_fetch_and(&s->shared->wishes, ~(uint32_t)WISH_STAY) & WISH_STAY) {
		s->end_signal = 0;
		if (s->leave_if_refused)
			leave(s);
	}
}

/* The worker unmounts, where nobody uses the mount. Where somebody does, systemd would
 * kill us in the end: then we leave. */
static void terminate(struct supervisor *s, int number)
{
	struct error err = {0};

	s->leave_if_refused = getenv("NOTIFY_SOCKET") != NULL;
	atomic_fetch_and(&s->shared->wishes, ~(uint32_t)WISH_STAY);
	if (s->serving >= 0) {
		s->end_signal = number;
		signal_worker(s, s->serving, number);
		return;
	}
	/* The worker is held back: it cannot unmount, and nobody would wait for it. */
	if (holdings_unmount(&s->holdings, false, &err) == 0)
		end(s, EXIT_SUCCESS);
	else
		log_error("not ending: %s", err.text);
}

static void signal_handle(struct supervisor *s)
{
	struct signalfd_siginfo info;

	while (read(s->signals, &info, sizeof(info)) == sizeof(info)) {
		switch (info.ssi_signo) {
		case SIGUSR1:
			listen_to(s);
			break;
		case SIGUSR2:
			leave(s);
			break;
		case SIGHUP:
			signal_worker(s, s->serving, SIGHUP);
			break;
		default:
			terminate(s, (int)info.ssi_signo);
		}
	}
}

static bool is_busy_too_long(const struct supervisor *s, int bank, uint64_t now_ms)
{
	for (int i = 0; i < SHARED_SESSIONS * SHARED_SLOTS; i++) {
		uint64_t since_ms = atomic_load(
			&s->shared->banks[bank]
				 .busy_ms[i / SHARED_SLOTS][i % SHARED_SLOTS]);

		if (since_ms && now_ms > since_ms + s->busy_ms)
			return true;
	}
	return false;
}

/* Whether a worker answers nothing. A heartbeat that is late because everything stood
 * still, us too, is none of its fault. */
static bool is_hung(const struct supervisor *s, int bank, uint64_t now_ms)
{
	const struct watched *watched = &s->watched[bank];
	uint64_t beat_ms = atomic_load(&s->shared->workers[bank].beat_ms);

	if (!watched->pid || watched->dying || now_ms > s->tick_ms + 2 * TICK_MS)
		return false;
	if (watched->deadline_ms)
		return now_ms > watched->deadline_ms;
	return now_ms > beat_ms + HANG_MS || is_busy_too_long(s, bank, now_ms);
}

/* A disk that hangs makes a serving thread look as if it did: killing its worker again
 * and again would not help, so each time it gets longer. The heartbeat's thread never
 * touches a disk: there nothing is longer. */
static void hang_handle(struct supervisor *s, int bank)
{
	struct watched *watched = &s->watched[bank];

	if (process_traced(watched->pid)) {
		watched->deadline_ms = 0;
		return;
	}
	log_error("the worker (pid %d) does not answer: it is killed, the next one takes "
		  "over",
		  (int)watched->pid);
	signal_worker(s, bank, SIGKILL);
	watched->deadline_ms = clock_monotonic_ms() + HANG_MAX_MS;
	if (s->busy_ms < HANG_MAX_MS)
		s->busy_ms *= 2;
}

static void tick(struct supervisor *s)
{
	uint64_t now_ms = clock_monotonic_ms();

	for (int bank = 0; bank < SHARED_BANKS; bank++) {
		struct watched *watched = &s->watched[bank];

		if (is_hung(s, bank, now_ms))
			hang_handle(s, bank);
		if (bank == s->serving && now_ms > watched->started_ms + QUIET_MS)
			s->busy_ms = BUSY_MS;
	}
	if (now_ms >= s->tick_ms + TICK_MS) {
		s->tick_ms = now_ms;
		listen_to(s);
		sd_notify(0, "WATCHDOG=1");
	}
}

/* On a kernel that cannot tell when a process's first thread has ended. */
static bool leaders_look(struct supervisor *s)
{
	bool any = false;

	for (int bank = 0; bank < SHARED_BANKS; bank++) {
		struct watched *watched = &s->watched[bank];

		if (!watched->pid || watched->dying || watched->canary >= 0)
			continue;
		any = true;
		if (process_leader_gone(watched->pid))
			leader_ended(s, bank);
	}
	return any;
}

static int timeout_ms(const struct supervisor *s, bool look)
{
	uint64_t now_ms = clock_monotonic_ms();
	int ms = look ? LEADER_LOOK_MS : TICK_MS;

	if (!s->start_at_ms)
		return ms;
	if (s->start_at_ms <= now_ms)
		return 0;
	return s->start_at_ms - now_ms < (uint64_t)ms ? (int)(s->start_at_ms - now_ms)
						      : ms;
}

static void wait_and_handle(struct supervisor *s, bool look)
{
	struct pollfd fds[1 + 2 * SHARED_BANKS] = {{s->signals, POLLIN, 0}};

	for (int bank = 0; bank < SHARED_BANKS; bank++) {
		fds[1 + bank] = (struct pollfd){s->watched[bank].canary, POLLIN, 0};
		fds[1 + SHARED_BANKS + bank] =
			(struct pollfd){s->watched[bank].whole, POLLIN, 0};
	}
	if (poll(fds, 1 + 2 * SHARED_BANKS, timeout_ms(s, look)) < 0)
		return;
	for (int bank = 0; bank < SHARED_BANKS; bank++) {
		if (fds[1 + bank].revents)
			leader_ended(s, bank);
		if (fds[1 + SHARED_BANKS + bank].revents)
			whole_ended(s, bank);
	}
	if (fds[0].revents)
		signal_handle(s);
}

static void loop(struct supervisor *s)
{
	s->tick_ms = clock_monotonic_ms();
	while (s->exit_code < 0) {
		bool look = leaders_look(s);

		if (s->start_at_ms && clock_monotonic_ms() >= s->start_at_ms)
			start_worker(s);
		wait_and_handle(s, look);
		tick(s);
	}
}

/* Workers that live already, whoever has started them. */
static void take_over(struct supervisor *s)
{
	for (int bank = 0; bank < SHARED_BANKS; bank++) {
		pid_t pid = atomic_load(&words_of(s, bank)->pid);

		/* Taken for a worker that our predecessor did not come to start. */
		if (!pid && atomic_load(&s->shared->banks[bank].state) == BANK_USED) {
			atomic_store(&s->shared->banks[bank].state, BANK_DEAD);
			/* It ends when it finds this, see is_wanted(), or was here
			 * before. */
			pid = atomic_load(&words_of(s, bank)->pid);
		}
		if (!pid)
			continue;
		watch(s, bank, pid);
		if (s->watched[bank].whole < 0) {
			/* It died while there was no supervisor. */
			unwatch(&s->watched[bank]);
			atomic_store(&words_of(s, bank)->pid, 0);
			atomic_store(&s->shared->banks[bank].state, BANK_DEAD);
			continue;
		}
		atomic_store(&s->shared->banks[bank].state, BANK_USED);
		if ((uint32_t)bank == atomic_load(&s->shared->bank))
			s->serving = bank;
		else
			give_order(s, bank, ORDER_QUIT, QUIT_MS);
	}
	if (s->serving < 0) {
		start_later(s, 0, WORKER_DIED);
		return;
	}
	nudge(s, s->serving); /* it watches us from now on */
	holdings_publish(&s->holdings, s->watched[s->serving].pid);
	tell_file(s);
}

/* Two workers, or one whose patience was too short, may have started two supervisors:
 * only one of them may go on. */
static bool claim(struct supervisor *s)
{
	pid_t before = atomic_load(&s->shared->supervisor), self = getpid();

	prctl(PR_SET_NAME, "deployfsd"); /* executed as /proc/self/exe it is "exe" */
	return before == self ||
	       (!process_ours(before) &&
		atomic_compare_exchange_strong(&s->shared->supervisor, &before, self));
}

static void begin(struct supervisor *s, enum supervisor_reason reason)
{
	atomic_store(&s->shared->left, false);
	process_protect(OOM_SUPERVISOR, s->shared->debug);
	if (reason == SUPERVISOR_FIRST) {
		s->first = true;
		start_later(s, 0, WORKER_FIRST);
		return;
	}
	kept_tidy(s);
	take_over(s);
	if (reason == SUPERVISOR_UPGRADE && s->serving >= 0)
		give_order(s, s->serving, ORDER_FINISH, FINISH_MS);
	listen_to(s);
}

int supervisor_run(struct holdings *holdings, struct config *config,
		   enum supervisor_reason reason)
{
	struct supervisor s = {
		.holdings = *holdings,
		.shared = holdings->shared,
		.config = config,
		.serving = -1,
		.ended = -1,
		.finishing = -1,
		.busy_ms = BUSY_MS,
		.signals = process_signals(signals),
		.exit_code = -1,
	};

	for (int bank = 0; bank < SHARED_BANKS; bank++)
		s.watched[bank] = (struct watched){.canary = -1, .whole = -1};
	if (!claim(&s)) {
		log_info("not needed: another supervisor is there");
		return EXIT_SUCCESS;
	}
	begin(&s, reason);
	loop(&s);
	config_free(s.config);
	if (atomic_load(&s.shared->left))
		return s.exit_code;
	if (s.first)
		holdings_unmount(&s.holdings, true, NULL);
	holdings_end(&s.holdings);
	return s.exit_code;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "process.h"

#include "cleanup.h"
#include "fd.h"
#include "log.h"
#include "procfs.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL /* Linux 6.9, newer than Debian 12's headers */
#endif

#define TRACER "\nTracerPid:"

static int pidfd_open_flags(pid_t pid, unsigned flags)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, flags);

	return fd < 0 ? -errno : fd;
}

int process_open(pid_t pid)
{
	return pid > 0 ? pidfd_open_flags(pid, 0) : -ESRCH;
}

int process_open_thread(pid_t tid)
{
	return tid > 0 ? pidfd_open_flags(tid, PIDFD_THREAD) : -ESRCH;
}

bool process_leader_gone(pid_t pid)
{
	char state = process_state(pid);

	return state == 0 || state == 'Z' || state == 'X';
}

/* Also of one that is about to end. */
static bool has_our_name(pid_t pid)
{
	char name[PROCESS_NAME_SIZE];

	return strncmp(process_name(pid, name), "deployfs", strlen("deployfs")) == 0;
}

bool process_ours(pid_t pid)
{
	return pid > 0 && !process_leader_gone(pid) && has_our_name(pid);
}

/* The name is looked at after the pidfd is there: a number is nobody else's while the
 * process of a pidfd has not been reaped, and of one that was reaped nobody is told. */
int process_open_ours(pid_t pid)
{
	int fd = process_open(pid);

	if (fd >= 0 && !has_our_name(pid)) {
		close(fd);
		return -ESRCH;
	}
	return fd;
}

int process_signal(pid_t pid, int number)
{
	cleanup(fd_close) int fd = process_open_ours(pid);

	if (fd < 0)
		return fd;
	return syscall(SYS_pidfd_send_signal, fd, number, NULL, 0) < 0 ? -errno : 0;
}

bool process_traced(pid_t pid)
{
	cleanup(free_ptr) char *content = NULL;
	const char *at;
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	if (file_read(path, 65536, &content, NULL) < 0)
		return false;
	at = strstr(content, TRACER);
	return at && strtol(at + strlen(TRACER), NULL, 10) != 0;
}

const char *process_exit_text(int status, char text[static PROCESS_EXIT_SIZE])
{
	if (WIFSIGNALED(status))
		snprintf(text, PROCESS_EXIT_SIZE, "signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else
		snprintf(text, PROCESS_EXIT_SIZE, "code %d", WEXITSTATUS(status));
	return text;
}

int process_signals(const int *numbers)
{
	sigset_t set;

	sigemptyset(&set);
	for (; *numbers; numbers++)
		sigaddset(&set, *numbers);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

int process_exec_supervisor(const char *program, const struct inherit *list, bool upgrade)
{
	char text[INHERIT_TEXT_SIZE];
	int r;

	inherit_pass(list, true);
	inherit_format(list, text);
	/* Signals stay blocked: one that comes before the new program has its signalfd
	 * waits for that, and would end it otherwise. The upgrade is the last argument,
	 * if at all. */
	execl(program, "deployfsd", "--inherit", text, upgrade ? "--upgrade" : NULL,
	      (char *)NULL);
	r = -errno;
	inherit_pass(list, false);
	return r;
}

int process_supervisor(const struct shared *shared, const struct inherit *list,
		       struct error *err)
{
	int status;
	pid_t pid = fork();

	if (pid < 0)
		return error_set(err, -errno, "cannot start the supervisor again: %s",
				 strerror(errno));
	if (pid == 0) {
		/* Only async-signal-safe calls but for snprintf: we have threads. */
		setsid();
		if (fork() == 0)
			process_exec_supervisor("/proc/self/exe", list, false);
		_exit(0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	log_info("started the supervisor again");
	return 0;
}

void process_protect(int oom_score_adj, bool dumpable)
{
	cleanup(fd_close) int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	char text[16];
	int size = snprintf(text, sizeof(text), "%d", oom_score_adj);

	if (fd < 0 || write(fd, text, (size_t)size) < 0)
		log_debug("cannot set the score for the out-of-memory killer: %s",
			  strerror(errno));
	prctl(PR_SET_DUMPABLE, dumpable);
}

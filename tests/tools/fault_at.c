/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault_at.c - let the N-th change that a running process makes to its surroundings fail
 *
 *   fault-at PID[,PID...] worker|job FOLDER N kill|crash|cut|ERRNO [CALL...]
 *
 * Attaches to all threads of the first PID and to what they start. Counted over all of
 * them, in the order in which they happen, are the calls that somebody else could notice:
 * those of the table below which concern a file under FOLDER, a socket or /dev/fuse, or
 * only those named. `worker` counts what PID itself does, `job` what it has started with
 * execve(2). (strace counts for each thread by itself, and cannot leave out one of two
 * processes.) Before the N-th is carried out
 *
 *   kill    the process that makes it gets SIGKILL
 *   crash   all PIDs do
 *   cut     the file system of FOLDER loses what is not on the disk yet, as in a power
 *           cut (FS_IOC_SHUTDOWN), and all PIDs get SIGKILL
 *   ERRNO   EIO or ENOSPC: it is not made, and fails with that; only files under FOLDER
 *           count, since others do not fail in this way. "EIO+": all after it, too
 *
 * Prints "attached", for each call counted "call N NAME WHAT", and for the N-th "fired N
 * NAME WHAT" after it was done. Ends when PID has, or with SIGTERM, and prints "count N".
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#define FS_IOC_SHUTDOWN _IOR('X', 125, uint32_t)
#define NO_LOG_FLUSH    2 /* EXT4_GOING_FLAGS_NOLOGFLUSH: the journal is not written */

#define OPTIONS                                                             \
	(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | \
	 PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC)

enum kind {
	KIND_FD,      /* the first argument is a descriptor */
	KIND_MAP,     /* the fifth is one */
	KIND_PATH,    /* the first is a path */
	KIND_PATH_AT, /* the first is a directory, the second a path */
	KIND_ALWAYS,
};

static const struct call {
	const char *name;
	uint64_t number;
	enum kind kind;
} calls[] = {
	{"write", SYS_write, KIND_FD},
	{"writev", SYS_writev, KIND_FD},
	{"pwrite64", SYS_pwrite64, KIND_FD},
	{"pwritev", SYS_pwritev, KIND_FD},
	{"sendto", SYS_sendto, KIND_FD},
	{"sendmsg", SYS_sendmsg, KIND_FD},
	{"fsync", SYS_fsync, KIND_FD},
	{"fdatasync", SYS_fdatasync, KIND_FD},
	{"syncfs", SYS_syncfs, KIND_FD},
	{"fallocate", SYS_fallocate, KIND_FD},
	{"ftruncate", SYS_ftruncate, KIND_FD},
	{"mmap", SYS_mmap, KIND_MAP},
	{"openat", SYS_openat, KIND_PATH_AT},
	{"renameat", SYS_renameat, KIND_PATH_AT},
	{"renameat2", SYS_renameat2, KIND_PATH_AT},
	{"unlinkat", SYS_unlinkat, KIND_PATH_AT},
	{"mkdirat", SYS_mkdirat, KIND_PATH_AT},
#ifdef SYS_rename
	{"rename", SYS_rename, KIND_PATH},
	{"unlink", SYS_unlink, KIND_PATH},
	{"mkdir", SYS_mkdir, KIND_PATH},
#endif
	{"execve", SYS_execve, KIND_ALWAYS},
};

struct tracee {
	struct tracee *next;
	pid_t tid, process;
	bool job;
	int fail; /* the call it is in shall give this, negative; 0: none */
};

static struct {
	pid_t pid, others[8];
	size_t other_count;
	bool job;
	char folder[PATH_MAX];
	int folder_fd;
	uint64_t at, count;
	const char *fault, *only;
	int error;
	bool lasting; /* the error comes again and again */
	struct tracee *tracees;
	bool leaving;
} self;

static void die(const char *what)
{
	fprintf(stderr, "fault-at: %s: %s\n", what, strerror(errno));
	exit(1);
}

static struct tracee *tracee_find(pid_t tid)
{
	struct tracee *tracee = self.tracees;

	while (tracee && tracee->tid != tid)
		tracee = tracee->next;
	return tracee;
}

static pid_t process_of(pid_t tid)
{
	char path[64], line[256];
	pid_t process = tid;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Tgid: %d", &process) == 1)
			break;
	if (file)
		fclose(file);
	return process;
}

static struct tracee *tracee_add(pid_t tid)
{
	struct tracee *tracee = calloc(1, sizeof(*tracee)), *leader;

	if (!tracee)
		die("calloc");
	tracee->tid = tid;
	tracee->process = process_of(tid);
	leader = tracee_find(tracee->process);
	tracee->job = leader && leader->job;
	tracee->next = self.tracees;
	self.tracees = tracee;
	return tracee;
}

static void tracee_forget(pid_t tid)
{
	struct tracee **at = &self.tracees, *found;

	while (*at && (*at)->tid != tid)
		at = &(*at)->next;
	found = *at;
	if (!found)
		return;
	*at = found->next;
	free(found);
}

/* A thread may be made while we attach to the others: until no new one is found. */
static void attach(void)
{
	char path[64];
	bool found;

	snprintf(path, sizeof(path), "/proc/%d/task", self.pid);
	do {
		DIR *dir = opendir(path);
		struct dirent *entry;

		found = false;
		if (!dir)
			die(path);
		while ((entry = readdir(dir))) {
			pid_t tid = (pid_t)atoi(entry->d_name);

			if (tid == 0 || tracee_find(tid))
				continue;
			if (ptrace(PTRACE_SEIZE, tid, 0, OPTIONS) < 0) {
				if (errno == EPERM && tid != self.pid)
					continue; /* came with the thread that made it */
				if (errno == ESRCH)
					continue;
				die("cannot attach");
			}
			tracee_add(tid);
			ptrace(PTRACE_INTERRUPT, tid, 0, 0);
			found = true;
		}
		closedir(dir);
	} while (found);
}

static const char *fd_text(const struct tracee *tracee, int fd, char text[PATH_MAX])
{
	char path[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/%d/fd/%d", tracee->tid, fd);
	n = readlink(path, text, PATH_MAX - 1);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static const char *path_text(const struct tracee *tracee, uint64_t address,
			     char text[PATH_MAX])
{
	char path[64];
	ssize_t n = -1;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", tracee->tid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		n = pread(fd, text, PATH_MAX - 1, (off_t)address);
		close(fd);
	}
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static bool concerns(const char *what)
{
	if (!strncmp(what, self.folder, strlen(self.folder)))
		return true;
	return !self.error &&
	       (!strncmp(what, "socket:", 7) || !strcmp(what, "/dev/fuse"));
}

/* What a call is about, or NULL where it does not count. */
static const char *call_what(const struct tracee *tracee, const struct call *call,
			     const struct __ptrace_syscall_info *info,
			     char text[PATH_MAX])
{
	const __uint64_t *args = info->entry.args;

	switch (call->kind) {
	case KIND_FD:
		fd_text(tracee, (int)args[0], text);
		break;
	case KIND_MAP:
		fd_text(tracee, (int)args[4], text);
		break;
	case KIND_PATH:
		path_text(tracee, args[0], text);
		break;
	case KIND_PATH_AT:
		path_text(tracee, args[1], text);
		if (*text != '/' && (int)args[0] != AT_FDCWD)
			fd_text(tracee, (int)args[0], text);
		break;
	case KIND_ALWAYS:
		return "";
	}
	return concerns(text) ? text : NULL;
}

static bool call_wanted(const char *name)
{
	size_t length = strlen(name);

	for (const char *at = self.only; at; at = strchr(at, ',')) {
		at += *at == ',';
		if (!strncmp(at, name, length) && (at[length] == ',' || !at[length]))
			return true;
	}
	return !self.only;
}

static void call_skip(struct tracee *tracee)
{
	struct user_regs_struct regs;

	if (ptrace(PTRACE_GETREGS, tracee->tid, 0, &regs) < 0)
		return;
	regs.orig_rax = (unsigned long long)-1;
	ptrace(PTRACE_SETREGS, tracee->tid, 0, &regs);
	tracee->fail = -self.error;
}

static void call_fail(struct tracee *tracee)
{
	struct user_regs_struct regs;

	if (ptrace(PTRACE_GETREGS, tracee->tid, 0, &regs) < 0)
		return;
	regs.rax = (unsigned long long)tracee->fail;
	ptrace(PTRACE_SETREGS, tracee->tid, 0, &regs);
	tracee->fail = 0;
}

/* None of them gets to see that another one has died. */
static void kill_all(void)
{
	for (size_t i = 0; i < self.other_count; i++)
		kill(self.others[i], SIGSTOP);
	kill(self.pid, SIGKILL);
	for (size_t i = 0; i < self.other_count; i++)
		kill(self.others[i], SIGKILL);
}

static void fire(struct tracee *tracee)
{
	uint32_t flags = NO_LOG_FLUSH;

	if (self.error) {
		call_skip(tracee);
	} else if (!strcmp(self.fault, "kill")) {
		/* What PID starts is PID's until it is a program of its own. */
		kill(self.job ? tracee->process : self.pid, SIGKILL);
	} else if (!strcmp(self.fault, "crash")) {
		kill_all();
	} else {
		if (ioctl(self.folder_fd, FS_IOC_SHUTDOWN, &flags) < 0)
			die("FS_IOC_SHUTDOWN");
		kill_all();
	}
}

static void on_call(struct tracee *tracee)
{
	struct __ptrace_syscall_info info;
	const char *what = NULL;
	char text[PATH_MAX];
	bool fires;
	size_t i;

	if (ptrace(PTRACE_GET_SYSCALL_INFO, tracee->tid, sizeof(info), &info) < 0)
		return;
	if (info.op == PTRACE_SYSCALL_INFO_EXIT && tracee->fail)
		call_fail(tracee);
	if (info.op != PTRACE_SYSCALL_INFO_ENTRY || tracee->job != self.job)
		return;
	for (i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (calls[i].number == info.entry.nr)
			break;
	if (i == sizeof(calls) / sizeof(calls[0]) || !call_wanted(calls[i].name))
		return;
	what = call_what(tracee, &calls[i], &info, text);
	if (!what)
		return;
	self.count++;
	fires = self.count == self.at ||
		(self.lasting && self.at && self.count > self.at);
	if (fires)
		fire(tracee);
	printf("%s %llu %s %s\n", fires ? "fired" : "call",
	       (unsigned long long)self.count, calls[i].name, what);
}

/* A stop of @tid: what happened, and let it go on. */
static void on_stop(pid_t tid, int status)
{
	struct tracee *tracee = tracee_find(tid);
	int event = status >> 16, sig = WSTOPSIG(status), pass = 0;
	bool stopped = event == PTRACE_EVENT_STOP && sig != SIGTRAP;

	if (!tracee)
		tracee = tracee_add(tid);
	if (event == PTRACE_EVENT_EXEC)
		tracee->job = true;
	else if (event == 0 && sig == (SIGTRAP | 0x80))
		on_call(tracee);
	else if (event == 0)
		pass = sig;
	/* One that shall fail has its result set first. */
	if (self.leaving && !tracee->fail) {
		ptrace(PTRACE_DETACH, tid, 0, pass);
		tracee_forget(tid);
		return;
	}
	ptrace(stopped ? PTRACE_LISTEN : PTRACE_SYSCALL, tid, 0, pass);
}

static void on_children(void)
{
	int status;
	pid_t tid;

	while ((tid = waitpid(-1, &status, WNOHANG | __WALL)) > 0) {
		if (WIFSTOPPED(status))
			on_stop(tid, status);
		else
			tracee_forget(tid);
	}
}

static void leave(void)
{
	self.leaving = true;
	for (struct tracee *tracee = self.tracees; tracee; tracee = tracee->next)
		ptrace(PTRACE_INTERRUPT, tracee->tid, 0, 0);
}

static void pids_parse(const char *text)
{
	self.pid = (pid_t)atoi(text);
	for (text = strchr(text, ','); text; text = strchr(text + 1, ','))
		if (self.other_count < sizeof(self.others) / sizeof(self.others[0]))
			self.others[self.other_count++] = (pid_t)atoi(text + 1);
}

static void fault_parse(const char *name)
{
	static const struct {
		const char *name;
		int error;
		bool lasting;
	} faults[] = {
		{"kill", 0, false},        {"crash", 0, false}, {"cut", 0, false},
		{"EIO", EIO, false},       {"EIO+", EIO, true}, {"ENOSPC", ENOSPC, false},
		{"ENOSPC+", ENOSPC, true},
	};

	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		if (strcmp(name, faults[i].name))
			continue;
		self.fault = faults[i].name;
		self.error = faults[i].error;
		self.lasting = faults[i].lasting;
		return;
	}
	fprintf(stderr, "fault-at: no fault '%s'\n", name);
	exit(2);
}

int main(int argc, char **argv)
{
	sigset_t signals;

	if (argc < 6) {
		fprintf(stderr,
			"usage: fault-at PID worker|job FOLDER N FAULT [CALLS]\n");
		return 2;
	}
	pids_parse(argv[1]);
	self.job = !strcmp(argv[2], "job");
	self.at = strtoull(argv[4], NULL, 10);
	fault_parse(argv[5]);
	self.only = argc > 6 ? argv[6] : NULL;
	if (!realpath(argv[3], self.folder))
		die(argv[3]);
	self.folder_fd = open(self.folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (self.folder_fd < 0)
		die(self.folder);

	setvbuf(stdout, NULL, _IOLBF, 0);
	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	attach();
	printf("attached\n");
	while (self.tracees) {
		on_children();
		if (self.tracees && sigwaitinfo(&signals, NULL) == SIGTERM)
			leave();
	}
	printf("count %llu\n", (unsigned long long)self.count);
	return 0;
}

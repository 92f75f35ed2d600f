/* SPDX-License-Identifier: Apache-2.0 */
#include "deadline.h"

#include "cleanup.h"
#include "clock.h"
#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

/* The exit status of a program that is not there, as in a shell. */
#define EXIT_MISSING 127

/* A child that ends, or is given up: then it is not waited for. Returns its exit status.
 */
static int await(pid_t pid, uint64_t deadline)
{
	cleanup(fd_close) int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct pollfd ended = {.fd = fd, .events = POLLIN};
	uint64_t now = clock_monotonic_ms();
	siginfo_t info;
	int ready;

	if (fd < 0)
		return -errno;
	do
		ready = poll(&ended, 1, deadline > now ? (int)(deadline - now) : 0);
	while (ready < 0 && errno == EINTR);
	if (ready <= 0) {
		kill(pid, SIGKILL);
		return -ETIMEDOUT;
	}
	if (waitid(P_PID, (id_t)pid, &info, WEXITED) < 0 || info.si_code != CLD_EXITED)
		return -EIO;
	return info.si_status;
}

int deadline_run(int (*function)(void *context), void *context, unsigned ms)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return -errno;
	if (pid == 0) {
		/* Who waits for the end of our output must not wait for the child. */
		close_range(0, ~0U, 0);
		_exit(function(context));
	}
	status = await(pid, clock_monotonic_ms() + ms);
	return status > 0 ? -status : status;
}

static int statfs_try(void *context)
{
	struct statfs st;

	return statfs(context, &st) == 0 ? 0 : errno;
}

int deadline_statfs(const char *path, unsigned ms)
{
	return deadline_run(statfs_try, (void *)path, ms);
}

static void read_output(int fd, char *text, size_t size, uint64_t deadline)
{
	struct pollfd input = {.fd = fd, .events = POLLIN};
	size_t used = 0;
	char waste[512];

	for (;;) {
		uint64_t now = clock_monotonic_ms();
		bool full = used + 1 >= size;
		ssize_t n;

		if (now >= deadline || poll(&input, 1, (int)(deadline - now)) <= 0)
			break;
		n = read(fd, full ? waste : text + used,
			 full ? sizeof(waste) : size - used - 1);
		if (n <= 0)
			break;
		used += full ? 0 : (size_t)n;
	}
	while (used > 0 && text[used - 1] == '\n')
		used--;
	text[used] = '\0';
}

int deadline_program(const char *const *argv, char *text, size_t size, unsigned ms)
{
	const uint64_t deadline = clock_monotonic_ms() + ms;
	cleanup(fd_close) int from = -1;
	int fds[2], status;
	pid_t pid;

	text[0] = '\0';
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	from = fds[0];
	pid = fork();
	if (pid == 0) {
		int null = open("/dev/null", O_RDONLY);

		dup2(null, STDIN_FILENO);
		dup2(fds[1], STDOUT_FILENO);
		dup2(fds[1], STDERR_FILENO);
		close_range(3, ~0U, 0);
		execvp(argv[0], (char *const *)argv);
		_exit(EXIT_MISSING);
	}
	close(fds[1]);
	if (pid < 0)
		return -EIO;
	read_output(from, text, size, deadline);
	status = await(pid, deadline);
	return status == EXIT_MISSING ? -ENOENT : status;
}

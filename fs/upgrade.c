/* SPDX-License-Identifier: Apache-2.0 */
#include "upgrade.h"

#include "cleanup.h"
#include "fd.h"
#include "log.h"
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TRY_MS 10000

static int try_start(const struct shared *shared, int output, pid_t *ret)
{
	char name[] = "deployfsd", check[] = "--check", layout[] = "--layout";
	char config[] = "--config", number[16], path[PATH_MAX];
	char *argv[] = {name, check, layout, number, *shared->config ? config : NULL,
			path, NULL};
	char *env[] = {(char *)"LANG=C.UTF-8", (char *)"PATH=/usr/bin:/bin", NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;
	int r;

	snprintf(number, sizeof(number), "%u", SHARED_LAYOUT);
	snprintf(path, sizeof(path), "%s", shared->config);
	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, output, 1);
	posix_spawn_file_actions_adddup2(&actions, output, 2);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	r = -posix_spawn(ret, shared->program, &actions, &attributes, argv, env);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return r;
}

/* The exit status; -ETIMEDOUT when it had to be killed. */
static int try_end(pid_t pid)
{
	cleanup(fd_close) int fd = process_open(pid);
	struct pollfd ended = {fd, POLLIN, 0};
	int status = 0, r = 0;

	if (fd < 0 || poll(&ended, 1, TRY_MS) == 0) {
		kill(pid, SIGKILL);
		r = -ETIMEDOUT;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return r < 0 ? r : status;
}

static int try_program(const struct shared *shared, struct error *err)
{
	cleanup(fd_close) int output = memfd_create("deployfs-check", MFD_CLOEXEC);
	char said[300] = "";
	ssize_t size;
	pid_t pid;
	int r = output < 0 ? -errno : try_start(shared, output, &pid);

	if (r < 0)
		return error_set(err, r, "cannot start '%s': %s", shared->program,
				 strerror(-r));
	r = try_end(pid);
	size = pread(output, said, sizeof(said) - 1, 0);
	said[size > 0 ? strcspn(said, "\n") : 0] = '\0';
	if (r == -ETIMEDOUT)
		return error_set(err, -EINVAL, "'%s --check' does not end",
				 shared->program);
	if (r != 0)
		return error_set(err, -EINVAL, "'%s --check' refused: %s",
				 shared->program,
				 *said ? said : "it was ended by a signal");
	return 0;
}

int upgrade_begin(struct shared *shared, struct error *err)
{
	static atomic_flag trying = ATOMIC_FLAG_INIT;
	int r;

	if ((atomic_load(&shared->wishes) & WISH_UPGRADE) ||
	    atomic_flag_test_and_set(&trying))
		return error_set(err, -EBUSY, "an upgrade is under way");
	r = try_program(shared, err);
	atomic_flag_clear(&trying);
	if (r < 0)
		return r;
	atomic_fetch_or(&shared->wishes, WISH_UPGRADE);
	if (process_signal(atomic_load(&shared->supervisor), SIGUSR1) < 0) {
		atomic_fetch_and(&shared->wishes, ~(uint32_t)WISH_UPGRADE);
		return error_set(
			err, -EBUSY,
			"there is no supervisor just now: try again, or start "
			"deployfsd, which takes over with the program that is on "
			"the disk");
	}
	log_info("upgrading to '%s'", shared->program);
	return 0;
}

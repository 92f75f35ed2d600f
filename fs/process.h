/* SPDX-License-Identifier: Apache-2.0 */
/*
 * process.h - watching other processes, and starting the supervisor anew
 */
#pragma once

#include "error.h"
#include "inherit.h"
#include "shared.h"

#include <stdbool.h>
#include <sys/types.h>

/** process_open() - a pidfd, readable when the whole process has ended; -errno */
int process_open(pid_t pid);

/**
 * process_open_ours() - the same for a number from the shared memory
 * It may be of long ago, and another process's by now: one that is none of deployfsd's is
 * not there. Return: -ESRCH.
 */
int process_open_ours(pid_t pid);

/** process_signal() - kill(2), but of one of deployfsd's processes only. Return: 0;
 * -errno. */
int process_signal(pid_t pid, int number);

/**
 * process_open_thread() - a pidfd, readable when one thread has ended
 * A worker that was killed while the kernel has it wait for a request's answer keeps
 * that one thread until a successor answers: waiting for the whole process would be
 * waiting for ourselves. Nor is it its first thread that tells: since Linux 6.15 that one
 * counts as ended only with the last one of its process.
 * Return: -EINVAL on Linux before 6.9; see process_leader_gone() then.
 */
int process_open_thread(pid_t tid);

/** process_leader_gone() - whether the first thread is a zombie, or the process gone */
bool process_leader_gone(pid_t pid);

/** process_ours() - whether a process runs, and is one of deployfsd's */
bool process_ours(pid_t pid);

/** process_exit_text() - "signal 9 (Killed)", "code 1", of wait(2)'s status */
#define PROCESS_EXIT_SIZE 80
const char *process_exit_text(int status, char text[static PROCESS_EXIT_SIZE]);

/**
 * process_signals() - block these signals and no others, and have them from a descriptor
 * @numbers: ends with 0
 * Return: a signalfd, non-blocking; -1 with errno.
 */
int process_signals(const int *numbers);

/** process_traced() - whether a debugger has it: it may stand still for any time */
bool process_traced(pid_t pid);

/**
 * process_supervisor() - start a supervisor that holds the same descriptors
 * It is nobody's child. Return: 0 when it was started; a negative errno.
 */
int process_supervisor(const struct shared *shared, const struct inherit *list,
		       struct error *err);

/**
 * process_exec_supervisor() - become one; returns only on failure, with -errno
 * The mask of signals is kept: one that comes before the new program waits for it would
 * end it.
 */
int process_exec_supervisor(const char *program, const struct inherit *list,
			    bool upgrade);

/** process_protect() - the out-of-memory killer's score, and no core dump: it might be
 * written into our own mount */
void process_protect(int oom_score_adj, bool dumpable);

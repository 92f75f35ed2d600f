/* SPDX-License-Identifier: Apache-2.0 */
/*
 * procfs.h - what /proc says of processes
 *
 * Nothing here follows a path of another process, so that no file system can hang us.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define PROCESS_NAME_SIZE      64
#define PROCESS_CONTAINER_SIZE 13

/** process_each() - call @each for every process that is there, but for ourselves */
void process_each(void (*each)(void *context, pid_t pid), void *context);

/** process_name() - its comm, "nginx", into @text; "" where it is gone; returns @text */
const char *process_name(pid_t pid, char text[static PROCESS_NAME_SIZE]);

/**
 * process_container() - the first 12 digits of the id of the container it runs in
 * @id: filled; "" where it is false
 *
 * Docker, containerd and podman put 64 hexadecimal digits into the path of its cgroup.
 *
 * Return: whether it is in one.
 */
bool process_container(pid_t pid, char id[static PROCESS_CONTAINER_SIZE]);

/** process_state() - 'R', 'S', 'D', 'T', 't', 'Z' and so on, see proc(5); 0: not there */
char process_state(pid_t pid);

/** process_link() - readlink(2) of /proc/PID/NAME; 0 or a negative errno */
int process_link(pid_t pid, const char *name, char *target, size_t size);

/** process_namespace() - the inode number of its mount namespace; 0: not there, or not
 * ours to know */
ino_t process_namespace(pid_t pid);

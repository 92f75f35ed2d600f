/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status_file.h - .deployfs/status.json, brought up to date behind the changes
 *
 * It is about all applications: written with each flip, it would make that the dearer the
 * more there are. A thread writes it after changes, at once where there was quiet before,
 * and in rounds while there is none.
 */
#pragma once

#include "error.h"

struct service;
struct status_file;

/** status_file_start() - @ret also after a failure, for status_file_free(). Return: 0;
 * -ENOMEM; -EAGAIN. */
int status_file_start(struct service *service, struct status_file **ret,
		      struct error *err);

/** status_file_kick() - a change was committed; waits for nothing. NULL is allowed. */
void status_file_kick(struct status_file *file);

/** status_file_stop() - wait for the thread's end; what is not written yet is at the next
 * start. NULL is allowed. */
void status_file_stop(struct status_file *file);
void status_file_free(struct status_file *file);

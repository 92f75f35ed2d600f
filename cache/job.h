/* SPDX-License-Identifier: Apache-2.0 */
/*
 * job.h - work in a process of its own: fetch, import, verify, repair, warm, ask an
 * origin
 *
 * The daemon starts `deployfsd --job` for each. Everything that parses what others wrote
 * runs there: libcurl, libnfs, libarchive. It can be killed at any time; what it leaves
 * is a partial download and a file in tmp/.
 *
 * Both sides talk JSON, one object a line, over a socket pair:
 *
 *   daemon → job   the request, once: see struct job_request
 *   job → daemon {"progress":{"stage":"download","bytes":1,"total":2,"source":"ftp://…"}}
 *                  {"origin":{"url":"ftp://…","error":null}}       an origin answered, or
 * not
 *                  {"warning":"…"}
 *                  {"version":"1.4.2"}                             what --latest turned
 * out to be
 *                  {"ready":true}    it would unpack now; waits for one byte, "g"
 *                  {"result":{…}} or {"error":{"code":-2,"text":"…"}}   last; a result
 * may follow an error of verify
 */
#pragma once

#include "config.h"
#include "error.h"

#include <jansson.h>
#include <stdint.h>

#define JOB_SOCKET_FD  3
#define JOB_ARCHIVE_FD 4 /* import: the package file */
#define JOB_PACK_FD    5 /* fetch, import, repair: an empty file in tmp/ */
#define JOB_LINE_MAX   (1024 * 1024)

/**
 * job_request() - what a job needs to know
 * @kind:     "fetch", "import", "verify", "repair", "warm", "list" (what the origin has),
 *            "warmth" (how much of what @channel points at is warm)
 * @version:  NULL: fetch the latest, verify all
 * @channel:  warm, warmth: the channel; else NULL
 * @config:   of the daemon
 * @reserve:  bytes to be left free
 * @sha256:   import, repair: what the file must have, hexadecimal; for an import it may
 *            be NULL
 *
 * Return: a new object, or NULL when out of memory.
 */
json_t *job_request(const char *kind, const char *app, const char *version,
		    const char *channel, const struct config *config, uint64_t reserve,
		    const char *sha256);

/**
 * job_main() - the whole life of a job process
 * Reads the request from JOB_SOCKET_FD. Return: the exit code of the process: 0 when a
 * result was sent, 1 when an error was.
 */
int job_main(void);

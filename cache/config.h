/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config.h - deployfs.yaml and the credentials file
 *
 * The keys are described in docs/man/deployfs.yaml.5.scd. A struct config never changes
 * after it was loaded; a reload makes a new one.
 */
#pragma once

#include "error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define CONFIG_PATH_DEFAULT "/etc/deployfs/deployfs.yaml"

/** What holds for one application: its exceptions, or the defaults. */
struct app_config {
	char *name;     /* "" in struct config's defaults */
	char **origins; /* mirrors in order, NULL-terminated; never NULL itself; the
			   defaults' own where the application has none */
	bool verify;    /* false: a package without a checksum is accepted */
	bool contained; /* refuse symlinks that leave the package */
	bool warm;      /* 'deployctl flip' warms the version before */
	uid_t uid;      /* owner of the files */
	gid_t gid;
	unsigned keep;         /* newest versions that gc keeps */
	uint64_t unpack_limit; /* bytes; 0: by the archive's size */
};

struct config {
	char *path; /* the file it came from; NULL: defaults only */
	char *mount;
	char *store;
	char *runtime;
	char *socket; /* <runtime>/deployfs.sock */
	char *group;
	char *credentials;
	char *known_hosts;
	char *ca_file; /* NULL: the system's */
	uint64_t
		reserve_bytes; /* with reserve_percent: the larger of both is kept free */
	unsigned reserve_percent;
	uint64_t connect_timeout_ms;
	uint64_t stall_timeout_ms;
	struct app_config defaults;
	struct app_config *apps; /* sorted by name */
	size_t app_count;
};

/**
 * config_load() - read, check and complete a configuration
 * @path:       file to read; it must exist if @must_exist, else a missing file gives the
 * defaults
 * @ret:        the caller's, to be freed with config_free(); untouched on failure
 * @err:        filled with "FILE:LINE: what is wrong" on failure; several problems are
 *              joined by "; ", the first ten
 *
 * Checks types, units, names, URL schemes, that paths are absolute, that no URL carries a
 * user or password, that no app is named twice. Paths are kept as the kernel shows them:
 * without doubled or trailing slashes. Touches nothing but the file.
 *
 * Return: 0; -EINVAL when something in it is wrong or it is larger than 1 MiB; -ENOMEM;
 * the negative errno of open(2) or read(2).
 */
int config_load(const char *path, bool must_exist, struct config **ret,
		struct error *err);

/** config_free() - NULL is allowed */
void config_free(struct config *config);

/** config_app() - what holds for the application @name; never NULL, owned by @config */
const struct app_config *config_app(const struct config *config, const char *name);

/** A user name and a secret for one origin. */
struct credential {
	char *user;
	char *password; /* NULL where a key is used */
	char *key_file; /* NULL where a password is used */
};

/**
 * credential_find() - the credential for a URL
 * @path: the credentials file; a missing one means that there are none
 * @url:  an origin, as configured; its scheme, host and port must equal those of a line
 *        (no port differs from the default one). Paths and file URLs have no credential.
 * @ret:  {NULL, NULL, NULL} when there is none; to be cleared with credential_done();
 *        untouched on failure
 *
 * Return: 0; -EPERM when the file is not root's with mode 0600 or stricter, or no regular
 * file; -ELOOP when it is a symlink; -EINVAL with file and line (never the line's text)
 * when it is malformed, with more than one line for the server, or larger than 1 MiB;
 * -ENOMEM; the negative errno of open(2) or read(2).
 */
int credential_find(const char *path, const char *url, struct credential *ret,
		    struct error *err);

/** credential_done() - overwrite and free what is in @credential */
void credential_done(struct credential *credential);

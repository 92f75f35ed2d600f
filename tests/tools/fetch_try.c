/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fetch_try - fetch one package as the job would, without a daemon
 *
 *   fetch_try [OPTION…] APP VERSION PARTIAL_DIR URL…
 *
 * VERSION may be "latest". Writes one JSON object a line to stdout: {"progress":…},
 * {"origin":…}, {"warning":…}, and at last {"result":…} or {"error":…}; exits with the
 * error's exit code.
 */
#include "cleanup.h"
#include "fd.h"
#include "fetch.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define HASH_SIZE (1024 * 1024)

static const struct option options[] = {
	{"no-verify", no_argument, NULL, 'n'},
	{"size-max", required_argument, NULL, 'm'},
	{"reserve", required_argument, NULL, 'r'},
	{"connect-ms", required_argument, NULL, 'c'},
	{"stall-ms", required_argument, NULL, 's'},
	{"credentials", required_argument, NULL, 'C'},
	{"known-hosts", required_argument, NULL, 'k'},
	{"ca-file", required_argument, NULL, 'a'},
	{"skip", required_argument, NULL, 'b'},
	{"no-check", no_argument, NULL, 'q'}, /* to measure: do not hash the result */
	{0},
};

static void show(json_t *line)
{
	json_dumpf(line, stdout, JSON_COMPACT);
	fputc('\n', stdout);
	fflush(stdout);
	json_decref(line);
}

static void on_progress(void *context, const char *stage, uint64_t bytes, uint64_t total,
			const char *source)
{
	show(json_pack("{s:{s:s, s:I, s:I, s:s}}", "progress", "stage", stage, "bytes",
		       (json_int_t)bytes, "total", (json_int_t)total, "source", source));
}

static void on_origin(void *context, const char *url, const struct error *err)
{
	show(json_pack("{s:{s:s, s:s?}}", "origin", "url", url, "error",
		       err ? err->text : NULL));
}

static void on_warning(void *context, const char *text)
{
	show(json_pack("{s:s}", "warning", text));
}

/* The descriptor must give what the result says. */
static int hash_again(const struct fetch_result *result, char text[SHA256_TEXT_SIZE])
{
	cleanup(free_ptr) char *buffer = malloc(HASH_SIZE);
	struct sha256 *sum = sha256_new();
	unsigned char digest[SHA256_SIZE];
	uint64_t at = 0;

	while (at < result->size) {
		size_t n = result->size - at < HASH_SIZE ? result->size - at : HASH_SIZE;

		if (fd_pread_all(result->fd, buffer, n, at) < 0)
			break;
		sha256_update(sum, buffer, n);
		at += n;
	}
	sha256_final(sum, digest);
	sha256_free(sum);
	sha256_format(digest, text);
	return at == result->size && !memcmp(digest, result->sha256, SHA256_SIZE) ? 0
										  : -EIO;
}

static int show_result(const struct fetch_result *result, bool check)
{
	char text[SHA256_TEXT_SIZE];

	sha256_format(result->sha256, text);
	if (check && hash_again(result, text) < 0) {
		show(json_pack("{s:{s:i, s:s}}", "error", "code", EIO, "text",
			       "the file is not what was hashed"));
		return 1;
	}
	show(json_pack("{s:{s:s, s:s, s:s, s:s, s:I, s:I, s:s, s:b}}", "result",
		       "version", result->version, "file", result->file, "origin",
		       result->origin, "partial", result->partial_path, "size",
		       (json_int_t)result->size, "resumed", (json_int_t)result->resumed,
		       "sha256", text, "listed", result->listed));
	return 0;
}

static bool parse(int argc, char **argv, struct fetch_request *request, char **skip,
		  bool *check)
{
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (option == 'n')
			request->verify = false;
		else if (option == 'm')
			request->size_max = strtoull(optarg, NULL, 0);
		else if (option == 'r')
			request->reserve_bytes = strtoull(optarg, NULL, 0);
		else if (option == 'c')
			request->connect_timeout_ms = strtoull(optarg, NULL, 0);
		else if (option == 's')
			request->stall_timeout_ms = strtoull(optarg, NULL, 0);
		else if (option == 'C')
			request->credentials = optarg;
		else if (option == 'k')
			request->known_hosts = optarg;
		else if (option == 'a')
			request->ca_file = optarg;
		else if (option == 'b')
			skip[0] = optarg;
		else if (option == 'q')
			*check = false;
		else
			return false;
	}
	return argc - optind >= 4;
}

int main(int argc, char **argv)
{
	const struct fetch_watch watch = {on_progress, on_origin, on_warning, NULL};
	char *skip[2] = {NULL, NULL};
	struct fetch_request request = {
		.verify = true,
		.size_max = 1ULL << 40,
		.connect_timeout_ms = 5000,
		.stall_timeout_ms = 5000,
		.skip = skip,
	};
	struct fetch_result result = {.fd = -1};
	struct error err = {0};
	bool check = true;
	int r;

	if (!parse(argc, argv, &request, skip, &check)) {
		fprintf(stderr, "usage: fetch_try [OPTION...] APP VERSION DIR URL...\n");
		return 2;
	}
	request.app = argv[optind];
	request.version = strcmp(argv[optind + 1], "latest") ? argv[optind + 1] : NULL;
	request.partial_dir = argv[optind + 2];
	request.origins = argv + optind + 3;
	r = fetch_package(&request, &watch, &result, &err);
	if (r < 0) {
		show(json_pack("{s:{s:i, s:s, s:s}}", "error", "code", -r, "name",
			       error_name(r), "text", err.text));
		return error_exit(error_name(r));
	}
	r = show_result(&result, check);
	fetch_result_done(&result);
	return r;
}

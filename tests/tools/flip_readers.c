/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flip_readers.c - flip an application back and forth while others read through 'current'
 *
 *   flip-readers SOCKET APPS APP VERSION-A VERSION-B READERS FLIPS
 *
 * Each version of APP holds the files 'stamp' and 'twin', both nothing but lines with the
 * version's name. The readers open them below APPS/APP/current without pause, while the
 * main thread flips over one connection to the API. Counted are
 *
 *   failed  calls of a reader that gave an error, and flips that did not answer 200
 *   stale   reads that began after the reply to a flip, ended before the next request,
 * and yet saw another version than that flip's mixed   reads that saw more than one
 * version: within a file, or in two files of one directory that was opened once
 *
 * The last line of stdout is a JSON object. Exit code 0 when everything ran, whatever was
 * counted.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
	READERS_MAX = 64,
	FILE_MAX = 1 << 16
};

struct counts {
	unsigned long reads, failed, stale, mixed;
};

static const char *versions[2];
static char current[4096];

/* Flip number N points at versions[N % 2]. asked is raised before its request is sent,
 * settled after its reply has come. */
static atomic_ulong asked, settled;
static atomic_bool stop;

static void die(const char *what)
{
	fprintf(stderr, "flip-readers: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* 0 or 1 for content that is one version's lines only, -1 for anything else. */
static int version_of(const char *data, size_t size)
{
	for (int i = 0; i < 2; i++) {
		size_t length = strlen(versions[i]);
		size_t at = 0;

		while (at + length + 1 <= size &&
		       !memcmp(data + at, versions[i], length) &&
		       data[at + length] == '\n')
			at += length + 1;
		if (at == size && size > 0)
			return i;
	}
	return -1;
}

/* The version in a file, -1 when mixed; -2 when a call failed. */
static int read_version(int dir, const char *path)
{
	static _Thread_local char data[FILE_MAX];
	size_t size = 0;
	ssize_t n;
	int fd;

	fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -2;
	while ((n = read(fd, data + size, sizeof(data) - size)) > 0)
		size += n;
	close(fd);
	return n < 0 ? -2 : version_of(data, size);
}

static int read_file(void)
{
	char path[sizeof(current) + 8];

	snprintf(path, sizeof(path), "%s/stamp", current);
	return read_version(AT_FDCWD, path);
}

static int read_directory(void)
{
	int a, b, dir;

	dir = open(current, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -2;
	a = read_version(dir, "stamp");
	b = read_version(dir, "twin");
	close(dir);
	if (a == -2 || b == -2)
		return -2;
	return a == b ? a : -1;
}

static int read_link(void)
{
	char target[256];
	ssize_t n = readlink(current, target, sizeof(target) - 1);

	if (n < 0)
		return -2;
	target[n++] = '\n';
	return version_of(target, n);
}

static void *read_without_pause(void *argument)
{
	static int (*const kinds[])(void) = {read_file, read_directory, read_link};
	struct counts *counts = argument;

	for (unsigned i = 0; !atomic_load(&stop); i++) {
		unsigned long before = atomic_load(&settled);
		int seen = kinds[i % 3]();
		unsigned long after = atomic_load(&asked);

		counts->reads++;
		if (seen == -2)
			counts->failed++;
		else if (seen == -1)
			counts->mixed++;
		else if (before == after && seen != (int)(before % 2))
			counts->stale++;
	}
	return NULL;
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		die(path);
	return fd;
}

/* Read one reply, headers and body, and return its status. */
static int read_reply(int fd)
{
	char reply[8192];
	const char *body, *length;
	size_t size = 0, wanted = sizeof(reply);
	ssize_t n;

	while (size < wanted) {
		n = read(fd, reply + size, sizeof(reply) - 1 - size);
		if (n <= 0)
			die("the API's reply");
		size += n;
		reply[size] = 0;
		body = strstr(reply, "\r\n\r\n");
		if (!body)
			continue;
		length = strcasestr(reply, "\r\ncontent-length:");
		if (!length || length > body) {
			errno = EPROTO;
			die("no content-length in the API's reply");
		}
		wanted = (body + 4 - reply) +
			 strtoul(length + strlen("\r\ncontent-length:"), NULL, 10);
	}
	return atoi(reply + strlen("HTTP/1.1 "));
}

static bool flip(int fd, const char *app, const char *version)
{
	char body[512], request[1024];
	int n;

	n = snprintf(body, sizeof(body), "{\"version\":\"%s\"}", version);
	n = snprintf(request, sizeof(request),
		     "POST /v1/apps/%s/flip HTTP/1.1\r\nHost: d\r\n"
		     "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		     app, n, body);
	if (write(fd, request, n) != n)
		die("the API's connection");
	return read_reply(fd) == 200;
}

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

int main(int argc, char **argv)
{
	struct counts counts[READERS_MAX] = {0}, sum = {0};
	pthread_t threads[READERS_MAX];
	unsigned long flips, refused = 0;
	int fd, readers;
	double start;

	if (argc != 8) {
		fprintf(stderr,
			"usage: flip-readers SOCKET APPS APP A B READERS FLIPS\n");
		return 2;
	}
	snprintf(current, sizeof(current), "%s/%s/current", argv[2], argv[3]);
	versions[0] = argv[4];
	versions[1] = argv[5];
	readers = atoi(argv[6]);
	flips = strtoul(argv[7], NULL, 10);
	if (readers < 1 || readers > READERS_MAX)
		return 2;

	fd = connect_to(argv[1]);
	for (int i = 0; i < readers; i++)
		if (pthread_create(&threads[i], NULL, read_without_pause, &counts[i]))
			die("a thread");
	start = now_ms();
	for (unsigned long i = 1; i <= flips; i++) {
		atomic_store(&asked, i);
		if (!flip(fd, argv[3], versions[i % 2]))
			refused++;
		atomic_store(&settled, i);
	}
	start = now_ms() - start;
	atomic_store(&stop, true);
	for (int i = 0; i < readers; i++) {
		pthread_join(threads[i], NULL);
		sum.reads += counts[i].reads;
		sum.failed += counts[i].failed;
		sum.stale += counts[i].stale;
		sum.mixed += counts[i].mixed;
	}
	printf("{\"flips\": %lu, \"reads\": %lu, \"failed\": %lu, \"stale\": %lu, "
	       "\"mixed\": %lu, \"mean_ms\": %.3f}\n",
	       flips, sum.reads, sum.failed + refused, sum.stale, sum.mixed,
	       start / flips);
	return 0;
}

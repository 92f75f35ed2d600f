/* SPDX-License-Identifier: Apache-2.0 */
/*
 * store_make.c - a store with many versions, as imports would have made it
 *
 *   store-make STORE APPS VERSIONS [FILES [FILES-A-DIRECTORY]]
 *
 * app-0000 to app-NNNN; the versions of app-0007 are 7.0 to 7.N, and it is flipped to the
 * first and then to the last. Each version has 'stamp' and 'twin', which flip-readers
 * wants, 'bin/run', which all versions of an application share, and FILES more below
 * 'data/'. Runs the code of the daemon and of its jobs, one version after the other, on a
 * store that nobody has open; what is there already stays.
 *
 * Nothing is durable before the end: see fsync().
 */
#include "import.h"
#include "store.h"

#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TAR_BLOCK 512

/* In place of libc's, for SQLite too: 50,000 versions would wait for the disk for hours.
 */
int fsync(int fd)
{
	return 0;
}

int fdatasync(int fd)
{
	return 0;
}

int syncfs(int fd)
{
	return 0;
}

static void die(const char *what, const char *why)
{
	fprintf(stderr, "store-make: %s: %s\n", what, why);
	exit(1);
}

/* Octal digits up to the field's last byte, which stays 0. */
static void octal(char *field, size_t size, uint64_t value)
{
	for (size_t i = size - 1; i > 0; i--, value /= 8)
		field[i - 1] = (char)('0' + value % 8);
}

static void tar_add(FILE *tar, const char *name, unsigned mode, const char *data)
{
	char header[TAR_BLOCK] = "", rest[TAR_BLOCK] = "";
	size_t size = strlen(data);
	unsigned sum = 0;

	snprintf(header, 100, "%s", name);
	octal(header + 100, 8, mode);
	octal(header + 108, 8, 0);
	octal(header + 116, 8, 0);
	octal(header + 124, 12, size);
	octal(header + 136, 12, 1700000000);
	memset(header + 148, ' ', 8);
	header[156] = '0';
	memcpy(header + 257, "ustar\00000", 8);
	for (size_t i = 0; i < sizeof(header); i++)
		sum += (unsigned char)header[i];
	octal(header + 148, 7, sum);
	fwrite(header, sizeof(header), 1, tar);
	fwrite(data, size, 1, tar);
	fwrite(rest, (TAR_BLOCK - size % TAR_BLOCK) % TAR_BLOCK, 1, tar);
}

/* What is to be made. */
struct plan {
	const char *store;
	unsigned apps, versions, files, files_a_directory;
};

static void write_package(FILE *tar, const struct plan *plan, const char *app,
			  const char *version)
{
	static const char end[2 * TAR_BLOCK];
	char name[100], text[200];

	snprintf(text, sizeof(text), "%s\n", version);
	tar_add(tar, "stamp", 0644, text);
	tar_add(tar, "twin", 0644, text);
	snprintf(text, sizeof(text), "#!/bin/sh\necho %s\n", app);
	tar_add(tar, "bin/run", 0755, text);
	for (unsigned i = 0; i < plan->files; i++) {
		snprintf(name, sizeof(name), "data/%04u/file-%07u.txt",
			 i / plan->files_a_directory, i);
		snprintf(text, sizeof(text), "%s %s %u\n", app, version, i);
		tar_add(tar, name, 0644, text);
	}
	fwrite(end, sizeof(end), 1, tar);
}

static int make_archive(const struct plan *plan, const char *app, const char *version,
			uint64_t *ret_size)
{
	int fd = open(plan->store, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	FILE *tar = fd < 0 ? NULL : fdopen(fcntl(fd, F_DUPFD_CLOEXEC, 0), "w");

	if (!tar)
		die(plan->store, strerror(errno));
	write_package(tar, plan, app, version);
	if (fclose(tar))
		die("the archive", strerror(errno));
	*ret_size = (uint64_t)lseek(fd, 0, SEEK_CUR);
	lseek(fd, 0, SEEK_SET);
	return fd;
}

static void sum_archive(int fd, uint64_t size, unsigned char ret[static SHA256_SIZE])
{
	void *bytes = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	struct sha256 *sum = sha256_new();

	if (bytes == MAP_FAILED || !sum)
		die("the archive", strerror(errno));
	sha256_update(sum, bytes, size);
	sha256_final(sum, ret);
	sha256_free(sum);
	munmap(bytes, size);
}

static void ignore_progress(void *context, uint64_t bytes, uint64_t total)
{
}

static void ignore_warning(void *context, const char *text)
{
}

static void import(struct store *store, const struct plan *plan, const char *app,
		   const char *name)
{
	static const struct import_watch watch = {ignore_progress, ignore_warning, NULL};
	cleanup(change_list_done) struct change_list changes = {0};
	cleanup(fd_close) int archive = -1, pack = -1;
	struct version version = {.verified = "off", .imported_by = "root"};
	struct import_request request = {0};
	struct import_result result;
	struct error err = {0};
	char path[4096];

	archive = make_archive(plan, app, name, &request.archive_size);
	pack = open(store_path(store, "tmp/store-make.pack", path),
		    O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (pack < 0)
		die(path, strerror(errno));
	request.archive.fd = archive;
	request.pack_fd = pack;
	if (import_package(store, &request, &watch, &result, &err) < 0)
		die(name, err.text);
	snprintf(version.app, sizeof(version.app), "%s", app);
	snprintf(version.name, sizeof(version.name), "%s", name);
	sum_archive(archive, request.archive_size, version.sha256);
	version.package_bytes = request.archive_size;
	version.unpacked_bytes = result.unpacked;
	version.files = result.files;
	version.imported_ns = clock_wall_ns();
	if (store_adopt(store, pack, "store-make.pack", &version, &err) < 0 ||
	    store_add(store, &version, &changes, &err) < 0 ||
	    store_index(store, &err) < 0)
		die(name, err.text);
}

static void flip(struct store *store, const char *app, const char *version)
{
	cleanup(change_list_done) struct change_list changes = {0};
	struct error err = {0};
	struct flip flip;

	if (catalog_flip(store->catalog, app, CHANNEL_DEFAULT, version, "root", "", NULL,
			 &flip, &changes, &err) < 0)
		die(app, err.text);
}

static void make_app(struct store *store, const struct plan *plan, unsigned number)
{
	char app[32], version[32];

	snprintf(app, sizeof(app), "app-%04u", number);
	for (unsigned i = 0; i < plan->versions; i++) {
		snprintf(version, sizeof(version), "%u.%u", number, i);
		import(store, plan, app, version);
		if (i == 0)
			flip(store, app, version);
	}
	if (plan->versions > 1)
		flip(store, app, version);
}

static void make(const struct plan *plan)
{
	struct store *store;
	struct error err = {0};
	char path[4096];
	int fd;

	if (store_open(plan->store, STORE_OWN, &store, &err) < 0)
		die(plan->store, err.text);
	for (unsigned i = 0; i < plan->apps; i++)
		make_app(store, plan, i);
	/* As a daemon does at its end. */
	if (catalog_backup(store->catalog, store_path(store, "catalog.bak", path), &err) <
	    0)
		die(path, err.text);
	store_close(store);
	fd = open(plan->store, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || syscall(SYS_syncfs, fd) < 0)
		die(plan->store, strerror(errno));
	close(fd);
}

static unsigned number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 10);

	if (!*text || *end || value == 0 || value > 10000000)
		die(text, "not a number from 1 on");
	return (unsigned)value;
}

int main(int argc, char **argv)
{
	struct plan plan = {0};

	if (argc < 4 || argc > 6) {
		fprintf(stderr, "usage: store-make STORE APPS VERSIONS"
				" [FILES [FILES-A-DIRECTORY]]\n");
		return 2;
	}
	setlocale(LC_ALL, "C.UTF-8");
	plan.store = argv[1];
	plan.apps = number(argv[2]);
	plan.versions = number(argv[3]);
	plan.files = argc > 4 ? number(argv[4]) : 0;
	plan.files_a_directory = argc > 5 ? number(argv[5]) : 1000;
	make(&plan);
	return 0;
}

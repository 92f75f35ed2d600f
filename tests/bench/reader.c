/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reader.c - read as programs do, and say how long it took
 *
 *   bench-reader find ROOT [THREADS]           each entry's attributes, as find -printf
 * does bench-reader cat ROOT [THREADS]            the same, and each file from begin to
 * end bench-reader list FILE ROOT [THREADS]      the files below ROOT that FILE names, a
 * line each bench-reader touch FILE ROOT [THREADS]     the same through mmap(2), a byte
 * of each page bench-reader seq FILE                      one file from begin to end
 *   bench-reader random FILE COUNT SEED [THREADS]   COUNT times 4 KiB from anywhere in it
 *   bench-reader resident FILE...              how much of them is in the page cache
 *
 * THREADS is 1 where it is not given. Prints a JSON object: ns, files, bytes. A file that
 * cannot be read ends it with exit code 1: what failed would count as fast.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
	THREADS_MAX = 64,
	BUFFER_SIZE = 1 << 20, /* beyond what a read returns faster; cat's is 128 KiB */
	PAGE_SIZE = 4096
};

/* What all threads of one run share. */
static struct {
	bool read;        /* files too, not only their attributes */
	bool map;         /* by mmap(2) */
	const char *root; /* "list", "touch" */

	pthread_mutex_t lock;
	pthread_cond_t more;
	char **waiting; /* paths of directories, the next one last */
	size_t waits, room;
	unsigned busy; /* threads that may still find directories */

	char **paths; /* "list", "touch" */
	size_t path_count;
	atomic_size_t next;

	int fd; /* "random" */
	uint64_t pages, count, seed;

	atomic_ulong files, bytes;
} run = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "bench-reader: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void *allocate(void *old, size_t size)
{
	void *new = realloc(old, size);

	if (!new)
		die("memory");
	return new;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static char *join(const char *folder, const char *name)
{
	char *path;

	if (asprintf(&path, "%s/%s", folder, name) < 0)
		die("memory");
	return path;
}

static void read_all(int dir, const char *name, char *buffer)
{
	int fd = openat(dir, name, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		die(name);
	while ((n = read(fd, buffer, BUFFER_SIZE)) > 0)
		atomic_fetch_add(&run.bytes, n);
	if (n < 0)
		die(name);
	close(fd);
}

static void map_all(int dir, const char *name)
{
	int fd = openat(dir, name, O_RDONLY);
	const volatile char *map;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		die(name);
	if (st.st_size > 0) {
		map = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
		if (map == MAP_FAILED)
			die(name);
		for (off_t at = 0; at < st.st_size; at += PAGE_SIZE)
			(void)map[at];
		munmap((void *)map, st.st_size);
	}
	atomic_fetch_add(&run.bytes, st.st_size);
	close(fd);
}

static void read_one(int dir, const char *name, char *buffer)
{
	if (run.map)
		map_all(dir, name);
	else
		read_all(dir, name, buffer);
	atomic_fetch_add(&run.files, 1);
}

/* -- trees --------------------------------------------------------------------------- */

/* Takes @paths: they come out in their order, before what waits already, as find does it.
 */
static void push(char **paths, size_t count)
{
	pthread_mutex_lock(&run.lock);
	if (run.waits + count > run.room) {
		run.room = 2 * (run.waits + count);
		run.waiting = allocate(run.waiting, run.room * sizeof(*run.waiting));
	}
	while (count)
		run.waiting[run.waits++] = paths[--count];
	pthread_cond_broadcast(&run.more);
	pthread_mutex_unlock(&run.lock);
	free(paths);
}

/* A directory's path; NULL when there will be none any more. */
static char *pull(void)
{
	char *path = NULL;

	pthread_mutex_lock(&run.lock);
	run.busy--;
	while (!run.waits && run.busy)
		pthread_cond_wait(&run.more, &run.lock);
	if (run.waits) {
		path = run.waiting[--run.waits];
		run.busy++;
	} else {
		pthread_cond_broadcast(&run.more);
	}
	pthread_mutex_unlock(&run.lock);
	return path;
}

static void walk_one(const char *path, char *buffer)
{
	DIR *dir = opendir(path);
	size_t count = 0, room = 0;
	char **below = NULL;
	struct dirent *entry;
	struct stat st;

	if (!dir)
		die(path);
	while ((entry = readdir(dir))) {
		const char *name = entry->d_name;

		if (!strcmp(name, ".") || !strcmp(name, ".."))
			continue;
		if (fstatat(dirfd(dir), name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			die(name);
		if (S_ISDIR(st.st_mode)) {
			if (count == room) {
				room = room ? 2 * room : 16;
				below = allocate(below, room * sizeof(*below));
			}
			below[count++] = join(path, name);
		} else if (run.read && S_ISREG(st.st_mode)) {
			read_one(dirfd(dir), name, buffer);
		} else {
			atomic_fetch_add(&run.files, 1);
		}
	}
	closedir(dir);
	push(below, count);
}

static void *walk(void *unused)
{
	char *buffer = allocate(NULL, BUFFER_SIZE);
	char *path;

	while ((path = pull())) {
		walk_one(path, buffer);
		free(path);
	}
	free(buffer);
	return NULL;
}

/* -- lists of files -------------------------------------------------------------------
 */

static void load_list(const char *file)
{
	FILE *stream = fopen(file, "r");
	size_t room = 0, size = 0;
	char *line = NULL;
	ssize_t n;

	if (!stream)
		die(file);
	while ((n = getline(&line, &size, stream)) > 0) {
		if (run.path_count == room) {
			room = room ? 2 * room : 1024;
			run.paths = allocate(run.paths, room * sizeof(*run.paths));
		}
		line[n - 1] = '\0';
		run.paths[run.path_count++] = join(run.root, line);
	}
	free(line);
	fclose(stream);
}

static void *read_list(void *unused)
{
	char *buffer = allocate(NULL, BUFFER_SIZE);
	size_t i;

	while ((i = atomic_fetch_add(&run.next, 1)) < run.path_count)
		read_one(AT_FDCWD, run.paths[i], buffer);
	free(buffer);
	return NULL;
}

/* -- one file -------------------------------------------------------------------------
 */

/* splitmix64: the same pages for the same seed, whoever reads them. */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static void open_pages(const char *file)
{
	struct stat st;

	run.fd = open(file, O_RDONLY);
	if (run.fd < 0 || fstat(run.fd, &st) < 0)
		die(file);
	run.pages = st.st_size / PAGE_SIZE;
	if (!run.pages) {
		errno = ENODATA;
		die(file);
	}
}

static void *read_random(void *unused)
{
	char page[PAGE_SIZE];
	uint64_t i;

	while ((i = atomic_fetch_add(&run.next, 1)) < run.count) {
		uint64_t at = mix(run.seed + i) % run.pages;

		if (pread(run.fd, page, PAGE_SIZE, at * PAGE_SIZE) != PAGE_SIZE)
			die("pread");
		atomic_fetch_add(&run.bytes, PAGE_SIZE);
	}
	return NULL;
}

static void *read_sequential(void *file)
{
	char *buffer = allocate(NULL, BUFFER_SIZE);

	read_one(AT_FDCWD, file, buffer);
	free(buffer);
	return NULL;
}

/* Mapping a file brings nothing of it into memory. */
static void show_resident(char **files)
{
	uint64_t resident = 0, total = 0;

	for (; *files; files++) {
		int fd = open(*files, O_RDONLY);
		unsigned char *pages;
		struct stat st;
		size_t count;
		void *map;

		if (fd < 0 || fstat(fd, &st) < 0)
			die(*files);
		count = (st.st_size + PAGE_SIZE - 1) / PAGE_SIZE;
		total += count;
		if (count) {
			pages = allocate(NULL, count);
			map = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
			if (map == MAP_FAILED || mincore(map, st.st_size, pages) < 0)
				die(*files);
			for (size_t i = 0; i < count; i++)
				resident += pages[i] & 1;
			munmap(map, st.st_size);
			free(pages);
		}
		close(fd);
	}
	printf("{\"resident\": %lu, \"total\": %lu}\n", resident * PAGE_SIZE,
	       total * PAGE_SIZE);
}

/* -- main ------------------------------------------------------------------------------
 */

static void measure(void *(*work)(void *), void *argument, unsigned count)
{
	pthread_t threads[THREADS_MAX];
	uint64_t begin = now_ns();

	for (unsigned i = 0; i < count; i++) {
		errno = pthread_create(&threads[i], NULL, work, argument);
		if (errno)
			die("a thread");
	}
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
	printf("{\"ns\": %lu, \"files\": %lu, \"bytes\": %lu}\n", now_ns() - begin,
	       run.files, run.bytes);
}

/* The number of threads in the argument that may be missing; 0 for a bad one. */
static unsigned thread_count(const char *text)
{
	unsigned long count = text ? strtoul(text, NULL, 10) : 1;

	return count <= THREADS_MAX ? count : 0;
}

static bool read_tree(int argc, char **argv)
{
	unsigned count = argc <= 4 ? thread_count(argv[3]) : 0;
	char **root = allocate(NULL, sizeof(*root));

	if (!count)
		return false;
	*root = strdup(argv[2]);
	run.read = !strcmp(argv[1], "cat");
	run.busy = count;
	push(root, 1);
	measure(walk, NULL, count);
	return true;
}

static bool read_named(int argc, char **argv)
{
	unsigned count = argc == 4 || argc == 5 ? thread_count(argv[4]) : 0;

	if (!count)
		return false;
	run.root = argv[3];
	run.map = !strcmp(argv[1], "touch");
	load_list(argv[2]);
	measure(read_list, NULL, count);
	return true;
}

static bool read_pages(int argc, char **argv)
{
	unsigned count = argc == 5 || argc == 6 ? thread_count(argv[5]) : 0;

	if (!count)
		return false;
	run.count = strtoull(argv[3], NULL, 10);
	run.seed = strtoull(argv[4], NULL, 10);
	open_pages(argv[2]);
	measure(read_random, NULL, count);
	return true;
}

static bool do_work(int argc, char **argv)
{
	if (argc < 3)
		return false;
	if (!strcmp(argv[1], "find") || !strcmp(argv[1], "cat"))
		return read_tree(argc, argv);
	if (!strcmp(argv[1], "list") || !strcmp(argv[1], "touch"))
		return read_named(argc, argv);
	if (!strcmp(argv[1], "random"))
		return read_pages(argc, argv);
	if (!strcmp(argv[1], "seq") && argc == 3)
		measure(read_sequential, argv[2], 1);
	else if (!strcmp(argv[1], "resident"))
		show_resident(argv + 2);
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	if (do_work(argc, argv))
		return 0;
	fprintf(stderr, "usage: bench-reader find|cat ROOT [THREADS]\n"
			"       bench-reader list|touch FILE ROOT [THREADS]\n"
			"       bench-reader random FILE COUNT SEED [THREADS]\n"
			"       bench-reader seq FILE\n"
			"       bench-reader resident FILE...\n");
	return 2;
}

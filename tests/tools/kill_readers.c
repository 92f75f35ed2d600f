/* SPDX-License-Identifier: Apache-2.0 */
/*
 * kill_readers.c - read, map, execute and walk without pause, and check every call
 *
 *   kill-readers make FOLDER SEED DIRECTORIES FILES    write the tree of one version
 *   kill-readers run APP READERS                       read below APP until stdin ends
 *   kill-readers answer                                exit with ANSWER: it was executed
 *
 * What must be in a tree follows from its names alone:
 *
 *   SEED.SIZE.data   SIZE bytes that only this SEED gives
 *   dir.COUNT        a directory of COUNT entries
 *   N.link           a symlink to "to-N.link"
 *   tool             this program, to be executed
 *
 * The readers choose an entry of APP (a version, or a symlink to one), open it once and
 * go down from there, so that a flip in between takes nothing away. Page caches are given
 * back after each file; who drops the dentries is the caller.
 *
 * The last line of stdout is a JSON object: calls, failed, wrong; stuck: calls that had
 * not returned 20 s after the end; worst_ms of one call; control_ms: how late a thread
 * that only sleeps was woken at worst; slow: [start, duration] of calls of more than
 * SLOW_MS, in milliseconds of CLOCK_MONOTONIC. Exit code 0 whatever was counted.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	ANSWER = 42,
	READERS_MAX = 64,
	FILE_MAX = 1 << 20,
	NAMES_MAX = 256,
	SLOW_MAX = 20000,
	TOLD_MAX = 20, /* failures that each reader describes */
	PATIENCE_S = 20,
};
#define SLOW_MS 3.0

struct slow {
	double start_ms, ms;
};

struct reader {
	pthread_t thread;
	unsigned random;
	unsigned long calls, failed, wrong, told;
	double worst_ms;
	_Atomic double since_ms; /* of the call that is under way; 0: none is */
	const char *_Atomic what;
	struct slow slow[SLOW_MAX];
	size_t slow_count;
	char data[FILE_MAX], expected[FILE_MAX];
};

struct names {
	char names[NAMES_MAX][64];
	size_t count;
};

static struct reader *readers;
static const char *app;
static atomic_bool stop;
static _Thread_local sigjmp_buf bus;

static void die(const char *what)
{
	fprintf(stderr, "kill-readers: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* -- what must be there */

static void pattern_fill(uint64_t seed, char *to, size_t size)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;

	for (size_t at = 0; at < size; at += sizeof(x)) {
		size_t left = size - at;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(to + at, &x, left < sizeof(x) ? left : sizeof(x));
	}
}

static bool ends_with(const char *name, const char *end)
{
	size_t length = strlen(name), needed = strlen(end);

	return length >= needed && !strcmp(name + length - needed, end);
}

/* -- counting */

static void call_begin(struct reader *r, const char *what)
{
	r->calls++;
	atomic_store(&r->what, what);
	atomic_store(&r->since_ms, now_ms());
}

static void call_end(struct reader *r)
{
	double start_ms = atomic_load(&r->since_ms), ms = now_ms() - start_ms;

	atomic_store(&r->since_ms, 0);
	if (ms > r->worst_ms)
		r->worst_ms = ms;
	if (ms > SLOW_MS && r->slow_count < SLOW_MAX)
		r->slow[r->slow_count++] = (struct slow){start_ms, ms};
}

static void tell(struct reader *r, const char *problem, const char *what,
		 const char *where, const char *name, int number)
{
	if (r->told++ < TOLD_MAX)
		fprintf(stderr, "%.3f %s: %s %s/%s: %s\n", now_ms() / 1e3, problem, what,
			where, name, number ? strerror(number) : "");
}

static void failed(struct reader *r, const char *what, const char *where,
		   const char *name)
{
	r->failed++;
	tell(r, "failed", what, where, name, errno);
}

static void wrong(struct reader *r, const char *what, const char *where, const char *name)
{
	r->wrong++;
	tell(r, "wrong", what, where, name, 0);
}

/* -- the calls */

static int open_checked(struct reader *r, int dir, const char *where, const char *name,
			int flags)
{
	int fd;

	call_begin(r, "open");
	fd = openat(dir, name, flags | O_CLOEXEC);
	call_end(r);
	if (fd < 0)
		failed(r, "open", where, name);
	return fd;
}

static void check(struct reader *r, const char *what, const char *where, const char *name,
		  const char *data, size_t size)
{
	uint64_t seed = strtoull(name, NULL, 10);

	pattern_fill(seed, r->expected, size);
	if (memcmp(data, r->expected, size))
		wrong(r, what, where, name);
}

static size_t size_of(const char *name)
{
	const char *dot = strchr(name, '.');
	size_t size = dot ? strtoul(dot + 1, NULL, 10) : 0;

	return size < FILE_MAX ? size : FILE_MAX;
}

static void read_file(struct reader *r, int fd, const char *where, const char *name)
{
	size_t size = size_of(name), got = 0;
	ssize_t n;

	do {
		call_begin(r, "read");
		n = read(fd, r->data + got, size - got < 65536 ? size - got : 65536);
		call_end(r);
		got += n > 0 ? (size_t)n : 0;
	} while (n > 0 && got < size);
	if (n < 0)
		failed(r, "read", where, name);
	else if (got != size)
		wrong(r, "size", where, name);
	else
		check(r, "read", where, name, r->data, size);
}

static void on_bus(int number)
{
	siglongjmp(bus, 1);
}

static void map_file(struct reader *r, int fd, const char *where, const char *name)
{
	size_t size = size_of(name);
	char *data;

	if (size == 0)
		return;
	data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED) {
		failed(r, "mmap", where, name);
		return;
	}
	call_begin(r, "page fault");
	if (sigsetjmp(bus, 1) == 0) {
		memcpy(r->data, data, size);
		call_end(r);
		check(r, "mmap", where, name, r->data, size);
	} else {
		call_end(r);
		errno = EFAULT;
		failed(r, "page fault", where, name);
	}
	munmap(data, size);
}

static void use_file(struct reader *r, int dir, const char *where, const char *name)
{
	int fd = open_checked(r, dir, where, name, O_RDONLY);

	if (fd < 0)
		return;
	if (rand_r(&r->random) % 2)
		read_file(r, fd, where, name);
	else
		map_file(r, fd, where, name);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
}

static void use_link(struct reader *r, int dir, const char *where, const char *name)
{
	char target[128], expected[128];
	ssize_t n;

	call_begin(r, "readlink");
	n = readlinkat(dir, name, target, sizeof(target) - 1);
	call_end(r);
	if (n < 0) {
		failed(r, "readlink", where, name);
		return;
	}
	target[n] = '\0';
	snprintf(expected, sizeof(expected), "to-%s", name);
	if (strcmp(target, expected))
		wrong(r, "readlink", where, name);
}

static void use_stat(struct reader *r, int dir, const char *where, const char *name)
{
	struct stat st;
	int result;

	call_begin(r, "stat");
	result = fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW);
	call_end(r);
	if (result < 0)
		failed(r, "stat", where, name);
	else if (ends_with(name, ".data") && (size_t)st.st_size != size_of(name))
		wrong(r, "stat", where, name);
}

/* Executing is a reader of its own kind: page faults of a process that has just begun. */
static void use_tool(struct reader *r, int dir, const char *where)
{
	char path[64], name[] = "tool", answer[] = "answer";
	char *argv[] = {name, answer, NULL}, *environment[] = {NULL};
	int status = 0, error;
	pid_t pid;

	snprintf(path, sizeof(path), "/proc/self/fd/%d/tool", dir);
	call_begin(r, "exec");
	error = posix_spawn(&pid, path, NULL, NULL, argv, environment);
	if (error == 0)
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
	call_end(r);
	if (error) {
		errno = error;
		failed(r, "exec", where, "tool");
	} else if (!WIFEXITED(status)) {
		errno = EFAULT;
		failed(r, "exec", where, "tool");
	} else if (WEXITSTATUS(status) != ANSWER) {
		wrong(r, "exec", where, "tool");
	}
}

static bool list(struct reader *r, int dir, const char *where, const char *name,
		 struct names *ret)
{
	int fd = open_checked(r, dir, where, name, O_RDONLY | O_DIRECTORY);
	DIR *listing = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	ret->count = 0;
	if (!listing)
		return false;
	do {
		call_begin(r, "readdir");
		errno = 0;
		entry = readdir(listing);
		call_end(r);
		if (entry && entry->d_name[0] != '.' && ret->count < NAMES_MAX)
			snprintf(ret->names[ret->count++], sizeof(ret->names[0]), "%.63s",
				 entry->d_name);
	} while (entry);
	if (errno)
		failed(r, "readdir", where, name);
	closedir(listing);
	return ret->count > 0;
}

static const char *choose(struct reader *r, const struct names *names)
{
	return names->names[(size_t)rand_r(&r->random) % names->count];
}

static void use_directory(struct reader *r, int version, const char *where,
			  const char *name)
{
	size_t expected = strtoul(strchr(name, '.') + 1, NULL, 10);
	struct names names;
	int dir;

	if (!list(r, version, where, name, &names))
		return;
	if (names.count != expected)
		wrong(r, "listing", where, name);
	dir = open_checked(r, version, where, name, O_PATH | O_DIRECTORY);
	if (dir < 0)
		return;
	for (int i = 0; i < 8 && !atomic_load(&stop); i++) {
		const char *one = choose(r, &names);

		use_stat(r, dir, where, one);
		if (ends_with(one, ".link"))
			use_link(r, dir, where, one);
		else
			use_file(r, dir, where, one);
	}
	close(dir);
}

static void use_version(struct reader *r, int dir, const char *where)
{
	struct names names;
	const char *name;

	if (!list(r, dir, where, ".", &names))
		return;
	name = choose(r, &names);
	if (!strcmp(name, "tool"))
		use_tool(r, dir, where);
	else if (ends_with(name, ".data"))
		use_file(r, dir, where, name);
	else if (strncmp(name, "dir.", 4) == 0 || strchr(name, '.'))
		use_directory(r, dir, where, name);
}

static void *reader_main(void *context)
{
	struct reader *r = context;
	struct timespec breath = {0, 300000};
	struct names versions;

	while (!atomic_load(&stop)) {
		const char *version;
		int dir;

		if (!list(r, AT_FDCWD, "", app, &versions))
			continue;
		version = choose(r, &versions);
		dir = open(app, O_PATH | O_DIRECTORY | O_CLOEXEC);
		if (dir >= 0) {
			int top =
				open_checked(r, dir, app, version, O_PATH | O_DIRECTORY);

			for (int i = 0; top >= 0 && i < 6 && !atomic_load(&stop); i++) {
				use_version(r, top, version);
				nanosleep(&breath, NULL);
			}
			close(top);
			close(dir);
		}
	}
	return NULL;
}

/* How late the machine itself is. */
static void *control_main(void *context)
{
	double *worst_ms = context;
	struct timespec pause = {0, 1000000};

	while (!atomic_load(&stop)) {
		double start_ms = now_ms(), late_ms;

		nanosleep(&pause, NULL);
		late_ms = now_ms() - start_ms - 1;
		if (late_ms > *worst_ms)
			*worst_ms = late_ms;
	}
	return NULL;
}

/* -- results */

static unsigned join(unsigned count)
{
	unsigned stuck = 0;
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	for (unsigned i = 0; i < count; i++) {
		if (!pthread_timedjoin_np(readers[i].thread, NULL, &until))
			continue;
		stuck++;
		fprintf(stderr, "stuck: %s for %.0f ms\n", atomic_load(&readers[i].what),
			now_ms() - atomic_load(&readers[i].since_ms));
	}
	return stuck;
}

static void report(unsigned count, unsigned stuck, double control_ms)
{
	unsigned long calls = 0, failures = 0, wrongs = 0;
	double worst_ms = 0;
	const char *comma = "";

	for (unsigned i = 0; i < count; i++) {
		calls += readers[i].calls;
		failures += readers[i].failed;
		wrongs += readers[i].wrong;
		if (readers[i].worst_ms > worst_ms)
			worst_ms = readers[i].worst_ms;
	}
	printf("{\"calls\": %lu, \"failed\": %lu, \"wrong\": %lu, \"stuck\": %u, "
	       "\"worst_ms\": %.1f, \"control_ms\": %.1f, \"slow\": [",
	       calls, failures, wrongs, stuck, worst_ms, control_ms);
	for (unsigned i = 0; i < count; i++)
		for (size_t j = 0; j < readers[i].slow_count; j++) {
			printf("%s[%.1f, %.1f]", comma, readers[i].slow[j].start_ms,
			       readers[i].slow[j].ms);
			comma = ", ";
		}
	puts("]}");
}

static int run(unsigned count)
{
	double control_ms = 0;
	pthread_t control;
	unsigned stuck;
	char byte;

	readers = calloc(count, sizeof(*readers));
	if (!readers)
		die("readers");
	sigaction(SIGBUS, &(struct sigaction){.sa_handler = on_bus}, NULL);
	if (pthread_create(&control, NULL, control_main, &control_ms))
		die("a thread");
	for (unsigned i = 0; i < count; i++) {
		readers[i].random = (unsigned)getpid() * 31 + i;
		if (pthread_create(&readers[i].thread, NULL, reader_main, &readers[i]))
			die("a thread");
	}
	puts("reading");
	fflush(stdout);
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	atomic_store(&stop, true);
	stuck = join(count);
	pthread_join(control, NULL);
	report(count, stuck, control_ms);
	fflush(stdout);
	_exit(0); /* a stuck thread would keep exit() waiting */
}

/* -- a tree */

static void write_file(const char *path, const void *data, size_t size, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size || close(fd) < 0)
		die(path);
}

static void copy_self(const char *folder)
{
	char path[PATH_MAX];
	size_t size = 4 << 20;
	void *data = malloc(size);
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	ssize_t got = data && fd >= 0 ? read(fd, data, size) : -1;

	if (got <= 0)
		die("/proc/self/exe");
	snprintf(path, sizeof(path), "%s/tool", folder);
	write_file(path, data, (size_t)got, 0755);
	free(data);
	close(fd);
}

static void make_directory(const char *folder, uint64_t seed, unsigned number,
			   unsigned files)
{
	static char data[FILE_MAX];
	char dir[PATH_MAX], path[PATH_MAX + 64], target[64];

	snprintf(dir, sizeof(dir), "%s/dir%u.%u", folder, number, files + 2);
	if (mkdir(dir, 0755) < 0)
		die(dir);
	for (unsigned i = 0; i < files; i++) {
		uint64_t one = seed * 1000000 + number * 1000 + i;
		size_t size = i % 16 == 15 ? 300000 : (one * 7919) % 20000;

		pattern_fill(one, data, size);
		snprintf(path, sizeof(path), "%s/%llu.%zu.data", dir,
			 (unsigned long long)one, size);
		write_file(path, data, size, 0644);
	}
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/%u.link", dir, i);
		snprintf(target, sizeof(target), "to-%u.link", i);
		if (symlink(target, path) < 0)
			die(path);
	}
}

static int make(const char *folder, uint64_t seed, unsigned directories, unsigned files)
{
	if (mkdir(folder, 0755) < 0)
		die(folder);
	copy_self(folder);
	for (unsigned i = 0; i < directories; i++)
		make_directory(folder, seed, i, files);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "answer"))
		return ANSWER;
	if (argc == 6 && !strcmp(argv[1], "make"))
		return make(argv[2], strtoull(argv[3], NULL, 10), (unsigned)atoi(argv[4]),
			    (unsigned)atoi(argv[5]));
	if (argc == 4 && !strcmp(argv[1], "run") && atoi(argv[3]) > 0 &&
	    atoi(argv[3]) <= READERS_MAX) {
		app = argv[2];
		return run((unsigned)atoi(argv[3]));
	}
	fputs("usage: kill-readers make FOLDER SEED DIRECTORIES FILES | run APP READERS "
	      "| answer\n",
	      stderr);
	return 2;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One test for each archive of tests/integration/bad_archives.py, named after it, and
 * some about what comes out of the good ones.
 *
 * MUTATION_SEED=N and MUTATION_COUNT=N repeat or lengthen the random part.
 */
#include "archive.h"
#include "cleanup.h"
#include "digest.h"
#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <jansson.h>
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define HASHED_SIZE_MAX ((uint64_t)1 << 24) /* larger files come from bombs */

DEFINE_CLEANUP(struct sha256, sha256_free)

static char folder[] = "/tmp/test-archive-XXXXXX";
static json_t *cases; /* index.json */

/* What reading one archive to its end or to its failure gave. */
struct outcome {
	int result; /* 0: read to the end */
	struct error err;
	unsigned entries;
	uint64_t bytes; /* of content, the holes left out */
	char warnings[2048];
	unsigned char sum[SHA256_SIZE]; /* of everything that came out */
};

static void warning_keep(void *context, const char *text)
{
	struct outcome *outcome = context;
	size_t used = strlen(outcome->warnings);

	snprintf(outcome->warnings + used, sizeof(outcome->warnings) - used, "%s\n",
		 text);
}

static void hash_zeros(struct sha256 *sum, uint64_t size)
{
	static const unsigned char zeros[4096];

	while (size > 0) {
		size_t piece = size < sizeof(zeros) ? size : sizeof(zeros);

		sha256_update(sum, zeros, piece);
		size -= piece;
	}
}

/* Holes count as zeros, so that sparse and plain files have one sum. */
static int read_content(struct archive_reader *reader, const struct archive_item *item,
			struct sha256 *sum, struct outcome *outcome)
{
	const void *data;
	uint64_t offset, end = 0;
	size_t size;
	int r;

	while ((r = archive_read(reader, &data, &size, &offset, &outcome->err)) > 0) {
		assert_true(size > 0);
		assert_true(offset >= end);
		assert_true(offset <= item->size && size <= item->size - offset);
		if (item->size <= HASHED_SIZE_MAX) {
			hash_zeros(sum, offset - end);
			sha256_update(sum, data, size);
		}
		end = offset + size;
		outcome->bytes += size;
	}
	if (r == 0 && item->size <= HASHED_SIZE_MAX)
		hash_zeros(sum, item->size - end);
	return r;
}

static void hash_item(struct sha256 *sum, const struct archive_item *item)
{
	char *line;
	int size =
		asprintf(&line, "%d|%s|%s|%" PRIu64 "|%o|%" PRId64 ".%09u\n", item->type,
			 item->path, item->target ? item->target : "", item->size,
			 (unsigned)item->mode, item->mtime_s, item->mtime_ns);

	assert_true(size > 0);
	sha256_update(sum, line, (size_t)size);
	free(line);
}

static void check_item(const struct archive_item *item)
{
	assert_non_null(item->path);
	assert_true(item->path[0] != '/');
	assert_null(strstr(item->path, "//"));
	assert_int_equal(item->mode & ~0777u, 0);
	assert_true(item->mtime_ns < 1000000000);
	if (item->type == ARCHIVE_TYPE_SYMLINK || item->type == ARCHIVE_TYPE_HARDLINK)
		assert_true(item->target && *item->target);
	else
		assert_null(item->target);
	if (item->type != ARCHIVE_TYPE_FILE)
		assert_int_equal(item->size, 0);
}

static void read_source(const struct archive_source *source, bool content,
			struct outcome *outcome)
{
	cleanup(sha256_free_ptr) struct sha256 *sum = sha256_new();
	struct archive_reader *reader = NULL;
	struct archive_item item;
	int r;

	assert_non_null(sum);
	sha256_reset(sum);
	memset(outcome, 0, sizeof(*outcome));
	r = archive_open(source, warning_keep, outcome, &reader, &outcome->err);
	if (r == 0) {
		while ((r = archive_next(reader, &item, &outcome->err)) > 0) {
			check_item(&item);
			hash_item(sum, &item);
			outcome->entries++;
			if (content && read_content(reader, &item, sum, outcome) < 0)
				break;
		}
		if (r > 0)
			r = outcome->err.code;
		/* A failure is final, and so is the end. */
		assert_int_equal(archive_next(reader, &item, NULL), r);
	} else {
		assert_null(reader);
	}
	archive_close(reader);
	sha256_final(sum, outcome->sum);
	outcome->result = r;
	if (r < 0) {
		assert_int_equal(outcome->err.code, r);
		assert_true(*outcome->err.text);
	}
}

static void read_all(int fd, bool content, struct outcome *outcome)
{
	read_source(&(struct archive_source){.fd = fd}, content, outcome);
}

static int open_case(const char *file)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail_msg("cannot open '%s'", path);
	return fd;
}

static void read_case(const char *file, bool content, struct outcome *outcome)
{
	cleanup(fd_close) int fd = open_case(file);

	read_all(fd, content, outcome);
}

static const char *field(const json_t *one, const char *name)
{
	const char *value = json_string_value(json_object_get(one, name));

	assert_non_null(value);
	return value;
}

/* One archive of the collection. */
static void archive_is_judged_right(void **state)
{
	const json_t *one = *state;
	bool here = strcmp(field(one, "layer"), "manifest") != 0;
	struct outcome outcome;

	read_case(field(one, "file"), true, &outcome);
	if (here && !strcmp(field(one, "expected"), "refused")) {
		if (outcome.result == 0)
			fail_msg("it was accepted");
		assert_int_equal(outcome.result, -EBADMSG);
		if (!strcasestr(outcome.err.text, field(one, "text")))
			fail_msg("refused with \"%s\"", outcome.err.text);
		return;
	}
	if (outcome.result < 0)
		fail_msg("it was refused: %s", outcome.err.text);
	if (here && !strstr(outcome.warnings, field(one, "warning")))
		fail_msg("the warning was \"%s\"", outcome.warnings);
	if (!*field(one, "warning") && *outcome.warnings)
		fail_msg("there was a warning: %s", outcome.warnings);
}

/* The content of a file must be verified by who skips it, too. */
static void archive_is_judged_the_same_without_reading(void **state)
{
	size_t i;
	json_t *one;

	json_array_foreach (cases, i, one) {
		struct outcome read, skipped;

		if (!strcmp(field(one, "layer"), "budget"))
			continue; /* bombs take their time */
		read_case(field(one, "file"), true, &read);
		read_case(field(one, "file"), false, &skipped);
		if (read.result != skipped.result)
			fail_msg("'%s' gave %d and %d", field(one, "name"), read.result,
				 skipped.result);
		assert_string_equal(read.err.text, skipped.err.text);
	}
}

static void same_entries_come_out_of_every_compressor(void **state)
{
	static const char *const files[] = {"good-gz.tar.gz",    "good-bz2.tar.bz2",
					    "good-xz.tar.xz",    "good-zst.tar.zst",
					    "members-gz.tar.gz", "members-zst.tar.zst"};
	struct outcome plain, packed;

	read_case("good-tar.tar", true, &plain);
	assert_int_equal(plain.result, 0);
	assert_int_equal(plain.entries, 7);
	assert_int_equal(plain.bytes, 20 + 20000 + 10500);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		read_case(files[i], true, &packed);
		assert_int_equal(packed.result, 0);
		assert_memory_equal(packed.sum, plain.sum, sizeof(plain.sum));
	}
}

static void same_entries_come_out_of_every_zip(void **state)
{
	static const char *const files[] = {
		"zip-good-stored.zip", "zip-good-streamed.zip", "zip-good-zip64.zip"};
	struct outcome first, other;

	read_case("zip-good.zip", true, &first);
	assert_int_equal(first.entries, 6);
	assert_int_equal(first.bytes, 10 + 20000 + 10500);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		read_case(files[i], true, &other);
		assert_memory_equal(other.sum, first.sum, sizeof(first.sum));
	}
}

static void same_content_comes_out_of_every_sparse_format(void **state)
{
	static const char *const files[] = {"sparse-gnu-1.0.tar", "sparse-gnu-0.1.tar"};
	struct outcome first, other;

	read_case("sparse-gnu-old.tar", true, &first);
	assert_int_equal(first.result, 0);
	assert_int_equal(first.bytes, 30 * 512 + 1);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		read_case(files[i], true, &other);
		assert_int_equal(other.bytes, first.bytes);
		assert_memory_equal(other.sum, first.sum, sizeof(first.sum));
	}
}

/* What a test wants to see of the entries, one a line. */
static void list_case(const char *file, char *text, size_t size)
{
	cleanup(fd_close) int fd = open_case(file);
	struct archive_reader *reader = NULL;
	struct archive_item item;
	struct error err;
	int r;

	*text = '\0';
	assert_int_equal(archive_open(&(struct archive_source){.fd = fd}, NULL, NULL,
				      &reader, &err),
			 0);
	while ((r = archive_next(reader, &item, &err)) > 0)
		snprintf(text + strlen(text), size - strlen(text),
			 "%c%03o %s%s%s %" PRIu64 " %" PRId64 ".%09u\n",
			 "dflh"[item.type], (unsigned)item.mode, item.path,
			 item.target ? " " : "", item.target ? item.target : "",
			 item.size, item.mtime_s, item.mtime_ns);
	assert_int_equal(r, 0);
	assert_true(archive_consumed(reader) > 0);
	archive_close(reader);
}

static void entries_come_out_as_they_were_packed(void **state)
{
	char text[4096];

	list_case("good-tar.tar", text, sizeof(text));
	assert_string_equal(text, "d755 bin 0 1700000000.000000000\n"
				  "f755 bin/run 20 1700000000.000000000\n"
				  "f644 noise 20000 1700000000.000000000\n"
				  "f644 text 10500 1700000000.000000000\n"
				  "l777 link bin/run 0 1700000000.000000000\n"
				  "h644 hard noise 0 1700000000.000000000\n"
				  "f644 empty 0 1700000000.000000000\n");
}

static void leading_dot_is_the_root_and_left_out(void **state)
{
	char text[4096];

	list_case("name-with-dot-slash.tar", text, sizeof(text));
	assert_string_equal(text, "d755  0 1700000000.000000000\n"
				  "d755 a 0 1700000000.000000000\n"
				  "f644 a/b 1 1700000000.000000000\n");
	list_case("hard-link-good.tar", text, sizeof(text));
	assert_non_null(strstr(text, "h644 h f 0"));
}

static void set_uid_is_stripped_from_the_mode(void **state)
{
	char text[4096];

	list_case("setuid.tar", text, sizeof(text));
	assert_non_null(strstr(text, "f755 bin/ping 1 "));
	assert_non_null(strstr(text, "f711 c 1 "));
}

static void odd_times_are_kept(void **state)
{
	char text[4096];

	list_case("mtime-odd.tar", text, sizeof(text));
	assert_string_equal(text, "f644 old 0 -16.000000000\n"
				  "f644 fine 0 1700000000.123456789\n"
				  "f644 before 0 -2.500000000\n"
				  "f644 far 0 99999999999.000000000\n");
}

static void names_are_kept_byte_by_byte(void **state)
{
	static const char *const files[] = {"names-in-many-scripts.tar",
					    "names-in-many-scripts-pax.tar",
					    "zip-names-in-many-scripts.zip"};
	char text[4096];

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		list_case(files[i], text, sizeof(text));
		assert_non_null(strstr(text, " größe "));
		assert_non_null(strstr(text, " 日本語 "));
		assert_non_null(strstr(text, " emoji-🚀 "));
		assert_non_null(strstr(text, " nfc-\u00e9 "));
		assert_non_null(strstr(text, " nfd-e\u0301 "));
	}
	list_case("link-names-in-many-scripts-pax.tar", text, sizeof(text));
	assert_non_null(strstr(text, " l11 nfd-e\u0301 "));
	list_case("zip-symlink-nfd.zip", text, sizeof(text));
	assert_non_null(strstr(text, "l777 l e\u0301 "));
}

static void terabyte_hole_is_passed_over_at_once(void **state)
{
	struct outcome outcome;

	read_case("bomb-terabyte-hole.tar", true, &outcome);
	assert_int_equal(outcome.result, 0);
	assert_int_equal(outcome.bytes, 1);
	read_case("bomb-terabyte-hole-1.0.tar", true, &outcome);
	assert_int_equal(outcome.bytes, 512);
}

static void reader_begins_at_offset_0_and_leaves_the_descriptor_alone(void **state)
{
	cleanup(fd_close) int fd = open_case("good-gz.tar.gz");
	struct outcome outcome;

	assert_int_equal(lseek(fd, 100, SEEK_SET), 100);
	read_all(fd, true, &outcome);
	assert_int_equal(outcome.result, 0);
	assert_int_equal(lseek(fd, 0, SEEK_CUR), 100);
}

static void reading_may_stop_anywhere(void **state)
{
	cleanup(fd_close) int fd = open_case("setuid.tar");
	struct archive_reader *reader = NULL;
	struct archive_item item;
	struct outcome outcome = {0};

	assert_int_equal(archive_open(&(struct archive_source){.fd = fd}, warning_keep,
				      &outcome, &reader, NULL),
			 0);
	assert_int_equal(archive_next(reader, &item, NULL), 1);
	archive_close(reader);
	assert_string_equal(
		outcome.warnings,
		"set-uid or set-gid bits were removed from 1 entry, 'bin/ping' "
		"first\n");
	archive_close(NULL);
}

static void unreadable_file_is_an_error_of_the_system(void **state)
{
	cleanup(fd_close) int fd = open(folder, O_RDONLY | O_CLOEXEC | O_DIRECTORY);
	struct archive_reader *reader = NULL;
	struct error err;

	assert_int_equal(archive_open(&(struct archive_source){.fd = fd}, NULL, NULL,
				      &reader, &err),
			 -EISDIR);
	assert_int_equal(err.code, -EISDIR);
	assert_null(reader);
}

/* --- a file that grows --- */

struct growing {
	uint64_t size;   /* in the end */
	uint64_t end;    /* shown so far */
	uint64_t step;   /* bytes a wait */
	uint64_t broken; /* where the download breaks off; 0: never */
	atomic_uint stopped;
};

static int growing_wait(void *context, uint64_t offset, uint64_t *ret_end,
			struct error *err)
{
	struct growing *file = context;

	while (file->end <= offset && file->end < file->size) {
		if (file->broken && file->end >= file->broken)
			return error_set(err, -ETIMEDOUT, "nothing came");
		file->end += file->step;
	}
	if (file->end > file->size)
		file->end = file->size;
	*ret_end = file->end;
	return 0;
}

static void growing_stop(void *context)
{
	struct growing *file = context;

	atomic_fetch_add(&file->stopped, 1);
}

static void read_growing(const char *name, uint64_t step, uint64_t broken,
			 struct outcome *outcome)
{
	cleanup(fd_close) int fd = open_case(name);
	struct growing file = {.step = step, .broken = broken};
	struct archive_source source = {fd, growing_wait, growing_stop, &file};
	struct stat status;

	assert_int_equal(fstat(fd, &status), 0);
	file.size = (uint64_t)status.st_size;
	read_source(&source, true, outcome);
	assert_true(atomic_load(&file.stopped) > 0);
}

static void file_that_grows_gives_what_the_whole_one_gives(void **state)
{
	static const uint64_t steps[] = {1, 511, 65536};
	size_t i;
	json_t *one;

	json_array_foreach (cases, i, one) {
		const char *name = field(one, "file");
		struct outcome whole, grown;

		if (!strcmp(field(one, "layer"), "budget"))
			continue;
		read_case(name, true, &whole);
		for (size_t s = 0; s < sizeof(steps) / sizeof(steps[0]); s++) {
			read_growing(name, steps[s], 0, &grown);
			assert_int_equal(grown.result, whole.result);
			assert_string_equal(grown.err.text, whole.err.text);
			assert_memory_equal(grown.sum, whole.sum, sizeof(whole.sum));
		}
	}
}

static void download_that_breaks_off_is_its_own_error(void **state)
{
	static const char *const files[] = {"good-tar.tar", "good-zst.tar.zst",
					    "members-gz.tar.gz", "good-xz.tar.xz",
					    "zip-good.zip"};
	struct outcome outcome;

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		read_growing(files[i], 7, 50, &outcome);
		assert_int_equal(outcome.result, -ETIMEDOUT);
		assert_string_equal(outcome.err.text, "nothing came");
	}
}

/* --- random damage --- */

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Change, cut or repeat a few bytes; return the new size, at most the old one. */
static size_t mutate(unsigned char *data, size_t size, uint64_t *seed)
{
	unsigned count = 1 + random_next(seed) % 4;

	for (unsigned i = 0; i < count; i++) {
		size_t at = random_next(seed) % size;

		switch (random_next(seed) % 8) {
		case 0:
			data[at] = (unsigned char)random_next(seed);
			break;
		case 1:
			data[at] = random_next(seed) % 2 ? 0xff : 0;
			break;
		case 2:
			memset(data + at, (int)random_next(seed),
			       size - at < 16 ? size - at : 16);
			break;
		case 3:
			if (random_next(seed) % 4 == 0 && at > 0)
				size = at;
			break;
		default:
			data[at] ^= (unsigned char)(1u << random_next(seed) % 8);
		}
	}
	return size;
}

static uint64_t number_from_environment(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

/* Whether the compressor's checksum covers every byte that comes out. */
static bool is_protected(const char *file)
{
	return strstr(file, ".gz") || strstr(file, ".bz2") || strstr(file, ".xz") ||
	       strstr(file, ".zst");
}

static void keep_failing_input(const void *data, size_t size, const char *file)
{
	char path[512];
	int fd;

	snprintf(path, sizeof(path), "/tmp/test-archive-failed-%s", file);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd >= 0 && fd_write_all(fd, data, size) == 0)
		print_message("the input was kept as '%s'\n", path);
	fd_close(&fd);
}

static void mutate_file(const char *file, uint64_t count, uint64_t *seed)
{
	cleanup(fd_close) int fd = memfd_create("mutated", MFD_CLOEXEC);
	cleanup(fd_close) int source = open_case(file);
	cleanup(free_ptr) char *original = NULL;
	cleanup(free_ptr) unsigned char *data = NULL;
	struct outcome good, outcome;
	unsigned accepted = 0;
	size_t size;

	assert_int_equal(file_read_fd(source, 1 << 24, &original, &size), 0);
	read_all(source, true, &good);
	assert_int_equal(good.result, 0);
	data = malloc(size);
	assert_non_null(data);
	for (uint64_t i = 0; i < count; i++) {
		size_t mutated;

		memcpy(data, original, size);
		mutated = mutate(data, size, seed);
		assert_int_equal(ftruncate(fd, 0), 0);
		assert_int_equal(fd_pwrite_all(fd, data, mutated, 0), 0);
		alarm(30); /* a hang kills the test */
		read_all(fd, true, &outcome);
		alarm(0);
		if (outcome.result < 0)
			continue;
		accepted++;
		if (is_protected(file) &&
		    memcmp(outcome.sum, good.sum, sizeof(good.sum))) {
			keep_failing_input(data, mutated, file);
			fail_msg("mutation %" PRIu64
				 " of '%s' was accepted with other content",
				 i, file);
		}
	}
	print_message("%-34s %5" PRIu64 " mutations, %u accepted\n", file, count,
		      accepted);
}

static void no_mutation_crashes_hangs_or_passes_for_the_original(void **state)
{
	static const char *const files[] = {
		"good-tar.tar",
		"good-gz.tar.gz",
		"good-bz2.tar.bz2",
		"good-xz.tar.xz",
		"good-zst.tar.zst",
		"members-xz.tar.xz",
		"sparse-gnu-old.tar",
		"sparse-gnu-1.0.tar",
		"sparse-gnu-0.1.tar",
		"names-in-many-scripts-pax.tar",
		"acl.tar",
		"zip-good.zip",
		"zip-good-stored.zip",
		"zip-good-streamed.zip",
		"zip-good-zip64.zip",
		"zstd-skippable-frames.tar.zst",
	};
	const size_t kinds = sizeof(files) / sizeof(files[0]);
	uint64_t seed = number_from_environment("MUTATION_SEED", 20261122);
	uint64_t count = number_from_environment("MUTATION_COUNT", 3000);

	print_message("MUTATION_SEED=%" PRIu64 "\n", seed);
	if (seed == 0)
		seed = 1; /* the only state that the generator does not leave */
	for (size_t i = 0; i < kinds; i++)
		mutate_file(files[i], (count + kinds - 1) / kinds, &seed);
}

/* --- the collection --- */

/* The script stands beside this source, whose path meson gives from the build folder. */
static int make_archives(void **state)
{
	char command[1024], path[512];
	json_error_t problem;

	setenv("BOMB_SIZE", "16777216", 1);
	setenv("BOMB_COUNT", "20000", 1);
	if (!setlocale(LC_ALL, "C.UTF-8") || !mkdtemp(folder))
		return -1;
	snprintf(command, sizeof(command),
		 "/usr/bin/python3 \"$(dirname '%s')/../integration/bad_archives.py\" %s",
		 __FILE__, folder);
	if (system(command) != 0)
		return -1;
	snprintf(path, sizeof(path), "%s/index.json", folder);
	cases = json_load_file(path, 0, &problem);
	return json_is_array(cases) ? 0 : -1;
}

static int remove_one(const char *path, const struct stat *status, int type,
		      struct FTW *ftw)
{
	return remove(path);
}

static int remove_archives(void **state)
{
	json_decref(cases);
	return nftw(folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static const struct CMUnitTest fixed_tests[] = {
	cmocka_unit_test(same_entries_come_out_of_every_compressor),
	cmocka_unit_test(same_entries_come_out_of_every_zip),
	cmocka_unit_test(same_content_comes_out_of_every_sparse_format),
	cmocka_unit_test(entries_come_out_as_they_were_packed),
	cmocka_unit_test(leading_dot_is_the_root_and_left_out),
	cmocka_unit_test(set_uid_is_stripped_from_the_mode),
	cmocka_unit_test(odd_times_are_kept),
	cmocka_unit_test(names_are_kept_byte_by_byte),
	cmocka_unit_test(terabyte_hole_is_passed_over_at_once),
	cmocka_unit_test(reader_begins_at_offset_0_and_leaves_the_descriptor_alone),
	cmocka_unit_test(reading_may_stop_anywhere),
	cmocka_unit_test(unreadable_file_is_an_error_of_the_system),
	cmocka_unit_test(archive_is_judged_the_same_without_reading),
	cmocka_unit_test(file_that_grows_gives_what_the_whole_one_gives),
	cmocka_unit_test(download_that_breaks_off_is_its_own_error),
	cmocka_unit_test(no_mutation_crashes_hangs_or_passes_for_the_original),
};

int main(void)
{
	const size_t fixed = sizeof(fixed_tests) / sizeof(fixed_tests[0]);
	cleanup(free_ptr) struct CMUnitTest *tests = NULL;
	size_t count, i;
	json_t *one;
	int r;

	/* The list of tests depends on the archives, so they are made before the group.
	 */
	if (make_archives(NULL) < 0) {
		fprintf(stderr, "cannot make the archives\n");
		return 1;
	}
	count = json_array_size(cases);
	tests = calloc(count + fixed, sizeof(*tests));
	if (!tests)
		return 1;
	json_array_foreach (cases, i, one) {
		tests[i].name = field(one, "name");
		tests[i].test_func = archive_is_judged_right;
		tests[i].initial_state = one;
	}
	memcpy(tests + count, fixed_tests, sizeof(fixed_tests));
	r = _cmocka_run_group_tests("archive", tests, count + fixed, NULL, NULL);
	remove_archives(NULL);
	return r;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Fetching from folders: everything that needs no server. */
#include "fetch.h"

#include "cleanup.h"
#include "fd.h"
#include "origin.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define PACKAGE      "shop-1.0.tar.zst"
#define PACKAGE_SIZE 3000000

/* Two origins, "a" and "b", and the folder of partial files, in a fresh directory. */
struct site {
	char dir[64];
	char partial[80];
	char a[80];
	char b[80];
	char *origins[3];
	struct fetch_request request;
	struct fetch_result result;
	struct error err;
};

static int fail_writes_after = -1; /* -1: none; else how many more succeed */
static int write_error;

/* -Wl,--wrap: a disk that fails */
ssize_t __real_pwrite64(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *data, size_t size, off_t offset)
{
	if (fail_writes_after < 0 || fail_writes_after-- > 0)
		return __real_pwrite64(fd, data, size, offset);
	fail_writes_after = 0;
	errno = write_error;
	return -1;
}

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...)
{
	char command[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	assert_int_equal(system(command), 0);
}

static void write_file(const char *dir, const char *name, const void *data, size_t size)
{
	cleanup(free_ptr) char *path = NULL;
	int fd;

	assert_true(asprintf(&path, "%s/%s", dir, name) > 0);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	assert_true(fd >= 0);
	assert_int_equal(fd_write_all(fd, data, size), 0);
	close(fd);
}

static void package_bytes(char *bytes)
{
	unsigned state = 1;

	for (size_t i = 0; i < PACKAGE_SIZE; i++) {
		state = state * 1664525 + 1013904223;
		bytes[i] = (char)(state >> 24);
	}
}

static void write_package(const char *dir, size_t size)
{
	cleanup(free_ptr) char *bytes = malloc(PACKAGE_SIZE);

	package_bytes(bytes);
	write_file(dir, PACKAGE, bytes, size);
}

static void write_list(const char *origin)
{
	shell("cd %s/shop && sha256sum *.tar.* > SHA256SUMS", origin);
}

static int site_setup(void **state)
{
	struct site *site = calloc(1, sizeof(*site));

	snprintf(site->dir, sizeof(site->dir), "/tmp/deployfs-test-XXXXXX");
	assert_non_null(mkdtemp(site->dir));
	snprintf(site->a, sizeof(site->a), "%s/a", site->dir);
	snprintf(site->b, sizeof(site->b), "%s/b", site->dir);
	snprintf(site->partial, sizeof(site->partial), "%s/partial", site->dir);
	shell("mkdir -p %s/shop %s/shop %s", site->a, site->b, site->partial);
	shell("cd %s && truncate -s 0 keep", site->dir);
	site->origins[0] = site->a;
	site->request = (struct fetch_request){
		.app = "shop",
		.version = "1.0",
		.origins = site->origins,
		.verify = true,
		.partial_dir = site->partial,
		.size_max = 1ULL << 30,
		.connect_timeout_ms = 1000,
		.stall_timeout_ms = 1000,
	};
	site->result.fd = -1;
	*state = site;
	return 0;
}

static void put_package(const char *origin, size_t size)
{
	cleanup(free_ptr) char *dir = NULL;

	assert_true(asprintf(&dir, "%s/shop", origin) > 0);
	write_package(dir, size);
}

/* The usual start: a package at "a", and its list. */
static int shop_setup(void **state)
{
	struct site *site;

	site_setup(state);
	site = *state;
	put_package(site->a, PACKAGE_SIZE);
	write_list(site->a);
	return 0;
}

static int site_teardown(void **state)
{
	struct site *site = *state;

	fail_writes_after = -1;
	fetch_result_done(&site->result);
	shell("rm -rf %s", site->dir);
	free(site);
	return 0;
}

static int fetched(struct site *site)
{
	return fetch_package(&site->request, NULL, &site->result, &site->err);
}

static void assert_package(struct site *site)
{
	cleanup(free_ptr) char *expected = malloc(PACKAGE_SIZE);
	cleanup(free_ptr) char *found = malloc(PACKAGE_SIZE + 1);

	package_bytes(expected);
	assert_int_equal(site->result.size, PACKAGE_SIZE);
	assert_int_equal(read(site->result.fd, found, PACKAGE_SIZE + 1), PACKAGE_SIZE);
	assert_memory_equal(found, expected, PACKAGE_SIZE);
}

static off_t partial_size(const struct site *site)
{
	cleanup(free_ptr) char *path = NULL;
	struct stat stat_of;

	assert_true(asprintf(&path, "%s/" PACKAGE, site->partial) > 0);
	return stat(path, &stat_of) < 0 ? -1 : stat_of.st_size;
}

static void listed_package_is_handed_on_open_and_locked(void **state)
{
	struct site *site = *state;
	int other;

	assert_int_equal(fetched(site), 0);
	assert_package(site);
	assert_string_equal(site->result.version, "1.0");
	assert_string_equal(site->result.file, PACKAGE);
	assert_string_equal(site->result.origin, site->a);
	assert_true(site->result.listed);
	assert_int_equal(site->result.resumed, 0);
	other = open(site->result.partial_path, O_RDONLY);
	assert_true(other >= 0);
	assert_int_equal(flock(other, LOCK_EX | LOCK_NB), -1);
	fetch_result_done(&site->result);
	assert_int_equal(flock(other, LOCK_EX | LOCK_NB), 0);
	close(other);
	assert_int_equal(partial_size(site), PACKAGE_SIZE);
}

static void file_url_is_the_same_as_its_path(void **state)
{
	struct site *site = *state;
	char url[128];

	shell("mv %s '%s/a b'", site->a, site->dir);
	snprintf(url, sizeof(url), "file://%s/a%%20b//", site->dir);
	site->origins[0] = url;
	assert_int_equal(fetched(site), 0);
	assert_package(site);
}

static void partial_file_is_continued(void **state)
{
	struct site *site = *state;

	write_package(site->partial, 1234567);
	assert_int_equal(fetched(site), 0);
	assert_package(site);
	assert_int_equal(site->result.resumed, 1234567);
}

static void complete_partial_file_needs_no_origin(void **state)
{
	struct site *site = *state;

	write_package(site->partial, PACKAGE_SIZE);
	shell("rm %s/shop/" PACKAGE, site->a);
	assert_int_equal(fetched(site), 0);
	assert_package(site);
	assert_int_equal(site->result.resumed, PACKAGE_SIZE);
}

static void partial_file_of_another_content_is_dropped(void **state)
{
	struct site *site = *state;

	write_file(site->partial, PACKAGE, "something else", 14);
	assert_int_equal(fetched(site), 0);
	assert_package(site);
	assert_int_equal(site->result.resumed, 0);
}

static void partial_file_that_is_too_long_is_dropped(void **state)
{
	struct site *site = *state;

	write_package(site->partial, PACKAGE_SIZE);
	shell("echo more >> %s/" PACKAGE, site->partial);
	assert_int_equal(fetched(site), 0);
	assert_package(site);
}

static void partial_file_that_is_a_symlink_is_refused(void **state)
{
	struct site *site = *state;

	shell("ln -s %s/keep %s/" PACKAGE, site->dir, site->partial);
	assert_int_equal(fetched(site), -ELOOP);
	shell("test ! -s %s/keep", site->dir);
}

static void wrong_bytes_are_never_handed_on(void **state)
{
	struct site *site = *state;

	shell("printf X | dd of=%s/shop/" PACKAGE
	      " bs=1 seek=77 conv=notrunc status=none",
	      site->a);
	assert_int_equal(fetched(site), -EBADMSG);
	assert_non_null(strstr(site->err.text, "does not match its SHA-256"));
	assert_int_equal(site->result.fd, -1);
	assert_int_equal(partial_size(site), -1);
}

static void truncated_package_is_never_handed_on(void **state)
{
	struct site *site = *state;

	put_package(site->a, PACKAGE_SIZE - 1);
	assert_int_equal(fetched(site), -EBADMSG);
}

static void on_warning(void *context, const char *text)
{
	snprintf(context, ERROR_TEXT_MAX, "%s", text);
}

static void bad_mirror_is_named_and_the_next_one_asked(void **state)
{
	struct site *site = *state;
	char warning[ERROR_TEXT_MAX] = "";
	const struct fetch_watch watch = {.warning = on_warning, .context = warning};

	put_package(site->b, PACKAGE_SIZE);
	put_package(site->a, PACKAGE_SIZE - 1);
	site->origins[1] = site->b;
	assert_int_equal(fetch_package(&site->request, &watch, &site->result, &site->err),
			 0);
	assert_package(site);
	assert_string_equal(site->result.origin, site->b);
	assert_non_null(strstr(warning, site->a));
}

static void mirror_continues_what_another_one_began(void **state)
{
	struct site *site = *state;

	write_package(site->partial, 1000);
	shell("rm %s/shop/" PACKAGE, site->a);
	put_package(site->b, PACKAGE_SIZE);
	site->origins[1] = site->b;
	assert_int_equal(fetched(site), 0);
	assert_package(site);
	assert_int_equal(site->result.resumed, 1000);
}

static void missing_disk_is_no_missing_file(void **state)
{
	struct site *site = *state;

	shell("rm -r %s", site->a);
	assert_int_equal(fetched(site), -EHOSTUNREACH);
	assert_non_null(strstr(site->err.text, "is its disk mounted?"));
	put_package(site->b, PACKAGE_SIZE);
	write_list(site->b);
	site->origins[1] = site->b;
	assert_int_equal(fetched(site), 0);
	assert_string_equal(site->result.origin, site->b);
}

static void every_mirror_is_named_when_all_fail(void **state)
{
	struct site *site = *state;

	put_package(site->b, 5);
	put_package(site->a, 6);
	site->origins[1] = site->b;
	assert_int_equal(fetched(site), -EBADMSG);
	assert_non_null(strstr(site->err.text, site->a));
	assert_non_null(strstr(site->err.text, site->b));
}

static void missing_version_names_the_newest(void **state)
{
	struct site *site = *state;

	site->request.version = "3.0";
	assert_int_equal(fetched(site), -ENOENT);
	assert_non_null(strstr(site->err.text, "no version '3.0'"));
	assert_non_null(strstr(site->err.text, "newest: 1.0"));
}

static void missing_list_says_how_to_make_one(void **state)
{
	struct site *site = *state;

	shell("rm %s/shop/SHA256SUMS", site->a);
	assert_int_equal(fetched(site), -ENOENT);
	assert_non_null(
		strstr(site->err.text, "cd shop && sha256sum *.tar.* > SHA256SUMS"));
}

static void malformed_list_is_refused(void **state)
{
	struct site *site = *state;

	shell("echo '<html>' > %s/shop/SHA256SUMS", site->a);
	assert_int_equal(fetched(site), -EBADMSG);
	shell("printf 'a\\0b' > %s/shop/SHA256SUMS", site->a);
	assert_int_equal(fetched(site), -EBADMSG);
	shell("truncate -s 9M %s/shop/SHA256SUMS", site->a);
	assert_int_equal(fetched(site), -EFBIG);
}

static void endings_are_tried_without_verification(void **state)
{
	struct site *site = *state;

	site->request.verify = false;
	shell("cd %s/shop && rm SHA256SUMS && mv " PACKAGE " shop-1.0.tar.bz2", site->a);
	assert_int_equal(fetched(site), 0);
	assert_package(site);
	assert_false(site->result.listed);
	assert_string_equal(site->result.file, "shop-1.0.tar.bz2");
	shell("test $(ls %s | wc -l) = 1", site->partial);
}

static void version_that_is_not_listed_needs_verification_off(void **state)
{
	struct site *site = *state;

	shell("cp %s/shop/" PACKAGE " %s/shop/shop-2.0.tar.zst", site->a, site->a);
	site->request.version = "2.0";
	assert_int_equal(fetched(site), -ENOENT);
	site->request.verify = false;
	assert_int_equal(fetched(site), 0);
	assert_false(site->result.listed);
}

static void listed_version_is_verified_even_with_verification_off(void **state)
{
	struct site *site = *state;

	site->request.verify = false;
	put_package(site->a, 100);
	assert_int_equal(fetched(site), -EBADMSG);
}

static void unlisted_package_never_continues_old_bytes(void **state)
{
	struct site *site = *state;

	site->request.verify = false;
	shell("rm %s/shop/SHA256SUMS", site->a);
	write_file(site->partial, PACKAGE, "something else", 14);
	assert_int_equal(fetched(site), 0);
	assert_package(site);
	assert_int_equal(site->result.resumed, 0);
}

static void unlisted_package_that_is_nowhere(void **state)
{
	struct site *site = *state;

	site->request.verify = false;
	site->request.version = "7";
	assert_int_equal(fetched(site), -ENOENT);
	shell("test -z \"$(ls %s)\"", site->partial);
}

static void package_larger_than_allowed_is_refused(void **state)
{
	struct site *site = *state;

	site->request.size_max = PACKAGE_SIZE - 1;
	assert_int_equal(fetched(site), -EFBIG);
	assert_int_equal(partial_size(site), -1);
}

static void reserve_is_checked_before_the_first_byte(void **state)
{
	struct site *site = *state;

	site->request.reserve_bytes = 1ULL << 62;
	assert_int_equal(fetched(site), -ENOSPC);
	assert_non_null(strstr(site->err.text, "must be free"));
	assert_int_equal(partial_size(site), -1);
}

static void full_disk_ends_the_fetch_and_keeps_the_bytes(void **state)
{
	struct site *site = *state;

	site->origins[1] = site->b;
	put_package(site->b, PACKAGE_SIZE);
	fail_writes_after = 2;
	write_error = ENOSPC;
	assert_int_equal(fetched(site), -ENOSPC);
	assert_int_equal(partial_size(site), 2 * 512 * 1024);
	fail_writes_after = -1;
	assert_int_equal(fetched(site), 0);
	assert_package(site);
	assert_int_equal(site->result.resumed, 2 * 512 * 1024);
}

static void failing_disk_is_not_put_down_to_a_mirror(void **state)
{
	struct site *site = *state;

	site->origins[1] = site->b;
	fail_writes_after = 1;
	write_error = EIO;
	assert_int_equal(fetched(site), -EIO);
	assert_non_null(strstr(site->err.text, "cannot write"));
	assert_null(strstr(site->err.text, site->a));
}

static void what_is_no_file_is_not_read(void **state)
{
	struct site *site = *state;

	shell("cd %s/shop && rm " PACKAGE " && mkfifo " PACKAGE, site->a);
	assert_int_equal(fetched(site), -EPROTO);
	assert_non_null(strstr(site->err.text, "not a regular file"));
}

static void no_origin_is_said_to_be_missing(void **state)
{
	struct site *site = *state;

	site->origins[0] = NULL;
	assert_int_equal(fetched(site), -EINVAL);
	site->request.origins = NULL;
	assert_int_equal(fetched(site), -EINVAL);
}

static void url_that_cannot_be_used_is_refused(void **state)
{
	static const char *const urls[] = {
		"gopher://h/x", "ftp://u:s3cret@h/x", "http://h/x?y", "x", "",
	};
	struct site *site = *state;

	for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
		char *url = strdup(urls[i]);

		site->origins[0] = url;
		assert_int_equal(fetched(site), -EINVAL);
		assert_null(strstr(site->err.text, "s3cret"));
		free(url);
	}
}

static void list_comes_from_the_first_mirror_that_has_one(void **state)
{
	struct site *site = *state;
	struct sums sums = {0};
	const char *origin = NULL;

	site->origins[0] = site->b;
	site->origins[1] = site->a;
	assert_int_equal(fetch_sums(&site->request, NULL, &sums, &origin, &site->err), 0);
	assert_string_equal(origin, site->a);
	assert_int_equal(sums.count, 1);
	sums_done(&sums);
	assert_int_equal(fetched(site), 0);
	assert_string_equal(site->result.origin, site->a);
}

static void newest_release_that_is_not_bad_is_chosen(void **state)
{
	char v3[] = "3.0-rc1", v2[] = "2.0", v1[] = "1.0";
	struct sums_entry entries[] = {{.version = v3}, {.version = v2}, {.version = v1}};
	const struct sums sums = {entries, 3};
	char *const skip[] = {v2, NULL}, *const skip_all[] = {v1, v2, NULL};

	assert_ptr_equal(fetch_choose(&sums, NULL), &entries[1]);
	assert_ptr_equal(fetch_choose(&sums, skip), &entries[2]);
	assert_null(fetch_choose(&sums, skip_all));
	assert_null(fetch_choose(&(struct sums){0}, NULL));
}

static void newest_is_fetched_without_a_version(void **state)
{
	char v1[] = "1.0";
	char *const skip[] = {v1, NULL};
	struct site *site = *state;

	site->request.version = NULL;
	assert_int_equal(fetched(site), 0);
	assert_string_equal(site->result.version, "1.0");
	fetch_result_done(&site->result);
	site->request.skip = skip;
	assert_int_equal(fetched(site), -ENOENT);
	assert_non_null(strstr(site->err.text, "marked bad"));
}

/* A sink that changes the file it is fed from. */
static int grow(void *context, const void *data, size_t size)
{
	shell("echo more >> '%s'", (const char *)context);
	return 0;
}

static int stop(void *context, const void *data, size_t size)
{
	return -ECANCELED;
}

static void file_that_grows_while_it_is_read_is_broken(void **state)
{
	struct site *site = *state;
	const struct origin_options options = {0};
	char path[128];
	uint64_t size = 0;

	snprintf(path, sizeof(path), "%s/shop/" PACKAGE, site->a);
	assert_int_equal(origin_read(site->a, "shop/" PACKAGE, 0, 1 << 30, &options,
				     &size, grow, path, &site->err),
			 -ECONNRESET);
	assert_int_equal(size, PACKAGE_SIZE);
}

static void sink_ends_the_transfer_with_its_own_code(void **state)
{
	struct site *site = *state;
	const struct origin_options options = {0};

	site->err.text[0] = '\0';
	assert_int_equal(origin_read(site->a, "shop/" PACKAGE, 0, 1 << 30, &options, NULL,
				     stop, NULL, &site->err),
			 -ECANCELED);
	assert_string_equal(site->err.text, "");
	assert_int_equal(origin_read(site->a, "shop/" PACKAGE, PACKAGE_SIZE + 1, 1 << 30,
				     &options, NULL, stop, NULL, &site->err),
			 -ESPIPE);
}

#define WITH_SHOP(test) cmocka_unit_test_setup_teardown(test, shop_setup, site_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SHOP(listed_package_is_handed_on_open_and_locked),
		WITH_SHOP(file_url_is_the_same_as_its_path),
		WITH_SHOP(partial_file_is_continued),
		WITH_SHOP(complete_partial_file_needs_no_origin),
		WITH_SHOP(partial_file_of_another_content_is_dropped),
		WITH_SHOP(partial_file_that_is_too_long_is_dropped),
		WITH_SHOP(partial_file_that_is_a_symlink_is_refused),
		WITH_SHOP(wrong_bytes_are_never_handed_on),
		WITH_SHOP(truncated_package_is_never_handed_on),
		WITH_SHOP(bad_mirror_is_named_and_the_next_one_asked),
		WITH_SHOP(mirror_continues_what_another_one_began),
		WITH_SHOP(missing_disk_is_no_missing_file),
		WITH_SHOP(every_mirror_is_named_when_all_fail),
		WITH_SHOP(missing_version_names_the_newest),
		WITH_SHOP(missing_list_says_how_to_make_one),
		WITH_SHOP(malformed_list_is_refused),
		WITH_SHOP(endings_are_tried_without_verification),
		WITH_SHOP(version_that_is_not_listed_needs_verification_off),
		WITH_SHOP(listed_version_is_verified_even_with_verification_off),
		WITH_SHOP(unlisted_package_never_continues_old_bytes),
		WITH_SHOP(unlisted_package_that_is_nowhere),
		WITH_SHOP(package_larger_than_allowed_is_refused),
		WITH_SHOP(reserve_is_checked_before_the_first_byte),
		WITH_SHOP(full_disk_ends_the_fetch_and_keeps_the_bytes),
		WITH_SHOP(failing_disk_is_not_put_down_to_a_mirror),
		WITH_SHOP(what_is_no_file_is_not_read),
		WITH_SHOP(no_origin_is_said_to_be_missing),
		WITH_SHOP(url_that_cannot_be_used_is_refused),
		WITH_SHOP(list_comes_from_the_first_mirror_that_has_one),
		cmocka_unit_test(newest_release_that_is_not_bad_is_chosen),
		WITH_SHOP(newest_is_fetched_without_a_version),
		WITH_SHOP(file_that_grows_while_it_is_read_is_broken),
		WITH_SHOP(sink_ends_the_transfer_with_its_own_code),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

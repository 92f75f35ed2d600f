/* SPDX-License-Identifier: Apache-2.0 */
#include "cleanup.h"
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[] = "/tmp/test-credential-XXXXXX";
static char file[sizeof(folder) + 16];

static char old[] = "what was there before";

/* What no freed memory may hold while it is set. */
static const char *watched;
static unsigned frees, leaks;

void __real_free(void *pointer);
void __wrap_free(void *pointer);

void __wrap_free(void *pointer)
{
	if (watched && pointer) {
		frees++;
		if (memmem(pointer, malloc_usable_size(pointer), watched,
			   strlen(watched)))
			leaks++;
	}
	__real_free(pointer);
}

static void write_file(const char *text, size_t size, mode_t mode)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, size), (ssize_t)size);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static struct credential found(const char *text, const char *url)
{
	struct credential credential = {old, old, old};
	struct error err = {.text = ""};
	int r;

	write_file(text, strlen(text), 0600);
	r = credential_find(file, url, &credential, &err);
	assert_string_equal(err.text, "");
	assert_int_equal(r, 0);
	return credential;
}

static void assert_none(const char *text, const char *url)
{
	struct credential credential = found(text, url);

	assert_null(credential.user);
	assert_null(credential.password);
	assert_null(credential.key_file);
}

static void assert_password(const char *text, const char *url, const char *password)
{
	cleanup(credential_done) struct credential credential = found(text, url);

	assert_string_equal(credential.user, "deploy");
	assert_string_equal(credential.password, password);
	assert_null(credential.key_file);
}

/* @why follows the file's name */
static void assert_fails(const char *url, int code, const char *why)
{
	struct credential credential = {old, old, old};
	char expected[256];
	struct error err;

	assert_int_equal(credential_find(file, url, &credential, &err), code);
	snprintf(expected, sizeof(expected), why, file);
	assert_string_equal(err.text, expected);
	assert_ptr_equal(credential.user, old);
	assert_ptr_equal(credential.password, old);
	assert_ptr_equal(credential.key_file, old);
}

static void assert_malformed(const char *text, const char *why)
{
	write_file(text, strlen(text), 0600);
	assert_fails("ftp://a.example/x", -EINVAL, why);
}

static void missing_file_means_none(void **state)
{
	struct credential credential = {old, old, old};

	unlink(file);
	assert_int_equal(credential_find(file, "ftp://a.example", &credential, NULL), 0);
	assert_null(credential.user);
	assert_null(credential.password);
	assert_null(credential.key_file);
}

static void empty_file_means_none(void **state)
{
	assert_none("", "ftp://a.example/x");
	assert_none("# nothing\n\n  \n", "ftp://a.example/x");
}

static void line_of_the_same_server_is_taken(void **state)
{
	static const char text[] = "# two servers\n"
				   "ftp://b.example  deploy  other\n"
				   "\n"
				   "ftp://a.example  deploy  s3cret\n";

	assert_password(text, "ftp://a.example/packages", "s3cret");
	assert_password(text, "FTP://A.Example", "s3cret");
	assert_password("Ftp://A.EXAMPLE/ deploy s3cret", "ftp://a.example/x", "s3cret");
}

static void scheme_host_and_port_must_be_equal(void **state)
{
	static const char text[] = "ftp://a.example:2121 deploy s3cret\n";

	assert_password(text, "ftp://a.example:2121/packages", "s3cret");
	assert_none(text, "ftp://a.example/packages");
	assert_none(text, "ftp://a.example:21/packages");
	assert_none(text, "ftps://a.example:2121/packages");
	assert_none(text, "ftp://a.example.org:2121/packages");
}

static void password_ends_with_the_line(void **state)
{
	assert_password(
		"ftp://a.example\tdeploy \t two  words #1 \nftp://b.example x y\n",
		"ftp://a.example", "two  words #1 ");
	assert_password("ftp://a.example deploy s3cret\r\n", "ftp://a.example", "s3cret");
	assert_password("ftp://a.example deploy s3cret", "ftp://a.example", "s3cret");
	assert_password("ftp://a.example deploy key=/x", "ftp://a.example", "key=/x");
}

static void sftp_may_have_a_key_or_a_password(void **state)
{
	struct credential credential;

	credential = found("sftp://a.example deploy key=/etc/id\n", "sftp://a.example/x");
	assert_string_equal(credential.user, "deploy");
	assert_string_equal(credential.key_file, "/etc/id");
	assert_null(credential.password);
	credential_done(&credential);
	assert_null(credential.user);
	assert_null(credential.key_file);
	assert_password("sftp://a.example deploy s3cret\n", "sftp://a.example", "s3cret");
}

static void path_and_file_url_have_none_and_the_file_is_not_read(void **state)
{
	struct credential credential = {old, old, old};

	write_file("nonsense", 8, 0666);
	assert_int_equal(credential_find(file, "/srv/x", &credential, NULL), 0);
	assert_null(credential.user);
	assert_int_equal(credential_find(file, "file:///srv/x", &credential, NULL), 0);
	assert_null(credential.user);
	assert_fails("nonsense", -EINVAL, "neither a URL nor an absolute path");
}

static void file_that_others_may_touch_is_refused(void **state)
{
	static const mode_t modes[] = {0640, 0604, 0620, 0602, 0610, 0601, 0700, 04600};

	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		write_file("", 0, modes[i]);
		assert_fails("ftp://a.example", -EPERM,
			     "'%s' must be a regular file of root with mode 0600");
	}
	write_file("", 0, 0400);
	assert_int_equal(credential_find(file, "ftp://a.example", &(struct credential){0},
					 NULL),
			 0);
}

static void file_of_another_owner_is_refused(void **state)
{
	write_file("", 0, 0600);
	assert_int_equal(chown(file, 1, 0), 0);
	assert_fails("ftp://a.example", -EPERM,
		     "'%s' must be a regular file of root with mode 0600");
	unlink(file);
}

static void symlink_is_refused(void **state)
{
	unlink(file);
	assert_int_equal(symlink("/dev/null", file), 0);
	assert_fails("ftp://a.example", -ELOOP,
		     "cannot open '%s': Too many levels of symbolic links");
	unlink(file);
}

static void fifo_is_refused_without_waiting(void **state)
{
	unlink(file);
	assert_int_equal(mkfifo(file, 0600), 0);
	assert_fails("ftp://a.example", -EPERM,
		     "'%s' must be a regular file of root with mode 0600");
	unlink(file);
}

static void file_larger_than_1_mib_is_refused(void **state)
{
	write_file("", 0, 0600);
	assert_int_equal(truncate(file, 1024 * 1024 + 1), 0);
	assert_fails("ftp://a.example", -EINVAL, "'%s' is larger than 1 MiB");
}

static void file_with_a_nul_is_refused(void **state)
{
	write_file("#\0\n", 3, 0600);
	assert_fails("ftp://a.example", -EINVAL, "%s:1: the file is not text");
}

static void malformed_line_is_named_but_not_shown(void **state)
{
	assert_malformed("\nftp://deploy:s3cret@a.example\n",
			 "%s:2: the line does not begin with the URL of a server");
	assert_malformed("s3cret\n",
			 "%s:1: the line does not begin with the URL of a server");
	assert_malformed("file:///x deploy s3cret\n",
			 "%s:1: the line does not begin with the URL of a server");
	assert_malformed("# x\r\n\r\nftp://b.example/packages deploy s3cret\r\n",
			 "%s:3: the line names a path: scheme, host and port are enough");
	assert_malformed("ftp://b.example deploy\n",
			 "%s:1: the line needs a URL, a user and a password or key");
	assert_malformed("ftp://b.example   \n",
			 "%s:1: the line needs a URL, a user and a password or key");
	assert_malformed("sftp://b.example deploy key=id\n",
			 "%s:1: the line needs the absolute path of the key");
}

static void second_line_for_one_server_is_refused(void **state)
{
	assert_malformed("ftp://a.example x y\nftp://A.example/ deploy s3cret\n",
			 "%s:2: the line names the same server as a line before");
}

static void no_freed_memory_holds_the_secret(void **state)
{
	struct credential credential;

	write_file("ftp://a.example u s3cret\nsftp://a.example u key=/s3cret\n", 56,
		   0600);
	watched = "s3cret";
	assert_int_equal(credential_find(file, "ftp://a.example", &credential, NULL), 0);
	credential_done(&credential);
	assert_int_equal(credential_find(file, "sftp://a.example", &credential, NULL), 0);
	credential_done(&credential);
	write_file("ftp://a.example u s3cret\ns3cret\n", 32, 0600);
	assert_int_equal(credential_find(file, "ftp://a.example", &credential, NULL),
			 -EINVAL);
	watched = NULL;
	assert_true(frees >= 7);
	assert_int_equal(leaks, 0);
}

static int make_folder(void **state)
{
	if (!mkdtemp(folder))
		return -1;
	snprintf(file, sizeof(file), "%s/credentials", folder);
	return 0;
}

static int remove_folder(void **state)
{
	unlink(file);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(missing_file_means_none),
		cmocka_unit_test(empty_file_means_none),
		cmocka_unit_test(line_of_the_same_server_is_taken),
		cmocka_unit_test(scheme_host_and_port_must_be_equal),
		cmocka_unit_test(password_ends_with_the_line),
		cmocka_unit_test(sftp_may_have_a_key_or_a_password),
		cmocka_unit_test(path_and_file_url_have_none_and_the_file_is_not_read),
		cmocka_unit_test(file_that_others_may_touch_is_refused),
		cmocka_unit_test(file_of_another_owner_is_refused),
		cmocka_unit_test(symlink_is_refused),
		cmocka_unit_test(fifo_is_refused_without_waiting),
		cmocka_unit_test(file_larger_than_1_mib_is_refused),
		cmocka_unit_test(file_with_a_nul_is_refused),
		cmocka_unit_test(malformed_line_is_named_but_not_shown),
		cmocka_unit_test(second_line_for_one_server_is_refused),
		cmocka_unit_test(no_freed_memory_holds_the_secret),
	};

	if (geteuid() != 0) {
		fputs("skipped: the file must be root's, so root must run this\n",
		      stderr);
		return 77;
	}
	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

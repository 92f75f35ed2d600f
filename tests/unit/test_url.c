/* SPDX-License-Identifier: Apache-2.0 */
#include "url.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void assert_url(const char *text, const char *scheme, const char *host,
		       unsigned port, const char *path)
{
	struct error err;
	struct url url;

	assert_int_equal(url_parse(text, &url, &err), 0);
	assert_string_equal(url.scheme, scheme);
	assert_string_equal(url.host, host);
	assert_int_equal(url.port, port);
	assert_string_equal(url.path, path);
}

static void assert_refused(const char *text, const char *why)
{
	const struct url untouched = {.scheme = "x", .host = "y", .port = 1, .path = "z"};
	struct url url = untouched;
	struct error err;

	assert_int_equal(url_parse(text, &url, &err), -EINVAL);
	assert_string_equal(err.text, why);
	assert_memory_equal(&url, &untouched, sizeof(url));
}

static void url_is_taken_to_its_parts(void **state)
{
	assert_url("ftp://files.example/packages", "ftp", "files.example", 0,
		   "/packages");
	assert_url("https://files.example:8443", "https", "files.example", 8443, "");
	assert_url("nfs://10.0.0.7:2049/export/a%20b", "nfs", "10.0.0.7", 2049,
		   "/export/a%20b");
	assert_url("sftp://[fe80::1]:65535/", "sftp", "[fe80::1]", 65535, "/");
	assert_url("http://a.example/u@v", "http", "a.example", 0, "/u@v");
}

static void scheme_and_host_are_lower_cased(void **state)
{
	assert_url("FTPS://Files.EXAMPLE/Packages", "ftps", "files.example", 0,
		   "/Packages");
}

static void file_url_has_no_host(void **state)
{
	assert_url("file:///srv/packages", "file", "", 0, "/srv/packages");
	assert_url("file://localhost/srv", "file", "", 0, "/srv");
	assert_refused("file://server/srv", "a file URL is written file:///PATH");
	assert_refused("file://srv.longer.than.localhost/x",
		       "a file URL is written file:///PATH");
	assert_refused("file://", "a file URL is written file:///PATH");
}

static void what_is_no_url_is_refused(void **state)
{
	static const char why[] = "neither a URL nor an absolute path";

	assert_refused("", why);
	assert_refused("packages", why);
	assert_refused("files.example/packages", why);
	assert_refused("ftp:/files.example", why);
	assert_refused("://files.example", why);
}

static void unknown_scheme_is_named(void **state)
{
	assert_refused("smb://nas/x",
		       "unknown URL scheme 'smb': use ftp, ftps, sftp, http, https, nfs, "
		       "file or an absolute path");
	assert_refused("abcdefghijklmnopqrst://nas/x",
		       "unknown URL scheme 'abcdefghijklmnop': use ftp, ftps, sftp, "
		       "http, https, nfs, file or an absolute path");
}

static void user_info_is_refused_before_anything_is_quoted(void **state)
{
	static const char why[] = "the URL contains a user or password: these belong in "
				  "the credentials file";

	assert_refused("ftp://deploy:s3cret@files.example/", why);
	assert_refused("ftp://deploy@files.example", why);
	assert_refused("s3cret://deploy:s3cret@files.example/", why);
}

static void bad_server_is_refused(void **state)
{
	static const char why[] = "the URL's server is not a host name";
	char text[400] = "http://";

	assert_refused("http:///packages", "the URL names no server");
	assert_refused("http://fi_les*/", why);
	assert_refused("http://:80/", why);
	assert_refused("http://[::1/", why);
	assert_refused("http://[]/", why);
	assert_refused("http://[::1]x/", why);
	memset(text + 7, 'a', URL_HOST_SIZE);
	assert_refused(text, why);
}

static void bad_port_is_refused(void **state)
{
	static const char range[] = "the URL's port is not within 1 to 65535";

	assert_refused("http://a:/", range);
	assert_refused("http://a:0/", range);
	assert_refused("http://a:65536/", range);
	assert_refused("http://a:99999999999999999999/", range);
	assert_refused("http://a:8x/", "the URL's port is not a number");
	assert_refused("http://a:-1/", "the URL's port is not a number");
}

static void blanks_queries_and_fragments_are_refused(void **state)
{
	assert_refused("http://a/b c", "the URL contains a blank: write %20");
	assert_refused("http://a/b\x7f", "the URL contains a blank: write %20");
	assert_refused("http://a/b?c", "the URL has a query or fragment");
	assert_refused("http://a#c", "the URL has a query or fragment");
}

static void error_may_be_left_out(void **state)
{
	struct url url;

	assert_int_equal(url_parse("no", &url, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(url_is_taken_to_its_parts),
		cmocka_unit_test(scheme_and_host_are_lower_cased),
		cmocka_unit_test(file_url_has_no_host),
		cmocka_unit_test(what_is_no_url_is_refused),
		cmocka_unit_test(unknown_scheme_is_named),
		cmocka_unit_test(user_info_is_refused_before_anything_is_quoted),
		cmocka_unit_test(bad_server_is_refused),
		cmocka_unit_test(bad_port_is_refused),
		cmocka_unit_test(blanks_queries_and_fragments_are_refused),
		cmocka_unit_test(error_may_be_left_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

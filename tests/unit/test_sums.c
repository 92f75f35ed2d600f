/* SPDX-License-Identifier: Apache-2.0 */
#include "sums.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SUM_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define SUM_B "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB"

static struct sums parsed(const char *text)
{
	struct error err = {.text = ""};
	struct sums sums = {0};
	int r;

	r = sums_parse(text, "shop", &sums, &err);
	assert_string_equal(err.text, "");
	assert_int_equal(r, 0);
	return sums;
}

static void assert_refused(const char *text, const char *why)
{
	struct sums_entry entry;
	struct sums sums = {&entry, 42};
	struct error err;

	assert_int_equal(sums_parse(text, "shop", &sums, &err), -EBADMSG);
	assert_string_equal(err.text, why);
	assert_ptr_equal(sums.entries, &entry);
	assert_int_equal(sums.count, 42);
}

static void assert_none(const char *text)
{
	struct sums sums = parsed(text);

	assert_int_equal(sums.count, 0);
	sums_done(&sums);
}

static void line_gives_version_file_and_sum(void **state)
{
	struct sums sums = parsed(SUM_B "  shop-1.4.2.tar.zst\n");
	unsigned char sum[SHA256_SIZE];

	memset(sum, 0xbb, sizeof(sum));
	assert_int_equal(sums.count, 1);
	assert_string_equal(sums.entries[0].version, "1.4.2");
	assert_string_equal(sums.entries[0].file, "shop-1.4.2.tar.zst");
	assert_memory_equal(sums.entries[0].sha256, sum, sizeof(sum));
	sums_done(&sums);
	assert_null(sums.entries);
	assert_int_equal(sums.count, 0);
}

static void newest_version_comes_first(void **state)
{
	struct sums sums =
		parsed(SUM_A "  shop-1.9.tar\n" SUM_A "  shop-2.0-rc1.tar\n" SUM_A
			     "  shop-1.10.tar\n" SUM_A "  shop-2.0.tar\n");
	static const char *const order[] = {"2.0", "2.0-rc1", "1.10", "1.9"};

	assert_int_equal(sums.count, 4);
	for (size_t i = 0; i < sums.count; i++)
		assert_string_equal(sums.entries[i].version, order[i]);
	sums_done(&sums);
}

static void every_ending_is_known_and_no_other(void **state)
{
	char text[1024] = "";
	struct sums sums;
	size_t count = 0;

	for (; package_endings[count]; count++) {
		size_t used = strlen(text);

		snprintf(text + used, sizeof(text) - used, SUM_A "  shop-%zu%s\n", count,
			 package_endings[count]);
	}
	assert_int_equal(count, 6);
	sums = parsed(text);
	assert_int_equal(sums.count, count);
	assert_string_equal(sums_find(&sums, "0")->file, "shop-0.tar.zst");
	assert_string_equal(sums_find(&sums, "5")->file, "shop-5.zip");
	sums_done(&sums);
	assert_none(SUM_A "  shop-1.tgz\n" SUM_A "  shop-1.tar.zst.asc\n" SUM_A
			  "  shop-1\n");
}

static void binary_mark_crlf_comments_and_blank_lines_are_allowed(void **state)
{
	struct sums sums = parsed("# made by ci\r\n\r\n \t\n" SUM_A
				  " *./shop-1.tar.gz\r\n" SUM_B "  ./shop-2.zip");

	assert_int_equal(sums.count, 2);
	assert_string_equal(sums.entries[0].file, "shop-2.zip");
	assert_string_equal(sums.entries[1].file, "shop-1.tar.gz");
	sums_done(&sums);
}

static void empty_list_has_no_entries(void **state)
{
	assert_none("");
	assert_none("\n\n# nothing yet\n");
}

static void other_names_are_passed_over(void **state)
{
	assert_none(SUM_A "  README\n" SUM_A "  shop2-1.tar\n" SUM_A
			  "  other-1.tar\n" SUM_A "  shop-.tar\n" SUM_A
			  "  shop.tar\n" SUM_A "  s\n");
	assert_none(SUM_A "  old/shop-1.tar\n" SUM_A "  shop-1/2.tar\n" SUM_A
			  "  shop- 1.tar\n" SUM_A "  shop-..tar\n");
	assert_none("\\" SUM_A "  shop-1\\n2.tar\n");
}

static void version_longer_than_a_name_is_passed_over(void **state)
{
	char text[400];

	snprintf(text, sizeof(text), SUM_A "  shop-%0129d.tar\n", 1);
	assert_none(text);
}

static void same_line_twice_counts_once(void **state)
{
	struct sums sums = parsed(SUM_A "  shop-1.tar\n" SUM_A "  shop-2.tar\n" SUM_A
					" *./shop-1.tar\n");

	assert_int_equal(sums.count, 2);
	sums_done(&sums);
}

static void one_version_with_two_sums_is_refused(void **state)
{
	assert_refused(SUM_A "  shop-1.tar\n" SUM_A "  shop-2.tar\n" SUM_B
			     "  shop-1.tar\n",
		       "lines 1 and 3 list the version '1' with different checksums or "
		       "endings");
}

static void one_version_with_two_endings_is_refused(void **state)
{
	assert_refused(SUM_A "  shop-1.tar\n" SUM_A "  shop-1.zip\n",
		       "lines 1 and 2 list the version '1' with different checksums or "
		       "endings");
}

static void web_page_is_refused_and_called_so(void **state)
{
	assert_refused("<!DOCTYPE html>\n<html>404</html>\n",
		       "line 1 is not 'SHA256  FILE': this looks like a web page");
	assert_refused("\r\n  <html>\n",
		       "line 2 is not 'SHA256  FILE': this looks like a web page");
}

static void malformed_line_is_named(void **state)
{
	static const char *const lines[] = {
		"x",
		SUM_A,
		SUM_A "  ",
		SUM_A " shop-1.tar",
		SUM_A "\t\tshop-1.tar",
		SUM_A " -shop-1.tar",
		" " SUM_A "  shop-1.tar",
		"g" SUM_A "  shop-1.tar",
		"d41d8cd98f00b204e9800998ecf8427e  shop-1.tar",
		"SHA256 (shop-1.tar) = 00",
		"\\",
	};
	char text[512];

	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		snprintf(text, sizeof(text), "# list\n" SUM_A "  shop-1.tar\n%s\n",
			 lines[i]);
		assert_refused(text, "line 3 is not 'SHA256  FILE'");
	}
}

static void list_of_100000_lines_is_read_and_one_more_refused(void **state)
{
	char *text = calloc(1, 100002);
	struct sums sums;

	assert_non_null(text);
	memset(text, '\n', 100000);
	sums = parsed(text);
	assert_int_equal(sums.count, 0);
	sums_done(&sums);
	text[100000] = '#';
	assert_refused(text, "more than 100000 lines");
	free(text);
}

static void version_that_is_not_listed_is_not_found(void **state)
{
	struct sums sums = parsed(SUM_A "  shop-1.0.tar\n");

	assert_ptr_equal(sums_find(&sums, "1.0"), &sums.entries[0]);
	assert_null(sums_find(&sums, "1"));
	sums_done(&sums);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(line_gives_version_file_and_sum),
		cmocka_unit_test(newest_version_comes_first),
		cmocka_unit_test(every_ending_is_known_and_no_other),
		cmocka_unit_test(binary_mark_crlf_comments_and_blank_lines_are_allowed),
		cmocka_unit_test(empty_list_has_no_entries),
		cmocka_unit_test(other_names_are_passed_over),
		cmocka_unit_test(version_longer_than_a_name_is_passed_over),
		cmocka_unit_test(same_line_twice_counts_once),
		cmocka_unit_test(one_version_with_two_sums_is_refused),
		cmocka_unit_test(one_version_with_two_endings_is_refused),
		cmocka_unit_test(web_page_is_refused_and_called_so),
		cmocka_unit_test(malformed_line_is_named),
		cmocka_unit_test(list_of_100000_lines_is_read_and_one_more_refused),
		cmocka_unit_test(version_that_is_not_listed_is_not_found),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

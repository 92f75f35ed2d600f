/* SPDX-License-Identifier: Apache-2.0 */
#include "name.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void plain_names_are_valid(void **state)
{
	static const char *const names[] = {"shop",  "a",         "0",
					    "1.4.2", "A-b_c+d.e", "x..y"};

	for (size_t i = 0; i < COUNT(names); i++)
		assert_true(name_valid(names[i]));
}

static void names_that_could_leave_a_path_are_refused(void **state)
{
	static const char *const names[] = {"",     ".",    "..",    ".hidden",
					    "-x",   "_x",   "+x",    "a/b",
					    "a b",  "a\nb", "a\x7f", "caf\xc3\xa9",
					    "a%2f", "a:b"};

	for (size_t i = 0; i < COUNT(names); i++)
		assert_false(name_valid(names[i]));
}

static void a_name_has_at_most_128_characters(void **state)
{
	char name[NAME_LENGTH_MAX + 2];

	memset(name, 'x', sizeof(name));
	name[NAME_LENGTH_MAX] = '\0';
	assert_true(name_valid(name));
	name[NAME_LENGTH_MAX] = 'x';
	name[NAME_LENGTH_MAX + 1] = '\0';
	assert_false(name_valid(name));
}

/* Each is smaller than all that follow: with every pair compared both ways, this also
 * shows that the order is transitive. */
static const char *const ascending[] = {
	"0.9",
	"1.0-alpha",
	"1.0-alpha.1",
	"1.0-alpha.beta",
	"1.0-beta",
	"1.0-beta.2",
	"1.0-beta.11",
	"1.0-nightly20260101",
	"1.0-rc1",
	"1.0-rc2",
	"1.0rc10",
	"1.0-SNAPSHOT",
	"1.0",
	"1.0+build.9",
	"1.0+build.10",
	"1.0-1",
	"1.0-2",
	"1.0-hotfix1",
	"1.0.0",
	"1.0.1.dev3",
	"1.0.1",
	"1.01",
	"1.1",
	"1.9",
	"1.10",
	"1.18446744073709551615",
	"1.18446744073709551616",
	"1.99999999999999999999999999",
	"2.0-rc1",
	"2.0-rc1+x",
	"2.0",
	"2.0.1",
	"2026.01.05",
	"2026.1.6",
	"stable",
	"stable-1",
	"v1.0-rc1",
	"v1.0",
	"v1.0.1",
};

static void versions_have_the_order_people_expect(void **state)
{
	for (size_t i = 0; i < COUNT(ascending); i++) {
		for (size_t j = 0; j < COUNT(ascending); j++) {
			int order = version_compare(ascending[i], ascending[j]);

			if ((i < j && order >= 0) || (i > j && order <= 0) ||
			    (i == j && order != 0))
				fail_msg("'%s' and '%s' compare as %d", ascending[i],
					 ascending[j], order);
		}
	}
}

static void only_equal_strings_compare_as_equal(void **state)
{
	assert_int_not_equal(version_compare("1.0", "1.00"), 0);
	assert_int_not_equal(version_compare("1.0rc1", "1.0-rc1"), 0);
	assert_int_not_equal(version_compare("1.0-RC1", "1.0-rc1"), 0);
	assert_int_not_equal(version_compare("1.0+", "1.0"), 0);
	assert_int_equal(version_compare("1.0-rc1+b", "1.0-rc1+b"), 0);
}

static void prereleases_are_recognised(void **state)
{
	static const char *const versions[] = {
		"2.0-rc1",      "2.0rc1",      "1.0.dev3",  "3.0-beta",
		"1.0a1",        "1.0-b.2",     "1.0-alpha", "1.0-pre",
		"1.0-preview2", "1.0_rc_1",    "1.0-RC1",   "1-SNAPSHOT",
		"v2.0-rc.1",    "1.0-nightly", "1.0-rc1+x", "1.0-hotfix.rc1",
	};

	for (size_t i = 0; i < COUNT(versions); i++)
		if (!version_is_prerelease(versions[i]))
			fail_msg("'%s' is a pre-release", versions[i]);
}

static void releases_are_not_taken_for_prereleases(void **state)
{
	static const char *const versions[] = {
		"1.0",      "1.0-1",      "1.0+rc1",    "1.0-developer",
		"1.0-arch", "1.0-bugfix", "stable",     "beta",
		"alpha-1",  "x-rc1",      "beta-1.0",   "1.0-hotfix",
		"1.0-xrc1", "1.0.final",  "2026.01.05", "",
	};

	for (size_t i = 0; i < COUNT(versions); i++)
		if (version_is_prerelease(versions[i]))
			fail_msg("'%s' is not a pre-release", versions[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(plain_names_are_valid),
		cmocka_unit_test(names_that_could_leave_a_path_are_refused),
		cmocka_unit_test(a_name_has_at_most_128_characters),
		cmocka_unit_test(versions_have_the_order_people_expect),
		cmocka_unit_test(only_equal_strings_compare_as_equal),
		cmocka_unit_test(prereleases_are_recognised),
		cmocka_unit_test(releases_are_not_taken_for_prereleases),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "cleanup.h"
#include "config.h"
#include "fd.h"

#include <errno.h>
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

#define GIB      (UINT64_C(1) << 30)
#define TEXT_MAX (1024 * 1024)

DEFINE_CLEANUP(struct config, config_free)

static char folder[] = "/tmp/test-config-XXXXXX";
static char file[sizeof(folder) + 16];

/* How many more allocations succeed; all do while it is negative. */
static int allocations_left = -1;

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
char *__real_strdup(const char *text);
char *__wrap_strdup(const char *text);

static bool allocation_fails(void)
{
	if (allocations_left < 0)
		return false;
	if (allocations_left == 0)
		return true;
	allocations_left--;
	return false;
}

void *__wrap_calloc(size_t count, size_t size)
{
	return allocation_fails() ? NULL : __real_calloc(count, size);
}

char *__wrap_strdup(const char *text)
{
	return allocation_fails() ? NULL : __real_strdup(text);
}

static void write_file(const char *text, size_t size)
{
	FILE *stream = fopen(file, "w");

	assert_non_null(stream);
	assert_int_equal(fwrite(text, 1, size, stream), size);
	assert_int_equal(fclose(stream), 0);
}

static struct config *loaded(const char *text)
{
	struct error err = {.text = ""};
	struct config *config = NULL;
	int r;

	write_file(text, strlen(text));
	r = config_load(file, true, &config, &err);
	assert_string_equal(err.text, "");
	assert_int_equal(r, 0);
	return config;
}

static void assert_refused_bytes(const char *text, size_t size, const char *expected)
{
	struct config untouched, *config = &untouched;
	struct error err;

	write_file(text, size);
	assert_int_equal(config_load(file, true, &config, &err), -EINVAL);
	assert_string_equal(err.text, expected);
	assert_ptr_equal(config, &untouched);
}

static void assert_refused(const char *text, unsigned line, const char *why)
{
	char expected[ERROR_TEXT_MAX];

	snprintf(expected, sizeof(expected), "%s:%u: %s", file, line, why);
	assert_refused_bytes(text, strlen(text), expected);
}

static void assert_default_app(const struct app_config *app)
{
	assert_string_equal(app->name, "");
	assert_true(app->verify);
	assert_false(app->contained);
	assert_int_equal(app->uid, 0);
	assert_int_equal(app->gid, 0);
	assert_int_equal(app->keep, 3);
	assert_int_equal(app->unpack_limit, 0);
}

/* All that has a default that can be written down. */
static void assert_default_keys(const struct config *config)
{
	assert_string_equal(config->mount, "/srv/deployfs");
	assert_string_equal(config->store, "/var/lib/deployfs");
	assert_string_equal(config->runtime, "/run/deployfs");
	assert_string_equal(config->socket, "/run/deployfs/deployfs.sock");
	assert_string_equal(config->group, "deployfs");
	assert_string_equal(config->credentials, "/etc/deployfs/credentials");
	assert_string_equal(config->known_hosts, "/etc/deployfs/known_hosts");
	assert_int_equal(config->reserve_bytes, GIB);
	assert_int_equal(config->connect_timeout_ms, 10000);
	assert_int_equal(config->stall_timeout_ms, 30000);
	assert_default_app(&config->defaults);
}

static void assert_defaults(const struct config *config)
{
	assert_default_keys(config);
	assert_null(config->ca_file);
	assert_int_equal(config->reserve_percent, 3);
	assert_null(config->defaults.origins[0]);
	assert_int_equal(config->app_count, 0);
}

static void missing_file_gives_the_defaults_if_it_may_be_missing(void **state)
{
	cleanup(config_free_ptr) struct config *config = NULL;
	struct error err;

	unlink(file);
	assert_int_equal(config_load(file, false, &config, &err), 0);
	assert_null(config->path);
	assert_defaults(config);
}

static void missing_file_is_an_error_if_it_must_exist(void **state)
{
	char expected[ERROR_TEXT_MAX];
	struct config *config = NULL;
	struct error err;

	unlink(file);
	assert_int_equal(config_load(file, true, &config, &err), -ENOENT);
	snprintf(expected, sizeof(expected),
		 "cannot read '%s': No such file or directory", file);
	assert_string_equal(err.text, expected);
	assert_null(config);
	assert_int_equal(config_load(folder, false, &config, &err), -EISDIR);
}

static void file_without_keys_gives_the_defaults(void **state)
{
	static const char *const texts[] = {"", "\n", "# nothing\n# yet\n", "---\n",
					    "{}\n"};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		cleanup(config_free_ptr) struct config *config = loaded(texts[i]);

		assert_string_equal(config->path, file);
		assert_defaults(config);
	}
}

static void one_line_is_a_complete_configuration(void **state)
{
	cleanup(config_free_ptr) struct config *config =
		loaded("origin: ftp://files.example/packages\n");

	assert_string_equal(config->defaults.origins[0], "ftp://files.example/packages");
	assert_null(config->defaults.origins[1]);
}

static void every_key_is_read(void **state)
{
	cleanup(config_free_ptr) struct config *config =
		loaded("mount: /a\nstore: /b\nruntime: /c\ngroup: staff\nkeep: 1000\n"
		       "reserve: 500MiB\nconnect_timeout: 500ms\nstall_timeout: 5 min\n"
		       "credentials: /d\nknown_hosts: /e\nca_file: /f\n"
		       "origin: [https://x.example/y, /mnt/usb]\n"
		       "apps:\n"
		       "- {name: shop, verify: off, symlinks: contained, owner: 7:8,\n"
		       "   keep: 0, unpack_limit: 1TiB, origin: []}\n");
	const struct app_config *app = config_app(config, "shop");

	assert_string_equal(config->mount, "/a");
	assert_string_equal(config->store, "/b");
	assert_string_equal(config->runtime, "/c");
	assert_string_equal(config->socket, "/c/deployfs.sock");
	assert_string_equal(config->group, "staff");
	assert_string_equal(config->credentials, "/d");
	assert_string_equal(config->known_hosts, "/e");
	assert_string_equal(config->ca_file, "/f");
	assert_int_equal(config->reserve_bytes, 500 << 20);
	assert_int_equal(config->reserve_percent, 0);
	assert_int_equal(config->connect_timeout_ms, 500);
	assert_int_equal(config->stall_timeout_ms, 300000);
	assert_int_equal(config->defaults.keep, 1000);
	assert_string_equal(config->defaults.origins[0], "https://x.example/y");
	assert_string_equal(config->defaults.origins[1], "/mnt/usb");
	assert_null(config->defaults.origins[2]);
	assert_string_equal(app->name, "shop");
	assert_false(app->verify);
	assert_true(app->contained);
	assert_int_equal(app->uid, 7);
	assert_int_equal(app->gid, 8);
	assert_int_equal(app->keep, 0);
	assert_int_equal(app->unpack_limit, 1024 * GIB);
	assert_null(app->origins[0]);
}

static void application_has_the_defaults_but_for_its_exceptions(void **state)
{
	cleanup(config_free_ptr) struct config *config =
		loaded("apps:\n- name: shop\n  keep: 9\n- name: legacy\n"
		       "  origin: /mnt/usb\norigin: http://a.example\nkeep: 5\n");
	const struct app_config *shop = config_app(config, "shop");
	const struct app_config *legacy = config_app(config, "legacy");

	assert_int_equal(config->app_count, 2);
	assert_string_equal(config->apps[0].name, "legacy");
	assert_int_equal(shop->keep, 9);
	assert_string_equal(shop->origins[0], "http://a.example");
	assert_true(shop->verify);
	assert_int_equal(legacy->keep, 5);
	assert_string_equal(legacy->origins[0], "/mnt/usb");
	assert_null(legacy->origins[1]);
	assert_ptr_equal(config_app(config, "other"), &config->defaults);
	assert_int_equal(config_app(config, "")->keep, 5);
}

static void reserve_is_a_size_or_a_share(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
		unsigned percent;
	} cases[] = {
		{"reserve: 5%\n", 0, 5},  {"reserve: 99 %\n", 0, 99},
		{"reserve: 0\n", 0, 0},   {"reserve: 1.5 GiB\n", GIB * 3 / 2, 0},
		{"reserve: 42\n", 42, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		cleanup(config_free_ptr) struct config *config = loaded(cases[i].text);

		assert_int_equal(config->reserve_bytes, cases[i].bytes);
		assert_int_equal(config->reserve_percent, cases[i].percent);
	}
}

static void paths_are_written_as_the_kernel_shows_them(void **state)
{
	cleanup(config_free_ptr) struct config *config =
		loaded("mount: //srv/./apps/..x//\nstore: /a/.\nca_file: /\n");

	assert_string_equal(config->mount, "/srv/apps/..x");
	assert_string_equal(config->store, "/a");
	assert_string_equal(config->ca_file, "/");
}

static void crlf_and_byte_order_marks_do_no_harm(void **state)
{
	cleanup(config_free_ptr) struct config *config =
		loaded("\xef\xbb\xbforigin: /a\r\nkeep: 4\r\n");

	assert_string_equal(config->defaults.origins[0], "/a");
	assert_int_equal(config->defaults.keep, 4);
}

static void unknown_key_is_refused(void **state)
{
	assert_refused("mount: /a\n\n# x\nmout: /b\n", 4, "unknown key 'mout'");
	assert_refused("warm: maybe\n", 1, "'warm' must be 'on' or 'off'");
	assert_refused("verify: off\n", 1, "unknown key 'verify'");
	assert_refused("apps:\n- name: a\n  mount: /a\n", 3, "unknown key 'mount'");
	assert_refused("<<: {mount: /a}\n", 1, "unknown key '<<'");
	assert_refused("? [a]\n: b\n", 1, "a key must be a word");
}

static void wrong_type_is_refused(void **state)
{
	static const char mapping[] =
		"the file must be a mapping, of lines like 'key: value'";

	assert_refused("\n- a\n", 2, mapping);
	assert_refused("x\n", 1, mapping);
	assert_refused("\"\"\n", 1, mapping);
	assert_refused("keep: 3\nmount: [/a]\n", 2, "'mount' must be a single value");
	assert_refused("mount:\n  a: b\n", 2, "'mount' must be a single value");
	assert_refused("keep: 3\napps: shop\n", 2, "'apps' must be a list");
	assert_refused("apps:\nkeep: 3\n", 1, "'apps' must be a list");
	assert_refused("apps:\n- name: a\n- shop\n", 3,
		       "an entry of 'apps' must be a mapping with a 'name'");
	assert_refused("apps:\n- name: a\n  verify: [on]\n", 3,
		       "'verify' must be a single value");
	assert_refused("origin:\n  a: b\n", 2,
		       "'origin' must be a URL or a list of URLs");
	assert_refused("origin:\n- /a\n- [/b]\n", 3,
		       "an entry of 'origin' must be a URL");
}

static void words_are_strict(void **state)
{
	static const char *const words[] = {"yes", "true", "1", "ON", "\"\"", "~"};
	char text[64];

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		snprintf(text, sizeof(text), "apps:\n- name: a\n  verify: %s\n",
			 words[i]);
		assert_refused(text, 3, "'verify' must be 'on' or 'off'");
	}
	assert_refused("apps:\n- name: a\n  keep: 1\n  symlinks: all\n", 4,
		       "'symlinks' must be 'any' or 'contained'");
}

static void key_that_stands_twice_is_refused(void **state)
{
	assert_refused("mount: /a\nkeep: 3\nmount: /a\n", 3,
		       "'mount' stands here a second time");
	assert_refused("origin: /a\norigin: /b\n", 2,
		       "'origin' stands here a second time");
	assert_refused("apps:\n- name: a\n  keep: 1\n  keep: 2\n", 4,
		       "'keep' stands here a second time");
}

static void bad_number_is_refused(void **state)
{
	static const char *const numbers[] = {
		"1001",   "-1",   "+1",
		"3.5",    "0x10", "010",
		"three",  "\"\"", "99999999999999999999",
		"\"3 \"",
	};
	char text[64];

	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		snprintf(text, sizeof(text), "mount: /a\nkeep: %s\n", numbers[i]);
		assert_refused(text, 2, "'keep' must be a number from 0 to 1000");
	}
	assert_refused("keep:\nmount: /a\n", 1, "'keep' must be a number from 0 to 1000");
	assert_refused("apps:\n- name: a\n  keep: many\n", 3,
		       "'keep' must be a number from 0 to 1000");
}

static void bad_unit_is_refused(void **state)
{
	static const char reserve[] = "'reserve' must be a size like 500MiB, or a share "
				      "like 5%, at most 99%";

	assert_refused("\nreserve: 5 GiBs\n", 2, reserve);
	assert_refused("reserve: 100%\n", 1, reserve);
	assert_refused("reserve: \"%\"\n", 1, reserve);
	assert_refused("reserve: -1GiB\n", 1, reserve);
	assert_refused("connect_timeout: 10\n", 1,
		       "'connect_timeout' must be a duration like 500ms or 30s");
	assert_refused("connect_timeout: 0s\n", 1,
		       "'connect_timeout' must be a duration like 500ms or 30s");
	assert_refused("keep: 1\nstall_timeout: 1 fortnight\n", 2,
		       "'stall_timeout' must be a duration like 500ms or 30s");
	assert_refused("apps:\n- name: a\n  unpack_limit: all\n", 3,
		       "'unpack_limit' must be a size like 10GiB");
	assert_refused("apps:\n- name: a\n  unpack_limit: 0\n", 3,
		       "'unpack_limit' must be a size like 10GiB");
}

static void bad_path_is_refused(void **state)
{
	char text[5000] = "mount: /";

	assert_refused("keep: 1\nmount: srv\n", 2, "'mount' must be an absolute path");
	assert_refused("ca_file:\n", 1, "'ca_file' must be an absolute path");
	assert_refused("credentials: ~/x\n", 1, "'credentials' must be an absolute path");
	assert_refused("known_hosts: /a/../b\n", 1,
		       "'known_hosts' must be a path without '..'");
	assert_refused("store: /a/..\n", 1, "'store' must be a path without '..'");
	assert_refused("store: //\n", 1, "'store' must not be '/'");
	memset(text + 8, 'a', 4095);
	assert_refused(text, 1, "'mount' must be a shorter path");
}

static void runtime_that_is_too_long_for_a_socket_is_refused(void **state)
{
	char text[200] = "runtime: /";

	memset(text + 10, 'a', 93);
	assert_refused(text, 1,
		       "'runtime' must be a shorter path: the socket's may have 107 "
		       "bytes");
	text[10 + 92] = '\0';
	config_free(loaded(text));
}

static void bad_name_is_refused(void **state)
{
	static const char name[] = "'name' must be letters, digits and '._+-', at most "
				   "128 of them, the first a letter or digit";

	assert_refused("apps:\n- name: a\n- name: ../b\n", 3, name);
	assert_refused("apps:\n- name:\n  keep: 3\n", 2, name);
	assert_refused("keep: 3\ngroup: a:b\n", 2, "'group' must be the name of a group");
	assert_refused("group: \"\"\n", 1, "'group' must be the name of a group");
}

static void missing_name_is_refused(void **state)
{
	assert_refused("apps:\n- name: a\n- keep: 1\n", 3, "'name' is missing");
	assert_refused("apps:\n- {}\n", 2, "'name' is missing");
}

static void application_named_twice_is_refused(void **state)
{
	assert_refused("apps:\n- name: b\n- name: a\n- keep: 1\n  name: b\n", 5,
		       "the application 'b' stands here a second time");
}

static void bad_owner_is_refused(void **state)
{
	static const char *const owners[] = {
		"root", "1000", "1000:",        ":1",  "1:2:3",
		"a:b",  "-1:0", "0:4294967295", "0: 0"};
	char text[64];

	for (size_t i = 0; i < sizeof(owners) / sizeof(owners[0]); i++) {
		snprintf(text, sizeof(text), "apps:\n- name: a\n  owner: \"%s\"\n",
			 owners[i]);
		assert_refused(text, 3, "'owner' must be UID:GID, like 1000:1000");
	}
	config_free(loaded("apps:\n- name: a\n  owner: 4294967294:0\n"));
}

static void bad_origin_is_refused_on_its_own_line(void **state)
{
	assert_refused("origin:\n- /a\n- smb://nas/x\n", 3,
		       "'origin': unknown URL scheme 'smb': use ftp, ftps, sftp, http, "
		       "https, nfs, file or an absolute path");
	assert_refused("origin: packages\n", 1,
		       "'origin': neither a URL nor an absolute path");
	assert_refused("origin:\nkeep: 1\n", 1,
		       "'origin': neither a URL nor an absolute path");
	assert_refused("origin: /a/../b\n", 1, "'origin' must be a path without '..'");
	assert_refused("apps:\n- name: a\n  origin: x\n", 3,
		       "'origin': neither a URL nor an absolute path");
}

static void url_with_a_password_is_refused_and_not_shown(void **state)
{
	assert_refused("origin: ftp://deploy:s3cret@files.example/\n", 1,
		       "'origin': the URL contains a user or password: these belong in "
		       "the credentials file");
}

static void text_that_is_no_yaml_is_refused(void **state)
{
	char nul[] = "keep: 3\nmount: /a\0b\n", expected[ERROR_TEXT_MAX];

	assert_refused("keep: 3\nmount: [/a\n", 3,
		       "not YAML: did not find expected ',' or ']'");
	assert_refused("keep: 3\n\tmount: /a\n", 2,
		       "not YAML: found a tab character that violates indentation");
	assert_refused("keep: 3\nmount: \"\xff\"\n", 2,
		       "not YAML: invalid leading UTF-8 octet");
	snprintf(expected, sizeof(expected),
		 "%s:2: not YAML: control characters are not allowed", file);
	assert_refused_bytes(nul, sizeof(nul) - 1, expected);
}

static void control_character_in_a_value_is_refused(void **state)
{
	static const char why[] = "a value contains a line break or a control character";

	assert_refused("keep: 3\nmount: \"/a\\0b\"\n", 2, why);
	assert_refused("mount: |\n  /a\n", 1, why);
	assert_refused("origin:\n- /a\n- \"/b\\x7f\"\n", 3, why);
}

static void anchors_aliases_and_tags_are_refused(void **state)
{
	static const char why[] = "anchors, aliases and tags are not supported";

	assert_refused("mount: &a /a\n", 1, why);
	assert_refused("keep: 3\nmount: *a\n", 2, why);
	assert_refused("apps: &a []\n", 1, why);
	assert_refused("apps: !!set []\n", 1, why);
	assert_refused("&a {}\n", 1, why);
	assert_refused("!x {}\n", 1, why);
	assert_refused("keep: !!int 3\n", 1, why);
}

static void second_document_is_refused(void **state)
{
	assert_refused("keep: 3\n---\nkeep: 4\n", 2, "a second document");
}

static void deep_nesting_is_refused(void **state)
{
	static char text[TEXT_MAX];

	memset(text, '[', sizeof(text) - 1);
	assert_refused(text, 1, "nested too deeply");
	assert_refused("apps:\n- name: a\n  origin:\n  - [b]\n", 4, "nested too deeply");
}

static void file_larger_than_1_mib_is_refused(void **state)
{
	char expected[ERROR_TEXT_MAX];
	static char text[TEXT_MAX + 1];

	memset(text, '#', sizeof(text));
	snprintf(expected, sizeof(expected), "'%s' is larger than 1 MiB", file);
	assert_refused_bytes(text, sizeof(text), expected);
}

static void too_many_applications_are_refused_with_their_line(void **state)
{
	char *text = calloc(16, 2002), *end = text;

	assert_non_null(text);
	end = stpcpy(end, "keep: 3\napps:\n");
	for (int i = 0; i < 2001; i++)
		end += sprintf(end, "- name: a%d\n", i);
	assert_refused(text, 2003, "Load: Excessive entries (2000 max) in sequence.");
	free(text);
}

static void several_problems_are_told_at_once(void **state)
{
	char expected[ERROR_TEXT_MAX];
	const char *text = "mount: a\nkeep: 3\ngroup: ':'\n";

	snprintf(expected, sizeof(expected),
		 "%s:1: 'mount' must be an absolute path; "
		 "%s:3: 'group' must be the name of a group",
		 file, file);
	assert_refused_bytes(text, strlen(text), expected);
}

static void thousands_of_problems_fit_in_the_error(void **state)
{
	char text[30000] = "";
	struct config *config = NULL;
	struct error err;

	for (size_t i = 0; i + 3 < sizeof(text); i += 3)
		memcpy(text + i, "a:\n", 3);
	write_file(text, strlen(text));
	assert_int_equal(config_load(file, true, &config, &err), -EINVAL);
	assert_non_null(strstr(err.text, ":10: unknown key 'a'"));
	assert_null(strstr(err.text, ":11:"));
}

static void every_failed_allocation_is_returned_as_out_of_memory(void **state)
{
	static const char text[] = "origin: [/a, /b]\nca_file: /c\napps:\n- name: a\n"
				   "- name: b\n  origin: /d\n";
	struct config *config = NULL;
	struct error err;
	int count = 0, r;

	write_file(text, strlen(text));
	do {
		allocations_left = count++;
		r = config_load(file, true, &config, &err);
		allocations_left = -1;
		if (r < 0)
			assert_int_equal(r, -ENOMEM);
	} while (r < 0);
	assert_true(count > 15);
	config_free(config);
}

static char *read_example(void)
{
	const char *source = getenv("DEPLOYFS_SOURCE");
	char path[4096], *text = NULL;

	snprintf(path, sizeof(path), "%s/examples/deployfs.yaml", source ? source : ".");
	assert_int_equal(file_read(path, TEXT_MAX, &text, NULL), 0);
	return text;
}

/* A setting follows its '#' at once or, inside of 'apps', after two blanks; prose after
 * one. */
static bool is_setting(const char *line)
{
	size_t blanks = strspn(line + 1, " ");

	return line[0] == '#' && line[1 + blanks] != '\n' && blanks % 2 == 0;
}

/* Takes the '#' away in place. */
static void uncomment(char *text)
{
	char *to = text;

	for (const char *line = text; *line;) {
		size_t size = strcspn(line, "\n") + 1;
		size_t sign = is_setting(line) ? 1 : 0;

		memmove(to, line + sign, size - sign);
		to += size - sign;
		line += size;
	}
	*to = '\0';
}

static void example_as_it_is_gives_the_defaults(void **state)
{
	cleanup(free_ptr) char *text = read_example();
	cleanup(config_free_ptr) struct config *config = loaded(text);

	assert_defaults(config);
}

static void example_with_every_key_gives_the_defaults_too(void **state)
{
	cleanup(config_free_ptr) struct config *config = NULL;
	cleanup(free_ptr) char *text = read_example();

	uncomment(text);
	config = loaded(text);
	assert_default_keys(config);
	assert_string_equal(config->defaults.origins[0], "ftp://files.example/packages");
	assert_non_null(config->ca_file);
	assert_int_equal(config->app_count, 1);
	assert_string_equal(config->apps[0].name, "shop");
	assert_non_null(config->apps[0].origins[1]);
	assert_int_equal(config->apps[0].unpack_limit, 10 * GIB);
}

static int make_folder(void **state)
{
	if (!mkdtemp(folder))
		return -1;
	snprintf(file, sizeof(file), "%s/deployfs.yaml", folder);
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
		cmocka_unit_test(missing_file_gives_the_defaults_if_it_may_be_missing),
		cmocka_unit_test(missing_file_is_an_error_if_it_must_exist),
		cmocka_unit_test(file_without_keys_gives_the_defaults),
		cmocka_unit_test(one_line_is_a_complete_configuration),
		cmocka_unit_test(every_key_is_read),
		cmocka_unit_test(application_has_the_defaults_but_for_its_exceptions),
		cmocka_unit_test(reserve_is_a_size_or_a_share),
		cmocka_unit_test(paths_are_written_as_the_kernel_shows_them),
		cmocka_unit_test(crlf_and_byte_order_marks_do_no_harm),
		cmocka_unit_test(unknown_key_is_refused),
		cmocka_unit_test(wrong_type_is_refused),
		cmocka_unit_test(words_are_strict),
		cmocka_unit_test(key_that_stands_twice_is_refused),
		cmocka_unit_test(bad_number_is_refused),
		cmocka_unit_test(bad_unit_is_refused),
		cmocka_unit_test(bad_path_is_refused),
		cmocka_unit_test(runtime_that_is_too_long_for_a_socket_is_refused),
		cmocka_unit_test(bad_name_is_refused),
		cmocka_unit_test(missing_name_is_refused),
		cmocka_unit_test(application_named_twice_is_refused),
		cmocka_unit_test(bad_owner_is_refused),
		cmocka_unit_test(bad_origin_is_refused_on_its_own_line),
		cmocka_unit_test(url_with_a_password_is_refused_and_not_shown),
		cmocka_unit_test(text_that_is_no_yaml_is_refused),
		cmocka_unit_test(control_character_in_a_value_is_refused),
		cmocka_unit_test(anchors_aliases_and_tags_are_refused),
		cmocka_unit_test(second_document_is_refused),
		cmocka_unit_test(deep_nesting_is_refused),
		cmocka_unit_test(file_larger_than_1_mib_is_refused),
		cmocka_unit_test(too_many_applications_are_refused_with_their_line),
		cmocka_unit_test(several_problems_are_told_at_once),
		cmocka_unit_test(thousands_of_problems_fit_in_the_error),
		cmocka_unit_test(every_failed_allocation_is_returned_as_out_of_memory),
		cmocka_unit_test(example_as_it_is_gives_the_defaults),
		cmocka_unit_test(example_with_every_key_gives_the_defaults_too),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts from outside, damaged at random: whatever they are, their readers return. The
 * seed is printed; DEPLOYFS_TEST_SEED repeats a run.
 */
#include "config.h"
#include "sums.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define ROUNDS   2000
#define TEXT_MAX 2048

static char folder[] = "/tmp/test-mutations-XXXXXX";
static char file[sizeof(folder) + 16];

static const char config_text[] = "# mirrors\n"
				  "origin:\n"
				  "- nfs://nas.example:2049/export/packages\n"
				  "- \"https://[::1]:8443/packages\"\n"
				  "mount: /srv/deployfs\n"
				  "keep: 5\n"
				  "reserve: 5 %\n"
				  "connect_timeout: 500ms\n"
				  "apps:\n"
				  "- name: shop\n"
				  "  owner: 1000:1000\n"
				  "  verify: off\n"
				  "- {name: legacy, origin: [/mnt/usb], symlinks: any}\n";

static const char sums_text[] =
	"# made by ci\r\n"
	"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa  shop-1.0.tar\n"
	"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb *./shop-2.zip\n"
	"\n"
	"cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc  README\n";

/* Damage of one to eight steps in place; the text stays within @room. */
static size_t mutate(char *text, size_t size, size_t room, unsigned *seed)
{
	static const char marks[] = "\n:-[]{}&*!|>'\"#%@/\\ \t\r0aA";

	for (int steps = 1 + rand_r(seed) % 8; steps > 0 && size > 1; steps--) {
		size_t at = (size_t)rand_r(seed) % size;
		size_t length = 1 + (size_t)rand_r(seed) % (size - at);

		switch (rand_r(seed) % 5) {
		case 0:
			text[at] ^= (char)(1 << rand_r(seed) % 8);
			break;
		case 1:
			text[at] = marks[(size_t)rand_r(seed) % (sizeof(marks) - 1)];
			break;
		case 2:
			memmove(text + at, text + at + length, size - at - length);
			size -= length;
			break;
		case 3:
			if (size + length > room)
				break;
			memmove(text + at + length, text + at, size - at);
			size += length;
			break;
		default:
			size = at;
		}
	}
	return size;
}

static void feed_config(const char *text, size_t size)
{
	struct config *config = NULL;
	struct error err = {.text = ""};
	FILE *stream = fopen(file, "w");
	int r;

	assert_non_null(stream);
	assert_int_equal(fwrite(text, 1, size, stream), size);
	assert_int_equal(fclose(stream), 0);
	r = config_load(file, true, &config, &err);
	assert_true(r < 0 ? !config && err.text[0] : !!config);
	config_free(config);
}

static void feed_sums(const char *text)
{
	struct error err = {.text = ""};
	struct sums sums = {0};
	int r;

	r = sums_parse(text, "shop", &sums, &err);
	assert_true(r < 0 ? !sums.entries && err.text[0] : !!sums.entries);
	sums_done(&sums);
}

static void readers_return_whatever_they_are_given(void **state)
{
	const char *given = getenv("DEPLOYFS_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);
	char text[TEXT_MAX + 1];

	print_message("DEPLOYFS_TEST_SEED=%u\n", seed);
	for (int round = 0; round < ROUNDS; round++) {
		size_t size = sizeof(config_text) - 1;

		memcpy(text, config_text, size);
		feed_config(text, mutate(text, size, TEXT_MAX, &seed));
		size = sizeof(sums_text) - 1;
		memcpy(text, sums_text, size);
		text[mutate(text, size, TEXT_MAX, &seed)] = '\0';
		feed_sums(text);
	}
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
		cmocka_unit_test(readers_return_whatever_they_are_given),
	};

	return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

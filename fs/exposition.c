/* SPDX-License-Identifier: Apache-2.0 */
#include "exposition.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S 1000000000

int exposition_open(struct exposition *e)
{
	*e = (struct exposition){0};
	e->file = open_memstream(&e->text, &e->size);
	return e->file ? 0 : -ENOMEM;
}

int exposition_close(struct exposition *e, char **ret)
{
	int failed = ferror(e->file);

	if (fclose(e->file) != 0 || failed) {
		free(e->text);
		return -ENOMEM;
	}
	*ret = e->text;
	return 0;
}

void exposition_family(struct exposition *e, const char *name, const char *type,
		       const char *help)
{
	fprintf(e->file, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void put_label(struct exposition *e, char before, const char *name,
		      const char *value)
{
	fprintf(e->file, "%c%s=\"", before, name);
	for (; *value; value++) {
		if (*value == '\n')
			fputs("\\n", e->file);
		else if (*value == '\\' || *value == '"')
			fprintf(e->file, "\\%c", *value);
		else
			fputc(*value, e->file);
	}
	fputc('"', e->file);
}

/* {name="value",…}; @le: NULL, or what comes last */
static void put_labels(struct exposition *e, va_list labels, const char *le)
{
	const char *name;
	char before = '{';

	while ((name = va_arg(labels, const char *))) {
		put_label(e, before, name, va_arg(labels, const char *));
		before = ',';
	}
	if (le) {
		put_label(e, before, "le", le);
		before = ',';
	}
	if (before == ',')
		fputc('}', e->file);
}

void exposition_sample(struct exposition *e, const char *name, uint64_t number, ...)
{
	va_list labels;

	fputs(name, e->file);
	va_start(labels, number);
	put_labels(e, labels, NULL);
	va_end(labels);
	fprintf(e->file, " %llu\n", (unsigned long long)number);
}

static void put_buckets(struct exposition *e, const char *name, const struct tally *tally,
			va_list labels)
{
	uint64_t below = 0;

	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		char le[32] = "+Inf";
		va_list again;

		if (i < HISTOGRAM_BOUNDS)
			snprintf(le, sizeof(le), "%llu.%06llu",
				 (unsigned long long)histogram_bound_us(i) / 1000000,
				 (unsigned long long)histogram_bound_us(i) % 1000000);
		below += tally->buckets[i];
		fprintf(e->file, "%s_bucket", name);
		va_copy(again, labels);
		put_labels(e, again, le);
		va_end(again);
		fprintf(e->file, " %llu\n", (unsigned long long)below);
	}
}

void exposition_histogram(struct exposition *e, const char *name,
			  const struct tally *tally, ...)
{
	va_list labels;

	va_start(labels, tally);
	put_buckets(e, name, tally, labels);
	va_end(labels);

	fprintf(e->file, "%s_sum", name);
	va_start(labels, tally);
	put_labels(e, labels, NULL);
	va_end(labels);
	fprintf(e->file, " %llu.%09llu\n", (unsigned long long)tally->sum_ns / NS_PER_S,
		(unsigned long long)tally->sum_ns % NS_PER_S);

	fprintf(e->file, "%s_count", name);
	va_start(labels, tally);
	put_labels(e, labels, NULL);
	va_end(labels);
	fprintf(e->file, " %llu\n", (unsigned long long)tally->count);
}

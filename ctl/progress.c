/* SPDX-License-Identifier: Apache-2.0 */
#include "progress.h"

#include "cleanup.h"
#include "clock.h"
#include "print.h"
#include "size.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PLAIN_PERIOD_MS 5000
#define BAR_WIDTH       10
#define BAR_LINE_MAX    512

static const char *const names[] = {"auto", "bar", "plain", "json", "none"};

bool progress_valid(const char *text)
{
	for (size_t i = 0; text && i < sizeof(names) / sizeof(names[0]); i++)
		if (!strcmp(text, names[i]))
			return true;
	return !text;
}

static enum progress_kind kind_of(const char *text, bool json)
{
	if (text && !strcmp(text, "bar"))
		return PROGRESS_BAR;
	if (text && !strcmp(text, "plain"))
		return PROGRESS_PLAIN;
	if (text && !strcmp(text, "json"))
		return PROGRESS_JSON;
	if ((text && !strcmp(text, "none")) || json)
		return PROGRESS_NONE;
	return isatty(STDERR_FILENO) ? PROGRESS_BAR : PROGRESS_PLAIN;
}

void progress_init(struct progress *progress, const char *text, bool json)
{
	*progress = (struct progress){.kind = kind_of(text, json)};
}

static bool has_percent(const struct job *job)
{
	return job->bytes != JOB_UNKNOWN && job->bytes_total != JOB_UNKNOWN &&
	       job->bytes_total > 0 && job->bytes <= job->bytes_total;
}

static unsigned percent_of(const struct job *job)
{
	return (unsigned)((double)job->bytes * 100 / (double)job->bytes_total);
}

/* Queued, or ended: what it is. Running: at which stage. */
static const char *phase(const struct job *job)
{
	if (strcmp(job->state, "running") != 0 || !job->stage)
		return job->state;
	return job->stage;
}

static void format_amount(const struct job *job, FILE *out)
{
	char text[32];

	if (job->bytes == JOB_UNKNOWN || (job->bytes == 0 && !has_percent(job)))
		return;
	if (has_percent(job))
		fprintf(out, " %u %%,", percent_of(job));
	fprintf(out, " %s", size_format(job->bytes, text));
	if (has_percent(job))
		fprintf(out, " of %s", size_format(job->bytes_total, text));
	if (job->rate != JOB_UNKNOWN)
		fprintf(out, ", %s/s", size_format(job->rate, text));
	if (job->eta_s != JOB_UNKNOWN)
		fprintf(out, ", %s left", duration_format(job->eta_s, text));
}

char *progress_format(const struct job *job)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	fprintf(out, "%s%s%s: %s", job->app, job->version ? " " : "",
		job->version ? job->version : "", phase(job));
	if (!strcmp(job->state, "running"))
		format_amount(job, out);
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}

static void show_plain(struct progress *progress, const struct job *job)
{
	cleanup(free_ptr) char *text = NULL;
	uint64_t now = clock_monotonic_ms();

	if (!strcmp(progress->stage, phase(job)) && now < progress->next_ms)
		return;
	snprintf(progress->stage, sizeof(progress->stage), "%s", phase(job));
	progress->next_ms = now + PLAIN_PERIOD_MS;
	text = progress_format(job);
	if (text)
		print_line(stderr, "%s", text);
}

static size_t terminal_width(void)
{
	struct winsize size;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0 || size.ws_col < 20)
		return 79;
	return size.ws_col - 1U;
}

static void show_bar(struct progress *progress, const struct job *job)
{
	cleanup(free_ptr) char *text = progress_format(job);
	char bar[BAR_WIDTH + 1] = "", line[BAR_LINE_MAX];
	size_t width = terminal_width();

	if (!text)
		return;
	if (has_percent(job) && !strcmp(job->state, "running")) {
		memset(bar, '.', BAR_WIDTH);
		memset(bar, '#', percent_of(job) * BAR_WIDTH / 100);
	}
	snprintf(line, width < sizeof(line) ? width + 1 : sizeof(line), "%s%s%s%s",
		 *bar ? "[" : "", bar, *bar ? "] " : "", text);
	print_clean(line);
	fprintf(stderr, ERASE_LINE "%s", line);
	fflush(stderr);
	progress->bar_shown = true;
}

void progress_show(struct progress *progress, const struct job *job, const json_t *reply)
{
	switch (progress->kind) {
	case PROGRESS_NONE:
		break;
	case PROGRESS_BAR:
		show_bar(progress, job);
		break;
	case PROGRESS_PLAIN:
		show_plain(progress, job);
		break;
	case PROGRESS_JSON:
		print_json(reply);
		break;
	}
}

void progress_end(struct progress *progress, const struct job *job)
{
	if (progress->kind == PROGRESS_PLAIN && job_ended(job))
		show_plain(progress, job);
	if (progress->bar_shown)
		fputs(ERASE_LINE, stderr);
	progress->bar_shown = false;
}

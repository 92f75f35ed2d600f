/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exposition.h - writing Prometheus' text format, version 0.0.4
 *
 * https://prometheus.io/docs/instrumenting/exposition_formats/. Lines of one family of
 * metrics follow each other, behind their HELP and TYPE.
 */
#pragma once

#include "histogram.h"

#include <stdint.h>
#include <stdio.h>

#define EXPOSITION_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

struct exposition {
	FILE *file;
	char *text;
	size_t size;
};

/** exposition_open() - begin. Return: 0; -ENOMEM. */
int exposition_open(struct exposition *e);

/**
 * exposition_close() - end
 * @ret: the whole text, which the caller frees
 * Return: 0; -ENOMEM.
 */
int exposition_close(struct exposition *e, char **ret);

/**
 * exposition_family() - the head of a family of metrics
 * @type: "counter", "gauge" or "histogram"
 * @help: one line without a backslash
 */
void exposition_family(struct exposition *e, const char *name, const char *type,
		       const char *help);

/**
 * exposition_sample() - one line: an integer
 * ...: names and values of labels, any number of pairs, then NULL
 */
void exposition_sample(struct exposition *e, const char *name, uint64_t number, ...)
	__attribute__((sentinel));

/** exposition_histogram() - the lines of a histogram, in seconds; labels as above */
void exposition_histogram(struct exposition *e, const char *name,
			  const struct tally *tally, ...) __attribute__((sentinel));

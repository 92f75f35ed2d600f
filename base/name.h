/* SPDX-License-Identifier: Apache-2.0 */
/*
 * name.h - names of apps, versions and channels, and the order of versions
 */
#pragma once

#include <stdbool.h>

#define NAME_LENGTH_MAX 128

/** name_valid() - whether @name matches [A-Za-z0-9][A-Za-z0-9._+-]{0,127} */
bool name_valid(const char *name);

/**
 * version_compare() - the order people expect
 *
 * Runs of digits compare as numbers of any length, the rest as text; a pre-release comes
 * before its release: 1.9 < 1.10, 2.0-rc1 < 2.0 < 2.0.1, 1.0-alpha < 1.0-beta. Build
 * metadata after '+' orders after the same version without it. Total: only equal strings
 * compare as 0.
 *
 * Return: negative, 0, positive as strcmp(3).
 */
int version_compare(const char *left, const char *right);

/**
 * version_is_prerelease() - whether --latest must pass the version over
 *
 * True when a part of it between the first digit and a '+' begins with one of the words
 * alpha, beta, rc, pre, preview, dev, snapshot, nightly, a, b followed by a digit, the
 * end or a separator: 2.0-rc1, 2.0rc1, 1.0.dev3, 3.0-beta.
 */
bool version_is_prerelease(const char *version);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zip_directory.h - a zip's structure, checked before libarchive reads its content
 *
 * A zip names its entries twice, in a header before each and in the central directory at
 * the end, and readers differ about which to believe. Here every byte of the file has one
 * owner: the entries follow each other without gap or overlap from byte 0 to the central
 * directory, each is named once there and its header says the same, and the end record
 * (with its comment) ends the file. Only stored and deflated entries, none encrypted.
 */
#pragma once

#include "error.h"
#include "package_path.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ZIP_DIRECTORY_SIZE_MAX ((uint64_t)64 << 20) /* bytes: about a million entries */

struct zip_directory;

struct zip_record {
	uint64_t offset; /* of the entry's header in the file */
	uint64_t data;   /* of its data */
	uint64_t stored; /* bytes */
	uint64_t size;   /* bytes, unpacked */
	uint32_t crc;
	uint16_t flags, method;
	uint16_t name_size;
	const char *name; /* as stored, not terminated; no NUL in it */
};

/**
 * zip_directory_open() - read and check the structure
 * @fd: readable, borrowed until zip_directory_free(); read with pread(2)
 *
 * Return: 0; -EBADMSG with the rule that is broken; -ENOMEM; the negative errno of
 * pread(2).
 */
int zip_directory_open(int fd, struct zip_directory **ret, struct error *err);
void zip_directory_free(struct zip_directory *zip);

/** zip_directory_count() - of entries */
size_t zip_directory_count(const struct zip_directory *zip);

/** zip_directory_record() - entry @number, below the count, in the order of the file */
const struct zip_record *zip_directory_record(const struct zip_directory *zip,
					      size_t number);

/**
 * zip_directory_target() - the content of a small entry as a string: a symlink's target
 * libarchive does not check its CRC, and may bring it to Unicode's form C.
 *
 * Return: 0; -EBADMSG when it is damaged, longer than 4095 bytes or has a NUL; -ENOMEM;
 * the negative errno of pread(2).
 */
int zip_directory_target(const struct zip_directory *zip, const struct zip_record *record,
			 char ret[static PACKAGE_PATH_SIZE], struct error *err);

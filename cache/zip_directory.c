/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The records of a zip, from PKWARE's APPNOTE.TXT 6.3; all numbers little-endian, each
 * record begins with its signature:
 *
 *   local header    flags 6/2, method 8/2, crc 14/4, stored 18/4, size 22/4,
 *                   name length 26/2, extra length 28/2, then name and extra
 *   data descriptor behind the data when bit 3 of the flags is set: the signature or not,
 *                   crc, stored, size, the two in 4 or 8 bytes
 *   directory entry made by 5/1, flags 8/2, method 10/2, crc 16/4, stored 20/4, size
 * 24/4, name, extra and comment length 28/2 30/2 32/2, disk 34/2, offset 42/4, then name,
 * extra and comment end record      disks 4/2 6/2, entries 8/2 10/2, directory size 12/4
 * and offset 16/4, comment length 20/2, comment zip64 end       length of the rest 4/8,
 * disks 16/4 20/4, entries 24/8 32/8, directory size 40/8 and offset 48/8 zip64 locator
 * disk 4/4, offset of the zip64 end 8/8, disks 16/4; just before the end extra field id
 * 2, length 2, data. 1: the 8-byte values for those of size, stored, offset that are
 * ffffffff above; 7075: version, crc of the name, name
 */
#include "zip_directory.h"

#include "cleanup.h"
#include "fd.h"

#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#define LOCAL_SIGNATURE      0x04034b50u
#define DESCRIPTOR_SIGNATURE 0x08074b50u
#define ENTRY_SIGNATURE      0x02014b50u
#define END_SIGNATURE        0x06054b50u
#define END64_SIGNATURE      0x06064b50u
#define LOCATOR_SIGNATURE    0x07064b50u

#define LOCAL_SIZE   30
#define ENTRY_SIZE   46
#define END_SIZE     22
#define END64_SIZE   56
#define LOCATOR_SIZE 20

/* libarchive looks for the end record in as many bytes at the end. */
#define TAIL_SIZE_MAX ((size_t)16 << 10)

#define FLAG_ENCRYPTED  0x2041 /* plainly, strongly, the directory too */
#define FLAG_DESCRIPTOR 0x0008
#define FLAG_UTF8       0x0800
#define FLAGS_COMPARED  (FLAG_ENCRYPTED | FLAG_DESCRIPTOR | FLAG_UTF8)

#define METHOD_STORED   0
#define METHOD_DEFLATED 8
#define METHOD_AES      99

#define MADE_BY_DOS 0

#define EXTRA_ZIP64 0x0001
#define EXTRA_NAME  0x7075

#define IN_EXTRA 0xffffffffu /* the value stands in the zip64 extra field */

struct zip_directory {
	int fd; /* borrowed */
	uint64_t file_size;
	uint64_t start, size; /* of the central directory in the file */
	uint64_t count;
	unsigned char *data;        /* the central directory; names point into it */
	struct zip_record *records; /* count of them, sorted by offset */
};

DEFINE_CLEANUP(struct zip_directory, zip_directory_free)

static uint16_t read16(const unsigned char *from)
{
	uint16_t value;

	memcpy(&value, from, sizeof(value));
	return le16toh(value);
}

static uint32_t read32(const unsigned char *from)
{
	uint32_t value;

	memcpy(&value, from, sizeof(value));
	return le32toh(value);
}

static uint64_t read64(const unsigned char *from)
{
	uint64_t value;

	memcpy(&value, from, sizeof(value));
	return le64toh(value);
}

static int refuse(struct error *err, const char *what)
{
	return error_set(err, -EBADMSG, "the zip %s", what);
}

static int refuse_record(struct error *err, const struct zip_record *record,
			 const char *what)
{
	char name[PACKAGE_PATH_SIZE], text[PACKAGE_PATH_TEXT_SIZE];
	size_t size = record->name_size;

	if (size >= sizeof(name))
		size = sizeof(name) - 1;
	memcpy(name, record->name, size);
	name[size] = '\0';
	return error_set(err, -EBADMSG, "'%s' %s", package_path_text(name, text), what);
}

static int read_at(const struct zip_directory *zip, void *data, size_t size,
		   uint64_t offset, struct error *err)
{
	int r = fd_pread_all(zip->fd, data, size, offset);

	if (r == -ENODATA)
		return refuse(err, "is cut off: fetch it again");
	if (r < 0)
		return error_set(err, r, "cannot read the package: %s", strerror(-r));
	return 0;
}

/* --- extra fields --- */

/* The values of a header that a zip64 field can replace, in the order of that field. */
struct large_values {
	uint64_t size, stored, offset;
};

static bool large_values_read(struct large_values *values, const unsigned char *data,
			      size_t size)
{
	uint64_t *all[] = {&values->size, &values->stored, &values->offset};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		if (*all[i] != IN_EXTRA)
			continue;
		if (size < 8 || read64(data) > INT64_MAX)
			return false;
		*all[i] = read64(data);
		data += 8;
		size -= 8;
	}
	return true;
}

/* A second name must be the first one. */
static bool name_field_fits(const unsigned char *data, size_t size,
			    const struct zip_record *record)
{
	return size >= 5 && size - 5 == record->name_size &&
	       !memcmp(data + 5, record->name, size - 5);
}

static int extra_read(const unsigned char *extra, size_t size,
		      struct large_values *values, const struct zip_record *record,
		      struct error *err)
{
	while (size >= 4) {
		size_t id = read16(extra), length = read16(extra + 2);

		extra += 4;
		size -= 4;
		if (length > size)
			return refuse_record(err, record, "has a damaged extra field");
		if (id == EXTRA_ZIP64 && !large_values_read(values, extra, length))
			return refuse_record(err, record, "has a damaged zip64 field");
		if (id == EXTRA_NAME && !name_field_fits(extra, length, record))
			return refuse_record(err, record,
					     "has two names in the zip that disagree");
		extra += length;
		size -= length;
	}
	return 0;
}

/* --- the end record --- */

static int end64_read(struct zip_directory *zip, const unsigned char *locator,
		      uint64_t locator_offset, struct error *err)
{
	unsigned char end[END64_SIZE];
	uint64_t offset = read64(locator + 8);
	int r;

	if (offset > locator_offset || locator_offset - offset < END64_SIZE)
		return refuse(err, "has a damaged zip64 end record");
	r = read_at(zip, end, sizeof(end), offset, err);
	if (r < 0)
		return r;
	if (read32(end) != END64_SIGNATURE ||
	    read64(end + 4) != locator_offset - offset - 12 || read32(locator + 4) != 0 ||
	    read32(locator + 16) != 1 || read32(end + 16) != 0 || read32(end + 20) != 0 ||
	    read64(end + 24) != read64(end + 32))
		return refuse(err, "has a damaged zip64 end record");
	zip->count = read64(end + 32);
	zip->size = read64(end + 40);
	zip->start = read64(end + 48);
	if (zip->start > offset || zip->size != offset - zip->start)
		return refuse(err, "has other data before its end record");
	return 0;
}

static int end32_read(struct zip_directory *zip, const unsigned char *end,
		      uint64_t offset, struct error *err)
{
	zip->count = read16(end + 10);
	zip->size = read32(end + 12);
	zip->start = read32(end + 16);
	if (read16(end + 4) != 0 || read16(end + 6) != 0 || read16(end + 8) != zip->count)
		return refuse(err, "has several volumes, which is not supported");
	if (zip->start > offset || zip->size != offset - zip->start)
		return refuse(err,
			      "has other data before its central directory or before its "
			      "end record");
	return 0;
}

/* The last signature in the file is the one that libarchive takes. */
static int end_read(struct zip_directory *zip, struct error *err)
{
	cleanup(free_ptr) unsigned char *tail = NULL;
	size_t size = zip->file_size < TAIL_SIZE_MAX ? zip->file_size : TAIL_SIZE_MAX;
	uint64_t tail_offset = zip->file_size - size;
	const unsigned char *end;
	int r;

	if (size < END_SIZE)
		return refuse(err, "is cut off: fetch it again");
	tail = malloc(size);
	if (!tail)
		return error_set(err, -ENOMEM, "cannot read the zip: out of memory");
	r = read_at(zip, tail, size, tail_offset, err);
	if (r < 0)
		return r;
	end = tail + size - END_SIZE;
	while (end > tail && read32(end) != END_SIGNATURE)
		end--;
	if (read32(end) != END_SIGNATURE ||
	    end + END_SIZE + read16(end + 20) != tail + size)
		return refuse(err, "does not end with its end record: it was cut off, or "
				   "something stands after the end of the zip");
	if (end - tail >= LOCATOR_SIZE && read32(end - LOCATOR_SIZE) == LOCATOR_SIGNATURE)
		return end64_read(zip, end - LOCATOR_SIZE,
				  tail_offset + (uint64_t)(end - tail) - LOCATOR_SIZE,
				  err);
	return end32_read(zip, end, tail_offset + (uint64_t)(end - tail), err);
}

/* --- the central directory --- */

static int record_check(const struct zip_record *record, int made_by, struct error *err)
{
	if (record->name_size == 0)
		return refuse_record(err, record, "is an empty name");
	if (memchr(record->name, '\0', record->name_size))
		return refuse_record(err, record, "has a NUL in its name");
	if (made_by == MADE_BY_DOS && memchr(record->name, '\\', record->name_size))
		return refuse_record(
			err, record,
			"has a '\\' in its name: pack it with '/' between the "
			"components");
	if (record->flags & FLAG_ENCRYPTED || record->method == METHOD_AES)
		return refuse_record(err, record, "is encrypted, which is not supported");
	if (record->method != METHOD_STORED && record->method != METHOD_DEFLATED) {
		char name[PACKAGE_PATH_TEXT_SIZE];

		snprintf(name, sizeof(name),
			 "is packed with method %u: only stored (0) and deflated (8) are "
			 "supported",
			 record->method);
		return refuse_record(err, record, name);
	}
	if (record->method == METHOD_STORED && record->stored != record->size)
		return refuse_record(err, record, "has sizes in the zip that disagree");
	return 0;
}

/* One entry of the central directory; *@left bytes are there from *@at on. */
static int record_read(struct zip_record *record, const unsigned char **at,
		       uint64_t *left, struct error *err)
{
	const unsigned char *entry = *at;
	struct large_values values;
	uint64_t extra_size, size;
	int r;

	if (*left < ENTRY_SIZE || read32(entry) != ENTRY_SIGNATURE)
		return refuse(err,
			      "has a central directory that is damaged or whose number "
			      "of entries disagrees with its end record");
	extra_size = read16(entry + 30);
	size = (uint64_t)ENTRY_SIZE + read16(entry + 28) + extra_size +
	       read16(entry + 32);
	if (size > *left)
		return refuse(err, "has a damaged central directory");
	record->name = (const char *)entry + ENTRY_SIZE;
	record->name_size = read16(entry + 28);
	record->flags = read16(entry + 8);
	record->method = read16(entry + 10);
	record->crc = read32(entry + 16);
	values.stored = read32(entry + 20);
	values.size = read32(entry + 24);
	values.offset = read32(entry + 42);
	r = extra_read(entry + ENTRY_SIZE + record->name_size, extra_size, &values,
		       record, err);
	if (r < 0)
		return r;
	record->stored = values.stored;
	record->size = values.size;
	record->offset = values.offset;
	*at += size;
	*left -= size;
	return record_check(record, entry[5], err);
}

static int by_offset(const void *left, const void *right)
{
	const struct zip_record *a = left, *b = right;

	return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static int records_read(struct zip_directory *zip, struct error *err)
{
	const unsigned char *at;
	uint64_t left = zip->size;
	int r;

	if (zip->size > ZIP_DIRECTORY_SIZE_MAX)
		return refuse(err,
			      "has a central directory of more than 64 MiB: pack it as "
			      "tar");
	if (zip->count > zip->size / ENTRY_SIZE)
		return refuse(err,
			      "has a central directory whose number of entries disagrees "
			      "with its size");
	zip->data = malloc(zip->size + 1);
	zip->records = calloc(zip->count + 1, sizeof(*zip->records));
	if (!zip->data || !zip->records)
		return error_set(err, -ENOMEM, "cannot read the zip: out of memory");
	r = read_at(zip, zip->data, zip->size, zip->start, err);
	at = zip->data;
	for (uint64_t i = 0; r == 0 && i < zip->count; i++)
		r = record_read(&zip->records[i], &at, &left, err);
	if (r < 0)
		return r;
	if (left > 0)
		return refuse(err,
			      "has a central directory whose number of entries disagrees "
			      "with its end record");
	qsort(zip->records, zip->count, sizeof(*zip->records), by_offset);
	return 0;
}

/* --- the local headers --- */

static bool value_fits(uint64_t local, uint64_t central, uint16_t flags)
{
	return local == central || (local == 0 && (flags & FLAG_DESCRIPTOR));
}

static int local_extra_check(const struct zip_directory *zip,
			     const struct zip_record *record, struct large_values values,
			     size_t extra_size, struct error *err)
{
	cleanup(free_ptr) unsigned char *extra = malloc(extra_size + 1);
	int r;

	if (!extra)
		return error_set(err, -ENOMEM, "cannot read the zip: out of memory");
	r = read_at(zip, extra, extra_size, record->data - extra_size, err);
	if (r == 0)
		r = extra_read(extra, extra_size, &values, record, err);
	if (r < 0)
		return r;
	if (!value_fits(values.stored, record->stored, record->flags) ||
	    !value_fits(values.size, record->size, record->flags))
		return refuse_record(err, record, "has sizes in the zip that disagree");
	return 0;
}

/* What the header before the data says must be what the central directory says. */
static int local_check(const struct zip_directory *zip, struct zip_record *record,
		       struct error *err)
{
	unsigned char header[LOCAL_SIZE];
	cleanup(free_ptr) char *name = malloc(record->name_size);
	struct large_values values = {0};
	size_t extra_size;
	int r;

	if (!name)
		return error_set(err, -ENOMEM, "cannot read the zip: out of memory");
	r = read_at(zip, header, sizeof(header), record->offset, err);
	if (r < 0)
		return r;
	if (read32(header) != LOCAL_SIGNATURE)
		return refuse_record(err, record,
				     "has no header in the zip where its central "
				     "directory says");
	if (read16(header + 8) != record->method ||
	    read16(header + 26) != record->name_size ||
	    (read16(header + 6) & FLAGS_COMPARED) != (record->flags & FLAGS_COMPARED) ||
	    !value_fits(read32(header + 14), record->crc, record->flags))
		return refuse_record(err, record,
				     "has two headers in the zip that disagree");
	r = read_at(zip, name, record->name_size, record->offset + LOCAL_SIZE, err);
	if (r < 0)
		return r;
	if (memcmp(name, record->name, record->name_size))
		return refuse_record(err, record,
				     "has two names in the zip that disagree");
	extra_size = read16(header + 28);
	values.stored = read32(header + 18);
	values.size = read32(header + 22);
	record->data = record->offset + LOCAL_SIZE + record->name_size + extra_size;
	return local_extra_check(zip, record, values, extra_size, err);
}

/* Behind the data, up to the next entry, stands nothing or a data descriptor. */
static int descriptor_check(const struct zip_directory *zip,
			    const struct zip_record *record, uint64_t size,
			    struct error *err)
{
	unsigned char bytes[24], *at = bytes;
	uint64_t stored, unpacked;
	bool large = size >= 20;
	int r;

	if (!(record->flags & FLAG_DESCRIPTOR) ||
	    (size != 12 && size != 16 && size != 20 && size != 24))
		return refuse_record(err, record,
				     "is followed in the zip by data that its "
				     "central directory does not name");
	r = read_at(zip, bytes, size, record->data + record->stored, err);
	if (r < 0)
		return r;
	if (size == 16 || size == 24) {
		if (read32(at) != DESCRIPTOR_SIGNATURE)
			return refuse_record(err, record,
					     "has a damaged data descriptor");
		at += 4;
	}
	stored = large ? read64(at + 4) : read32(at + 4);
	unpacked = large ? read64(at + 12) : read32(at + 8);
	if (read32(at) != record->crc || stored != record->stored ||
	    unpacked != record->size)
		return refuse_record(err, record,
				     "has a data descriptor and a header in the "
				     "zip that disagree");
	return 0;
}

static int layout_check(struct zip_directory *zip, struct error *err)
{
	if (zip->count > 0 && zip->records[0].offset != 0)
		return refuse(err, "begins with data that its central directory does not "
				   "name");
	if (zip->count == 0 && zip->start != 0)
		return refuse(err, "has data that its central directory does not name");
	for (uint64_t i = 0; i < zip->count; i++) {
		struct zip_record *record = &zip->records[i];
		uint64_t next = i + 1 < zip->count ? record[1].offset : zip->start;
		int r;

		/* Before anything is read, so that many entries on one place cost
		 * nothing. */
		if (next > zip->start || record->offset + LOCAL_SIZE > next)
			return refuse_record(err, record,
					     "overlaps another entry of the zip");
		r = local_check(zip, record, err);
		if (r < 0)
			return r;
		if (record->data > next || record->stored > next - record->data)
			return refuse_record(err, record,
					     "overlaps another entry of the zip");
		next -= record->data + record->stored;
		if (next > 0)
			r = descriptor_check(zip, record, next, err);
		else if (record->flags & FLAG_DESCRIPTOR)
			r = refuse_record(err, record, "lacks its data descriptor");
		if (r < 0)
			return r;
	}
	return 0;
}

int zip_directory_open(int fd, struct zip_directory **ret, struct error *err)
{
	cleanup(zip_directory_free_ptr) struct zip_directory *zip =
		calloc(1, sizeof(*zip));
	struct stat status;
	int r;

	if (!zip)
		return error_set(err, -ENOMEM, "cannot read the zip: out of memory");
	if (fstat(fd, &status) < 0)
		return error_set(err, -errno, "cannot read the package: %s",
				 strerror(errno));
	zip->fd = fd;
	zip->file_size = (uint64_t)status.st_size;
	r = end_read(zip, err);
	if (r == 0)
		r = records_read(zip, err);
	if (r == 0)
		r = layout_check(zip, err);
	if (r < 0)
		return r;
	*ret = take_ptr(zip);
	return 0;
}

void zip_directory_free(struct zip_directory *zip)
{
	if (!zip)
		return;
	free(zip->data);
	free(zip->records);
	free(zip);
}

size_t zip_directory_count(const struct zip_directory *zip)
{
	return zip->count;
}

const struct zip_record *zip_directory_record(const struct zip_directory *zip,
					      size_t number)
{
	return &zip->records[number];
}

/* --- targets of symlinks --- */

static int target_inflate(const unsigned char *data, size_t stored, char *target,
			  size_t size)
{
	z_stream z = {0};
	int r;

	if (inflateInit2(&z, -15) != Z_OK)
		return -ENOMEM;
	z.next_in = (unsigned char *)data;
	z.avail_in = (uInt)stored;
	z.next_out = (unsigned char *)target;
	z.avail_out = (uInt)size;
	r = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	if (r == Z_MEM_ERROR)
		return -ENOMEM;
	return r == Z_STREAM_END && !z.avail_in && !z.avail_out ? 0 : -EBADMSG;
}

int zip_directory_target(const struct zip_directory *zip, const struct zip_record *record,
			 char ret[static PACKAGE_PATH_SIZE], struct error *err)
{
	unsigned char
		data[PACKAGE_PATH_SIZE + 64]; /* deflate adds less where it cannot pack */
	char target[PACKAGE_PATH_SIZE];
	int r;

	if (record->size >= sizeof(target) || record->stored > sizeof(data))
		return refuse_record(err, record, "has a target longer than 4095 bytes");
	r = read_at(zip, data, record->stored, record->data, err);
	if (r < 0)
		return r;
	if (record->method == METHOD_DEFLATED)
		r = target_inflate(data, record->stored, target, record->size);
	else
		memcpy(target, data, record->size);
	if (r == -ENOMEM)
		return error_set(err, r, "cannot read the zip: out of memory");
	if (r < 0 || crc32(0, (unsigned char *)target, (uInt)record->size) != record->crc)
		return refuse_record(
			err, record,
			"is a symlink with a damaged target: fetch the package "
			"again");
	if (memchr(target, '\0', record->size))
		return refuse_record(err, record,
				     "is a symlink with a NUL in its target");
	memcpy(ret, target, record->size);
	ret[record->size] = '\0';
	return 0;
}

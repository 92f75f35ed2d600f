/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A tar is a sequence of 512-byte blocks:
 *
 *   (special header, its body)* header, more sparse map blocks, body   per entry
 *   two blocks of zeros                                                at the end
 *
 * Header fields used: name 0/100, size 124/12, checksum 148/8, type 156, magic 257/8; in
 * GNU's old sparse headers the first piece 386, "more map blocks follow" 482 (504 in such
 * a block), and the real size 483. Bodies are filled up to whole blocks.
 */
#include "tar_walk.h"

#include "cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_SIZE 512

#define SPECIAL_SIZE_MAX ((uint64_t)1 << 20)  /* libarchive's limit, too */
#define ZEROS_MAX        ((uint64_t)64 << 20) /* fill after the end marker */

#define NAME_OFFSET      0
#define NAME_SIZE        100
#define SIZE_OFFSET      124
#define SIZE_SIZE        12
#define CHECKSUM_OFFSET  148
#define CHECKSUM_SIZE    8
#define TYPE_OFFSET      156
#define MAGIC_OFFSET     257
#define GNU_PIECE_OFFSET 386
#define GNU_MORE_OFFSET  482
#define GNU_REAL_OFFSET  483
#define MAP_MORE_OFFSET  504

static const char gnu_magic[8] = "ustar  ";

enum state {
	STATE_HEADER,
	STATE_MAP,     /* more map blocks of a GNU sparse file */
	STATE_BODY,    /* to be skipped */
	STATE_SPECIAL, /* the body of a special header, to be kept */
	STATE_MARKER,  /* one block of zeros was seen */
	STATE_END,     /* nothing but zeros from here */
	STATE_STOPPED, /* a problem was recorded, or something follows the end */
};

struct tar_walk {
	enum state state;
	const char *end_problem; /* in STATE_STOPPED after the end marker */
	uint64_t offset;         /* bytes fed */
	uint64_t left;           /* of the body, or of the zeros allowed */
	unsigned char block[BLOCK_SIZE];
	size_t block_size;

	struct tar_record entry; /* being read: its special headers so far */
	bool entry_begun;
	bool entry_resized; /* by a pax header, to entry.size */
	bool seen_pax, seen_long_name, seen_long_link, seen_sparse_name;

	char *special; /* its body, and a NUL */
	size_t special_size, special_end;
	char special_type;

	struct tar_record *records; /* a queue: from head to tail */
	size_t records_head, records_tail, records_room;
};

struct tar_walk *tar_walk_new(void)
{
	return calloc(1, sizeof(struct tar_walk));
}

void tar_record_done(struct tar_record *record)
{
	free(record->path);
	free(record->link);
	memset(record, 0, sizeof(*record));
}

void tar_walk_free(struct tar_walk *walk)
{
	if (!walk)
		return;
	for (size_t i = walk->records_head; i < walk->records_tail; i++)
		tar_record_done(&walk->records[i]);
	tar_record_done(&walk->entry);
	free(walk->records);
	free(walk->special);
	free(walk);
}

/* --- the queue --- */

static int records_make_room(struct tar_walk *walk)
{
	size_t count = walk->records_tail - walk->records_head;
	size_t room = walk->records_room ? walk->records_room * 2 : 64;
	struct tar_record *larger;

	if (walk->records_tail < walk->records_room)
		return 0;
	if (walk->records_head > 0) {
		memmove(walk->records, walk->records + walk->records_head,
			count * sizeof(*walk->records));
		walk->records_head = 0;
		walk->records_tail = count;
		return 0;
	}
	larger = reallocarray(walk->records, room, sizeof(*larger));
	if (!larger)
		return -ENOMEM;
	walk->records = larger;
	walk->records_room = room;
	return 0;
}

/* The entry is complete: the queue owns it. */
static int entry_push(struct tar_walk *walk)
{
	int r = records_make_room(walk);

	if (r < 0)
		return r;
	walk->records[walk->records_tail++] = walk->entry;
	memset(&walk->entry, 0, sizeof(walk->entry));
	walk->entry_begun = walk->entry_resized = false;
	walk->seen_pax = walk->seen_long_name = walk->seen_long_link = false;
	walk->seen_sparse_name = false;
	return 0;
}

static int entry_refuse(struct tar_walk *walk, const char *problem)
{
	walk->state = STATE_STOPPED;
	walk->entry.problem = problem;
	return entry_push(walk);
}

bool tar_walk_next(struct tar_walk *walk, struct tar_record *ret)
{
	if (walk->records_head == walk->records_tail)
		return false;
	*ret = walk->records[walk->records_head++];
	return true;
}

/* --- numbers --- */

/* Octal digits between spaces and NULs; or the high bit and a big-endian number. */
static bool number_parse(const unsigned char *field, size_t size, uint64_t *ret)
{
	uint64_t value = 0;
	size_t i = 0;

	if (field[0] == 0x80) {
		for (i = 1; i < size; i++) {
			if (value >> 55)
				return false;
			value = value << 8 | field[i];
		}
		*ret = value;
		return true;
	}
	while (i < size && field[i] == ' ')
		i++;
	for (; i < size && field[i] >= '0' && field[i] <= '7'; i++)
		value = value << 3 | (field[i] - '0');
	for (; i < size; i++)
		if (field[i] != ' ' && field[i] != '\0')
			return false;
	*ret = value; /* at most 12 digits, 36 bits */
	return true;
}

static bool decimal_parse(const char *text, size_t size, uint64_t *ret)
{
	uint64_t value = 0;

	if (size == 0 || size > 18)
		return false;
	for (size_t i = 0; i < size; i++) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		value = value * 10 + (uint64_t)(text[i] - '0');
	}
	*ret = value;
	return true;
}

static bool block_is_zero(const unsigned char *block)
{
	return !block[0] && !memcmp(block, block + 1, BLOCK_SIZE - 1);
}

static bool checksum_check(const unsigned char *block)
{
	int64_t plain = CHECKSUM_SIZE * ' ', with_sign = CHECKSUM_SIZE * ' ';
	uint64_t stored;

	if (!number_parse(block + CHECKSUM_OFFSET, CHECKSUM_SIZE, &stored))
		return false;
	for (size_t i = 0; i < BLOCK_SIZE; i++) {
		if (i - CHECKSUM_OFFSET < CHECKSUM_SIZE)
			continue;
		plain += block[i];
		with_sign += (signed char)block[i]; /* some old writers */
	}
	return (int64_t)stored == plain || (int64_t)stored == with_sign;
}

bool tar_walk_block_check(const void *block)
{
	return block_is_zero(block) || checksum_check(block);
}

/* --- special headers --- */

static int text_replace(char **text, const char *value, size_t size)
{
	char *copy = size ? strndup(value, size) : NULL;

	if (size && !copy)
		return -ENOMEM;
	free(*text);
	*text = copy;
	return 0;
}

static bool key_is(const char *key, size_t size, const char *name)
{
	return size == strlen(name) && !memcmp(key, name, size);
}

/* One "key=value" of a pax header. */
static int pax_set(struct tar_walk *walk, const char *key, size_t key_size,
		   const char *value, size_t size)
{
	struct tar_record *entry = &walk->entry;
	bool sparse_name = key_is(key, key_size, "GNU.sparse.name");
	bool path = sparse_name || key_is(key, key_size, "path");
	bool link = key_is(key, key_size, "linkpath");
	bool resized = key_is(key, key_size, "size");

	if (walk->special_type == 'g') {
		if (path || link || resized || !strncmp(key, "GNU.sparse.", 11))
			return entry_refuse(walk,
					    "has a global header that sets names or "
					    "sizes, which is not supported");
		return 0;
	}
	if ((path || link) && memchr(value, '\0', size))
		return entry_refuse(walk, "has a NUL in its name or target");
	if (link)
		return text_replace(&entry->link, value, size);
	if (path && (sparse_name || !walk->seen_sparse_name)) {
		walk->seen_sparse_name |= sparse_name;
		return text_replace(&entry->path, value, size);
	}
	if (!resized)
		return 0;
	if (!decimal_parse(value, size, &entry->size))
		return entry_refuse(walk, "has a damaged size");
	walk->entry_resized = true;
	return 0;
}

/* "SIZE KEY=VALUE\n"...: SIZE in decimal counts the whole record. */
static int pax_parse(struct tar_walk *walk)
{
	static const char damaged[] = "has a damaged pax header";
	const char *line = walk->special, *end = line + walk->special_size;

	while (line < end) {
		const char *space = memchr(line, ' ', (size_t)(end - line));
		const char *equals;
		uint64_t size;
		int r;

		if (!space || !decimal_parse(line, (size_t)(space - line), &size) ||
		    size > (uint64_t)(end - line) || line + size < space + 3 ||
		    line[size - 1] != '\n')
			return entry_refuse(walk, damaged);
		equals = memchr(space, '=', (size_t)(line + size - space));
		if (!equals || equals == space + 1)
			return entry_refuse(walk, damaged);
		r = pax_set(walk, space + 1, (size_t)(equals - space - 1), equals + 1,
			    (size_t)(line + size - equals - 2));
		if (r < 0 || walk->state == STATE_STOPPED)
			return r;
		line += size;
	}
	return 0;
}

static int special_complete(struct tar_walk *walk)
{
	walk->state = STATE_HEADER;
	walk->special[walk->special_size] = '\0';
	if (walk->special_type == 'x' || walk->special_type == 'X' ||
	    walk->special_type == 'g')
		return pax_parse(walk);
	return 0;
}

/* libarchive would apply the last of several, other programs the first or both. */
static bool special_is_repeated(struct tar_walk *walk, char type)
{
	bool *seen = type == 'x' || type == 'X' ? &walk->seen_pax
		     : type == 'L'              ? &walk->seen_long_name
		     : type == 'K'              ? &walk->seen_long_link
						: NULL;
	bool repeated = seen && *seen;

	if (seen)
		*seen = true;
	return repeated;
}

static int special_begin(struct tar_walk *walk, char type, uint64_t size)
{
	char *larger;

	if (size > SPECIAL_SIZE_MAX)
		return entry_refuse(walk, "has a header that is too large");
	if (special_is_repeated(walk, type))
		return entry_refuse(walk, "has a damaged series of headers");
	larger = realloc(walk->special, size + 1);
	if (!larger)
		return -ENOMEM;
	walk->special = larger;
	walk->special_size = size;
	walk->special_end = 0;
	walk->special_type = type;
	walk->left = (size + BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE;
	walk->state = STATE_SPECIAL;
	return walk->left ? 0 : special_complete(walk);
}

/* --- headers --- */

static const char unknown_type[] = "is of an unknown type";

static const char *type_problem(char type)
{
	switch (type) {
	case '3':
		return "is a character device: only directories, files and links can be "
		       "in a "
		       "package";
	case '4':
		return "is a block device: only directories, files and links can be in a "
		       "package";
	case '6':
		return "is a fifo: only directories, files and links can be in a package";
	case 'D':
		return "is a directory of an incremental dump (type 'D'): pack it "
		       "without "
		       "--incremental";
	case 'M':
		return "is continued from another volume (type 'M')";
	case 'N':
		return "is an old GNU long-name list (type 'N')";
	case 'V':
		return "is a volume label (type 'V'): pack it without --label";
	default:
		return unknown_type;
	}
}

/* Only files have a body. GNU tar, libarchive and POSIX differ on the others. */
static const char *body_problem(const struct tar_record *entry)
{
	if (entry->size == 0)
		return NULL;
	switch (entry->type) {
	case '1':
		return "is a hard link with data";
	case '2':
		return "is a symlink with data";
	case '5':
		return "is a directory with data";
	default:
		return NULL;
	}
}

/* libarchive reads GNU's sparse fields in every header with GNU's magic. */
static bool sparse_fields_fit(const unsigned char *block)
{
	bool gnu = !memcmp(block + MAGIC_OFFSET, gnu_magic, sizeof(gnu_magic));

	if (block[TYPE_OFFSET] == 'S')
		return gnu && (!block[GNU_MORE_OFFSET] || block[GNU_PIECE_OFFSET]);
	return !gnu || (!block[GNU_PIECE_OFFSET] && !block[GNU_MORE_OFFSET] &&
			!block[GNU_REAL_OFFSET]);
}

static int body_begin(struct tar_walk *walk)
{
	int r;

	walk->left = (walk->entry.size + BLOCK_SIZE - 1) / BLOCK_SIZE * BLOCK_SIZE;
	r = entry_push(walk);
	walk->state = walk->left ? STATE_BODY : STATE_HEADER;
	return r;
}

static int entry_header(struct tar_walk *walk, uint64_t size)
{
	struct tar_record *entry = &walk->entry;
	const char *problem;

	if (!walk->entry_resized)
		entry->size = size;
	/* A NUL and '7', which means contiguous, are regular files, too. */
	if (!entry->type || strchr("01257S", entry->type))
		problem = body_problem(entry);
	else
		problem = type_problem(entry->type);
	if (!problem && ((walk->seen_long_name && entry->path) ||
			 (walk->seen_long_link && entry->link)))
		problem = "has two long names or targets";
	if (!problem && entry->size >> 62)
		problem = "has a damaged size";
	if (!problem && !sparse_fields_fit(walk->block))
		problem = "has a damaged sparse header";
	entry->unknown = problem == unknown_type;
	if (problem)
		return entry_refuse(walk, problem);
	if (entry->type == 'S' && walk->block[GNU_MORE_OFFSET]) {
		walk->state = STATE_MAP;
		return 0;
	}
	return body_begin(walk);
}

static int header_complete(struct tar_walk *walk)
{
	const unsigned char *block = walk->block;
	char type = (char)block[TYPE_OFFSET];
	uint64_t size;

	if (!walk->entry_begun) {
		walk->entry_begun = true;
		walk->entry.start = walk->offset - BLOCK_SIZE;
	}
	if (block_is_zero(block)) {
		walk->state = STATE_MARKER;
		return walk->entry.start + BLOCK_SIZE == walk->offset
			       ? 0
			       : entry_refuse(walk, "is cut off after its first header");
	}
	walk->entry.type = type;
	memcpy(walk->entry.name, block + NAME_OFFSET, NAME_SIZE);
	if (!checksum_check(block))
		return entry_refuse(walk, "has a damaged header (its checksum is wrong)");
	if (!number_parse(block + SIZE_OFFSET, SIZE_SIZE, &size))
		return entry_refuse(walk, "has a damaged size");
	if (type && strchr("xXgLKA", type))
		return special_begin(walk, type, size);
	return entry_header(walk, size);
}

static int block_complete(struct tar_walk *walk)
{
	walk->block_size = 0;
	switch (walk->state) {
	case STATE_HEADER:
		return header_complete(walk);
	case STATE_MAP:
		return walk->block[MAP_MORE_OFFSET] ? 0 : body_begin(walk);
	default: /* STATE_MARKER */
		walk->left = ZEROS_MAX;
		walk->state = block_is_zero(walk->block) ? STATE_END : STATE_STOPPED;
		walk->end_problem =
			"there are data after the end of the tar (one block of "
			"zeros)";
		return 0;
	}
}

/* --- the stream --- */

static bool all_zero(const unsigned char *data, size_t size)
{
	return !data[0] && !memcmp(data, data + 1, size - 1);
}

static void end_feed(struct tar_walk *walk, const unsigned char *data, size_t size)
{
	if (size > walk->left || !all_zero(data, size))
		walk->state = STATE_STOPPED;
	if (size > walk->left)
		walk->end_problem =
			"there are more than 64 MiB of zeros after the end of the "
			"tar";
	else
		walk->end_problem = "there are data after the end of the tar";
	walk->left -= size < walk->left ? size : walk->left;
}

/* Take what the state can use of the data; all of it in the last states. */
static size_t piece_size(const struct tar_walk *walk, size_t size)
{
	uint64_t wanted = size;

	if (walk->state == STATE_BODY || walk->state == STATE_SPECIAL)
		wanted = walk->left;
	else if (walk->state < STATE_BODY || walk->state == STATE_MARKER)
		wanted = BLOCK_SIZE - walk->block_size;
	return wanted < size ? (size_t)wanted : size;
}

static int piece_feed(struct tar_walk *walk, const unsigned char *data, size_t size)
{
	size_t room = walk->special_size - walk->special_end;

	switch (walk->state) {
	case STATE_BODY:
		walk->left -= size;
		if (walk->left == 0)
			walk->state = STATE_HEADER;
		return 0;
	case STATE_SPECIAL:
		if (room > size)
			room = size;
		memcpy(walk->special + walk->special_end, data, room);
		walk->special_end += room;
		walk->left -= size;
		return walk->left ? 0 : special_complete(walk);
	case STATE_END:
		end_feed(walk, data, size);
		return 0;
	case STATE_STOPPED:
		return 0;
	default:
		memcpy(walk->block + walk->block_size, data, size);
		walk->block_size += size;
		return walk->block_size < BLOCK_SIZE ? 0 : block_complete(walk);
	}
}

int tar_walk_feed(struct tar_walk *walk, const void *data, size_t size)
{
	const unsigned char *from = data;

	while (size > 0) {
		size_t piece = piece_size(walk, size);
		int r;

		walk->offset += piece;
		r = piece_feed(walk, from, piece);
		if (r < 0)
			return r;
		from += piece;
		size -= piece;
	}
	return 0;
}

const char *tar_walk_end_problem(const struct tar_walk *walk)
{
	if (walk->state == STATE_END)
		return NULL;
	if (walk->state == STATE_STOPPED && walk->end_problem)
		return walk->end_problem;
	if (walk->state == STATE_STOPPED)
		return "the tar is damaged";
	return "the tar is cut off: its end marker, two blocks of zeros, is missing";
}

bool tar_walk_is_stopped(const struct tar_walk *walk)
{
	return walk->state == STATE_STOPPED;
}

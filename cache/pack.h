/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pack.h - one imported package on disk: its bodies, names, attributes and checksums
 *
 * A pack is written once and never changed, but for the header that the worker completes
 * before anybody sees it, for the mark that it has lost its version, for holes that are
 * punched where nothing lives any more, and for damage that is overwritten with what was
 * there before (repair.h).
 * Everything is little-endian; docs/format.md draws the picture.
 *
 *   0           struct pack_header, 4096 bytes
 *   4096        bodies, in the archive's order; one of 64 KiB or more begins at a
 * multiple of 4096, others at a multiple of 8 meta_offset objects, nodes, dirs, entries,
 * checks, deps, names: each an array, each at a multiple of 8, checked as a whole by
 * meta_hash
 *   copy_offset the same again, and in the last 4096 bytes the header: the ids in them
 * are in the kernel's caches and in younger packs, so no origin could bring them back
 *
 * Node ids (I2): node i of a pack is first_node + i, directory i is first_node +
 * node_count + i. Ids are given out by the catalog in ranges and never again. Files and
 * symlinks whose identity (content, size, mode, uid, gid, mtime, nlink) an earlier pack
 * holds are not made anew: the entry names that pack (dep) and its node, so both versions
 * share the id and with it the kernel's page cache.
 */
#pragma once

#include "digest.h"
#include "error.h"
#include "name.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PACK_MAGIC         "DEPLOYPK"
#define PACK_FORMAT        1
#define PACK_HEADER_SIZE   4096
#define PACK_BLOCK_SIZE    32768 /* bytes under one checksum */
#define PACK_ALIGN_FROM    65536 /* bodies of this size begin at a page */
#define PACK_ENTRIES_MAX   2000000
#define PACK_PATH_MAX      4095
#define PACK_COMPONENT_MAX 255
#define PACK_NLINK_MIN \
	2 /* of files: with 1, an overlay's copy-up changes siblings (I2) */

struct pack_header {
	char magic[8];
	uint32_t format;
	uint32_t block_size;
	uint64_t pack_id;
	uint64_t first_node;
	uint64_t bodies_end;
	uint64_t meta_offset;
	uint64_t meta_size;
	uint64_t names_size;
	uint32_t object_count;
	uint32_t node_count;
	uint32_t dir_count;
	uint32_t entry_count;
	uint32_t check_count;
	uint32_t dep_count;
	uint64_t package_size; /* bytes of the archive */
	int64_t created_ns;    /* wall clock */
	unsigned char package_sha256[SHA256_SIZE];
	struct checksum meta_hash;
	char app[NAME_LENGTH_MAX + 8]; /* NUL-terminated, as are the next two */
	char version[NAME_LENGTH_MAX + 8];
	char origin[1024];
	uint64_t files;
	uint64_t unpacked_bytes;
	char retired[8];      /* PACK_RETIRED: it has lost its version for good */
	char verified[32];    /* NUL-terminated, as is the next one */
	char imported_by[64]; /* who asked for it */
	uint64_t copy_offset; /* the metadata again, the header behind it; 0: none */
	unsigned char reserved[2504];
	struct checksum
		header_hash; /* of the 4080 bytes before it, @retired being zero */
};

/* A body: one piece of content, stored once; in order of their offsets. */
struct pack_object {
	uint64_t offset;      /* in the pack */
	uint64_t size;        /* bytes; 0: no body */
	uint32_t check_first; /* its blocks' checksums: (size + 32767) / 32768 of them */
	uint32_t allocated;   /* 4096-byte pieces that are not holes */
};

/* A file or symlink as stat(2) shows it; a symlink's target is its body. */
struct pack_node {
	int64_t mtime_s;
	uint32_t mtime_ns;
	uint32_t mode; /* with the type */
	uint32_t uid;
	uint32_t gid;
	uint32_t nlink;
	uint32_t dep; /* 0: the object is in this pack; else in deps[dep - 1] */
	uint32_t object;
	uint32_t reserved;
};

/* A directory; 0 is the root, a parent comes before its children. */
struct pack_dir {
	int64_t mtime_s;
	uint32_t mtime_ns;
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
	uint32_t parent;
	uint32_t first_entry;
	uint32_t entry_count;
	uint32_t subdir_count;
};

/* A name in a directory; the entries of one lie together, sorted by memcmp(3). */
struct pack_entry {
	uint32_t name_offset;
	uint16_t name_size;
	uint8_t type; /* DT_DIR, DT_REG, DT_LNK */
	uint8_t reserved;
	uint32_t dep;   /* 0: a node of this pack; else of deps[dep - 1] */
	uint32_t index; /* of the node or directory */
};

_Static_assert(sizeof(struct pack_header) == PACK_HEADER_SIZE, "header");
_Static_assert(sizeof(struct pack_object) == 24, "object");
_Static_assert(sizeof(struct pack_node) == 40, "node");
_Static_assert(sizeof(struct pack_dir) == 40, "dir");
_Static_assert(sizeof(struct pack_entry) == 16, "entry");

#define PACK_RETIRED "RETIRED" /* with its NUL */

/** What the catalog knows of a pack without opening it. */
struct pack_key {
	uint64_t id;
	uint64_t first_node;
	uint32_t node_count;
	uint32_t dir_count;
};

/** The metadata arrays, as they lie on disk. */
struct pack_meta {
	struct pack_object *objects;
	struct pack_node *nodes;
	struct pack_dir *dirs;
	struct pack_entry *entries;
	struct checksum *checks;
	uint64_t *deps; /* pack ids, ascending not required, each once */
	char *names;
	uint32_t object_count, node_count, dir_count, entry_count, check_count, dep_count;
	uint64_t names_size;
};

struct pack_set;

/** A pack that can be read. Reference-counted; the metadata is loaded at the first use,
 * and stays at least as long as somebody has a reference. */
struct pack {
	struct pack_key key;
	struct pack_set *set;
	size_t place; /* the set's */
	atomic_int references;
	atomic_bool loaded;
	atomic_bool asked_for; /* since the set looked for one to let go */
	atomic_bool
		damage_seen; /* pack_note_damage(); taken by pack_set_next_damaged() */
	int fd;              /* -1 until loaded */
	struct pack_header header;
	struct pack_meta meta;
	void *meta_buffer;       /* owns what meta points to */
	struct pack **deps;      /* referenced; dep_count of them */
	atomic_uint rotten_told; /* log lines about damage so far */
	_Atomic uint8_t
		*verified; /* a bit a checksum: the block was read and found right */
};

/** stat(2) of anything in a pack. */
struct pack_stat {
	uint64_t node;
	uint64_t size;
	uint64_t blocks; /* of 512 bytes */
	int64_t mtime_s;
	uint32_t mtime_ns;
	uint32_t mode;
	uint32_t uid;
	uint32_t gid;
	uint32_t nlink;
};

/** pack_checks_of() - how many checksums a body of @size bytes has */
static inline uint64_t pack_checks_of(uint64_t size)
{
	return (size + PACK_BLOCK_SIZE - 1) / PACK_BLOCK_SIZE;
}

/** pack_content_hash() - what identifies content: the one checksum, or the checksum of
 * all */
struct checksum pack_content_hash(const struct checksum *checks, uint64_t count);

/** pack_identity_hash() - what identifies a node: its content and its attributes */
struct checksum pack_identity_hash(const struct checksum *content, uint64_t size,
				   const struct pack_node *node);

/**
 * pack_header_seal() - complete the header_hash before the header is written
 */
void pack_header_seal(struct pack_header *header);

/** pack_header_fault() - what is wrong with a header, or NULL; @file_size: of the file */
const char *pack_header_fault(const struct pack_header *header, uint64_t file_size);

/** pack_header_copy() - where the header's copy lies; 0: the pack has none */
uint64_t pack_header_copy(const struct pack_header *header);

/** pack_header_write() - seal the header, write it to both its places; 0 or -errno */
int pack_header_write(int fd, struct pack_header *header);

/**
 * pack_load() - read and check the metadata, if that was not done yet
 *
 * Blocks on the local disk. Thread-safe. Every offset, count, name and reference in the
 * file is checked, so that no later access can leave its array whatever the file holds.
 * Where the header or the metadata is damaged the copy is taken, and the damage noted.
 *
 * Return: 0; -EBADMSG when the file is damaged or not this pack; the negative errno of
 * the disk; -ENOENT when a pack that it shares content with is missing.
 */
int pack_load(struct pack *pack, struct error *err);

/* The following need a loaded pack. */

/** pack_stat_dir() - attributes of directory @dir */
void pack_stat_dir(const struct pack *pack, uint32_t dir, struct pack_stat *ret);

/** pack_stat_node() - attributes of node @node. Return: 0, or what loading a dep gives.
 */
int pack_stat_node(const struct pack *pack, uint32_t node, struct pack_stat *ret);

/**
 * pack_lookup() - a name in a directory
 * Return: 0; -ENOENT; what loading a dep gives.
 */
int pack_lookup(const struct pack *pack, uint32_t dir, const char *name,
		struct pack_stat *ret);

/** One name of a listing. */
struct pack_name {
	const char *name; /* NUL-terminated, lives as long as the pack */
	uint64_t node;
	uint8_t type;
};

/** pack_list() - the entry at @position (0...) of a directory. Return: false behind the
 * last. */
bool pack_list(const struct pack *pack, uint32_t dir, uint32_t position,
	       struct pack_name *ret);

/** pack_stat_entry() - the attributes of the entry at @position; as pack_lookup() */
int pack_stat_entry(const struct pack *pack, uint32_t dir, uint32_t position,
		    struct pack_stat *ret);

/** The largest read, and a buffer that holds it with the blocks it touches. */
#define PACK_READ_MAX    (1024 * 1024)
#define PACK_READ_BUFFER (PACK_READ_MAX + 2 * PACK_BLOCK_SIZE)

/**
 * pack_read() - bytes of a node's body, checked (I7)
 * @offset, @size: what is wanted; @size at most PACK_READ_MAX; cut at the end of the body
 * @buffer:   PACK_READ_BUFFER bytes
 * @ret_data: points into @buffer
 *
 * A block is compared with its checksum the first time it is read since the pack was
 * loaded. Blocks on the local disk.
 *
 * Return: 0; -EIO when the bytes are not the ones that were stored (logged with app,
 * version and path) or the disk fails.
 */
int pack_read(struct pack *pack, uint32_t node, uint64_t offset, size_t size,
	      void *buffer, const void **ret_data, size_t *ret_size);

/**
 * pack_read_object() - the same for an object of this pack
 * @again: compare even blocks that were found right before
 * Return: 0; -EBADMSG the bytes are not the ones that were stored; -EIO the disk fails.
 */
int pack_read_object(const struct pack *pack, uint32_t object, uint64_t offset,
		     size_t size, bool again, void *buffer, const void **ret_data,
		     size_t *ret_size);

/** pack_distrust() - compare an object of this pack again at its next read: it may be
 * gone
 */
void pack_distrust(const struct pack *pack, uint32_t object);

/** pack_node_object() - the pack and object that hold a node's body */
int pack_node_object(const struct pack *pack, uint32_t node, const struct pack **ret_pack,
		     uint32_t *ret_object);

/** pack_entry_path() - the path of an entry of directory @dir, from the package's root */
void pack_entry_path(const struct pack *pack, uint32_t dir,
		     const struct pack_entry *entry, char path[static PACK_PATH_MAX + 1]);

/** pack_ref(), pack_unref() - hold and let go; the last one frees. NULL is allowed. */
struct pack *pack_ref(struct pack *pack);
void pack_unref(struct pack *pack);

/* All packs of a store. Thread-safe. */

/** pack_set_new() - @directory holds <id>.pack; copied. NULL when out of memory. */
struct pack_set *pack_set_new(const char *directory);
void pack_set_free(struct pack_set *set);

/**
 * pack_set_fresh() - the packs of another set, none of them loaded
 * @from: borrowed. For one thread. NULL when out of memory.
 */
struct pack_set *pack_set_fresh(struct pack_set *from);

/** pack_set_add() - make a pack known. A larger id has a larger first_node. */
int pack_set_add(struct pack_set *set, const struct pack_key *key);

/** pack_set_drop() - forget it; who holds a reference goes on using it */
void pack_set_drop(struct pack_set *set, uint64_t id);

/**
 * pack_set_get() - by id
 * Return: a reference; NULL there is none, or out of memory: see pack_set_has().
 */
struct pack *pack_set_get(struct pack_set *set, uint64_t id);

/**
 * pack_set_open() - by id, and loaded
 * Return: 0 with a reference in *@ret; -ENOENT the set has none of this id; the errors of
 * pack_load().
 */
int pack_set_open(struct pack_set *set, uint64_t id, struct pack **ret,
		  struct error *err);

/** pack_set_find() - by a node id in its range; as pack_set_get() */
struct pack *pack_set_find(struct pack_set *set, uint64_t node);

/** pack_set_has() - whether it has a pack of this id; makes and loads nothing */
bool pack_set_has(struct pack_set *set, uint64_t id);

/** pack_set_has_unloaded() - whether a node is of a pack that would have to be loaded */
bool pack_set_has_unloaded(struct pack_set *set, uint64_t node);

/**
 * pack_open_fd() - a loaded pack that is in no set: what an import has just made
 * @fd: duplicated
 * One that needs others is refused. Return: as pack_load(); pack_unref() frees.
 */
int pack_open_fd(int fd, struct pack **ret, struct error *err);

/**
 * pack_note_damage() - remember that somebody met damage in a pack
 * Waits for nothing (I1): a flag and a write to an eventfd.
 */
void pack_note_damage(const struct pack *pack);

/** pack_set_watch() - @eventfd is written to at each such note; -1: none is. Borrowed. */
void pack_set_watch(struct pack_set *set, int eventfd);

/** pack_set_next_damaged() - a pack with a note, which is taken; a reference, or NULL */
struct pack *pack_set_next_damaged(struct pack_set *set);

/** What a set has in memory, and what its packs were read for. */
struct pack_counts {
	uint64_t packs, loaded;
	uint64_t meta_bytes;  /* of the metadata of the loaded ones */
	uint64_t first_bytes; /* handed out by pack_read() with a checksum compared */
	uint64_t again_bytes; /* the same, where the blocks were known to be right */
};

/** pack_set_counts() - at this moment; the bytes since the set was made */
void pack_set_counts(struct pack_set *set, struct pack_counts *ret);

/** pack_path() - "<directory>/<id>.pack" into @text */
const char *pack_path(const struct pack_set *set, uint64_t id, char text[static 4096]);

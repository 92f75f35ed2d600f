/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog.h - apps, versions, channels, generations: catalog.db
 *
 * Every change is one transaction in WAL mode with synchronous=FULL: when the function
 * returns it survives a power cut (I9), when it fails nothing has happened. A change
 * tells what the mount has to show differently as a list of struct change, in the order
 * in which it is to be shown.
 *
 * One connection a struct catalog; the caller serialises its use. Blocks on the disk:
 * never called from a FUSE callback (I1).
 */
#pragma once

#include "digest.h"
#include "error.h"
#include "name.h"
#include "pack.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct catalog;

#define CHANNEL_DEFAULT  "current"
#define CHANNEL_PREVIOUS "previous"

/* Old node ids of one channel, and of one file in .deployfs/, that are still answered. */
#define CATALOG_LINKS_KEPT 1000
#define CATALOG_TEXTS_KEPT 8

/** What the mount has to show differently. */
enum change_kind {
	CHANGE_APP,          /* a new application: name, app_node */
	CHANGE_VERSION,      /* a version appears: name, pack, node (of its root) */
	CHANGE_VERSION_GONE, /* a version is hidden: name */
	CHANGE_LINK,      /* a channel points elsewhere: name, node, text (the target) */
	CHANGE_LINK_GONE, /* a channel is no more: name */
	CHANGE_TEXT,      /* a file of .deployfs/ has new content: name, node, text */
};

struct change {
	enum change_kind kind;
	char app[NAME_LENGTH_MAX + 1]; /* "" for CHANGE_TEXT */
	char name[NAME_LENGTH_MAX + 1];
	uint64_t app_node; /* node id of the application's directory */
	uint64_t node;
	uint64_t pack;
	int64_t time_ns;     /* of this change; CHANGE_APP: when the app was made */
	int64_t app_time_ns; /* mtime of the application's directory */
	char *text;          /* owned */
};

struct change_list {
	struct change *changes;
	size_t count, room;
};

/** change_list_done() - free what is in it; clean-up function */
void change_list_done(struct change_list *list);

enum version_state {
	VERSION_PRESENT,
	VERSION_REMOVING, /* hidden; data kept while somebody holds it */
	VERSION_REMOVED,  /* only the record that the name meant this content */
};

/** version_state_name() - "present", "removing", "removed" */
const char *version_state_name(enum version_state state);

struct version {
	int64_t id;
	char app[NAME_LENGTH_MAX + 1];
	char name[NAME_LENGTH_MAX + 1];
	enum version_state state;
	uint64_t pack;
	uint64_t first_node;
	uint32_t node_count;
	unsigned char sha256[SHA256_SIZE];
	uint64_t package_bytes, unpacked_bytes, stored_bytes, files;
	char verified[32]; /* "sha256sums", "sha256", "off" */
	char origin[1024];
	char imported_by[64];
	int64_t imported_ns;
	bool pinned, bad;
	char bad_reason[256];
	char damage[256]; /* of what it shows; "": none is known */
};

/** version_root() - node id of a version's root directory */
static inline uint64_t version_root(const struct version *version)
{
	return version->first_node + version->node_count;
}

/** catalog_open() - open, make or migrate. Return: 0; -EBADMSG damaged or newer; sql.h's.
 */
int catalog_open(const char *path, bool writable, struct catalog **ret,
		 struct error *err);
void catalog_close(struct catalog *catalog);

/**
 * catalog_on_change() - have @changed called after each commit
 * It runs under the catalog's lock: it must neither wait nor use the catalog.
 */
void catalog_on_change(struct catalog *catalog, void (*changed)(void *context),
		       void *context);

/**
 * catalog_make_room() - keep what changes need on the disk, should it become full
 *
 * Blocks for the WAL, and free pages in the database: some thousand flips, pins and
 * removals need no more. Quick when all is there. Only in a catalog opened for writing.
 *
 * Return: 0; -ENOSPC there is no room to keep.
 */
int catalog_make_room(struct catalog *catalog, struct error *err);

/**
 * catalog_backup() - write a copy of the present state, whole or not at all
 * @path: of the copy; "@path.new" is used on the way
 *
 * Reads through a connection of its own: no change waits for it. A SQLite database with
 * 16 bytes behind its end, XXH3-128 of what is before them.
 */
int catalog_backup(struct catalog *catalog, const char *path, struct error *err);

/** catalog_settle_version() - bring .deployfs/version up to date, at a start */
int catalog_settle_version(struct catalog *catalog, const char *program_version,
			   struct change_list *changes, struct error *err);

/**
 * catalog_settle_status() - bring .deployfs/status.json up to date
 * In a transaction of its own, after changes and not with them: it is about all
 * applications. Nothing is written where it says so already; then there is no change.
 */
int catalog_settle_status(struct catalog *catalog, struct change_list *changes,
			  struct error *err);

/** catalog_reserve() - ids for a pack that is about to be adopted; never given again */
int catalog_reserve(struct catalog *catalog, uint64_t nodes, uint64_t *ret_pack,
		    uint64_t *ret_first_node, struct error *err);

/**
 * catalog_add_version() - a pack that lies durable in its place becomes a version
 * @version: all but id, state, pinned, bad
 * @key, @pack_bytes, @deps: the pack, the size of its file, the packs it needs
 *
 * Return: 0; -EALREADY: it is here with this content (a hidden one is shown again, which
 * is no -EALREADY); -EEXIST: here, or known from before, with other content; -EINVAL: a
 * channel has this name.
 */
int catalog_add_version(struct catalog *catalog, const struct version *version,
			const struct pack_key *key, uint64_t pack_bytes,
			const uint64_t *deps, size_t dep_count,
			struct change_list *changes, struct error *err);

/**
 * catalog_check_new() - whether a version may be fetched, before the work is done
 * @sha256: NULL where it is not known yet
 * A hidden version of the same content is shown again, with @changes.
 * Return: as catalog_add_version().
 */
int catalog_check_new(struct catalog *catalog, const char *app, const char *version,
		      const unsigned char *sha256, struct change_list *changes,
		      struct error *err);

/** catalog_find_app() - whether there is such an application. Return: 0; -ENOENT. */
int catalog_find_app(struct catalog *catalog, const char *app, struct error *err);

/** catalog_find() - a version of any state. Return: 0; -ENOENT with what to do. */
int catalog_find(struct catalog *catalog, const char *app, const char *version,
		 struct version *ret, struct error *err);

/*
 * A change takes the key of the request that it is for, so that it is made once however
 * often the request comes; NULL: it has none. A key that is there already changes
 * nothing and gives the answer of the first time; the last 1000 are remembered. One that
 * was used for another request: -EINVAL.
 */
#define REQUEST_KEY_MAX 64

/** request_key_valid() - whether @key matches [A-Za-z0-9_-]{1,64} */
bool request_key_valid(const char *key);

/** What a flip or rollback has done. */
struct flip {
	bool changed;
	bool repeated; /* it was done before: the changes are to be notified again only */
	char app[NAME_LENGTH_MAX + 1];
	char channel[NAME_LENGTH_MAX + 1];
	char from[NAME_LENGTH_MAX + 1]; /* "": the channel is new */
	char to[NAME_LENGTH_MAX + 1];
	char previous[NAME_LENGTH_MAX + 1]; /* "": none */
	uint64_t generation;
	char note[512]; /* "": none */
};

/**
 * catalog_flip() - append a generation that points a channel at a version
 * @who, @reason: recorded; @reason may be ""
 * Clears a bad mark of the version. @ret->changed is false when the channel points there.
 * Return: 0; -ENOENT no such app or version here; -EINVAL a channel cannot have this
 * name.
 */
int catalog_flip(struct catalog *catalog, const char *app, const char *channel,
		 const char *version, const char *who, const char *reason,
		 const char *key, struct flip *ret, struct change_list *changes,
		 struct error *err);

/**
 * catalog_rollback() - flip to what was before, and mark what is left as bad
 *
 * The target is the version of the newest generation before the channel's current one
 * that is present, not bad and another than the current; a damaged one only where there
 * is no other. Return: 0; -ENOENT no such app
 * or channel, or nothing to go back to.
 */
int catalog_rollback(struct catalog *catalog, const char *app, const char *channel,
		     const char *who, const char *reason, const char *key,
		     struct flip *ret, struct change_list *changes, struct error *err);

/** catalog_pin() - Return: 1 changed; 0 was so; -ENOENT. */
int catalog_pin(struct catalog *catalog, const char *app, const char *version,
		bool pinned, const char *key, struct error *err);

/**
 * catalog_hide() - begin a removal
 * Return: 0; -ENOENT; -EBUSY when a channel, previous or a pin keeps it (says which).
 */
int catalog_hide(struct catalog *catalog, const char *app, const char *version,
		 const char *key, struct change_list *changes, struct error *err);

/** catalog_forget() - a hidden version whose data nobody holds: removed; its pack is to
 * be swept */
int catalog_forget(struct catalog *catalog, int64_t version_id, struct error *err);

/** A pack without a version, for which must be found out what of it still lives. */
struct ghost {
	struct pack_key key;
	uint64_t *dependents; /* packs that need it, owned */
	size_t dependent_count;
	bool dirty; /* has lost its version, a dependent, or what that needed, lately */
};

/** catalog_is_ghost() - Return: 1; 0 it has a version; a negative errno. */
int catalog_is_ghost(struct catalog *catalog, uint64_t pack, struct error *err);

/** catalog_any_dirty() - whether there may be anything to sweep: 1; 0; a negative errno
 */
int catalog_any_dirty(struct catalog *catalog, struct error *err);

/** catalog_ghosts() - all ghosts, newest first */
int catalog_ghosts(struct catalog *catalog, struct ghost **ret, size_t *ret_count,
		   struct error *err);
void ghosts_free(struct ghost *ghosts, size_t count);

/** catalog_ghost_swept() - not dirty any more, but what it needed is; @bytes are left */
int catalog_ghost_swept(struct catalog *catalog, uint64_t pack, uint64_t bytes,
			struct error *err);

/** catalog_drop_pack() - a ghost without dependents is gone; what it needed is looked at
 * next */
int catalog_drop_pack(struct catalog *catalog, uint64_t pack, struct error *err);

/**
 * catalog_users() - the packs of all versions that need a pack, itself included
 * @ret: malloc()ed, the caller's
 */
int catalog_users(struct catalog *catalog, uint64_t pack, uint64_t **ret,
		  size_t *ret_count, struct error *err);

/**
 * catalog_set_damage() - note damage of a pack, or that there is none any more
 * @damage: what is damaged; "": nothing
 * @users:  those of its catalog_users() that show what is damaged; NULL: all of them
 * Return: 1 it was said now for the first time, or taken back; 0 otherwise; -errno.
 */
int catalog_set_damage(struct catalog *catalog, uint64_t pack, const char *damage,
		       const uint64_t *users, size_t user_count,
		       struct change_list *changes, struct error *err);

/** A damaged pack, and a version that shows what is damaged. */
struct damage {
	uint64_t pack;
	bool own; /* the pack was made of this version's package */
	char app[NAME_LENGTH_MAX + 1], version[NAME_LENGTH_MAX + 1];
	char text[256];
};

/**
 * catalog_damage() - every damaged pack with every version that shows it
 * By pack; the version whose own it is first, then newer ones before older.
 * @ret: malloc()ed, the caller's
 */
int catalog_damage(struct catalog *catalog, struct damage **ret, size_t *ret_count,
		   struct error *err);

/** catalog_count_damaged() - versions that show damage and are present */
int catalog_count_damaged(struct catalog *catalog, uint64_t *ret, struct error *err);

/** How far the scrub is. */
struct scrub_progress {
	uint64_t pack; /* the last one that was looked at; 0: none since the last end */
	int64_t ended_ns; /* wall clock of the last end; 0: there was none */
};
int catalog_scrub_progress(struct catalog *catalog, struct scrub_progress *ret,
			   struct error *err);
int catalog_set_scrub_progress(struct catalog *catalog,
			       const struct scrub_progress *progress, struct error *err);

/** catalog_set_indexed(), catalog_unindexed() - packs whose hashes are not in index.db
 * yet */
int catalog_set_indexed(struct catalog *catalog, uint64_t pack, struct error *err);
int catalog_unindex_all(struct catalog *catalog, struct error *err);
int catalog_unindexed(struct catalog *catalog, uint64_t **ret, size_t *ret_count,
		      struct error *err);

/** catalog_next_pack() - the lowest id above @behind; 0: there is none */
int catalog_next_pack(struct catalog *catalog, uint64_t behind, uint64_t *ret,
		      struct error *err);

/* Reading. The callbacks return 0 to go on, anything else to end with it. */

/** catalog_each_pack() - ascending by id */
int catalog_each_pack(struct catalog *catalog,
		      int (*each)(void *context, const struct pack_key *key),
		      void *context, struct error *err);

/** catalog_each_version() - of @app or of all (NULL); present and removing; by app,
 * unordered */
int catalog_each_version(struct catalog *catalog, const char *app,
			 int (*each)(void *context, const struct version *version),
			 void *context, struct error *err);

/** catalog_each_removing() - hidden, and not yet removed */
int catalog_each_removing(struct catalog *catalog,
			  int (*each)(void *context, const struct version *version),
			  void *context, struct error *err);

/** catalog_each_change() - the changes that would bring an empty mount to the present
 * state */
int catalog_each_change(struct catalog *catalog,
			int (*each)(void *context, const struct change *change),
			void *context, struct error *err);

/** catalog_each_leaf() - ids of links and texts that were given out lately, older ones
 * too */
int catalog_each_leaf(struct catalog *catalog,
		      int (*each)(void *context, const struct change *change),
		      void *context, struct error *err);

/** A channel and where it points; previous is one of them. */
struct channel {
	char app[NAME_LENGTH_MAX + 1];
	char name[NAME_LENGTH_MAX + 1];
	char version[NAME_LENGTH_MAX + 1];
};
int catalog_each_channel(struct catalog *catalog, const char *app,
			 int (*each)(void *context, const struct channel *channel),
			 void *context, struct error *err);

/** catalog_each_app() - names in order */
int catalog_each_app(struct catalog *catalog,
		     int (*each)(void *context, const char *name), void *context,
		     struct error *err);

/** catalog_app_names() - the same at once; malloc()ed, the caller's */
int catalog_app_names(struct catalog *catalog, char (**ret)[NAME_LENGTH_MAX + 1],
		      size_t *ret_count, struct error *err);

/** One line of a history. */
struct generation {
	uint64_t number;
	int64_t time_ns;
	const char *who, *verb, *from, *to, *reason,
		*result; /* from: NULL in the first */
};

/** catalog_history() - newest first. Return: 0; -ENOENT no such app, or channel. */
int catalog_history(struct catalog *catalog, const char *app, const char *channel,
		    int (*each)(void *context, const struct generation *generation),
		    void *context, struct error *err);

/**
 * catalog_has_package() - whether the version of a package is present
 * @name: "shop-1.4.2", of @size bytes
 *
 * Return: false also where the catalog cannot be read.
 */
bool catalog_has_package(struct catalog *catalog, const char *name, size_t size);

/**
 * catalog_unsure() - whether a change that failed may yet be there after a crash
 *
 * So it is while the disk has taken nothing since. What it names must stay until then.
 */
bool catalog_unsure(struct catalog *catalog);

/** catalog_bytes() - what all packs take on the disk */
int catalog_bytes(struct catalog *catalog, uint64_t *ret, struct error *err);

/** catalog_bad_versions() - names marked bad, NULL-terminated, one malloc()ed block */
int catalog_bad_versions(struct catalog *catalog, const char *app, char ***ret,
			 struct error *err);

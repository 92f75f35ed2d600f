/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps I9: a pack is made under tmp/, completed, renamed into packs/, made durable by
 * one syncfs(2), and only then named by the catalog. What a crash leaves before that is a
 * file in tmp/ or a pack without a row: both go at the next start.
 */
#include "store.h"

#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "log.h"
#include "rebuild.h"
#include "sums.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

const char *store_path(const struct store *store, const char *name,
		       char text[static 4096])
{
	snprintf(text, 4096, "%s/%s", store->path, name);
	return text;
}

void store_close(struct store *store)
{
	if (!store)
		return;
	index_close(store->index);
	catalog_close(store->catalog);
	pack_set_free(store->packs);
	fd_close(&store->lock_fd);
	free(store->path);
	free(store);
}

DEFINE_CLEANUP(struct store, store_close)

static int check_owner(const struct store *store, struct error *err)
{
	struct stat st;

	if (lstat(store->path, &st) < 0)
		return error_set(err, -errno, "cannot look at the store '%s': %s",
				 store->path, strerror(errno));
	if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || st.st_mode & 022)
		return error_set(
			err, -EPERM,
			"the store '%s' is not a directory that only root can "
			"change: 'chown root' and 'chmod 700' it, if what is in it "
			"can be trusted",
			store->path);
	return 0;
}

static int check_file_system(const struct store *store, struct error *err)
{
	struct statfs st;

	if (statfs(store->path, &st) < 0)
		return error_set(err, -errno, "cannot look at the disk of '%s': %s",
				 store->path, strerror(errno));
	if (st.f_type == NFS_SUPER_MAGIC || st.f_type == FUSE_SUPER_MAGIC ||
	    st.f_type == OVERLAYFS_SUPER_MAGIC)
		return error_set(
			err, -EINVAL,
			"the store '%s' is on %s, which does not keep what it has "
			"acknowledged: put it on a local ext4 or xfs ('store' in the "
			"configuration)",
			store->path,
			st.f_type == NFS_SUPER_MAGIC    ? "NFS"
			: st.f_type == FUSE_SUPER_MAGIC ? "FUSE"
							: "an overlay");
	return 0;
}

static int take_lock(struct store *store, bool wait, struct error *err)
{
	char path[4096], pid[32] = "";

	store->lock_fd = open(store_path(store, "lock", path),
			      O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (store->lock_fd < 0)
		return error_set(err, -errno, "cannot open '%s': %s", path,
				 strerror(errno));
	if (flock(store->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		ssize_t n = pread(store->lock_fd, pid, sizeof(pid) - 1, 0);

		pid[n > 0 ? strcspn(pid, "\n") : 0] = '\0';
		if (!wait)
			return error_set(
				err, -EBUSY,
				"another deployfsd (pid %s) has the store '%s': stop it, or "
				"set another 'store'",
				*pid ? pid : "unknown", store->path);
		log_info("waiting until pid %s lets go of the store '%s'",
			 *pid ? pid : "unknown", store->path);
		while (flock(store->lock_fd, LOCK_EX) < 0)
			if (errno != EINTR)
				return error_set(err, -errno, "cannot lock '%s': %s",
						 path, strerror(errno));
	}
	snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	/* Written before it is cut: its block must not be given away on a full disk. */
	if (fd_pwrite_all(store->lock_fd, pid, strlen(pid), 0) ||
	    ftruncate(store->lock_fd, (off_t)strlen(pid)) < 0)
		return error_set(err, -EIO, "cannot write '%s'", path);
	return 0;
}

static int make_dirs(const struct store *store, struct error *err)
{
	static const char *const names[] = {"packs", "partial", "tmp"};
	char path[4096];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (mkdir(store_path(store, names[i], path), 0700) < 0 && errno != EEXIST)
			return error_set(err, -errno, "cannot make '%s': %s", path,
					 strerror(errno));
	return 0;
}

/* Unlink what @judge says of a folder's files. */
static int sweep_dir(const struct store *store, const char *name,
		     bool (*judge)(const struct store *store, int dir, const char *file),
		     struct error *err)
{
	cleanup(dir_close) DIR *dir = NULL;
	char path[4096];
	struct dirent *entry;

	dir = opendir(store_path(store, name, path));
	if (!dir)
		return error_set(err, -errno, "cannot read '%s': %s", path,
				 strerror(errno));
	while ((entry = readdir(dir))) {
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") ||
		    !judge(store, dirfd(dir), entry->d_name))
			continue;
		if (unlinkat(dirfd(dir), entry->d_name, 0) < 0)
			log_warning("cannot remove '%s/%s': %s", path, entry->d_name,
				    strerror(errno));
		else
			log_info("removed '%s/%s', left over from before", path,
				 entry->d_name);
	}
	return 0;
}

static bool judge_all(const struct store *store, int dir, const char *file)
{
	return true;
}

/* What a rebuild has put aside is for people to look at. */
static bool judge_orphan(const struct store *store, int dir, const char *file)
{
	char *end;
	uint64_t id = strtoull(file, &end, 10);
	bool known = !strcmp(end, ".pack") && pack_set_has(store->packs, id);

	return !known && strcmp(end, ".pack.damaged");
}

static bool judge_old(const struct store *store, int dir, const char *file)
{
	struct stat st;

	return fstatat(dir, file, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
	       clock_wall_ns() - st.st_mtim.tv_sec * 1000000000LL > PARTIAL_KEPT_NS;
}

/* A crash between an import's commit and its end leaves what it was downloaded to. */
static bool judge_partial(const struct store *store, int dir, const char *file)
{
	size_t size = sums_size_without_ending(file, strlen(file));

	return judge_old(store, dir, file) ||
	       (size > 0 && catalog_has_package(store->catalog, file, size));
}

int store_sweep_partials(const struct store *store, struct error *err)
{
	return sweep_dir(store, "partial", judge_partial, err);
}

static int add_key(void *context, const struct pack_key *key)
{
	return pack_set_add(context, key);
}

/* A store without its catalog is not a new one: taken for that, its packs would be swept
 * as orphans, and with them what no origin may have any more (I8). Not in store_own():
 * who takes over from another has no time for it, and has the catalog open. */
static int settle_catalog(const struct store *store, struct error *err)
{
	struct error why = {0};
	int r = catalog_check(store->path, &why);

	if (r == -EBADMSG)
		r = store_rebuild(store->path, why.text, &why);
	return r < 0 ? error_set(err, r, "cannot open the catalog of '%s': %s",
				 store->path, why.text)
		     : 0;
}

static int prepare(struct store *store, bool wait, struct error *err)
{
	int r = dir_make(store->path, 0700);

	if (r < 0)
		return error_set(err, r, "cannot make the store '%s': %s", store->path,
				 strerror(-r));
	r = check_owner(store, err);
	if (r == 0)
		r = check_file_system(store, err);
	if (r == 0)
		r = take_lock(store, wait, err);
	return r == 0 ? make_dirs(store, err) : r;
}

static int open_databases(struct store *store, enum store_mode mode, struct error *err)
{
	char text[4096];
	int r = catalog_open(store_path(store, "catalog.db", text), mode != STORE_READ,
			     &store->catalog, err);

	if (r == 0 && mode != STORE_SERVE)
		r = index_open(store_path(store, "index.db", text), mode != STORE_READ,
			       &store->index, err);
	if (r == 0)
		r = catalog_each_pack(store->catalog, add_key, store->packs, err);
	return r;
}

/* With the lock, and the databases open: what was left behind goes. */
static int settle(struct store *store, struct error *err)
{
	struct error why = {0};
	int r = 0;

	if (catalog_make_room(store->catalog, &why) < 0)
		log_warning("a full disk may keep channels from being flipped: %s",
			    why.text);
	if (index_empty(store->index))
		r = catalog_unindex_all(store->catalog, err);
	if (r == 0)
		r = sweep_dir(store, "tmp", judge_all, err);
	if (r == 0)
		r = sweep_dir(store, "packs", judge_orphan, err);
	if (r == 0)
		r = store_sweep_partials(store, err);
	return r;
}

int store_open(const char *path, enum store_mode mode, struct store **ret,
	       struct error *err)
{
	cleanup(store_close_ptr) struct store *store = calloc(1, sizeof(*store));
	bool own = mode == STORE_OWN || mode == STORE_WAIT;
	char text[4096];
	int r = 0;

	if (!store)
		return error_set(err, -ENOMEM, "not enough memory");
	store->lock_fd = -1;
	store->path = strdup(path);
	store->packs =
		store->path ? pack_set_new(store_path(store, "packs", text)) : NULL;
	if (!store->packs)
		return error_set(err, -ENOMEM, "not enough memory");
	if (own)
		r = prepare(store, mode == STORE_WAIT, err);
	if (r == 0 && own)
		r = settle_catalog(store, err);
	if (r == 0)
		r = open_databases(store, mode, err);
	if (r == 0 && own)
		r = settle(store, err);
	if (r < 0)
		return r;
	*ret = take_ptr(store);
	return 0;
}

int store_own(struct store *store, bool wait, struct error *err)
{
	char text[4096];
	int r;

	if (store->index)
		return 0;
	r = prepare(store, wait, err);
	if (r == 0)
		r = index_open(store_path(store, "index.db", text), true, &store->index,
			       err);
	if (r == 0)
		r = settle(store, err);
	if (r < 0) {
		index_close(store->index);
		store->index = NULL;
		fd_close(&store->lock_fd);
	}
	return r;
}

void store_release(struct store *store)
{
	index_close(store->index);
	catalog_close(store->catalog);
	store->index = NULL;
	store->catalog = NULL;
	fd_close(&store->lock_fd);
}

void store_unlink_pack(struct store *store, uint64_t id)
{
	char path[4096];

	pack_set_drop(store->packs, id);
	if (unlink(pack_path(store->packs, id, path)) < 0 && errno != ENOENT)
		log_warning("cannot remove '%s': %s", path, strerror(errno));
}

/* Give the pack its ids and its true name and origin; the job's are not believed. */
static int header_complete(struct store *store, int fd, const struct version *version,
			   struct pack_key *ret, struct error *err)
{
	struct pack_header header;
	struct stat st;
	int r = fd_pread_all(fd, &header, sizeof(header), 0);

	/* The copy's place is the job's word: it must be the end of what is there. */
	if (r < 0 || fstat(fd, &st) < 0 ||
	    pack_header_copy(&header) + PACK_HEADER_SIZE != (uint64_t)st.st_size)
		return error_set(err, -EBADMSG, "the job left no whole pack");
	if (header.node_count > PACK_ENTRIES_MAX || header.dir_count > PACK_ENTRIES_MAX ||
	    header.dir_count == 0)
		return error_set(err, -EBADMSG,
				 "the job left a pack of too many entries");
	r = catalog_reserve(store->catalog,
			    (uint64_t)header.node_count + header.dir_count,
			    &header.pack_id, &header.first_node, err);
	if (r < 0)
		return r;
	header.package_size = version->package_bytes;
	header.created_ns = version->imported_ns;
	header.files = version->files;
	header.unpacked_bytes = version->unpacked_bytes;
	memset(header.retired, 0, sizeof(header.retired));
	memcpy(header.package_sha256, version->sha256, SHA256_SIZE);
	snprintf(header.app, sizeof(header.app), "%s", version->app);
	snprintf(header.version, sizeof(header.version), "%s", version->name);
	snprintf(header.origin, sizeof(header.origin), "%s", version->origin);
	snprintf(header.verified, sizeof(header.verified), "%s", version->verified);
	snprintf(header.imported_by, sizeof(header.imported_by), "%s",
		 version->imported_by);
	r = pack_header_write(fd, &header);
	if (r < 0)
		return error_set(err, r, "cannot write the pack: %s", strerror(-r));
	*ret = (struct pack_key){header.pack_id, header.first_node, header.node_count,
				 header.dir_count};
	return 0;
}

static int settle_pack(struct store *store, int fd, const char *temporary,
		       const struct pack_key *key, struct error *err)
{
	char from[4096], to[4096];

	store_path(store, "tmp/", from);
	strncat(from, temporary, sizeof(from) - strlen(from) - 1);
	pack_path(store->packs, key->id, to);
	if (rename(from, to) < 0)
		return error_set(err, -errno, "cannot rename '%s' to '%s': %s", from, to,
				 strerror(errno));
	/* One for the bodies, the metadata and the directory: 40 times as fast as a fsync
	 * each would have been for unpacked files. */
	if (syncfs(fd) < 0)
		return error_set(err, -errno, "cannot make '%s' durable: %s", to,
				 strerror(errno));
	return 0;
}

static int pack_enter(struct store *store, int fd, const struct pack_key *key,
		      struct version *version, struct error *err)
{
	struct pack *pack = NULL;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0 || pack_set_add(store->packs, key) < 0)
		return error_set(err, -ENOMEM, "not enough memory");
	r = pack_set_open(store->packs, key->id, &pack, err);
	pack_unref(pack);
	version->pack = key->id;
	version->first_node = key->first_node;
	version->node_count = key->node_count;
	version->stored_bytes = (uint64_t)st.st_blocks * 512;
	return r;
}

int store_adopt(struct store *store, int fd, const char *temporary,
		struct version *version, struct error *err)
{
	struct pack_key key;
	int r = header_complete(store, fd, version, &key, err);

	if (r < 0)
		return r;
	r = settle_pack(store, fd, temporary, &key, err);
	if (r == 0)
		r = pack_enter(store, fd, &key, version, err);
	if (r < 0)
		store_unlink_pack(store, key.id);
	return r;
}

int store_add(struct store *store, const struct version *version,
	      struct change_list *changes, struct error *err)
{
	struct pack *pack = NULL;
	bool used = false;
	/* It may have been let go since the adoption. */
	int r = pack_set_open(store->packs, version->pack, &pack, err);

	if (r == 0)
		r = catalog_add_version(store->catalog, version, &pack->key,
					version->stored_bytes, pack->meta.deps,
					pack->meta.dep_count, changes, err);
	pack_unref(pack);
	for (size_t i = 0; i < changes->count; i++)
		used |= changes->changes[i].kind == CHANGE_VERSION &&
			changes->changes[i].pack == version->pack;
	if (r < 0 && catalog_unsure(store->catalog))
		pack_set_drop(store->packs, version->pack); /* a start judges the file */
	else if (r < 0 || !used)
		store_unlink_pack(store, version->pack);
	return r;
}

static int index_packs(struct store *store, struct error *err)
{
	cleanup(free_ptr) uint64_t *ids = NULL;
	size_t count = 0;
	int r = catalog_unindexed(store->catalog, &ids, &count, err);

	for (size_t i = 0; r == 0 && i < count; i++) {
		struct pack *pack = pack_set_get(store->packs, ids[i]);

		if (!pack)
			continue;
		/* A pack that is damaged, or needs one that is missing, is not shared
		 * from; the others are. */
		r = pack_load(pack, err);
		if (r == 0)
			r = index_add(store->index, pack, err);
		else if (r == -EBADMSG || r == -ENOENT)
			r = 0;
		if (r == 0)
			r = catalog_set_indexed(store->catalog, ids[i], err);
		pack_unref(pack);
	}
	return r;
}

int store_index(struct store *store, struct error *err)
{
	int r = index_packs(store, err);

	if (!index_is_damaged(store->index))
		return r;
	r = store_renew_index(store, err);
	return r < 0 ? r : index_packs(store, err);
}

/* Packs first: a crash in between leaves an index with rows that are entered again. */
int store_renew_index(struct store *store, struct error *err)
{
	int r = catalog_unindex_all(store->catalog, err);

	return r < 0 ? r : index_renew(store->index, err);
}

int store_partials(const struct store *store, struct partial **ret, size_t *ret_count,
		   struct error *err)
{
	cleanup(dir_close) DIR *dir = NULL;
	cleanup(free_ptr) struct partial *partials = NULL;
	size_t count = 0, room = 0;
	struct dirent *entry;
	char path[4096];

	dir = opendir(store_path(store, "partial", path));
	if (!dir)
		return error_set(err, -errno, "cannot read '%s': %s", path,
				 strerror(errno));
	while ((entry = readdir(dir))) {
		struct stat st;

		if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    !S_ISREG(st.st_mode))
			continue;
		if (count == room) {
			struct partial *larger;

			room = room ? room * 2 : 16;
			larger = realloc(partials, room * sizeof(*partials));
			if (!larger)
				return error_set(err, -ENOMEM, "not enough memory");
			partials = larger;
		}
		partials[count].bytes = (uint64_t)st.st_blocks * 512;
		partials[count].mtime_ns =
			st.st_mtim.tv_sec * 1000000000LL + st.st_mtim.tv_nsec;
		snprintf(partials[count++].name, sizeof(partials[0].name), "%s",
			 entry->d_name);
	}
	*ret = take_ptr(partials);
	*ret_count = count;
	return 0;
}

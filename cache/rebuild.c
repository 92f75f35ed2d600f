/* SPDX-License-Identifier: Apache-2.0 */
#include "rebuild.h"

#include "catalog_check.h"
#include "catalog_private.h"
#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "log.h"
#include "reconcile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The files of a rebuild. */
struct places {
	char db[4096], backup[4096], damaged[4096], fresh[4096], packs[4096];
};

static int places_of(const char *store, struct places *ret, struct error *err)
{
	if (strlen(store) > sizeof(ret->db) - 32)
		return error_set(err, -ENAMETOOLONG, "the path '%.100s...' is too long",
				 store);
	snprintf(ret->db, sizeof(ret->db), "%s/catalog.db", store);
	snprintf(ret->backup, sizeof(ret->backup), "%s/catalog.bak", store);
	snprintf(ret->damaged, sizeof(ret->damaged), "%s/catalog.db.damaged", store);
	snprintf(ret->fresh, sizeof(ret->fresh), "%s/catalog.db.new", store);
	snprintf(ret->packs, sizeof(ret->packs), "%s/packs", store);
	return 0;
}

static bool has_packs(const char *packs)
{
	cleanup(dir_close) DIR *dir = opendir(packs);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (pack_file_id(entry->d_name))
			return true;
	return false;
}

int catalog_check(const char *path, struct error *err)
{
	cleanup(catalog_copy_done) struct catalog_copy catalog = {0};
	struct places places;
	int r = places_of(path, &places, err);

	if (r < 0)
		return r;
	r = catalog_copy_open(places.db, places.backup, &catalog, err);
	if (r == -ENOENT || (r == -EBADMSG && !catalog.db)) {
		struct stat st;

		/* A new store, or a start that was killed at its first write. */
		if ((r == -ENOENT || stat(places.db, &st) < 0 || st.st_size == 0) &&
		    !has_packs(places.packs) && access(places.backup, F_OK) < 0)
			return 0;
		return error_set(err, -EBADMSG, "%s", err ? err->text : "");
	}
	if (r < 0 || catalog.newer)
		return r;
	return catalog_copy_check(&catalog, places.packs, err);
}

/* Where a rebuild begins: the copies that are whole. */
struct sources {
	struct catalog_copy catalog, backup;
};

static void sources_done(struct sources *sources)
{
	catalog_copy_done(&sources->catalog);
	catalog_copy_done(&sources->backup);
}

static void sources_open(const struct places *places, struct sources *ret)
{
	struct error why = {0};

	*ret = (struct sources){0};
	if (catalog_copy_open(places->db, NULL, &ret->catalog, NULL) == 0)
		catalog_copy_check(&ret->catalog, places->packs, NULL);
	if (catalog_copy_load(places->backup, &ret->backup, &why) == 0)
		catalog_copy_check(&ret->backup, places->packs, &why);
	if (why.code && why.code != -ENOENT)
		log_warning("the copy of the catalog '%s': %s", places->backup, why.text);
}

/* Rows that agree count before youth; being older than a pack is no disagreement here,
 * but then the other one is not worse. */
static struct catalog_copy *source_choose(struct sources *sources)
{
	struct catalog_copy *a = &sources->catalog, *b = &sources->backup;

	if (!a->db || a->newer)
		a = NULL;
	if (!b->db || b->newer)
		b = NULL;
	if (!a || !b)
		return a ? a : b;
	if (a->consistent != b->consistent)
		return a->consistent ? a : b;
	return a->next_node >= b->next_node ? a : b;
}

static int begin_with(const struct places *places, struct catalog_copy *source,
		      struct error *err)
{
	unsigned char *bytes;
	size_t size;
	int r = sql_remove(places->fresh);

	if (r < 0)
		return error_set(err, r, "cannot remove '%s': %s", places->fresh,
				 strerror(-r));
	if (!source)
		return 0;
	r = sql_copy(source->db, &bytes, &size, err);
	if (r < 0)
		return r;
	r = file_write_durable(places->fresh, bytes, size, NULL, 0);
	sqlite3_free(bytes);
	return r < 0 ? error_set(err, r, "cannot write '%s': %s", places->fresh,
				 strerror(-r))
		     : 0;
}

/* A pack of which nothing is known cannot be served, nor can be told what it was: it is
 * not to be swept as what a crash has left. */
static int unreadable_put_aside(const struct places *places, struct catalog *catalog,
				const struct pack_file *files, size_t count,
				struct error *err)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < count; i++) {
		char from[4200], to[4250];
		int64_t known;

		if (files[i].known)
			continue;
		r = sql_value(catalog->db, &known, err,
			      "SELECT 1 FROM pack WHERE id = ?1", "i",
			      (int64_t)files[i].id);
		if (r != 0)
			continue;
		snprintf(from, sizeof(from), "%s/%llu.pack", places->packs,
			 (unsigned long long)files[i].id);
		snprintf(to, sizeof(to), "%s.damaged", from);
		if (rename(from, to) == 0)
			log_error("the header of '%s' is damaged, and no catalog knows "
				  "which version it was: kept as '%s'",
				  from, to);
	}
	return r < 0 ? r : 0;
}

/* The new catalog as one file, without a WAL. */
static int build(const struct places *places, struct catalog_copy *source,
		 struct reconciled *ret, struct error *err)
{
	struct catalog *catalog = NULL;
	struct pack_file *files = NULL;
	size_t count = 0;
	int r = begin_with(places, source, err);

	if (r == 0)
		r = pack_scan(places->packs, &files, &count, err);
	if (r == 0)
		r = catalog_open(places->fresh, true, &catalog, err);
	if (r == 0)
		r = catalog_reconcile(catalog, files, count,
				      !source || source->consistent, ret, err);
	if (r == 0)
		r = unreadable_put_aside(places, catalog, files, count, err);
	if (catalog) {
		int persist = 0;

		sqlite3_file_control(catalog->db, "main", SQLITE_FCNTL_PERSIST_WAL,
				     &persist);
		catalog->writable = false; /* no room is kept beside this name */
	}
	if (r == 0)
		r = sql_exec(catalog->db, "PRAGMA journal_mode = DELETE", err);
	catalog_close(catalog);
	pack_files_free(files, count);
	return r;
}

static int check_built(const struct places *places, struct error *err)
{
	cleanup(catalog_copy_done) struct catalog_copy catalog;
	int r = catalog_copy_open(places->fresh, NULL, &catalog, err);

	return r < 0 ? r : catalog_copy_check(&catalog, places->packs, err);
}

static int file_sync(const char *path)
{
	cleanup(fd_close) int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* From the WAL's end on there is no way back to the old catalog, which is not missed. */
static int settle_files(const struct places *places, struct error *err)
{
	char path[4200];
	int r = 0;

	if (unlink(places->damaged) < 0 && errno != ENOENT)
		r = -errno;
	if (r == 0 && link(places->db, places->damaged) < 0 && errno != ENOENT)
		r = -errno;
	snprintf(path, sizeof(path), "%s-wal", places->db);
	if (r == 0 && unlink(path) < 0 && errno != ENOENT)
		r = -errno;
	snprintf(path, sizeof(path), "%s-shm", places->db);
	if (r == 0 && unlink(path) < 0 && errno != ENOENT)
		r = -errno;
	/* A WAL that came back after a power cut would be applied to the new catalog. */
	if (r == 0)
		r = dir_sync_of(places->db);
	if (r == 0)
		r = file_sync(places->fresh);
	if (r == 0)
		r = file_rename_durable(places->fresh, places->db);
	return r < 0 ? error_set(err, r, "cannot replace '%s': %s", places->db,
				 strerror(-r))
		     : 0;
}

static void tell(const struct places *places, const struct catalog_copy *source,
		 bool from_backup, const char *why, const struct reconciled *done)
{
	char since[CLOCK_TEXT_SIZE] = "", from[160];

	if (!source)
		snprintf(from, sizeof(from),
			 "channels, their history, pins and bad marks are lost: flip the "
			 "channels again");
	else if (from_backup)
		snprintf(from, sizeof(from),
			 "flips, pins and marks after %s, the time of its copy, are lost",
			 clock_format(source->time_ns, since));
	else
		snprintf(from, sizeof(from), "%s",
			 source->consistent ? "the last flips and pins may be lost"
					    : "check the channels");
	log_error("the catalog '%s' was damaged (%s) and is rebuilt: %s; versions=%u "
		  "from_packs=%u gone=%u dropped_channels=%u kept='%s'",
		  places->db, why, from, done->versions, done->found, done->gone,
		  done->channels, places->damaged);
}

int store_rebuild(const char *path, const char *why, struct error *err)
{
	cleanup(sources_done) struct sources sources = {0};
	struct catalog_copy *source;
	struct reconciled done = {0};
	struct places places;
	int r = places_of(path, &places, err);

	if (r < 0)
		return r;
	sources_open(&places, &sources);
	source = source_choose(&sources);
	r = build(&places, source, &done, err);
	if (r == 0)
		r = check_built(&places, err);
	if (r == -EBADMSG && source) {
		log_warning("the catalog's copy is of no use: %s", err ? err->text : "");
		source = NULL;
		r = build(&places, NULL, &done, err);
	}
	if (r == 0) {
		bool from_backup = source == &sources.backup;

		/* SQLite must not hold what is replaced. */
		catalog_copy_done(&sources.catalog);
		r = settle_files(&places, err);
		if (r == 0)
			tell(&places, source, from_backup, why, &done);
	}
	return r;
}

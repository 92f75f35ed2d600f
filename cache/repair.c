/* SPDX-License-Identifier: Apache-2.0 */
#include "repair.h"

#include "cleanup.h"
#include "fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One look at a donor. */
struct mend {
	struct scrub *scrub;
	int fd;                /* the damaged pack, for writing */
	struct bad_block *bad; /* the scrub's, sorted by what they should be */
	size_t count;
	bool *written;
	size_t left; /* not written yet */
	char block[PACK_BLOCK_SIZE];
};

static void mend_done(struct mend *mend)
{
	fd_close(&mend->fd);
	free(mend->written);
}

static const struct checksum *wanted(const struct pack *pack, const struct bad_block *bad)
{
	return &pack->meta
			.checks[pack->meta.objects[bad->object].check_first + bad->block];
}

static int by_checksum(const void *left, const void *right, void *context)
{
	return memcmp(wanted(context, left), wanted(context, right), CHECKSUM_SIZE);
}

static int by_place(const void *left, const void *right)
{
	const struct bad_block *a = left, *b = right;

	if (a->object != b->object)
		return a->object < b->object ? -1 : 1;
	return a->block < b->block ? -1 : a->block > b->block;
}

static int target_open(const struct scrub *scrub, int *ret, struct error *err)
{
	char path[4096];

	*ret = open(pack_path(scrub->own.packs, scrub->id, path),
		    O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	return *ret < 0 ? error_set(err, -errno, "cannot open '%s' to repair it: %s",
				    path, strerror(errno))
			: 0;
}

static int mend_begin(struct mend *mend, struct scrub *scrub, struct error *err)
{
	int r = target_open(scrub, &mend->fd, err);

	if (r < 0)
		return r;
	mend->scrub = scrub;
	mend->bad = scrub->bad;
	mend->count = mend->left = scrub->bad_count;
	mend->written = calloc(mend->count + 1, sizeof(*mend->written));
	if (!mend->written)
		return error_set(err, -ENOMEM, "not enough memory");
	qsort_r(mend->bad, mend->count, sizeof(mend->bad[0]), by_checksum, scrub->pack);
	return 0;
}

/* The first bad block that should have a checksum; count: none. */
static size_t find(const struct mend *mend, const struct checksum *sum)
{
	size_t low = 0, high = mend->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (memcmp(wanted(mend->scrub->pack, &mend->bad[middle]), sum,
			   CHECKSUM_SIZE) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool same(const struct mend *mend, size_t at, const struct checksum *sum)
{
	return at < mend->count &&
	       checksum_equal(wanted(mend->scrub->pack, &mend->bad[at]), sum);
}

/* What the donor has for a checksum; false when it is damaged there too. */
static bool block_read(struct mend *mend, const struct pack *donor,
		       const struct pack_object *object, uint32_t block,
		       const struct checksum *sum)
{
	size_t size = scrub_block_size(object, block);
	struct checksum is;

	if (fd_pread_all(donor->fd, mend->block, size,
			 object->offset + (uint64_t)block * PACK_BLOCK_SIZE) < 0)
		return false;
	is = checksum_of(mend->block, size);
	return checksum_equal(&is, sum);
}

static int block_write(struct mend *mend, size_t at, size_t size)
{
	const struct bad_block *bad = &mend->bad[at];
	const struct pack_object *object = &mend->scrub->pack->meta.objects[bad->object];
	int r;

	if (mend->written[at] || scrub_block_size(object, bad->block) != size)
		return 0;
	r = fd_pwrite_all(mend->fd, mend->block, size,
			  object->offset + (uint64_t)bad->block * PACK_BLOCK_SIZE);
	if (r < 0)
		return r;
	mend->written[at] = true;
	mend->left--;
	return 0;
}

static int block_mend(struct mend *mend, const struct pack *donor,
		      const struct pack_object *object, uint32_t block)
{
	const struct checksum *sum = &donor->meta.checks[object->check_first + block];
	size_t at = find(mend, sum);
	int r = 0;

	if (!same(mend, at, sum) || !block_read(mend, donor, object, block, sum))
		return 0;
	for (; r == 0 && same(mend, at, sum); at++)
		r = block_write(mend, at, scrub_block_size(object, block));
	return r;
}

/* Durable, and out of the page cache so that the next reader sees the disk. */
static int settle(int fd, struct error *err)
{
	if (fdatasync(fd) < 0)
		return error_set(err, -errno, "cannot write the repair: %s",
				 strerror(errno));
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	return 0;
}

int repair_from(struct scrub *scrub, const struct pack *donor, size_t *ret_mended,
		struct error *err)
{
	cleanup(mend_done) struct mend mend = {.fd = -1};
	size_t before = scrub->bad_count;
	int r = 0;

	*ret_mended = 0;
	if (before == 0 || !scrub->pack)
		return 0;
	r = mend_begin(&mend, scrub, err);
	if (r < 0)
		return r;
	for (uint32_t i = 0; r == 0 && mend.left && i < donor->meta.object_count; i++) {
		const struct pack_object *object = &donor->meta.objects[i];
		uint64_t blocks = pack_checks_of(object->size);

		for (uint32_t block = 0; r == 0 && mend.left && block < blocks; block++)
			r = block_mend(&mend, donor, object, block);
	}
	qsort(scrub->bad, scrub->bad_count, sizeof(scrub->bad[0]), by_place);
	if (r < 0)
		return error_set(err, r, "cannot write the repair: %s", strerror(-r));
	if (mend.left == before)
		return 0;
	r = settle(mend.fd, err);
	if (r == 0)
		r = scrub_again(scrub, err);
	if (r == 0)
		*ret_mended = before - scrub->bad_count;
	return r;
}

/* What was loaded is right: it was compared with its checksums. */
int repair_parts(struct scrub *scrub, struct error *err)
{
	const struct pack *pack = scrub->pack;
	const struct pack_header *header = pack ? &pack->header : NULL;
	cleanup(fd_close) int fd = -1;
	int r;

	if (!pack || scrub->parts == 0)
		return 0;
	r = target_open(scrub, &fd, err);
	if (r < 0)
		return r;
	if (scrub->parts & SCRUB_META)
		r = fd_pwrite_all(fd, pack->meta_buffer, header->meta_size,
				  header->meta_offset);
	if (r == 0 && scrub->parts & SCRUB_META_COPY)
		r = fd_pwrite_all(fd, pack->meta_buffer, header->meta_size,
				  header->copy_offset);
	if (r == 0 && scrub->parts & SCRUB_HEADER)
		r = fd_pwrite_all(fd, header, sizeof(*header), 0);
	if (r == 0 && scrub->parts & SCRUB_HEADER_COPY)
		r = fd_pwrite_all(fd, header, sizeof(*header), pack_header_copy(header));
	if (r < 0)
		return error_set(err, r, "cannot write the repair: %s", strerror(-r));
	r = settle(fd, err);
	return r < 0 ? r : scrub_again(scrub, err);
}

/* Ids of all packs, in the order of the catalog. */
struct ids {
	uint64_t *ids;
	size_t count, room;
};

static void ids_done(struct ids *ids)
{
	free(ids->ids);
}

static void set_done(struct pack_set **set)
{
	pack_set_free(*set);
}

static int id_add(void *context, const struct pack_key *key)
{
	struct ids *ids = context;

	if (ids->count == ids->room) {
		size_t room = ids->room ? ids->room * 2 : 64;
		uint64_t *larger = realloc(ids->ids, room * sizeof(*larger));

		if (!larger)
			return -ENOMEM;
		ids->ids = larger;
		ids->room = room;
	}
	ids->ids[ids->count++] = key->id;
	return 0;
}

int repair_from_store(struct scrub *scrub,
		      void (*mended)(void *context, const struct pack *donor,
				     size_t blocks),
		      void *context, struct error *err)
{
	cleanup(ids_done) struct ids ids = {0};
	cleanup(set_done) struct pack_set *donors = NULL;
	int r;

	if (!scrub->pack)
		return 0;
	/* Not the scrub's own set: scrub_again() throws that away. */
	donors = pack_set_fresh(scrub->store->packs);
	if (!donors)
		return error_set(err, -ENOMEM, "not enough memory");
	r = repair_parts(scrub, err);
	if (r == 0)
		r = catalog_each_pack(scrub->store->catalog, id_add, &ids, err);
	for (size_t i = ids.count; r == 0 && scrub->bad_count && i > 0; i--) {
		struct pack *donor = pack_set_get(donors, ids.ids[i - 1]);
		size_t blocks = 0;

		if (donor && pack_load(donor, NULL) == 0)
			r = repair_from(scrub, donor, &blocks, err);
		if (blocks && mended)
			mended(context, donor, blocks);
		pack_unref(donor);
	}
	return r;
}

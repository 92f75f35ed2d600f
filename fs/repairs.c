/* SPDX-License-Identifier: Apache-2.0 */
#include "repairs.h"

#include "cleanup.h"
#include "log.h"
#include "repair.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct repair {
	struct service *service;
	struct version version;
	const atomic_bool *cancelled;
	struct scrub *scrubs; /* one a damaged pack */
	size_t count;
	bool changed;    /* something was mended, or found to be right */
	json_t *sources; /* array of {"from", "blocks"} */
};

void repair_free(struct repair *repair)
{
	if (!repair)
		return;
	for (size_t i = 0; i < repair->count; i++)
		scrub_done(&repair->scrubs[i]);
	free(repair->scrubs);
	json_decref(repair->sources);
	free(repair);
}

DEFINE_CLEANUP(struct repair, repair_free)

static int scrubs_make(struct repair *repair, const struct scrub_pace *pace,
		       struct error *err)
{
	cleanup(free_ptr) struct damage *damages = NULL;
	size_t count = 0;
	int r = catalog_damage(repair->service->store->catalog, &damages, &count, err);

	if (r < 0)
		return r;
	repair->scrubs = calloc(count + 1, sizeof(*repair->scrubs));
	if (!repair->scrubs)
		return error_set(err, -ENOMEM, "not enough memory");
	for (size_t i = 0; i < count; i++)
		if (!strcmp(damages[i].app, repair->version.app) &&
		    !strcmp(damages[i].version, repair->version.name))
			scrub_init(&repair->scrubs[repair->count++],
				   repair->service->store, damages[i].pack, pace);
	return 0;
}

int repair_new(struct service *service, const char *app, const char *version,
	       const atomic_bool *cancelled, const struct scrub_pace *pace,
	       struct repair **ret, struct error *err)
{
	cleanup(repair_free_ptr) struct repair *repair = calloc(1, sizeof(*repair));
	int r;

	if (!repair)
		return error_set(err, -ENOMEM, "not enough memory");
	repair->service = service;
	repair->cancelled = cancelled;
	repair->sources = json_array();
	r = catalog_find(service->store->catalog, app, version, &repair->version, err);
	if (r == 0)
		r = scrubs_make(repair, pace, err);
	if (r == 0)
		*ret = take_ptr(repair);
	return r;
}

void repair_sha256(const struct repair *repair, char text[static SHA256_TEXT_SIZE])
{
	sha256_format(repair->version.sha256, text);
}

static void source_add(struct repair *repair, const char *from, size_t blocks)
{
	json_array_append_new(repair->sources, json_pack("{s:s, s:I}", "from", from,
							 "blocks", (json_int_t)blocks));
	repair->changed = true;
	log_info("repaired: app=%s version=%s blocks=%zu from='%s'", repair->version.app,
		 repair->version.name, blocks, from);
}

static void on_mended(void *context, const struct pack *donor, size_t blocks)
{
	char from[2 * NAME_LENGTH_MAX + 20];

	snprintf(from, sizeof(from), "%s %s", donor->header.app, donor->header.version);
	source_add(context, from, blocks);
}

/* What the catalog says of the pack from now on. */
static int record(struct repair *repair, struct scrub *scrub, struct error *err)
{
	if (!scrub_found(scrub)) {
		repair->changed = true;
		/* Where the disk is right and a reader met other bytes, they were in
		 * memory. */
		if (scrub->pack)
			posix_fadvise(scrub->pack->fd, 0, 0, POSIX_FADV_DONTNEED);
	}
	return service_record(repair->service, scrub, err);
}

/* One pack, from @donor or (NULL) from the store. With the right to share: what is not
 * used any more is not freed meanwhile, and so not taken for damage. */
static int mend(struct repair *repair, struct scrub *scrub, const struct pack *donor,
		const char *origin, struct error *err)
{
	size_t blocks = 0;
	int r = service_share_begin(repair->service, repair->cancelled);

	if (r < 0)
		return error_set(err, r, "cancelled");
	r = scrub_again(scrub, err);
	if (r == 0 && !donor)
		r = repair_from_store(scrub, on_mended, repair, err);
	else if (r == 0)
		r = repair_from(scrub, donor, &blocks, err);
	service_share_end(repair->service);
	if (blocks)
		source_add(repair, origin, blocks);
	return r < 0 ? r : record(repair, scrub, err);
}

/* The first pack in which something is damaged; @hopeless: which cannot even be loaded.
 */
static const struct scrub *first_left(const struct repair *repair, bool hopeless)
{
	for (size_t i = 0; i < repair->count; i++)
		if (hopeless ? repair->scrubs[i].hopeless.code != 0
			     : scrub_found(&repair->scrubs[i]))
			return &repair->scrubs[i];
	return NULL;
}

int repair_here(struct repair *repair, bool *ret_left, struct error *err)
{
	const struct scrub *hopeless;
	int r = 0;

	for (size_t i = 0; r == 0 && i < repair->count; i++) {
		r = scrub_run(&repair->scrubs[i], err);
		if (r == 0)
			r = mend(repair, &repair->scrubs[i], NULL, NULL, err);
	}
	if (r < 0)
		return r;
	hopeless = first_left(repair, true);
	*ret_left = false;
	for (size_t i = 0; i < repair->count; i++)
		*ret_left |= repair->scrubs[i].bad_count > 0;
	if (hopeless && !*ret_left)
		return error_set(
			err, -EBADMSG,
			"version '%s' of '%s' cannot be repaired (%s): remove it "
			"and fetch it again",
			repair->version.name, repair->version.app,
			hopeless->hopeless.text);
	return 0;
}

int repair_with(struct repair *repair, int donor_fd, const char *origin,
		struct error *err)
{
	const struct scrub *left;
	struct pack *donor;
	char text[256];
	int r = pack_open_fd(donor_fd, &donor, err);

	if (r < 0)
		return r;
	for (size_t i = 0; r == 0 && i < repair->count; i++)
		if (repair->scrubs[i].bad_count)
			r = mend(repair, &repair->scrubs[i], donor, origin, err);
	pack_unref(donor);
	left = r == 0 ? first_left(repair, false) : NULL;
	if (left)
		return error_set(
			err, -EBADMSG,
			"the package of version '%s' of '%s' has not all that is "
			"damaged: %s",
			repair->version.name, repair->version.app,
			scrub_text(left, text, sizeof(text)));
	return r;
}

json_t *repair_result(const struct repair *repair)
{
	return json_pack("{s:b, s:s, s:O}", "changed", repair->changed, "version",
			 repair->version.name, "repaired", repair->sources);
}

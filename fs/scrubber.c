/* SPDX-License-Identifier: Apache-2.0 */
#include "scrubber.h"

#include "cleanup.h"
#include "clock.h"
#include "fd.h"
#include "jobs.h"
#include "log.h"
#include "repair.h"
#include "scrub.h"
#include "service.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#define RATE          (20ULL * 1024 * 1024) /* bytes a second */
#define PASS_EVERY_NS (7LL * 24 * 3600 * 1000000000)
#define TRY_FIRST_MS  60000ULL
#define TRY_LAST_MS   (24ULL * 3600 * 1000)
#define LONGEST_MS    (3600 * 1000)
#define RECORD_MS     30000 /* between two notes of how far a pass is */

/* A damaged pack. */
struct patient {
	uint64_t pack;
	unsigned tries;
	uint64_t due_ms; /* monotonic: when the next try is made */
	bool here;       /* the catalog still says so */
};

/* All but `stop` and `wake` is the thread's own. */
struct scrubber {
	struct service *service;
	pthread_t thread;
	bool started;
	atomic_bool stop;
	int wake; /* eventfd */
	struct patient *patients;
	size_t count, room;
	struct scrub_progress progress;
	uint64_t recorded_ms; /* monotonic: when that was written */
};

static struct patient *patient_of(struct scrubber *s, uint64_t pack)
{
	for (size_t i = 0; i < s->count; i++)
		if (s->patients[i].pack == pack)
			return &s->patients[i];
	if (s->count == s->room) {
		size_t room = s->room ? s->room * 2 : 8;
		struct patient *larger = realloc(s->patients, room * sizeof(*larger));

		if (!larger)
			return NULL;
		s->patients = larger;
		s->room = room;
	}
	s->patients[s->count] = (struct patient){.pack = pack};
	return &s->patients[s->count++];
}

static void repair_start(struct scrubber *s, const struct damage *damage)
{
	const struct job_order order = {
		.kind = "repair",
		.app = damage->app,
		.version = damage->version,
		.who = "deployfsd",
		.archive_fd = -1,
	};
	struct error err = {0};
	json_t *job = NULL;
	uint64_t waiter;

	if (jobs_start(s->service->jobs, &order, &job, &waiter, &err) < 0)
		log_debug("no repair of '%s' %s is begun: %s", damage->app,
			  damage->version, err.text);
	json_decref(job);
}

/* One pack with the versions that need it: each try takes the next one's package. */
static void treat_pack(struct scrubber *s, const struct damage *damages, size_t count)
{
	struct patient *patient = patient_of(s, damages[0].pack);
	uint64_t now_ms = clock_monotonic_ms(), pause_ms = TRY_FIRST_MS;

	if (!patient)
		return;
	patient->here = true;
	if (patient->due_ms > now_ms)
		return;
	repair_start(s, &damages[patient->tries % count]);
	for (unsigned i = 0; i < patient->tries && pause_ms < TRY_LAST_MS; i++)
		pause_ms *= 2;
	patient->due_ms = now_ms + (pause_ms < TRY_LAST_MS ? pause_ms : TRY_LAST_MS);
	patient->tries++;
}

static void treat(struct scrubber *s)
{
	cleanup(free_ptr) struct damage *damages = NULL;
	struct error err = {0};
	size_t count = 0, kept = 0;

	if (catalog_damage(s->service->store->catalog, &damages, &count, &err) < 0) {
		log_error("cannot look for what is damaged: %s", err.text);
		return;
	}
	for (size_t i = 0; i < s->count; i++)
		s->patients[i].here = false;
	for (size_t i = 0, end; i < count; i = end) {
		for (end = i + 1; end < count && damages[end].pack == damages[i].pack;)
			end++;
		treat_pack(s, damages + i, end - i);
	}
	for (size_t i = 0; i < s->count; i++)
		if (s->patients[i].here)
			s->patients[kept++] = s->patients[i];
	s->count = kept;
}

static bool is_known(struct scrubber *s, uint64_t pack)
{
	cleanup(free_ptr) struct damage *damages = NULL;
	size_t count = 0;

	catalog_damage(s->service->store->catalog, &damages, &count, NULL);
	for (size_t i = 0; i < count; i++)
		if (damages[i].pack == pack)
			return true;
	return false;
}

/* Damage that is new is treated at once, whatever was tried before. */
static void due_now(struct scrubber *s, uint64_t pack)
{
	struct patient *patient = is_known(s, pack) ? NULL : patient_of(s, pack);

	if (patient)
		*patient = (struct patient){.pack = pack};
}

static void not_recorded(uint64_t pack, const struct error *err)
{
	log_error("cannot record the damage of pack %llu: %s", (unsigned long long)pack,
		  err->text);
}

/* What readers have met. A repair job finds out how much it is. */
static void notes_take(struct scrubber *s)
{
	struct pack_set *packs = s->service->store->packs;
	eventfd_t times;
	struct error err = {0};
	struct pack *pack;

	eventfd_read(s->wake, &times);
	while ((pack = pack_set_next_damaged(packs))) {
		/* Of one that is known, more is known than this. */
		if (!is_known(s, pack->key.id)) {
			due_now(s, pack->key.id);
			if (service_set_damage(
				    s->service, pack->key.id,
				    "a read found other bytes than were imported", NULL,
				    0, &err) < 0)
				not_recorded(pack->key.id, &err);
		}
		pack_unref(pack);
	}
}

/* Sleep, but for notes; false when it is time to end. */
static bool rest(struct scrubber *s, uint64_t ms)
{
	struct pollfd fd = {s->wake, POLLIN, 0};
	int timeout = ms > LONGEST_MS ? LONGEST_MS : (int)ms;

	if (!s->stop && poll(&fd, 1, timeout) > 0 && !s->stop) {
		notes_take(s);
		treat(s);
	}
	return !s->stop;
}

static int pace(void *context, uint64_t bytes)
{
	struct scrubber *s = context;
	uint64_t until_ms = clock_monotonic_ms() + bytes * 1000 / RATE, now_ms;

	do {
		now_ms = clock_monotonic_ms();
		if (!rest(s, until_ms > now_ms ? until_ms - now_ms : 0))
			return -ECANCELED;
	} while (clock_monotonic_ms() < until_ms);
	return 0;
}

/* What looks like damage may only have been freed while it was read: again, with the
 * right that keeps everything where it is. */
static int confirm(struct scrubber *s, struct scrub *scrub, struct error *err)
{
	int r;

	if (!scrub_found(scrub))
		return 0;
	r = service_share_begin(s->service, &s->stop);
	if (r < 0)
		return r;
	r = scrub_again(scrub, err);
	if (r == 0 && scrub->parts) {
		log_warning("metadata is damaged, and mended from its copy: pack=%llu",
			    (unsigned long long)scrub->id);
		r = repair_parts(scrub, err);
	}
	service_share_end(s->service);
	return r;
}

static void look(struct scrubber *s, uint64_t pack)
{
	const struct scrub_pace slow = {pace, s};
	cleanup(scrub_done) struct scrub scrub;
	struct error err = {0};
	int r;

	scrub_init(&scrub, s->service->store, pack, &slow);
	r = scrub_run(&scrub, &err);
	if (r == 0)
		r = confirm(s, &scrub, &err);
	if (r < 0) {
		if (!s->stop)
			log_warning("cannot look at pack %llu: %s",
				    (unsigned long long)pack, err.text);
		return;
	}
	if (scrub_found(&scrub))
		due_now(s, pack);
	if (service_record(s->service, &scrub, &err) < 0)
		not_recorded(pack, &err);
}

static bool pass_due(const struct scrubber *s)
{
	int64_t since_ns = clock_wall_ns() - s->progress.ended_ns;

	/* A clock that went back must not put it off for ever. */
	return s->progress.pack || since_ns < 0 || since_ns >= PASS_EVERY_NS;
}

/* A commit for each of many small packs would cost more than reading them. */
static int progress_record(struct scrubber *s, struct error *err)
{
	uint64_t now_ms = clock_monotonic_ms();

	if (s->progress.pack && s->recorded_ms && now_ms - s->recorded_ms < RECORD_MS)
		return 0;
	s->recorded_ms = now_ms;
	return catalog_set_scrub_progress(s->service->store->catalog, &s->progress, err);
}

/* One pack of a pass, or its end. */
static void pass_step(struct scrubber *s)
{
	struct catalog *catalog = s->service->store->catalog;
	struct error err = {0};
	uint64_t pack = 0;
	int r = catalog_next_pack(catalog, s->progress.pack, &pack, &err);

	if (r == 0 && pack)
		look(s, pack);
	if (s->stop)
		return;
	/* A catalog that cannot be read has worse to be told than that: the next pass. */
	s->progress.pack = pack;
	if (!pack)
		s->progress.ended_ns = clock_wall_ns();
	if (r == 0)
		r = progress_record(s, &err);
	if (r < 0)
		log_error("cannot record how far the scrub is: %s", err.text);
}

/* Until the next try, or the next pass. */
static uint64_t idle_ms(const struct scrubber *s)
{
	uint64_t now_ms = clock_monotonic_ms(), ms = LONGEST_MS;

	for (size_t i = 0; i < s->count; i++) {
		uint64_t due_ms = s->patients[i].due_ms;

		if (due_ms < now_ms + ms)
			ms = due_ms > now_ms ? due_ms - now_ms : 0;
	}
	return ms;
}

static void *scrubber_main(void *context)
{
	struct scrubber *s = context;
	struct error err = {0};

	if (catalog_scrub_progress(s->service->store->catalog, &s->progress, &err) < 0)
		log_error("cannot find out how far the scrub is: %s", err.text);
	while (!s->stop) {
		notes_take(s);
		treat(s);
		if (pass_due(s))
			pass_step(s);
		else
			rest(s, idle_ms(s));
	}
	return NULL;
}

int scrubber_start(struct service *service, struct scrubber **ret, struct error *err)
{
	struct scrubber *s = calloc(1, sizeof(*s));

	if (!s)
		return error_set(err, -ENOMEM, "not enough memory");
	s->service = service;
	s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->wake < 0) {
		free(s);
		return error_set(err, -errno, "cannot make an eventfd: %s",
				 strerror(errno));
	}
	*ret = s; /* scrubber_free() from here */
	pack_set_watch(service->store->packs, s->wake);
	if (pthread_create(&s->thread, NULL, scrubber_main, s))
		return error_set(err, -EAGAIN, "cannot start a thread");
	s->started = true;
	return 0;
}

void scrubber_stop(struct scrubber *s)
{
	if (!s || !s->started)
		return;
	s->stop = true;
	eventfd_write(s->wake, 1);
	service_share_wake(s->service);
	pthread_join(s->thread, NULL);
	s->started = false;
}

void scrubber_free(struct scrubber *s)
{
	if (!s)
		return;
	pack_set_watch(s->service->store->packs, -1);
	fd_close(&s->wake);
	free(s->patients);
	free(s);
}

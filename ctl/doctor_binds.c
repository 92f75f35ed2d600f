/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The binds of other mount namespaces, in practice containers. A bind of the base with
 * rslave is a slave of the base's peer group, and so has every later mount in it; all
 * others have only what was there when they were made.
 */
#include "cleanup.h"
#include "deadline.h"
#include "doctor.h"
#include "mountinfo.h"
#include "procfs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAMESPACES_MAX 4096
#define DEVICES_MAX    64
#define BASES_MAX      64

/* The mount namespaces that were looked at, and what was found about old devices. */
struct survey {
	struct doctor *doctor;
	ino_t namespaces[NAMESPACES_MAX];
	size_t namespace_count;
	struct {
		dev_t device;
		bool dead;
	} others[DEVICES_MAX]; /* file systems of our type that are not today's */
	size_t other_count;
	size_t following; /* namespaces with nothing to say about */
	bool unseen;      /* a process that we may not look at */
};

/* One namespace, by a process in it. */
struct place {
	struct survey *survey;
	pid_t pid;
	char who[128]; /* "container 0123456789ab (nginx, pid 12)" */
	struct {
		unsigned id;
		bool follows, filled;
		char point[512];
	} bases[BASES_MAX];
	size_t base_count;
	size_t uses, findings;
};

static void place_name(struct place *place)
{
	char name[PROCESS_NAME_SIZE], id[PROCESS_CONTAINER_SIZE];

	process_name(place->pid, name);
	if (process_container(place->pid, id))
		snprintf(place->who, sizeof(place->who), "container %s (pid %d, %s)", id,
			 (int)place->pid, name);
	else
		snprintf(place->who, sizeof(place->who),
			 "the mount namespace of pid %d (%s)", (int)place->pid, name);
}

static bool find_bases(void *context, const struct mountinfo *info)
{
	struct place *place = context;
	const struct doctor *doctor = place->survey->doctor;

	if (!doctor->base_there || info->device != doctor->base_device ||
	    strcmp(info->root, doctor->base_root) != 0 || place->base_count == BASES_MAX)
		return true;
	place->bases[place->base_count].id = info->id;
	place->bases[place->base_count].follows =
		doctor->base_group && (info->master == doctor->base_group ||
				       info->shared == doctor->base_group);
	snprintf(place->bases[place->base_count].point,
		 sizeof(place->bases[place->base_count].point), "%s", info->point);
	place->base_count++;
	place->uses++;
	return true;
}

/* @format has four strings: who, what of the mount, where, and the base. */
__attribute__((format(printf, 3, 0))) static void tell(struct place *place,
						       enum finding_level level,
						       const char *format,
						       const char *what,
						       const char *point)
{
	place->findings++;
	finding_add(&place->survey->doctor->findings, level, "bind", format, place->who,
		    what, point, place->survey->doctor->base);
}

/* Whether a mount that is not today's is dead: those of other instances are not. Each
 * file system is asked once. */
static bool dead(struct place *place, const struct mountinfo *info)
{
	struct survey *survey = place->survey;
	char path[4200];
	size_t i;
	int r;

	for (i = 0; i < survey->other_count; i++)
		if (survey->others[i].device == info->device)
			return survey->others[i].dead;
	if (i == DEVICES_MAX)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/root%s", (int)place->pid, info->point);
	r = deadline_statfs(path, DEADLINE_MS);
	survey->others[i].device = info->device;
	survey->others[i].dead = r == -ENOTCONN || r == -ECONNABORTED;
	survey->other_count++;
	return survey->others[i].dead;
}

/* A bind of apps, of an application or of something below that, by its root. */
static void judge_part(struct place *place, const struct mountinfo *info)
{
	const char *app = info->root + 1;
	const char *version = strchr(app, '/');

	place->uses++;
	if (version)
		tell(place, FINDING_WARNING,
		     "%s has bound '%s' at '%s': that never changes to another version; "
		     "bind '%s' with propagation rslave to follow flips",
		     info->root, info->point);
	else
		tell(place, FINDING_WARNING,
		     "%s has bound '%s' of the mount at '%s': that follows flips, but "
		     "stays on a dead mount when deployfsd must mount anew; bind '%s' with "
		     "propagation rslave to follow that too",
		     info->root, info->point);
}

static bool judge_mount(void *context, const struct mountinfo *info)
{
	struct place *place = context;
	const struct doctor *doctor = place->survey->doctor;
	const bool ours = doctor->mounted && info->device == doctor->device;

	if (strcmp(info->type, DOCTOR_TYPE) != 0)
		return true;
	for (size_t i = 0; i < place->base_count && !strcmp(info->root, "/"); i++) {
		if (place->bases[i].id != info->parent)
			continue;
		place->bases[i].filled = place->bases[i].filled || ours;
		/* That of our own namespace is doctor_mount()'s. */
		if (ours || place->bases[i].follows)
			return true;
	}
	if (ours)
		judge_part(place, info);
	else if (dead(place, info))
		tell(place, FINDING_PROBLEM,
		     "%s has '%s' of a dead mount at '%s': make the container anew, and "
		     "bind '%s' with propagation rslave, which lives through a new mount",
		     info->root, info->point);
	return true;
}

static void judge_bases(struct place *place)
{
	const struct doctor *doctor = place->survey->doctor;

	for (size_t i = 0; i < place->base_count; i++) {
		if (doctor->mounted && !place->bases[i].filled)
			tell(place, FINDING_PROBLEM,
			     "%s has bound '%s' at '%s', but today's mount is not in it: "
			     "make the container anew, and bind '%s' with propagation "
			     "rslave",
			     doctor->base, place->bases[i].point);
		else if (!place->bases[i].follows)
			tell(place, FINDING_WARNING,
			     "%s has bound '%s' at '%s' without following it: it stays on "
			     "a dead mount when deployfsd must mount anew; bind '%s' with "
			     "propagation rslave",
			     doctor->base, place->bases[i].point);
	}
}

static bool seen_before(struct survey *survey, ino_t namespace)
{
	for (size_t i = 0; i < survey->namespace_count; i++)
		if (survey->namespaces[i] == namespace)
			return true;
	if (survey->namespace_count < NAMESPACES_MAX)
		survey->namespaces[survey->namespace_count++] = namespace;
	return false;
}

/* A process with a root of its own shows a part of its namespace only: another one in
 * there may tell more. */
static bool whole_view(pid_t pid)
{
	char root[16];

	return process_link(pid, "root", root, sizeof(root)) == 0 && !strcmp(root, "/");
}

static void look_at(void *context, pid_t pid)
{
	struct survey *survey = context;
	struct place place = {.survey = survey, .pid = pid};
	ino_t namespace = process_namespace(pid);

	if (namespace == 0) {
		survey->unseen = survey->unseen || process_state(pid);
		return;
	}
	if (!whole_view(pid) || seen_before(survey, namespace))
		return;
	place_name(&place);
	mountinfo_each(pid, find_bases, &place);
	mountinfo_each(pid, judge_mount, &place);
	judge_bases(&place);
	if (place.uses > 0 && place.findings == 0)
		survey->following++;
}

void doctor_binds(struct doctor *doctor)
{
	struct survey *survey = calloc(1, sizeof(*survey));

	if (!survey)
		return;
	survey->doctor = doctor;
	process_each(look_at, survey);
	if (survey->unseen && geteuid() != 0)
		finding_add(&doctor->findings, FINDING_WARNING, "bind",
			    "not all processes can be looked at: run this as root");
	if (survey->following > 0)
		finding_add(&doctor->findings, FINDING_OK, "bind",
			    "%zu mount namespace%s as documented", survey->following,
			    survey->following == 1 ? " has it" : "s have it");
	free(survey);
}

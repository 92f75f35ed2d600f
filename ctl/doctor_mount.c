/* SPDX-License-Identifier: Apache-2.0 */
#include "cleanup.h"
#include "deadline.h"
#include "doctor.h"
#include "fd.h"
#include "mountinfo.h"
#include "procfs.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define CONNECTIONS "/sys/fs/fuse/connections"

/* What is mounted at the base and at apps, the topmost of each. */
struct points {
	struct doctor *doctor;
	char type[64], options[256];
	unsigned count; /* of mounts at apps, one over the other */
};

static bool points_find(void *context, const struct mountinfo *info)
{
	struct points *points = context;
	struct doctor *doctor = points->doctor;

	if (!strcmp(info->point, doctor->base)) {
		doctor->base_there = true;
		doctor->base_device = info->device;
		doctor->base_group = info->shared;
		snprintf(doctor->base_root, sizeof(doctor->base_root), "%s", info->root);
	} else if (!strcmp(info->point, doctor->apps)) {
		points->count++;
		doctor->device = info->device;
		snprintf(points->type, sizeof(points->type), "%s", info->type);
		snprintf(points->options, sizeof(points->options), "%s", info->options);
	}
	return true;
}

static void check_flags(struct doctor *doctor, const struct points *points)
{
	static const char *const needed[] = {"ro", "nosuid", "nodev"};

	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		if (!mountinfo_option(points->options, needed[i]))
			finding_add(
				&doctor->findings, FINDING_PROBLEM, "flags",
				"'%s' is mounted without '%s': somebody has mounted "
				"it anew with other flags; 'mount -o remount,bind,ro,"
				"nosuid,nodev %s' sets them, a restart of deployfsd too",
				doctor->apps, needed[i], doctor->apps);
}

static void check_base(struct doctor *doctor)
{
	if (!doctor->base_there)
		finding_add(&doctor->findings, FINDING_PROBLEM, "propagation",
			    "'%s' is no mount of its own, so containers cannot follow a "
			    "new mount in it: restart deployfsd, and then the containers",
			    doctor->base);
	else if (!doctor->base_group)
		finding_add(&doctor->findings, FINDING_PROBLEM, "propagation",
			    "'%s' is not a shared mount, so containers do not see a new "
			    "mount in it: 'mount --make-shared %s', and make the "
			    "containers anew",
			    doctor->base, doctor->base);
	else
		finding_add(&doctor->findings, FINDING_OK, "propagation",
			    "'%s' is a shared mount, containers can follow it",
			    doctor->base);
}

static const char *state_text(char state)
{
	switch (state) {
	case 'T':
		return "is stopped (T): 'kill -CONT' lets it go on";
	case 't':
		return "is held by a debugger (t): let that go on";
	case 'D':
		return "waits for a disk, or for another mount (D): see the kernel's log";
	case 'Z':
		return "has ended, and nobody has taken notice (Z)";
	default:
		return "runs, but does not answer: its watchdog should replace it within "
		       "seconds; else end it with SIGKILL";
	}
}

/* Every process of the daemon, so that nothing hangs on what the supervisor has written.
 */
struct blamed {
	struct doctor *doctor;
	size_t count;
};

static void blame(struct doctor *doctor, pid_t pid, const char *what)
{
	char state = process_state(pid);

	if (state)
		finding_add(&doctor->findings, FINDING_PROBLEM, "process",
			    "%s, pid %d, %s", what, (int)pid, state_text(state));
}

static void blame_daemon(void *context, pid_t pid)
{
	struct blamed *blamed = context;
	char name[PROCESS_NAME_SIZE];

	/* Workers are called "deployfs-worker". */
	if (strncmp(process_name(pid, name), "deployfs", 8) != 0)
		return;
	blamed->count++;
	blame(blamed->doctor, pid, name);
}

static void name_processes(struct doctor *doctor)
{
	const struct supervisor *s = &doctor->supervisor;
	struct blamed blamed = {.doctor = doctor};

	if (s->pid)
		blame(doctor, s->pid, "the supervisor");
	if (s->worker)
		blame(doctor, s->worker, "the worker");
	if (!s->pid && !s->worker)
		process_each(blame_daemon, &blamed);
}

static void name_abort(struct doctor *doctor)
{
	const unsigned number = minor(doctor->device);
	char path[96];

	snprintf(path, sizeof(path), CONNECTIONS "/%u/abort", number);
	finding_add(
		&doctor->findings, FINDING_WARNING, "abort",
		"the last resort is%s 'echo 1 > %s': it cuts the connection for good, "
		"so that everything that waits ends, and everybody who uses the mount "
		"gets ENOTCONN until deployfsd is started anew",
		access(path, F_OK) == 0 ? ""
					: " 'mount -t fusectl none " CONNECTIONS
					  "' and then",
		path);
}

static void check_answer(struct doctor *doctor)
{
	int r = deadline_statfs(doctor->apps, DEADLINE_MS);

	switch (r) {
	case 0:
		doctor->answers = true;
		finding_add(&doctor->findings, FINDING_OK, "mount",
			    "'%s' is mounted and answers", doctor->apps);
		break;
	case -ENOTCONN:
	case -ECONNABORTED:
		finding_add(&doctor->findings, FINDING_PROBLEM, "mount",
			    "'%s' is a dead mount, its daemon is gone: what the kernel "
			    "has cached can be read, all else fails with ENOTCONN; "
			    "restart deployfsd, which mounts anew",
			    doctor->apps);
		break;
	case -ETIMEDOUT:
		finding_add(&doctor->findings, FINDING_PROBLEM, "mount",
			    "'%s' has not answered within %d s: its daemon hangs, or "
			    "there is none at the moment",
			    doctor->apps, DEADLINE_MS / 1000);
		name_processes(doctor);
		name_abort(doctor);
		break;
	default:
		finding_add(&doctor->findings, FINDING_PROBLEM, "mount",
			    "'%s' cannot be asked: %s", doctor->apps, strerror(-r));
	}
}

void doctor_mount(struct doctor *doctor)
{
	struct points points = {.doctor = doctor};

	if (!realpath(doctor->config->mount, doctor->base))
		snprintf(doctor->base, sizeof(doctor->base), "%s", doctor->config->mount);
	snprintf(doctor->apps, sizeof(doctor->apps), "%s/apps", doctor->base);
	mountinfo_each(0, points_find, &points);
	if (points.count == 0) {
		finding_add(&doctor->findings, FINDING_PROBLEM, "mount",
			    "nothing is mounted at '%s': start deployfsd, or restart it "
			    "where it runs",
			    doctor->apps);
		return;
	}
	if (strcmp(points.type, DOCTOR_TYPE) != 0) {
		finding_add(&doctor->findings, FINDING_PROBLEM, "mount",
			    "'%s' is covered by a mount of type '%s', which is not ours: "
			    "unmount that",
			    doctor->apps, points.type);
		return;
	}
	doctor->mounted = true;
	if (points.count > 1)
		finding_add(&doctor->findings, FINDING_WARNING, "mount",
			    "%u mounts lie over each other at '%s': only the newest is "
			    "seen; stop deployfsd, unmount the rest, start it",
			    points.count, doctor->apps);
	check_base(doctor);
	check_flags(doctor, &points);
	check_answer(doctor);
}

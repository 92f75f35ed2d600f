/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor.h"

#include "cleanup.h"
#include "deadline.h"
#include "verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* Where "deployfsd --check" is not on PATH. */
#define INSTALLED DEPLOYFS_SBINDIR "/deployfsd"

static int check_by_daemon(const char *path, char *text, size_t size)
{
	const char *argv[] = {"deployfsd", "--check", "--config", path, NULL};
	int r = deadline_program(argv, text, size, DEADLINE_MS);

	if (r == -ENOENT) {
		argv[0] = INSTALLED;
		r = deadline_program(argv, text, size, DEADLINE_MS);
	}
	return r;
}

void doctor_config(struct doctor *doctor, const char *path)
{
	struct findings *findings = &doctor->findings;
	struct error err = {0};
	char text[ERROR_TEXT_MAX - 128];
	int r = config_open(path, &doctor->config, &err);

	if (r < 0) {
		finding_add(findings, FINDING_PROBLEM, "config", "%s", err.text);
		config_defaults(path, &doctor->config, &err);
		return;
	}
	path = doctor->config->path;
	if (access(path, F_OK) < 0) {
		finding_add(findings, FINDING_OK, "config",
			    "there is no '%s': all keys have their defaults", path);
		return;
	}
	r = check_by_daemon(path, text, sizeof(text));
	if (r == 0)
		finding_add(findings, FINDING_OK, "config",
			    "the configuration '%s' is right", path);
	else if (r > 0)
		finding_add(findings, FINDING_PROBLEM, "config", "%s", text);
	else
		finding_add(findings, FINDING_WARNING, "config",
			    "'%s' can be read, but 'deployfsd --check' cannot be run: %s",
			    path, strerror(-r));
}

static void check_kernel(struct findings *findings)
{
	unsigned major = 0, minor = 0;
	struct utsname name;

	if (uname(&name) < 0 || sscanf(name.release, "%u.%u", &major, &minor) != 2)
		return;
	if (major < 6 || (major == 6 && minor < 2))
		finding_add(
			findings, FINDING_WARNING, "kernel",
			"Linux %s cannot let a name expire, as 6.2 can: a version that "
			"was removed may stay visible, and its space taken, until the "
			"kernel forgets it by itself; nor can it send requests again, "
			"as 6.9 can: a reader may wait longer when a worker dies",
			name.release);
	else if (major == 6 && minor < 9)
		finding_add(findings, FINDING_WARNING, "kernel",
			    "Linux %s cannot send requests again, as 6.9 can: deployfsd "
			    "keeps those in flight itself, and a reader may wait longer "
			    "when a worker dies; Debian 13 has a newer kernel",
			    name.release);
	else
		finding_add(findings, FINDING_OK, "kernel",
			    "Linux %s sends requests again that a worker left unanswered",
			    name.release);
}

/* From what the rest rests on to what rests on it. */
static int run(struct command *command, struct error *err)
{
	struct doctor doctor = {.findings.json = command->json};
	unsigned problems;

	doctor_config(&doctor, command->config);
	if (!doctor.config)
		return error_set(err, -ENOMEM, "out of memory");
	check_kernel(&doctor.findings);
	doctor_daemon(&doctor);
	doctor_mount(&doctor);
	doctor_binds(&doctor);
	doctor_disk(&doctor);
	problems = findings_end(&doctor.findings);
	json_decref(doctor.status);
	config_close(doctor.config);
	command->shown = true;
	return problems ? error_set(err, -EIO, "%u problems", problems) : 0;
}

const struct verb verb_doctor = {
	.name = "doctor",
	.synopsis = "",
	.summary = "look for what is wrong, and say what to do",
	.help = "Looks at configuration, daemon, mount, containers, disk and kernel from "
		"the\n"
		"outside, also where the daemon is dead or hangs; changes nothing. A line "
		"a\n"
		"finding: ok, warning or problem. Exit status 1 where there is a problem.",
	.arguments_min = 0,
	.arguments_max = 0,
	.alone = true,
	.run = run,
};

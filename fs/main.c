/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deployfsd: arguments, and which of its processes it is. Started by a user it becomes
 * the supervisor (supervisor.h), which forks workers (worker.h); with --job it is one of
 * the workers' job processes (cache/job.h).
 */
#include "config.h"
#include "holdings.h"
#include "job.h"
#include "log.h"
#include "supervisor.h"

#include <errno.h>
#include <getopt.h>
#include <grp.h>
#include <limits.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
	EXIT_USAGE = 2,
	EXIT_CONFLICT = 4,
};

static const char usage[] =
	"usage: deployfsd [--config FILE] [--check] [--debug]\n"
	"\n"
	"Mounts versioned application packages and serves deployctl. Runs in the "
	"foreground.\n"
	"\n"
	"  --config FILE  default: $DEPLOYFS_CONFIG, else " CONFIG_PATH_DEFAULT "\n"
	"  --check        validate the configuration and exit\n"
	"  --debug        log more\n"
	"  --version      print the version\n"
	"  --help         print this\n"
	"\n"
	"See deployfsd(8), deployfs.yaml(5).\n";

struct arguments {
	const char *config; /* NULL: the default, which may be missing */
	bool check, debug;
	/* For ourselves, not in --help. */
	bool job;
	const char *inherit; /* descriptors of the process that has started us */
	bool upgrade;
	int layout; /* with --check: whether we could take over; -1: not asked */
	int exit;   /* 0 or more: exit at once with this */
};

static void arguments_read(int argc, char **argv, struct arguments *ret)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", no_argument, NULL, 'k'},
		{"debug", no_argument, NULL, 'd'},
		{"job", no_argument, NULL, 'j'},
		{"inherit", required_argument, NULL, 'i'},
		{"upgrade", no_argument, NULL, 'u'},
		{"layout", required_argument, NULL, 'l'},
		{"version", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	const char *from_environment = getenv("DEPLOYFS_CONFIG");
	int option;

	*ret = (struct arguments){.exit = -1, .layout = -1};
	if (from_environment && *from_environment)
		ret->config = from_environment;
	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'c':
			ret->config = optarg;
			break;
		case 'k':
			ret->check = true;
			break;
		case 'd':
			ret->debug = true;
			log_init(LOG_LEVEL_DEBUG);
			break;
		case 'j':
			ret->job = true;
			break;
		case 'i':
			ret->inherit = optarg;
			break;
		case 'u':
			ret->upgrade = true;
			break;
		case 'l':
			ret->layout = atoi(optarg);
			break;
		case 'v':
			puts("deployfsd " DEPLOYFS_VERSION);
			ret->exit = 0;
			return;
		case 'h':
			fputs(usage, stdout);
			ret->exit = 0;
			return;
		default:
			fputs("see 'deployfsd --help'\n", stderr);
			ret->exit = EXIT_USAGE;
			return;
		}
	}
	if (optind < argc) {
		fprintf(stderr,
			"deployfsd: '%s' is one argument too many\n"
			"see 'deployfsd --help'\n",
			argv[optind]);
		ret->exit = EXIT_USAGE;
	}
}

static int load_config(const struct arguments *arguments, struct config **ret)
{
	const char *path = arguments->config ? arguments->config : CONFIG_PATH_DEFAULT;
	struct error err = {0};
	char real[PATH_MAX];
	int r;

	/* Workers read it again, from another working directory. */
	if (arguments->config && realpath(path, real))
		path = real;
	r = config_load(path, arguments->config != NULL, ret, &err);
	if (r < 0)
		fprintf(stderr, "deployfsd: %s\n", err.text);
	return r;
}

/* What a daemon must not inherit from a shell: a mask, groups, few descriptors. */
static void environment_settle(void)
{
	struct rlimit files;

	umask(022);
	/* Not inside our own mount, wherever we were started. */
	if (chdir("/") < 0)
		log_debug("cannot leave the working directory: %s", strerror(errno));
	setlocale(LC_ALL, "C.UTF-8");
	signal(SIGPIPE, SIG_IGN);
	if (setgroups(0, NULL) < 0)
		log_debug("cannot drop supplementary groups: %s", strerror(errno));
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

static int run(struct config *config, bool debug)
{
	struct holdings holdings;
	struct error err = {0};
	int r = holdings_find(config, &holdings, &err);

	/* The worker that we find may be of another program than we are: replace it. */
	if (r > 0)
		return supervisor_run(&holdings, config, SUPERVISOR_UPGRADE);
	if (r == 0)
		r = holdings_make(config, debug, &holdings, &err);
	if (r < 0) {
		log_error("cannot start: %s", err.text);
		config_free(config);
		return r == -EBUSY ? EXIT_CONFLICT : EXIT_FAILURE;
	}
	return supervisor_run(&holdings, config, SUPERVISOR_FIRST);
}

/* Started by ourselves: everything is there. */
static int go_on(const struct arguments *arguments)
{
	struct holdings holdings;
	struct error err = {0};

	if (holdings_inherit(arguments->inherit, &holdings, &err) < 0) {
		log_error("cannot take over: %s", err.text);
		return EXIT_FAILURE;
	}
	if (holdings.shared->debug)
		log_init(LOG_LEVEL_DEBUG);
	return supervisor_run(&holdings, NULL,
			      arguments->upgrade ? SUPERVISOR_UPGRADE : SUPERVISOR_NEXT);
}

int main(int argc, char **argv)
{
	struct arguments arguments;
	struct config *config;

	arguments_read(argc, argv, &arguments);
	if (arguments.exit >= 0)
		return arguments.exit;
	if (arguments.job)
		return job_main();
	if (arguments.layout >= 0 && arguments.layout != SHARED_LAYOUT) {
		puts("it cannot take over from the program that runs: restart deployfsd");
		return EXIT_FAILURE;
	}
	if (arguments.inherit) {
		environment_settle();
		return go_on(&arguments);
	}
	if (load_config(&arguments, &config) < 0)
		return EXIT_USAGE;
	if (arguments.check) {
		config_free(config);
		puts("the configuration is right");
		return EXIT_SUCCESS;
	}
	if (geteuid() != 0) {
		fputs("deployfsd: must be run by root: it mounts\n", stderr);
		config_free(config);
		return EXIT_FAILURE;
	}
	environment_settle();
	return run(config, arguments.debug);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * deployfsd: arguments, start, signals, end. With --job it is one of its own job
 * processes (cache/job.h).
 */
#include "api.h"
#include "cleanup.h"
#include "config.h"
#include "fd.h"
#include "job.h"
#include "jobs.h"
#include "log.h"
#include "service.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
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
	bool check, job;
	int exit; /* 0 or more: exit at once with this */
};

static void arguments_read(int argc, char **argv, struct arguments *ret)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", no_argument, NULL, 'k'},
		{"debug", no_argument, NULL, 'd'},
		{"job", no_argument, NULL, 'j'},
		{"version", no_argument, NULL, 'v'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	const char *from_environment = getenv("DEPLOYFS_CONFIG");
	int option;

	*ret = (struct arguments){.exit = -1};
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
			log_init(LOG_LEVEL_DEBUG);
			break;
		case 'j':
			ret->job = true;
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
	struct error err = {0};
	int r = config_load(arguments->config ? arguments->config : CONFIG_PATH_DEFAULT,
			    arguments->config != NULL, ret, &err);

	if (r < 0)
		fprintf(stderr, "deployfsd: %s\n", err.text);
	return r;
}

/* What a daemon must not inherit from a shell: a mask, groups, few descriptors. */
static void environment_settle(void)
{
	struct rlimit files;

	umask(022);
	setlocale(LC_ALL, "C.UTF-8");
	signal(SIGPIPE, SIG_IGN);
	if (setgroups(0, NULL) < 0)
		log_debug("cannot drop supplementary groups: %s", strerror(errno));
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
}

/* Signals that we take are read from a descriptor; all threads inherit the mask. */
static int signals_open(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

/* Whether the signal ends us. */
static bool signal_handle(struct service *service, int fd)
{
	struct signalfd_siginfo info;
	struct error err = {0};

	if (read(fd, &info, sizeof(info)) != sizeof(info))
		return false;
	if (info.ssi_signo == SIGHUP) {
		if (service_reload(service, &err) < 0)
			log_error("the old configuration stays: %s", err.text);
		return false;
	}
	if (service_leave(service, false, &err) < 0) {
		log_error("not ending: %s", err.text);
		return false;
	}
	return true;
}

static void wait_for_end(struct service *service, int signals, int stop)
{
	struct pollfd fds[] = {{signals, POLLIN, 0}, {stop, POLLIN, 0}};

	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue;
		if (fds[1].revents)
			return;
		if (fds[0].revents && signal_handle(service, signals))
			return;
	}
}

static int serve(struct service *service, const char *runtime, const char *socket,
		 int signals)
{
	cleanup(fd_close) int stop = eventfd(0, EFD_CLOEXEC);
	struct error err = {0};
	struct api *api;
	int r = api_start(service, runtime, socket, stop, &api, &err);

	if (r < 0) {
		log_error("%s", err.text);
		service_leave(service, true, NULL);
		return r;
	}
	log_info("ready: version=%s mount=%s store=%s socket=%s", DEPLOYFS_VERSION,
		 service->mount.base, service->store->path, socket);
	wait_for_end(service, signals, stop);
	jobs_stop(service->jobs);
	api_stop(api);
	return 0;
}

static int run(struct config *config)
{
	cleanup(fd_close) int signals = signals_open();
	cleanup(free_ptr) char *runtime = strdup(config->runtime);
	cleanup(free_ptr) char *socket = strdup(config->socket);
	struct service *service;
	struct error err = {0};
	int r = runtime && socket ? service_start(config, &service, &err) : -ENOMEM;

	if (r < 0) {
		log_error("cannot start: %s", err.text);
		config_free(config);
		return r == -EBUSY ? EXIT_CONFLICT : EXIT_FAILURE;
	}
	r = serve(service, runtime, socket, signals);
	service_free(service);
	if (r < 0)
		return r == -EBUSY ? EXIT_CONFLICT : EXIT_FAILURE;
	log_info("ended");
	return EXIT_SUCCESS;
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
	return run(config);
}

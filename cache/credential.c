/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The credentials file is read into one buffer of its final size, as realloc(3) would
 * leave copies behind; it is overwritten before it is freed. What is wrong with the file
 * is told by line, never by the line's text.
 */
#include "cleanup.h"
#include "config.h"
#include "fd.h"
#include "url.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#define FILE_SIZE_MAX (1024 * 1024)
#define BLANKS        " \t"
#define KEY_PREFIX    "key="

struct secret {
	char *text; /* @size bytes and a NUL */
	size_t size;
};

static void secret_done(struct secret *secret)
{
	if (secret->text)
		explicit_bzero(secret->text, secret->size);
	free(secret->text);
	*secret = (struct secret){0};
}

static void wipe_text(char **text)
{
	struct secret secret = {*text, *text ? strlen(*text) : 0};

	secret_done(&secret);
	*text = NULL;
}

void credential_done(struct credential *credential)
{
	wipe_text(&credential->user);
	wipe_text(&credential->password);
	wipe_text(&credential->key_file);
}

/* One line that names a user; the texts lie in the file's buffer. */
struct entry {
	struct url origin;
	const char *user;
	const char *password; /* NULL where there is a key */
	const char *key_file; /* NULL where there is a password */
};

static int check_status(int fd, const char *path, off_t *ret_size, struct error *err)
{
	struct stat status;

	if (fstat(fd, &status) < 0)
		return error_set(err, -errno, "cannot read '%s': %s", path,
				 strerror(errno));
	if (!S_ISREG(status.st_mode) || status.st_uid != 0 ||
	    (status.st_mode & (07777 & ~0600)))
		return error_set(err, -EPERM,
				 "'%s' must be a regular file of root with mode 0600",
				 path);
	if (status.st_size > FILE_SIZE_MAX)
		return error_set(err, -EINVAL, "'%s' is larger than 1 MiB", path);
	*ret_size = status.st_size;
	return 0;
}

/* 0 with nothing in @ret when there is no such file. */
static int read_file(const char *path, struct secret *ret, struct error *err)
{
	cleanup(secret_done) struct secret secret = {0};
	cleanup(fd_close) int fd = -1;
	off_t size = 0;
	int r;

	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT)
		return 0;
	if (fd < 0)
		return error_set(err, -errno, "cannot open '%s': %s", path,
				 strerror(errno));
	r = check_status(fd, path, &size, err);
	if (r < 0)
		return r;
	secret.text = calloc(1, (size_t)size + 1);
	if (!secret.text)
		return error_set(err, -ENOMEM, "cannot read '%s': out of memory", path);
	secret.size = (size_t)size;
	r = fd_pread_all(fd, secret.text, secret.size, 0);
	if (r < 0)
		return error_set(err, r, "cannot read '%s': %s", path, strerror(-r));
	*ret = secret;
	secret.text = NULL;
	return 0;
}

/* The word at *@line, ended with a NUL; *@line is moved to what follows its blanks. */
static char *next_word(char **line)
{
	char *word = *line, *end = word + strcspn(word, BLANKS);

	*line = end + strspn(end, BLANKS);
	*end = '\0';
	return word;
}

static bool names_key(const struct url *origin, const char *secret)
{
	return !strcmp(origin->scheme, "sftp") &&
	       !strncmp(secret, KEY_PREFIX, strlen(KEY_PREFIX));
}

/* NULL, or what is wrong with the line. */
static const char *parse_line(char *line, struct entry *ret)
{
	struct entry entry = {.user = NULL};
	int r;

	r = url_parse(next_word(&line), &entry.origin, NULL);
	if (r < 0 || !entry.origin.host[0])
		return "does not begin with the URL of a server";
	if (entry.origin.path[0] && strcmp(entry.origin.path, "/"))
		return "names a path: scheme, host and port are enough";
	entry.user = next_word(&line);
	if (!*entry.user || !*line)
		return "needs a URL, a user and a password or key";
	if (names_key(&entry.origin, line))
		entry.key_file = line + strlen(KEY_PREFIX);
	else
		entry.password = line;
	if (entry.key_file && entry.key_file[0] != '/')
		return "needs the absolute path of the key";
	*ret = entry;
	return NULL;
}

/* End the line at *@text, without its CR LF; *@text is moved to the next, or to NULL. */
static char *next_line(char **text)
{
	char *line = *text, *end = strchr(line, '\n');

	*text = end ? end + 1 : NULL;
	if (!end)
		end = line + strlen(line);
	if (end > line && end[-1] == '\r')
		end--;
	*end = '\0';
	return line + strspn(line, BLANKS);
}

static bool same_server(const struct url *left, const struct url *right)
{
	return !strcmp(left->scheme, right->scheme) && !strcmp(left->host, right->host) &&
	       left->port == right->port;
}

/* The entry for @url, untouched if there is none. @text is cut up; it may be NULL. */
static int find_entry(const char *path, char *text, const struct url *url,
		      struct entry *ret, struct error *err)
{
	unsigned number = 0;

	while (text) {
		char *line = next_line(&text);
		const char *problem;
		struct entry entry;

		number++;
		if (!*line || *line == '#')
			continue;
		problem = parse_line(line, &entry);
		if (!problem && same_server(&entry.origin, url)) {
			if (ret->user)
				problem = "names the same server as a line before";
			*ret = entry;
		}
		if (problem)
			return error_set(err, -EINVAL, "%s:%u: the line %s", path, number,
					 problem);
	}
	return 0;
}

/* false when out of memory; NULL is copied as NULL */
static bool copy_text(const char *text, char **ret)
{
	if (!text)
		return true;
	*ret = strdup(text);
	return *ret != NULL;
}

static int copy_entry(const struct entry *entry, struct credential *ret,
		      struct error *err)
{
	cleanup(credential_done) struct credential credential = {0};

	if (!copy_text(entry->user, &credential.user) ||
	    !copy_text(entry->password, &credential.password) ||
	    !copy_text(entry->key_file, &credential.key_file))
		return error_set(err, -ENOMEM, "out of memory");
	*ret = credential;
	credential = (struct credential){0};
	return 0;
}

/* As credential_find(), for a URL that names a server. */
static int find_credential(const char *path, const struct url *server,
			   struct credential *ret, struct error *err)
{
	cleanup(secret_done) struct secret file = {0};
	struct entry entry = {.user = NULL};
	int r;

	r = read_file(path, &file, err);
	if (r < 0)
		return r;
	if (file.text && strlen(file.text) != file.size)
		return error_set(err, -EINVAL, "%s:1: the file is not text", path);
	r = find_entry(path, file.text, server, &entry, err);
	if (r < 0)
		return r;
	return copy_entry(&entry, ret, err);
}

int credential_find(const char *path, const char *url, struct credential *ret,
		    struct error *err)
{
	struct url server = {.host = ""};
	int r = 0;

	if (url[0] != '/')
		r = url_parse(url, &server, err);
	if (r < 0)
		return r;
	if (server.host[0])
		return find_credential(path, &server, ret, err);
	*ret = (struct credential){0};
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "api_socket.h"

#include "cleanup.h"
#include "fd.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

int api_socket_make(const char *path, struct error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	cleanup(fd_close) int fd =
		socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(
			err, -EINVAL,
			"the socket's path '%s' is too long: set a shorter 'runtime'",
			path);
	strcpy(address.sun_path, path);
	if (fd < 0)
		return error_set(err, -errno, "cannot make a socket: %s",
				 strerror(errno));
	/* EAGAIN: it lives, and has more callers than it can take at once. */
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ||
	    errno == EAGAIN)
		return error_set(err, -EBUSY,
				 "another deployfsd serves '%s': stop it, or set another "
				 "'runtime'",
				 path);
	if (unlink(path) < 0 && errno != ENOENT)
		return error_set(err, -errno, "cannot remove the old '%s': %s", path,
				 strerror(errno));
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    chmod(path, 0666) < 0 || listen(fd, SOMAXCONN) < 0)
		return error_set(err, -errno, "cannot listen on '%s': %s", path,
				 strerror(errno));
	return fd_take(&fd);
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "shared.h"

#include "cleanup.h"
#include "fd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC "deployfs shared"
#define PAGE  4096
#define HEAD  ((sizeof(struct shared) + PAGE - 1) / PAGE * PAGE)
#define SLOTS ((size_t)SHARED_SESSIONS * SHARED_BANKS * SHARED_SLOTS)
#define SIZE  (HEAD + SLOTS * SHARED_SLOT_SIZE)

static int map(int fd, struct shared **ret, struct error *err)
{
	void *memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (memory == MAP_FAILED)
		return error_set(err, -errno, "cannot map the shared memory: %s",
				 strerror(errno));
	*ret = memory;
	return 0;
}

int shared_make(struct shared **ret, int *ret_fd, struct error *err)
{
	cleanup(fd_close) int fd = memfd_create("deployfs", MFD_CLOEXEC);
	struct shared *shared;
	int r;

	if (fd < 0 || ftruncate(fd, (off_t)SIZE) < 0)
		return error_set(err, -errno, "cannot make shared memory: %s",
				 strerror(errno));
	r = map(fd, &shared, err);
	if (r < 0)
		return r;
	memcpy(shared->magic, MAGIC, sizeof(MAGIC));
	shared->layout = SHARED_LAYOUT;
	*ret = shared;
	*ret_fd = fd_take(&fd);
	return 0;
}

int shared_map(int fd, struct shared **ret, struct error *err)
{
	struct shared *shared;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0 || (size_t)st.st_size != SIZE)
		return error_set(err, -EPROTO,
				 "the shared memory is of another version of deployfs");
	r = map(fd, &shared, err);
	if (r < 0)
		return r;
	if (memcmp(shared->magic, MAGIC, sizeof(MAGIC)) ||
	    shared->layout != SHARED_LAYOUT) {
		munmap(shared, SIZE);
		return error_set(err, -EPROTO,
				 "the shared memory is of another version of deployfs");
	}
	*ret = shared;
	return 0;
}

void *shared_slot(struct shared *shared, unsigned session, unsigned bank, unsigned slot)
{
	size_t at = ((size_t)session * SHARED_BANKS + bank) * SHARED_SLOTS + slot;

	return (char *)shared + HEAD + at * SHARED_SLOT_SIZE;
}

int shared_session_find(const struct shared *shared, const char *name)
{
	for (int i = 0; i < SHARED_SESSIONS; i++)
		if (!strcmp(shared->sessions[i].name, name))
			return i;
	return -ENOENT;
}

const char *shared_kept_name(int number, char name[static SHARED_NAME])
{
	snprintf(name, SHARED_NAME, "keep%d", number);
	return name;
}

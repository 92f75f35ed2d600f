/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fd.h - file descriptors: owning them, reading and writing all of something
 */
#pragma once

#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/** fd_close() - clean-up function: close *@fd unless negative, set it to -1, keep errno
 */
void fd_close(int *fd);

/** fd_take() - hand the descriptor on; *@fd is -1 afterwards */
int fd_take(int *fd);

/**
 * fd_write_all() - write(2) until everything is written
 * May block. Return: 0, or the negative errno of write(2) with an unknown part written.
 */
int fd_write_all(int fd, const void *data, size_t size);

/** fd_pwrite_all() - the same at an offset */
int fd_pwrite_all(int fd, const void *data, size_t size, uint64_t offset);

/**
 * fd_pread_all() - pread(2) until @size bytes are there
 * Return: 0; -ENODATA when the file ends before; the negative errno of pread(2).
 */
int fd_pread_all(int fd, void *data, size_t size, uint64_t offset);

/**
 * file_read() - a whole small file as a string
 * @path: of a regular file
 * @max:  bytes; a larger file is refused
 * @ret:  NUL-terminated, the caller's to free(); untouched on failure
 * @ret_size: bytes without the NUL; may be NULL
 *
 * Return: 0; -EFBIG when larger than @max; the negative errno of open(2) or read(2).
 */
int file_read(const char *path, size_t max, char **ret, size_t *ret_size);

/** file_read_fd() - the same from an open descriptor, from its current offset */
int file_read_fd(int fd, size_t max, char **ret, size_t *ret_size);

/**
 * file_replace() - have a file say @text, at once: by a temporary name beside it
 * Not durable. Return: 0; a negative errno, and the file says what it said.
 */
int file_replace(const char *path, const char *text, mode_t mode);

/** dir_close() - clean-up function: closedir(3) unless NULL */
void dir_close(DIR **dir);

/** dir_make() - mkdir -p with @mode for each missing component; 0 or a negative errno */
int dir_make(const char *path, mode_t mode);

/** dir_sync() - make the entries of the directory @path durable; 0 or a negative errno */
int dir_sync(const char *path);

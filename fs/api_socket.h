/* SPDX-License-Identifier: Apache-2.0 */
/*
 * api_socket.h - the listening socket of the API, which outlives the workers that answer
 */
#pragma once

#include "error.h"

/**
 * api_socket_make() - listen at @path; everybody may connect, rights are looked at later
 * A socket that nobody listens at any more is replaced.
 * Return: a non-blocking descriptor; -EBUSY another daemon listens there; -EINVAL the
 * path is too long; what bind(2) gives.
 */
int api_socket_make(const char *path, struct error *err);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cleanup.h - ownership by scope
 *
 *   cleanup(fd_close) int fd = -1;          closed when the scope ends
 *   cleanup(free_ptr) char *text = NULL;    freed
 *   *ret_text = take_ptr(text);             handed on: the scope owns nothing any more
 *
 * A clean-up function takes a pointer to the variable and accepts the empty value.
 */
#pragma once

#include <stdlib.h>

#define cleanup(function) __attribute__((cleanup(function), unused))

/** take_ptr() - hand the pointer on; the variable is NULL afterwards */
#define take_ptr(variable)                                \
	({                                                \
		__typeof__(variable) taken_ = (variable); \
		(variable) = NULL;                        \
		taken_;                                   \
	})

/** DEFINE_CLEANUP() - NAME_ptr(): a clean-up function for pointers that @function frees
 */
#define DEFINE_CLEANUP(type, function)                    \
	static inline void function##_ptr(type **pointer) \
	{                                                 \
		if (*pointer)                             \
			function(*pointer);               \
	}

static inline void free_ptr(void *pointer)
{
	free(*(void **)pointer);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * verbs.h - one file a verb
 */
#pragma once

#include "command.h"

extern const struct verb verb_fetch;
extern const struct verb verb_import;
extern const struct verb verb_list;
extern const struct verb verb_flip;
extern const struct verb verb_rollback;
extern const struct verb verb_status;
extern const struct verb verb_doctor;
extern const struct verb verb_history;
extern const struct verb verb_verify;
extern const struct verb verb_repair;
extern const struct verb verb_pin;
extern const struct verb verb_unpin;
extern const struct verb verb_remove;
extern const struct verb verb_gc;
extern const struct verb verb_daemon;

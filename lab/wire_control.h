/* SPDX-License-Identifier: Apache-2.0 */
/* The words that are spoken on the wire's control socket, one command a line. Those about links are handled here, without
 * I/O; those about ports by wire.c. */
#pragma once

#include "lab/wire_link.h"

#define WIRE_WORDS_MAX 24

struct err;
struct json_t;

/* Splits in place at blanks; the number of words, or -E2BIG. */
int wire_words(char *line, char *words[WIRE_WORDS_MAX]);
/* delay, loss, cut, heal, isolate, heal-all. 0, -EINVAL with a text, or -ENOSYS when it is none of these. */
int wire_link_command(struct wire_net *n, char **words, int n_words, struct err *e);
/* "5ms", "200us", "1.5s" -> microseconds; 0 or -EINVAL. */
int wire_duration_us(const char *text, uint64_t *ret_us);

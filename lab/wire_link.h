/* SPDX-License-Identifier: Apache-2.0 */
/* Links between sites: delay, jitter, loss, cuts, and a bounded FIFO of frames on their way. Pure: time and random numbers
 * come in as arguments, frames go out through wire_next(). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_SITES_MAX	     16
#define WIRE_SITE_NAME_MAX   16
#define WIRE_LINK_BYTES_MAX  (16u << 20) /* on the way in one direction; more is dropped, as a router would */
#define WIRE_LINK_FRAMES_MAX 16384
#define WIRE_DELAY_MAX_US    (60ull * 1000 * 1000)

struct frame {
	unsigned refs; /* a broadcast is queued on several links */
	size_t len;
	uint8_t data[];
};

struct frame *frame_new(const void *data, size_t len); /* refs = 1 */
void frame_unref(struct frame *f);

struct transit; /* one frame on its way */

struct wire_link { /* one direction between two sites */
	uint64_t delay_us, jitter_us;
	uint32_t loss_ppm;
	bool cut;
	uint64_t last_due_us; /* nothing overtakes */
	size_t queued_bytes, queued_frames;
	struct transit *head, *tail;
	uint64_t passed, lost, refused, overflowed; /* frames: delivered, lost at random, cut, queue full */
};

struct wire_net {
	char site[WIRE_SITES_MAX][WIRE_SITE_NAME_MAX];
	int n_sites;
	struct wire_link link[WIRE_SITES_MAX][WIRE_SITES_MAX];
};

/* Index of the site, made when unknown and make is set; -ENOENT, -ENOSPC or -EINVAL. */
int wire_site(struct wire_net *n, const char *name, bool make);
/* Puts a frame (takes a reference of its own) on the way from one site to a port of another. `random` is 64 fresh random
 * bits. False when it was lost, cut or did not fit. */
bool wire_send(struct wire_net *n, int from, int to, int port, struct frame *f, uint64_t now_us,
	       uint64_t random);
/* The next frame due at now_us or before, in order of time; NULL when there is none. The caller unrefs it. */
struct frame *wire_next(struct wire_net *n, uint64_t now_us, int *ret_port);
/* When wire_next() will have something; 0 = nothing is on the way. */
uint64_t wire_due_us(const struct wire_net *n);
void wire_net_done(struct wire_net *n);

/* SPDX-License-Identifier: Apache-2.0 */
/* A brick that does what a test tells it: frames and connections are real, answers are the test's. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "core/vfs/vfs.h"
#include "volume/proto.h"

struct fake_answer {
	int status;		/* of the frame; -1 = hang up without an answer, 1 = say nothing */
	struct proto_view view; /* with -ESTALE */
	struct vfs_result res;
	const void *payload;
	uint32_t payload_len;
	uint16_t flags; /* FRAME_LEASED */
	bool garbage;	/* a body that is none */
};

struct fake_brick {
	char address[64];
	int listener;
	pthread_t thread;
	_Atomic bool stop;
	_Atomic int asked, bad_blocks, push_answers, push_status;
	_Atomic bool silent;  /* pings are not answered */
	_Atomic bool refuses; /* it does not serve the volume: HELLOs from now on */
	_Atomic int session;  /* descriptor of the newest session, -1 = none */
	/* Fills *a; called on the connection's thread. */
	void (*op)(struct fake_brick *b, const struct proto_head *h, const struct vfs_op *op,
		   struct fake_answer *a);
	void *ctx;
};

void fake_start(struct fake_brick *b);
void fake_stop(struct fake_brick *b);
void fake_push(struct fake_brick *b, const struct proto_push *p, uint64_t request);

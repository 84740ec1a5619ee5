/* SPDX-License-Identifier: Apache-2.0 */
/* Links between sites. Each direction of each pair is a FIFO ordered by the time its frames are due: a frame is due
 * delay +- jitter after it was sent, but never before the one in front of it (jitter delays, it does not reorder). A cut
 * refuses new frames; those already on the way still arrive, as they do on a real line. Heads of at most 16 x 16 queues
 * are compared to find the next; that is cheaper than a heap at this size. */
#include "lab/wire_link.h"

#include <ctype.h>

#include "base/base.h"

struct transit {
	struct transit *next;
	struct frame *frame;
	uint64_t due_us;
	int port;
};

struct frame *frame_new(const void *data, size_t len)
{
	struct frame *f = malloc(sizeof *f + len);

	if (!f)
		return NULL;
	f->refs = 1;
	f->len = len;
	memcpy(f->data, data, len);
	return f;
}

void frame_unref(struct frame *f)
{
	if (f && --f->refs == 0)
		free(f);
}

int wire_site(struct wire_net *n, const char *name, bool make)
{
	if (!*name || strlen(name) >= WIRE_SITE_NAME_MAX)
		return -EINVAL;
	for (const char *c = name; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '-')
			return -EINVAL;
	for (int i = 0; i < n->n_sites; i++)
		if (streq(n->site[i], name))
			return i;
	if (!make)
		return -ENOENT;
	if (n->n_sites == WIRE_SITES_MAX)
		return -ENOSPC;
	strcpy(n->site[n->n_sites], name);
	return n->n_sites++;
}

/* delay - jitter .. delay + jitter, even chance for each microsecond. */
static uint64_t link_delay(const struct wire_link *l, uint64_t random)
{
	uint64_t low = l->delay_us > l->jitter_us ? l->delay_us - l->jitter_us : 0;

	return low + random % (l->delay_us + l->jitter_us - low + 1);
}

bool wire_send(struct wire_net *n, int from, int to, int port, struct frame *f, uint64_t now_us,
	       uint64_t random)
{
	struct wire_link *l = &n->link[from][to];
	struct transit *t;

	ensure(from >= 0 && from < n->n_sites && to >= 0 && to < n->n_sites);
	if (l->cut) {
		l->refused++;
		return false;
	}
	if (l->loss_ppm && (random >> 32) % 1000000 < l->loss_ppm) {
		l->lost++;
		return false;
	}
	if (l->queued_frames >= WIRE_LINK_FRAMES_MAX || l->queued_bytes + f->len > WIRE_LINK_BYTES_MAX ||
	    !(t = malloc(sizeof *t))) {
		l->overflowed++;
		return false;
	}
	f->refs++;
	*t = (struct transit){
		.frame = f, .port = port, .due_us = now_us + link_delay(l, random & UINT32_MAX)};
	t->due_us = MAX(t->due_us, l->last_due_us);
	l->last_due_us = t->due_us;
	l->queued_bytes += f->len;
	l->queued_frames++;
	*(l->head ? &l->tail->next : &l->head) = t;
	l->tail = t;
	return true;
}

static struct wire_link *link_first(const struct wire_net *n)
{
	struct wire_link *first = NULL;

	for (int i = 0; i < n->n_sites; i++)
		for (int j = 0; j < n->n_sites; j++) {
			const struct wire_link *l = &n->link[i][j];
			if (l->head && (!first || l->head->due_us < first->head->due_us))
				first = (struct wire_link *)l;
		}
	return first;
}

struct frame *wire_next(struct wire_net *n, uint64_t now_us, int *ret_port)
{
	struct wire_link *l = link_first(n);
	struct transit *t;
	struct frame *f;

	if (!l || l->head->due_us > now_us)
		return NULL;
	t = l->head;
	l->head = t->next;
	l->queued_frames--;
	l->queued_bytes -= t->frame->len;
	l->passed++;
	ensure(l->head || !l->queued_bytes);
	f = t->frame;
	*ret_port = t->port;
	free(t);
	return f;
}

uint64_t wire_due_us(const struct wire_net *n)
{
	const struct wire_link *l = link_first(n);

	return l ? l->head->due_us : 0;
}

void wire_net_done(struct wire_net *n)
{
	struct frame *f;
	int port;

	while ((f = wire_next(n, UINT64_MAX, &port)))
		frame_unref(f);
}

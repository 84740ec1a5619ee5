/* SPDX-License-Identifier: Apache-2.0 */
/* Mailbox: a bounded queue under a mutex and one uv_async_t. Letters are run in batches on the loop thread; a letter
 * posted from inside a letter is run in the next batch. */
#include "io/io.h"

#define MAILBOX_WAITING_MAX 65536

struct letter {
	struct letter *next;
	mailbox_fn fn;
	void *arg;
};

struct mailbox {
	uv_async_t async;
	uv_mutex_t lock;
	struct letter *first, **last;
	size_t waiting;
};

static struct letter *take_all(struct mailbox *m)
{
	struct letter *l;

	uv_mutex_lock(&m->lock);
	l = m->first;
	m->first = NULL;
	m->last = &m->first;
	m->waiting = 0;
	uv_mutex_unlock(&m->lock);
	return l;
}

static void run_all(struct mailbox *m)
{
	for (struct letter *l = take_all(m), *next; l; l = next) {
		next = l->next;
		l->fn(l->arg);
		free(l);
	}
}

static void on_async(uv_async_t *a)
{
	run_all(a->data);
}

struct mailbox *mailbox_new(uv_loop_t *loop)
{
	struct mailbox *m = xcalloc(1, sizeof(*m));

	m->last = &m->first;
	ensure(uv_mutex_init(&m->lock) == 0);
	ensure(uv_async_init(loop, &m->async, on_async) == 0);
	m->async.data = m;
	return m;
}

int mailbox_post(struct mailbox *m, mailbox_fn fn, void *arg)
{
	struct letter *l = xcalloc(1, sizeof(*l));

	*l = (struct letter){.fn = fn, .arg = arg};
	uv_mutex_lock(&m->lock);
	if (m->waiting >= MAILBOX_WAITING_MAX) {
		uv_mutex_unlock(&m->lock);
		free(l);
		return -ENOBUFS;
	}
	*m->last = l;
	m->last = &l->next;
	m->waiting++;
	uv_mutex_unlock(&m->lock);
	uv_async_send(&m->async);
	return 0;
}

static void on_closed(uv_handle_t *h)
{
	struct mailbox *m = h->data;

	uv_mutex_destroy(&m->lock);
	free(m);
}

void mailbox_close(struct mailbox *m)
{
	run_all(m);
	uv_close((uv_handle_t *)&m->async, on_closed);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The client: what it knows of the volume (map, views, options), and its slots. Views come from the store's watch; a brick that refuses
 * a question because it is not the one to ask sends its own view along, and the newer one counts. The watch's callbacks run on a thread of the store. */
#include "volume/client/internal.h"

#include <sys/socket.h>

#define START_WAIT_MS 5000 /* for the map, at the start */

/* Wakes every slot that waits for an answer from a brick that is not the group's primary any more. Under lock. */
static void kick_slots(struct vclient *c, uint32_t group, const struct vol_map *m, const struct repl_view *v)
{
	int brick = repl_view_brick(m, group, v, v->primary);
	uint32_t now = brick < 0 ? UINT32_MAX : (uint32_t)brick;

	for (struct vclient_slot *s = c->slots; s; s = s->next) {
		pthread_mutex_lock(&s->kick);
		if (s->busy_fd >= 0 && s->busy_group == group && s->busy_brick != now)
			(void)shutdown(s->busy_fd, SHUT_RDWR);
		pthread_mutex_unlock(&s->kick);
	}
}

void client_view_hint(struct vclient *c, uint32_t group, const struct repl_view *v)
{
	const struct vol_map *m = vclient_map(c);
	struct group_state *g;
	bool primary;

	if (!m || group >= m->n_groups || v->primary >= VOL_MEMBERS_MAX)
		return;
	pthread_mutex_lock(&c->lock);
	g = &c->group[group];
	if (!g->known || v->epoch > g->view.epoch) {
		primary = g->known && repl_view_brick(m, group, &g->view, g->view.primary) !=
					      repl_view_brick(m, group, v, v->primary);
		g->view = *v;
		g->known = true;
		if (primary) {
			kick_slots(c, group, m, v);
			pipe_kick(c);
		}
		pthread_cond_broadcast(&c->changed);
	}
	pthread_mutex_unlock(&c->lock);
	sessions_wake(c);
}

static void on_view(void *ctx, uint32_t group, const struct repl_view *v)
{
	client_view_hint(ctx, group, v);
}

/* A copy of the map, when it is a newer one. Under lock. */
static void take_map(struct vclient *c, const struct vol_map *m)
{
	struct vol_map *old = atomic_load(&c->map), *copy;
	struct err e = {0};
	json_t *o;

	if (!m || (old && old->generation >= m->generation))
		return;
	if (c->n_maps == MAPS_MAX) {
		log_error("volume %s: its map changed %d times; mount it anew", c->volume, MAPS_MAX);
		return;
	}
	o = vol_map_to_json(m);
	if (vol_map_from_json(o, &copy, &e) < 0)
		log_error("volume %s: %s", c->volume, e.text);
	else {
		c->maps[c->n_maps++] = copy;
		atomic_store(&c->map, copy);
	}
	json_decref(o);
}

static void on_volume(void *ctx, const struct volcfg_volume *v)
{
	struct vclient *c = ctx;
	const char *policy;

	pthread_mutex_lock(&c->lock);
	c->deleted = !v;
	if (v) {
		take_map(c, v->map);
		c->started = streq(v->state, "started");
		json_decref(c->options);
		c->options = json_deep_copy(v->options);
		policy = json_string_value(json_object_get(c->options, "read-policy"));
		atomic_store(&c->read_local, c->domain && policy && streq(policy, "local"));
	}
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
	if (!v)
		log_warn("volume %s was deleted", c->volume);
	sessions_wake(c);
}

bool client_view(struct vclient *c, uint32_t group, struct repl_view *ret)
{
	bool known;

	pthread_mutex_lock(&c->lock);
	known = c->group[group].known && c->group[group].view.epoch > 0;
	*ret = c->group[group].view;
	pthread_mutex_unlock(&c->lock);
	return known;
}

static void wait_locked(struct vclient *c, uint64_t ms)
{
	struct timespec t = clock_after(ms);

	(void)pthread_cond_timedwait(&c->changed, &c->lock, &t);
}

void client_wait(struct vclient *c, uint64_t ms)
{
	pthread_mutex_lock(&c->lock);
	wait_locked(c, ms);
	pthread_mutex_unlock(&c->lock);
}

/* Follows the volume; returns when its map is here and it is started. */
static int follow(struct vclient *c, struct err *e)
{
	const struct volcfg_handler h = {.volume = on_volume, .view = on_view, .ctx = c};
	uint64_t until = clock_ms() + START_WAIT_MS;
	int r = 0;

	r = volcfg_watch(c->store, c->volume, &h, &c->watch, e);
	if (r < 0)
		return r;
	pthread_mutex_lock(&c->lock);
	while ((!atomic_load(&c->map) || !c->started) && !c->deleted && clock_ms() < until)
		wait_locked(c, 100);
	if (c->deleted)
		r = err_set(e, -ENOENT, "volume %s does not exist", c->volume);
	else if (!atomic_load(&c->map))
		r = err_set(e, -ETIMEDOUT, "volume %s: its map did not come from the store in time",
			    c->volume);
	else if (!c->started)
		r = err_set(e, -EAGAIN, "volume %s is not started: kuayu volume start %s", c->volume,
			    c->volume);
	pthread_mutex_unlock(&c->lock);
	return r;
}

static struct vclient *client_alloc(const struct vclient_options *o)
{
	struct vclient *c = xcalloc(1, sizeof(*c));
	pthread_condattr_t a;

	c->o = *o;
	c->volume = xstrdup(o->volume);
	c->domain = o->domain && o->domain[0] ? xstrdup(o->domain) : NULL;
	c->store = o->store;
	c->timeout_ms = o->timeout_ms ? o->timeout_ms : OP_TIMEOUT_MS;
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&a);
	pthread_condattr_setclock(&a, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &a);
	pthread_condattr_destroy(&a);
	random_bytes(&c->id, sizeof(c->id));
	c->sessions.wake = -1;
	atomic_store(&c->pipe_wake, -1);
	return c;
}

int vclient_open(const struct vclient_options *o, struct vclient **ret, struct err *e)
{
	struct vclient *c = client_alloc(o);
	struct volcfg_volume v = {0};
	int r = o->store ? 0 : store_open(o->store_uri, o->store_options, &c->store, e);

	if (r < 0) {
		err_wrap(e, "--store");
		goto out;
	}
	r = volcfg_get(c->store, c->volume, &v, e); /* first: a clear text when it is not there */
	volcfg_volume_done(&v);
	if (r == -ENOENT)
		r = err_set(e, r, "volume %s does not exist; kuayu volume list shows those that do",
			    c->volume);
	if (r < 0)
		goto out;
	r = follow(c, e);
	if (r == 0 && o->leases)
		r = sessions_start(c, e);
out:
	if (r < 0)
		vclient_close(c);
	else
		*ret = c;
	return r;
}

void vclient_give_up(struct vclient *c)
{
	atomic_store(&c->closing, true);
	pthread_mutex_lock(&c->lock);
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

struct vclient *vclient_close(struct vclient *c)
{
	if (!c)
		return NULL;
	atomic_store(&c->closing, true);
	pthread_cond_broadcast(&c->changed);
	c->watch = volcfg_watch_free(c->watch);
	sessions_stop(c);
	while (c->slots)
		vclient_slot_free(c->slots);
	if (!c->o.store)
		store_free(c->store);
	for (uint32_t i = 0; i < c->n_maps; i++)
		vol_map_free(c->maps[i]);
	json_decref(c->options);
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c->volume);
	free(c->domain);
	free(c);
	return NULL;
}

const struct vol_map *vclient_map(struct vclient *c)
{
	return atomic_load_explicit(&c->map, memory_order_acquire);
}

uint64_t vclient_id(struct vclient *c)
{
	return c->id;
}

void vclient_options_get(struct vclient *c, const char *name, char *out, size_t size)
{
	const char *v;

	pthread_mutex_lock(&c->lock);
	v = json_string_value(json_object_get(c->options, name));
	snprintf(out, size, "%s", v ? v : "");
	pthread_mutex_unlock(&c->lock);
}

struct vclient_slot *vclient_slot_new(struct vclient *c)
{
	struct vclient_slot *s = xcalloc(1, sizeof(*s));

	s->c = c;
	s->busy_fd = -1;
	s->in_cap = ANSWER_ROOM;
	s->in = malloc(s->in_cap);
	s->crc = malloc(PAYLOAD_CHUNKS(RECORD_PAYLOAD_MAX) * sizeof(*s->crc));
	if (!s->in || !s->crc) {
		free(s->in);
		free(s->crc);
		free(s);
		return NULL;
	}
	pthread_mutex_init(&s->kick, NULL);
	pthread_mutex_lock(&c->lock);
	s->number = ++c->next_slot;
	s->next = c->slots;
	c->slots = s;
	pthread_mutex_unlock(&c->lock);
	return s;
}

struct vclient_slot *vclient_slot_free(struct vclient_slot *s)
{
	struct vclient *c;

	if (!s)
		return NULL;
	c = s->c;
	pthread_mutex_lock(&c->lock);
	for (struct vclient_slot **p = &c->slots; *p; p = &(*p)->next)
		if (*p == s) {
			*p = s->next;
			break;
		}
	pthread_mutex_unlock(&c->lock);
	for (uint32_t i = 0; i < s->n_fd; i++)
		slot_disconnect(s, i);
	pthread_mutex_destroy(&s->kick);
	buf_done(&s->body);
	free(s->fd);
	free(s->in);
	free(s->crc);
	free(s->bounce);
	free(s);
	return NULL;
}

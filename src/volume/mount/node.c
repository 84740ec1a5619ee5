/* SPDX-License-Identifier: Apache-2.0 */
/* The inodes that the kernel knows of, by its 64-bit ids and by the volume's. An id is a place in a table of chunks that are never freed, so
 * finding a node needs no lock; a place that is used again gets a new generation. A node lives as long as the kernel's lookup count, plus
 * pins of our own threads (node_find), is above zero; the root always. */
#include "volume/mount/internal.h"

static uint64_t mix(uint64_t h)
{
	h ^= h >> 32;
	h *= 0x9e3779b97f4a7c15u;
	h ^= h >> 29;
	return h;
}

uint64_t ino_hash(const struct vol_ino *ino)
{
	uint64_t w[2];

	memcpy(w, ino->folder.b, sizeof(w));
	return mix(w[0] ^ mix(w[1] ^ mix(ino->num + 0x8ebc6af09c88c6e3u)));
}

/* The same on every mount and after every restart. */
uint64_t ino_number(const struct vol_ino *ino)
{
	uint64_t h;

	if (ino->num == 0 && vol_id_eq(&ino->folder, &vol_root))
		return 1;
	h = ino_hash(ino);
	return h < 2 ? h + 2 : h;
}

static struct node *at(struct nodes *t, uint32_t index)
{
	struct node *c = atomic_load_explicit(&t->chunk[index / NODES_CHUNK], memory_order_acquire);

	return c ? c + index % NODES_CHUNK : NULL;
}

struct node *node_of(struct mount *m, fuse_ino_t id)
{
	struct node *n = id >= 1 && id <= (uint64_t)NODES_CHUNK * NODES_CHUNKS
				 ? at(&m->nodes, (uint32_t)(id - 1))
				 : NULL;

	ensure(n); /* the kernel speaks of what it was given */
	return n;
}

fuse_ino_t node_id(const struct node *n)
{
	return (fuse_ino_t)n->index + 1;
}

/* ---- the table, under lock ---- */

static int more_buckets(struct nodes *t, uint32_t n)
{
	uint32_t *b = malloc(n * sizeof(*b));

	if (!b)
		return -ENOMEM;
	memset(b, 0xff, n * sizeof(*b));
	for (uint32_t i = 0; i < t->n_buckets; i++)
		for (uint32_t k = t->bucket[i], next; k != UINT32_MAX; k = next) {
			struct node *x = at(t, k);
			uint32_t to = (uint32_t)ino_hash(&x->ino) & (n - 1);

			next = x->next;
			x->next = b[to];
			b[to] = k;
		}
	free(t->bucket);
	t->bucket = b;
	t->n_buckets = n;
	return 0;
}

static struct node *search(struct nodes *t, const struct vol_ino *ino)
{
	for (uint32_t k = t->bucket[(uint32_t)ino_hash(ino) & (t->n_buckets - 1)]; k != UINT32_MAX;) {
		struct node *n = at(t, k);

		if (vol_ino_eq(&n->ino, ino))
			return n;
		k = n->next;
	}
	return NULL;
}

static struct node *place_for(struct nodes *t)
{
	uint32_t i = t->free;

	if (i) {
		t->free = at(t, i)->next;
		return at(t, i);
	}
	i = t->used;
	if (i == (uint64_t)NODES_CHUNK * NODES_CHUNKS)
		return NULL;
	if (i % NODES_CHUNK == 0) {
		struct node *c = calloc(NODES_CHUNK, sizeof(*c));

		if (!c)
			return NULL;
		for (uint32_t k = 0; k < NODES_CHUNK; k++) {
			c[k].index = i + k;
			pthread_mutex_init(&c[k].lock, NULL);
		}
		atomic_store_explicit(&t->chunk[i / NODES_CHUNK], c, memory_order_release);
	}
	t->used++;
	return at(t, i);
}

static struct node *add(struct nodes *t, const struct vol_ino *ino)
{
	struct node *n;
	uint32_t *b;

	if (t->n >= t->n_buckets && more_buckets(t, t->n_buckets * 2) < 0)
		return NULL;
	n = place_for(t);
	if (!n)
		return NULL;
	n->ino = *ino;
	n->zeros_from = n->size_told = UINT64_MAX;
	n->generation++;
	b = &t->bucket[(uint32_t)ino_hash(ino) & (t->n_buckets - 1)];
	n->next = *b;
	*b = n->index;
	t->n++;
	return n;
}

static void take_out(struct nodes *t, struct node *n)
{
	uint32_t *p = &t->bucket[(uint32_t)ino_hash(&n->ino) & (t->n_buckets - 1)];

	while (*p != n->index)
		p = &at(t, *p)->next;
	*p = n->next;
	t->n--;
}

static void drop_node(struct mount *m, struct node *n)
{
	struct nodes *t = &m->nodes;

	if (!atomic_load(&n->retired))
		take_out(t, n);
	behind_file_free(n);
	pthread_mutex_lock(&n->lock);
	atomic_store(&n->retired, false);
	atomic_store(&n->direct, false);
	atomic_store(&n->looked_up, false);
	n->place = n->placed_from = n->placed_ms = 0;
	atomic_store(&n->named_ms, 0);
	names_done(m, &n->names);
	n->attr = (struct vfs_attr){0};
	n->attr_known = n->leased = n->no_xattrs = n->complete = n->fresh = n->build = false;
	n->misses = 0;
	n->changes++;
	n->contended_until = n->touched_us = n->touched = 0;
	ensure(!n->aside && atomic_load(&n->filling) == 0);
	/* What was not synced of this inode is nothing to the next one in this place: its first fsync would be told of losses before its time. */
	node_changers_done(n);
	lock_forget(n);
	n->dirty = false;
	n->forks = n->written = n->durable = 0;
	n->since_sync = n->sync_every = n->steady = 0;
	ensure(!atomic_load(&n->errand));
	atomic_store(&n->late_err, 0);
	n->name_score = 0;
	n->name_score_ms = n->deleg_not_before = 0;
	n->ino = (struct vol_ino){0};
	pthread_mutex_unlock(&n->lock);
	n->next = t->free;
	t->free = n->index;
}

/* ---- what others call ---- */

struct node *node_lookup(struct mount *m, const struct vol_ino *ino)
{
	struct nodes *t = &m->nodes;
	struct node *n;

	pthread_mutex_lock(&t->lock);
	n = search(t, ino);
	if (!n)
		n = add(t, ino);
	if (n)
		n->lookups++;
	pthread_mutex_unlock(&t->lock);
	return n;
}

bool node_retire(struct mount *m, struct node *n)
{
	bool was;

	pthread_mutex_lock(&m->nodes.lock);
	was = atomic_exchange(&n->retired, true);
	if (!was)
		take_out(&m->nodes, n);
	pthread_mutex_unlock(&m->nodes.lock);
	return !was;
}

struct node *node_find(struct mount *m, const struct vol_ino *ino)
{
	struct nodes *t = &m->nodes;
	struct node *n;

	pthread_mutex_lock(&t->lock);
	n = search(t, ino);
	if (n)
		n->pins++;
	pthread_mutex_unlock(&t->lock);
	return n;
}

struct node *node_pin(struct mount *m, uint32_t index)
{
	struct nodes *t = &m->nodes;
	struct node *n;

	pthread_mutex_lock(&t->lock);
	n = index < t->used ? at(t, index) : NULL;
	if (n && n->lookups + n->pins > 0)
		n->pins++;
	else
		n = NULL;
	pthread_mutex_unlock(&t->lock);
	return n;
}

void node_forget(struct mount *m, struct node *n, uint64_t lookups)
{
	pthread_mutex_lock(&m->nodes.lock);
	ensure(n->lookups >= lookups);
	n->lookups -= lookups;
	if (n->lookups == 0 && n->pins == 0)
		drop_node(m, n);
	pthread_mutex_unlock(&m->nodes.lock);
}

void node_unpin(struct mount *m, struct node *n)
{
	pthread_mutex_lock(&m->nodes.lock);
	ensure(n->pins > 0);
	n->pins--;
	if (n->lookups == 0 && n->pins == 0)
		drop_node(m, n);
	pthread_mutex_unlock(&m->nodes.lock);
}

int nodes_init(struct nodes *t)
{
	const struct vol_ino root = {.folder = vol_root};
	struct node *n;

	pthread_mutex_init(&t->lock, NULL);
	if (more_buckets(t, 4096) < 0)
		return -ENOMEM;
	n = add(t, &root);
	if (!n)
		return -ENOMEM;
	n->lookups = 1; /* for ever */
	ensure(node_id(n) == FUSE_ROOT_ID);
	return 0;
}

void nodes_done(struct nodes *t)
{
	for (uint32_t i = 0; i < NODES_CHUNKS; i++) {
		struct node *c = atomic_load(&t->chunk[i]);

		if (!c)
			break;
		for (uint32_t k = 0; k < NODES_CHUNK; k++) {
			free(c[k].names.slot);
			behind_file_free(&c[k]);
			node_changers_done(&c[k]);
			lock_forget(&c[k]);
			pthread_mutex_destroy(&c[k].lock);
		}
		free(c);
	}
	free(t->bucket);
	pthread_mutex_destroy(&t->lock);
	*t = (struct nodes){0};
}

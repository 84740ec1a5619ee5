/* SPDX-License-Identifier: Apache-2.0 */
/* Small files whose bytes came along with the answer to their lookup: the first read asks nobody.
 *
 * They are asked for while lookups of small files are mostly followed by a read: each lookup takes a point, each first read gives two. They
 * are kept in a few places, by node, newer ones over older ones, until they are read once or are found to be too old: they are those of one version of the
 * inode, and answer only while its attributes are known under the lease and are of that version. So whatever makes the kernel's pages invalid,
 * here or elsewhere, makes them invalid, too. */
#include "volume/mount/internal.h"

#define POINTS_ASK 8
#define POINTS_MAX 32

struct head {
	struct node *node;
	uint32_t generation, len;
	uint64_t version;
	uint8_t data[HEAD_MAX];
};

static __thread uint8_t *room;

int head_start(struct mount *m)
{
	pthread_mutex_init(&m->head_lock, NULL);
	if (m->s.leases)
		m->heads = calloc(HEADS, sizeof(*m->heads));
	return m->heads || !m->s.leases ? 0 : -ENOMEM;
}

void head_stop(struct mount *m)
{
	free(m->heads);
	m->heads = NULL;
	pthread_mutex_destroy(&m->head_lock);
}

uint8_t *head_room(struct mount *m)
{
	if (!m->heads || atomic_load(&m->head_points) < POINTS_ASK)
		return NULL;
	if (!room)
		room = malloc(HEAD_MAX);
	return room;
}

static struct head *place_of(struct mount *m, const struct node *n)
{
	return &m->heads[n->index % HEADS];
}

/* Points are a guess: a lost update does no harm. */
static void score(struct mount *m, int points)
{
	int now = atomic_load(&m->head_points) + points;

	atomic_store(&m->head_points, CLAMP(now, 0, POINTS_MAX));
}

void head_looked_up(struct mount *m, struct node *n, const struct vfs_attr *a)
{
	if (!m->heads || !S_ISREG(a->mode) || a->size == 0 || a->size > HEAD_MAX)
		return;
	score(m, -1);
	atomic_store(&n->looked_up, true);
}

void head_read(struct mount *m, struct node *n)
{
	if (m->heads && atomic_load(&n->looked_up) && atomic_exchange(&n->looked_up, false))
		score(m, 2);
}

void head_put(struct mount *m, struct node *n, uint64_t version, const uint8_t *data, uint32_t len)
{
	struct head *h = place_of(m, n);

	ensure(len <= HEAD_MAX);
	pthread_mutex_lock(&m->head_lock);
	h->node = n;
	h->generation = n->generation;
	h->version = version;
	h->len = len;
	memcpy(h->data, data, len);
	pthread_mutex_unlock(&m->head_lock);
}

int64_t head_take(struct mount *m, struct node *n, uint64_t off, uint8_t *to, uint32_t len)
{
	struct head *h = m->heads ? place_of(m, n) : NULL;
	int64_t got = -1;
	uint64_t version;
	bool valid;

	if (!h || off != 0 || __atomic_load_n(&h->node, __ATOMIC_RELAXED) != n)
		return -1;
	pthread_mutex_lock(&n->lock);
	valid = n->leased && n->attr_known && atomic_load(&n->writing) == 0;
	version = n->attr.version;
	pthread_mutex_unlock(&n->lock);
	pthread_mutex_lock(&m->head_lock);
	if (h->node == n) {
		if (valid && h->generation == n->generation && h->version == version && h->len <= len) {
			got = h->len;
			memcpy(to, h->data, h->len);
		}
		__atomic_store_n(&h->node, NULL, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&m->head_lock);
	return got;
}

void head_forget_all(struct mount *m)
{
	if (!m->heads)
		return;
	pthread_mutex_lock(&m->head_lock);
	for (uint32_t i = 0; i < HEADS; i++)
		__atomic_store_n(&m->heads[i].node, NULL, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&m->head_lock);
}

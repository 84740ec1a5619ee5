/* SPDX-License-Identifier: Apache-2.0 */
/* Open addressing with linear probing and tombstones; at most 2/3 full, power-of-two sizes. */
#include "base/base.h"

struct slot {
	char *key; /* NULL = never used; TOMB = deleted */
	void *value;
	uint32_t hash;
};

struct strmap {
	struct slot *slots;
	size_t cap, used /* with tombstones */, len;
};

static char tomb[] = "";
#define TOMB (tomb)

struct strmap *strmap_new(void)
{
	return xcalloc(1, sizeof(struct strmap));
}

struct strmap *strmap_free(struct strmap *m, void (*free_value)(void *))
{
	if (!m)
		return NULL;
	for (size_t i = 0; i < m->cap; i++) {
		if (!m->slots[i].key || m->slots[i].key == TOMB)
			continue;
		if (free_value)
			free_value(m->slots[i].value);
		free(m->slots[i].key);
	}
	free(m->slots);
	free(m);
	return NULL;
}

static struct slot *find(const struct strmap *m, const char *key, uint32_t h)
{
	if (!m->cap)
		return NULL;
	for (size_t i = h & (m->cap - 1);; i = (i + 1) & (m->cap - 1)) {
		struct slot *s = &m->slots[i];

		if (!s->key)
			return NULL;
		if (s->key != TOMB && s->hash == h && strcmp(s->key, key) == 0)
			return s;
	}
}

static void place(struct strmap *m, char *key, void *value, uint32_t h)
{
	size_t i = h & (m->cap - 1);

	while (m->slots[i].key)
		i = (i + 1) & (m->cap - 1);
	m->slots[i] = (struct slot){key, value, h};
	m->used++;
}

static void grow(struct strmap *m)
{
	struct slot *old = m->slots;
	size_t old_cap = m->cap;

	if (m->cap && (m->used + 1) * 3 <= m->cap * 2)
		return;
	m->cap = 8;
	while (m->cap < (m->len + 1) * 2)
		m->cap *= 2;
	m->slots = xcalloc(m->cap, sizeof(*m->slots));
	m->used = 0;
	for (size_t i = 0; i < old_cap; i++)
		if (old[i].key && old[i].key != TOMB)
			place(m, old[i].key, old[i].value, old[i].hash);
	free(old);
}

void *strmap_get(const struct strmap *m, const char *key)
{
	struct slot *s = find(m, key, hash_fnv32(key, strlen(key)));

	return s ? s->value : NULL;
}

void *strmap_set(struct strmap *m, const char *key, void *value)
{
	uint32_t h = hash_fnv32(key, strlen(key));
	struct slot *s = find(m, key, h);
	void *old;

	ensure(value);
	if (s) {
		old = s->value;
		s->value = value;
		return old;
	}
	grow(m);
	place(m, xstrdup(key), value, h);
	m->len++;
	return NULL;
}

void *strmap_del(struct strmap *m, const char *key)
{
	struct slot *s = find(m, key, hash_fnv32(key, strlen(key)));
	void *old;

	if (!s)
		return NULL;
	old = s->value;
	free(s->key);
	s->key = TOMB;
	s->value = NULL;
	m->len--;
	return old;
}

size_t strmap_len(const struct strmap *m)
{
	return m->len;
}

int strmap_next(const struct strmap *m, size_t *pos, const char **ret_key, void **ret_value)
{
	for (; *pos < m->cap; (*pos)++) {
		struct slot *s = &m->slots[*pos];

		if (!s->key || s->key == TOMB)
			continue;
		*ret_key = s->key;
		*ret_value = s->value;
		(*pos)++;
		return 1;
	}
	return 0;
}

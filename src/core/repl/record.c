/* SPDX-License-Identifier: Apache-2.0 */
/* record: building, encoding and checking records. Byte tables: docs/protocol/volume.md, "record".
 *
 * A record is one allocation with room for a small body and for the checksums of 1 MiB of data; bigger ones grow by malloc. Effects
 * point into the body, so they are moved along when it moves. Whoever holds a reference may read; only its builder changes it, before it is
 * shared. Decoding trusts nothing: lengths are checked before the CRC so that the CRC reads no byte outside, effects after it. */
#include <pthread.h>

#include "core/repl/record.h"

#include "base/bytes.h"

#define MAGIC	    0x3152564bu /* "KVR1" */
#define BODY_SMALL  1024u
#define CHUNK_SMALL 260u
#define INO_LEN	    24u
#define POOL_MAX    256u /* records: some 2 MiB */

struct record_mem {
	struct record r;
	uint32_t body_cap;
	uint32_t small_crc[CHUNK_SMALL];
	uint8_t small[BODY_SMALL];
};

/* ---- memory ---- */

/* Some that are not in use, newest first: malloc takes a while to find room of this size among what small things have left. */
static struct {
	pthread_mutex_t lock;
	struct record_mem *mem[POOL_MAX];
	uint32_t n;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

#ifdef __SANITIZE_ADDRESS__
static const uint32_t pool_max = 0; /* so that it sees each use after the end */
#else
static const uint32_t pool_max = POOL_MAX;
#endif

static struct record_mem *mem_take(void)
{
	struct record_mem *m = NULL;

	pthread_mutex_lock(&pool.lock);
	if (pool.n > 0)
		m = pool.mem[--pool.n];
	pthread_mutex_unlock(&pool.lock);
	return m ? m : malloc(sizeof(*m));
}

static void mem_give(struct record_mem *m)
{
	pthread_mutex_lock(&pool.lock);
	if (pool.n < pool_max) {
		pool.mem[pool.n++] = m;
		m = NULL;
	}
	pthread_mutex_unlock(&pool.lock);
	free(m);
}

/* ---- life ---- */

static struct record_mem *mem_of(struct record *r)
{
	return container_of(r, struct record_mem, r);
}

struct record *record_new(uint32_t group)
{
	struct record_mem *m = mem_take();
	struct record *r;

	if (!m)
		return NULL;
	r = &m->r;
	m->body_cap = BODY_SMALL;
	/* effects are written before they are read: the array is not cleared */
	r->group = group;
	r->epoch = r->seq = r->prev_epoch = 0;
	r->n = 0;
	r->payload = NULL;
	r->body = m->small;
	r->body_len = 0;
	r->chunk_crc = m->small_crc;
	r->n_chunks = 0;
	r->payload_crc = r->payload_len = 0;
	r->refs = 1;
	return r;
}

struct record *record_ref(struct record *r)
{
	if (r)
		r->refs++;
	return r;
}

struct record *record_unref(struct record *r)
{
	struct record_mem *m;

	if (!r || --r->refs > 0)
		return NULL;
	m = mem_of(r);
	if (r->body != m->small)
		free(r->body);
	if (r->chunk_crc != m->small_crc)
		free(r->chunk_crc);
	payload_unref(r->payload);
	mem_give(m);
	return NULL;
}

/* ---- building ---- */

static int body_room(struct record *r, size_t more)
{
	struct record_mem *m = mem_of(r);
	size_t need = r->body_len + more, cap = m->body_cap;
	uint8_t *old = r->body, *body;

	if (need > RECORD_BODY_MAX)
		return -E2BIG;
	if (need <= cap)
		return 0;
	while (cap < need)
		cap *= 2;
	body = malloc(cap);
	if (!body)
		return -ENOMEM;
	memcpy(body, old, r->body_len);
	for (uint32_t i = 0; i < r->n; i++) {
		if (r->effect[i].key)
			r->effect[i].key = body + (r->effect[i].key - old);
		if (r->effect[i].value)
			r->effect[i].value = body + (r->effect[i].value - old);
	}
	if (old != m->small)
		free(old);
	r->body = body;
	m->body_cap = (uint32_t)cap;
	return 0;
}

/* Room for one more effect of len body bytes; *ret_at is where they go. */
static struct effect *add(struct record *r, enum effect_type type, size_t len, uint8_t **ret_at)
{
	struct effect *f;

	if (r->n >= RECORD_EFFECTS_MAX || body_room(r, len) < 0)
		return NULL;
	f = &r->effect[r->n++];
	*f = (struct effect){.type = type};
	*ret_at = r->body + r->body_len;
	r->body_len += (uint32_t)len;
	(*ret_at)[0] = (uint8_t)type;
	return f;
}

static uint8_t *ino_put(uint8_t *at, const struct vol_ino *ino)
{
	memcpy(at, ino->folder.b, 16);
	le64_put(at + 16, ino->num);
	return at + INO_LEN;
}

int record_put(struct record *r, const void *key, size_t key_len, const void *value, size_t value_len)
{
	struct effect *f;
	uint8_t *at;

	if (key_len == 0 || key_len > KEY_MAX || value_len > VALUE_MAX)
		return -E2BIG;
	f = add(r, EFFECT_PUT, 7 + key_len + value_len, &at);
	if (!f)
		return -E2BIG;
	le16_put(at + 1, (uint16_t)key_len);
	le32_put(at + 3, (uint32_t)value_len);
	f->key = memcpy(at + 7, key, key_len);
	f->key_len = (uint32_t)key_len;
	f->value = at + 7 + key_len;
	f->value_len = (uint32_t)value_len;
	if (value_len > 0)
		memcpy(at + 7 + key_len, value, value_len);
	return 0;
}

int record_del(struct record *r, const void *key, size_t key_len)
{
	struct effect *f;
	uint8_t *at;

	if (key_len == 0 || key_len > KEY_MAX)
		return -E2BIG;
	f = add(r, EFFECT_DEL, 3 + key_len, &at);
	if (!f)
		return -E2BIG;
	le16_put(at + 1, (uint16_t)key_len);
	f->key = memcpy(at + 3, key, key_len);
	f->key_len = (uint32_t)key_len;
	return 0;
}

/* The chunks' checksums into r: from the payload's cache, or worked out at once where there is none. */
static int chunks_of(struct record *r, struct payload *p, uint64_t off)
{
	uint32_t sum = payload_sum(p, off), *crc = r->chunk_crc;

	if (PAYLOAD_CHUNKS(p->len) > CHUNK_SMALL) {
		crc = malloc(PAYLOAD_CHUNKS(p->len) * sizeof(*crc));
		if (!crc)
			return -ENOMEM;
	}
	if (p->chunk_crc && p->phase == off % VOL_BLOCK) {
		memcpy(crc, p->chunk_crc, p->n_chunks * sizeof(*crc));
		r->n_chunks = p->n_chunks;
	} else {
		r->n_chunks = payload_chunks(off, p->data, p->len, crc, &sum);
	}
	r->chunk_crc = crc;
	r->payload_crc = sum;
	return 0;
}

static bool range_fits(uint64_t off, uint64_t len)
{
	return off <= RECORD_OFF_MAX && len <= RECORD_OFF_MAX - off;
}

int record_write(struct record *r, const struct vol_ino *ino, uint32_t gen, uint64_t off, struct payload *p)
{
	struct effect *f;
	uint8_t *at;

	if (r->payload || p->len == 0 || p->len > RECORD_PAYLOAD_MAX || !range_fits(off, p->len))
		return -E2BIG;
	f = add(r, EFFECT_WRITE, 1 + INO_LEN + 16, &at);
	if (!f)
		return -E2BIG;
	at = ino_put(at + 1, ino);
	le32_put(at, gen);
	le64_put(at + 4, off);
	le32_put(at + 12, p->len);
	f->ino = *ino;
	f->gen = gen;
	f->off = off;
	f->len = p->len;
	if (chunks_of(r, p, off) < 0) {
		r->n--;
		r->body_len -= 1 + INO_LEN + 16;
		return -ENOMEM;
	}
	r->payload = payload_ref(p);
	r->payload_len = p->len;
	return 0;
}

int record_trim(struct record *r, const struct vol_ino *ino, uint32_t gen, uint64_t off)
{
	struct effect *f;
	uint8_t *at;

	if (!range_fits(off, 0))
		return -E2BIG;
	f = add(r, EFFECT_TRIM, 1 + INO_LEN + 12, &at);
	if (!f)
		return -E2BIG;
	at = ino_put(at + 1, ino);
	le32_put(at, gen);
	le64_put(at + 4, off);
	f->ino = *ino;
	f->gen = gen;
	f->off = off;
	return 0;
}

int record_punch(struct record *r, const struct vol_ino *ino, uint64_t off, uint64_t len)
{
	struct effect *f;
	uint8_t *at;

	if (len == 0 || !range_fits(off, len))
		return -E2BIG;
	f = add(r, EFFECT_PUNCH, 1 + INO_LEN + 16, &at);
	if (!f)
		return -E2BIG;
	at = ino_put(at + 1, ino);
	le64_put(at, off);
	le64_put(at + 8, len);
	f->ino = *ino;
	f->off = off;
	f->len = len;
	return 0;
}

int record_drop(struct record *r, const struct vol_ino *ino)
{
	struct effect *f;
	uint8_t *at;

	f = add(r, EFFECT_DROP, 1 + INO_LEN, &at);
	if (!f)
		return -E2BIG;
	ino_put(at + 1, ino);
	f->ino = *ino;
	return 0;
}

int record_note(struct record *r)
{
	uint8_t *at;

	return add(r, EFFECT_NOTE, 1, &at) ? 0 : -E2BIG;
}

/* ---- encoding ---- */

void record_encode_head(const struct record *r, uint8_t out[RECORD_HEAD])
{
	memset(out, 0, RECORD_HEAD);
	le32_put(out, MAGIC);
	le32_put(out + 4, r->group);
	le64_put(out + 8, r->epoch);
	le64_put(out + 16, r->seq);
	le64_put(out + 24, r->prev_epoch);
	le32_put(out + 32, r->body_len);
	le32_put(out + 36, r->payload_len);
	le32_put(out + 40, r->payload_crc);
	le16_put(out + 44, (uint16_t)r->n);
	le32_put(out + 60, crc32c(crc32c(0, out, 60), r->body, r->body_len));
}

int record_decode_head(const uint8_t head[RECORD_HEAD], uint32_t *ret_body_len, uint32_t *ret_payload_len)
{
	uint32_t body_len = le32_get(head + 32), payload_len = le32_get(head + 36);

	if (le32_get(head) != MAGIC || body_len > RECORD_BODY_MAX || payload_len > RECORD_PAYLOAD_MAX)
		return -EBADMSG;
	*ret_body_len = body_len;
	*ret_payload_len = payload_len;
	return 0;
}

/* What is left of a body while it is read; a short one makes ok false and gives zeros. */
struct cursor {
	const uint8_t *p, *end;
	bool ok;
};

static const uint8_t *bytes(struct cursor *c, size_t n)
{
	static const uint8_t none[INO_LEN];
	const uint8_t *p = c->p;

	if (!c->ok || (size_t)(c->end - c->p) < n) {
		c->ok = false;
		return none;
	}
	c->p += n;
	return p;
}

static void ino_get(struct cursor *c, struct vol_ino *ret)
{
	const uint8_t *p = bytes(c, INO_LEN);

	memcpy(ret->folder.b, p, 16);
	ret->num = le64_get(p + 16);
}

/* Keys and values; c->ok false when they are not whole or too long. */
static void decode_key(struct cursor *c, struct effect *f)
{
	f->key_len = le16_get(bytes(c, 2));
	if (f->type == EFFECT_PUT)
		f->value_len = le32_get(bytes(c, 4));
	if (f->key_len == 0 || f->key_len > KEY_MAX || f->value_len > VALUE_MAX)
		c->ok = false;
	f->key = bytes(c, c->ok ? f->key_len : 0);
	if (f->type == EFFECT_PUT)
		f->value = bytes(c, c->ok ? f->value_len : 0);
}

static void decode_effect(struct cursor *c, struct effect *f)
{
	*f = (struct effect){.type = bytes(c, 1)[0]};
	switch (f->type) {
	case EFFECT_PUT:
	case EFFECT_DEL:
		decode_key(c, f);
		break;
	case EFFECT_WRITE:
		ino_get(c, &f->ino);
		f->gen = le32_get(bytes(c, 4));
		f->off = le64_get(bytes(c, 8));
		f->len = le32_get(bytes(c, 4));
		c->ok = c->ok && f->len > 0;
		break;
	case EFFECT_TRIM:
		ino_get(c, &f->ino);
		f->gen = le32_get(bytes(c, 4));
		f->off = le64_get(bytes(c, 8));
		break;
	case EFFECT_PUNCH:
		ino_get(c, &f->ino);
		f->off = le64_get(bytes(c, 8));
		f->len = le64_get(bytes(c, 8));
		c->ok = c->ok && f->len > 0;
		break;
	case EFFECT_DROP:
		ino_get(c, &f->ino);
		break;
	case EFFECT_NOTE:
		break;
	default:
		c->ok = false;
	}
	if (!range_fits(f->off, f->len))
		c->ok = false;
}

/* The number of WRITE effects must be the number of payloads, and lengths must agree. *ret_off: where the payload goes. */
static int decode_effects(struct record *r, uint32_t n, uint64_t *ret_off)
{
	struct cursor c = {r->body, r->body + r->body_len, true};
	bool write = false;

	for (r->n = 0; r->n < n && c.ok; r->n++) {
		struct effect *f = &r->effect[r->n];

		decode_effect(&c, f);
		if (f->type != EFFECT_WRITE)
			continue;
		if (write || f->len != r->payload_len)
			return -EBADMSG;
		write = true;
		*ret_off = f->off;
	}
	return c.ok && c.p == c.end && write == (r->payload_len > 0) ? 0 : -EBADMSG;
}

static int check_payload(struct record *r, struct payload *p, uint64_t off, struct err *e)
{
	if (p->len != r->payload_len)
		return err_set(e, -EBADMSG, "record %u/%llu: its payload has %u bytes, %u announced",
			       r->group, (unsigned long long)r->seq, p->len, r->payload_len);
	if (payload_sum(p, off) != r->payload_crc)
		return err_set(e, -EBADMSG, "record %u/%llu: the checksum of its payload does not hold",
			       r->group, (unsigned long long)r->seq);
	if (chunks_of(r, p, off) < 0)
		return err_set(e, -ENOMEM, "no memory for a record's checksums");
	r->payload = payload_ref(p);
	return 0;
}

static inline void record_unref_p(struct record **r)
{
	record_unref(*r);
}

/* What a later version may use is refused by this one. */
static bool reserved_zero(const uint8_t head[RECORD_HEAD])
{
	for (int i = 46; i < 60; i++)
		if (head[i] != 0)
			return false;
	return le32_get(head + 36) > 0 || le32_get(head + 40) == 0;
}

int record_decode(const uint8_t head[RECORD_HEAD], const uint8_t *body, struct payload *payload,
		  struct record **ret, struct err *e)
{
	_cleanup_(record_unref_p) struct record *r = NULL;
	uint32_t body_len, payload_len, n = le16_get(head + 44);
	uint64_t off = 0;
	int err;

	if (record_decode_head(head, &body_len, &payload_len) < 0)
		return err_set(e, -EBADMSG, "no record's head");
	if (crc32c(crc32c(0, head, 60), body, body_len) != le32_get(head + 60))
		return err_set(e, -EBADMSG, "a record's checksum does not hold");
	r = record_new(le32_get(head + 4));
	if (!r || body_room(r, body_len) < 0)
		return err_set(e, -ENOMEM, "no memory for a record");
	memcpy(r->body, body, body_len);
	r->body_len = body_len;
	r->epoch = le64_get(head + 8);
	r->seq = le64_get(head + 16);
	r->prev_epoch = le64_get(head + 24);
	r->payload_len = payload_len;
	r->payload_crc = le32_get(head + 40);
	if (n > RECORD_EFFECTS_MAX || r->group >= VOL_GROUPS_MAX || r->seq == 0 || r->prev_epoch > r->epoch ||
	    !reserved_zero(head) || decode_effects(r, n, &off) < 0)
		return err_set(e, -EBADMSG, "record %u/%llu: its effects are malformed", r->group,
			       (unsigned long long)r->seq);
	if (payload) {
		err = check_payload(r, payload, off, e);
		if (err < 0)
			return err;
	}
	*ret = take_ptr(r);
	return 0;
}

int record_set_chunks(struct record *r, const uint32_t *crcs, uint32_t n)
{
	uint32_t *own = r->chunk_crc, want = 0;

	for (uint32_t i = 0; i < r->n; i++)
		if (r->effect[i].type == EFFECT_WRITE)
			want = (uint32_t)((r->effect[i].off % VOL_BLOCK + r->effect[i].len + VOL_BLOCK - 1) /
					  VOL_BLOCK);
	if (n == 0 || n != want || crc32c(0, crcs, n * sizeof(*crcs)) != r->payload_crc)
		return -EBADMSG;
	if (n > CHUNK_SMALL && own == mem_of(r)->small_crc) {
		own = malloc(n * sizeof(*own));
		if (!own)
			return -ENOMEM;
	}
	memcpy(own, crcs, n * sizeof(*own));
	r->chunk_crc = own;
	r->n_chunks = n;
	return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Transactions that happen once, or are known not to have happened.
 *
 * The trouble: a member dies or is cut off after it took our transaction; nobody can tell from outside whether it was or
 * will be committed, and sending it again could do it twice (a counter raised twice) or report a success as a conflict.
 *
 * So every transaction also writes a marker, a key of this store object's own (ETCD_MARKERS instance/slot), with the
 * transaction's number as value, and compares that the marker is still as we last knew it:
 *
 *     if  caller's compares, marker unchanged   then  caller's operations, marker = number   else  read marker and keys
 *
 * Sending it again is then always safe: the second copy fails on the marker, and finds its own number there when the first
 * was committed, with its revision. When the second copy fails on the caller's compares while the first may still be on
 * its way, a fence, a transaction on the marker alone, makes sure that the first can never be committed any more; only
 * then the caller is told -EEXIST. When the deadline comes first the caller gets -ETIMEDOUT, outcome unknown, and the slot
 * is not used again.
 *
 * Cost: one key of ~20 bytes more in the same raft entry. Markers of processes that are gone are deleted at compaction. */
#include "store/etcd.h"

#define CLEAN_MAX 200 /* markers deleted at one compaction */

static const char method_txn[] = "/etcdserverpb.KV/Txn";

/* All that one request needs; freed as one. */
struct request {
	Etcd__TxnRequest txn;
	Etcd__Compare cmp[STORE_TXN_OPS_MAX + 1], *cmps[STORE_TXN_OPS_MAX + 1];
	Etcd__RequestOp op[STORE_TXN_OPS_MAX + 1], *ops[STORE_TXN_OPS_MAX + 1];
	union {
		Etcd__PutRequest put;
		Etcd__DeleteRangeRequest del;
	} arg[STORE_TXN_OPS_MAX + 1];
	Etcd__RequestOp look, *looks[1];
	Etcd__RangeRequest look_range;
	char marker[sizeof(ETCD_MARKERS) + 40];
	char number[24];
};

static struct etcd_slot *slot_take(struct etcd *c, uint64_t deadline_ms)
{
	struct timespec ts = {.tv_sec = (time_t)(deadline_ms / 1000),
			      .tv_nsec = (long)(deadline_ms % 1000) * 1000000};
	struct etcd_slot *slot = NULL;

	pthread_mutex_lock(&c->lock);
	while (!slot && !c->closing && clock_ms() < deadline_ms) {
		for (size_t i = 0; i < ETCD_SLOTS && !slot; i++)
			if (!c->slots[i].busy)
				slot = &c->slots[i];
		if (!slot)
			pthread_cond_timedwait(&c->changed, &c->lock, &ts);
	}
	if (slot) {
		slot->busy = true;
		if (!slot->number) /* first use, or given up before: a new marker */
			*slot = (struct etcd_slot){.busy = true, .number = ++c->slots_made};
	}
	pthread_mutex_unlock(&c->lock);
	return slot;
}

static void slot_give(struct etcd *c, struct etcd_slot *slot, bool unknown)
{
	pthread_mutex_lock(&c->lock);
	if (unknown)
		slot->number = 0;
	slot->busy = false;
	pthread_cond_broadcast(&c->changed);
	pthread_mutex_unlock(&c->lock);
}

static void add_compare(struct request *q, const char *key, int64_t mod_rev)
{
	size_t i = q->txn.n_compare++;

	etcd__compare__init(&q->cmp[i]);
	q->cmp[i].key = etcd_bytes(key);
	q->cmp[i].target = ETCD__COMPARE__COMPARE_TARGET__MOD;
	q->cmp[i].target_union_case = ETCD__COMPARE__TARGET_UNION_MOD_REVISION;
	q->cmp[i].mod_revision = mod_rev;
	q->cmps[i] = &q->cmp[i];
}

static void add_op(struct request *q, const struct store_op *op)
{
	size_t i = q->txn.n_success++;

	etcd__request_op__init(&q->op[i]);
	if (op->type == STORE_PUT) {
		etcd__put_request__init(&q->arg[i].put);
		q->arg[i].put.key = etcd_bytes(op->key);
		q->arg[i].put.value =
			(ProtobufCBinaryData){.data = (uint8_t *)op->value, .len = op->value_len};
		q->arg[i].put.lease = op->lease;
		q->op[i].request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_PUT;
		q->op[i].request_put = &q->arg[i].put;
	} else {
		etcd__delete_range_request__init(&q->arg[i].del);
		q->arg[i].del.key = etcd_bytes(op->key);
		q->op[i].request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_DELETE_RANGE;
		q->op[i].request_delete_range = &q->arg[i].del;
	}
	q->ops[i] = &q->op[i];
}

/* Caller's compares and operations (both may be none: a fence) with the marker's beside them. */
static struct request *request_new(struct etcd *c, const struct etcd_slot *slot, const struct store_cmp *cmp,
				   size_t n_cmp, const struct store_op *ops, size_t n_ops)
{
	struct request *q = xcalloc(1, sizeof(*q));
	struct store_op mark = {.type = STORE_PUT, .key = q->marker, .value = q->number};

	snprintf(q->marker, sizeof(q->marker), "%s%s/%u", ETCD_MARKERS, c->instance, slot->number);
	snprintf(q->number, sizeof(q->number), "%llu",
		 (unsigned long long)__atomic_add_fetch(&c->txns, 1, __ATOMIC_RELAXED));
	mark.value_len = strlen(q->number);
	etcd__txn_request__init(&q->txn);
	q->txn.compare = q->cmps;
	q->txn.success = q->ops;
	q->txn.failure = q->looks;
	add_compare(q, q->marker, slot->mod_rev);
	for (size_t i = 0; i < n_cmp; i++)
		add_compare(q, cmp[i].key, cmp[i].mod_rev);
	for (size_t i = 0; i < n_ops; i++)
		add_op(q, &ops[i]);
	add_op(q, &mark);
	etcd__range_request__init(&q->look_range);
	q->look_range.key = etcd_bytes(q->marker);
	etcd__request_op__init(&q->look);
	q->look.request_case = ETCD__REQUEST_OP__REQUEST_REQUEST_RANGE;
	q->look.request_range = &q->look_range;
	q->looks[0] = &q->look;
	q->txn.n_failure = 1;
	return q;
}

/* What the marker said in the answer of a transaction whose compares failed; NULL = it is not there. */
static const Etcd__KeyValue *marker_in(const Etcd__TxnResponse *m)
{
	const Etcd__RangeResponse *range;

	if (m->n_responses != 1 ||
	    m->responses[0]->response_case != ETCD__RESPONSE_OP__RESPONSE_RESPONSE_RANGE)
		return NULL;
	range = m->responses[0]->response_range;
	return range && range->n_kvs == 1 ? range->kvs[0] : NULL;
}

enum answer {
	DONE,	 /* committed now, or by an earlier copy, at *ret_rev */
	STALE,	 /* the marker is not as we thought: slot corrected, ask again */
	CONFLICT /* the marker is unchanged: the caller's compares failed */
};

static enum answer judge(const struct request *q, const Etcd__TxnResponse *m, struct etcd_slot *slot,
			 int64_t *ret_rev)
{
	const Etcd__KeyValue *marker;
	int64_t was = slot->mod_rev;

	if (m->succeeded) {
		*ret_rev = slot->mod_rev = m->header ? m->header->revision : 0;
		return DONE;
	}
	marker = marker_in(m);
	slot->mod_rev = marker ? marker->mod_revision : 0;
	if (marker && marker->value.len == strlen(q->number) &&
	    memcmp(marker->value.data, q->number, marker->value.len) == 0) {
		*ret_rev = marker->mod_revision;
		return DONE;
	}
	return slot->mod_rev == was ? CONFLICT : STALE;
}

/* Sends q until there is a certain answer. *unknown is set as soon as a copy may be on its way. */
static int ask_until(struct etcd *c, struct request *q, struct etcd_slot *slot, uint64_t deadline_ms,
		     enum answer *ret, int64_t *ret_rev, bool *unknown, struct err *e)
{
	for (unsigned tries = 0;;) {
		ProtobufCMessage *m;
		int r;

		q->cmp[0].mod_revision = slot->mod_rev;
		r = etcd_try(c, method_txn, &q->txn.base, &etcd__txn_response__descriptor, deadline_ms,
			     tries++, &m, e);
		if (r == -EAGAIN) {
			*unknown = true;
			continue;
		}
		if (r < 0)
			return r;
		*ret = judge(q, (Etcd__TxnResponse *)m, slot, ret_rev);
		protobuf_c_message_free_unpacked(m, NULL);
		if (*ret != STALE)
			return 0;
	}
}

static bool is_number(const struct request *q, const Etcd__KeyValue *marker)
{
	return marker && marker->value.len == strlen(q->number) &&
	       memcmp(marker->value.data, q->number, marker->value.len) == 0;
}

/* Makes sure that no copy of q can be committed any more. *ret = DONE: one was, at *ret_rev; CONFLICT: none was or will be. */
static int fence(struct etcd *c, const struct request *q, struct etcd_slot *slot, uint64_t deadline_ms,
		 enum answer *ret, int64_t *ret_rev, struct err *e)
{
	_cleanup_free_ struct request *f = request_new(c, slot, NULL, 0, NULL, 0);

	for (unsigned tries = 0;;) {
		const Etcd__KeyValue *marker;
		Etcd__TxnResponse *m;
		enum answer a;
		bool ours;
		int64_t rev;
		int r;

		f->cmp[0].mod_revision = slot->mod_rev;
		r = etcd_try(c, method_txn, &f->txn.base, &etcd__txn_response__descriptor, deadline_ms,
			     tries++, (ProtobufCMessage **)&m, e);
		if (r == -EAGAIN)
			continue;
		if (r < 0)
			return r;
		marker = m->succeeded ? NULL : marker_in(m);
		ours = is_number(q, marker);
		a = judge(f, m, slot, &rev);
		if (ours)
			*ret_rev = slot->mod_rev;
		etcd__txn_response__free_unpacked(m, NULL);
		*ret = ours ? DONE : CONFLICT;
		if (ours || a == DONE)
			return 0;
	}
}

int etcd_txn(struct store *s, const struct store_cmp *cmp, size_t n_cmp, const struct store_op *ops,
	     size_t n_ops, int64_t *ret_rev, struct err *e)
{
	struct etcd *c = etcd_of(s);
	uint64_t deadline = etcd_deadline(c);
	struct etcd_slot *slot = slot_take(c, deadline);
	_cleanup_free_ struct request *q = NULL;
	struct err why = {0};
	bool unknown = false;
	enum answer a = CONFLICT;
	int r;

	if (!slot)
		return err_set(e, -EAGAIN, "more than %d transactions at once, or the store closes",
			       ETCD_SLOTS);
	q = request_new(c, slot, cmp, n_cmp, ops, n_ops);
	r = ask_until(c, q, slot, deadline, &a, ret_rev, &unknown, &why);
	if (r == 0 && a == CONFLICT && unknown)
		r = fence(c, q, slot, deadline, &a, ret_rev, &why);
	slot_give(c, slot, r < 0);
	if (r == 0)
		return a == DONE ? 0
				 : err_set(e, -EEXIST, "another writer was first: %s%s has changed",
					   n_cmp ? cmp[0].key : "", n_cmp > 1 ? " or another key" : "");
	if (unknown && r != -ETIMEDOUT) /* refused now, but an earlier copy may have been taken */
		r = -ETIMEDOUT;
	return err_set(e, r, "%s", why.text);
}

static int markers_list(struct etcd *c, int64_t rev, Etcd__RangeResponse **ret)
{
	Etcd__RangeRequest req = ETCD__RANGE_REQUEST__INIT;

	req.key = etcd_bytes(ETCD_MARKERS);
	req.range_end = etcd_bytes(STORE_FIRST_KEY);
	req.max_mod_revision = rev;
	req.keys_only = true;
	req.limit = CLEAN_MAX;
	return etcd_call(c, "/etcdserverpb.KV/Range", &req.base, &etcd__range_response__descriptor,
			 etcd_deadline(c), (ProtobufCMessage **)ret, NULL);
}

void etcd_markers_clean(struct etcd *c, int64_t rev)
{
	Etcd__RangeResponse *old;

	if (markers_list(c, rev, &old) < 0)
		return;
	for (size_t i = 0; i < old->n_kvs && !etcd_closing(c); i++) {
		_cleanup_free_ struct request *q = xcalloc(1, sizeof(*q));
		_cleanup_free_ char *key =
			xstrndup((const char *)old->kvs[i]->key.data, old->kvs[i]->key.len);
		ProtobufCMessage *m = NULL;

		etcd__txn_request__init(&q->txn);
		q->txn.compare = q->cmps;
		q->txn.success = q->ops;
		add_compare(q, key, old->kvs[i]->mod_revision);
		add_op(q, &(struct store_op){.type = STORE_DELETE, .key = key});
		/* failing, or done twice, is harmless: the next compaction comes */
		etcd_try(c, method_txn, &q->txn.base, &etcd__txn_response__descriptor, etcd_deadline(c), 0,
			 &m, NULL);
		protobuf_c_message_free_unpacked(m, NULL);
	}
	etcd__range_response__free_unpacked(old, NULL);
}

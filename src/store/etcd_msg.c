/* SPDX-License-Identifier: Apache-2.0 */
/* Messages of etcd to and from our own types, and the endpoints in a URI. Pure: no I/O; all of it takes bytes from
 * outside, so fuzz/fuzz_etcd.c drives it. */
#include "store/etcd.h"

void *etcd_pack(const ProtobufCMessage *m, size_t *ret_len)
{
	size_t len = protobuf_c_message_get_packed_size(m);
	void *p = xcalloc(1, len + 1);

	*ret_len = protobuf_c_message_pack(m, p);
	return p;
}

bool etcd_kv_to(const Etcd__KeyValue *from, struct store_kv *to)
{
	_cleanup_free_ char *key = NULL;

	if (!from->key.len || memchr(from->key.data, 0, from->key.len))
		return false;
	key = xstrndup((const char *)from->key.data, from->key.len);
	store_kv_fill(to, key, from->value.data, from->value.len);
	to->create_rev = from->create_revision;
	to->mod_rev = from->mod_revision;
	to->version = from->version;
	to->lease = from->lease;
	return true;
}

static bool wanted(const Etcd__KeyValue *kv, const char *prefix, size_t prefix_len)
{
	return kv->key.len && kv->key.data[0] != STORE_RESERVED && kv->key.len >= prefix_len &&
	       memcmp(kv->key.data, prefix, prefix_len) == 0;
}

int64_t etcd_events_to(const Etcd__WatchResponse *m, size_t *at, const char *prefix, struct hub_events *out)
{
	size_t prefix_len = strlen(prefix), i = *at;
	int64_t rev = i < m->n_events && m->events[i]->kv ? m->events[i]->kv->mod_revision : 0;

	if (rev < 1)
		return -EBADMSG;
	for (; i < m->n_events; i++) {
		const Etcd__Event *from = m->events[i];
		struct store_event ev = {0};

		if (!from->kv)
			return -EBADMSG;
		if (from->kv->mod_revision != rev)
			break;
		if (!wanted(from->kv, prefix, prefix_len) || !etcd_kv_to(from->kv, &ev.kv))
			continue;
		if (from->prev_kv)
			etcd_kv_to(from->prev_kv, &ev.prev);
		ev.type =
			from->type == ETCD__EVENT__EVENT_TYPE__DELETE ? STORE_EVENT_DELETE : STORE_EVENT_PUT;
		*hub_events_add(out) = ev;
	}
	*at = i;
	return rev;
}

static int parse_one(const char *text, char **ret, bool *ret_tls, struct err *e)
{
	const char *address = NULL, *colon;
	_cleanup_free_ char *a = NULL;
	int64_t port;

	if (str_starts(text, "https://"))
		address = text + strlen("https://");
	else if (str_starts(text, "http://"))
		address = text + strlen("http://");
	else
		return err_set(e, -EINVAL, "etcd endpoint '%s' must start with https:// or http://", text);
	a = xstrdup(address);
	if (str_ends(a, "/"))
		a[strlen(a) - 1] = 0;
	colon = strrchr(a, ':');
	if (!colon || colon == a || str_i64(colon + 1, &port) < 0 || port < 1 || port > 65535 ||
	    strpbrk(a, "/?# \t%"))
		return err_set(e, -EINVAL, "etcd endpoint '%s' must be like https://HOST:2379", text);
	*ret_tls = text[4] == 's';
	*ret = take_ptr(a);
	return 0;
}

int etcd_parse_uri(const char *text, char ***ret, bool *ret_tls, struct err *e)
{
	_cleanup_strv_ char **parts = strv_split(text, ',', false), **out = NULL;
	bool tls = false, one = false;

	if (!strv_len(parts))
		return err_set(e, -EINVAL,
			       "'etcd:' needs endpoints: etcd:https://HOST:2379,https://HOST:2379");
	if (strv_len(parts) > ETCD_ENDPOINTS_MAX)
		return err_set(e, -EINVAL, "more than %d etcd endpoints", ETCD_ENDPOINTS_MAX);
	for (size_t i = 0; parts[i]; i++) {
		_cleanup_free_ char *address = NULL;
		int r = parse_one(parts[i], &address, &one, e);

		if (r < 0)
			return r;
		if (i && one != tls)
			return err_set(e, -EINVAL, "etcd endpoints must be all https or all http");
		tls = one;
		out = strv_add(out, address);
	}
	*ret = take_ptr(out);
	*ret_tls = tls;
	return 0;
}

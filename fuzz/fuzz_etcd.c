/* SPDX-License-Identifier: Apache-2.0 */
/* What comes from etcd: watch answers (whole revisions, only keys of the callers, none twice) and the endpoints of a URI. */
#include "store/etcd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_watch(const uint8_t *data, size_t size)
{
	Etcd__WatchResponse *m = etcd__watch_response__unpack(NULL, size, data);
	size_t events = 0;

	if (!m)
		return;
	for (size_t at = 0; at < m->n_events;) {
		struct hub_events v = {0};
		size_t was = at;
		int64_t rev = etcd_events_to(m, &at, "/a", &v);

		ensure(rev == -EBADMSG || (rev > 0 && at > was));
		for (size_t i = 0; rev > 0 && i < v.n; i++)
			ensure(str_starts(v.ev[i].kv.key, "/a") && v.ev[i].kv.mod_rev == rev);
		events += v.n;
		hub_events_done(&v);
		if (rev < 0)
			break;
	}
	ensure(events <= m->n_events);
	etcd__watch_response__free_unpacked(m, NULL);
}

static void try_uri(const uint8_t *data, size_t size)
{
	_cleanup_free_ char *text = xstrndup((const char *)data, size);
	_cleanup_strv_ char **addresses = NULL;
	struct err e = {0};
	bool tls = false;

	if (etcd_parse_uri(text, &addresses, &tls, &e) == 0)
		ensure(strv_len(addresses) >= 1 && strv_len(addresses) <= ETCD_ENDPOINTS_MAX);
	else
		ensure(e.text[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	try_watch(data, size);
	try_uri(data, size);
	return 0;
}

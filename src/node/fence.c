/* SPDX-License-Identifier: Apache-2.0 */
/* Fencing decision and the page that carries its only input, the time of the last good renewal.
 *
 * Each monitor of a singleton container reads the page by itself on its own timer, so a singleton dies in time also when
 * the agent is stopped, killed or stuck in a call. The agent's own timer is a second line (it stops restarts). Clock: CLOCK_MONOTONIC,
 * one per kernel, shared by all processes of a node. */
#include "node/fence.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum fence_verdict fence_decide(uint64_t now_ms, uint64_t last_sent_ms, uint64_t *ret_wait_ms)
{
	if (ret_wait_ms)
		*ret_wait_ms = 0;
	if (last_sent_ms == 0 || last_sent_ms > now_ms || now_ms - last_sent_ms >= FENCE_AFTER_MS)
		return FENCE_KILL;
	if (ret_wait_ms)
		*ret_wait_ms = FENCE_AFTER_MS - (now_ms - last_sent_ms);
	return FENCE_RUN;
}

static bool tolerates_unreachable_forever(const json_t *pod)
{
	json_t *t;
	size_t i;

	json_array_foreach (js_get(pod, "spec.tolerations"), i, t) {
		const char *key = js_str_or(t, "key", ""), *effect = js_str_or(t, "effect", "");
		const char *op = js_str_or(t, "operator", "Equal"), *value = js_str_or(t, "value", "");

		if (json_object_get(t, "tolerationSeconds"))
			continue;
		if (*effect && !streq(effect, "NoExecute"))
			continue;
		if (!*key ? streq(op, "Exists")
			  : streq(key, "node.kubernetes.io/unreachable") && (streq(op, "Exists") || !*value))
			return true;
	}
	return false;
}

bool fence_pod_is_singleton(const json_t *pod)
{
	json_t *owners = js_get(pod, "metadata.ownerReferences"), *o;
	json_t *mark = json_object_get(js_get(pod, "metadata.annotations"), "kuayu.io/singleton");
	bool single = mark && streq(json_string_value(mark), "true");
	size_t i;

	json_array_foreach (owners, i, o)
		if (streq(js_str(o, "kind"), "StatefulSet"))
			single = true;
	return single && !tolerates_unreachable_forever(pod);
}

struct fence_page *fence_map(const char *path, bool create, struct err *e)
{
	_cleanup_close_ int fd =
		open(path, create ? O_RDWR | O_CREAT | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0600);
	struct fence_page *p;

	if (fd < 0 || (create && ftruncate(fd, sizeof(*p)) < 0)) {
		err_errno(e, -errno, "fence page %s", path);
		return NULL;
	}
	p = mmap(NULL, sizeof(*p), create ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		err_errno(e, -errno, "fence page %s", path);
		return NULL;
	}
	if (create) {
		p->magic = FENCE_MAGIC;
		if (fence_last(p) > clock_ms()) /* of an earlier boot */
			__atomic_store_n(&p->last_sent_ms, 0, __ATOMIC_RELEASE);
	}
	return p;
}

void fence_renewed(struct fence_page *p, uint64_t sent_ms)
{
	if (sent_ms > fence_last(p))
		__atomic_store_n(&p->last_sent_ms, sent_ms, __ATOMIC_RELEASE);
}

uint64_t fence_last(const struct fence_page *p)
{
	return __atomic_load_n(&p->last_sent_ms, __ATOMIC_ACQUIRE);
}

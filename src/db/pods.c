/* SPDX-License-Identifier: Apache-2.0 */
/* db: the Kubernetes side, where the pod has credentials for it. The members' pods give the peers' addresses unless --service or
 * --peers names them; the own pod carries what the supervisor thinks in its annotation kuayu.io/galera, and may carry the operator's word
 * kuayu.io/galera-override=true, which is taken off once used. All of it is best effort: no decision waits for the API. */
#include "db/internal.h"

#define ANNOTATION	  "kuayu.io/galera"
#define OVERRIDE	  "kuayu.io/galera-override"
#define NAMESPACE_FILE	  "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
#define PUBLISH_GAP_MS	  1000
#define PUBLISH_REPEAT_MS 30000 /* after a failed write */

static const struct model_kind pod_kind = {
	.group = "", .version = "v1", .kind = "Pod", .plural = "pods", .namespaced = true};

static void on_pod(void *ctx, json_t *old, json_t *pod)
{
	struct db *d = ctx;
	const char *name = js_str(pod, "metadata.name");

	(void)old;
	for (size_t i = 0; pod && name && i < d->n; i++) {
		if (!streq(name, d->peers[i].m.name))
			continue;
		if (i != d->self) {
			if (!d->peers[i].host[0])
				peers_address(&d->peers[i], js_str(pod, "status.podIP"));
			return;
		}
		d->override_pod = streq(
			json_string_value(json_object_get(js_get(pod, "metadata.annotations"), OVERRIDE)),
			"true");
		return;
	}
}

static char *own_namespace(const struct db *d)
{
	const char *v = getenv("POD_NAMESPACE");
	char *text;

	if (d->s.ns)
		return xstrdup(d->s.ns);
	if (v && *v)
		return xstrdup(v);
	if (file_read(NAMESPACE_FILE, 256, &text, NULL, NULL) == 0) {
		text[strcspn(text, "\r\n")] = 0;
		return text;
	}
	return xstrdup("default");
}

int pods_init(struct db *d, struct err *e)
{
	struct kube_cache_handler h = {.changed = on_pod, .ctx = d};
	_cleanup_free_ char *query = NULL;
	char *ns;
	int r;

	if (!d->s.kubernetes)
		return 0;
	ns = own_namespace(d);
	free(d->s.ns);
	d->s.ns = ns;
	r = kube_new(d->loop, &d->s.kube, "kuayu-db", &d->kube, e);
	if (r < 0 && d->peers[d->self].host[0]) {
		log_info("without the Kubernetes API: %s", e->text);
		return 0;
	}
	if (r < 0)
		return err_wrap(e, "Kubernetes API (or give --peers or --service)");
	query = xasprintf("labelSelector=%s", d->s.selector);
	d->pods = kube_cache_new(d->kube, &pod_kind, d->s.ns, query, &h);
	return 0;
}

static json_t *own_pod(struct db *d)
{
	return d->pods ? kube_cache_get(d->pods, d->s.ns, d->s.name) : NULL;
}

static void on_published(void *ctx, int status, json_t *body)
{
	struct db *d = ctx;

	(void)body;
	if (status < 200 || status > 299) {
		json_decref(d->published);
		d->published = NULL;
		d->published_ms = clock_ms() + PUBLISH_REPEAT_MS - PUBLISH_GAP_MS;
	}
}

static void annotate(struct db *d, const char *name, json_t *value, kube_done_fn done)
{
	_cleanup_json_ json_t *patch = json_object();
	json_t *annotations = js_object(patch, "metadata.annotations");

	json_object_set_new(annotations, name, value);
	kube_patch(d->kube, &pod_kind, d->s.ns, d->s.name, NULL, KUBE_PATCH_MERGE, patch, done, d);
}

/* The state without what changes with every transaction. */
void pods_tick(struct db *d)
{
	_cleanup_json_ json_t *j = NULL;
	_cleanup_free_ char *text = NULL;
	uint64_t now = clock_ms();

	if (!own_pod(d) || (d->published_ms && now < d->published_ms + PUBLISH_GAP_MS))
		return;
	j = peers_state_new(d);
	if (db_own(d)->phase >= GALERA_STARTING)
		json_object_del(j, "seqno");
	json_object_del(j, "address");
	if (d->published && json_equal(j, d->published))
		return;
	text = js_text(j);
	json_decref(d->published);
	d->published = json_incref(j);
	d->published_ms = now;
	annotate(d, ANNOTATION, json_string(text), on_published);
}

void pods_event(struct db *d, const char *type, const char *reason, const char *text)
{
	json_t *pod = own_pod(d);

	if (pod)
		kube_event(d->kube, pod, type, reason, "%s", text);
}

void pods_override_used(struct db *d)
{
	if (d->override_pod && own_pod(d))
		annotate(d, OVERRIDE, json_null(), NULL);
	d->override_pod = false;
}

void pods_done(struct db *d)
{
	d->pods = kube_cache_free(d->pods);
	d->kube = kube_free(d->kube);
	json_decref(d->published);
	d->published = NULL;
}

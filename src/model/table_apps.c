/* SPDX-License-Identifier: Apache-2.0 */
/* kubectl get for Deployment, ReplicaSet, StatefulSet, ControllerRevision. */
#include "model/table.h"

static void cells_containers(json_t *cells, const json_t *obj)
{
	_cleanup_buf_ struct buf names = {.limit = 4096}, images = {.limit = 16384};
	json_t *c;
	size_t i;

	json_array_foreach (js_get(obj, "spec.template.spec.containers"), i, c) {
		join(&names, js_str_or(c, "name", ""));
		join(&images, js_str_or(c, "image", ""));
	}
	cell_buf(cells, &names, "");
	cell_buf(cells, &images, "");
}

static void cell_selector(json_t *cells, const json_t *obj)
{
	_cleanup_buf_ struct buf b = {.limit = 65536};

	label_selector_text(&b, js_get(obj, "spec.selector"));
	cell_buf(cells, &b, "<none>");
}

static void cell_of(json_t *cells, int64_t have, int64_t want)
{
	char text[64];

	snprintf(text, sizeof(text), "%lld/%lld", (long long)have, (long long)want);
	cell(cells, text);
}

static void cells_deployment(json_t *cells, const json_t *d, int64_t now_us)
{
	cell(cells, js_str(d, "metadata.name"));
	cell_of(cells, js_int(d, "status.readyReplicas", 0), js_int(d, "spec.replicas", 1));
	cell_int(cells, js_int(d, "status.updatedReplicas", 0));
	cell_int(cells, js_int(d, "status.availableReplicas", 0));
	cell_age(cells, d, now_us);
	cells_containers(cells, d);
	cell_selector(cells, d);
}

#define COLUMNS_TEMPLATE                                               \
	{"Containers", "string", "", 1, "Names of the containers."},   \
	{                                                              \
		"Images", "string", "", 1, "Images of the containers." \
	}
#define COLUMN_SELECTOR                                                 \
	{                                                               \
		"Selector", "string", "", 1, "Which pods belong to it." \
	}

const struct table table_deployment = {
	"Deployment",
	COLUMNS(COLUMN_NAME, {"Ready", "string", "", 0, "Ready pods of wanted ones."},
		{"Up-to-date", "string", "", 0, "Pods of the current template."},
		{"Available", "string", "", 0, "Available pods."}, COLUMN_AGE, COLUMNS_TEMPLATE,
		COLUMN_SELECTOR),
	cells_deployment,
};

static void cells_replica_set(json_t *cells, const json_t *rs, int64_t now_us)
{
	cell(cells, js_str(rs, "metadata.name"));
	cell_int(cells, js_int(rs, "spec.replicas", 1));
	cell_int(cells, js_int(rs, "status.replicas", 0));
	cell_int(cells, js_int(rs, "status.readyReplicas", 0));
	cell_age(cells, rs, now_us);
	cells_containers(cells, rs);
	cell_selector(cells, rs);
}

const struct table table_replica_set = {
	"ReplicaSet",
	COLUMNS(COLUMN_NAME, {"Desired", "integer", "", 0, "Wanted pods."},
		{"Current", "integer", "", 0, "Pods there are."}, {"Ready", "integer", "", 0, "Ready pods."},
		COLUMN_AGE, COLUMNS_TEMPLATE, COLUMN_SELECTOR),
	cells_replica_set,
};

static void cells_stateful_set(json_t *cells, const json_t *ss, int64_t now_us)
{
	cell(cells, js_str(ss, "metadata.name"));
	cell_of(cells, js_int(ss, "status.readyReplicas", 0), js_int(ss, "spec.replicas", 1));
	cell_age(cells, ss, now_us);
	cells_containers(cells, ss);
}

const struct table table_stateful_set = {
	"StatefulSet",
	COLUMNS(COLUMN_NAME, {"Ready", "string", "", 0, "Ready pods of wanted ones."}, COLUMN_AGE,
		COLUMNS_TEMPLATE),
	cells_stateful_set,
};

static void cells_revision(json_t *cells, const json_t *r, int64_t now_us)
{
	_cleanup_free_ char *owner = NULL;
	json_t *o;
	size_t i;

	json_array_foreach (js_get(r, "metadata.ownerReferences"), i, o) {
		const char *version = js_str_or(o, "apiVersion", ""), *slash = strchr(version, '/');

		if (owner || !js_bool(o, "controller", false))
			continue;
		owner = xasprintf("%s%s%.*s/%s", js_str_or(o, "kind", ""), slash ? "." : "",
				  slash ? (int)(slash - version) : 0, version, js_str_or(o, "name", ""));
		for (char *p = owner; *p && *p != '/'; p++)
			*p = *p >= 'A' && *p <= 'Z' ? (char)(*p + 32) : *p;
	}
	cell(cells, js_str(r, "metadata.name"));
	cell_or(cells, owner, "<none>");
	cell_int(cells, js_int(r, "revision", 0));
	cell_age(cells, r, now_us);
}

const struct table table_revision = {
	"ControllerRevision",
	COLUMNS(COLUMN_NAME, {"Controller", "string", "", 0, "The set it belongs to."},
		{"Revision", "string", "", 0, "Number of the revision."}, COLUMN_AGE),
	cells_revision,
};

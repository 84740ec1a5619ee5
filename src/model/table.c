/* SPDX-License-Identifier: Apache-2.0 */
/* meta.k8s.io/v1 Table: what kubectl get prints. Columns and cells are those of Kubernetes' own printers; the kinds are in
 * table_*.c. A kind without a table of its own gets name and age. */
#include "model/table.h"

const char *age_text(char out[AGE_MAX], int64_t us)
{
	long long s = us / 1000000, m = s / 60, h = m / 60, d = h / 24, y = d / 365;

	if (s < -1)
		snprintf(out, AGE_MAX, "<invalid>");
	else if (us < 0)
		snprintf(out, AGE_MAX, "0s");
	else if (s < 120)
		snprintf(out, AGE_MAX, "%llds", s);
	else if (m < 10)
		snprintf(out, AGE_MAX, s % 60 ? "%lldm%llds" : "%lldm", m, s % 60);
	else if (m < 180)
		snprintf(out, AGE_MAX, "%lldm", m);
	else if (h < 8)
		snprintf(out, AGE_MAX, m % 60 ? "%lldh%lldm" : "%lldh", h, m % 60);
	else if (h < 48)
		snprintf(out, AGE_MAX, "%lldh", h);
	else if (d < 8)
		snprintf(out, AGE_MAX, h % 24 ? "%lldd%lldh" : "%lldd", d, h % 24);
	else if (d < 365 * 2)
		snprintf(out, AGE_MAX, "%lldd", d);
	else if (d < 365 * 8)
		snprintf(out, AGE_MAX, d % 365 ? "%lldy%lldd" : "%lldy", y, d % 365);
	else
		snprintf(out, AGE_MAX, "%lldy", y);
	return out;
}

const char *since_text(char out[AGE_MAX], const char *rfc3339, int64_t now_us)
{
	int64_t then;

	if (!rfc3339 || clock_parse(rfc3339, &then) < 0)
		return strcpy(out, "<unknown>");
	return age_text(out, now_us - then);
}

void cell(json_t *cells, const char *text)
{
	json_array_append_new(cells, json_string(text ? text : ""));
}

void cell_or(json_t *cells, const char *text, const char *otherwise)
{
	cell(cells, text && *text ? text : otherwise);
}

void cell_int(json_t *cells, int64_t n)
{
	json_array_append_new(cells, json_integer(n));
}

void cell_age(json_t *cells, const json_t *obj, int64_t now_us)
{
	char text[AGE_MAX];

	cell(cells, since_text(text, js_str(obj, "metadata.creationTimestamp"), now_us));
}

void cell_buf(json_t *cells, const struct buf *b, const char *otherwise)
{
	cell(cells, b->len ? b->data : otherwise);
}

void join(struct buf *b, const char *s)
{
	buf_addf(b, "%s%s", b->len ? "," : "", s);
}

static void cells_generic(json_t *cells, const json_t *obj, int64_t now_us)
{
	cell(cells, js_str(obj, "metadata.name"));
	cell_age(cells, obj, now_us);
}

static const struct table table_generic = {NULL, COLUMNS(COLUMN_NAME, COLUMN_AGE), cells_generic};

static const struct table *const tables[] = {
	&table_pod,	   &table_node,	       &table_service,	     &table_endpoints,	&table_slice,
	&table_deployment, &table_replica_set, &table_stateful_set,  &table_revision,	&table_event,
	&table_namespace,  &table_config_map,  &table_secret,	     &table_account,	&table_lease,
	&table_claim,	   &table_volume,      &table_storage_class, &table_csi_driver, &table_csi_node,
};

static const struct table *table_find(const struct model_kind *k)
{
	for (size_t i = 0; i < ARRAY_SIZE(tables); i++)
		if (streq(tables[i]->kind, k->kind))
			return tables[i];
	return &table_generic;
}

static json_t *columns_new(const struct table *t)
{
	json_t *list = json_array();

	for (const struct column *c = t->columns; c->name; c++)
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s, s:i}", "name", c->name, "type",
						      c->type, "format", c->format, "description", c->text,
						      "priority", c->priority));
	return list;
}

static json_t *row_object_new(const struct model_kind *k, const json_t *obj, const char *include)
{
	char version[128];
	json_t *o;

	if (!streq(include, "Object"))
		return json_pack("{s:s, s:s, s:O}", "kind", "PartialObjectMetadata", "apiVersion",
				 "meta.k8s.io/v1", "metadata",
				 json_object_get(obj, "metadata") ? json_object_get(obj, "metadata")
								  : json_null());
	o = json_copy((json_t *)obj);
	json_object_set_new(o, "apiVersion", json_string(model_api_version(k, version)));
	json_object_set_new(o, "kind", json_string(k->kind));
	return o;
}

/* Rows of pods that ended say so, for clients that hide them. */
static void row_conditions(json_t *row, const struct model_kind *k, const json_t *obj)
{
	const char *phase = js_str(obj, "status.phase");

	if (streq(k->kind, "Pod") && (streq(phase, "Succeeded") || streq(phase, "Failed")))
		json_object_set_new(row, "conditions",
				    json_pack("[{s:s, s:s, s:s, s:s}]", "type", "Completed", "status", "True",
					      "reason", phase, "message",
					      streq(phase, "Failed")
						      ? "The pod failed."
						      : "The pod has completed successfully."));
}

static void row_add(json_t *rows, const struct table *t, const struct model_kind *k, const json_t *obj,
		    const char *include, int64_t now_us)
{
	json_t *cells = json_array(), *row = json_pack("{s:o}", "cells", cells);

	t->cells(cells, obj, now_us);
	row_conditions(row, k, obj);
	if (!streq(include, "None"))
		json_object_set_new(row, "object", row_object_new(k, obj, include));
	json_array_append_new(rows, row);
}

json_t *model_table_new(const struct model_kind *k, const json_t *obj_or_array, const char *include,
			int64_t now_us)
{
	const struct table *t = table_find(k);
	json_t *rows = json_array(), *v;
	size_t i;

	if (!include || !*include)
		include = "Metadata";
	if (json_is_array(obj_or_array))
		json_array_foreach (obj_or_array, i, v)
			row_add(rows, t, k, v, include, now_us);
	else
		row_add(rows, t, k, obj_or_array, include, now_us);
	return json_pack("{s:s, s:s, s:{}, s:o, s:o}", "kind", "Table", "apiVersion", "meta.k8s.io/v1",
			 "metadata", "columnDefinitions", columns_new(t), "rows", rows);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Requests in Kubernetes' protobuf form: "k8s\0", then runtime.Unknown {typeMeta = 1 {apiVersion = 1, kind = 2}, raw = 2,
 * contentEncoding = 3, contentType = 4}; raw is the message of the kind. It is decoded by the field numbers of the schema into
 * the JSON form. Go writes zero values of fields that are no pointers, so those are left out here unless the schema says that
 * zero differs from missing.
 *
 * Bytes come from outside: every length is checked against what is left, recursion follows the schema (no cycles), and the
 * number of values is bounded because an empty message of two bytes becomes a JSON object. */
#include "model/internal.h"

#define VALUES_MAX 200000

enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct reader {
	const uint8_t *p, *end;
	unsigned *values; /* left over all readers of one request */
};

struct wire_field {
	uint64_t number;
	enum wire type;
	uint64_t varint;     /* WIRE_VARINT */
	struct reader bytes; /* WIRE_BYTES */
};

static int varint(struct reader *r, uint64_t *ret)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		if (r->p == r->end)
			return -EINVAL;
		v |= (uint64_t)(*r->p & 0x7f) << shift;
		if (!(*r->p++ & 0x80)) {
			*ret = v;
			return 0;
		}
	}
	return -EINVAL;
}

static int field_read(struct reader *r, struct wire_field *f)
{
	uint64_t key, n;

	if (varint(r, &key) < 0)
		return -EINVAL;
	*f = (struct wire_field){.number = key >> 3, .type = (enum wire)(key & 7)};
	switch (f->type) {
	case WIRE_VARINT:
		return varint(r, &f->varint);
	case WIRE_64:
	case WIRE_32:
		n = f->type == WIRE_64 ? 8 : 4;
		if ((uint64_t)(r->end - r->p) < n)
			return -EINVAL;
		r->p += n;
		return 0;
	case WIRE_BYTES:
		if (varint(r, &n) < 0 || n > (uint64_t)(r->end - r->p))
			return -EINVAL;
		f->bytes = (struct reader){r->p, r->p + n, r->values};
		r->p += n;
		return 0;
	}
	return -EINVAL;
}

/* Text without NUL and in UTF-8, or NULL. */
static json_t *text_new(const struct reader *r)
{
	size_t n = (size_t)(r->end - r->p);

	return memchr(r->p, 0, n) ? NULL : json_stringn((const char *)r->p, n);
}

static int message(struct reader r, const struct model_object *o, uint64_t inside, json_t *out);

/* Time {seconds = 1, nanos = 2}; an empty one is Go's zero time and means missing. */
static int time_new(struct reader r, int digits, json_t **ret)
{
	int64_t seconds = 0, nanos = 0;
	struct wire_field f;
	char text[CLOCK_TEXT_MAX];

	if (r.p == r.end)
		return 0;
	while (r.p < r.end) {
		if (field_read(&r, &f) < 0)
			return -EINVAL;
		if (f.type == WIRE_VARINT && f.number == 1)
			seconds = (int64_t)f.varint;
		if (f.type == WIRE_VARINT && f.number == 2)
			nanos = (int64_t)f.varint;
	}
	if (seconds < 0 || seconds > 253402300799 || nanos < 0 || nanos > 999999999)
		return seconds == -62135596800 ? 0 : -EINVAL;
	*ret = json_string(clock_text(text, seconds * 1000000 + nanos / 1000, digits));
	return 0;
}

/* IntOrString {type = 1 (1 = string), intVal = 2, strVal = 3}, Quantity {string = 1} */
static int int_or_string_new(struct reader r, json_t **ret)
{
	struct reader text = {.p = (const uint8_t *)"", .end = (const uint8_t *)""};
	int32_t number = 0;
	bool is_text = false;
	struct wire_field f;

	while (r.p < r.end) {
		if (field_read(&r, &f) < 0)
			return -EINVAL;
		if (f.number == 1 && f.type == WIRE_VARINT)
			is_text = f.varint == 1;
		if (f.number == 2 && f.type == WIRE_VARINT)
			number = (int32_t)f.varint;
		if (f.number == 3 && f.type == WIRE_BYTES)
			text = f.bytes;
	}
	*ret = is_text ? text_new(&text) : json_integer(number);
	return *ret ? 0 : -EINVAL;
}

static int quantity_new(struct reader r, json_t **ret)
{
	struct wire_field f;

	while (r.p < r.end) {
		if (field_read(&r, &f) < 0)
			return -EINVAL;
		if (f.number != 1 || f.type != WIRE_BYTES)
			continue;
		json_decref(*ret);
		*ret = text_new(&f.bytes);
		if (!*ret)
			return -EINVAL;
	}
	return 0;
}

/* RawExtension {raw = 1}, raw is JSON. Of other unsupported messages only that they are there is kept. */
static int raw_new(const struct model_field *mf, struct reader r, json_t **ret)
{
	struct wire_field f;

	if (mf->flags & MODEL_UNSUPPORTED) {
		*ret = r.p == r.end ? json_object() : json_true();
		return 0;
	}
	while (r.p < r.end) {
		if (field_read(&r, &f) < 0)
			return -EINVAL;
		if (f.number == 1 && f.type == WIRE_BYTES && !*ret &&
		    js_parse_new((const char *)f.bytes.p, (size_t)(f.bytes.end - f.bytes.p), ret, NULL) < 0)
			return -EINVAL;
	}
	return 0;
}

/* One value; *ret stays NULL when it is to be left out. */
static int value_new(const struct model_field *mf, const struct wire_field *w, json_t **ret)
{
	bool keep = mf->shape != MODEL_ONE || (mf->flags & MODEL_PRESENCE);
	bool number = mf->type == MODEL_INT || mf->type == MODEL_INT64 || mf->type == MODEL_BOOL;

	if (!*w->bytes.values || w->type != (number ? WIRE_VARINT : WIRE_BYTES))
		return -EINVAL;
	--*w->bytes.values;
	switch (mf->type) {
	case MODEL_BOOL:
		*ret = w->varint || keep ? json_boolean(w->varint) : NULL;
		return 0;
	case MODEL_INT:
	case MODEL_INT64:
		*ret = w->varint || keep
			       ? json_integer(mf->type == MODEL_INT ? (int32_t)w->varint : (int64_t)w->varint)
			       : NULL;
		return 0;
	case MODEL_STRING:
		if (w->bytes.p == w->bytes.end && !keep)
			return 0;
		*ret = text_new(&w->bytes);
		return *ret ? 0 : -EINVAL;
	case MODEL_BYTES:
		*ret = bytes_json_new(w->bytes.p, (size_t)(w->bytes.end - w->bytes.p));
		return 0;
	case MODEL_QUANTITY:
		return quantity_new(w->bytes, ret);
	case MODEL_INT_OR_STRING:
		return int_or_string_new(w->bytes, ret);
	case MODEL_TIME:
		return time_new(w->bytes, 0, ret);
	case MODEL_MICRO_TIME:
		return time_new(w->bytes, 6, ret);
	case MODEL_RAW:
		return raw_new(mf, w->bytes, ret);
	case MODEL_OBJECT:
		*ret = json_object();
		return message(w->bytes, mf->object, 0, *ret);
	}
	return -EINVAL;
}

/* An entry {key = 1, value = 2} of a map. */
static int map_entry(const struct model_field *mf, struct reader r, json_t *map)
{
	_cleanup_json_ json_t *key = json_string(""), *value = NULL;
	struct wire_field f;

	while (r.p < r.end) {
		if (field_read(&r, &f) < 0)
			return -EINVAL;
		f.bytes.values = r.values;
		if (f.number == 1 && f.type == WIRE_BYTES) {
			json_decref(key);
			key = text_new(&f.bytes);
			if (!key)
				return -EINVAL;
		} else if (f.number == 2) {
			json_decref(take_ptr(value));
			if (value_new(mf, &f, &value) < 0)
				return -EINVAL;
		}
	}
	if (!value)
		value = json_string("");
	return json_object_set(map, json_string_value(key), value) < 0 ? -EINVAL : 0;
}

/* A packed array of numbers. */
static int packed(const struct model_field *mf, struct reader r, json_t *array)
{
	while (r.p < r.end) {
		struct wire_field f = {.type = WIRE_VARINT, .bytes = r};
		json_t *v = NULL;

		if (varint(&r, &f.varint) < 0 || value_new(mf, &f, &v) < 0)
			return -EINVAL;
		json_array_append_new(array, v);
	}
	return 0;
}

static json_t *container(json_t *out, const struct model_field *mf)
{
	json_t *c = json_object_get(out, mf->name);

	if (!c) {
		c = mf->shape == MODEL_ARRAY ? json_array() : json_object();
		json_object_set_new(out, mf->name, c);
	}
	return c;
}

static int member(const struct model_field *mf, const struct wire_field *w, json_t *out)
{
	_cleanup_json_ json_t *v = NULL;
	int r;

	if (mf->shape == MODEL_MAP)
		return w->type == WIRE_BYTES ? map_entry(mf, w->bytes, container(out, mf)) : -EINVAL;
	if (mf->shape == MODEL_ARRAY && w->type == WIRE_BYTES &&
	    (mf->type == MODEL_INT || mf->type == MODEL_INT64))
		return packed(mf, w->bytes, container(out, mf));
	r = value_new(mf, w, &v);
	if (r < 0 || !v)
		return r;
	if (mf->shape == MODEL_ARRAY)
		json_array_append(container(out, mf), v);
	else
		json_object_set(out, mf->name, v);
	return 0;
}

/* inside = 0: the message of o itself; else the message in field `inside` of o, whose fields JSON shows in o. */
static int message(struct reader r, const struct model_object *o, uint64_t inside, json_t *out)
{
	while (r.p < r.end) {
		struct wire_field w;
		const struct model_field *mf;
		int rc = field_read(&r, &w);

		w.bytes.values = r.values;
		if (rc < 0)
			return rc;
		for (mf = o->fields; mf->name; mf++)
			if (inside ? (uint64_t)mf->pb == inside && mf->pb_inner &&
					     (uint64_t)mf->pb_inner == w.number
				   : mf->pb && (uint64_t)mf->pb == w.number)
				break;
		if (!mf->name) /* a field of a newer Kubernetes; said in docs/model.md */
			continue;
		if (!inside && mf->pb_inner)
			rc = w.type == WIRE_BYTES ? message(w.bytes, o, w.number, out) : -EINVAL;
		else
			rc = member(mf, &w, out);
		if (rc < 0)
			return rc;
	}
	return 0;
}

struct unknown {
	char api_version[128], kind[128];
	struct reader raw;
	bool encoded;
};

static int type_meta(struct reader r, struct unknown *u)
{
	struct wire_field f;

	while (r.p < r.end) {
		size_t n;
		char *to;

		if (field_read(&r, &f) < 0)
			return -EINVAL;
		if (f.type != WIRE_BYTES || (f.number != 1 && f.number != 2))
			continue;
		to = f.number == 1 ? u->api_version : u->kind;
		n = (size_t)(f.bytes.end - f.bytes.p);
		if (n >= sizeof(u->kind))
			return -EINVAL;
		memcpy(to, f.bytes.p, n);
		to[n] = 0;
	}
	return 0;
}

static int envelope(struct reader r, struct unknown *u)
{
	struct wire_field f;

	while (r.p < r.end) {
		if (field_read(&r, &f) < 0)
			return -EINVAL;
		if (f.number == 1 && f.type == WIRE_BYTES && type_meta(f.bytes, u) < 0)
			return -EINVAL;
		if (f.number == 2 && f.type == WIRE_BYTES)
			u->raw = f.bytes;
		if (f.number == 3 && f.type == WIRE_BYTES && f.bytes.p != f.bytes.end)
			u->encoded = true;
	}
	return 0;
}

int model_from_protobuf(const void *data, size_t len, json_t **ret, struct err *e)
{
	unsigned values = VALUES_MAX;
	struct reader r = {data, (const uint8_t *)data + len, &values};
	_cleanup_json_ json_t *out = NULL;
	const struct model_kind *k;
	struct unknown u = {.encoded = false};

	if (len < 4 || memcmp(data, "k8s", 4) != 0)
		return err_set(e, -EINVAL,
			       "the body does not start with \"k8s\\0\", so it is no Kubernetes protobuf");
	r.p += 4;
	if (envelope(r, &u) < 0)
		return err_set(e, -EINVAL, "the body is not a valid runtime.Unknown message");
	if (u.encoded)
		return err_set(e, -ENOTSUP, "an encoded protobuf body is not supported; send it plain");
	k = model_kind_by_kind(u.api_version, u.kind);
	if (!k)
		return err_set(e, -ENOTSUP,
			       "kind \"%.100s\" of \"%.100s\" is not known in protobuf; send JSON", u.kind,
			       u.api_version);
	out = json_object();
	json_object_set_new(out, "apiVersion", json_string(u.api_version));
	json_object_set_new(out, "kind", json_string(u.kind));
	u.raw.values = &values;
	if (message(u.raw, k->schema->object, 0, out) < 0)
		return err_set(e, -EINVAL, "the protobuf body is no valid %s", u.kind);
	*ret = take_ptr(out);
	return 0;
}

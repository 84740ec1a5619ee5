/* SPDX-License-Identifier: Apache-2.0 */
/* The controller service: a CSI volume is a folder in the catalog of a mounted kuayu volume (catalog.h), so making one is a mkdir on
 * a mount and every node can do it. Its id is "VOLUME/KEY".
 *
 * Parameters of a class: volume (where; --volume when missing), mode (of the new folder, octal; 0777), home (domain where the primary
 * copies of its folders should be; tried, not required). Others are refused, so that a misspelt one is seen.
 * The size is kept and compared as CSI demands, but a folder can grow up to what the volume holds: sizes are not enforced. */
#include "volume/csi/driver.h"

#include <sys/statvfs.h>

#define MODE_ALL 0777

#define UNPACK(type, request, len) csi__v1__##type##__unpack(NULL, len, request)

static int bad_message(struct err *e)
{
	(void)err_set(e, -EINVAL, "the request cannot be read");
	return RPC_INVALID_ARGUMENT;
}

static int invalid(struct err *e, const char *text)
{
	(void)err_set(e, -EINVAL, "%s", text);
	return RPC_INVALID_ARGUMENT;
}

/* ---- create ---- */

struct wanted {
	const char *volume, *home;
	mode_t mode;
	int64_t bytes, limit;
};

/* Those of the external provisioner are about the claim. */
static bool known_parameter(const char *key)
{
	return streq(key, "volume") || streq(key, "mode") || streq(key, "home") ||
	       str_starts(key, "csi.storage.k8s.io/");
}

static const char *wanted_fault(const struct driver *d, const Csi__V1__CreateVolumeRequest *m,
				struct wanted *w)
{
	const char *mode = pair_value(m->n_parameters, m->parameters, "mode");
	char *end = NULL;

	*w = (struct wanted){.volume = pair_value(m->n_parameters, m->parameters, "volume"),
			     .home = pair_value(m->n_parameters, m->parameters, "home"),
			     .mode = MODE_ALL};
	if (!*m->name)
		return "name is missing";
	if (!m->n_volume_capabilities)
		return "volume_capabilities are missing";
	for (size_t i = 0; i < m->n_volume_capabilities; i++)
		if (capability_fault(m->volume_capabilities[i]))
			return capability_fault(m->volume_capabilities[i]);
	if (m->volume_content_source)
		return "volumes cannot be made from snapshots or other volumes";
	for (size_t i = 0; i < m->n_parameters; i++)
		if (!known_parameter(m->parameters[i]->key))
			return "a parameter is not known; there are volume, mode, home";
	if (!w->volume || !*w->volume)
		w->volume = d->volume;
	if (!w->volume)
		return "the parameter 'volume' is missing: the kuayu volume that holds the new one";
	if (!mounts_name_ok(w->volume))
		return "the parameter 'volume' is no name of a volume";
	if (w->home && !mounts_name_ok(w->home))
		return "the parameter 'home' is no name of a domain";
	if (mode)
		w->mode = (mode_t)strtoul(mode, &end, 8);
	if (end && (*end || end == mode || w->mode > 07777))
		return "the parameter 'mode' must be octal, such as 0770";
	if (m->capacity_range) {
		w->bytes = m->capacity_range->required_bytes;
		w->limit = m->capacity_range->limit_bytes;
	}
	if (w->bytes < 0 || w->limit < 0 || (w->limit && w->limit < w->bytes))
		return "capacity_range is not possible";
	return NULL;
}

static int check_room(const struct catalog *c, const struct wanted *w, struct err *e)
{
	struct statvfs st;

	if (statvfs(c->root, &st) < 0)
		return err_errno(e, -errno, "volume %s", w->volume);
	if ((uint64_t)w->bytes > (uint64_t)st.f_blocks * st.f_frsize)
		return err_set(e, -ERANGE, "volume %s holds %llu bytes, %lld are wanted", w->volume,
			       (unsigned long long)st.f_blocks * st.f_frsize, (long long)w->bytes);
	return 0;
}

/* What has to be equal when the same name is asked for again; the provisioner's own are about the claim. */
static json_t *parameters_new(const Csi__V1__CreateVolumeRequest *m)
{
	json_t *all = pairs_object_new(m->n_parameters, m->parameters), *v;
	const char *key;
	void *tmp;

	json_object_foreach_safe (all, tmp, key, v)
		if (str_starts(key, "csi.storage.k8s.io/"))
			json_object_del(all, key);
	return all;
}

static int create(struct driver *d, const Csi__V1__CreateVolumeRequest *m, const struct wanted *w,
		  struct buf *reply, struct err *e)
{
	_cleanup_(catalog_volume_done) struct catalog_volume v = {0};
	_cleanup_(catalog_done) struct catalog c = {0};
	_cleanup_json_ json_t *parameters = parameters_new(m);
	_cleanup_free_ char *id = NULL;
	Csi__V1__CreateVolumeResponse answer = CSI__V1__CREATE_VOLUME_RESPONSE__INIT;
	Csi__V1__Volume volume = CSI__V1__VOLUME__INIT;
	int r = driver_catalog(d, w->volume, &c, e);

	if (r == 0)
		r = check_room(&c, w, e);
	if (r == -ERANGE)
		return RPC_OUT_OF_RANGE;
	if (r == 0)
		r = catalog_create(&c,
				   &(struct catalog_wanted){.name = m->name,
							    .bytes = w->bytes,
							    .limit = w->limit,
							    .parameters = parameters,
							    .mode = w->mode,
							    .home = w->home},
				   &v, e);
	if (r < 0)
		return driver_code(r);
	id = xasprintf("%s/%s", w->volume, v.key);
	volume.volume_id = id;
	volume.capacity_bytes = v.bytes;
	answer.volume = &volume;
	return driver_reply(reply, &answer.base);
}

int csi_create_volume(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	struct driver *d = ctx;
	Csi__V1__CreateVolumeRequest *m = UNPACK(create_volume_request, request, len);
	struct wanted w;
	const char *fault = m ? wanted_fault(d, m, &w) : NULL;
	int code = !m ? bad_message(e) : fault ? invalid(e, fault) : driver_begin(d, m->name, e);

	if (code == RPC_OK) {
		code = create(d, m, &w, reply, e);
		driver_end(d, m->name);
	}
	if (code == RPC_OK)
		log_info("volume %s made on %s", m->name, w.volume);
	else if (m)
		log_warn("CreateVolume %.128s: %s", m->name, e->text);
	if (m)
		csi__v1__create_volume_request__free_unpacked(m, NULL);
	return code;
}

/* ---- delete ---- */

struct trash {
	struct catalog c;
};

static void *run_trash(void *arg)
{
	struct trash *t = arg;

	catalog_empty_trash(&t->c);
	catalog_done(&t->c);
	free(t);
	return NULL;
}

/* Big folders take long: the answer does not wait for them. Takes the catalog over. */
static void empty_trash(struct catalog *c)
{
	struct trash *t = xcalloc(1, sizeof(*t));
	pthread_t thread;

	t->c = *c;
	*c = (struct catalog){0};
	if (pthread_create(&thread, NULL, run_trash, t) == 0)
		pthread_detach(thread);
	else
		run_trash(t);
}

static int delete_one(struct driver *d, const char *id, struct err *e)
{
	_cleanup_(catalog_done) struct catalog c = {0};
	struct volume_id v;
	int r;

	if (!volume_id_parse(id, &v))
		return RPC_OK; /* not ours, so it is not there */
	r = driver_catalog(d, v.volume, &c, e);
	if (r == 0)
		r = catalog_remove(&c, v.key, e);
	if (r == 0)
		empty_trash(&c);
	return driver_code(r);
}

int csi_delete_volume(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	struct driver *d = ctx;
	Csi__V1__DeleteVolumeRequest *m = UNPACK(delete_volume_request, request, len);
	Csi__V1__DeleteVolumeResponse answer = CSI__V1__DELETE_VOLUME_RESPONSE__INIT;
	int code = !m		    ? bad_message(e)
		   : !*m->volume_id ? invalid(e, "volume_id is missing")
				    : driver_begin(d, m->volume_id, e);

	if (code == RPC_OK) {
		code = delete_one(d, m->volume_id, e);
		driver_end(d, m->volume_id);
		if (code == RPC_OK)
			log_info("volume %s removed", m->volume_id);
	}
	if (m)
		csi__v1__delete_volume_request__free_unpacked(m, NULL);
	return code == RPC_OK ? driver_reply(reply, &answer.base) : code;
}

/* ---- looking ---- */

static int validate(struct driver *d, const Csi__V1__ValidateVolumeCapabilitiesRequest *m, struct buf *reply,
		    struct err *e)
{
	_cleanup_(catalog_volume_done) struct catalog_volume v = {0};
	_cleanup_(catalog_done) struct catalog c = {0};
	Csi__V1__ValidateVolumeCapabilitiesResponse answer =
		CSI__V1__VALIDATE_VOLUME_CAPABILITIES_RESPONSE__INIT;
	Csi__V1__ValidateVolumeCapabilitiesResponse__Confirmed confirmed =
		CSI__V1__VALIDATE_VOLUME_CAPABILITIES_RESPONSE__CONFIRMED__INIT;
	const char *fault = NULL;
	int code;

	if (*m->volume_id && !m->n_volume_capabilities)
		return invalid(e, "volume_capabilities are missing");
	code = driver_find(d, m->volume_id, &c, &v, e);
	if (code != RPC_OK)
		return code;
	for (size_t i = 0; i < m->n_volume_capabilities && !fault; i++)
		fault = capability_fault(m->volume_capabilities[i]);
	confirmed.n_volume_context = m->n_volume_context;
	confirmed.volume_context = m->volume_context;
	confirmed.n_volume_capabilities = m->n_volume_capabilities;
	confirmed.volume_capabilities = m->volume_capabilities;
	confirmed.n_parameters = m->n_parameters;
	confirmed.parameters = m->parameters;
	if (fault)
		answer.message = (char *)fault;
	else
		answer.confirmed = &confirmed;
	return driver_reply(reply, &answer.base);
}

int csi_validate_volume(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	Csi__V1__ValidateVolumeCapabilitiesRequest *m =
		UNPACK(validate_volume_capabilities_request, request, len);
	int code = m ? validate(ctx, m, reply, e) : bad_message(e);

	if (m)
		csi__v1__validate_volume_capabilities_request__free_unpacked(m, NULL);
	return code;
}

static int list_reply(const struct driver *d, const struct catalog *c, char *const *keys, int64_t most,
		      const char *after, struct buf *reply)
{
	size_t n = 0, total = strv_len((char **)keys), from = 0;
	Csi__V1__ListVolumesResponse answer = CSI__V1__LIST_VOLUMES_RESPONSE__INIT;
	_cleanup_free_ Csi__V1__ListVolumesResponse__Entry *entries = xcalloc(total + 1, sizeof(*entries)),
							   **list = xcalloc(total + 1, sizeof(*list));
	_cleanup_free_ Csi__V1__Volume *volumes = xcalloc(total + 1, sizeof(*volumes));
	int code;

	while (from < total && strcmp(keys[from], after) <= 0)
		from++;
	for (size_t i = from; i < total && (!most || (int64_t)n < most); i++) {
		struct catalog_volume v;

		if (catalog_get(c, keys[i], &v, NULL) < 0)
			continue; /* removed meanwhile */
		csi__v1__list_volumes_response__entry__init(&entries[n]);
		csi__v1__volume__init(&volumes[n]);
		volumes[n].volume_id = xasprintf("%s/%s", d->volume, keys[i]);
		volumes[n].capacity_bytes = v.bytes;
		entries[n].volume = &volumes[n];
		list[n] = &entries[n];
		n++;
		if (most && (int64_t)n == most && i + 1 < total)
			answer.next_token = keys[i];
		catalog_volume_done(&v);
	}
	answer.n_entries = n;
	answer.entries = list;
	code = driver_reply(reply, &answer.base);
	for (size_t i = 0; i < n; i++)
		free(volumes[i].volume_id);
	return code;
}

/* Those on --volume; a driver that serves several volumes has no way to name them here. */
static int list(struct driver *d, const Csi__V1__ListVolumesRequest *m, struct buf *reply, struct err *e)
{
	_cleanup_(catalog_done) struct catalog c = {0};
	_cleanup_strv_ char **keys = NULL;
	bool known = !*m->starting_token;
	int r;

	if (m->max_entries < 0)
		return invalid(e, "max_entries is negative");
	r = driver_catalog(d, d->volume, &c, e);
	if (r == 0)
		r = catalog_list(&c, &keys, e);
	if (r < 0)
		return driver_code(r);
	/* A token is a key; it may have been removed since, but it never was anything else. */
	for (size_t i = 0; keys[i] && !known; i++)
		known = strcmp(keys[i], m->starting_token) >= 0;
	if (!known) {
		(void)err_set(e, -EINVAL, "starting_token is not known");
		return RPC_ABORTED;
	}
	return list_reply(d, &c, keys, m->max_entries, m->starting_token, reply);
}

int csi_list_volumes(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	struct driver *d = ctx;
	Csi__V1__ListVolumesRequest *m = UNPACK(list_volumes_request, request, len);
	int code;

	if (m && !d->volume) {
		(void)err_set(e, -EOPNOTSUPP, "ListVolumes needs --volume");
		code = RPC_UNIMPLEMENTED;
	} else {
		code = m ? list(d, m, reply, e) : bad_message(e);
	}
	if (m)
		csi__v1__list_volumes_request__free_unpacked(m, NULL);
	return code;
}

int csi_get_capacity(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	struct driver *d = ctx;
	Csi__V1__GetCapacityRequest *m = UNPACK(get_capacity_request, request, len);
	Csi__V1__GetCapacityResponse answer = CSI__V1__GET_CAPACITY_RESPONSE__INIT;
	Csi__V1__Int64Value most = CSI__V1__INT64_VALUE__INIT;
	_cleanup_(catalog_done) struct catalog c = {0};
	_cleanup_free_ char *volume = NULL;
	struct statvfs st;
	int r;

	if (!m)
		return bad_message(e);
	volume = xstrdup(pair_value(m->n_parameters, m->parameters, "volume")
				 ? pair_value(m->n_parameters, m->parameters, "volume")
				 : (d->volume ? d->volume : ""));
	for (size_t i = 0; i < m->n_volume_capabilities; i++)
		if (capability_fault(m->volume_capabilities[i]))
			*volume = 0; /* none of that kind: nothing is free */
	csi__v1__get_capacity_request__free_unpacked(m, NULL);
	if (*volume) {
		r = driver_catalog(d, volume, &c, e);
		if (r == 0 && statvfs(c.root, &st) < 0)
			r = err_errno(e, -errno, "volume %s", volume);
		if (r < 0)
			return driver_code(r);
		answer.available_capacity = (int64_t)(st.f_bavail * st.f_frsize);
		most.value = (int64_t)(st.f_blocks * st.f_frsize);
		answer.maximum_volume_size = &most;
	}
	return driver_reply(reply, &answer.base);
}

int controller_caps(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	const struct driver *d = ctx;
	static const Csi__V1__ControllerServiceCapability__RPC__Type types[] = {
		CSI__V1__CONTROLLER_SERVICE_CAPABILITY__RPC__TYPE__CREATE_DELETE_VOLUME,
		CSI__V1__CONTROLLER_SERVICE_CAPABILITY__RPC__TYPE__GET_CAPACITY,
		CSI__V1__CONTROLLER_SERVICE_CAPABILITY__RPC__TYPE__EXPAND_VOLUME,
		CSI__V1__CONTROLLER_SERVICE_CAPABILITY__RPC__TYPE__LIST_VOLUMES, /* last: only with --volume */
	};
	Csi__V1__ControllerServiceCapability__RPC rpc[ARRAY_SIZE(types)];
	Csi__V1__ControllerServiceCapability caps[ARRAY_SIZE(types)], *all[ARRAY_SIZE(types)];
	Csi__V1__ControllerGetCapabilitiesResponse answer =
		CSI__V1__CONTROLLER_GET_CAPABILITIES_RESPONSE__INIT;

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		csi__v1__controller_service_capability__rpc__init(&rpc[i]);
		csi__v1__controller_service_capability__init(&caps[i]);
		rpc[i].type = types[i];
		caps[i].type_case = CSI__V1__CONTROLLER_SERVICE_CAPABILITY__TYPE_RPC;
		caps[i].rpc = &rpc[i];
		all[i] = &caps[i];
	}
	answer.n_capabilities = ARRAY_SIZE(types) - (d->volume ? 0 : 1);
	answer.capabilities = all;
	return driver_reply(reply, &answer.base);
}

/* ---- expand ---- */

static int expand(struct driver *d, const Csi__V1__ControllerExpandVolumeRequest *m, struct buf *reply,
		  struct err *e)
{
	_cleanup_(catalog_volume_done) struct catalog_volume v = {0};
	_cleanup_(catalog_done) struct catalog c = {0};
	Csi__V1__ControllerExpandVolumeResponse answer = CSI__V1__CONTROLLER_EXPAND_VOLUME_RESPONSE__INIT;
	struct wanted w = {.volume = m->volume_id};
	int code = driver_find(d, m->volume_id, &c, &v, e), r;

	if (code != RPC_OK)
		return code;
	w.bytes = m->capacity_range->required_bytes;
	r = check_room(&c, &w, e);
	if (r == -ERANGE)
		return RPC_OUT_OF_RANGE;
	if (r == 0)
		r = catalog_expand(&c, v.key, w.bytes, &answer.capacity_bytes, e);
	if (r == 0 && m->capacity_range->limit_bytes &&
	    answer.capacity_bytes > m->capacity_range->limit_bytes) {
		(void)err_set(e, -ERANGE, "the volume is larger than the limit");
		return RPC_OUT_OF_RANGE;
	}
	return r < 0 ? driver_code(r) : driver_reply(reply, &answer.base);
}

int csi_expand_volume(void *ctx, const void *request, size_t len, struct buf *reply, struct err *e)
{
	struct driver *d = ctx;
	Csi__V1__ControllerExpandVolumeRequest *m = UNPACK(controller_expand_volume_request, request, len);
	int code = !m		    ? bad_message(e)
		   : !*m->volume_id ? invalid(e, "volume_id is missing")
		   : !m->capacity_range || m->capacity_range->required_bytes < 0 ||
				   (!m->capacity_range->required_bytes && !m->capacity_range->limit_bytes)
			   ? invalid(e, "capacity_range is missing")
		   : m->volume_capability && capability_fault(m->volume_capability)
			   ? invalid(e, capability_fault(m->volume_capability))
			   : driver_begin(d, m->volume_id, e);

	if (code == RPC_OK) {
		code = expand(d, m, reply, e);
		driver_end(d, m->volume_id);
	}
	if (m)
		csi__v1__controller_expand_volume_request__free_unpacked(m, NULL);
	return code;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* csi: requests byte by byte as the CSI specification numbers them, answers, damaged answers, a driver that is not there; and the
 * catalog of the driver. */
#include "test.h"
#include "csi/csi.h"
#include "volume/csi/catalog.h"
#include "volume/csi/mounts.h"

static void is_bytes(const struct csi_request *r, const void *want, size_t want_len)
{
	size_t len;
	_cleanup_free_ void *got = csi_pack(r, &len);

	assert_int_equal(len, want_len);
	assert_memory_equal(got, want, len);
}

static void requests(void **state)
{
	_cleanup_json_ json_t *p = json_pack("{s:s}", "volume", "f"),
			      *modes = json_pack("[s]", "ReadWriteOnce");
	/* 1 name, 2 {1: required}, 3 {2: mount {}, 3 {1: mode}}, 4 {1: key, 2: value} */
	static const char create[] =
		"\x0a\x03pvc\x12\x02\x08\x05\x1a\x06\x12\x00\x1a\x02\x08\x01\x22\x0b\x0a\x06volume\x12\x01"
		"f";
	/* 1 id, 3 staging, 4 target, 5 capability, 6 readonly, 8 context */
	static const char publish[] =
		"\x0a\x01i\x1a\x02/s\x22\x02/"
		"t\x2a\x06\x12\x00\x1a\x02\x08\x05\x30\x01\x42\x0b\x0a\x06volume\x12\x01"
		"f";

	is_bytes(&(struct csi_request){.method = CSI_CREATE_VOLUME,
				       .name = "pvc",
				       .bytes = 5,
				       .parameters = p,
				       .access_modes = modes},
		 create, sizeof(create) - 1);
	is_bytes(&(struct csi_request){.method = CSI_DELETE_VOLUME, .volume_id = "i"}, "\x0a\x01i", 3);
	is_bytes(&(struct csi_request){.method = CSI_NODE_PUBLISH,
				       .volume_id = "i",
				       .staging = "/s",
				       .target = "/t",
				       .read_only = true,
				       .context = p},
		 publish, sizeof(publish) - 1);
	is_bytes(&(struct csi_request){.method = CSI_NODE_UNPUBLISH, .volume_id = "i", .target = "/t"},
		 "\x0a\x01i\x12\x02/t", 7);
	is_bytes(&(struct csi_request){.method = CSI_NODE_UNSTAGE, .volume_id = "i", .staging = "/t"},
		 "\x0a\x01i\x12\x02/t", 7);
	is_bytes(&(struct csi_request){.method = CSI_EXPAND_VOLUME, .volume_id = "i", .bytes = 7},
		 "\x0a\x01i\x12\x02\x08\x07\x22\x06\x12\x00\x1a\x02\x08\x05", 15);
	assert_null(csi_method_path(CSI_INFO));
	assert_string_equal(csi_method_path(CSI_NODE_STAGE), "/csi.v1.Node/NodeStageVolume");
}

static void answers(void **state)
{
	/* Volume = 1 {1: capacity, 2: id, 3: context} */
	static const char created[] = "\x0a\x0d\x08\x05\x12\x01i\x1a\x06\x0a\x01"
				      "a\x12\x01"
				      "b";
	static const char stats[] = "\x0a\x08\x08\x01\x10\x03\x18\x02\x20\x01\x0a\x04\x10\x09\x20\x02";
	struct csi_result r = {0};
	struct csi_unpacked *hold = NULL;
	char name[128], version[64];

	assert_int_equal(csi_unpack(CSI_CREATE_VOLUME, created, sizeof(created) - 1, &r, &hold), 0);
	assert_string_equal(r.volume_id, "i");
	assert_int_equal(r.bytes, 5);
	assert_string_equal(js_str(r.context, "a"), "b");
	csi_unpacked_free(hold);
	assert_int_equal(csi_unpack(CSI_NODE_STATS, stats, sizeof(stats) - 1, &r, &hold), 0);
	assert_int_equal(r.total[0], 3);
	assert_int_equal(r.used[0], 2);
	assert_int_equal(r.available[0], 1);
	assert_int_equal(r.total[1], 9);
	csi_unpacked_free(hold);
	assert_int_equal(csi_unpack(CSI_CREATE_VOLUME, "", 0, &r, &hold), -EBADMSG);
	for (size_t n = 1; n < sizeof(created) - 1; n++) /* cut anywhere */
		assert_int_equal(csi_unpack(CSI_CREATE_VOLUME, created, n, &r, &hold), -EBADMSG);
	assert_int_equal(csi_unpack_plugin_info("\x0a\x01x\x12\x01y", 6, name, version), 0);
	assert_string_equal(name, "x");
	assert_string_equal(version, "y");
	assert_int_equal(csi_unpack_plugin_info("\x12\x01y", 3, name, version), -EBADMSG);
	r = (struct csi_result){0};
	assert_int_equal(csi_unpack_node_caps("\x0a\x04\x0a\x02\x08\x01", 6, &r), 0);
	assert_true(r.stage && !r.stats);
	assert_int_equal(csi_unpack_controller_caps("\x0a\x04\x0a\x02\x08\x09\x0a\x00", 8, &r), 0);
	assert_true(r.expand && !r.controller);
}

/* ---- client ---- */

struct seen {
	int code, calls;
	char text[600];
	struct csi *c;
};

static void on_done(void *ctx, const struct csi_result *r)
{
	struct seen *s = ctx;

	s->code = r->code;
	s->calls++;
	snprintf(s->text, sizeof(s->text), "%s", r->text);
	s->c = csi_free(s->c);
}

static void nobody_there(void **state)
{
	struct seen s = {0};
	uv_loop_t loop;

	uv_loop_init(&loop);
	assert_int_equal(csi_new(&loop, "unix:///nowhere/x.sock", &s.c, NULL), 0);
	csi_call(s.c, &(struct csi_request){.method = CSI_INFO, .done = on_done, .ctx = &s});
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(s.code, RPC_UNAVAILABLE);
	assert_true(strlen(s.text) > 0);
	/* freed with calls on their way: none comes back */
	assert_int_equal(csi_new(&loop, "unix:///nowhere/x.sock", &s.c, NULL), 0);
	for (int i = 0; i < 20; i++)
		csi_call(s.c,
			 &(struct csi_request){
				 .method = CSI_NODE_STATS, .volume_id = "i", .done = on_done, .ctx = &s});
	s.c = csi_free(s.c);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(s.calls, 1);
	assert_int_equal(uv_loop_close(&loop), 0);
}

/* ---- catalog ---- */

static void keys(void **state)
{
	char key[CATALOG_KEY_MAX + 1], longest[CATALOG_KEY_MAX + 2];

	catalog_key("pvc-1.A_b", key);
	assert_string_equal(key, "pvc-1.A_b");
	static const char *const odd[] = {"", ".", "..", "a/b", "h-x", "\xc3\xa9", "a b"};
	for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
		catalog_key(odd[i], key);
		assert_int_equal(strlen(key), 66);
		assert_true(str_starts(key, "h-"));
	}
	memset(longest, 'x', sizeof(longest));
	longest[CATALOG_KEY_MAX + 1] = 0;
	catalog_key(longest, key);
	assert_int_equal(strlen(key), 66);
	longest[CATALOG_KEY_MAX] = 0;
	catalog_key(longest, key);
	assert_string_equal(key, longest);
	assert_true(mounts_name_ok("factory"));
	assert_false(mounts_name_ok("..") || mounts_name_ok("a/b") || mounts_name_ok("") ||
		     mounts_name_ok(NULL) || mounts_name_ok("-a b"));
}

static int make(const struct catalog *c, const char *name, int64_t bytes, int64_t limit, const json_t *p,
		mode_t mode, struct catalog_volume *ret)
{
	struct catalog_wanted w = {name, bytes, limit, p, mode, streq(name, "n") ? "a" : NULL};
	struct err e = {0};

	return catalog_create(c, &w, ret, &e);
}

static void catalog(void **state)
{
	char root[] = "/tmp/kuayu-catalog-XXXXXX";
	struct catalog c = {.base = ".x"};
	struct catalog_volume v;
	_cleanup_json_ json_t *p = json_pack("{s:s}", "a", "b"), *q = json_object();
	_cleanup_strv_ char **list = NULL;
	_cleanup_free_ char *path = NULL;
	struct err e = {0};
	int64_t bytes;

	assert_non_null(mkdtemp(root));
	c.root = root;
	assert_int_equal(catalog_get(&c, "n", &v, &e), -ENOENT);
	assert_int_equal(catalog_remove(&c, "n", &e), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(make(&c, "n", 5, 0, p, 0750, &v), 0);
		assert_string_equal(v.name, "n");
		assert_int_equal(v.bytes, 5);
		catalog_volume_done(&v);
	}
	assert_int_equal(make(&c, "n", 6, 0, p, 0750, &v), -EEXIST);
	assert_int_equal(make(&c, "n", 1, 4, p, 0750, &v), -EEXIST);
	assert_int_equal(make(&c, "n", 5, 0, q, 0750, &v), -EEXIST);
	assert_int_equal(make(&c, "n", 1, 9, p, 0750, &v), 0);
	catalog_volume_done(&v);
	path = catalog_path(&c, "n");
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(catalog_expand(&c, "n", 9, &bytes, &e), 0);
	assert_int_equal(bytes, 9);
	assert_int_equal(catalog_expand(&c, "n", 2, &bytes, &e), 0);
	assert_int_equal(bytes, 9);
	assert_int_equal(catalog_expand(&c, "m", 2, &bytes, &e), -ENOENT);
	assert_int_equal(catalog_get(&c, "../meta/n", &v, &e), -ENOENT);
	assert_int_equal(make(&c, "a b", 0, 0, q, 0700, &v), 0);
	catalog_volume_done(&v);
	assert_int_equal(catalog_list(&c, &list, &e), 0);
	assert_int_equal(strv_len(list), 2);
	assert_string_equal(list[1], "n");
	assert_int_equal(catalog_remove(&c, "n", &e), 0);
	assert_int_equal(access(path, F_OK), -1);
	catalog_empty_trash(&c);
	assert_int_equal(catalog_get(&c, "n", &v, &e), -ENOENT);
	assert_int_equal(dir_remove(root, NULL), 0);
}

TEST_MAIN(cmocka_unit_test(requests), cmocka_unit_test(answers), cmocka_unit_test(nobody_there),
	  cmocka_unit_test(keys), cmocka_unit_test(catalog))

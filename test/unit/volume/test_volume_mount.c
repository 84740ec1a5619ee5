/* SPDX-License-Identifier: Apache-2.0 */
/* The mount's books: inodes that the kernel knows, names of folders known completely, counters of pushes. */
#include "test.h"

#include "volume/mount/internal.h"

static struct mount *fresh(void)
{
	struct mount *m = xcalloc(1, sizeof(*m));

	assert_int_equal(nodes_init(&m->nodes), 0);
	random_bytes(m->name_key, sizeof(m->name_key));
	return m;
}

static void done(struct mount *m)
{
	nodes_done(&m->nodes);
	free(m);
}

static struct vol_ino file(uint64_t folder, uint64_t num)
{
	struct vol_ino ino = {.num = num};

	memcpy(ino.folder.b, &folder, sizeof(folder));
	return ino;
}

static void ids_come_back_with_a_new_generation(void **s)
{
	struct mount *m = fresh();
	struct vol_ino a = file(7, 1), b = file(7, 2), c = file(8, 1);
	struct node *na = node_lookup(m, &a), *nb = node_lookup(m, &b), *nc;
	fuse_ino_t ida = node_id(na);
	uint32_t generation = na->generation;

	(void)s;
	assert_ptr_not_equal(na, nb);
	assert_true(ida > FUSE_ROOT_ID);
	assert_ptr_equal(node_of(m, ida), na);
	assert_ptr_equal(node_lookup(m, &a), na); /* twice known */
	node_forget(m, na, 1);
	assert_ptr_equal(node_find(m, &a), na); /* pinned */
	node_forget(m, na, 1);
	assert_ptr_equal(node_find(m, &a), na);
	node_unpin(m, na);
	node_unpin(m, na);
	assert_null(node_find(m, &a));
	nc = node_lookup(m, &c);
	assert_int_equal(node_id(nc), ida); /* the place is used again */
	assert_true(nc->generation != generation);
	assert_ptr_equal(node_find(m, &b), nb);
	done(m);
}

/* A file that is removed before it was synced leaves its place to another inode: that one is neither changed nor durable. */
static void a_place_forgets_what_was_not_synced(void **s)
{
	struct mount *m = fresh();
	struct vol_ino a = file(7, 1), b = file(8, 0);
	struct node *na = node_lookup(m, &a), *nb;

	(void)s;
	file_wrote(na, 5, 11);
	assert_true(na->dirty);
	na->durable = 9;
	na->since_sync = na->sync_every = 3;
	na->steady = STEADY_MIN;
	node_forget(m, na, 1);
	nb = node_lookup(m, &b);
	assert_ptr_equal(nb, na);
	assert_false(nb->dirty);
	assert_int_equal(nb->forks, 0);
	assert_int_equal(nb->written, 0);
	assert_int_equal(nb->durable, 0);
	assert_int_equal(nb->since_sync, 0);
	assert_int_equal(nb->sync_every, 0);
	assert_int_equal(nb->steady, 0);
	assert_int_equal(nb->n_changers, 0);
	file_wrote(nb, 7, 11); /* the first change decides */
	assert_int_equal(nb->forks, 7);
	done(m);
}

/* Two programs change a folder, all copies lose power (forks 1 -> 2), a third one changes it afterwards. */
static void each_that_changed_it_is_told_of_a_loss(void **s)
{
	struct mount *m = fresh();
	struct vol_ino folder = file(8, 0);
	struct node *n = node_lookup(m, &folder);

	(void)s;
	file_wrote(n, 1, 11);
	file_wrote(n, 1, 12);
	file_wrote(n, 1, 11);
	assert_false(node_synced(n, n->written, 1, 12)); /* for all */
	assert_false(n->dirty);
	assert_int_equal(n->n_changers, 0);

	file_wrote(n, 1, 11);
	file_wrote(n, 1, 12);
	file_wrote(n, 2, 13);
	assert_true(
		node_synced(n, n->written, 2, 13)); /* the first fsync: what lies in the folder may be gone */
	assert_false(node_synced(n, n->written, 2, 13));
	assert_false(node_synced(n, n->written, 2, 99));
	assert_true(node_synced(n, n->written, 2, 12));
	assert_false(node_synced(n, n->written, 2, 12));
	file_wrote(n, 2, 11); /* and more, before it syncs */
	assert_true(node_synced(n, n->written, 2, 11));
	assert_false(node_synced(n, n->written, 2, 11));
	assert_false(n->dirty);
	assert_int_equal(n->n_changers, 0);
	assert_null(n->changer);

	file_wrote(n, 2, 11); /* on its way while another one syncs: the next fsync's */
	assert_false(node_synced(n, n->written - 1, 2, 12));
	assert_true(n->dirty);
	assert_true(node_synced(n, n->written, 3, 11));
	assert_false(node_synced(n, n->written, 3, 12));

	for (uint32_t i = 1; i <= 3 * CHANGERS_MAX; i++)
		file_wrote(n, 3, i);
	assert_int_equal(n->n_changers, CHANGERS_MAX);
	assert_true(node_synced(n, n->written, 4, 1));
	assert_true(node_synced(n, n->written, 4, 2 * CHANGERS_MAX)); /* one of those that count as one */
	assert_false(node_synced(n, n->written, 4, 2 * CHANGERS_MAX + 1));
	assert_true(node_synced(n, n->written, 4, 2));
	file_wrote(n, 4, 2);
	node_forget(m, n, 1); /* frees all */
	done(m);
}

static void many_inodes_are_all_found(void **s)
{
	enum { N = 30000 };
	struct mount *m = fresh();

	(void)s;
	for (uint64_t i = 0; i < N; i++) {
		struct vol_ino ino = file(i / 100, i % 100 + 1);

		assert_non_null(node_lookup(m, &ino));
	}
	for (uint64_t i = 0; i < N; i += 2) {
		struct vol_ino ino = file(i / 100, i % 100 + 1);
		struct node *n = node_find(m, &ino);

		assert_non_null(n);
		node_unpin(m, n);
		node_forget(m, n, 1);
	}
	for (uint64_t i = 0; i < N; i++) {
		struct vol_ino ino = file(i / 100, i % 100 + 1);
		struct node *n = node_find(m, &ino);

		assert_int_equal(n != NULL, i % 2);
	}
	assert_int_equal(m->nodes.n, N / 2 + 1);
	done(m);
}

static void inode_numbers_are_of_the_inode_only(void **s)
{
	struct vol_ino root = {.folder = vol_root}, a = file(7, 1), b = file(7, 2);

	(void)s;
	assert_int_equal(ino_number(&root), 1);
	assert_true(ino_number(&a) == ino_number(&(struct vol_ino){a.folder, 1}));
	assert_true(ino_number(&a) != ino_number(&b));
	assert_true(ino_number(&a) > 1);
}

static void names_are_a_set(void **s)
{
	struct mount *m = fresh();
	struct names set = {0};
	char name[32];

	(void)s;
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < 5000; i++) {
			snprintf(name, sizeof(name), "file-%d", i);
			assert_int_equal(names_add(m, &set, name_hash(m, name, strlen(name)), 0), 0);
			assert_int_equal(names_add(m, &set, name_hash(m, name, strlen(name)), 0), 0);
		}
		assert_int_equal(set.n, 5000);
		assert_true(set.cap <= 32768); /* places of removed names are used again */
		for (int i = 0; i < 5000; i += 2) {
			snprintf(name, sizeof(name), "file-%d", i);
			names_del(m, &set, name_hash(m, name, strlen(name)));
		}
		for (int i = 0; i < 6000; i++) {
			snprintf(name, sizeof(name), "file-%d", i);
			assert_int_equal(names_has(&set, name_hash(m, name, strlen(name))),
					 i < 5000 && i % 2);
		}
	}
	names_done(m, &set);
	assert_int_equal(atomic_load(&m->names_all), 0);
	done(m);
}

static void names_know_the_numbers_of_files(void **s)
{
	struct mount *m = fresh();
	struct names set = {0};

	(void)s;
	for (uint64_t i = 0; i < 1000; i++) /* over several growths */
		assert_int_equal(names_add(m, &set, i * 0x9e3779b97f4a7c15u | 2, i + 1), 0);
	for (uint64_t i = 0; i < 1000; i++)
		assert_int_equal(names_number(&set, i * 0x9e3779b97f4a7c15u | 2), i + 1);
	assert_int_equal(names_number(&set, 12345), 0);
	assert_int_equal(names_add(m, &set, 2, 0), 0); /* leads elsewhere now */
	assert_int_equal(names_number(&set, 2), 0);
	assert_int_equal(set.n, 1000);
	names_del(m, &set, 2);
	assert_int_equal(names_number(&set, 2), 0);
	assert_int_equal(names_add(m, &set, 2, 77), 0);
	assert_int_equal(names_number(&set, 2), 77);
	names_done(m, &set);
	done(m);
}

static void too_many_names_are_refused(void **s)
{
	struct mount *m = fresh();
	struct names set = {0};
	int r = 0;

	(void)s;
	for (uint64_t i = 0; i <= NAMES_MAX && r == 0; i++)
		r = names_add(m, &set, i * 0x9e3779b97f4a7c15u | 2, 0);
	assert_int_equal(r, -ENOSPC);
	assert_true(set.n <= NAMES_MAX);
	names_done(m, &set);
	done(m);
}

static void a_folder_known_completely_answers_by_itself(void **s)
{
	struct mount *m = fresh();
	struct vol_ino ino = file(9, 0);
	struct node *n = node_lookup(m, &ino);

	(void)s;
	assert_false(folder_lacks(m, n, "a"));
	n->complete = true;
	assert_false(folder_lacks(m, n, "a")); /* not without a lease */
	n->leased = true;
	assert_true(folder_lacks(m, n, "a"));
	folder_changed(m, n, "a", true, false);
	assert_false(folder_lacks(m, n, "a"));
	assert_true(folder_lacks(m, n, "b"));
	folder_changed(m, n, "a", false, true); /* perhaps removed */
	assert_false(folder_lacks(m, n, "a"));
	folder_changed(m, n, "a", false, false);
	assert_true(folder_lacks(m, n, "a"));
	done(m);
}

static void an_overtaken_answer_is_not_believed(void **s)
{
	struct mount *m = fresh();
	struct vol_ino ino = file(9, 3);
	struct node *n = node_lookup(m, &ino);
	struct vfs_attr old = {.ino = ino, .mode = S_IFREG | 0644, .size = 1, .version = 10}, new = old, now;

	(void)s;
	new.size = 2;
	new.version = 11;
	assert_false(cache_learn(m, n, &old, false, &now));
	assert_true(cache_learn(m, n, &new, true, &now));
	assert_int_equal(now.size, 2);
	assert_true(cache_learn(m, n, &old, true, &now));
	assert_int_equal(now.size, 2);
	new.version = 12;
	assert_false(cache_learn(m, n, &new, false, &now)); /* newer, but not to be kept */
	done(m);
}

static void bytes_of_a_lookup_are_of_their_version_only(void **s)
{
	struct mount *m = fresh();
	struct vol_ino ino = file(9, 3), other = file(9, 4);
	struct node *n = node_lookup(m, &ino), *o = node_lookup(m, &other);
	struct vfs_attr a = {.ino = ino, .mode = S_IFREG | 0644, .size = 5, .version = 10};
	uint8_t to[8];

	(void)s;
	m->s.leases = true;
	assert_int_equal(head_start(m), 0);
	assert_int_equal(head_take(m, n, 0, to, 8), -1);
	assert_true(cache_learn(m, n, &a, true, NULL));
	head_put(m, n, 10, (const uint8_t *)"bytes", 5);
	assert_int_equal(head_take(m, o, 0, to, 8), -1); /* another file */
	assert_int_equal(head_take(m, n, 4096, to, 8), -1);
	assert_int_equal(head_take(m, n, 0, to, 8), 5);
	assert_memory_equal(to, "bytes", 5);
	assert_int_equal(head_take(m, n, 0, to, 8), -1); /* once */
	head_put(m, n, 10, (const uint8_t *)"bytes", 5);
	a.version = 11; /* changed, and known to be */
	assert_true(cache_learn(m, n, &a, true, NULL));
	assert_int_equal(head_take(m, n, 0, to, 8), -1);
	head_put(m, n, 11, (const uint8_t *)"bytes", 5);
	cache_unsure(n);
	assert_int_equal(head_take(m, n, 0, to, 8), -1);
	assert_true(cache_learn(m, n, &a, true, NULL));
	head_put(m, n, 11, (const uint8_t *)"bytes", 5);
	atomic_fetch_add(&n->writing, 1); /* may have been changed by now */
	assert_int_equal(head_take(m, n, 0, to, 8), -1);
	atomic_fetch_sub(&n->writing, 1);
	head_put(m, n, 11, (const uint8_t *)"bytes", 5);
	head_forget_all(m); /* the lease has ended */
	assert_int_equal(head_take(m, n, 0, to, 8), -1);
	head_stop(m);
	done(m);
}

static void bytes_are_asked_for_while_lookups_are_followed_by_reads(void **s)
{
	struct mount *m = fresh();
	struct vol_ino ino = file(9, 3);
	struct node *n = node_lookup(m, &ino);
	struct vfs_attr a = {.ino = ino, .mode = S_IFREG | 0644, .size = 5}, large = a, folder = a;
	int asked = 0;

	(void)s;
	large.size = HEAD_MAX + 1;
	folder.mode = S_IFDIR | 0755;
	m->s.leases = true;
	assert_int_equal(head_start(m), 0);
	assert_null(head_room(m));
	for (int i = 0; i < 40; i++) {
		head_looked_up(m, n, &a);
		head_read(m, n);
		head_read(m, n); /* the first one counts */
	}
	assert_non_null(head_room(m));
	for (int i = 0; i < 100; i++) { /* what could not bring any says nothing */
		head_looked_up(m, n, &large);
		head_looked_up(m, n, &folder);
	}
	for (int i = 0; i < 100; i++) {
		asked += head_room(m) != NULL;
		head_looked_up(m, n, &a);
	}
	assert_in_range(asked, 10, 40); /* soon not any more */
	head_stop(m);
	done(m);
}

static void a_push_is_seen_by_answers_on_their_way(void **s)
{
	struct mount *m = fresh();
	struct vol_ino a = file(9, 3), b = file(9, 4);
	struct tick t = tick_of(m, &a, NULL);
	struct proto_push p = {.type = PUSH_INODE, .ino = b};

	(void)s;
	assert_true(tick_same(m, &t));
	cache_noted(m, &p);
	assert_true(tick_same(m, &t));
	p.ino = a;
	cache_noted(m, &p);
	assert_false(tick_same(m, &t));
	assert_int_equal(atomic_load(&m->pushes), 2);
	done(m);
}

static void options_of_mount_8(void **s)
{
	struct mount_settings o;
	struct err e = {0};
	char *argv[] = {"kuayu",
			"logs",
			"/",
			"-o",
			"rw,nosuid,store=etcd:http://1.2.3.4:2379,http://"
			"1.2.3.5:2379,_netdev,domain=b,timeout=5s,write-behind=16384,x-systemd.automount",
			NULL};
	char *bad[] = {"kuayu", "logs", "/", "-o", "store=mem:,colour=red", NULL};

	(void)s;
	assert_int_equal(options_parse(5, argv, &o, &e), 0);
	assert_string_equal(o.volume, "logs");
	assert_string_equal(o.dir, "/");
	assert_string_equal(o.store, "etcd:http://1.2.3.4:2379,http://1.2.3.5:2379");
	assert_string_equal(o.domain, "b");
	assert_int_equal(o.timeout_ms, 5000);
	assert_int_equal(o.behind_kb, 16384);
	assert_string_equal(o.fuse_options, "rw,nosuid");
	options_done(&o);
	assert_int_equal(options_parse(5, bad, &o, &e), -EINVAL);
	assert_non_null(strstr(e.text, "colour"));
	options_done(&o);
}

TEST_MAIN(cmocka_unit_test(ids_come_back_with_a_new_generation),
	  cmocka_unit_test(a_place_forgets_what_was_not_synced),
	  cmocka_unit_test(each_that_changed_it_is_told_of_a_loss),
	  cmocka_unit_test(many_inodes_are_all_found), cmocka_unit_test(inode_numbers_are_of_the_inode_only),
	  cmocka_unit_test(names_are_a_set), cmocka_unit_test(names_know_the_numbers_of_files),
	  cmocka_unit_test(too_many_names_are_refused),
	  cmocka_unit_test(a_folder_known_completely_answers_by_itself),
	  cmocka_unit_test(an_overtaken_answer_is_not_believed),
	  cmocka_unit_test(bytes_of_a_lookup_are_of_their_version_only),
	  cmocka_unit_test(bytes_are_asked_for_while_lookups_are_followed_by_reads),
	  cmocka_unit_test(a_push_is_seen_by_answers_on_their_way), cmocka_unit_test(options_of_mount_8))

/* SPDX-License-Identifier: Apache-2.0 */
/* map: laying out a volume's groups over its bricks, and the map's JSON.
 *
 * Bricks are put together to sets of `replica` in different domains; a set takes a share of the groups as large as its weight, chosen by
 * rendezvous hashing within that bound, so that the same bricks always give the same map. Within a set the groups' first members go round, so
 * every brick leads about as many groups as the others. What an operator can get wrong is answered with what would be right. */
#include "core/place/place.h"

#include <stdatomic.h>

#define SETS_MAX (2 * VOL_BRICKS_MAX)

struct set {
	uint16_t brick[VOL_REPLICA_MAX];
	uint32_t weight; /* the least of its bricks' */
	uint32_t quota, load;
};

static uint64_t next_serial(void)
{
	static _Atomic uint64_t serial;

	return ++serial;
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

struct vol_map *vol_map_free(struct vol_map *m)
{
	if (!m)
		return NULL;
	free(m->brick);
	free(m->group);
	free(m);
	return NULL;
}

static inline void map_free_p(struct vol_map **m)
{
	vol_map_free(*m);
}

uint32_t vol_bricks_active(const struct vol_map *m)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < m->n_bricks; i++)
		n += !m->brick[i].retired;
	return n;
}

enum vol_kind vol_map_kind(const struct vol_map *m)
{
	uint32_t n = vol_bricks_active(m);

	if (m->replica == 1 && n == m->stripe) /* one brick too: nothing of it is replicated */
		return VOL_STRIPED;
	return n == m->replica ? VOL_REPLICATED : VOL_DISTRIBUTED_STRIPED_REPLICATED;
}

const char *vol_kind_text(enum vol_kind k)
{
	return k == VOL_REPLICATED ? "replicated"
	       : k == VOL_STRIPED  ? "striped"
				   : "distributed-striped-replicated";
}

bool vol_name_valid(const char *name)
{
	size_t n = name ? strlen(name) : 0;

	if (n == 0 || n > VOL_NAME_MAX || name[0] == '-' || name[n - 1] == '-')
		return false;
	return strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

int vol_brick_find(const struct vol_map *m, const char *name)
{
	for (uint32_t i = 0; i < m->n_bricks; i++)
		if (streq(m->brick[i].name, name))
			return (int)i;
	return -1;
}

int vol_group_member(const struct vol_map *m, uint32_t group, uint32_t brick)
{
	for (uint32_t i = 0; i < m->replica; i++)
		if (m->group[group].brick[i] == brick)
			return (int)i;
	return -1;
}

/* ---- bricks and domains ---- */

static int domain_of(const struct vol_map *m, const char *name)
{
	for (uint32_t i = 0; i < m->n_domains; i++)
		if (streq(m->domains[i], name))
			return (int)i;
	return -1;
}

static bool text_ok(const char *s, size_t size)
{
	size_t n = strnlen(s, size);

	if (n == 0 || n >= size)
		return false;
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < ' ')
			return false;
	return true;
}

/* The bricks' own fields, and the domains in order of first appearance. */
static int check_bricks(struct vol_map *m, struct err *e)
{
	m->n_domains = 0;
	for (uint32_t i = 0; i < m->n_bricks; i++) {
		struct vol_brick *b = &m->brick[i];

		if (!text_ok(b->name, sizeof(b->name)) || !text_ok(b->domain, sizeof(b->domain)) ||
		    !text_ok(b->address, sizeof(b->address)) || !text_ok(b->path, sizeof(b->path)))
			return err_set(e, -EINVAL,
				       "brick %u ('%.63s'): name, domain, address and path must be there and "
				       "printable",
				       i + 1, b->name);
		if (b->weight == 0 || b->weight > 10000)
			return err_set(e, -EINVAL, "brick %s: weight %u is not 1..10000 (100 = normal)",
				       b->name, b->weight);
		for (uint32_t j = 0; j < i; j++)
			if (streq(m->brick[j].name, b->name))
				return err_set(e, -EINVAL,
					       "brick %s is named twice: a node holds one brick of a volume",
					       b->name);
		if (domain_of(m, b->domain) >= 0)
			continue;
		if (m->n_domains == VOL_DOMAINS_MAX)
			return err_set(e, -EINVAL, "more than %d domains", VOL_DOMAINS_MAX);
		snprintf(m->domains[m->n_domains++], sizeof(m->domains[0]), "%s", b->domain);
	}
	return 0;
}

/* ---- numbers that fit ---- */

/* "6, 12 or 18": the multiples of unit on both sides of n. */
static void multiples(char *out, size_t size, uint32_t unit, uint32_t n)
{
	uint32_t below = n / unit * unit, a = below > 0 ? below : unit;

	if (a + 2 * unit <= VOL_BRICKS_MAX)
		snprintf(out, size, "%u, %u or %u", a, a + unit, a + 2 * unit);
	else
		snprintf(out, size, "%u", a);
}

static int check_count(uint32_t replica, uint32_t stripe, uint32_t n, bool without_copies, struct err *e)
{
	uint32_t unit = replica * stripe;
	char fit[60];

	if (replica < 1 || replica > VOL_REPLICA_MAX)
		return err_set(e, -EINVAL, "replica %u is not 1..%d", replica, VOL_REPLICA_MAX);
	if (stripe < 1 || stripe > VOL_STRIPE_MAX)
		return err_set(e, -EINVAL, "stripe %u is not 1..%d", stripe, VOL_STRIPE_MAX);
	if (n == 0 || n > VOL_BRICKS_MAX)
		return err_set(e, -EINVAL, "%u bricks: a volume has 1..%d", n, VOL_BRICKS_MAX);
	if (n % unit != 0) {
		multiples(fit, sizeof(fit), unit, n);
		if (stripe == 1)
			return err_set(e, -EINVAL,
				       "%u brick%s not fit replica %u: %u make a replicated volume; %s fit "
				       "(multiples of %u)",
				       n, n == 1 ? " does" : "s do", replica, replica, fit, unit);
		return err_set(e, -EINVAL,
			       "%u brick%s not fit stripe %u x replica %u: %s fit (multiples of %u); %u "
			       "without stripe make a replicated volume",
			       n, n == 1 ? " does" : "s do", stripe, replica, fit, unit, replica);
	}
	if (replica == 1 && !without_copies)
		return err_set(e, -EINVAL,
			       "%u brick%s without copies: losing any one loses data; say how many copies "
			       "(replica 3), or --without-copies",
			       n, n == 1 ? "" : "s");
	return 0;
}

/* Each set of copies takes one brick a domain, so no domain may have more bricks than there are sets. from: first brick to look at. */
static int check_domains(const struct vol_map *m, uint32_t from, struct err *e)
{
	uint32_t count[VOL_DOMAINS_MAX] = {0}, seen = 0, sets = (m->n_bricks - from) / m->replica;

	if (m->replica == 1)
		return 0;
	for (uint32_t i = from; i < m->n_bricks; i++)
		seen += count[domain_of(m, m->brick[i].domain)]++ == 0;
	if (seen < m->replica)
		return err_set(e, -EINVAL, "replica %u needs bricks in %u different domains, these are in %u",
			       m->replica, m->replica, seen);
	for (uint32_t d = 0; d < m->n_domains; d++)
		if (count[d] > sets)
			return err_set(e, -EINVAL,
				       "domain %s has %u of %u bricks: copies must lie in different domains, "
				       "so with replica %u at most %u of them fit there",
				       m->domains[d], count[d], m->n_bricks - from, m->replica, sets);
	return 0;
}

/* ---- sets ---- */

/* The bricks of one domain from `from` on, in the map's order. */
struct shelf {
	uint16_t brick[VOL_BRICKS_MAX];
	uint32_t n, taken;
};

static bool in_order(const struct vol_map *m, uint32_t from)
{
	for (uint32_t i = from; i < m->n_bricks; i += m->replica)
		for (uint32_t j = 0; j < m->replica; j++)
			for (uint32_t k = 0; k < j; k++)
				if (m->replica > 1 && streq(m->brick[i + j].domain, m->brick[i + k].domain))
					return false;
	return true;
}

static void set_weigh(const struct vol_map *m, struct set *s)
{
	s->weight = UINT32_MAX;
	for (uint32_t j = 0; j < m->replica; j++)
		s->weight = MIN(s->weight, m->brick[s->brick[j]].weight);
}

/* Takes from the fullest domains first: then no domain is ever left with more bricks than sets to come. */
static void fill_set(struct shelf *shelf, uint32_t n_domains, uint32_t replica, uint32_t variant,
		     struct set *s)
{
	uint64_t used = 0;

	for (uint32_t j = 0; j < replica; j++) {
		uint32_t best = VOL_DOMAINS_MAX, left = 0;
		struct shelf *f;

		for (uint32_t d = 0; d < n_domains; d++)
			if (!(used >> d & 1) && shelf[d].n - shelf[d].taken > left) {
				best = d;
				left = shelf[d].n - shelf[d].taken;
			}
		ensure(best < VOL_DOMAINS_MAX); /* check_domains said so */
		f = &shelf[best];
		s->brick[j] = f->brick[(f->taken++ + variant * best) % f->n];
		used |= (uint64_t)1 << best;
	}
}

/* Disjoint sets of the bricks from `from` on. variant 0: as named; 1: each domain's bricks turned by the domain's number. */
static uint32_t make_sets(const struct vol_map *m, uint32_t from, uint32_t variant, struct set *out)
{
	_cleanup_free_ struct shelf *shelf = NULL;
	uint32_t n = (m->n_bricks - from) / m->replica;

	if (variant == 0 && in_order(m, from)) {
		for (uint32_t i = 0; i < n; i++)
			for (uint32_t j = 0; j < m->replica; j++)
				out[i].brick[j] = (uint16_t)(from + i * m->replica + j);
	} else {
		shelf = xcalloc(VOL_DOMAINS_MAX, sizeof(*shelf));
		for (uint32_t i = from; i < m->n_bricks; i++) {
			struct shelf *f = &shelf[domain_of(m, m->brick[i].domain)];

			f->brick[f->n++] = (uint16_t)i;
		}
		for (uint32_t i = 0; i < n; i++)
			fill_set(shelf, m->n_domains, m->replica, variant, &out[i]);
	}
	for (uint32_t i = 0; i < n; i++)
		set_weigh(m, &out[i]);
	return n;
}

static uint64_t score(const struct vol_map *m, uint32_t group, const struct set *s)
{
	uint64_t h = mix(group + 1);

	for (uint32_t j = 0; j < m->replica; j++)
		h = mix(h ^ hash_fnv64(m->brick[s->brick[j]].name, strlen(m->brick[s->brick[j]].name)));
	return h;
}

/* Shares `groups` among the sets by weight, largest remainder first. */
static void share(struct set *s, uint32_t n, uint32_t groups)
{
	uint64_t total = 0, rest[SETS_MAX];
	uint32_t given = 0;

	for (uint32_t i = 0; i < n; i++)
		total += s[i].weight;
	for (uint32_t i = 0; i < n; i++) {
		s[i].quota = (uint32_t)((uint64_t)groups * s[i].weight / total);
		rest[i] = (uint64_t)groups * s[i].weight % total;
		given += s[i].quota;
	}
	for (; given < groups; given++) {
		uint32_t best = 0;

		for (uint32_t i = 1; i < n; i++)
			if (rest[i] > rest[best])
				best = i;
		s[best].quota++;
		rest[best] = 0;
	}
}

/* Members of a group on set s, turned so that `lead` comes first. */
static void seat(const struct vol_map *m, const struct set *s, uint32_t lead, uint16_t out[VOL_REPLICA_MAX])
{
	for (uint32_t j = 0; j < m->replica; j++)
		out[j] = s->brick[(lead + j) % m->replica];
}

static int lay_out(struct vol_map *m, struct err *e)
{
	_cleanup_free_ struct set *s = xcalloc(SETS_MAX, sizeof(*s));
	uint32_t n = make_sets(m, 0, 0, s), disjoint = n;

	if (m->n_groups < disjoint)
		return err_set(e, -EINVAL, "%u groups for %u sets of bricks: some bricks would hold nothing",
			       m->n_groups, n);
	if (m->replica > 1 && n >= 3 && m->n_groups >= 2 * n)
		n += make_sets(m, 0, 1, s + n);
	share(s, n, m->n_groups);
	for (uint32_t g = 0; g < m->n_groups; g++) {
		uint64_t best_score = 0;
		uint32_t best = SETS_MAX;

		for (uint32_t i = 0; i < n; i++) {
			uint64_t w = score(m, g, &s[i]);

			if (s[i].load < s[i].quota && (best == SETS_MAX || w > best_score)) {
				best = i;
				best_score = w;
			}
		}
		ensure(best < SETS_MAX); /* the quotas add up to the groups */
		seat(m, &s[best], best + s[best].load++, m->group[g].brick);
		memcpy(m->group[g].origin, m->group[g].brick, sizeof(m->group[g].origin));
	}
	return 0;
}

/* ---- make and expand ---- */

static struct vol_map *map_new(uint32_t n_bricks, uint32_t n_groups)
{
	struct vol_map *m = xcalloc(1, sizeof(*m));

	m->n_bricks = n_bricks;
	m->n_groups = n_groups;
	m->brick = xcalloc(MAX(1u, n_bricks), sizeof(*m->brick));
	m->group = xcalloc(MAX(1u, n_groups), sizeof(*m->group));
	m->serial = next_serial();
	return m;
}

static uint32_t groups_default(uint32_t n_bricks, uint32_t replica)
{
	uint32_t want = n_bricks <= 6 ? 16 : 64;

	while (want < 4 * n_bricks / replica && want < VOL_GROUPS_MAX)
		want *= 2;
	return want;
}

int vol_map_make(const char *name, const struct vol_id *uuid, uint32_t replica, uint32_t stripe,
		 const struct vol_brick *bricks, uint32_t n, uint32_t groups, bool without_copies,
		 struct vol_map **ret, struct err *e)
{
	_cleanup_(map_free_p) struct vol_map *m = NULL;
	int err;

	if (!vol_name_valid(name))
		return err_set(e, -EINVAL,
			       "'%.80s' is no volume name: 1..%d of a-z, 0-9 and '-', not at its ends",
			       name ? name : "", VOL_NAME_MAX);
	err = check_count(replica, stripe, n, without_copies, e);
	if (err < 0)
		return err;
	if (groups == 0)
		groups = groups_default(n, replica);
	if (groups > VOL_GROUPS_MAX || (groups & (groups - 1)) != 0 || groups < stripe)
		return err_set(e, -EINVAL, "%u groups: a power of two of 1..%d, not less than stripe %u",
			       groups, VOL_GROUPS_MAX, stripe);
	m = map_new(n, groups);
	snprintf(m->name, sizeof(m->name), "%s", name);
	m->uuid = *uuid;
	m->generation = 1;
	m->replica = replica;
	m->stripe = stripe;
	m->stripe_size = VOL_STRIPE_SIZE;
	m->write_quorum = MIN(2u, replica);
	memcpy(m->brick, bricks, n * sizeof(*bricks));
	err = check_bricks(m, e);
	if (err == 0)
		err = check_domains(m, 0, e);
	if (err == 0)
		err = lay_out(m, e);
	if (err < 0)
		return err;
	*ret = take_ptr(m);
	return 0;
}

static bool same_set(const struct vol_map *m, const struct set *s, const uint16_t *brick)
{
	for (uint32_t j = 0; j < m->replica; j++) {
		bool found = false;

		for (uint32_t k = 0; k < m->replica; k++)
			found = found || s->brick[j] == brick[k];
		if (!found)
			return false;
	}
	return true;
}

/* The sets that groups are on now, with their loads; group_set[g] = index. */
static uint32_t present_sets(const struct vol_map *m, struct set *s, uint32_t *group_set)
{
	uint32_t n = 0;

	for (uint32_t g = 0; g < m->n_groups; g++) {
		uint32_t i = 0;

		while (i < n && !same_set(m, &s[i], m->group[g].brick))
			i++;
		if (i == SETS_MAX)
			i = SETS_MAX - 1; /* only a map made elsewhere has so many; its sets are then one */
		if (i == n) {
			memcpy(s[i].brick, m->group[g].brick, sizeof(s[i].brick));
			set_weigh(m, &s[i]);
			n++;
		}
		s[i].load++;
		group_set[g] = i;
	}
	return n;
}

/* Who of the set leads: a brick in the domain where the group was led from, as far as there is one. */
static uint32_t lead_of(const struct vol_map *m, const struct set *s, uint32_t group, uint32_t otherwise)
{
	for (uint32_t j = 0; j < m->replica; j++)
		if (streq(m->brick[s->brick[j]].domain, m->brick[m->group[group].origin[0]].domain))
			return j;
	return otherwise;
}

/* New sets take groups from those that have more than their share, heaviest by rendezvous first. */
static void move_groups(struct vol_map *m, uint32_t from)
{
	_cleanup_free_ struct set *s = xcalloc(3 * SETS_MAX, sizeof(*s));
	_cleanup_free_ uint32_t *group_set = xcalloc(m->n_groups, sizeof(*group_set));
	uint32_t old = present_sets(m, s, group_set), n;

	n = old + make_sets(m, from, 0, s + old);
	if (m->replica > 1 && n - old >= 3 && n + (n - old) <= SETS_MAX && m->n_groups >= 2 * n)
		n += make_sets(m, from, 1, s + n);
	if (n > SETS_MAX)
		return; /* no more sets can be kept apart: the new bricks wait for the next volume */
	share(s, n, m->n_groups);
	for (uint32_t i = old; i < n; i++)
		while (s[i].load < s[i].quota) {
			uint64_t best_score = 0;
			uint32_t best = UINT32_MAX;

			for (uint32_t g = 0; g < m->n_groups; g++) {
				uint64_t w = score(m, g, &s[i]);

				if (group_set[g] < old && s[group_set[g]].load > s[group_set[g]].quota &&
				    (best == UINT32_MAX || w > best_score)) {
					best = g;
					best_score = w;
				}
			}
			if (best == UINT32_MAX)
				break;
			s[group_set[best]].load--;
			group_set[best] = i;
			seat(m, &s[i], lead_of(m, &s[i], best, s[i].load), m->group[best].brick);
			s[i].load++;
		}
}

/* The same map with n more bricks behind the others. */
static struct vol_map *map_wider(const struct vol_map *m, const struct vol_brick *more, uint32_t n)
{
	struct vol_map *next = map_new(m->n_bricks + n, m->n_groups);

	memcpy(next->name, m->name, sizeof(next->name));
	next->uuid = m->uuid;
	next->generation = m->generation + 1;
	next->started = m->started;
	next->replica = m->replica;
	next->stripe = m->stripe;
	next->stripe_size = m->stripe_size;
	next->write_quorum = m->write_quorum;
	memcpy(next->brick, m->brick, m->n_bricks * sizeof(*m->brick));
	memcpy(next->brick + m->n_bricks, more, n * sizeof(*more));
	memcpy(next->group, m->group, m->n_groups * sizeof(*m->group));
	return next;
}

int vol_map_expand(const struct vol_map *m, const struct vol_brick *more, uint32_t n, struct vol_map **ret,
		   struct err *e)
{
	_cleanup_(map_free_p) struct vol_map *next = NULL;
	uint32_t unit = m->replica * m->stripe;
	char fit[60];
	int err;

	if (n == 0 || n % unit != 0) {
		multiples(fit, sizeof(fit), unit, n);
		return err_set(e, -EINVAL, "%u brick%s not fit stripe %u x replica %u: add %s", n,
			       n == 1 ? " does" : "s do", m->stripe, m->replica, fit);
	}
	if (m->n_bricks + n > VOL_BRICKS_MAX)
		return err_set(e, -EINVAL, "%u + %u bricks: a volume has at most %d", m->n_bricks, n,
			       VOL_BRICKS_MAX);
	if ((vol_bricks_active(m) + n) / m->replica > m->n_groups)
		return err_set(
			e, -EINVAL,
			"%u groups cannot be shared among %u bricks: make a new volume with more groups",
			m->n_groups, vol_bricks_active(m) + n);
	next = map_wider(m, more, n);
	err = check_bricks(next, e);
	if (err == 0)
		err = check_domains(next, m->n_bricks, e);
	if (err < 0)
		return err;
	move_groups(next, m->n_bricks);
	*ret = take_ptr(next);
	return 0;
}

/* ---- replace ---- */

/* A group in which the new brick would share its domain with another member. */
static int replace_fits(const struct vol_map *m, uint32_t old, const struct vol_brick *brick, struct err *e)
{
	for (uint32_t g = 0; g < m->n_groups; g++)
		for (uint32_t j = 0; vol_group_member(m, g, old) >= 0 && j < m->replica; j++) {
			const struct vol_brick *other = &m->brick[m->group[g].brick[j]];

			if (m->group[g].brick[j] != old && streq(other->domain, brick->domain))
				return err_set(
					e, -EINVAL,
					"brick %s is in domain %s, where %s has a copy of the same data: "
					"name a brick in domain %s",
					brick->name, brick->domain, other->name, m->brick[old].domain);
		}
	return 0;
}

int vol_map_replace(const struct vol_map *m, const char *old, const struct vol_brick *brick,
		    struct vol_map **ret, struct err *e)
{
	_cleanup_(map_free_p) struct vol_map *next = NULL;
	int from = vol_brick_find(m, old), err;

	if (from < 0 || m->brick[from].retired)
		return err_set(e, -ENOENT, "volume %s has no brick on node %s", m->name, old);
	if (m->n_bricks == VOL_BRICKS_MAX)
		return err_set(e, -EINVAL, "a volume has at most %d bricks, replaced ones counted",
			       VOL_BRICKS_MAX);
	if (vol_brick_find(m, brick->name) >= 0)
		return err_set(
			e, -EEXIST,
			"node %s has, or had, a brick of volume %s: name another node (a new disk under the "
			"same name needs no command, it is filled)",
			brick->name, m->name);
	if ((err = replace_fits(m, (uint32_t)from, brick, e)) < 0)
		return err;
	next = map_wider(m, brick, 1);
	if ((err = check_bricks(next, e)) < 0)
		return err;
	next->brick[from].retired = true;
	next->brick[m->n_bricks].weight = m->brick[from].weight;
	for (uint32_t g = 0; g < m->n_groups; g++)
		for (uint32_t j = 0; j < m->replica; j++)
			if (next->group[g].brick[j] == from)
				next->group[g].brick[j] = (uint16_t)m->n_bricks;
	*ret = take_ptr(next);
	return 0;
}

/* ---- JSON ---- */

static json_t *members_json(const struct vol_map *m, const uint16_t *brick)
{
	json_t *a = json_array();

	for (uint32_t j = 0; j < m->replica; j++)
		json_array_append_new(a, json_integer(brick[j]));
	return a;
}

json_t *vol_map_to_json(const struct vol_map *m)
{
	json_t *bricks = json_array(), *groups = json_array(), *origins = json_array();
	char uuid[33];

	vol_id_text(&m->uuid, uuid);
	for (uint32_t i = 0; i < m->n_bricks; i++) {
		const struct vol_brick *b = &m->brick[i];

		json_array_append_new(bricks, json_pack("{s:s,s:s,s:s,s:s,s:i}", "name", b->name, "domain",
							b->domain, "address", b->address, "path", b->path,
							"weight", (int)b->weight));
		if (b->retired)
			json_object_set_new(json_array_get(bricks, i), "retired", json_true());
	}
	for (uint32_t g = 0; g < m->n_groups; g++) {
		json_array_append_new(groups, members_json(m, m->group[g].brick));
		json_array_append_new(origins, members_json(m, m->group[g].origin));
	}
	return json_pack("{s:s,s:s,s:I,s:b,s:i,s:i,s:i,s:i,s:o,s:o,s:o}", "name", m->name, "uuid", uuid,
			 "generation", (json_int_t)m->generation, "started", (int)m->started, "replica",
			 (int)m->replica, "stripe", (int)m->stripe, "stripe_size", (int)m->stripe_size,
			 "write_quorum", (int)m->write_quorum, "bricks", bricks, "groups", groups, "origins",
			 origins);
}

/* A number of lo..hi. */
static int number(const json_t *o, const char *name, uint64_t lo, uint64_t hi, uint64_t *ret, struct err *e)
{
	const json_t *v = json_object_get(o, name);
	json_int_t i = json_integer_value(v);

	if (!json_is_integer(v) || i < 0 || (uint64_t)i < lo || (uint64_t)i > hi)
		return err_set(e, -EINVAL, "volume map: %s is not a number of %llu..%llu", name,
			       (unsigned long long)lo, (unsigned long long)hi);
	*ret = (uint64_t)i;
	return 0;
}

static int number32(const json_t *o, const char *name, uint32_t lo, uint32_t hi, uint32_t *ret, struct err *e)
{
	uint64_t v = 0;
	int err = number(o, name, lo, hi, &v, e);

	*ret = (uint32_t)v;
	return err;
}

static int text(const json_t *o, const char *name, char *out, size_t size, struct err *e)
{
	const json_t *v = json_object_get(o, name);

	if (!json_is_string(v) || json_string_length(v) == 0 || json_string_length(v) >= size ||
	    strlen(json_string_value(v)) != json_string_length(v))
		return err_set(e, -EINVAL, "volume map: %s is not a text of 1..%zu bytes", name, size - 1);
	snprintf(out, size, "%s", json_string_value(v));
	return 0;
}

static int read_bricks(struct vol_map *m, const json_t *bricks, struct err *e)
{
	int err = 0;

	for (uint32_t i = 0; i < m->n_bricks && err == 0; i++) {
		const json_t *o = json_array_get(bricks, i);
		struct vol_brick *b = &m->brick[i];

		if ((err = text(o, "name", b->name, sizeof(b->name), e)) < 0 ||
		    (err = text(o, "domain", b->domain, sizeof(b->domain), e)) < 0 ||
		    (err = text(o, "address", b->address, sizeof(b->address), e)) < 0 ||
		    (err = text(o, "path", b->path, sizeof(b->path), e)) < 0)
			return err;
		err = number32(o, "weight", 1, 10000, &b->weight, e);
		b->retired = json_is_true(json_object_get(o, "retired"));
	}
	return err < 0 ? err : check_bricks(m, e);
}

/* One array of brick indexes, all different, in different domains unless there are no copies. */
static int read_members(const struct vol_map *m, const json_t *a, uint32_t group, uint16_t *out,
			struct err *e)
{
	if (!json_is_array(a) || json_array_size(a) != m->replica)
		return err_set(e, -EINVAL, "volume map: group %u does not have %u members", group,
			       m->replica);
	for (uint32_t j = 0; j < m->replica; j++) {
		const json_t *v = json_array_get(a, j);
		json_int_t i = json_integer_value(v);

		if (!json_is_integer(v) || i < 0 || i >= m->n_bricks)
			return err_set(e, -EINVAL, "volume map: group %u names a brick that is not there",
				       group);
		out[j] = (uint16_t)i;
		for (uint32_t k = 0; k < j; k++)
			if (out[k] == out[j] || streq(m->brick[out[k]].domain, m->brick[out[j]].domain))
				return err_set(e, -EINVAL,
					       "volume map: group %u has two members in domain %s", group,
					       m->brick[out[j]].domain);
	}
	return 0;
}

static int read_groups(struct vol_map *m, const json_t *groups, const json_t *origins, struct err *e)
{
	for (uint32_t g = 0; g < m->n_groups; g++) {
		int err = read_members(m, json_array_get(groups, g), g, m->group[g].brick, e);

		if (err == 0)
			err = read_members(m, json_array_get(origins, g), g, m->group[g].origin, e);
		if (err < 0)
			return err;
	}
	return 0;
}

static int read_numbers(struct vol_map *m, const json_t *o, struct err *e)
{
	int err;

	if ((err = number(o, "generation", 0, INT64_MAX, &m->generation, e)) < 0 ||
	    (err = number32(o, "replica", 1, VOL_REPLICA_MAX, &m->replica, e)) < 0 ||
	    (err = number32(o, "stripe", 1, VOL_STRIPE_MAX, &m->stripe, e)) < 0 ||
	    (err = number32(o, "stripe_size", 1u << 16, 1u << 26, &m->stripe_size, e)) < 0 ||
	    (err = number32(o, "write_quorum", 1, m->replica, &m->write_quorum, e)) < 0)
		return err;
	if ((m->stripe_size & (m->stripe_size - 1)) != 0)
		return err_set(e, -EINVAL, "volume map: stripe_size %u is no power of two", m->stripe_size);
	if (m->stripe > m->n_groups || m->replica > m->n_bricks)
		return err_set(e, -EINVAL, "volume map: stripe or replica is more than there is");
	m->started = json_is_true(json_object_get(o, "started"));
	return 0;
}

int vol_map_from_json(const json_t *o, struct vol_map **ret, struct err *e)
{
	_cleanup_(map_free_p) struct vol_map *m = NULL;
	const json_t *bricks = json_object_get(o, "bricks"), *groups = json_object_get(o, "groups"),
		     *origins = json_object_get(o, "origins");
	size_t n_bricks = json_array_size(bricks), n_groups = json_array_size(groups);
	int err;

	if (n_bricks < 1 || n_bricks > VOL_BRICKS_MAX)
		return err_set(e, -EINVAL, "volume map: 1..%d bricks", VOL_BRICKS_MAX);
	if (n_groups < 1 || n_groups > VOL_GROUPS_MAX || (n_groups & (n_groups - 1)) != 0)
		return err_set(e, -EINVAL, "volume map: a power of two of 1..%d groups", VOL_GROUPS_MAX);
	m = map_new((uint32_t)n_bricks, (uint32_t)n_groups);
	err = text(o, "name", m->name, sizeof(m->name), e);
	if (err < 0)
		return err;
	if (!vol_name_valid(m->name))
		return err_set(e, -EINVAL, "volume map: '%s' is no volume name", m->name);
	if (vol_id_parse(js_str(o, "uuid"), &m->uuid) < 0)
		return err_set(e, -EINVAL, "volume map: uuid is not 32 hexadecimal digits");
	if ((err = read_numbers(m, o, e)) < 0 || (err = read_bricks(m, bricks, e)) < 0)
		return err;
	/* without origins (a map whose groups never moved): where they are */
	err = read_groups(m, groups, origins ? origins : groups, e);
	if (err < 0)
		return err;
	*ret = take_ptr(m);
	return 0;
}

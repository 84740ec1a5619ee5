/* SPDX-License-Identifier: Apache-2.0 */
/* one_name_a_folder: at no moment two names that everybody sees lead to one folder.
 * no_old_generation: data of a write that is older than a truncate is not committed behind it in that group.
 * Both are judged when a record is committed, before it becomes part of the truth. */
#include "sim/files.h"

#define HIDDEN 1

static bool changed_in(const struct record *rec, const uint8_t *key, size_t len)
{
	for (uint32_t i = 0; i < rec->n; i++)
		if ((rec->effect[i].type == EFFECT_DEL || rec->effect[i].type == EFFECT_PUT) &&
		    rec->effect[i].key_len == len && memcmp(rec->effect[i].key, key, len) == 0)
			return true;
	return false;
}

/* Has the inode that e names another visible name, which this record leaves alone? */
static bool other_name(struct sim *s, const struct record *rec, const struct effect *e)
{
	for (uint8_t g = 0; g < s->o.groups; g++) {
		const uint8_t *k = NULL, *v;
		size_t kn, n;

		while (fstate_next(s->truth[g].f, 'E', &k, &kn, &v, &n))
			if (n >= 8 + 28 && !(v[8 + 1] & HIDDEN) && memcmp(v + 8 + 4, e->value + 4, 24) == 0 &&
			    !changed_in(rec, k + 2, kn - 2))
				return true;
	}
	return false;
}

static void names(struct sim *s, uint8_t group, const struct record *rec, const struct effect *e)
{
	static const uint64_t zero;
	uint16_t type;

	if (e->key[0] != 'E' || e->value_len < 28)
		return;
	memcpy(&type, e->value + 2, 2);
	if (!S_ISDIR(type) || (e->value[1] & HIDDEN) || memcmp(e->value + 20, &zero, 8) != 0)
		return;
	if (other_name(s, rec, e) && !s->files->lost)
		violation(s, "one_name_a_folder", "group %u: record %llu gives a folder a second name", group,
			  (unsigned long long)rec->seq);
}

static void generation(struct sim *s, uint8_t group, const struct record *rec, const struct effect *e)
{
	struct replica *r = &s->truth[group].f->r;
	uint32_t gen = 0;

	ensure(replica_slice_gen(r, &e->ino, &gen) == 0);
	if (e->gen < gen)
		violation(s, "no_old_generation",
			  "group %u: record %llu writes with generation %u after a truncate made it %u",
			  group, (unsigned long long)rec->seq, e->gen, gen);
}

void check_record(struct sim *s, uint8_t group, const struct record *rec)
{
	for (uint32_t i = 0; i < rec->n; i++) {
		const struct effect *e = &rec->effect[i];

		if (e->type == EFFECT_PUT && e->key_len > 17)
			names(s, group, rec, e);
		else if (e->type == EFFECT_WRITE)
			generation(s, group, rec, e);
	}
}

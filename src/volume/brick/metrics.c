/* SPDX-License-Identifier: Apache-2.0 */
/* A brick's numbers for Prometheus; names in docs/volume.md. */
#include "volume/brick/internal.h"

static const struct {
	const char *name;
	size_t offset;
} counters[] = {
	{"operations_total", offsetof(struct counters, ops)},
	{"received_bytes_total", offsetof(struct counters, op_bytes_in)},
	{"sent_bytes_total", offsetof(struct counters, op_bytes_out)},
	{"refused_total", offsetof(struct counters, refused)},
	{"pushes_total", offsetof(struct counters, pushes)},
	{"lease_grants_total", offsetof(struct counters, lease_grants)},
	{"lease_refused_total", offsetof(struct counters, lease_refused)},
	{"heal_keys_total", offsetof(struct counters, heal_keys)},
	{"heal_bytes_total", offsetof(struct counters, heal_bytes)},
	{"heals_total", offsetof(struct counters, heal_done)},
	{"heal_source_bytes_total", offsetof(struct counters, fetched_bytes)},
	{"bad_blocks_total", offsetof(struct counters, bad_blocks)},
	{"repaired_total", offsetof(struct counters, repaired)},
	{"scrubbed_stripes_total", offsetof(struct counters, scrubbed)},
	{"views_proposed_total", offsetof(struct counters, views_proposed)},
	{"disconnects_total", offsetof(struct counters, disconnects)},
	{"bad_frames_total", offsetof(struct counters, bad_frames)},
	{"orphans_reaped_total", offsetof(struct counters, orphans_reaped)},
	{"intents_total", offsetof(struct counters, intents_driven)},
	{"early_total", offsetof(struct counters, early)},
	{"recalls_total", offsetof(struct counters, recalls)},
};

static void latency(struct buf *out, const char *name, const struct hist *h)
{
	static const double quantiles[] = {0.5, 0.9, 0.99};

	buf_addf(out, "# TYPE kuayu_volume_%s_seconds summary\n", name);
	for (size_t i = 0; i < ARRAY_SIZE(quantiles); i++)
		buf_addf(out, "kuayu_volume_%s_seconds{quantile=\"%g\"} %.6f\n", name, quantiles[i],
			 (double)hist_quantile(h, quantiles[i]) / 1e6);
	buf_addf(out, "kuayu_volume_%s_seconds_sum %.6f\nkuayu_volume_%s_seconds_count %llu\n", name,
		 (double)h->sum_us / 1e6, name, (unsigned long long)h->count);
}

/* What a volume's groups come to on this brick. */
struct sums {
	uint64_t groups, primary, in_sync, copies_missing, heal_left, heal_done, delegations;
};

static void add_group(struct sums *s, const struct grp *g)
{
	_cleanup_json_ json_t *heal = json_object();
	struct repl_view view;

	repl_get_view(g->repl, &view);
	s->groups++;
	s->primary += repl_role(g->repl) == REPL_PRIMARY;
	s->in_sync += repl_role(g->repl) == REPL_PRIMARY || repl_role(g->repl) == REPL_BACKUP;
	if (repl_role(g->repl) == REPL_PRIMARY)
		s->copies_missing +=
			(uint64_t)MAX((int)g->v->doc.map->replica - (int)repl_copies(&view, view.isr), 0);
	s->delegations += delegations_count(g);
	heal_status(g, heal);
	s->heal_left += (uint64_t)js_int(heal, "bytes_left", 0);
	s->heal_done += (uint64_t)js_int(heal, "bytes_done", 0);
}

static void gauge(struct buf *out, const char *name, const struct vol *v, uint64_t value)
{
	buf_addf(out, "# TYPE kuayu_volume_%s gauge\nkuayu_volume_%s{volume=\"%s\"} %llu\n", name, name,
		 v->name, (unsigned long long)value);
}

static void volume(struct buf *out, const struct vol *v)
{
	struct sums s = {0};
	struct bstore_stats st;

	gauge(out, "up", v, v->open && !v->error);
	if (!v->open)
		return;
	for (uint32_t i = 0; i < v->doc.map->n_groups; i++)
		if (v->grp[i])
			add_group(&s, v->grp[i]);
	bstore_get_stats(v->store, &st);
	gauge(out, "groups", v, s.groups);
	gauge(out, "groups_primary", v, s.primary);
	gauge(out, "groups_in_sync", v, s.in_sync);
	gauge(out, "copies_missing", v, s.copies_missing);
	gauge(out, "heal_bytes_left", v, s.heal_left);
	gauge(out, "heal_bytes_done", v, s.heal_done);
	gauge(out, "sessions", v, v->n_sessions);
	gauge(out, "leases", v, v->leases.n);
	gauge(out, "delegations", v, s.delegations);
	gauge(out, "bytes", v, st.bytes_total);
	gauge(out, "bytes_free", v, st.bytes_free);
	gauge(out, "log_bytes", v, st.log_bytes);
}

void metrics_text(struct brick *b, struct buf *out)
{
	for (size_t i = 0; i < ARRAY_SIZE(counters); i++)
		buf_addf(out, "# TYPE kuayu_volume_%s counter\nkuayu_volume_%s %llu\n", counters[i].name,
			 counters[i].name,
			 (unsigned long long)*(const uint64_t *)((const char *)&b->n + counters[i].offset));
	buf_addf(out, "# TYPE kuayu_volume_waiting_operations gauge\nkuayu_volume_waiting_operations %u\n",
		 b->waiting);
	latency(out, "operation", &b->latency);
	latency(out, "sync", &b->sync_latency);
	for (const struct vol *v = b->vols; v; v = v->next)
		volume(out, v);
}

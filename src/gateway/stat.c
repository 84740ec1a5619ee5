/* SPDX-License-Identifier: Apache-2.0 */
/* What HAProxy tells about itself at its socket: `show env`, `show info`, `show servers state` (blank-separated, names in a line
 * that starts with '#') and `show stat` (CSV, likewise). Columns are found by name. Bound: 20,000 servers. */
#include "gateway/internal.h"

#define COLUMNS_MAX 160
#define SERVERS_MAX 20000

/* srv_admin_state bits, HAProxy's enum srv_admin */
#define ADMIN_MAINT 0x01
#define ADMIN_DRAIN 0x08

struct table {
	char *names[COLUMNS_MAX];
	size_t n;
	const char *separator;
};

static size_t split(char *line, const char *separator, char *ret[COLUMNS_MAX])
{
	size_t n = 0;
	char *rest = line, *word;

	while (n < COLUMNS_MAX && (word = strsep(&rest, separator)))
		ret[n++] = word;
	return n;
}

static const char *column(const struct table *t, char *const *row, size_t n, const char *name)
{
	for (size_t i = 0; i < t->n && i < n; i++)
		if (streq(t->names[i], name))
			return row[i];
	return "";
}

static int64_t number(const struct table *t, char *const *row, size_t n, const char *name)
{
	int64_t v;

	return str_i64(column(t, row, n, name), &v) < 0 ? 0 : v;
}

static struct server_stat *find(struct proxy_state *p, const char *backend, const char *server)
{
	for (size_t i = 0; i < p->n; i++)
		if (streq(p->v[i].o.name, server) && streq(p->v[i].backend, backend))
			return &p->v[i];
	return NULL;
}

static void take_state(struct proxy_state *p, const struct table *t, char **row, size_t n)
{
	int64_t admin = number(t, row, n, "srv_admin_state");
	struct server_stat *s;

	if (p->n == SERVERS_MAX || n < 8)
		return;
	p->v = xrealloc(p->v, (p->n + 1) * sizeof(p->v[0]));
	s = &p->v[p->n++];
	*s = (struct server_stat){.backend = xstrdup(column(t, row, n, "be_name"))};
	snprintf(s->o.name, sizeof(s->o.name), "%s", column(t, row, n, "srv_name"));
	s->o.health = number(t, row, n, "srv_op_state") == 0 ? ROUTE_DOWN : ROUTE_UP;
	s->o.admin = admin & ADMIN_MAINT ? ROUTE_MAINT : admin & ADMIN_DRAIN ? ROUTE_DRAIN : ROUTE_READY;
	s->o.weight = (int)number(t, row, n, "srv_uweight");
}

static void take_stat(struct proxy_state *p, const struct table *t, char **row, size_t n)
{
	const char *proxy = column(t, row, n, "pxname"), *server = column(t, row, n, "svname");
	struct server_stat *s = find(p, proxy, server);

	if (streq(server, "FRONTEND"))
		p->frontends = strv_add(p->frontends, proxy);
	if (!s)
		return;
	s->o.sessions = number(t, row, n, "scur");
	s->o.backup = number(t, row, n, "bck") > 0;
	s->total = number(t, row, n, "stot");
	s->bytes_in = number(t, row, n, "bin");
	s->bytes_out = number(t, row, n, "bout");
	s->errors = number(t, row, n, "econ") + number(t, row, n, "eresp");
	s->retries = number(t, row, n, "wretr");
	s->redispatches = number(t, row, n, "wredis");
	s->answers_5xx = number(t, row, n, "hrsp_5xx");
}

/* Lines of one table follow its '#' line until a blank one. */
static void take_line(struct proxy_state *p, struct table *t, char *line)
{
	char *row[COLUMNS_MAX];
	size_t n;

	if (*line == '#') {
		t->separator = strchr(line, ',') ? "," : " ";
		t->n = split(line + (line[1] == ' ' ? 2 : 1), t->separator, t->names);
	} else if (!*line) {
		t->separator = NULL;
	} else if (str_starts(line, "KUAYU_CONFIG=")) {
		snprintf(p->config, sizeof(p->config), "%s", line + strlen("KUAYU_CONFIG="));
	} else if (str_starts(line, "Pid: ")) {
		if (str_i64(line + strlen("Pid: "), &p->pid) < 0)
			p->pid = 0;
	} else if (t->separator) {
		n = split(line, t->separator, row);
		if (*t->separator == ',')
			take_stat(p, t, row, n);
		else
			take_state(p, t, row, n);
	}
}

int proxy_state_parse(const char *text, struct proxy_state *ret, struct err *e)
{
	_cleanup_free_ char *copy = xstrdup(text);
	const char *from = strstr(text, "1\n# be_id"), *to = from ? strstr(from, "\n\n") : NULL;
	struct proxy_state p = {.frontends = xcalloc(1, sizeof(char *))};
	struct table t = {0};
	char *rest = copy, *line;

	while ((line = strsep(&rest, "\n")))
		take_line(&p, &t, line);
	if (p.pid <= 0 || !to) {
		proxy_state_done(&p);
		return err_set(e, -EBADMSG, "the proxy's answer is not understood: %.80s", text);
	}
	p.saved = xstrndup(from, (size_t)(to - from) + 1);
	*ret = p;
	return 0;
}

void proxy_state_done(struct proxy_state *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->v[i].backend);
	free(p->v);
	strv_free(p->frontends);
	free(p->saved);
	*p = (struct proxy_state){0};
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Shift reports: what each line did in each period (a minute), counted from the state reports that were committed, one file a server:
 *
 *   DIR/DOMAIN/LINE/20261123T041500Z.SERVER.json   {"domain", "line", "server", "from", "to", "reports", "produced",
 *                                                                 "states": {...}}
 *
 * DOMAIN is the server's --site, LINE the machines' site, SERVER the host name, so no two servers write one file. A file is written
 * under another name, synced and renamed: who sees it sees all of it, on stable storage. DIR is a folder that all servers share
 * (a PersistentVolumeClaim): any of them answers for all domains.
 *
 * A thread of its own writes, and worker threads read: the folder may be slow or away for a while, and the MES goes on. What cannot be
 * written waits, PERIODS_MAX at most; the oldest goes first then, and the log says so. Counts of the period that a killed server had begun
 * are lost with it; the reports themselves are in the database. */
#include "mes.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#define LINES_MAX   256
#define STATES_MAX  16
#define PERIODS_MAX 1000
#define RETRY_MS    1000
#define LIST_MAX    5000
#define LIST_FIRST  100
#define FILE_MAX    ((size_t)1 << 20)
#define STAMP_MAX   32

struct line {
	char name[MES_NAME_MAX + 1];
	uint64_t reports, produced;
	size_t n_states;
	struct {
		char name[MES_NAME_MAX + 1];
		uint64_t n;
	} states[STATES_MAX];
};

struct period {
	struct period *next;
	int64_t from_ms;
	char *path, *text; /* below DIR */
};

struct shift {
	struct mes *m;
	char *dir, server[65];
	int64_t length_ms, from_ms;
	struct line lines[LINES_MAX];
	size_t n;
	struct timer *timer;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct period *first, **last; /* under the lock */
	size_t waiting;
	uint64_t written, dropped;
};

/* ---- counting: loop thread ---- */

static struct line *line_of(struct shift *s, const char *name)
{
	for (size_t i = 0; i < s->n; i++)
		if (streq(s->lines[i].name, name))
			return &s->lines[i];
	if (s->n == LINES_MAX)
		return NULL;
	s->lines[s->n] = (struct line){0};
	strcpy(s->lines[s->n].name, name);
	return &s->lines[s->n++];
}

void shift_count(struct shift *s, const char *site, const char *state, int64_t produced)
{
	struct line *l = s ? line_of(s, *site && *site != '.' ? site : "none") : NULL; /* a folder's name */
	size_t i = 0;

	if (!l)
		return;
	l->reports++;
	l->produced += (uint64_t)produced;
	while (i < l->n_states && !streq(l->states[i].name, state))
		i++;
	if (i == STATES_MAX)
		return;
	if (i == l->n_states)
		strcpy(l->states[l->n_states++].name, state);
	l->states[i].n++;
}

static char *stamp(char out[STAMP_MAX], int64_t ms)
{
	time_t t = (time_t)(ms / 1000);
	struct tm tm;

	gmtime_r(&t, &tm);
	strftime(out, STAMP_MAX, "%Y%m%dT%H%M%SZ", &tm);
	return out;
}

static struct period *period_new(const struct shift *s, const struct line *l)
{
	struct period *p = xcalloc(1, sizeof(*p));
	char from[CLOCK_TEXT_MAX], to[CLOCK_TEXT_MAX], name[STAMP_MAX];
	_cleanup_json_ json_t *j = NULL;
	json_t *states = json_object();

	for (size_t i = 0; i < l->n_states; i++)
		json_object_set_new(states, l->states[i].name, json_integer((json_int_t)l->states[i].n));
	j = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:o}", "domain", s->m->site, "line", l->name,
		      "server", s->server, "from", clock_text(from, s->from_ms * 1000, 0), "to",
		      clock_text(to, (s->from_ms + s->length_ms) * 1000, 0), "reports",
		      (json_int_t)l->reports, "produced", (json_int_t)l->produced, "states", states);
	p->from_ms = s->from_ms;
	p->path = xasprintf("%s/%s/%s.%s.json", s->m->site, l->name, stamp(name, s->from_ms), s->server);
	p->text = js_text(j);
	return p;
}

static void period_free(struct period *p)
{
	free(p->path);
	free(p->text);
	free(p);
}

static void on_period(void *ctx)
{
	struct shift *s = ctx;
	int64_t now = clock_wall_ms();

	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->n; i++) {
		struct period *p = period_new(s, &s->lines[i]);

		*s->last = p;
		s->last = &p->next;
		s->waiting++;
	}
	while (s->waiting > PERIODS_MAX) {
		struct period *p = s->first;

		s->first = p->next;
		s->waiting--;
		s->dropped++;
		log_error("shift report %s is given up: %d wait for %s", p->path, PERIODS_MAX, s->dir);
		period_free(p);
	}
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	s->n = 0;
	s->from_ms = now - now % s->length_ms;
	timer_start(s->timer, (uint64_t)(s->from_ms + s->length_ms - now), 0);
}

/* ---- writing: a thread ---- */

static int sync_folder(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int write_period(const struct shift *s, const struct period *p, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/%s", s->dir, p->path), *folder = xstrdup(path);
	int r;

	*strrchr(folder, '/') = 0;
	r = dir_make(folder, 0777, e);
	if (r == 0)
		r = file_write_atomic(path, p->text, strlen(p->text), 0644, e);
	return r < 0 ? r : sync_folder(folder);
}

static void *run_writer(void *arg)
{
	struct shift *s = arg;
	bool complained = false;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		struct period *p = s->first;
		struct err e = {0};
		int r;

		if (!p) {
			pthread_cond_wait(&s->wake, &s->lock);
			continue;
		}
		s->first = p->next;
		if (!s->first)
			s->last = &s->first;
		s->waiting--;
		pthread_mutex_unlock(&s->lock);
		r = write_period(s, p, &e);
		if (r < 0 && !complained)
			log_error("shift reports wait: %s", e.text);
		if (r == 0 && complained)
			log_info("shift reports are written again");
		complained = r < 0;
		if (r < 0)
			usleep(RETRY_MS * 1000);
		pthread_mutex_lock(&s->lock);
		if (r == 0) {
			s->written++;
			period_free(p);
		} else { /* comes first again */
			p->next = s->first;
			s->first = p;
			if (!p->next)
				s->last = &p->next;
			s->waiting++;
		}
	}
	return NULL;
}

int shift_new(struct mes *m, const char *dir, int64_t length_ms, struct shift **ret, struct err *e)
{
	struct shift *s = xcalloc(1, sizeof(*s));
	int64_t now = clock_wall_ms();
	pthread_t t;

	s->m = m;
	s->dir = xstrdup(dir);
	s->length_ms = length_ms;
	s->from_ms = now - now % length_ms;
	gethostname(s->server, sizeof(s->server) - 1);
	s->last = &s->first;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->wake, NULL);
	if (!mes_name_ok(m->site) || pthread_create(&t, NULL, run_writer, s) != 0)
		return err_set(e, -EINVAL, "--site=%s is no name of a folder", m->site);
	pthread_detach(t);
	s->timer = timer_new(m->loop, on_period, s);
	timer_start(s->timer, (uint64_t)(s->from_ms + length_ms - now), 0);
	*ret = s;
	return 0;
}

void shift_metrics(struct shift *s, struct buf *out)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	buf_addf(out,
		 "# TYPE mes_shift_reports_total counter\nmes_shift_reports_total{result=\"written\"} %llu\n"
		 "mes_shift_reports_total{result=\"dropped\"} %llu\n# TYPE mes_shift_reports_waiting "
		 "gauge\nmes_shift_reports_waiting %zu\n",
		 (unsigned long long)s->written, (unsigned long long)s->dropped, s->waiting);
	pthread_mutex_unlock(&s->lock);
}

/* ---- reading: worker threads ---- */

struct look {
	uv_work_t work;
	struct http_req *req;
	char *dir, *domain, *line, *name; /* NULL = all; name: one file's content */
	size_t limit;
	char **found; /* "DOMAIN/LINE/NAME", any order; NULL-terminated */
	size_t n, cap;
};

static void add(struct look *l, const char *domain, const char *line, const char *name)
{
	if (l->n + 1 >= l->cap) {
		l->cap = l->cap ? 2 * l->cap : 256;
		l->found = xrealloc(l->found, l->cap * sizeof(*l->found));
	}
	l->found[l->n++] = xasprintf("%s/%s/%s", domain, line, name);
	l->found[l->n] = NULL;
}

/* Calls fn for each entry whose name is one of ours; `only` limits it to one. */
static void each(struct look *l, const char *path, const char *only, const char *up1, const char *up2)
{
	DIR *d = opendir(path);
	struct dirent *de;

	while (d && (de = readdir(d)) && l->n < 20 * (size_t)LIST_MAX) {
		_cleanup_free_ char *below = xasprintf("%s/%s", path, de->d_name);

		if (de->d_name[0] == '.' || (only && !streq(only, de->d_name)))
			continue;
		if (up2)
			str_ends(de->d_name, ".json") ? add(l, up1, up2, de->d_name) : (void)0;
		else if (up1)
			each(l, below, NULL, up1, de->d_name);
		else
			each(l, below, l->line, de->d_name, NULL);
	}
	if (d)
		closedir(d);
}

/* Newest first: by the name of the file, which begins with its time. */
static int newest_first(const void *a, const void *b)
{
	const char *x = strrchr(*(char *const *)a, '/'), *y = strrchr(*(char *const *)b, '/');
	int r = strcmp(y, x);

	return r ? r : strcmp(*(char *const *)a, *(char *const *)b);
}

static json_t *entry_new(const struct look *l, const char *path)
{
	_cleanup_free_ char *full = xasprintf("%s/%s", l->dir, path), *text = NULL, *domain = NULL,
			    *line = NULL;
	const char *slash = strchr(path, '/'), *name = strrchr(path, '/') + 1;
	char sum[17];
	size_t len;

	if (file_read(full, FILE_MAX, &text, &len, NULL) < 0)
		return NULL;
	domain = xstrndup(path, (size_t)(slash - path));
	line = xstrndup(slash + 1, (size_t)(name - 1 - slash - 1));
	snprintf(sum, sizeof(sum), "%016llx", (unsigned long long)hash_fnv64(text, len));
	return json_pack("{s:s, s:s, s:s, s:I, s:s}", "domain", domain, "line", line, "name", name, "bytes",
			 (json_int_t)len, "sum", sum);
}

static void answer_list(struct look *l)
{
	_cleanup_json_ json_t *list = json_array(), *out = NULL;
	DIR *d = opendir(l->dir);

	if (!d) {
		http_reply_text(l->req, 503, "the folder of the shift reports is not reachable\n");
		return;
	}
	closedir(d);
	each(l, l->dir, l->domain, NULL, NULL);
	if (l->n)
		qsort(l->found, l->n, sizeof(*l->found), newest_first);
	for (size_t i = 0; i < l->n && json_array_size(list) < l->limit; i++) {
		json_t *one = entry_new(l, l->found[i]);

		if (one)
			json_array_append_new(list, one);
	}
	out = json_pack("{s:I, s:O}", "total", (json_int_t)l->n, "reports", list);
	http_reply_json(l->req, 200, out);
}

static void run_look(uv_work_t *work)
{
	struct look *l = container_of(work, struct look, work);
	_cleanup_free_ char *path = NULL, *text = NULL;
	size_t len;

	if (!l->name) {
		answer_list(l);
		return;
	}
	path = xasprintf("%s/%s/%s/%s", l->dir, l->domain, l->line, l->name);
	if (file_read(path, FILE_MAX, &text, &len, NULL) < 0)
		http_reply_text(l->req, 404, "no such shift report\n");
	else
		http_reply(l->req, 200, "application/json", text, len, NULL);
}

static void on_looked(uv_work_t *work, int status)
{
	struct look *l = container_of(work, struct look, work);

	(void)status;
	for (size_t i = 0; i < l->n; i++)
		free(l->found[i]);
	free(l->found);
	free(l->dir);
	free(l->domain);
	free(l->line);
	free(l->name);
	free(l);
}

static char *word(const char *s)
{
	return s && *s ? xstrdup(s) : NULL;
}

/* "/api/v1/shift-reports/DOMAIN/LINE/NAME"; names are file names and begin with no dot. */
static bool one_file(struct look *l, const char *path)
{
	_cleanup_strv_ char **parts = strv_split(path, '/', true);

	if (strv_len(parts) != 3)
		return false;
	for (int i = 0; i < 3; i++)
		if (!*parts[i] || parts[i][0] == '.' || strlen(parts[i]) > 200)
			return false;
	l->domain = xstrdup(parts[0]);
	l->line = xstrdup(parts[1]);
	l->name = xstrdup(parts[2]);
	return true;
}

void shift_get(struct mes *m, struct http_req *req, const char *rest)
{
	const char *limit = http_req_query(req, "limit"), *domain = http_req_query(req, "domain"),
		   *line = http_req_query(req, "line");
	struct look *l;
	int64_t n = LIST_FIRST;

	if (!m->shift) {
		http_reply_text(req, 404, "this server keeps no shift reports (--shift-reports)\n");
		return;
	}
	if (limit && (str_i64(limit, &n) < 0 || n < 1 || n > LIST_MAX)) {
		http_reply_text(req, 400, "limit must be 1 to 5000\n");
		return;
	}
	l = xcalloc(1, sizeof(*l));
	l->req = req;
	l->dir = xstrdup(m->shift->dir);
	l->limit = (size_t)n;
	if (*rest && !one_file(l, rest + 1)) {
		http_reply_text(req, 404, "no such shift report\n");
		on_looked(&l->work, 0);
		return;
	}
	if (!*rest) {
		l->domain = word(domain);
		l->line = word(line);
	}
	if (uv_queue_work(m->loop, &l->work, run_look, on_looked) < 0) {
		http_reply_text(req, 503, "no worker thread\n");
		on_looked(&l->work, 0);
	}
}

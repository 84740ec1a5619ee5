/* SPDX-License-Identifier: Apache-2.0 */
/* Sandbox pool.
 *
 * A sandbox is made by three child processes: `unshare --net=F --uts=F --ipc=F` (bind-mounts the namespaces on files of its folder), `ip`
 * here (a veth pair, one end in the bridge, the other as eth0 inside) and `ip` inside (address, routes). Pods get a /32 with a route
 * to the bridge's address, so that all traffic, also between pods of one node, passes the node's IP stack, where service addresses are
 * translated both ways. The MAC is made of the IP, so a reused address never meets a stale neighbour entry.
 *
 * Namespaces live in the mount namespace the agent runs in: they outlive the agent and end with the domain. Loop thread only. */
#include "node/sandbox.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "node/small.h"

#define NSFS_MAGIC_NUMBER 0x6e736673
#define ADDRESSES_MAX	  65536
#define RETRY_MS	  1000
#define MAC_FORMAT	  "0a:58:%02x:%02x:%02x:%02x"
#define MAC_OF(ip)	  (ip) >> 24, (ip) >> 16 & 255, (ip) >> 8 & 255, (ip)&255
#define BRIDGE_FILTER	  "/proc/sys/net/bridge/bridge-nf-call-iptables"
#define FAILURES_MAX	  5 /* in a row; waiting pods are then told */

struct waiting {
	sandbox_done_fn done;
	void *ctx;
	struct waiting *next;
};

struct sandboxes {
	uv_loop_t *loop;
	char *dir, *bridge, *cidr;
	int want, mtu, n_ready, making, failures;
	uint32_t net;
	int bits;
	uint8_t used[ADDRESSES_MAX]; /* by offset in the network */
	uint32_t next;		     /* addresses are given out round and round */
	struct sandbox *ready[64];
	struct waiting *waiting, **waiting_end;
	struct timer *retry;
	unsigned seq;
};

struct making {
	struct sandboxes *s;
	struct sandbox *sb;
	uint32_t offset;
	char *batch;
};

static void fill(void *ctx);

int cidr_parse(const char *text, uint32_t *ret_net, int *ret_bits)
{
	_cleanup_free_ char *copy = xstrdup(text);
	char *slash = strchr(copy, '/');
	struct in_addr a;
	int64_t bits;

	if (!slash)
		return -EINVAL;
	*slash = 0;
	if (inet_pton(AF_INET, copy, &a) != 1 || str_i64(slash + 1, &bits) < 0 || bits < 8 || bits > 30)
		return -EINVAL;
	*ret_bits = (int)bits;
	*ret_net = ntohl(a.s_addr) & ~(uint32_t)0 << (32 - bits);
	return 0;
}

static char *address_text(uint32_t host_order)
{
	struct in_addr a = {htonl(host_order)};
	char text[INET_ADDRSTRLEN];

	return xstrdup(inet_ntop(AF_INET, &a, text, sizeof(text)));
}

/* Marks of an agent that ended between adopting and starting. */
static void forget_adopted(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *mark = xasprintf("%s/%s/adopted", dir, de->d_name);

		(void)unlink(mark);
	}
	if (d)
		closedir(d);
}

struct sandboxes *sandboxes_new(uv_loop_t *loop, const struct sandboxes_options *o)
{
	struct sandboxes *s = xcalloc(1, sizeof(*s));

	s->loop = loop;
	s->dir = xstrdup(o->dir);
	s->bridge = xstrdup(o->bridge);
	s->want = CLAMP(o->ready ? o->ready : 4, 1, (int)ARRAY_SIZE(s->ready) - 1);
	s->mtu = o->mtu ? o->mtu : 1500;
	s->waiting_end = &s->waiting;
	s->retry = timer_new(loop, fill, s);
	(void)dir_make(s->dir, 0700, NULL);
	forget_adopted(s->dir);
	return s;
}

static struct sandbox *sandbox_new(struct sandboxes *s, const char *name, const char *ip)
{
	struct sandbox *sb = xcalloc(1, sizeof(*sb));

	sb->name = xstrdup(name);
	sb->ip = xstrdup(ip);
	sb->ns_net = xasprintf("%s/%s/net", s->dir, name);
	sb->ns_uts = xasprintf("%s/%s/uts", s->dir, name);
	sb->ns_ipc = xasprintf("%s/%s/ipc", s->dir, name);
	return sb;
}

static void sandbox_free(struct sandbox *sb)
{
	free(sb->name);
	free(sb->ip);
	free(sb->ns_net);
	free(sb->ns_uts);
	free(sb->ns_ipc);
	free(sb);
}

static bool is_namespace(const char *path)
{
	struct statfs fs;

	return statfs(path, &fs) == 0 && fs.f_type == NSFS_MAGIC_NUMBER;
}

/* The sandbox on disk, with its address marked used; NULL when it is not whole. */
static struct sandbox *load(struct sandboxes *s, const char *name)
{
	_cleanup_free_ char *path = xasprintf("%s/%s/ip", s->dir, name), *ip = NULL;
	struct sandbox *sb;
	size_t len;

	if (strchr(name, '/') || file_read(path, INET_ADDRSTRLEN, &ip, &len, NULL) < 0)
		return NULL;
	sb = sandbox_new(s, name, ip);
	if (is_namespace(sb->ns_net) && is_namespace(sb->ns_uts) && is_namespace(sb->ns_ipc))
		return sb;
	sandbox_free(sb);
	return NULL;
}

struct sandbox *sandboxes_adopt(struct sandboxes *s, const char *name)
{
	_cleanup_free_ char *mark = xasprintf("%s/%s/adopted", s->dir, name);
	struct sandbox *sb = load(s, name);

	if (sb)
		(void)small_write(mark, "", 0600);
	return sb;
}

static void mark_used(struct sandboxes *s, const char *ip, bool used)
{
	struct in_addr a;

	if (inet_pton(AF_INET, ip, &a) == 1 && ntohl(a.s_addr) - s->net < ADDRESSES_MAX)
		s->used[ntohl(a.s_addr) - s->net] = used;
}

static void remove_files(struct sandboxes *s, const char *name)
{
	static const char *const kinds[] = {"net", "uts", "ipc"};
	_cleanup_free_ char *dir = xasprintf("%s/%s", s->dir, name);

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		_cleanup_free_ char *path = xasprintf("%s/%s", dir, kinds[i]);

		while (umount2(path, MNT_DETACH) == 0)
			continue;
	}
	(void)dir_remove(dir, NULL);
}

static bool in_network(struct sandboxes *s, const char *ip)
{
	struct in_addr a;

	return inet_pton(AF_INET, ip, &a) == 1 &&
	       (ntohl(a.s_addr) & ~(uint32_t)0 << (32 - s->bits)) == s->net;
}

/* What a former agent left: pods' sandboxes were adopted, the others are prepared ones or halves. */
static void load_leftovers(struct sandboxes *s)
{
	DIR *d = opendir(s->dir);
	struct dirent *de;

	while (d && (de = readdir(d))) {
		_cleanup_free_ char *mark = xasprintf("%s/%s/adopted", s->dir, de->d_name);
		struct sandbox *sb;

		if (de->d_name[0] == '.')
			continue;
		sb = load(s, de->d_name);
		if (access(mark, F_OK) == 0) {
			if (sb) {
				mark_used(s, sb->ip, true);
				sandbox_free(sb);
			}
			(void)unlink(mark);
		} else if (sb && in_network(s, sb->ip) && s->n_ready < s->want) {
			mark_used(s, sb->ip, true);
			s->ready[s->n_ready++] = sb;
		} else {
			if (sb)
				sandbox_free(sb);
			remove_files(s, de->d_name);
		}
	}
	if (d)
		closedir(d);
}

/* ---- bridge ---- */

static void write_sysctl(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		log_warn("%s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

int sandboxes_start(struct sandboxes *s, const char *cidr, struct err *e)
{
	_cleanup_free_ char *gw = NULL, *batch = NULL, *text = NULL, *redirects = NULL;
	const char *argv[] = {"ip", "-force", "-batch", "-", NULL};
	struct proc_options o = {.argv = argv, .timeout_ms = 5000};
	int r;

	if (s->cidr)
		return 0;
	r = cidr_parse(cidr, &s->net, &s->bits);
	if (r < 0)
		return err_set(e, r, "\"%s\" is no pod network", cidr);
	gw = address_text(s->net + 1);
	/* The bridge has an address of its own: else it takes the lowest of its ports', changes it when a pod comes or goes, and pods that
	 * know the old one lose their gateway until their neighbour entry ends. */
	batch = xasprintf("link add %s type bridge\nlink set %s address " MAC_FORMAT
			  "\naddr replace %s/%d dev %s\nlink set %s up mtu %d\n",
			  s->bridge, s->bridge, MAC_OF(s->net + 1), gw, s->bits, s->bridge, s->bridge,
			  s->mtu);
	o.input = batch;
	(void)proc_run_wait(
		&o, NULL,
		&text); /* "File exists" on a restart is fine; what counts is that the bridge is there */
	redirects = xasprintf("/proc/sys/net/ipv4/conf/%s/send_redirects", s->bridge);
	if (access(redirects, F_OK) < 0)
		return err_set(e, -EIO, "cannot make the bridge %s: %.200s", s->bridge, text ? text : "");
	write_sysctl("/proc/sys/net/ipv4/ip_forward", "1");
	write_sysctl("/proc/sys/net/ipv4/conf/all/send_redirects", "0");
	write_sysctl(redirects, "0");
	/* With br_netfilter a frame whose address was translated is bridged on, never back to the port it came from: a pod could not
	 * reach itself through a service. Here all pod traffic is routed, the bridge needs no filter. */
	if (access(BRIDGE_FILTER, F_OK) == 0)
		write_sysctl(BRIDGE_FILTER, "0");
	s->cidr = xstrdup(cidr);
	s->used[0] = s->used[1] = 1;
	s->next = 2;
	load_leftovers(s);
	fill(s);
	return 0;
}

bool sandboxes_started(const struct sandboxes *s)
{
	return s->cidr != NULL;
}

int sandboxes_ready(const struct sandboxes *s)
{
	return s->n_ready;
}

/* ---- making ---- */

static int take_address(struct sandboxes *s, uint32_t *ret_offset)
{
	uint32_t size = MIN((uint32_t)1 << (32 - s->bits), ADDRESSES_MAX);

	for (uint32_t tries = 0; tries < size; tries++) {
		uint32_t at = s->next;

		s->next = s->next + 1 >= size - 1 ? 2 : s->next + 1;
		if (!s->used[at]) {
			s->used[at] = 1;
			*ret_offset = at;
			return 0;
		}
	}
	return -ENOSPC;
}

static void give_out(struct sandboxes *s)
{
	while (s->waiting && s->n_ready > 0) {
		struct waiting *w = s->waiting;
		struct sandbox *sb = s->ready[--s->n_ready];

		s->waiting = w->next;
		if (!s->waiting)
			s->waiting_end = &s->waiting;
		w->done(w->ctx, sb, NULL);
		free(w);
	}
}

static void tell_failure(struct sandboxes *s, const char *text)
{
	struct waiting *w = s->waiting, *next;

	s->waiting = NULL;
	s->waiting_end = &s->waiting;
	for (; w; w = next) {
		next = w->next;
		w->done(w->ctx, NULL, text);
		free(w);
	}
}

static void making_end(struct making *m, const char *why)
{
	struct sandboxes *s = m->s;

	s->making--;
	if (why) {
		log_error("sandbox %s: %s", m->sb->name, why);
		remove_files(s, m->sb->name);
		s->used[m->offset] = 0;
		sandbox_free(m->sb);
		if (++s->failures >= FAILURES_MAX)
			tell_failure(s, why);
		timer_start(s->retry, RETRY_MS, 0);
	} else {
		s->failures = 0;
		s->ready[s->n_ready++] = m->sb;
		give_out(s);
		fill(s);
	}
	free(m->batch);
	free(m);
}

static void on_inside(void *ctx, const struct proc_result *res)
{
	struct making *m = ctx;
	_cleanup_free_ char *path = xasprintf("%s/%s/ip", m->s->dir, m->sb->name);

	if (res->status == 0 && small_write(path, m->sb->ip, 0600) == 0)
		making_end(m, NULL);
	else
		making_end(m, *res->err_text ? res->err_text : "setting up the network inside failed");
}

static void on_outside(void *ctx, const struct proc_result *res)
{
	struct making *m = ctx;
	struct sandboxes *s = m->s;
	_cleanup_free_ char *ns = xasprintf("--net=%s", m->sb->ns_net), *gw = address_text(s->net + 1);
	const char *argv[] = {"nsenter", ns, "ip", "-batch", "-", NULL};
	struct proc_options o = {.argv = argv, .timeout_ms = 5000};

	if (res->status != 0) {
		making_end(m, *res->err_text ? res->err_text : "making the veth pair failed");
		return;
	}
	free(m->batch);
	m->batch = xasprintf("link set lo up\naddr add %s/32 dev eth0\nlink set eth0 up\n"
			     "route add %s dev eth0 scope link\nroute add default via %s dev eth0\n",
			     m->sb->ip, gw, gw);
	o.input = m->batch;
	proc_run(s->loop, &o, on_inside, m);
}

static void on_unshared(void *ctx, const struct proc_result *res)
{
	struct making *m = ctx;
	struct sandboxes *s = m->s;
	const char *argv[] = {"ip", "-batch", "-", NULL};
	struct proc_options o = {.argv = argv, .timeout_ms = 5000};
	uint32_t ip = s->net + m->offset;

	if (res->status != 0) {
		making_end(m, *res->err_text ? res->err_text : "making the namespaces failed");
		return;
	}
	m->batch = xasprintf("link add ky%08x mtu %d type veth peer name eth0 mtu %d address " MAC_FORMAT
			     " netns %s\nlink set ky%08x master %s up\n",
			     ip, s->mtu, s->mtu, MAC_OF(ip), m->sb->ns_net, ip, s->bridge);
	o.input = m->batch;
	proc_run(s->loop, &o, on_outside, m);
}

static int touch(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static void make(struct sandboxes *s, uint32_t offset)
{
	struct making *m = xcalloc(1, sizeof(*m));
	_cleanup_free_ char *ip = address_text(s->net + offset), *name = NULL, *dir = NULL, *net = NULL,
			    *uts = NULL, *ipc = NULL;
	const char *argv[6] = {"unshare"};
	struct proc_options o = {.argv = argv, .timeout_ms = 5000};
	struct proc_result bad = {.status = -EIO, .err_text = "cannot make its files"};

	name = xasprintf("s%d-%u-%u", (int)getpid(), offset, s->seq++);
	dir = xasprintf("%s/%s", s->dir, name);
	m->s = s;
	m->offset = offset;
	m->sb = sandbox_new(s, name, ip);
	s->making++;
	if (dir_make(dir, 0700, NULL) < 0 || touch(m->sb->ns_net) < 0 || touch(m->sb->ns_uts) < 0 ||
	    touch(m->sb->ns_ipc) < 0) {
		on_unshared(m, &bad);
		return;
	}
	net = xasprintf("--net=%s", m->sb->ns_net);
	uts = xasprintf("--uts=%s", m->sb->ns_uts);
	ipc = xasprintf("--ipc=%s", m->sb->ns_ipc);
	argv[1] = net;
	argv[2] = uts;
	argv[3] = ipc;
	argv[4] = "true";
	proc_run(s->loop, &o, on_unshared, m);
}

static void fill(void *ctx)
{
	struct sandboxes *s = ctx;
	int waiting = 0;

	if (!s->cidr)
		return;
	for (struct waiting *w = s->waiting; w; w = w->next)
		waiting++;
	while (s->n_ready + s->making < MIN(s->want + waiting, (int)ARRAY_SIZE(s->ready)) && s->making < 4) {
		uint32_t offset;

		if (take_address(s, &offset) < 0) {
			log_error("the pod network %s has no free address", s->cidr);
			tell_failure(s, "no free address in the node's pod network");
			return;
		}
		make(s, offset);
	}
}

void sandbox_take(struct sandboxes *s, sandbox_done_fn done, void *ctx)
{
	struct waiting *w = xcalloc(1, sizeof(*w));

	w->done = done;
	w->ctx = ctx;
	*s->waiting_end = w;
	s->waiting_end = &w->next;
	give_out(s);
	timer_start(s->retry, s->n_ready ? 200 : 0, 0); /* refill behind the start, not in front of it */
}

void sandbox_cancel(struct sandboxes *s, void *ctx)
{
	for (struct waiting **p = &s->waiting; *p;) {
		struct waiting *w = *p;

		if (w->ctx == ctx) {
			*p = w->next;
			free(w);
		} else {
			p = &w->next;
		}
	}
	s->waiting_end = &s->waiting;
	while (*s->waiting_end)
		s->waiting_end = &(*s->waiting_end)->next;
}

static void on_link_gone(void *ctx, const struct proc_result *res)
{
	(void)ctx, (void)res; /* gone with its namespace already, perhaps */
}

void sandbox_release(struct sandboxes *s, struct sandbox *sb)
{
	_cleanup_free_ char *link = NULL;
	const char *argv[] = {"ip", "link", "del", NULL, NULL};
	struct proc_options o = {.argv = argv, .timeout_ms = 5000};
	struct in_addr a;

	if (!sb)
		return;
	if (inet_pton(AF_INET, sb->ip, &a) == 1) {
		link = xasprintf("ky%08x", ntohl(a.s_addr));
		argv[3] = link;
		proc_run(s->loop, &o, on_link_gone, NULL);
	}
	remove_files(s, sb->name);
	mark_used(s, sb->ip, false);
	sandbox_free(sb);
}

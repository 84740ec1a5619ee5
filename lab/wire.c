/* SPDX-License-Identifier: Apache-2.0 */
/* lab-wire: the network between the lab's machines, in user space, because not every kernel has netem.
 *
 *   lab-wire SOCKET
 *
 * Each machine (network namespace) gets one TAP interface; this process reads the frames of all, switches them by MAC
 * address and hands each over after the delay of the link between the two sites (wire_link.c). Frames travel with their
 * virtio header, so that 64 KiB TCP segments stay whole: fast enough for databases and state transfers.
 *
 * One thread: epoll over the TAPs, one absolute timerfd, the control socket and a pidfd for each machine. Commands are
 * lines of text, answered by one line, `ok`, `ok {json}` or `error text`:
 *   plug PORT SITE PID IFNAME MAC   makes the TAP in the network namespace of PID (0 = the host's)
 *   unplug PORT                     the interface is gone; what was on the way to it is dropped
 *   stats | quit | the link commands of wire_control.c
 * A port whose machine dies is unplugged by itself. Ends on SIGTERM, `quit`, and with its parent. */
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#include <linux/if_arp.h>

#include "base/base.h"
#include "lab/wire_control.h"
#include "lab/wire_link.h"

#define PORTS_MAX	 32
#define CLIENTS_MAX	 16
#define CONTROL_LINE_MAX 512
#define MACS_MAX	 1024 /* power of two */
#define READ_BATCH	 64
#define TAP_HDR		 ((int)sizeof(struct virtio_net_hdr_v1))
#define TAP_FRAME	 (TAP_HDR + 14 + 4 + 65536)
#define TAP_OFFLOADS	 (TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)

enum source { SRC_TIMER, SRC_SIGNAL, SRC_LISTEN, SRC_CLIENT, SRC_PORT, SRC_PID };

struct port {
	char name[WIRE_SITE_NAME_MAX];
	int site, fd, pidfd; /* fd < 0: free slot */
	uint64_t rx, tx, dropped;
};

struct client {
	int fd;
	size_t len;
	char line[CONTROL_LINE_MAX];
};

struct mac_entry {
	uint8_t mac[6];
	int16_t port; /* -1 = empty */
};

static struct wire {
	struct wire_net net;
	struct port port[PORTS_MAX];
	struct client client[CLIENTS_MAX];
	struct mac_entry mac[MACS_MAX];
	int epoll, timer, listen, host_ns;
	uint64_t armed_us, seed;
	bool stop;
} w;

static uint64_t random64(void)
{
	w.seed ^= w.seed << 13; /* xorshift64 */
	w.seed ^= w.seed >> 7;
	w.seed ^= w.seed << 17;
	return w.seed * 0x2545f4914f6cdd1dull;
}

static int watch(int fd, enum source src, int index)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = (uint64_t)src << 32 | (uint32_t)index};

	return epoll_ctl(w.epoll, EPOLL_CTL_ADD, fd, &ev) < 0 ? -errno : 0;
}

/* ---- switch ---- */

static struct mac_entry *mac_slot(const uint8_t mac[6])
{
	uint32_t at = hash_fnv32(mac, 6);

	for (int i = 0; i < 8;
	     i++) { /* bound: a full neighbourhood is overwritten, the frame is flooded then */
		struct mac_entry *m = &w.mac[(at + (uint32_t)i) % MACS_MAX];
		if (m->port < 0 || memcmp(m->mac, mac, 6) == 0)
			return m;
	}
	return &w.mac[at % MACS_MAX];
}

static void learn(const uint8_t mac[6], int port)
{
	struct mac_entry *m = mac_slot(mac);

	if (mac[0] & 1)
		return;
	memcpy(m->mac, mac, 6);
	m->port = (int16_t)port;
}

static int lookup(const uint8_t mac[6])
{
	const struct mac_entry *m = mac_slot(mac);

	if ((mac[0] & 1) || m->port < 0 || memcmp(m->mac, mac, 6) != 0 || w.port[m->port].fd < 0)
		return -1;
	return m->port;
}

static void forward(int from, const uint8_t *data, size_t len, uint64_t now_us)
{
	const uint8_t *dst = data + TAP_HDR;
	struct frame *f;
	int to;

	if (len < (size_t)TAP_HDR + 14 || !(f = frame_new(data, len)))
		return;
	learn(dst + 6, from);
	to = lookup(dst);
	for (int i = to >= 0 ? to : 0; i < (to >= 0 ? to + 1 : PORTS_MAX); i++)
		if (i != from && w.port[i].fd >= 0)
			wire_send(&w.net, w.port[from].site, w.port[i].site, i, f, now_us, random64());
	frame_unref(f);
}

static void unplug(int index)
{
	struct port *p = &w.port[index];

	if (p->fd >= 0)
		close(p->fd);
	if (p->pidfd >= 0)
		close(p->pidfd);
	p->fd = p->pidfd = -1;
	for (size_t i = 0; i < MACS_MAX; i++)
		if (w.mac[i].port == index)
			w.mac[i].port = -1;
}

static void port_readable(int index)
{
	static uint8_t buffer[TAP_FRAME];
	struct port *p = &w.port[index];

	for (int i = 0; i < READ_BATCH && p->fd >= 0; i++) {
		ssize_t n = read(p->fd, buffer, sizeof buffer);
		if (n < 0 && (errno == EBADFD || errno == ENODEV)) {
			log_info("port %s: its interface is gone", p->name);
			unplug(index);
		}
		if (n <= 0)
			return;
		p->rx++;
		forward(index, buffer, (size_t)n, clock_us());
	}
}

static void deliver(void)
{
	uint64_t now = clock_us(), due;
	struct itimerspec at = {.it_value.tv_nsec = 0};
	struct frame *f;
	int port;

	while ((f = wire_next(&w.net, now, &port))) {
		struct port *p = &w.port[port];
		if (p->fd < 0 || write(p->fd, f->data, f->len) < 0)
			p->dropped++;
		else
			p->tx++;
		frame_unref(f);
	}
	due = wire_due_us(&w.net);
	if (due == w.armed_us)
		return;
	at.it_value.tv_sec = (time_t)(due / 1000000);
	at.it_value.tv_nsec = (long)(due % 1000000) * 1000;
	timerfd_settime(w.timer, TFD_TIMER_ABSTIME, &at, NULL);
	w.armed_us = due;
}

/* ---- ports ---- */

static int tap_make(const char *ifname, const uint8_t mac[6], struct err *e)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	int hdr = TAP_HDR, r = 0;
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return err_errno(e, -errno, "open /dev/net/tun");
	snprintf(ifr.ifr_name, IFNAMSIZ, "%s", ifname);
	if (ioctl(fd, TUNSETIFF, &ifr) < 0)
		r = err_errno(e, -errno, "make interface %s", ifname);
	else if (ioctl(fd, TUNSETVNETHDRSZ, &hdr) < 0 || ioctl(fd, TUNSETOFFLOAD, TAP_OFFLOADS) < 0)
		r = err_errno(e, -errno, "offloads of %s", ifname);
	if (r == 0) {
		ifr.ifr_hwaddr.sa_family = ARPHRD_ETHER;
		memcpy(ifr.ifr_hwaddr.sa_data, mac, 6);
		if (ioctl(fd, SIOCSIFHWADDR, &ifr) < 0)
			r = err_errno(e, -errno, "address of %s", ifname);
	}
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

/* Makes the TAP in the namespace of pid, coming back to the host's before it returns. */
static int tap_make_in(int64_t pid, const char *ifname, const uint8_t mac[6], struct err *e)
{
	char path[64];
	_cleanup_close_ int ns = -1;
	int fd;

	if (pid == 0)
		return tap_make(ifname, mac, e);
	snprintf(path, sizeof path, "/proc/%lld/ns/net", (long long)pid);
	ns = open(path, O_RDONLY | O_CLOEXEC);
	if (ns < 0 || setns(ns, CLONE_NEWNET) < 0)
		return err_errno(e, -errno, "network namespace of process %lld", (long long)pid);
	fd = tap_make(ifname, mac, e);
	if (setns(w.host_ns, CLONE_NEWNET) < 0) {
		log_error("cannot go back to the host's network namespace: %s", strerror(errno));
		abort();
	}
	return fd;
}

static int cmd_plug(char **words, int n_words, struct err *e)
{
	unsigned m[6];
	uint8_t mac[6];
	int64_t pid;
	int slot = -1, site, fd;

	if (n_words != 6 || str_i64(words[3], &pid) < 0 || pid < 0 ||
	    strlen(words[1]) >= WIRE_SITE_NAME_MAX || strlen(words[4]) >= IFNAMSIZ ||
	    sscanf(words[5], "%2x:%2x:%2x:%2x:%2x:%2x", &m[0], &m[1], &m[2], &m[3], &m[4], &m[5]) != 6)
		return err_set(e, -EINVAL, "plug PORT SITE PID IFNAME MAC");
	for (int i = 0; i < 6; i++)
		mac[i] = (uint8_t)m[i];
	for (int i = PORTS_MAX - 1; i >= 0; i--) {
		if (w.port[i].fd < 0)
			slot = i;
		else if (streq(w.port[i].name, words[1]))
			return err_set(e, -EEXIST, "port %s is plugged already", words[1]);
	}
	site = wire_site(&w.net, words[2], true);
	if (slot < 0 || site < 0)
		return err_set(e, -ENOSPC, "no room for port %s of site %s", words[1], words[2]);
	fd = tap_make_in(pid, words[4], mac, e);
	if (fd < 0)
		return fd;
	w.port[slot] = (struct port){.site = site, .fd = fd, .pidfd = -1};
	strcpy(w.port[slot].name, words[1]);
	learn(mac, slot);
	watch(fd, SRC_PORT, slot);
	if (pid) {
		w.port[slot].pidfd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
		if (w.port[slot].pidfd >= 0)
			watch(w.port[slot].pidfd, SRC_PID, slot);
	}
	return 0;
}

static int cmd_unplug(char **words, int n_words, struct err *e)
{
	for (int i = 0; n_words == 2 && i < PORTS_MAX; i++)
		if (w.port[i].fd >= 0 && streq(w.port[i].name, words[1]))
			return unplug(i), 0;
	return err_set(e, -ENOENT, "no such port: %s", n_words > 1 ? words[1] : "");
}

/* ---- control ---- */

static json_t *stats_new(void)
{
	json_t *ports = json_object(), *links = json_array();

	for (int i = 0; i < PORTS_MAX; i++)
		if (w.port[i].fd >= 0)
			json_object_set_new(
				ports, w.port[i].name,
				json_pack("{s:s, s:I, s:I, s:I}", "site", w.net.site[w.port[i].site], "from",
					  (json_int_t)w.port[i].rx, "to", (json_int_t)w.port[i].tx, "dropped",
					  (json_int_t)w.port[i].dropped));
	for (int i = 0; i < w.net.n_sites; i++)
		for (int j = 0; j < w.net.n_sites; j++) {
			const struct wire_link *l = &w.net.link[i][j];
			if (i == j)
				continue;
			json_array_append_new(
				links,
				json_pack("{s:s, s:s, s:I, s:I, s:i, s:b, s:I, s:I, s:I, s:I, s:I}", "from",
					  w.net.site[i], "to", w.net.site[j], "delay_us",
					  (json_int_t)l->delay_us, "jitter_us", (json_int_t)l->jitter_us,
					  "loss_ppm", (int)l->loss_ppm, "cut", (int)l->cut, "passed",
					  (json_int_t)l->passed, "lost", (json_int_t)l->lost, "refused",
					  (json_int_t)l->refused, "overflowed", (json_int_t)l->overflowed,
					  "on_the_way", (json_int_t)l->queued_frames));
		}
	return json_pack("{s:o, s:o}", "ports", ports, "links", links);
}

static char *command(char *line)
{
	struct err e = {.code = 0};
	char *words[WIRE_WORDS_MAX];
	int n = wire_words(line, words), r;

	if (n <= 0)
		return xstrdup("error empty or too many words\n");
	if (streq(words[0], "stats")) {
		_cleanup_json_ json_t *stats = stats_new();
		_cleanup_free_ char *text = js_text(stats);
		return xasprintf("ok %s\n", text);
	}
	if (streq(words[0], "quit")) {
		w.stop = true;
		return xstrdup("ok\n");
	}
	if (streq(words[0], "plug"))
		r = cmd_plug(words, n, &e);
	else if (streq(words[0], "unplug"))
		r = cmd_unplug(words, n, &e);
	else
		r = wire_link_command(&w.net, words, n, &e);
	if (r == -ENOSYS)
		err_set(&e, r, "unknown command %s", words[0]);
	return r < 0 ? xasprintf("error %s\n", e.text) : xstrdup("ok\n");
}

static void client_close(struct client *c)
{
	close(c->fd);
	c->fd = -1;
	c->len = 0;
}

static void client_readable(struct client *c)
{
	ssize_t n = read(c->fd, c->line + c->len, sizeof c->line - c->len);
	char *end;

	if (n <= 0) {
		client_close(c);
		return;
	}
	c->len += (size_t)n;
	while ((end = memchr(c->line, '\n', c->len))) {
		_cleanup_free_ char *answer = NULL;
		size_t used = (size_t)(end + 1 - c->line);
		*end = '\0';
		answer = command(c->line);
		if (write(c->fd, answer, strlen(answer)) <
		    0) { /* blocking: answers are small, clients are ours */
			client_close(c);
			return;
		}
		memmove(c->line, c->line + used, c->len - used);
		c->len -= used;
	}
	if (c->len == sizeof c->line)
		client_close(c);
}

static void client_accept(void)
{
	int fd = accept4(w.listen, NULL, NULL, SOCK_CLOEXEC);

	for (int i = 0; fd >= 0 && i < CLIENTS_MAX; i++)
		if (w.client[i].fd < 0) {
			w.client[i].fd = fd;
			watch(fd, SRC_CLIENT, i);
			return;
		}
	if (fd >= 0)
		close(fd);
}

/* ---- life ---- */

static int start(const char *path, struct err *e)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	sigset_t set;
	int sigfd;

	for (int i = 0; i < PORTS_MAX; i++)
		w.port[i].fd = w.port[i].pidfd = -1;
	for (int i = 0; i < CLIENTS_MAX; i++)
		w.client[i].fd = -1;
	for (int i = 0; i < MACS_MAX; i++)
		w.mac[i].port = -1;
	random_bytes(&w.seed, sizeof w.seed);
	w.seed |= 1;
	if (strlen(path) >= sizeof sa.sun_path)
		return err_set(e, -ENAMETOOLONG, "socket path too long: %s", path);
	strcpy(sa.sun_path, path);
	unlink(path);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	w.epoll = epoll_create1(EPOLL_CLOEXEC);
	w.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	w.host_ns = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	w.listen = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	sigfd = signalfd(-1, &set, SFD_CLOEXEC);
	if (w.epoll < 0 || w.timer < 0 || w.host_ns < 0 || w.listen < 0 || sigfd < 0)
		return err_errno(e, -errno, "start");
	if (bind(w.listen, (struct sockaddr *)&sa, sizeof sa) < 0 || listen(w.listen, 8) < 0)
		return err_errno(e, -errno, "listen on %s", path);
	watch(w.timer, SRC_TIMER, 0);
	watch(w.listen, SRC_LISTEN, 0);
	watch(sigfd, SRC_SIGNAL, 0);
	return 0;
}

static void handle(uint64_t token)
{
	int index = (int)(uint32_t)token;
	uint64_t ticks;

	switch ((enum source)(token >> 32)) {
	case SRC_TIMER:
		if (read(w.timer, &ticks, sizeof ticks) > 0)
			w.armed_us = 0;
		break;
	case SRC_SIGNAL:
		w.stop = true;
		break;
	case SRC_LISTEN:
		client_accept();
		break;
	case SRC_CLIENT:
		if (w.client[index].fd >= 0)
			client_readable(&w.client[index]);
		break;
	case SRC_PORT:
		if (w.port[index].fd >= 0)
			port_readable(index);
		break;
	case SRC_PID:
		log_info("port %s: its machine died", w.port[index].name);
		unplug(index);
		break;
	}
}

int main(int argc, char **argv)
{
	struct epoll_event events[32];
	struct err e = {.code = 0};

	log_init("wire", LOG_LEVEL_INFO);
	if (argc != 2) {
		fputs("Usage: lab-wire SOCKET\n", stderr);
		return 2;
	}
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	/* A line does not wait for a CPU. */
	if (sched_setscheduler(0, SCHED_RR, &(struct sched_param){.sched_priority = 1}) < 0 &&
	    setpriority(PRIO_PROCESS, 0, -20) < 0)
		log_info("runs at normal priority: delays are less exact on a busy host");
	if (start(argv[1], &e) < 0) {
		log_error("%s", e.text);
		return 1;
	}
	while (!w.stop) {
		int n = epoll_wait(w.epoll, events, ARRAY_SIZE(events), -1);
		if (n < 0 && errno != EINTR)
			break;
		for (int i = 0; i < n; i++)
			handle(events[i].data.u64);
		deliver();
	}
	for (int i = 0; i < PORTS_MAX; i++)
		unplug(i);
	wire_net_done(&w.net);
	unlink(argv[1]);
	return 0;
}

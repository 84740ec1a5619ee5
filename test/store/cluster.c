/* SPDX-License-Identifier: Apache-2.0 */
/* See cluster.h. Certificates come from the openssl command; ports are free ones of the moment. */
#include "cluster.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define START_WAIT_MS 20000

static void run(const char *cmd)
{
	if (system(cmd) != 0)
		fail_msg("failed: %s", cmd);
}

/* ---- namespaces: member i is 10.99.i.2, its link's end here is kvI, 10.99.i.1 ---- */

/* A process that only keeps a network namespace; it has it when this returns. */
static pid_t start_holder(void)
{
	int ready[2];
	char byte;
	pid_t pid;

	if (pipe(ready) < 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET) < 0 || write(ready[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1)
		pid = -1;
	close(ready[0]);
	return pid;
}

static bool link_member(struct cluster *c, int i)
{
	_cleanup_free_ char *cmd = NULL;

	c->holder[i] = start_holder();
	snprintf(c->address[i], sizeof(c->address[i]), "10.99.%d.2", i);
	cmd = xasprintf(
		"ip link add kv%d type veth peer name eth0 netns %d && ip addr add 10.99.%d.1/24 dev kv%d && "
		"ip link set kv%d up && nsenter --net=/proc/%d/ns/net sh -c 'ip link set lo up && "
		"ip addr add 10.99.%d.2/24 dev eth0 && ip link set eth0 up && ip route add default via "
		"10.99.%d.1'",
		i, c->holder[i], i, i, i, c->holder[i], i, i);
	return c->holder[i] > 0 && system(cmd) == 0;
}

/* false: not allowed here; nothing has changed. */
static bool set_apart(struct cluster *c)
{
	static const char prepare[] =
		"ip link set lo up && echo 1 >/proc/sys/net/ipv4/ip_forward && nft '"
		"add table inet cut; add chain inet cut in { type filter hook input priority 0; }; "
		"add chain inet cut out { type filter hook output priority 0; }; "
		"add chain inet cut pass { type filter hook forward priority 0; }'";

	if (unshare(CLONE_NEWNET) < 0)
		return false;
	if (system(prepare) != 0) {
		fprintf(stderr, "cannot set up the test's network namespace\n");
		exit(1);
	}
	for (int i = 0; i < CLUSTER_MEMBERS; i++)
		if (!link_member(c, i)) {
			fprintf(stderr, "cannot link member %d's network namespace\n", i);
			exit(1);
		}
	return true;
}

static void drop(int member, bool clients_too)
{
	_cleanup_free_ char *all = xasprintf("nft 'add rule inet cut pass iifname kv%d drop; "
					     "add rule inet cut pass oifname kv%d drop'",
					     member, member);
	_cleanup_free_ char *here = xasprintf("nft 'add rule inet cut in iifname kv%d drop; "
					      "add rule inet cut out oifname kv%d drop'",
					      member, member);

	run(all);
	if (clients_too)
		run(here);
}

static void heal(void)
{
	run("nft 'flush chain inet cut in; flush chain inet cut out; flush chain inet cut pass'");
}

void cluster_power(struct cluster *c, int member, bool on)
{
	cluster_freeze(c, member, !on);
	if (c->apart && on)
		heal();
	else if (c->apart)
		drop(member, true);
}

void cluster_cut(struct cluster *c, int member, bool cut)
{
	ensure(c->apart);
	if (cut)
		drop(member, false);
	else
		heal();
}

/* ---- members ---- */

static int free_port(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	_cleanup_close_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 ||
	    getsockname(fd, (struct sockaddr *)&a, &len) < 0)
		return -1;
	return ntohs(a.sin_port);
}

static bool make_certificates(const char *dir)
{
	_cleanup_free_ char *cmd = xasprintf(
		"cd %s && exec >openssl.log 2>&1 && "
		"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "
		"/CN=test-ca "
		"-keyout ca.key -out ca.crt && "
		"for n in member client; do "
		"openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$n -keyout $n.key "
		"-out $n.csr && "
		"printf "
		"'subjectAltName=IP:127.0.0.1,IP:10.99.0.2,IP:10.99.1.2,IP:10.99.2.2\\nextendedKeyUsage="
		"serverAuth,clientAuth\\n' >$n.ext && "
		"openssl x509 -req -in $n.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile "
		"$n.ext -out $n.crt "
		"|| exit 1; done",
		dir);

	return system(cmd) == 0;
}

static void exec_member(const struct cluster *c, int i)
{
	char *cluster =
		xasprintf("m0=https://%s:%d,m1=https://%s:%d,m2=https://%s:%d", c->address[0],
			  c->peer_port[0], c->address[1], c->peer_port[1], c->address[2], c->peer_port[2]);
	char *client = xasprintf("https://%s:%d", c->address[i], c->client_port[i]);
	char *peer = xasprintf("https://%s:%d", c->address[i], c->peer_port[i]);
	char *name = xasprintf("m%d", i), *data = xasprintf("%s/m%d", c->dir, i);
	char *log = xasprintf("%s/m%d.log", c->dir, i), *crt = xasprintf("%s/member.crt", c->dir);
	char *key = xasprintf("%s/member.key", c->dir), *ca = xasprintf("%s/ca.crt", c->dir);
	const char *argv[] = {"etcd",
			      "--name",
			      name,
			      "--data-dir",
			      data,
			      "--initial-cluster",
			      cluster,
			      "--listen-client-urls",
			      client,
			      "--advertise-client-urls",
			      client,
			      "--listen-peer-urls",
			      peer,
			      "--initial-advertise-peer-urls",
			      peer,
			      "--cert-file",
			      crt,
			      "--key-file",
			      key,
			      "--trusted-ca-file",
			      ca,
			      "--client-cert-auth",
			      "--peer-cert-file",
			      crt,
			      "--peer-key-file",
			      key,
			      "--peer-trusted-ca-file",
			      ca,
			      "--peer-client-cert-auth",
			      "--heartbeat-interval",
			      "50",
			      "--election-timeout",
			      "500",
			      "--logger",
			      "zap",
			      "--log-outputs",
			      "stderr",
			      NULL};
	int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);

	if (c->apart) {
		char *ns = xasprintf("/proc/%d/ns/net", c->holder[i]);

		if (setns(open(ns, O_RDONLY | O_CLOEXEC), CLONE_NEWNET) < 0)
			_exit(126);
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(fd, 1);
	dup2(fd, 2);
	execvp(argv[0], (char *const *)argv);
	_exit(127);
}

void cluster_restart(struct cluster *c, int member)
{
	fflush(NULL);
	c->pid[member] = fork();
	if (c->pid[member] == 0)
		exec_member(c, member);
}

void cluster_kill(struct cluster *c, int member)
{
	if (c->pid[member] <= 0)
		return;
	kill(c->pid[member], SIGKILL);
	waitpid(c->pid[member], NULL, 0);
	c->pid[member] = 0;
}

void cluster_lose(struct cluster *c, int member)
{
	_cleanup_free_ char *data = xasprintf("%s/m%d", c->dir, member);

	ensure(c->pid[member] == 0);
	if (dir_remove(data, NULL) < 0)
		fail_msg("%s stays", data);
}

void cluster_freeze(struct cluster *c, int member, bool frozen)
{
	kill(c->pid[member], frozen ? SIGSTOP : SIGCONT);
}

/* etcdctl's line about a member: address, id, version, size, is leader, ... */
static bool says_leader(struct cluster *c, int i)
{
	_cleanup_free_ char *cmd = xasprintf(
		"ETCDCTL_API=3 etcdctl --command-timeout=2s --dial-timeout=1s --cacert=%s --cert=%s --key=%s "
		"--endpoints=https://%s:%d endpoint status -w simple 2>/dev/null",
		c->ca, c->cert, c->key, c->address[i], c->client_port[i]);
	_cleanup_strv_ char **fields = NULL;
	char text[1024] = "";
	FILE *f = popen(cmd, "re");

	if (!f)
		return false;
	if (!fgets(text, sizeof(text), f))
		text[0] = 0;
	pclose(f);
	fields = strv_split(text, ',', true);
	return strv_len(fields) > 4 && streq(fields[4], " true");
}

int cluster_leader(struct cluster *c)
{
	for (int i = 0; i < CLUSTER_MEMBERS; i++)
		if (c->pid[i] && says_leader(c, i))
			return i;
	return -1;
}

char *cluster_uri(const struct cluster *c, int first)
{
	int b = (first + 1) % 3, d = (first + 2) % 3;

	return xasprintf("etcd:https://%s:%d,https://%s:%d,https://%s:%d", c->address[first],
			 c->client_port[first], c->address[b], c->client_port[b], c->address[d],
			 c->client_port[d]);
}

bool cluster_start(struct cluster *c)
{
	uint64_t until = clock_ms() + START_WAIT_MS;

	*c = (struct cluster){0};
	c->apart = set_apart(c);
	snprintf(c->dir, sizeof(c->dir), "/tmp/kuayu-store-etcd-XXXXXX");
	if (!mkdtemp(c->dir) || !make_certificates(c->dir)) {
		fprintf(stderr, "cannot make certificates in %s\n", c->dir);
		return false;
	}
	c->ca = xasprintf("%s/ca.crt", c->dir);
	c->cert = xasprintf("%s/client.crt", c->dir);
	c->key = xasprintf("%s/client.key", c->dir);
	for (int i = 0; i < CLUSTER_MEMBERS; i++) {
		if (!c->apart)
			strcpy(c->address[i], "127.0.0.1");
		c->client_port[i] = c->apart ? 2379 : free_port();
		c->peer_port[i] = c->apart ? 2380 : free_port();
	}
	for (int i = 0; i < CLUSTER_MEMBERS; i++)
		cluster_restart(c, i);
	while (cluster_leader(c) < 0) {
		if (clock_ms() > until) {
			fprintf(stderr, "etcd did not start; logs are in %s\n", c->dir);
			return false;
		}
		usleep(200000);
	}
	return true;
}

void cluster_stop(struct cluster *c)
{
	for (int i = 0; i < CLUSTER_MEMBERS; i++) {
		cluster_kill(c, i);
		if (c->holder[i] > 0) {
			kill(c->holder[i], SIGKILL);
			waitpid(c->holder[i], NULL, 0);
		}
	}
	dir_remove(c->dir, NULL);
	free(c->ca);
	free(c->cert);
	free(c->key);
}

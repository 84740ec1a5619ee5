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

static bool isolated;

void cluster_isolate(void)
{
	isolated = unshare(CLONE_NEWNET) == 0;
	if (isolated && system("ip link set lo up && nft add table inet cut && "
			       "nft 'add chain inet cut in { type filter hook input priority 0; }'") != 0) {
		fprintf(stderr, "cannot set up the test's network namespace\n");
		exit(1);
	}
}

bool cluster_power(struct cluster *c, int member, bool on)
{
	int a = c->client_port[member], b = c->peer_port[member];
	_cleanup_free_ char *cut = xasprintf("nft 'add rule inet cut in tcp dport { %d, %d } drop; "
					     "add rule inet cut in tcp sport { %d, %d } drop'",
					     a, b, a, b);

	if (!isolated)
		return false;
	cluster_freeze(c, member, !on);
	assert_int_equal(system(on ? "nft flush chain inet cut in" : cut), 0);
	return true;
}

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
		"printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth\\n' >$n.ext && "
		"openssl x509 -req -in $n.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile "
		"$n.ext -out $n.crt "
		"|| exit 1; done",
		dir);

	return system(cmd) == 0;
}

static void exec_member(const struct cluster *c, int i)
{
	char *cluster = xasprintf("m0=https://127.0.0.1:%d,m1=https://127.0.0.1:%d,m2=https://127.0.0.1:%d",
				  c->peer_port[0], c->peer_port[1], c->peer_port[2]);
	char *client = xasprintf("https://127.0.0.1:%d", c->client_port[i]);
	char *peer = xasprintf("https://127.0.0.1:%d", c->peer_port[i]);
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

void cluster_freeze(struct cluster *c, int member, bool frozen)
{
	kill(c->pid[member], frozen ? SIGSTOP : SIGCONT);
}

/* etcdctl's line about a member: address, id, version, size, is leader, ... */
static bool says_leader(struct cluster *c, int i)
{
	_cleanup_free_ char *cmd = xasprintf(
		"ETCDCTL_API=3 etcdctl --command-timeout=2s --dial-timeout=1s --cacert=%s --cert=%s --key=%s "
		"--endpoints=https://127.0.0.1:%d endpoint status -w simple 2>/dev/null",
		c->ca, c->cert, c->key, c->client_port[i]);
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
	return xasprintf("etcd:https://127.0.0.1:%d,https://127.0.0.1:%d,https://127.0.0.1:%d",
			 c->client_port[first], c->client_port[(first + 1) % 3],
			 c->client_port[(first + 2) % 3]);
}

bool cluster_start(struct cluster *c)
{
	uint64_t until = clock_ms() + START_WAIT_MS;

	*c = (struct cluster){0};
	snprintf(c->dir, sizeof(c->dir), "/tmp/kuayu-store-etcd-XXXXXX");
	if (!mkdtemp(c->dir) || !make_certificates(c->dir)) {
		fprintf(stderr, "cannot make certificates in %s\n", c->dir);
		return false;
	}
	c->ca = xasprintf("%s/ca.crt", c->dir);
	c->cert = xasprintf("%s/client.crt", c->dir);
	c->key = xasprintf("%s/client.key", c->dir);
	for (int i = 0; i < CLUSTER_MEMBERS; i++) {
		c->client_port[i] = free_port();
		c->peer_port[i] = free_port();
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
	for (int i = 0; i < CLUSTER_MEMBERS; i++)
		cluster_kill(c, i);
	dir_remove(c->dir, NULL);
	free(c->ca);
	free(c->cert);
	free(c->key);
}

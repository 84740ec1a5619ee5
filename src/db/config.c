/* SPDX-License-Identifier: Apache-2.0 */
/* db: who this member is, its secrets, my.cnf, and the small durable state (own vote, peers' addresses).
 *
 * my.cnf is written anew before each start of mariadbd; nobody edits it. Files under --data:
 *   data/          MariaDB's data directory
 *   data.new/      an installation that has not finished
 *   aside-TIME/    data that was replaced by a full state transfer although it held something (the last two are kept)
 *   state.json     the vote this member gave last, and the addresses its peers had */
#include "db/internal.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <openssl/evp.h>
#include <pwd.h>

#define SECRET_MAX ((size_t)4096)

/* The first address of this host that is not loopback, when neither setting nor environment names one. */
static char *own_address(void)
{
	struct ifaddrs *list, *i;
	char text[INET_ADDRSTRLEN];
	char *found = NULL;

	if (getifaddrs(&list) < 0)
		return NULL;
	for (i = list; i && !found; i = i->ifa_next) {
		const struct sockaddr_in *sin = (const void *)i->ifa_addr;

		if (!i->ifa_addr || i->ifa_addr->sa_family != AF_INET || (i->ifa_flags & IFF_LOOPBACK))
			continue;
		if (inet_ntop(AF_INET, &sin->sin_addr, text, sizeof(text)))
			found = xstrdup(text);
	}
	freeifaddrs(list);
	return found;
}

/* Setting, then environment. Takes over nothing; the setting is replaced in place. */
static void from_env(char **setting, const char *variable)
{
	const char *v = getenv(variable);

	if (!*setting && v && *v)
		*setting = xstrdup(v);
}

/* A secret: file NAME of the folder, else the environment variable; NULL when neither is there. */
static int secret(const struct db *d, const char *name, const char *variable, char **ret, struct err *e)
{
	_cleanup_free_ char *path = NULL;
	const char *v = getenv(variable);
	char *text;
	int r;

	if (d->s.secret_dir) {
		path = xasprintf("%s/%s", d->s.secret_dir, name);
		r = file_read(path, SECRET_MAX, &text, NULL, e);
		if (r == 0) {
			text[strcspn(text, "\r\n")] = 0;
			*ret = text;
			return 0;
		}
		if (r != -ENOENT)
			return r;
	}
	*ret = v && *v ? xstrdup(v) : NULL;
	return 0;
}

/* The SST password goes into my.cnf and through shell scripts of MariaDB. */
static bool plain_password(const char *s)
{
	return strlen(s) >= 8 &&
	       s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._~+-")] == 0;
}

static int read_secrets(struct db *d, struct err *e)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	_cleanup_free_ char *text = NULL;
	size_t len = 0;
	int r;

	if ((r = secret(d, "sst-password", "KUAYU_DB_SST_PASSWORD", &d->sst_password, e)) < 0 ||
	    (r = secret(d, "user", "MARIADB_USER", &d->app_user, e)) < 0 ||
	    (r = secret(d, "password", "MARIADB_PASSWORD", &d->app_password, e)) < 0 ||
	    (r = secret(d, "database", "MARIADB_DATABASE", &d->app_database, e)) < 0)
		return r;
	if (!d->sst_password || !plain_password(d->sst_password))
		return err_set(
			e, -EINVAL,
			"sst-password: wants at least 8 letters, digits or ._~+- (file in --secret-dir, or "
			"KUAYU_DB_SST_PASSWORD)");
	if (d->app_user && !d->app_password)
		return err_set(e, -EINVAL, "user is given without password");
	text = xasprintf("kuayu db %s", d->sst_password);
	if (!EVP_Q_digest(NULL, "SHA256", NULL, text, strlen(text), digest, &len))
		return err_set(e, -EIO, "SHA-256 failed");
	for (size_t i = 0; i < len && i < 32; i++)
		snprintf(d->token + 2 * i, 3, "%02x", digest[i]);
	return 0;
}

static int find_user(struct db *d, struct err *e)
{
	const struct passwd *p;

	d->uid = geteuid();
	d->gid = getegid();
	if (d->uid != 0)
		return 0;
	p = getpwnam(d->s.user);
	if (!p)
		return err_set(e, -ENOENT, "--user=%s: no such user", d->s.user);
	d->uid = p->pw_uid;
	d->gid = p->pw_gid;
	return 0;
}

int config_give(const struct db *d, const char *path)
{
	if (geteuid() != 0)
		return 0;
	return lchown(path, d->uid, d->gid) < 0 ? -errno : 0;
}

int config_init(struct db *d, struct err *e)
{
	char host[GALERA_NAME_MAX];
	int r;

	from_env(&d->s.name, "POD_NAME");
	from_env(&d->s.address, "POD_IP");
	if (!d->s.name && gethostname(host, sizeof(host)) == 0) {
		host[sizeof(host) - 1] = 0;
		d->s.name = xstrdup(host);
	}
	if (!d->s.address)
		d->s.address = own_address();
	if (!d->s.name || !d->s.address || strlen(d->s.name) >= GALERA_NAME_MAX)
		return err_set(e, -EINVAL, "give --name and --address");
	if (d->s.inactive_ms < d->s.suspect_ms || d->s.suspect_ms < 2 * d->s.keepalive_ms)
		return err_set(e, -EINVAL, "wants 2 x keepalive <= suspect <= inactive");
	if ((r = read_secrets(d, e)) < 0 || (r = find_user(d, e)) < 0)
		return r;
	d->data_dir = xasprintf("%s/data", d->s.data);
	d->cnf = xasprintf("%s/my.cnf", d->s.run_dir);
	d->socket = xasprintf("%s/mysqld.sock", d->s.run_dir);
	if ((r = dir_make(d->s.data, 0755, e)) < 0 || (r = dir_make(d->s.run_dir, 0755, e)) < 0)
		return r;
	if ((r = config_give(d, d->s.data)) < 0 || (r = config_give(d, d->s.run_dir)) < 0)
		return err_errno(e, r, "cannot give %s to %s", d->s.data, d->s.user);
	return 0;
}

/* Galera's own timers. A member that is powered off is out of the view about suspect + one round after its last word; links
 * may be silent for almost `suspect` (lost packets, jitter) without any view change. */
static void provider_options(struct db *d, struct buf *b)
{
	buf_addf(b, "wsrep_provider_options=\"gmcast.listen_addr=tcp://0.0.0.0:%d;ist.recv_addr=%s:%d;",
		 DB_GROUP_PORT, d->s.address, DB_IST_PORT);
	buf_addf(b, "evs.keepalive_period=PT%.3fS;evs.suspect_timeout=PT%.3fS;evs.inactive_timeout=PT%.3fS;",
		 (double)d->s.keepalive_ms / 1e3, (double)d->s.suspect_ms / 1e3,
		 (double)d->s.inactive_ms / 1e3);
	buf_addf(b,
		 "evs.install_timeout=PT%.3fS;evs.inactive_check_period=PT0.1S;evs.join_retrans_period=PT0."
		 "1S;",
		 (double)d->s.inactive_ms / 1e3);
	/* windows: with the defaults (4 and 2) a link of 5 ms carries 200-400 messages a second */
	buf_adds(b, "evs.send_window=512;evs.user_send_window=256;gmcast.time_wait=PT1S;gmcast.peer_timeout="
		    "PT2S;");
	/* who makes a primary component is decided in one place, core/galera; never by Galera's saved view */
	buf_adds(b, "pc.recovery=FALSE;pc.wait_prim_timeout=PT20S;gcs.fc_limit=64;");
	buf_addf(b, "gcache.size=%lldM;gcache.recover=yes\"\n", (long long)d->s.gcache_mb);
}

/* MariaDB's transfer script sleeps 10 s so that the joiner listens surely. Instead socat tries again until it does. The script and what it starts come
 * behind the database: the donor goes on serving, and commits wait for the joiner's answers. Bash reads the file named by BASH_ENV before a script. */
static int write_script_settings(struct db *d, struct err *e)
{
	static const char text[] = "sleep() { [ \"$1\" != 10 ] || set -- 0.1; command sleep \"$@\"; }\n"
				   "renice -n 10 -p $$ >/dev/null 2>&1 || :\n";
	_cleanup_free_ char *path = xasprintf("%s/sst.sh", d->s.run_dir);
	int r = file_write_atomic(path, text, strlen(text), 0644, e);

	if (r == 0)
		setenv("BASH_ENV", path, 1);
	return r;
}

int config_write(struct db *d, struct err *e)
{
	_cleanup_buf_ struct buf b = {0};
	int r;

	buf_adds(&b, "# Written by kuayu db before each start of mariadbd; changes are lost.\n[mariadbd]\n");
	if (geteuid() == 0)
		buf_addf(&b, "user=%s\n", d->s.user);
	buf_addf(&b, "datadir=%s\nsocket=%s\npid-file=%s/mariadbd.pid\nport=%lld\nbind-address=0.0.0.0\n",
		 d->data_dir, d->socket, d->s.run_dir, (long long)d->s.port);
	buf_addf(&b,
		 "skip-name-resolve\nperformance_schema=OFF\nmax_connections=%lld\nmax_connect_errors="
		 "1000000\nlog_warnings=1\ncharacter-set-server="
		 "utf8mb4\n",
		 (long long)d->s.connections);
	buf_adds(&b, "default_storage_engine=InnoDB\nbinlog_format=ROW\naria_pagecache_buffer_size=8M\nkey_"
		     "buffer_size=1M\n");
	/* what is acknowledged is on this disk, and received by every member of the component */
	buf_adds(&b, "innodb_flush_log_at_trx_commit=1\ninnodb_doublewrite=ON\ninnodb_autoinc_lock_mode=2\n");
	buf_addf(&b, "innodb_buffer_pool_size=%lldM\ninnodb_log_file_size=%lldM\n",
		 (long long)d->s.buffer_pool_mb, (long long)d->s.log_file_mb);
	buf_addf(&b, "wsrep_on=ON\nwsrep_provider=/usr/lib/galera/libgalera_smm.so\nwsrep_cluster_name=%s\n",
		 d->s.cluster);
	buf_adds(&b, "wsrep_cluster_address=gcomm://");
	for (size_t i = 0, k = 0; i < d->n; i++)
		if (i == d->self || d->peers[i].address[0])
			buf_addf(&b, "%s%s", k++ ? "," : "",
				 i == d->self ? d->s.address : d->peers[i].address);
	buf_addf(&b, "\nwsrep_node_name=%s\nwsrep_node_address=%s\nwsrep_node_incoming_address=%s:%lld\n",
		 d->s.name, d->s.address, d->s.address, (long long)d->s.port);
	buf_addf(&b, "wsrep_sst_receive_address=%s:%d\nwsrep_sst_method=mariabackup\nwsrep_sst_auth=sst:%s\n",
		 d->s.address, DB_SST_PORT, d->sst_password);
	buf_adds(&b, "wsrep_slave_threads=4\nwsrep_retry_autocommit=3\n");
	provider_options(d, &b);
	buf_adds(&b, "[sst]\nsockopt=retry=120,interval=0.25\n");
	if ((r = write_script_settings(d, e)) < 0)
		return r;
	r = file_write_atomic(d->cnf, b.data, b.len, 0600, e);
	if (r == 0 && (r = config_give(d, d->cnf)) < 0)
		err_errno(e, r, "%s: chown", d->cnf);
	return r;
}

int state_load(struct db *d, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/state.json", d->s.data), *text = NULL;
	_cleanup_json_ json_t *j = NULL;
	size_t len;
	int r = file_read(path, 1 << 16, &text, &len, e);

	if (r == -ENOENT)
		return 0;
	if (r < 0 || (r = js_parse_new(text, len, &j, e)) < 0)
		return err_wrap(e, "%s", path);
	d->promised_epoch = (uint64_t)MAX(js_int(j, "epoch", 0), 0);
	snprintf(d->promised_to, sizeof(d->promised_to), "%s", js_str_or(j, "candidate", ""));
	d->promised_at_ms = clock_ms(); /* as if given now: binds for longer, never for shorter */
	for (size_t i = 0; i < d->n; i++) {
		const char *a =
			json_string_value(json_object_get(js_get(j, "addresses"), d->peers[i].m.name));

		if (a && !d->peers[i].address[0])
			snprintf(d->peers[i].address, sizeof(d->peers[i].address), "%s", a);
	}
	return 0;
}

int state_save(struct db *d, struct err *e)
{
	_cleanup_free_ char *path = xasprintf("%s/state.json", d->s.data), *text = NULL;
	_cleanup_json_ json_t *j = json_object(), *a = json_object();

	for (size_t i = 0; i < d->n; i++)
		if (i != d->self && d->peers[i].address[0])
			json_object_set_new(a, d->peers[i].m.name, json_string(d->peers[i].address));
	json_object_set_new(j, "epoch", json_integer((json_int_t)d->promised_epoch));
	json_object_set_new(j, "candidate", json_string(d->promised_to));
	json_object_set(j, "addresses", a);
	text = js_text(j);
	return file_write_atomic(path, text, strlen(text), 0600, e);
}

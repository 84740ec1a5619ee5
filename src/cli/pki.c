/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu pki: the cluster's certificate authority, certificates of roles and people, kubeconfig files. EC P-256 keys in files of
 * mode 0600; names (CN, O) as Kubernetes uses them. The CA's key is only needed by `issue`: keep it off the masters.
 *
 *   DIR/ca.crt ca.key              init
 *   DIR/NAME.crt NAME.key          issue
 *   DIR/NAME.kubeconfig            kubeconfig, with everything in it */
#include "base/base.h"
#include "cli/cli.h"

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#define PEM_MAX 65536

struct pki_settings {
	char *dir, *name, *cn, *server_url, *out;
	char **orgs, **sans;
	int64_t days;
	bool server, client;
};

#define DIR_SETTING                                                                           \
	{                                                                                     \
		"dir", SETTING_STRING, offsetof(struct pki_settings, dir), NULL, 0, 0, "DIR", \
			"folder of the CA and its certificates"                               \
	}
#define NAME_SETTING                                                                             \
	{                                                                                        \
		"name", SETTING_STRING, offsetof(struct pki_settings, name), NULL, 0, 0, "NAME", \
			"file name without ending"                                               \
	}

static const struct setting init_settings[] = {
	DIR_SETTING,
	{"days", SETTING_INT, offsetof(struct pki_settings, days), "3650", 1, 36500, "DAYS",
	 "validity of the CA"},
};

static const struct setting issue_settings[] = {
	DIR_SETTING,
	NAME_SETTING,
	{"cn", SETTING_STRING, offsetof(struct pki_settings, cn), NULL, 0, 0, "CN",
	 "user name, such as system:node:a1"},
	{"org", SETTING_STRINGS, offsetof(struct pki_settings, orgs), NULL, 0, 0, "O,...",
	 "groups, such as system:masters"},
	{"san", SETTING_STRINGS, offsetof(struct pki_settings, sans), NULL, 0, 0, "DNS:x,IP:y",
	 "names and addresses a server is reached by"},
	{"server", SETTING_BOOL, offsetof(struct pki_settings, server), NULL, 0, 0, NULL,
	 "usable by a TLS server"},
	{"client", SETTING_BOOL, offsetof(struct pki_settings, client), NULL, 0, 0, NULL,
	 "usable by a TLS client (default without --server)"},
	{"days", SETTING_INT, offsetof(struct pki_settings, days), "365", 1, 36500, "DAYS", "validity"},
};

static const struct setting kubeconfig_settings[] = {
	DIR_SETTING,
	NAME_SETTING,
	{"server", SETTING_STRING, offsetof(struct pki_settings, server_url), NULL, 0, 0, "URL",
	 "API server, https://host:6443"},
	{"out", SETTING_STRING, offsetof(struct pki_settings, out), NULL, 0, 0, "FILE",
	 "file to write (default DIR/NAME.kubeconfig)"},
};

static void key_free_p(EVP_PKEY **k)
{
	EVP_PKEY_free(*k);
}

static void cert_free_p(X509 **c)
{
	X509_free(*c);
}

static void bio_free_p(BIO **b)
{
	BIO_free(*b);
}

static int ssl_error(struct err *e, const char *what)
{
	char text[200];

	ERR_error_string_n(ERR_get_error(), text, sizeof(text));
	ERR_clear_error();
	return err_set(e, -EINVAL, "%s: %s", what, text);
}

static char *path_of(const char *dir, const char *name, const char *ending)
{
	return xasprintf("%s/%s.%s", dir, name, ending);
}

/* ---- files ---- */

static int save(const char *path, BIO *b, mode_t mode, struct err *e)
{
	char *data;
	long n = BIO_get_mem_data(b, &data);

	return file_write_atomic(path, data, (size_t)n, mode, e);
}

static int save_pair(const char *dir, const char *name, X509 *cert, EVP_PKEY *key, struct err *e)
{
	_cleanup_free_ char *crt = path_of(dir, name, "crt"), *pem = path_of(dir, name, "key");
	_cleanup_(bio_free_p) BIO *c = BIO_new(BIO_s_mem()), *k = BIO_new(BIO_s_mem());
	int r;

	if (!PEM_write_bio_X509(c, cert) || !PEM_write_bio_PrivateKey(k, key, NULL, NULL, 0, NULL, NULL))
		return ssl_error(e, "writing PEM");
	r = save(pem, k, 0600, e);
	return r < 0 ? r : save(crt, c, 0644, e);
}

static int load_ca(const char *dir, X509 **ret_cert, EVP_PKEY **ret_key, struct err *e)
{
	_cleanup_free_ char *crt = path_of(dir, "ca", "crt"), *pem = path_of(dir, "ca", "key"), *ct = NULL,
			    *kt = NULL;
	_cleanup_(bio_free_p) BIO *c = NULL, *k = NULL;
	size_t cn, kn;
	int r = file_read(crt, PEM_MAX, &ct, &cn, e);

	if (r == 0)
		r = file_read(pem, PEM_MAX, &kt, &kn, e);
	if (r < 0)
		return err_wrap(e, "no CA in %s (kuayu pki init makes one)", dir);
	c = BIO_new_mem_buf(ct, (int)cn);
	k = BIO_new_mem_buf(kt, (int)kn);
	*ret_cert = PEM_read_bio_X509(c, NULL, NULL, NULL);
	*ret_key = PEM_read_bio_PrivateKey(k, NULL, NULL, NULL);
	return *ret_cert && *ret_key ? 0 : ssl_error(e, crt);
}

/* ---- certificates ---- */

static int set_serial(X509 *c)
{
	unsigned char bytes[16];
	BIGNUM *n;
	bool ok;

	random_bytes(bytes, sizeof(bytes));
	bytes[0] &= 0x7f;
	bytes[0] |= 0x40;
	n = BN_bin2bn(bytes, sizeof(bytes), NULL);
	ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(c));
	BN_free(n);
	return ok ? 0 : -EINVAL;
}

static int extend(X509 *c, X509 *issuer, int nid, const char *value)
{
	X509V3_CTX ctx;
	X509_EXTENSION *x;
	int ok;

	X509V3_set_ctx(&ctx, issuer, c, NULL, NULL, 0);
	x = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
	ok = x && X509_add_ext(c, x, -1);
	X509_EXTENSION_free(x);
	return ok ? 0 : -EINVAL;
}

static int add_name(X509_NAME *name, const char *field, const char *value)
{
	return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, (const unsigned char *)value, -1, -1, 0)
		       ? 0
		       : -EINVAL;
}

/* An unsigned certificate with names, key and validity. */
static int cert_new(const char *cn, char *const *orgs, int64_t days, EVP_PKEY *key, X509 **ret, struct err *e)
{
	_cleanup_(cert_free_p) X509 *c = X509_new();
	X509_NAME *name = X509_get_subject_name(c);

	X509_set_version(c, 2);
	/* An hour back, for machines whose clocks differ. */
	if (set_serial(c) < 0 || !X509_gmtime_adj(X509_getm_notBefore(c), -3600) ||
	    !X509_time_adj_ex(X509_getm_notAfter(c), (int)days, 0, NULL) || !X509_set_pubkey(c, key))
		return ssl_error(e, "certificate");
	for (; orgs && *orgs; orgs++)
		if (add_name(name, "O", *orgs) < 0)
			return ssl_error(e, "--org (at most 64 characters each)");
	if (add_name(name, "CN", cn) < 0)
		return ssl_error(e, "--cn (1 to 64 characters)");
	*ret = take_ptr(c);
	return 0;
}

static int sign(X509 *c, X509 *issuer, EVP_PKEY *key, struct err *e)
{
	if (!X509_set_issuer_name(c, X509_get_subject_name(issuer)) ||
	    extend(c, issuer, NID_authority_key_identifier, "keyid:always") < 0 ||
	    !X509_sign(c, key, EVP_sha256()))
		return ssl_error(e, "signing");
	return 0;
}

static int init_ca(const struct pki_settings *s, struct err *e)
{
	_cleanup_(key_free_p) EVP_PKEY *key = NULL;
	_cleanup_(cert_free_p) X509 *c = NULL;
	_cleanup_free_ char *crt = path_of(s->dir, "ca", "crt");
	int r = dir_make(s->dir, 0755, e);

	if (r < 0)
		return r;
	if (access(crt, F_OK) == 0)
		return err_set(e, -EEXIST, "%s is there already; remove it to start a new CA", crt);
	key = EVP_EC_gen("P-256");
	if (!key)
		return ssl_error(e, "key");
	r = cert_new("kuayu-ca", NULL, s->days, key, &c, e);
	if (r < 0)
		return r;
	if (extend(c, c, NID_basic_constraints, "critical,CA:TRUE") < 0 ||
	    extend(c, c, NID_key_usage, "critical,digitalSignature,keyCertSign,cRLSign") < 0 ||
	    extend(c, c, NID_subject_key_identifier, "hash") < 0)
		return ssl_error(e, "extensions");
	r = sign(c, c, key, e);
	return r < 0 ? r : save_pair(s->dir, "ca", c, key, e);
}

static int add_usage(X509 *c, X509 *ca, const struct pki_settings *s, struct err *e)
{
	_cleanup_buf_ struct buf sans = {0};
	bool client = s->client || !s->server;

	for (char **n = s->sans; n && *n; n++) {
		if (!str_starts(*n, "DNS:") && !str_starts(*n, "IP:"))
			return err_set(e, -EINVAL, "--san wants DNS:name or IP:address, not '%s'", *n);
		buf_addf(&sans, "%s%s", sans.len ? "," : "", *n);
	}
	if (extend(c, ca, NID_basic_constraints, "critical,CA:FALSE") < 0 ||
	    extend(c, ca, NID_key_usage, "critical,digitalSignature") < 0 ||
	    extend(c, ca, NID_subject_key_identifier, "hash") < 0 ||
	    extend(c, ca, NID_ext_key_usage,
		   s->server && client ? "serverAuth,clientAuth"
		   : client	       ? "clientAuth"
				       : "serverAuth") < 0)
		return ssl_error(e, "extensions");
	if (sans.len && extend(c, ca, NID_subject_alt_name, sans.data) < 0)
		return ssl_error(e, "--san");
	return 0;
}

static int issue(const struct pki_settings *s, struct err *e)
{
	_cleanup_(key_free_p) EVP_PKEY *ca_key = NULL, *key = NULL;
	_cleanup_(cert_free_p) X509 *ca = NULL, *c = NULL;
	int r;

	if (!s->name || strchr(s->name, '/') || streq(s->name, "ca"))
		return err_set(e, -EINVAL, "--name wants a file name other than 'ca'");
	if (!s->cn)
		return err_set(e, -EINVAL, "--cn is missing");
	r = load_ca(s->dir, &ca, &ca_key, e);
	if (r < 0)
		return r;
	key = EVP_EC_gen("P-256");
	if (!key)
		return ssl_error(e, "key");
	r = cert_new(s->cn, s->orgs, s->days, key, &c, e);
	if (r == 0)
		r = add_usage(c, ca, s, e);
	if (r == 0)
		r = sign(c, ca, ca_key, e);
	return r < 0 ? r : save_pair(s->dir, s->name, c, key, e);
}

/* ---- kubeconfig ---- */

static char *file_base64(const char *dir, const char *name, const char *ending, struct err *e)
{
	_cleanup_free_ char *path = path_of(dir, name, ending), *data = NULL;
	size_t n;
	char *ret;

	if (file_read(path, PEM_MAX, &data, &n, e) < 0)
		return NULL;
	ret = xcalloc(1, n * 4 / 3 + 8);
	EVP_EncodeBlock((unsigned char *)ret, (unsigned char *)data, (int)n);
	return ret;
}

static int kubeconfig(const struct pki_settings *s, struct err *e)
{
	_cleanup_free_ char *ca = NULL, *crt = NULL, *key = NULL, *path = NULL, *text = NULL;

	if (!s->name || !s->server_url)
		return err_set(e, -EINVAL, "--name and --server are needed");
	if (strpbrk(s->server_url, "\"\n\\"))
		return err_set(e, -EINVAL, "--server: '%s' is no URL", s->server_url);
	ca = file_base64(s->dir, "ca", "crt", e);
	crt = ca ? file_base64(s->dir, s->name, "crt", e) : NULL;
	key = crt ? file_base64(s->dir, s->name, "key", e) : NULL;
	if (!key)
		return -ENOENT;
	text = xasprintf(
		"apiVersion: v1\nkind: Config\ncurrent-context: kuayu\n"
		"clusters:\n- name: kuayu\n  cluster:\n    server: \"%s\"\n    certificate-authority-data: "
		"%s\n"
		"users:\n- name: \"%s\"\n  user:\n    client-certificate-data: %s\n    client-key-data: %s\n"
		"contexts:\n- name: kuayu\n  context:\n    cluster: kuayu\n    user: \"%s\"\n",
		s->server_url, ca, s->name, crt, key, s->name);
	path = s->out ? xstrdup(s->out) : path_of(s->dir, s->name, "kubeconfig");
	return file_write_atomic(path, text, strlen(text), 0600, e);
}

static const struct {
	const char *name, *about;
	const struct setting *table;
	size_t n;
	int (*run)(const struct pki_settings *s, struct err *e);
} verbs[] = {
	{"init", "makes the cluster's certificate authority", init_settings, ARRAY_SIZE(init_settings),
	 init_ca},
	{"issue", "issues a certificate with its key", issue_settings, ARRAY_SIZE(issue_settings), issue},
	{"kubeconfig", "writes a kubeconfig for an issued certificate", kubeconfig_settings,
	 ARRAY_SIZE(kubeconfig_settings), kubeconfig},
};

int cmd_pki(int argc, char **argv)
{
	for (size_t i = 0; argc > 1 && i < ARRAY_SIZE(verbs); i++) {
		struct pki_settings s = {0};
		char title[32];
		struct err e = {0};
		int r;

		if (!streq(argv[1], verbs[i].name))
			continue;
		snprintf(title, sizeof(title), "pki %s", verbs[i].name);
		r = settings_parse(title, verbs[i].about, verbs[i].table, verbs[i].n, argc - 1, argv + 1, &s,
				   NULL, &e);
		if (r == 0 && !s.dir)
			r = err_set(&e, -EINVAL, "--dir is missing");
		if (r == 0)
			r = verbs[i].run(&s, &e);
		settings_done(verbs[i].table, verbs[i].n, &s);
		if (r < 0)
			fprintf(stderr, "kuayu %s: %s\n", title, e.text);
		return r < 0 ? 1 : 0;
	}
	fputs("Usage: kuayu pki init|issue|kubeconfig --dir=DIR ...   (kuayu pki VERB --help)\n",
	      argc > 1 ? stderr : stdout);
	return argc > 1 && !streq(argv[1], "--help") ? 2 : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* TLS settings of servers: TLS 1.2 or newer, the certificate chain and key, and client certificates against one CA file.
 * Sessions are not resumed, so that a client certificate is looked at on every connection. */
#include "net/http_internal.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>

static int tls_error(struct err *e, const char *what, const char *file)
{
	char text[200];

	ERR_error_string_n(ERR_get_error(), text, sizeof(text));
	ERR_clear_error();
	return err_set(e, -EINVAL, "%s %s: %s", what, file, text);
}

static int select_http11(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
			 unsigned in_len, void *arg)
{
	static const unsigned char ours[] = "\x08http/1.1";

	(void)ssl, (void)arg;
	if (SSL_select_next_proto((unsigned char **)out, out_len, ours, sizeof(ours) - 1, in, in_len) !=
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_NOACK;
	return SSL_TLSEXT_ERR_OK;
}

int http_tls_server_new(const struct http_server_options *o, SSL_CTX **ret, struct err *e)
{
	SSL_CTX *t = SSL_CTX_new(TLS_server_method());
	int r = 0;

	if (!t)
		return tls_error(e, "TLS", "set-up");
	SSL_CTX_set_min_proto_version(t, TLS1_2_VERSION);
	SSL_CTX_set_session_cache_mode(t, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(t, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
	SSL_CTX_set_mode(t, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
	SSL_CTX_set_alpn_select_cb(t, select_http11, NULL);
	if (SSL_CTX_use_certificate_chain_file(t, o->cert_file) != 1)
		r = tls_error(e, "certificate", o->cert_file);
	else if (SSL_CTX_use_PrivateKey_file(t, o->key_file ? o->key_file : o->cert_file, SSL_FILETYPE_PEM) !=
		 1)
		r = tls_error(e, "private key", o->key_file ? o->key_file : o->cert_file);
	else if (o->client_ca_file && SSL_CTX_load_verify_locations(t, o->client_ca_file, NULL) != 1)
		r = tls_error(e, "CA certificates", o->client_ca_file);
	if (r < 0) {
		SSL_CTX_free(t);
		return r;
	}
	if (o->client_ca_file) {
		SSL_CTX_set_client_CA_list(t, SSL_load_client_CA_file(o->client_ca_file));
		SSL_CTX_set_verify(
			t, SSL_VERIFY_PEER | (o->client_cert_required ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
			NULL);
		SSL_CTX_set_purpose(t, X509_PURPOSE_SSL_CLIENT);
	}
	*ret = t;
	return 0;
}

static char *name_text(const X509_NAME *name, int at)
{
	unsigned char *utf8 = NULL;
	char *ret = NULL;
	int n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));

	if (n >= 0 && !memchr(utf8, 0, (size_t)n))
		ret = xstrndup((char *)utf8, (size_t)n);
	OPENSSL_free(utf8);
	return ret;
}

void http_tls_peer_names(SSL *ssl, char **ret_cn, char ***ret_orgs)
{
	X509 *cert = SSL_get1_peer_certificate(ssl);
	const X509_NAME *name;

	if (!cert)
		return;
	name = X509_get_subject_name(cert);
	for (int at = -1; (at = X509_NAME_get_index_by_NID((X509_NAME *)name, NID_commonName, at)) >= 0;) {
		free(*ret_cn);
		*ret_cn = name_text(name, at);
	}
	for (int at = -1;
	     (at = X509_NAME_get_index_by_NID((X509_NAME *)name, NID_organizationName, at)) >= 0;) {
		_cleanup_free_ char *org = name_text(name, at);

		if (org)
			*ret_orgs = strv_add(*ret_orgs, org);
	}
	X509_free(cert);
}

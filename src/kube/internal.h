/* SPDX-License-Identifier: Apache-2.0 */
/* kube: what its files share. */
#pragma once

#include "kube/kube.h"
#include "net/http_client.h"

#define SERVERS_MAX 16
#define CALLS_MAX   4096 /* at once; more are answered -ENOBUFS */
#define SENT_MAX    48	 /* on their way at once; the others wait, and their time has not begun */
#define WATCHES_MAX 32	 /* connections for lists and watches of caches */
#define CONNECT_TIMEOUT_MS \
	700 /* doubled, up to the next line, while no server at all can be reached: the links may be slow */
#define CONNECT_TIMEOUT_MAX 2800
#define WATCH_SILENCE_MS    3000   /* our servers send bookmarks every second */
#define WATCH_SILENCE_MAX   120000 /* a stock Kubernetes sends them every minute */

struct call;
struct recorder;
struct kube_home;

struct kube {
	uv_loop_t *loop;
	struct http_client *http;
	struct http_client *urgent; /* for Leases only: no burst of other calls may delay a renewal */
	char *servers[SERVERS_MAX]; /* without a '/' at the end */
	size_t n_servers;
	uint64_t server_heard_ms[SERVERS_MAX];
	size_t current;	    /* the one in use */
	char *user_agent;   /* header line */
	struct call *calls; /* doubly linked */
	size_t n_calls;
	struct call *waiting, **waiting_end; /* not sent yet, in order */
	size_t n_sent;
	struct kube_cache *caches; /* doubly linked */
	struct recorder *recorder;
	struct kube_home *home;
	unsigned unreached;	  /* servers that failed in a row */
	uint64_t left_ms;	  /* last change of server */
	uint64_t heard_ms;	  /* last answer or watch data from any server */
	bool bookmarks;		  /* the servers send them often: silence is short */
	int64_t watch_silence_ms; /* grows while no bookmark has been seen */
	const char *component;	  /* user agent's first word, for events */
};

/* ---- config.c ---- */
struct kube_config {
	char **servers;
	char *ca_file, *cert_file, *key_file;
	char *ca_pem, *cert_pem, *key_pem;
	char *token;
	bool insecure;
};
int config_load(const struct kube_settings *s, struct kube_config *ret, struct err *e);
/* Fills what kubeconfig `text` says for its current context; relative files are under dir. */
int config_parse(const char *text, size_t len, const char *dir, struct kube_config *ret, struct err *e);
void config_done(struct kube_config *c);

/* ---- yaml.c ---- */
/* One YAML document as JSON: mappings, sequences, scalars (plain true/false/null/integers typed); aliases refused. */
int yaml_parse_new(const char *text, size_t len, json_t **ret, struct err *e);

/* ---- client.c ---- */
/* Server `from` failed: the next one becomes current, watches on `from` move. Not when it has been heard after since_ms
 * (the failure is a time-out of something begun then: slow, not gone); 0 = leave it in any case. */
void kube_leave(struct kube *k, size_t from, uint64_t since_ms, const char *why);
/* An answer or watch data from a server; it may take longer to connect when none has been heard. */
void kube_heard(struct kube *k, size_t server);
int64_t kube_connect_ms(const struct kube *k);
/* 50 ms, doubled a failure up to 2 s, +- 50 % */
uint64_t backoff_ms(unsigned failures);
uint64_t obj_rv(const json_t *obj);

/* ---- cache.c ---- */
void cache_server_left(struct kube_cache *c, size_t server);
struct kube_cache *cache_next(struct kube_cache *c);

/* ---- events.c ---- */
struct recorder *recorder_new(struct kube *k);
struct recorder *recorder_free(struct recorder *r);

/* ---- home.c: back to the first server ---- */
struct kube_home *kube_home_new(struct kube *k);
struct kube_home *kube_home_free(struct kube_home *h);

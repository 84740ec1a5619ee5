/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu docker-volume: a volume plugin for Docker, HTTP with JSON on a unix socket in /run/docker/plugins, where Docker finds it by its
 * name: `docker volume create -d kuayu NAME`. The loop thread only speaks HTTP; calls run in worker threads, because a volume may be
 * slow. */
#include "io/io.h"
#include "net/http_server.h"
#include "volume/docker/docker.h"
#include "volume/docker/plugin.h"

#define CONTENT_TYPE "application/vnd.docker.plugins.v1.2+json"
#define BODY_MAX     ((size_t)1 << 20)
#define CALLS_MAX    256
#define STOP_S	     5

struct docker_settings {
	char *socket, *volume, *store, *state, *mount_command;
	char **mount_options;
	int64_t mount_timeout_ms;
};

#define S(member) offsetof(struct docker_settings, member)
static const struct setting settings[] = {
	{"socket", SETTING_STRING, S(socket), "/run/docker/plugins/kuayu.sock", 0, 0, "PATH",
	 "socket to serve on; its name is the driver's for Docker"},
	{"volume", SETTING_STRING, S(volume), NULL, 0, 0, "NAME", "kuayu volume that holds Docker's volumes"},
	{"store", SETTING_STRING, S(store), "$KUAYU_STORE", 0, 0, "URI",
	 "store of the volumes, handed to the mount command"},
	{"state", SETTING_STRING, S(state), "/var/lib/kuayu/docker-volume", 0, 0, "DIR",
	 "folder that the volume is mounted in"},
	{"mount-command", SETTING_STRING, S(mount_command), NULL, 0, 0, "WORDS",
	 "called as WORDS VOLUME DIR --store URI --foreground (default: kuayu mount)"},
	{"mount-option", SETTING_STRINGS, S(mount_options), NULL, 0, 0, "WORD,...",
	 "further words for the mount command"},
	{"mount-timeout", SETTING_DURATION, S(mount_timeout_ms), "20s", 100, 600000, "TIME",
	 "how long a mount may take"},
};

struct role {
	uv_loop_t loop;
	struct plugin plugin;
	struct http_server *http;
	size_t running;
};

struct call {
	uv_work_t work;
	struct role *role;
	struct http_req *http;
	char *path;
	json_t *body;
};

static void answer(struct http_req *http, int status, const json_t *out)
{
	_cleanup_free_ char *text = js_text(out);

	http_reply(http, status, CONTENT_TYPE, text, strlen(text), NULL);
}

static void refuse(struct http_req *http, int status, const char *why)
{
	_cleanup_json_ json_t *out = json_pack("{s:s}", "Err", why);

	answer(http, status, out);
}

static void run_call(uv_work_t *work)
{
	struct call *c = container_of(work, struct call, work);
	_cleanup_json_ json_t *out = NULL;
	int status = plugin_call(&c->role->plugin, c->path, c->body, &out);

	if (status != 200)
		log_warn("%s %.200s: %s", c->path, js_str_or(c->body, "Name", ""), js_str_or(out, "Err", ""));
	answer(c->http, status, out);
}

static void on_done(uv_work_t *work, int status)
{
	struct call *c = container_of(work, struct call, work);

	(void)status;
	c->role->running--;
	json_decref(c->body);
	free(c->path);
	free(c);
}

static void handle(void *ctx, struct http_req *http)
{
	struct role *role = ctx;
	struct err e = {0};
	struct call *c;
	json_t *body = NULL;
	size_t len;
	const char *text = http_req_body(http, &len);

	if (!streq(http_req_method(http), "POST")) {
		refuse(http, 405, "POST only");
		return;
	}
	if (len && (js_parse_new(text, len, &body, &e) < 0 || !json_is_object(body))) {
		json_decref(body);
		refuse(http, 400, e.code ? e.text : "the request is no object");
		return;
	}
	if (role->running >= CALLS_MAX) {
		json_decref(body);
		refuse(http, 503, "too many calls at once");
		return;
	}
	c = xcalloc(1, sizeof(*c));
	c->role = role;
	c->http = http;
	c->path = xstrdup(http_req_path(http));
	c->body = body ? body : json_object();
	role->running++;
	if (uv_queue_work(&role->loop, &c->work, run_call, on_done) < 0) {
		refuse(http, 503, "no worker thread");
		on_done(&c->work, 0);
	}
}

/* Calls that run are answered: they hold the server. */
static void on_stop(void *ctx)
{
	struct role *r = ctx;

	alarm(STOP_S); /* a call that waits for a volume must not keep us */
	r->http = http_server_free(r->http);
}

static int prepare_socket(const char *path, struct err *e)
{
	_cleanup_free_ char *dir = xstrdup(path);
	char *slash = strrchr(dir, '/');

	if (*path != '/' || slash == dir)
		return err_set(e, -EINVAL, "--socket=%s must be an absolute path", path);
	*slash = 0;
	return dir_make(dir, 0755, e);
}

static int run(void *ctx, struct err *e)
{
	const struct docker_settings *s = ctx;
	struct role role = {.plugin.volume = s->volume};
	_cleanup_free_ char *mounts = xasprintf("%s/mounts", s->state),
			    *address = xasprintf("unix:%s", s->socket);
	struct mounts_options mo = {.dir = mounts,
				    .command = s->mount_command,
				    .store = s->store,
				    .options = s->mount_options,
				    .timeout_ms = s->mount_timeout_ms};
	struct http_server_options ho = {
		.address = address, .body_max = BODY_MAX, .handle = handle, .ctx = &role};
	int r;

	if (!mounts_name_ok(s->volume))
		return err_set(e, -EINVAL, "--volume is missing, or no name of a volume");
	r = prepare_socket(s->socket, e);
	if (r == 0)
		r = mounts_new(&mo, &role.plugin.mounts, e);
	if (r < 0)
		return r;
	uv_loop_init(&role.loop);
	role.http = http_server_new(&role.loop, &ho, e);
	if (!role.http)
		return e->code ? e->code : -EIO;
	stop_signals(&role.loop, on_stop, &role);
	log_info("serving Docker on %s, volumes on %s", s->socket, s->volume);
	uv_run(&role.loop, UV_RUN_DEFAULT);
	(void)unlink(s->socket);
	mounts_free(role.plugin.mounts);
	uv_loop_close(&role.loop);
	return 0;
}

int cmd_docker_volume(int argc, char **argv)
{
	struct docker_settings s = {0};

	return settings_main("docker-volume", "serves folders of a kuayu volume to Docker as volumes",
			     settings, ARRAY_SIZE(settings), argc, argv, &s, run);
}

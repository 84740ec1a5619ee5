/* SPDX-License-Identifier: Apache-2.0 */
/* Who is asking: a client certificate of our CA (CN = user, O = groups), or a bearer token of the token file. Authorization is
 * thin on purpose: who is authenticated may do everything (docs/api.md). */
#include <openssl/crypto.h>

#include "api/internal.h"

#define TOKEN_FILE_MAX ((size_t)1 << 20)

struct token_user {
	char *name;
};

static void user_free(void *p)
{
	struct token_user *u = p;

	free(u->name);
	free(u);
}

struct strmap *tokens_free(struct strmap *m)
{
	return strmap_free(m, user_free);
}

/* Lines of token,user,uid,"group1,group2" (Kubernetes' static token file). */
int tokens_load(const char *path, struct strmap **ret, struct err *e)
{
	_cleanup_free_ char *text = NULL;
	_cleanup_strv_ char **lines = NULL;
	struct strmap *m = strmap_new();
	size_t len;
	int r = path ? file_read(path, TOKEN_FILE_MAX, &text, &len, e) : 0;

	if (r < 0) {
		tokens_free(m);
		return r;
	}
	lines = strv_split(text ? text : "", '\n', false);
	for (char **l = lines; l && *l; l++) {
		_cleanup_strv_ char **parts = NULL;
		struct token_user *u;

		(*l)[strcspn(*l, "\r")] = 0;
		if (!**l || **l == '#')
			continue;
		parts = strv_split(*l, ',', true);
		if (strv_len(parts) < 3 || !*parts[0] || !*parts[1]) {
			tokens_free(m);
			return err_set(e, -EINVAL, "%s: a line is not token,user,uid[,\"groups\"]", path);
		}
		u = xcalloc(1, sizeof(*u));
		u->name = xstrdup(parts[1]);
		u = strmap_set(m, parts[0], u);
		if (u)
			user_free(u);
	}
	*ret = m;
	return 0;
}

const char *authenticate(struct api *api, const struct http_req *r)
{
	const char *header = http_req_header(r, "authorization");

	if (http_req_cert_cn(r))
		return http_req_cert_cn(r);
	if (header && strncasecmp(header, "Bearer ", 7) == 0) {
		const struct token_user *u;

		header += 7 + strspn(header + 7, " ");
		u = *header ? strmap_get(api->tokens, header) : NULL;
		return u ? u->name : NULL;
	}
	return api->s.anonymous ? "system:anonymous" : NULL;
}

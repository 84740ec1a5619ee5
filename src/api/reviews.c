/* SPDX-License-Identifier: Apache-2.0 */
/* What clients ask about themselves (`kubectl auth can-i`, `auth whoami`): nothing is stored. Who is authenticated may do everything (auth.c), and
 * is told so. Answered in JSON whatever the request was written in. Loop thread. */
#include "api/internal.h"

static json_t *access_new(const struct call *c)
{
	(void)c;
	return json_pack("{sb ss}", "allowed", 1, "reason", "who is authenticated may do everything");
}

static json_t *rules_new(const struct call *c)
{
	(void)c;
	return json_pack("{s[{s[s] s[s] s[s]}] s[{s[s] s[s]}] sb}", "resourceRules", "verbs", "*",
			 "apiGroups", "*", "resources", "*", "nonResourceRules", "verbs", "*",
			 "nonResourceURLs", "*", "incomplete", 0);
}

static json_t *user_new(const struct call *c)
{
	return json_pack("{s{ss s[s]}}", "userInfo", "username", c->user, "groups", "system:authenticated");
}

static const struct {
	const char *group, *plural, *kind;
	json_t *(*status)(const struct call *c);
} table[] = {
	{"authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview", access_new},
	{"authorization.k8s.io", "selfsubjectrulesreviews", "SelfSubjectRulesReview", rules_new},
	{"authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview", user_new},
};

bool reviews(struct call *c, const char *path)
{
	if (!streq(http_req_method(c->http), "POST"))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		_cleanup_free_ char *own = xasprintf("/apis/%s/v1/%s", table[i].group, table[i].plural);
		_cleanup_json_ json_t *body = NULL, *answer = NULL;
		const char *text;
		json_t *spec;
		size_t len;

		if (!streq(own, path))
			continue;
		text = http_req_body(c->http, &len);
		(void)js_parse_new(text, len, &body, NULL);
		spec = json_is_object(body) ? json_object_get(body, "spec") : NULL;
		answer = json_pack("{ss s:s+ s{} so}", "kind", table[i].kind, "apiVersion", table[i].group,
				   "/v1", "metadata", "status", table[i].status(c));
		if (spec)
			json_object_set(answer, "spec", spec);
		http_reply_json(c->http, 201, answer);
		return true;
	}
	return false;
}

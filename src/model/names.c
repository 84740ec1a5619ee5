/* SPDX-License-Identifier: Apache-2.0 */
/* Syntax of names: RFC 1123 labels and subdomains, label keys and values, environment variables, port names. Each check says
 * yes or no; the texts that Kubernetes has for them are in validate.c. */
#include "model/internal.h"

static bool lower_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool alnum(char c)
{
	return lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

static bool label_n(const char *s, size_t n)
{
	if (!n || !lower_alnum(s[0]) || !lower_alnum(s[n - 1]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!lower_alnum(s[i]) && s[i] != '-')
			return false;
	return true;
}

bool model_name_ok(const char *s)
{
	return s && strlen(s) <= 63 && label_n(s, strlen(s));
}

static bool subdomain_n(const char *s, size_t n)
{
	size_t from = 0;

	if (n > 253)
		return false;
	for (size_t i = 0; i <= n; i++)
		if (i == n || s[i] == '.') {
			if (!label_n(s + from, i - from))
				return false;
			from = i + 1;
		}
	return true;
}

bool model_subdomain_ok(const char *s)
{
	return s && subdomain_n(s, strlen(s));
}

/* Letters, digits, "-_."; starts and ends with a letter or digit; at most 63. */
static bool qualified_part(const char *s, size_t n)
{
	if (!n || n > 63 || !alnum(s[0]) || !alnum(s[n - 1]))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!alnum(s[i]) && s[i] != '-' && s[i] != '_' && s[i] != '.')
			return false;
	return true;
}

bool name_is_qualified(const char *s)
{
	const char *slash = strchr(s, '/');

	if (slash && (slash == s || !subdomain_n(s, (size_t)(slash - s))))
		return false;
	return qualified_part(slash ? slash + 1 : s, strlen(slash ? slash + 1 : s));
}

bool name_is_label_value(const char *s)
{
	return !*s || qualified_part(s, strlen(s));
}

bool name_is_rfc1035(const char *s)
{
	return model_name_ok(s) && s[0] >= 'a' && s[0] <= 'z';
}

/* Relaxed as in Kubernetes 1.32: printable ASCII but '='. */
bool name_is_env(const char *s)
{
	if (!*s)
		return false;
	for (; *s; s++)
		if (*s < 0x20 || *s > 0x7e || *s == '=')
			return false;
	return true;
}

bool name_is_config_key(const char *s)
{
	size_t n = strlen(s);

	if (!n || n > 253 || streq(s, ".") || str_starts(s, ".."))
		return false;
	for (size_t i = 0; i < n; i++)
		if (!alnum(s[i]) && s[i] != '-' && s[i] != '_' && s[i] != '.')
			return false;
	return true;
}

const char *name_port_fault(const char *s)
{
	bool letter = false;
	size_t n = strlen(s);

	if (n > 15)
		return "must be no more than 15 characters";
	for (size_t i = 0; i < n; i++) {
		if (!lower_alnum(s[i]) && s[i] != '-')
			return "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)";
		if (s[i] == '-' && i && s[i - 1] == '-')
			return "must not contain consecutive hyphens";
		letter |= s[i] >= 'a' && s[i] <= 'z';
	}
	if (!letter)
		return "must contain at least one letter (a-z)";
	if (s[0] == '-' || s[n - 1] == '-')
		return "must not begin or end with a hyphen";
	return NULL;
}

bool name_is_ipv4(const char *s)
{
	int dots = 0, digits = 0, value = 0;

	for (;; s++) {
		if (*s >= '0' && *s <= '9') {
			if (digits == 1 && value == 0)
				return false;
			value = value * 10 + (*s - '0');
			if (++digits > 3 || value > 255)
				return false;
		} else if (*s == '.' || !*s) {
			if (!digits || (*s && ++dots > 3))
				return false;
			if (!*s)
				return dots == 3;
			digits = value = 0;
		} else {
			return false;
		}
	}
}

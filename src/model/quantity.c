/* SPDX-License-Identifier: Apache-2.0 */
/* resource.Quantity: decimal number with a suffix n u m (none) k M G T P E, Ki Mi Gi Ti Pi Ei, or an exponent e3. Reduced to
 * thousandths in 64 bits; smaller parts are rounded up, as Kubernetes does (a request is never counted too small). */
#include "model/model.h"

#include <math.h>

#define DIGITS_MAX 36 /* more are refused */

struct suffix {
	const char *text;
	int64_t scale;	/* factor to units; 0 = use divide */
	int64_t divide; /* n, u, m: units = value / divide */
};

static const struct suffix suffixes[] = {
	{"n", 0, 1000000000},
	{"u", 0, 1000000},
	{"m", 0, 1000},
	{"", 1, 1},
	{"k", 1000, 1},
	{"M", 1000000, 1},
	{"G", 1000000000, 1},
	{"T", 1000000000000, 1},
	{"P", 1000000000000000, 1},
	{"E", 1000000000000000000, 1},
	{"Ki", 1LL << 10, 1},
	{"Mi", 1LL << 20, 1},
	{"Gi", 1LL << 30, 1},
	{"Ti", 1LL << 40, 1},
	{"Pi", 1LL << 50, 1},
	{"Ei", 1LL << 60, 1},
};

/* The number before the suffix: mantissa / 10^places. Digits that do not fit any more are only noted as lost. */
struct number {
	bool negative, any, lost;
	__int128 mantissa;
	int places;
};

static const char *number_read(const char *s, struct number *n)
{
	bool point = false;
	int digits = 0;

	if (*s == '+' || *s == '-')
		n->negative = *s++ == '-';
	for (; (*s >= '0' && *s <= '9') || (*s == '.' && !point); s++) {
		if (*s == '.') {
			point = true;
			continue;
		}
		n->any = true;
		if (n->mantissa == 0 && *s == '0' && !point)
			continue;
		if (++digits > DIGITS_MAX) {
			if (!point)
				return NULL;
			n->lost |= *s != '0';
			continue;
		}
		n->mantissa = n->mantissa * 10 + (*s - '0');
		n->places += point;
	}
	return n->any ? s : NULL;
}

/* mantissa * 1000 * mul / (div * 10^places), rounded away from zero. */
static int scale(const struct number *n, __int128 mul, __int128 div, int64_t *ret)
{
	const __int128 most = ((__int128)1 << 126);
	__int128 v = n->mantissa;
	bool rest = n->lost;
	int places = n->places;

	for (mul *= 1000; mul > 1;) { /* common factors first, so that long fractions do not overflow */
		if (places && mul % 10 == 0) {
			mul /= 10;
			places--;
			continue;
		}
		if (v > most / mul)
			return -ERANGE;
		v *= mul;
		mul = 1;
	}
	for (; places > 0; places--) {
		rest |= v % 10 != 0;
		v /= 10;
	}
	rest |= v % div != 0;
	v = v / div + rest;
	if (v > INT64_MAX)
		return -ERANGE;
	*ret = n->negative ? (int64_t)-v : (int64_t)v;
	return 0;
}

static int exponent(const struct number *n, const char *s, int64_t *ret_milli)
{
	__int128 mul = 1, div = 1;
	int64_t e;
	int r = str_i64(*s == '+' ? s + 1 : s, &e);

	if (r < 0 || !*s || (s[0] == '+' && (s[1] == '-' || s[1] == '+')))
		return -EINVAL;
	if (e > 18 || e < -30)
		return n->mantissa == 0 ? (*ret_milli = 0, 0) : -ERANGE;
	for (; e > 0; e--)
		mul *= 10;
	for (; e < 0; e++)
		div *= 10;
	return scale(n, mul, div, ret_milli);
}

int model_quantity_milli(const char *text, int64_t *ret_milli)
{
	struct number n = {0};
	const char *s;

	if (!text)
		return -EINVAL;
	s = number_read(text, &n);
	if (!s)
		return n.any ? -ERANGE : -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++)
		if (streq(s, suffixes[i].text))
			return suffixes[i].scale ? scale(&n, suffixes[i].scale, 1, ret_milli)
						 : scale(&n, 1, suffixes[i].divide, ret_milli);
	return *s == 'e' || *s == 'E' ? exponent(&n, s + 1, ret_milli) : -EINVAL;
}

int model_quantity_json(const json_t *q, int64_t *ret_milli)
{
	char text[64];

	if (!q || json_is_null(q)) {
		*ret_milli = 0;
		return 0;
	}
	if (json_is_string(q))
		return model_quantity_milli(json_string_value(q), ret_milli);
	if (json_is_integer(q))
		snprintf(text, sizeof(text), "%lld", (long long)json_integer_value(q));
	else if (json_is_real(q) && isfinite(json_real_value(q)))
		snprintf(text, sizeof(text), "%.9g", json_real_value(q));
	else
		return -EINVAL;
	return model_quantity_milli(text, ret_milli);
}

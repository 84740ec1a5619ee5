/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 request parser. The head is copied once and cut up in place; nothing points into the caller's buffer.
 * Refused on purpose: bare CR or LF, folded lines, white space before the colon, two different lengths, a length together
 * with a transfer coding, control characters, absolute targets with anything but a path behind the authority. */
#include "net/http_parse.h"

#include <strings.h>

static int hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int http_decode(char *s, bool plus)
{
	char *out = s;

	for (; *s; s++) {
		if (*s == '%') {
			int hi = hex(s[1]), lo = hi < 0 ? -1 : hex(s[2]);

			if (lo < 0 || (hi == 0 && lo == 0))
				return -EBADMSG;
			*out++ = (char)(hi << 4 | lo);
			s += 2;
		} else {
			*out++ = plus && *s == '+' ? ' ' : *s;
		}
	}
	*out = 0;
	return 0;
}

static bool token_char(unsigned char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c && strchr("!#$%&'*+-.^_`|~", c));
}

static int parse_query(struct http_head *h, char *q)
{
	for (char *part = q, *next; part; part = next) {
		char *value;

		next = strchr(part, '&');
		if (next)
			*next++ = 0;
		if (!*part)
			continue;
		if (h->n_query == HTTP_QUERY_MAX)
			return -EMSGSIZE;
		value = strchr(part, '=');
		if (value)
			*value++ = 0;
		if (http_decode(part, true) < 0 || (value && http_decode(value, true) < 0))
			return -EBADMSG;
		h->query[h->n_query++] = (struct http_field){part, value ? value : ""};
	}
	return 0;
}

static int parse_target(struct http_head *h, char *target)
{
	char *q;

	if (strncasecmp(target, "http://", 7) == 0 || strncasecmp(target, "https://", 8) == 0) {
		target = strchr(strstr(target, "//") + 2, '/');
		if (!target)
			return -EBADMSG;
	}
	if (*target != '/')
		return -EBADMSG;
	for (const char *c = target; *c; c++)
		if ((unsigned char)*c <= ' ' || *c == 0x7f || *c == '#')
			return -EBADMSG;
	q = strchr(target, '?');
	if (q)
		*q++ = 0;
	h->path = target;
	if (http_decode(target, false) < 0)
		return -EBADMSG;
	return q ? parse_query(h, q) : 0;
}

static int parse_request_line(struct http_head *h, char *line)
{
	char *target = strchr(line, ' '), *version = target ? strchr(target + 1, ' ') : NULL;

	if (!version || target == line)
		return -EBADMSG;
	*target++ = 0;
	*version++ = 0;
	for (const char *c = line; *c; c++)
		if (!token_char((unsigned char)*c))
			return -EBADMSG;
	if (strlen(line) > 31 || strncmp(version, "HTTP/1.", 7) != 0 ||
	    (version[7] != '0' && version[7] != '1') || version[8])
		return -EBADMSG;
	h->method = line;
	h->minor = version[7] - '0';
	h->keep_alive = h->minor == 1;
	return parse_target(h, target);
}

static int parse_field(struct http_head *h, char *line)
{
	char *colon = strchr(line, ':'), *value, *end;

	if (!colon || colon == line)
		return -EBADMSG;
	if (h->n_fields == HTTP_FIELDS_MAX)
		return -EMSGSIZE;
	for (char *c = line; c < colon; c++) {
		if (!token_char((unsigned char)*c))
			return -EBADMSG;
		if (*c >= 'A' && *c <= 'Z')
			*c = (char)(*c + 32);
	}
	*colon = 0;
	value = colon + 1 + strspn(colon + 1, " \t");
	end = value + strlen(value);
	while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
		*--end = 0;
	for (const char *c = value; *c; c++)
		if (((unsigned char)*c < ' ' && *c != '\t') || *c == 0x7f)
			return -EBADMSG;
	h->fields[h->n_fields++] = (struct http_field){line, value};
	return 0;
}

static bool list_has(const char *list, const char *word)
{
	size_t n = strlen(word);

	for (; *list; list += strcspn(list, ","), list += *list == ',') {
		list += strspn(list, " \t");
		if (strncasecmp(list, word, n) == 0 && strchr(", \t", list[n]))
			return true;
	}
	return false;
}

/* What the fields say about the body and the connection. */
static int parse_framing(struct http_head *h)
{
	const char *hosts = NULL;

	h->content_length = -1;
	for (size_t i = 0; i < h->n_fields; i++) {
		const struct http_field *f = &h->fields[i];
		int64_t n;

		if (streq(f->name, "content-length")) {
			if (str_i64(f->value, &n) < 0 || n < 0 || f->value[0] == '+' || f->value[0] == '-' ||
			    (h->content_length >= 0 && n != h->content_length))
				return -EBADMSG;
			h->content_length = n;
		} else if (streq(f->name, "transfer-encoding")) {
			if (h->chunked || h->minor == 0)
				return -EBADMSG;
			if (strcasecmp(f->value, "chunked") != 0)
				return -ENOTSUP;
			h->chunked = true;
		} else if (streq(f->name, "connection")) {
			if (list_has(f->value, "close"))
				h->keep_alive = false;
			else if (list_has(f->value, "keep-alive") && h->minor == 0)
				h->keep_alive = true;
		} else if (streq(f->name, "expect")) {
			h->expect_continue = strcasecmp(f->value, "100-continue") == 0;
		} else if (streq(f->name, "host")) {
			if (hosts)
				return -EBADMSG;
			hosts = f->value;
		}
	}
	if (h->chunked && h->content_length >= 0)
		return -EBADMSG;
	return h->minor == 1 && !hosts ? -EBADMSG : 0;
}

static int parse_lines(struct http_head *h, size_t len)
{
	char *line = h->text, *end = h->text + len;
	int r;

	for (bool first = true; line < end; first = false) {
		char *cr = memchr(line, '\r', (size_t)(end - line));

		if (!cr || cr[1] != '\n' || memchr(line, '\n', (size_t)(cr - line)) ||
		    memchr(line, 0, (size_t)(cr - line)))
			return -EBADMSG;
		*cr = 0;
		if (!*line)
			break; /* the empty line at the end */
		r = first ? parse_request_line(h, line) : parse_field(h, line);
		if (r < 0)
			return r;
		line = cr + 2;
	}
	return h->method ? parse_framing(h) : -EBADMSG;
}

ssize_t http_head_parse(const char *data, size_t len, struct http_head *ret)
{
	struct http_head h = {0};
	const char *end;
	size_t skip = 0, n;
	int r;

	while (len - skip >= 2 && skip < 4 && data[skip] == '\r' && data[skip + 1] == '\n')
		skip += 2; /* RFC 9112 2.2: empty lines before a request are skipped */
	end = memmem(data + skip, len - skip, "\r\n\r\n", 4);
	if (!end)
		return len > HTTP_HEAD_MAX ? -EMSGSIZE : 0;
	n = (size_t)(end - (data + skip)) + 4;
	if (n > HTTP_HEAD_MAX)
		return -EMSGSIZE;
	h.text = xstrndup("", 0);
	h.text = xrealloc(h.text, n + 1);
	memcpy(h.text, data + skip, n);
	h.text[n] = 0;
	r = parse_lines(&h, n);
	if (r < 0) {
		free(h.text);
		return r;
	}
	*ret = h;
	return (ssize_t)(skip + n);
}

void http_head_done(struct http_head *h)
{
	free(h->text);
	*h = (struct http_head){0};
}

const char *http_head_field(const struct http_head *h, const char *lower_name)
{
	for (size_t i = 0; i < h->n_fields; i++)
		if (streq(h->fields[i].name, lower_name))
			return h->fields[i].value;
	return NULL;
}

/* One byte outside of chunk data. */
static int chunk_byte(struct http_chunks *c, char b)
{
	switch (c->state) {
	case CHUNK_SIZE:
		if (hex(b) >= 0) {
			if (++c->digits > 8)
				return -EMSGSIZE;
			c->left = c->left << 4 | (unsigned)hex(b);
			return 0;
		}
		if (!c->digits || (b != ';' && b != '\r'))
			return -EBADMSG;
		c->state = b == ';' ? CHUNK_EXT : CHUNK_SIZE_LF;
		c->line = 0;
		return 0;
	case CHUNK_EXT:
		if (b == '\r')
			c->state = CHUNK_SIZE_LF;
		return b == '\n' || ++c->line > 256 ? -EBADMSG : 0;
	case CHUNK_SIZE_LF:
		c->state = c->left ? CHUNK_DATA : CHUNK_TRAILER;
		c->line = 0;
		return b == '\n' ? 0 : -EBADMSG;
	case CHUNK_CR:
		c->state = CHUNK_LF;
		return b == '\r' ? 0 : -EBADMSG;
	case CHUNK_LF:
		c->state = CHUNK_SIZE;
		c->digits = 0;
		c->left = 0;
		return b == '\n' ? 0 : -EBADMSG;
	default: /* CHUNK_TRAILER: dropped, line by line, until an empty one */
		if (++c->trailers > 8192)
			return -EMSGSIZE;
		if (b == '\n') {
			c->state = c->line == 0 ? CHUNK_DONE : CHUNK_TRAILER;
			c->line = 0;
		} else if (b != '\r') {
			c->line++;
		}
		return 0;
	}
}

ssize_t http_chunks_feed(struct http_chunks *c, const char *data, size_t len, struct buf *out)
{
	size_t i = 0;

	while (i < len && c->state != CHUNK_DONE) {
		int r;

		if (c->state == CHUNK_DATA) {
			size_t n = MIN(len - i, (size_t)c->left);

			if (buf_add(out, data + i, n) < 0)
				return -EMSGSIZE;
			i += n;
			c->left -= n;
			if (!c->left)
				c->state = CHUNK_CR;
			continue;
		}
		r = chunk_byte(c, data[i++]);
		if (r < 0)
			return r;
	}
	return (ssize_t)i;
}

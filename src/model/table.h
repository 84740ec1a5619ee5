/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the table_*.c files only. */
#pragma once

#include "model/internal.h"

struct column {
	const char *name;
	const char *type;   /* string, integer */
	const char *format; /* "name" for the name, else "" */
	int priority;	    /* 0 = always, 1 = with -o wide */
	const char *text;
};

struct table {
	const char *kind;
	const struct column *columns; /* ends with name NULL */
	/* Appends one cell a column. obj is an object of the kind, but may lack anything. */
	void (*cells)(json_t *cells, const json_t *obj, int64_t now_us);
};

#define COLUMNS(...)            \
	(const struct column[]) \
	{                       \
		__VA_ARGS__,    \
		{               \
			0       \
		}               \
	}
#define COLUMN_NAME                                                \
	{                                                          \
		"Name", "string", "name", 0, "Name of the object." \
	}
#define COLUMN_AGE                                                           \
	{                                                                    \
		"Age", "string", "", 0, "Time since the object was created." \
	}

extern const struct table table_pod, table_node, table_service, table_endpoints, table_slice;
extern const struct table table_deployment, table_replica_set, table_stateful_set, table_revision;
extern const struct table table_claim, table_volume, table_storage_class, table_csi_driver, table_csi_node;
extern const struct table table_event, table_namespace, table_config_map, table_secret, table_account,
	table_lease;

#define AGE_MAX 32
/* As kubectl writes durations: 42s, 3m5s, 2h10m, 5d. */
const char *age_text(char out[AGE_MAX], int64_t us);
/* Time since an RFC 3339 text; "<unknown>" when there is none. */
const char *since_text(char out[AGE_MAX], const char *rfc3339, int64_t now_us);

void cell(json_t *cells, const char *text);			      /* NULL = "" */
void cell_or(json_t *cells, const char *text, const char *otherwise); /* otherwise for NULL and "" */
void cell_int(json_t *cells, int64_t n);
void cell_age(json_t *cells, const json_t *obj, int64_t now_us);
void cell_buf(json_t *cells, const struct buf *b, const char *otherwise);
/* Appends s behind a comma. */
void join(struct buf *b, const char *s);

/* SPDX-License-Identifier: Apache-2.0 */
/* catalog: the small volumes (of claims, of Docker) that lie as folders on a mounted kuayu volume. Below ROOT/BASE:
 *
 *   volumes/KEY/      the files, which the pods see
 *   meta/KEY.json     {"name", "bytes", "parameters"}; made last and removed first: with it the volume exists
 *   trash/            folders of removed volumes, emptied in the background
 *   home/DOMAIN/      where folders with a home are made before they are moved to volumes/: a kuayu folder keeps the home that the folder
 *                     it was made in gave it (extended attribute user.kuayu.home of DOMAIN/)
 *
 * KEY is the name where that is a good file name, else "h-" and its SHA-256. All steps are atomic on a shared file system (link, rename),
 * so that any number of nodes may work on one catalog; there is no other state. Any thread. */
#pragma once

#include "base/base.h"

struct catalog {
	char *root; /* of the mount */
	const char *base;
};

struct catalog_volume {
	char *name, *key;
	int64_t bytes;
	json_t *parameters;
};

#define CATALOG_VOLUMES_MAX 100000
#define CATALOG_KEY_MAX	    128

void catalog_volume_done(struct catalog_volume *v);
/* out: at least CATALOG_KEY_MAX + 1 */
void catalog_key(const char *name, char *out);
char *catalog_path(const struct catalog *c, const char *key);
struct catalog_wanted {
	const char *name;
	int64_t bytes, limit; /* limit 0 = none */
	const json_t *parameters;
	mode_t mode;	  /* of the new folder */
	const char *home; /* domain; NULL = any. Tried: other file systems know no homes */
};
/* Makes it, or finds one that fits: the same parameters, and room for `bytes`, at most `limit`. -EEXIST: one that does not. */
int catalog_create(const struct catalog *c, const struct catalog_wanted *w, struct catalog_volume *ret,
		   struct err *e);
/* -ENOENT */
int catalog_get(const struct catalog *c, const char *key, struct catalog_volume *ret, struct err *e);
/* 0 also when there is none. */
int catalog_remove(const struct catalog *c, const char *key, struct err *e);
/* Never smaller; *ret is what it has then. -ENOENT */
int catalog_expand(const struct catalog *c, const char *key, int64_t bytes, int64_t *ret, struct err *e);
/* Keys, sorted; NULL-terminated, malloc'ed. */
int catalog_list(const struct catalog *c, char ***ret, struct err *e);
/* Removes what is in the trash; may take long. */
void catalog_empty_trash(const struct catalog *c);

/* SPDX-License-Identifier: Apache-2.0 */
/* Images: found in the local store of OCI layouts or pulled, unpacked once, shared read-only by all containers. */
#pragma once

#include "io/io.h"

struct images;

struct images_options {
	const char *dir;       /* cache: DIR/HEX/{rootfs,config.json} and DIR/refs/ */
	const char *store;     /* folder of OCI layouts, STORE/NAME with tag TAG; NULL = none */
	char *const *insecure; /* HOST:PORT of registries without TLS; may be NULL */
};

struct image {
	const char *rootfs;   /* absolute */
	const char *id;	      /* "NAME@sha256:..." */
	const json_t *config; /* `config` of the image's configuration (Env, Cmd, ...); NULL = none */
};

/* why: Kubernetes reason ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName"), NULL on success. */
typedef void (*image_done_fn)(void *ctx, const struct image *img, const char *why, const char *text);

struct images *images_new(uv_loop_t *loop, const struct images_options *o, struct err *e);
/* policy: "Always", "IfNotPresent", "Never" or NULL (by tag). done is called once: at once from inside when the image is
 * there already, else later. The image stays valid for the life of `images`. */
void images_get(struct images *im, const char *ref, const char *policy, image_done_fn done, void *ctx);
/* Forget a request (by ctx) that waits: done is not called. */
void images_cancel(struct images *im, void *ctx);
/* Digest "sha256:..." that tag has in the OCI layout's index; malloc'ed; -ENOENT. */
int oci_layout_digest(const char *layout, const char *tag, char **ret, struct err *e);
/* "host:5000/a/b:tag" -> name and tag ("latest" if none); digests count as tag "sha256:...". -EINVAL for what no reference can be. */
int image_ref_split(const char *ref, char **ret_name, char **ret_tag);

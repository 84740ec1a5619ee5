/* SPDX-License-Identifier: Apache-2.0 */
/* Pod and container as the API has them -> config.json of the OCI runtime. Pure. */
#pragma once

#include "base/base.h"

struct oci_mount {
	char *source, *target;
	bool read_only;
	bool slave; /* what is mounted there later on the node appears in the container too */
};

struct oci_input {
	const json_t *pod, *container;
	const json_t *image; /* image configuration, `config` member of the image's blob; may be NULL */
	const json_t *env;   /* from env_resolve() */
	const char *rootfs;  /* absolute, where the monitor mounts the overlay */
	const char *passwd, *group; /* texts of the image's /etc/passwd and /etc/group; NULL = none */
	const struct oci_mount *mounts;
	size_t n_mounts;
	const char *ns_net, *ns_uts, *ns_ipc; /* bind-mounted namespaces; NULL = the node's own */
	const char *cgroup;		      /* cgroupsPath */
	const char *hostname;
};

/* New reference; -EINVAL (bad user, nothing to run) with a text. */
int oci_config_new(const struct oci_input *in, json_t **ret, struct err *e);
/* What a container asks for, in thousandths of a processor: its request, else its limit; 0 = nothing. */
int64_t oci_cpu_millis(const json_t *container);
/* The same as a control group's relative weight (cpu.shares): 1,024 a processor, 2 at least. */
int64_t oci_shares(int64_t cpu_millis);

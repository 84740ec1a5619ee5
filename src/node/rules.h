/* SPDX-License-Identifier: Apache-2.0 */
/* Services and EndpointSlices -> the nftables table `kuayu`. Pure: objects in, text for libnftables out. */
#pragma once

#include "base/base.h"

struct rules_input {
	json_t *services, *slices; /* arrays of objects */
	const char *node, *zone;
	const char *pod_cidr;	    /* of this node; NULL = none yet */
	char *const *cluster_cidrs; /* pod networks of all nodes */
	const char *service_cidr;   /* what is not translated there is refused */
	json_t *host_ports; /* of this node's pods: [[protocol, hostPort, pod IP, containerPort], ...]; may be NULL */
};

/* A whole transaction: makes the table, empties it, fills it. */
int rules_text(const struct rules_input *in, struct buf *out);
/* Ready endpoints (address, port) of one service port; array of [address, port], own node first, then own zone, else all for
 * PreferClose; new reference. */
json_t *rules_endpoints_new(const struct rules_input *in, const json_t *service, const json_t *port);

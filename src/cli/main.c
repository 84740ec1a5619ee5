/* SPDX-License-Identifier: Apache-2.0 */
/* kuayu: one executable, one process a role. The whole command line is this table. */
#include "base/base.h"
#include "api/api.h"
#include "cli/cli.h"
#include "control/control.h"
#include "db/db.h"
#include "gateway/gateway.h"
#include "node/node.h"
#include "sched/sched.h"
#include "volume/brick/brick.h"
#include "volume/cmd/cmd.h"
#include "volume/csi/csi_driver.h"
#include "volume/docker/docker.h"
#include "volume/mount.h"

static int cmd_version(int argc, char **argv)
{
	(void)argc, (void)argv;
	puts("kuayu " KUAYU_VERSION);
	return 0;
}

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *text;
} verbs[] = {
	{"api", cmd_api, "API server: Kubernetes REST over etcd or SQLite"},
	{"controller", cmd_controller, "controllers: deployments, stateful sets, endpoints, node lifecycle"},
	{"scheduler", cmd_scheduler, "places pods on nodes"},
	{"node", cmd_node, "node agent: pods, probes, logs, pod network, service addresses"},
	{"gateway", cmd_gateway, "traffic gateway of a domain: drives HAProxy"},
	{"db", cmd_db, "supervises one MariaDB + Galera member"},
	{"brick", cmd_brick, "keeps copies of volumes' files and serves them"},
	{"csi", cmd_csi, "CSI driver: kuayu volumes for pods, here and on a stock Kubernetes"},
	{"docker-volume", cmd_docker_volume, "volume plugin for Docker: folders of a kuayu volume"},
	{"mount", cmd_mount, "mounts a volume"},
	{"umount", cmd_umount, "unmounts a volume"},
	{"volume", cmd_volume, "volumes: create, start, status, heal, where ..."},
	{"pki", cmd_pki, "makes the cluster's CA and certificates"},
	{"version", cmd_version, "prints the version"},
};

/* mount(8): as /sbin/mount.fuse.kuayu, or by way of mount.fuse3, which runs `kuayu VOLUME DIR -o OPTIONS`. */
static bool called_by_mount(int argc, char **argv)
{
	return str_ends(argv[0], "mount.fuse.kuayu") ||
	       (argc >= 5 && argv[2][0] == '/' && streq(argv[3], "-o"));
}

static void usage(FILE *f)
{
	fputs("Usage: kuayu VERB [OPTION ...]\n\nVerbs:\n", f);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(f, "  %-12s %s\n", verbs[i].name, verbs[i].text);
	fputs("\n'kuayu VERB --help' lists a verb's options.\n", f);
}

int main(int argc, char **argv)
{
	if (argc > 0 && called_by_mount(argc, argv))
		return cmd_mount(argc, argv);
	if (argc < 2) {
		usage(stderr);
		return 2;
	}
	if (streq(argv[1], "--help") || streq(argv[1], "-h") || streq(argv[1], "help")) {
		usage(stdout);
		return 0;
	}
	if (streq(argv[1], "--version"))
		return cmd_version(0, NULL);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (streq(argv[1], verbs[i].name))
			return verbs[i].run(argc - 1, argv + 1);
	fprintf(stderr, "kuayu: unknown verb '%s'; 'kuayu --help' lists them\n", argv[1]);
	return 2;
}

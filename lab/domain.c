/* SPDX-License-Identifier: Apache-2.0 */
/* lab-domain: the power supply of a machine of the lab.
 *
 * Starts process 1 of the machine in network, process, mount, host-name, IPC and control-group namespaces of its own, writes
 * "ready PID" to standard output, and stays as its parent. SIGTERM (or the death of whoever started it) is a power cut:
 * the disk forgets what was not flushed, process 1 is killed and the kernel kills all others with it at once, mounts
 * and interfaces go with the namespaces, the control groups are removed. Exit status 0 after a power cut, 1 when the machine could not
 * start or ended by itself. The caller unplugs the machine from the wire first: the kernel says goodbye (FIN, RST) for
 * killed processes, a machine without power does not. */
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <linux/sched.h>
#include <sys/wait.h>

#include "lab/domain.h"

#define AT(field) offsetof(struct domain_options, field)

static const struct setting table[] = {
	{"name", SETTING_STRING, AT(name), NULL, 0, 0, "NAME", "host name of the machine"},
	{"units", SETTING_STRING, AT(units), NULL, 0, 0, "FILE", "unit file (JSON)"},
	{"disk", SETTING_STRING, AT(disk), NULL, 0, 0, "FILE", "image of its ext4 disk"},
	{"disk-at", SETTING_STRING, AT(disk_at), NULL, 0, 0, "DIR", "where the disk is mounted"},
	{"disk-dir", SETTING_STRINGS, AT(disk_dir), NULL, 0, 0, "DIR", "folder that lives on the disk"},
	{"bind", SETTING_STRINGS, AT(bind), NULL, 0, 0, "SRC:DST", "folder of the host"},
	{"tmpfs", SETTING_STRINGS, AT(tmpfs), NULL, 0, 0, "DIR", "folder that is empty at each start"},
	{"keep", SETTING_STRINGS, AT(keep), NULL, 0, 0, "DIR",
	 "folder that stays visible where it is, whatever covers it"},
	{"cgroup", SETTING_STRING, AT(cgroup), NULL, 0, 0, "PATH", "its control group in every tree"},
	{"cpu-millis", SETTING_INT, AT(cpu_millis), "0", 0, 1000000, "N",
	 "thousandths of a processor that it may use; 0: what there is"},
};

static void loopback_up(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	_cleanup_close_ int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		log_warn("lo: %s", strerror(errno));
}

/* In the new process: everything up to the loop of process 1. */
static int machine(const struct domain_options *o, int ready)
{
	struct err e = {.code = 0};
	int r;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	r = o->cgroup ? cgroup_enter(o->cgroup, &e) : 0;
	if (r == 0 && o->cgroup && unshare(CLONE_NEWCGROUP) < 0)
		r = err_errno(&e, -errno, "control group namespace");
	if (r == 0 && sethostname(o->name, strlen(o->name)) < 0)
		r = err_errno(&e, -errno, "host name");
	if (r == 0)
		r = domain_mount(o, &e);
	if (r < 0) {
		log_error("%s: %s", o->name, e.text);
		return 1;
	}
	loopback_up();
	if (write(ready, "r", 1) != 1)
		return 1;
	close(ready);
	return domain_init(o);
}

static pid_t machine_start(const struct domain_options *o, struct err *e)
{
	struct clone_args args = {.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWUTS |
					   CLONE_NEWIPC,
				  .exit_signal = SIGCHLD};
	int fd[2];
	char word;
	pid_t pid;

	if (pipe2(fd, O_CLOEXEC) < 0)
		return err_errno(e, -errno, "pipe");
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
	if (pid == 0) {
		close(fd[0]);
		exit(machine(o, fd[1]));
	}
	close(fd[1]);
	if (pid < 0) {
		close(fd[0]);
		return err_errno(e, -errno, "new namespaces");
	}
	if (read(fd[0], &word, 1) != 1) { /* it logged why */
		close(fd[0]);
		waitpid(pid, NULL, 0);
		return err_set(e, -EIO, "%s did not start", o->name);
	}
	close(fd[0]);
	return pid;
}

/* Waits for the power cut or the end of process 1; true when it was the cut. */
static bool wait_for_cut(pid_t init, int sigfd)
{
	struct signalfd_siginfo si;

	while (read(sigfd, &si, sizeof si) == sizeof si) {
		if (si.ssi_signo != SIGCHLD)
			return true;
		if (waitpid(init, NULL, WNOHANG) == init)
			return false;
	}
	return true;
}

static int supply(const struct domain_options *o, struct err *e)
{
	struct err cgroup_err = {.code = 0};
	_cleanup_close_ int sigfd = -1;
	sigset_t set;
	pid_t init;
	bool cut;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigfd = signalfd(-1, &set, SFD_CLOEXEC);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (o->cgroup && (cgroup_remove(o->cgroup, e) < 0 || cgroup_make(o->cgroup, o->cpu_millis, e) < 0))
		return e->code;
	init = machine_start(o, e);
	if (init > 0) {
		printf("ready %d\n", (int)init);
		fflush(stdout);
		cut = wait_for_cut(init, sigfd);
		if (cut) {
			domain_disk_cut(o, init);
			kill(init, SIGKILL);
			waitpid(init, NULL, 0);
		} else {
			err_set(e, -EIO, "%s ended by itself", o->name);
		}
	}
	if (o->cgroup && cgroup_remove(o->cgroup, &cgroup_err) < 0 && !e->code)
		*e = cgroup_err;
	return e->code;
}

int main(int argc, char **argv)
{
	struct domain_options o = {.name = NULL};
	struct err e = {.code = 0};
	int r;

	log_init("domain", LOG_LEVEL_INFO);
	r = settings_parse("lab-domain", "runs a machine of the lab", table, ARRAY_SIZE(table), argc, argv,
			   &o, NULL, &e);
	if (r > 0)
		return 0;
	if (r == 0 && (!o.name || !o.units || (o.disk && !o.disk_at)))
		r = err_set(&e, -EINVAL, "--name and --units are needed, --disk needs --disk-at");
	if (r == 0)
		r = supply(&o, &e);
	if (r < 0)
		log_error("%s", e.text);
	settings_done(table, ARRAY_SIZE(table), &o);
	return r < 0 ? 1 : 0;
}

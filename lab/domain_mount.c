/* SPDX-License-Identifier: Apache-2.0 */
/* The file system as a machine of the lab sees it: the host's root, with the folders that make it a machine of its own on
 * top: its disk (a loop-mounted ext4 image, so that a power cut can lose what was not flushed), /proc, /sys, control
 * groups, an empty /run. All mounts are in the machine's namespace and go with its last process; the loop device
 * detaches itself then. */
#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "lab/domain.h"

#define EXT4_IOC_SHUTDOWN     0x8004587d
#define EXT4_SHUTDOWN_NOFLUSH 2 /* EXT4_GOING_FLAGS_NOLOGFLUSH: not even the journal */
#define LOOP_ATTEMPTS	      100
#define KEEP_MAX	      8

/* Attaches the image to a free loop device that detaches itself after its unmount. */
static int loop_attach(const char *image, char dev[32], struct err *e)
{
	_cleanup_close_ int file = open(image, O_RDWR | O_CLOEXEC);
	_cleanup_close_ int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

	if (file < 0 || control < 0)
		return err_errno(e, -errno, "open %s", file < 0 ? image : "/dev/loop-control");
	for (int i = 0; i < LOOP_ATTEMPTS; i++) {
		struct loop_config c = {.fd = (__u32)file, .info.lo_flags = LO_FLAGS_AUTOCLEAR};
		int n = ioctl(control, LOOP_CTL_GET_FREE), fd;
		if (n < 0)
			return err_errno(e, -errno, "no free loop device");
		snprintf(dev, 32, "/dev/loop%d", n);
		fd = open(dev, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			return err_errno(e, -errno, "open %s", dev);
		if (ioctl(fd, LOOP_CONFIGURE, &c) == 0)
			return fd; /* stays open until it is mounted */
		close(fd);	   /* someone else was faster */
		usleep(10000);
	}
	return err_set(e, -EBUSY, "no free loop device for %s", image);
}

static int disk_mount(const struct domain_options *o, struct err *e)
{
	char dev[32];
	_cleanup_close_ int fd = loop_attach(o->disk, dev, e);

	if (fd < 0)
		return fd;
	if (mount(dev, o->disk_at, "ext4", MS_NOATIME, NULL) < 0)
		return err_errno(e, -errno, "mount %s (%s) at %s", o->disk, dev, o->disk_at);
	return 0;
}

static int bind_mount(const char *src, const char *dst, struct err *e)
{
	if (mount(src, dst, NULL, MS_BIND | MS_REC, NULL) < 0)
		return err_errno(e, -errno, "bind %s at %s", src, dst);
	return 0;
}

/* A folder of the host that something else now covers (a clone in /tmp, say) is bound where it was. fd: opened before. */
static int keep_mount(int fd, const char *path, struct err *e)
{
	char src[40];
	struct stat before, now;
	int r;

	if (fstat(fd, &before) == 0 && stat(path, &now) == 0 && before.st_dev == now.st_dev &&
	    before.st_ino == now.st_ino)
		return 0;
	snprintf(src, sizeof(src), "/proc/self/fd/%d", fd);
	r = dir_make(path, 0755, e);
	return r < 0 ? r : bind_mount(src, path, e);
}

/* Binds first, while their sources can be seen; the disk's folders and the empty ones may cover them. */
static int folders_mount(const struct domain_options *o, struct err *e)
{
	_cleanup_close_ int disk = -1;
	int r = 0;

	for (char **b = o->bind; r == 0 && b && *b; b++) {
		_cleanup_strv_ char **part = strv_split(*b, ':', false);
		if (strv_len(part) != 2)
			return err_set(e, -EINVAL, "--bind=SRC:DST, not %s", *b);
		r = bind_mount(part[0], part[1], e);
	}
	if (r == 0 && o->disk && (disk = open(o->disk_at, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
		r = err_errno(e, -errno, "open %s", o->disk_at);
	for (char **d = o->disk_dir; r == 0 && d && *d; d++) {
		_cleanup_free_ char *src = xasprintf("/proc/self/fd/%d%s", disk, *d);
		r = dir_make(src, 0755, e);
		r = r < 0 ? r : bind_mount(src, *d, e);
		/* Mounts made in there later reach the pods that are there already, as on a machine that systemd has started. */
		if (r == 0 && mount(NULL, *d, NULL, MS_SHARED, NULL) < 0)
			r = err_errno(e, -errno, "shared mount %s", *d);
	}
	for (char **t = o->tmpfs; r == 0 && t && *t; t++)
		if (mount("tmpfs", *t, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") < 0)
			r = err_errno(e, -errno, "empty folder at %s", *t);
	return r;
}

static int all_folders_mount(const struct domain_options *o, struct err *e)
{
	int fd[KEEP_MAX], n = 0, r = 0;

	for (char **k = o->keep; r == 0 && k && *k; k++) {
		if (n == KEEP_MAX)
			r = err_set(e, -E2BIG, "--keep: at most %d folders", KEEP_MAX);
		else if ((fd[n] = open(*k, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
			r = err_errno(e, -errno, "open %s", *k);
		else
			n++;
	}
	r = r < 0 ? r : folders_mount(o, e);
	for (int i = 0; i < n; i++) {
		r = r < 0 ? r : keep_mount(fd[i], o->keep[i], e);
		close(fd[i]);
	}
	return r;
}

/* Each start of the machine has a boot id of its own, as on a real one: programs tell a crash from a power cut by it. */
static int boot_id_mount(struct err *e)
{
	static const char file[] = "/run/lab-boot-id";
	char id[38];
	_cleanup_close_ int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0444);

	random_uuid(id);
	strcat(id, "\n");
	if (fd < 0 || write(fd, id, strlen(id)) < 0)
		return err_errno(e, -errno, "write %s", file);
	return bind_mount(file, "/proc/sys/kernel/random/boot_id", e);
}

int domain_mount(const struct domain_options *o, struct err *e)
{
	int r = 0;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return err_errno(e, -errno, "private mounts");
	if (o->disk)
		r = disk_mount(o, e);
	r = r < 0 ? r : all_folders_mount(o, e);
	if (r < 0)
		return r;
	if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return err_errno(e, -errno, "mount /proc");
	r = boot_id_mount(e);
	if (r < 0)
		return r;
	/* Listed before /sys hides the host's trees; needs the machine's /proc. */
	if (o->cgroup) {
		r = cgroup_mount(e);
		if (r < 0)
			return r;
	}
	return 0;
}

void domain_disk_cut(const struct domain_options *o, pid_t init)
{
	char path[512];
	unsigned flags = EXT4_SHUTDOWN_NOFLUSH;
	_cleanup_close_ int fd = -1;

	if (!o->disk)
		return;
	snprintf(path, sizeof path, "/proc/%d/root%s", (int)init, o->disk_at);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || ioctl(fd, EXT4_IOC_SHUTDOWN, &flags) < 0)
		log_warn("%s: its disk could not be cut off: %s", o->name, strerror(errno));
}

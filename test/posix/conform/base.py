# SPDX-License-Identifier: Apache-2.0
"""What the tables use: a scratch folder, assertions that are counted, system calls as another user, objects of every type."""
import contextlib
import errno
import os
import shutil
import socket
import stat
import time

TYPES = ("file", "dir", "fifo", "block", "char", "socket", "symlink")
FORMAT = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "fifo": stat.S_IFIFO, "block": stat.S_IFBLK, "char": stat.S_IFCHR,
          "socket": stat.S_IFSOCK, "symlink": stat.S_IFLNK}
ALICE, BOB, CAROL = 65532, 65533, 65534  # users without a name; each has the group of its number
TICK_S = 0.012  # longer than the granularity of the kernel's time stamps


def name_of(e):
    return errno.errorcode.get(e, str(e)) if e else "success"


class Checker:
    """root: a folder that is this checker's. failures: texts; count: assertions made."""

    def __init__(self, root, outside="/tmp"):
        self.base, self.outside = root, outside  # outside: a folder on another file system
        self.root, self.count, self.failures, self.group, self.n = "", 0, [], "", 0

    @contextlib.contextmanager
    def scratch(self, group):
        """A fresh folder, world-writable, for one group of assertions."""
        self.group, self.n = group, self.n + 1
        self.root = f"{self.base}/conform-{self.n}"
        os.mkdir(self.root)
        os.chmod(self.root, 0o777)
        try:
            yield self
        except OSError as e:
            self.check(False, f"stopped by {name_of(e.errno)}: {e}")
        finally:
            shutil.rmtree(self.root, ignore_errors=True)

    def path(self, name):
        return f"{self.root}/{name}"

    def check(self, ok, what):
        self.count += 1
        if not ok:
            self.failures.append(f"{self.group}: {what}")
        return ok

    def equal(self, got, want, what):
        return self.check(got == want, f"{what}: is {got!r}, should be {want!r}")

    def call(self, want, what, function, *args, **options):
        """function must succeed (want = 0) or fail with this error (a number or a tuple of several that are allowed)."""
        want = want if isinstance(want, tuple) else (want,)
        try:
            result, got = function(*args, **options), 0
        except OSError as e:
            result, got = None, e.errno
        self.check(got in want, f"{what}: {name_of(got)}, should be {' or '.join(name_of(w) for w in want)}")
        return result

    @contextlib.contextmanager
    def user(self, uid, gid=None, groups=()):
        """The calls in here are made by this user."""
        gid = uid if gid is None else gid
        before = os.getgroups()
        os.setgroups(list(groups))
        os.setegid(gid)
        os.seteuid(uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(0)
            os.setgroups(before)

    def make(self, kind, name, mode=0o644, owner=None):
        """An object of this type; its path."""
        path = name if name.startswith("/") else self.path(name)
        if kind == "file":
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
        elif kind == "dir":
            os.mkdir(path, mode)
        elif kind == "fifo":
            os.mkfifo(path, mode)
        elif kind in ("block", "char"):
            os.mknod(path, FORMAT[kind] | mode, os.makedev(1, 3))
        elif kind == "socket":
            make_socket(path)
        else:
            os.symlink("nowhere", path)
        if owner is not None:
            os.lchown(path, owner, owner)
        if kind != "symlink":
            os.chmod(path, mode)
        return path


def make_socket(path):
    """Bound through a short path, because sun_path holds 107 bytes only; a long name is given by a rename."""
    name = os.path.basename(path)
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.bind(f"/proc/self/fd/{folder}/{name if len(name) < 80 else 'short'}")
            except OSError as e:  # bind has a word of its own for a name that is taken
                raise OSError(errno.EEXIST if e.errno == errno.EADDRINUSE else e.errno, "bind") from None
        if len(name) >= 80:
            os.rename("short", name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        os.close(folder)


def open_close(path, flags, mode=0o644):
    os.close(os.open(path, flags, mode))


def tick():
    time.sleep(TICK_S)


def ctime(path):
    return os.lstat(path).st_ctime_ns


def mtime(path):
    return os.lstat(path).st_mtime_ns


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        os.rmdir(path)
    else:
        os.unlink(path)

# SPDX-License-Identifier: Apache-2.0
"""utimensat with what it may be given and by whom; which calls move which time."""
import ctypes
import errno
import os

from test.posix.conform.base import ALICE, BOB, TYPES, ctime, mtime, open_close, tick

LIBC = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, AT_SYMLINK_NOFOLLOW, UTIME_NOW, UTIME_OMIT = -100, 0x100, (1 << 30) - 1, (1 << 30) - 2
STAMPS = ((0, 0), (1, 1), (1000000000, 999999999), (1700000000, 123456789), (2147483647, 0), (2147483648, 5), (4294967296, 7), (4102444800, 500))


class Timespec(ctypes.Structure):
    _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]


def utimensat(path, atime, mtime_, flags=0):
    times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime_))
    if LIBC.utimensat(AT_FDCWD, os.fsencode(path), times, flags) < 0:
        raise OSError(ctypes.get_errno(), "utimensat")


def run(c):
    for kind in TYPES:
        with c.scratch(f"utimensat {kind}"):
            stamps(c, kind)
    with c.scratch("utimensat by whom"):
        by_whom(c)
    with c.scratch("times of files"):
        files(c)
    with c.scratch("times of folders"):
        folders(c)


def stamps(c, kind):
    path = c.make(kind, "x")
    for a in STAMPS:
        for m in (a, STAMPS[3]):
            before = ctime(path)
            c.call(0, f"set {a} {m}", utimensat, path, a, m, AT_SYMLINK_NOFOLLOW)
            st = os.lstat(path)
            c.equal((st.st_atime_ns, st.st_mtime_ns), (a[0] * 10**9 + a[1], m[0] * 10**9 + m[1]), f"times {a} {m}")
            c.check(ctime(path) >= before, "ctime does not go back")
    utimensat(path, (5, 5), (6, 6), AT_SYMLINK_NOFOLLOW)
    c.call(0, "leave the mtime", utimensat, path, (7, 7), (0, UTIME_OMIT), AT_SYMLINK_NOFOLLOW)
    c.equal((os.lstat(path).st_atime_ns, mtime(path)), (7 * 10**9 + 7, 6 * 10**9 + 6), "mtime was left")
    c.call(0, "leave the atime", utimensat, path, (0, UTIME_OMIT), (8, 8), AT_SYMLINK_NOFOLLOW)
    c.equal((os.lstat(path).st_atime_ns, mtime(path)), (7 * 10**9 + 7, 8 * 10**9 + 8), "atime was left")
    before = ctime(path)
    tick()
    c.call(0, "now", utimensat, path, (0, UTIME_NOW), (0, UTIME_NOW), AT_SYMLINK_NOFOLLOW)
    st = os.lstat(path)
    c.check(st.st_mtime_ns > before and st.st_atime_ns > before and st.st_ctime_ns > before, "all times are now")
    c.check(abs(st.st_mtime_ns - st.st_atime_ns) < 10**9, "both are the same now")
    for bad in (-1, 10**9, 2 * 10**9):
        if bad not in (UTIME_NOW, UTIME_OMIT):
            c.call(errno.EINVAL, f"{bad} nanoseconds", utimensat, path, (1, bad), (1, 1), AT_SYMLINK_NOFOLLOW)


def by_whom(c):
    for kind in ("file", "dir", "fifo"):
        path = c.make(kind, kind, 0o666, ALICE)
        explicit, now, omit = ((1, 1), (2, 2)), ((0, UTIME_NOW), (0, UTIME_NOW)), ((0, UTIME_OMIT), (0, UTIME_OMIT))
        half = ((0, UTIME_NOW), (0, UTIME_OMIT))
        with c.user(ALICE):
            for name, times in (("explicit", explicit), ("now", now), ("omit", omit), ("half", half)):
                c.call(0, f"{kind}: {name} by the owner", utimensat, path, *times)
        with c.user(BOB):
            c.call(0, f"{kind}: now by who may write", utimensat, path, *now)
            c.call(errno.EPERM, f"{kind}: explicit by who may write", utimensat, path, *explicit)
            c.call(errno.EPERM, f"{kind}: half by who may write", utimensat, path, *half)
        os.chmod(path, 0o644)
        with c.user(BOB):
            c.call(errno.EACCES, f"{kind}: now by who may not write", utimensat, path, *now)
            c.call(errno.EPERM, f"{kind}: explicit by who may not write", utimensat, path, *explicit)
            c.call(0, f"{kind}: omit by anybody", utimensat, path, *omit)
        os.chmod(path, 0o444)
        with c.user(ALICE):
            c.call(0, f"{kind}: now by the owner of what is read-only", utimensat, path, *now)


def moves(c, what, path, action, m, ct):
    """action moves mtime (m) and ctime (ct) or leaves them."""
    before = os.stat(path)
    tick()
    action()
    after = os.stat(path)
    c.equal(after.st_mtime_ns > before.st_mtime_ns, m, f"{what}: mtime moves")
    c.equal(after.st_ctime_ns > before.st_ctime_ns, ct, f"{what}: ctime moves")


def write(path, text, flags=os.O_WRONLY):
    fd = os.open(path, flags)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)


def read(path):
    with open(path, "rb") as f:
        return f.read()


def files(c):
    path = c.make("file", "f")
    moves(c, "write", path, lambda: write(path, b"some text"), True, True)
    moves(c, "append", path, lambda: write(path, b"more", os.O_WRONLY | os.O_APPEND), True, True)
    moves(c, "truncate shorter", path, lambda: os.truncate(path, 3), True, True)
    moves(c, "truncate longer", path, lambda: os.truncate(path, 30), True, True)
    moves(c, "truncate to the same size", path, lambda: os.truncate(path, 30), True, True)
    moves(c, "open with O_TRUNC", path, lambda: open_close(path, os.O_WRONLY | os.O_TRUNC), True, True)
    moves(c, "open for writing only", path, lambda: open_close(path, os.O_WRONLY), False, False)
    moves(c, "open and read", path, lambda: read(path), False, False)
    moves(c, "chmod", path, lambda: os.chmod(path, 0o600), False, True)
    moves(c, "chown", path, lambda: os.chown(path, ALICE, ALICE), False, True)
    moves(c, "link", path, lambda: os.link(path, c.path("f2")), False, True)
    moves(c, "unlink of another name", path, lambda: os.unlink(c.path("f2")), False, True)
    moves(c, "setxattr", path, lambda: os.setxattr(path, "user.a", b"1"), False, True)
    moves(c, "removexattr", path, lambda: os.removexattr(path, "user.a"), False, True)
    moves(c, "stat", path, lambda: os.stat(path), False, False)
    moves(c, "refused truncate", path, lambda: c.call(errno.EINVAL, "truncate to -1", os.truncate, path, -1), False, False)
    before = os.stat(path).st_atime_ns
    c.check(before <= os.stat(path).st_ctime_ns + 10**9, "atime is not in the future")


def folders(c):
    d = c.make("dir", "d")
    moves(c, "create in it", d, lambda: c.make("file", "d/f"), True, True)
    moves(c, "write to a file in it", d, lambda: write(c.path("d/f"), b"x"), False, False)
    moves(c, "chmod of a file in it", d, lambda: os.chmod(c.path("d/f"), 0o600), False, False)
    moves(c, "rename in it", d, lambda: os.rename(c.path("d/f"), c.path("d/g")), True, True)
    moves(c, "rename out of it", d, lambda: os.rename(c.path("d/g"), c.path("out")), True, True)
    moves(c, "rename into it", d, lambda: os.rename(c.path("out"), c.path("d/in")), True, True)
    moves(c, "unlink in it", d, lambda: os.unlink(c.path("d/in")), True, True)
    moves(c, "mkdir in it", d, lambda: os.mkdir(c.path("d/sub")), True, True)
    moves(c, "create below its folder", d, lambda: c.make("file", "d/sub/x"), False, False)
    moves(c, "unlink below its folder", d, lambda: os.unlink(c.path("d/sub/x")), False, False)
    moves(c, "rmdir in it", d, lambda: os.rmdir(c.path("d/sub")), True, True)
    moves(c, "symlink in it", d, lambda: os.symlink("x", c.path("d/l")), True, True)
    moves(c, "listing it", d, lambda: os.listdir(d), False, False)
    moves(c, "refused create", d, lambda: c.call(errno.EEXIST, "mkdir over a link", os.mkdir, c.path("d/l")), False, False)

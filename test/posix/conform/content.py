# SPDX-License-Identifier: Apache-2.0
"""open's flags, truncate, allocation and holes, extended attributes, statvfs: tables on single files."""
import errno
import os
import stat

from test.posix.conform.base import ALICE, BOB, TYPES, open_close

SIZES = (0, 1, 511, 512, 4095, 4096, 4097, 65535, 65536, 65537, 131072, 1048575, 1048576, 1048577, 3000000)


def run(c):
    with c.scratch("open"):
        opening(c)
    with c.scratch("truncate"):
        truncate(c)
    with c.scratch("sizes"):
        sizes(c)
    with c.scratch("holes"):
        holes(c)
    with c.scratch("xattrs"):
        xattrs(c)
    with c.scratch("unlinked files"):
        unlinked(c)
    with c.scratch("statvfs"):
        space(c)


def opening(c):
    path = c.make("file", "f")
    c.call(errno.EEXIST, "O_CREAT and O_EXCL over a file", open_close, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    c.call(errno.ENOENT, "without O_CREAT", open_close, c.path("none"), os.O_RDWR)
    c.call(errno.ENOTDIR, "O_DIRECTORY on a file", open_close, path, os.O_RDONLY | os.O_DIRECTORY)
    d = c.make("dir", "d")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_CREAT):
        c.call(errno.EISDIR, f"a folder with flags {flags:#o}", open_close, d, flags)
    c.call(0, "a folder to read", open_close, d, os.O_RDONLY | os.O_DIRECTORY)
    c.call(errno.ENXIO, "a fifo without reader, not waiting", open_close, c.make("fifo", "p"), os.O_WRONLY | os.O_NONBLOCK)
    c.call(errno.ENXIO, "a socket", open_close, c.make("socket", "s"), os.O_RDONLY)
    fd = os.open(path, os.O_RDONLY)
    c.call(errno.EBADF, "write to what was opened to read", os.write, fd, b"x")
    c.call((errno.EINVAL, errno.EBADF), "truncate of what was opened to read", os.ftruncate, fd, 0)
    os.close(fd)
    fd = os.open(path, os.O_WRONLY)
    c.call(errno.EBADF, "read of what was opened to write", os.read, fd, 1)
    os.close(fd)
    fd = os.open(path, os.O_RDWR | os.O_APPEND)
    os.write(fd, b"one")
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, b"two")
    c.equal(os.pread(fd, 9, 0), b"onetwo", "O_APPEND writes at the end")
    os.close(fd)
    fd = os.open(path, os.O_RDWR | os.O_TRUNC)
    c.equal(os.fstat(fd).st_size, 0, "O_TRUNC")
    c.equal(os.write(fd, b""), 0, "write of nothing")
    c.equal(os.pwrite(fd, b"abc", 5), 3, "write beyond the end")
    c.equal(os.pread(fd, 99, 0), b"\0\0\0\0\0abc", "what is before is zero")
    c.equal(os.pread(fd, 9, 8), b"", "read at the end")
    c.equal(os.pread(fd, 9, 1 << 40), b"", "read far beyond the end")
    c.call(errno.EINVAL, "seek before the start", os.lseek, fd, -1, os.SEEK_SET)
    os.close(fd)
    with c.user(ALICE):
        fd = os.open(c.path("ro"), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0)
        c.call(0, "write to a new file of mode 0", os.write, fd, b"x")
        os.close(fd)
        c.call(errno.EACCES, "opening it again", open_close, c.path("ro"), os.O_RDONLY)
    fd = os.open(c.root, os.O_TMPFILE | os.O_RDWR, 0o600) if has_tmpfile(c.root) else -1
    if fd >= 0:
        c.equal(os.fstat(fd).st_nlink, 0, "links of O_TMPFILE")
        os.close(fd)


def has_tmpfile(path):
    try:
        open_close(path, os.O_TMPFILE | os.O_RDWR)
        return True
    except OSError:
        return False


def truncate(c):
    path = c.make("file", "f")
    for size in SIZES:
        c.call(0, f"truncate to {size}", os.truncate, path, size)
        c.equal(os.stat(path).st_size, size, f"size {size}")
    with open(path, "wb") as f:
        f.write(b"\xaa" * 3000000)
    for size in reversed(SIZES):
        os.truncate(path, size)
        os.truncate(path, 3000000)
        with open(path, "rb") as f:
            data = f.read()
        c.equal(len(data), 3000000, f"length after cutting at {size}")
        c.equal(data[:size].count(b"\xaa"), size, f"bytes before the cut at {size}")
        c.equal(data[size:].count(b"\0"), 3000000 - size, f"zeros after the cut at {size}")
    c.call(errno.EINVAL, "to -1", os.truncate, path, -1)
    c.call(errno.EISDIR, "of a folder", os.truncate, c.make("dir", "d"), 0)
    c.call((errno.EINVAL, errno.ENXIO), "of a fifo", os.truncate, c.make("fifo", "p"), 0)
    fd = os.open(path, os.O_RDWR)
    os.unlink(path)
    c.call(0, "of an open file without a name", os.ftruncate, fd, 12345)
    c.equal(os.fstat(fd).st_size, 12345, "its size")
    os.close(fd)


def sizes(c):
    for size in SIZES:
        data = bytes(i * 7 % 251 for i in range(min(size, 5000)))
        data = (data * (size // max(1, len(data)) + 1))[:size]
        path = c.path(f"s{size}")
        with open(path, "wb") as f:
            f.write(data)
        c.equal(os.stat(path).st_size, size, f"size {size}")
        with open(path, "rb") as f:
            c.check(f.read() == data, f"content of {size} bytes")
        c.check(os.stat(path).st_blocks * 512 >= (size if size > 4096 else 0), f"blocks of {size} bytes: {os.stat(path).st_blocks}")
        c.check(os.stat(path).st_blksize >= 512, "block size")


def holes(c):
    path = c.path("h")
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        os.ftruncate(fd, 8 << 20)
        os.pwrite(fd, b"x" * 65536, 2 << 20)
        c.equal(os.lseek(fd, 0, os.SEEK_DATA) <= 2 << 20, True, "first data is found")
        c.equal(os.lseek(fd, 2 << 20, os.SEEK_DATA), 2 << 20, "data is at its place")
        hole = os.lseek(fd, 2 << 20, os.SEEK_HOLE)
        c.check((2 << 20) + 65536 <= hole <= 8 << 20, f"a hole after it, or the end: {hole}")
        c.equal(os.lseek(fd, 0, os.SEEK_HOLE) in (0, hole), True, "a hole before it, or none is told")
        c.call(errno.ENXIO, "data beyond the end", os.lseek, fd, 9 << 20, os.SEEK_DATA)
        c.call(errno.ENXIO, "hole beyond the end", os.lseek, fd, 9 << 20, os.SEEK_HOLE)
        c.check(os.fstat(fd).st_blocks * 512 < 4 << 20, f"holes take no space: {os.fstat(fd).st_blocks} blocks")
        c.equal(os.pread(fd, 1 << 20, 4 << 20), bytes(1 << 20), "a hole reads as zeros")
        big = (1 << 40) + 123
        c.call(0, "truncate to a terabyte", os.ftruncate, fd, big)
        c.equal(os.fstat(fd).st_size, big, "its size")
        c.equal(os.pread(fd, 200, big - 100), bytes(100), "its last bytes")
        c.call(0, "write near a terabyte", os.pwrite, fd, b"end", big - 3)
        c.equal(os.pread(fd, 3, big - 3), b"end", "that is there")
        os.posix_fallocate(fd, 0, 1 << 20)
        c.equal(os.pread(fd, 100, 0), bytes(100), "allocated space reads as zeros")
    finally:
        os.close(fd)


def xattrs(c):
    path = c.make("file", "f")
    values = {"user.a": b"1", "user.empty": b"", "user.bin": bytes(range(256)), "user.k" + "n" * 100: b"v" * 1000, "trusted.x": b"root"}
    for name, value in values.items():
        c.call(0, f"set {name[:20]}", os.setxattr, path, name, value)
        c.equal(os.getxattr(path, name), value, f"get {name[:20]}")
    c.equal({n for n in os.listxattr(path) if n.startswith(("user.", "trusted."))}, set(values), "names")
    c.call(errno.EEXIST, "XATTR_CREATE over one", os.setxattr, path, "user.a", b"2", os.XATTR_CREATE)
    c.call(errno.ENODATA, "XATTR_REPLACE of none", os.setxattr, path, "user.none", b"2", os.XATTR_REPLACE)
    c.call(0, "XATTR_REPLACE", os.setxattr, path, "user.a", b"22", os.XATTR_REPLACE)
    c.equal(os.getxattr(path, "user.a"), b"22", "the new value")
    c.call(errno.ENODATA, "get of none", os.getxattr, path, "user.none")
    c.call(errno.ENODATA, "remove of none", os.removexattr, path, "user.none")
    c.call(errno.ERANGE, "a name of 256", os.setxattr, path, "user." + "n" * 251, b"")
    c.call((errno.EOPNOTSUPP,), "a name without a known prefix", os.setxattr, path, "other.a", b"")
    c.call((errno.EINVAL, errno.EOPNOTSUPP), "a name that is only a prefix", os.setxattr, path, "user.", b"")
    os.link(path, c.path("twin"))
    c.equal(os.getxattr(c.path("twin"), "user.a"), b"22", "through another name")
    os.rename(path, c.path("g"))
    c.equal(os.getxattr(c.path("g"), "user.bin"), bytes(range(256)), "after a rename")
    for name in values:
        c.call(0, f"remove {name[:20]}", os.removexattr, c.path("g"), name)
        c.call(errno.ENODATA, f"get after removal {name[:20]}", os.getxattr, c.path("g"), name)
    d = c.make("dir", "d")
    c.call(0, "on a folder", os.setxattr, d, "user.d", b"dir")
    c.equal(os.getxattr(d, "user.d"), b"dir", "on a folder, get")
    os.symlink("g", c.path("l"))
    c.call((errno.EPERM, errno.EOPNOTSUPP), "user xattr on a link", os.setxattr, c.path("l"), "user.x", b"", follow_symlinks=False)
    for kind in ("fifo", "char", "socket"):
        c.call((errno.EPERM, errno.EOPNOTSUPP), f"user xattr on a {kind}", os.setxattr, c.make(kind, kind), "user.x", b"")
    os.setxattr(c.path("g"), "user.p", b"1")
    os.chmod(c.path("g"), 0o600)
    with c.user(BOB):
        c.call(errno.EACCES, "get without read permission", os.getxattr, c.path("g"), "user.p")
        c.call(errno.EACCES, "set without write permission", os.setxattr, c.path("g"), "user.p", b"2")
        c.call((errno.ENODATA, errno.EPERM), "trusted by a user", os.getxattr, c.path("g"), "trusted.x")
        c.call((errno.EPERM,), "set trusted by a user", os.setxattr, c.path("g"), "trusted.x", b"")


def unlinked(c):
    for kind in ("unlink", "rename over", "unlink of the last of two"):
        path = c.path("u")
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o640)
        os.write(fd, b"before")
        if kind == "rename over":
            os.rename(c.make("file", "new"), path)
        else:
            if kind.endswith("two"):
                os.link(path, path + "2")
                os.unlink(path + "2")
            os.unlink(path)
        c.equal(os.fstat(fd).st_nlink, 0, f"{kind}: links")
        c.equal(os.pread(fd, 99, 0), b"before", f"{kind}: content")
        c.call(0, f"{kind}: write", os.pwrite, fd, b"after-", 0)
        c.equal(os.pread(fd, 99, 0), b"after-", f"{kind}: new content")
        c.call(0, f"{kind}: chmod", os.fchmod, fd, 0o600)
        c.equal(stat.S_IMODE(os.fstat(fd).st_mode), 0o600, f"{kind}: new mode")
        c.call(0, f"{kind}: fsync", os.fsync, fd)
        os.close(fd)
        if kind == "rename over":
            os.unlink(path)
        c.equal(os.listdir(c.root), [], f"{kind}: nothing is left")
    d = c.make("dir", "gone")
    fd = os.open(d, os.O_RDONLY | os.O_DIRECTORY)
    os.rmdir(d)
    c.call(errno.ENOENT, "create in a folder that is gone", lambda: os.close(os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=fd)))
    c.call((0, errno.ENOENT), "list a folder that is gone", os.listdir, fd)
    os.close(fd)


def space(c):
    v = os.statvfs(c.root)
    c.check(v.f_bsize > 0 and v.f_frsize > 0, "block sizes")
    c.check(0 < v.f_bfree <= v.f_blocks and v.f_bavail <= v.f_bfree, f"blocks: {v.f_bavail} <= {v.f_bfree} <= {v.f_blocks}")
    c.equal(v.f_namemax, 255, "longest name")
    for kind in TYPES:
        c.equal(os.statvfs(c.make(kind, kind) if kind != "symlink" else c.root).f_blocks, v.f_blocks, f"through a {kind}")

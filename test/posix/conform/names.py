# SPDX-License-Identifier: Apache-2.0
"""Names and paths that must fail, for every call that takes a path: missing, not a folder, too long, loops, no permission; and
names that must work."""
import errno
import os

from test.posix.conform.base import ALICE, FORMAT, TYPES, open_close, remove

# call -> (function of a path that should exist, makes something new, changes the parent)
EXISTING = {
    "stat": os.stat, "lstat": os.lstat, "open": lambda p: open_close(p, os.O_RDONLY), "open for writing": lambda p: open_close(p, os.O_WRONLY),
    "truncate": lambda p: os.truncate(p, 10), "chmod": lambda p: os.chmod(p, 0o600), "chown": lambda p: os.chown(p, -1, -1),
    "lchown": lambda p: os.lchown(p, -1, -1), "utime": lambda p: os.utime(p, (1, 1)), "access": lambda p: access(p),
    "unlink": os.unlink, "rename from": lambda p: os.rename(p, p + ".new"), "link from": lambda p: os.link(p, p + ".new"),
    "listxattr": os.listxattr, "readlink": os.readlink, "rmdir": os.rmdir, "statvfs": os.statvfs, "listdir": os.listdir,
}


def access(p):
    os.stat(p)
    if not os.access(p, os.F_OK):
        raise OSError(errno.EACCES, "access")


def creating(c):
    source = c.make("file", "source")
    return {
        "create": lambda p: open_close(p, os.O_CREAT | os.O_WRONLY), "mkdir": os.mkdir, "mkfifo": os.mkfifo,
        "mknod": lambda p: os.mknod(p, FORMAT["char"] | 0o600, os.makedev(1, 3)), "symlink": lambda p: os.symlink("t", p),
        "link to": lambda p: os.link(source, p), "rename to": lambda p: os.rename(c.make("file", "moving") if not os.path.exists(c.path("moving"))
                                                                                else c.path("moving"), p),
    }


def run(c):
    with c.scratch("paths that fail"):
        paths(c)
    with c.scratch("permissions on the way"):
        permissions(c)
    with c.scratch("names taken"):
        taken(c)
    with c.scratch("long names"):
        long_names(c)
    with c.scratch("names"):
        odd_names(c)
    with c.scratch("symbolic links"):
        symlinks(c)
    with c.scratch("many entries"):
        many(c)


def paths(c):
    calls = {**EXISTING, **creating(c)}
    c.make("file", "file")
    c.make("fifo", "fifo")
    c.make("socket", "socket")
    os.symlink("loop2", c.path("loop1"))
    os.symlink("loop1", c.path("loop2"))
    os.symlink("nothing", c.path("dangling"))
    for name, call in calls.items():
        c.call(errno.ENOTDIR, f"{name}: through a file", call, c.path("file/x"))
        c.call(errno.ENOTDIR, f"{name}: through a fifo", call, c.path("fifo/x"))
        c.call(errno.ENOTDIR, f"{name}: through a socket", call, c.path("socket/x"))
        c.call(errno.ENOENT, f"{name}: through nothing", call, c.path("nothing/x"))
        c.call(errno.ENOENT, f"{name}: through a dangling link", call, c.path("dangling/x"))
        c.call(errno.ELOOP, f"{name}: through a loop", call, c.path("loop1/x"))
        c.call(errno.ENAMETOOLONG, f"{name}: a name of 256", call, c.path("n" * 256))
        c.call(errno.ENAMETOOLONG, f"{name}: through a name of 256", call, c.path("n" * 256 + "/x"))
        c.call(errno.ENAMETOOLONG, f"{name}: a path of 4,096", call, c.path("x/" * 2100)[:4096])
        c.call(errno.ENOENT, f"{name}: empty path", call, "")
        if name in EXISTING:
            c.call(errno.ENOENT, f"{name}: nothing", call, c.path("nothing"))
    for name in ("stat", "open", "open for writing", "truncate", "chmod", "chown", "utime", "listxattr", "listdir", "statvfs"):
        c.call(errno.ELOOP, f"{name}: a loop", EXISTING[name], c.path("loop1"))
    for name in ("stat", "truncate", "chmod", "chown", "utime", "listxattr"):
        c.call(errno.ENOENT, f"{name}: a dangling link", EXISTING[name], c.path("dangling"))
    for kind in TYPES:
        if kind != "symlink":
            c.call(errno.EINVAL, f"readlink of a {kind}", os.readlink, c.make(kind, "r-" + kind))
    for kind in ("file", "fifo", "char", "socket"):
        c.call(errno.ENOTDIR, f"listdir of a {kind}", os.listdir, c.path("r-" + kind))


def permissions(c):
    os.mkdir(c.path("closed"), 0o700)
    c.make("file", "closed/x", 0o666, ALICE)
    os.mkdir(c.path("readonly"), 0o755)
    for name in ("file", "file2", "file3"):
        c.make("file", "readonly/" + name, 0o666, ALICE)
    os.mkdir(c.path("readonly/empty"), 0o777)
    new = creating(c)
    os.chmod(c.path("source"), 0o666)
    c.make("file", "moving", 0o666, ALICE)
    os.chown(c.path("source"), ALICE, ALICE)
    with c.user(ALICE):
        for name, call in {**EXISTING, **new}.items():
            c.call(errno.EACCES, f"{name}: without search permission on the way", call, c.path("closed/x"))
        for name, call in new.items():
            c.call(errno.EACCES, f"{name}: without write permission on the folder", call, c.path("readonly/new"))
        c.call(errno.EACCES, "unlink: without write permission on the folder", os.unlink, c.path("readonly/file"))
        c.call(errno.EACCES, "rename from: without write permission", os.rename, c.path("readonly/file"), c.path("out"))
        c.call(errno.EACCES, "rename over: without write permission", os.rename, c.path("moving"), c.path("readonly/file2"))
        c.call(errno.EACCES, "rmdir: without write permission", os.rmdir, c.path("readonly/empty"))
        c.call(0, "what is in it can be read", open_close, c.path("readonly/file"), os.O_RDWR)
    c.check(os.path.exists(c.path("readonly/file")) and os.path.exists(c.path("readonly/empty")), "nothing of it happened")


def taken(c):
    new = creating(c)
    for kind in TYPES:
        path = c.make(kind, "t-" + kind)
        for name, call in new.items():
            if name in ("create", "rename to"):
                continue
            c.call(errno.EEXIST, f"{name} over a {kind}", call, path)
        c.call(errno.EEXIST, f"exclusive create over a {kind}", open_close, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        c.check(os.path.lexists(path), f"the {kind} is still there")
    c.call(errno.EISDIR, "create over a folder", new["create"], c.path("t-dir"))


def long_names(c):
    for n in (1, 127, 254, 255):
        for kind in TYPES:
            path = c.path(kind[0] * (n - 1) + str(TYPES.index(kind)))
            c.call(0, f"{kind} with a name of {n}", c.make, kind, path)
            c.check(os.path.lexists(path), f"{kind} with a name of {n} is there")
            remove(path)
    a, b = c.make("file", "a" * 255), c.path("b" * 255)
    c.call(0, "rename of a name of 255", os.rename, a, b)
    c.call(0, "link of a name of 255", os.link, b, a)
    c.equal(sorted(os.listdir(c.root)), sorted(["a" * 255, "b" * 255]), "both are listed")


def odd_names(c):
    names = [b" ", b"a b", b"\n", b"\t", b"-rf", b"*", b"\\", b"'\"", b"...", b"..a", b"\xff\xfe", b"\x01", "跨域".encode(), "ü".encode(), b"u\xcc\x88",
             b"CASE", b"case", b"a" * 200, b"x.tmp~", b"%s%n", b"#"]
    root = os.fsencode(c.root)
    for name in names:
        c.call(0, f"name {name!r}", lambda n=name: open_close(root + b"/" + n, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    c.equal(sorted(os.listdir(root)), sorted(names), "the names come back byte by byte")
    for name in names:
        c.call(0, f"stat {name!r}", os.lstat, root + b"/" + name)
        c.call(0, f"unlink {name!r}", os.unlink, root + b"/" + name)
    c.equal(os.listdir(root), [], "all gone")


def symlinks(c):
    for n in (1, 2, 59, 60, 61, 255, 256, 1000, 1023, 1024, 4000, 4095):
        path, text = c.path(f"l{n}"), ("t/" * n)[:n]
        c.call(0, f"link of {n} bytes", os.symlink, text, path)
        c.equal(os.readlink(path), text, f"text of {n} bytes")
        c.equal(os.lstat(path).st_size, n, f"size of {n} bytes")
    c.call(errno.ENAMETOOLONG, "link of 4,096 bytes", os.symlink, "x" * 4096, c.path("l4096"))
    c.call(errno.ENOENT, "empty link", os.symlink, "", c.path("empty"))
    target = c.make("file", "target", 0o640)
    os.mkdir(c.path("folder"))
    os.symlink("target", c.path("to-file"))
    os.symlink("folder", c.path("to-folder"))
    os.symlink(target, c.path("absolute"))
    c.equal(os.stat(c.path("to-file")).st_ino, os.stat(target).st_ino, "stat follows")
    c.equal(os.stat(c.path("absolute")).st_ino, os.stat(target).st_ino, "stat follows an absolute link")
    c.check(os.lstat(c.path("to-file")).st_ino != os.stat(target).st_ino, "lstat does not")
    c.call(0, "create through a link to a folder", open_close, c.path("to-folder/new"), os.O_CREAT | os.O_WRONLY)
    c.check(os.path.exists(c.path("folder/new")), "it is in the folder")
    os.symlink("made", c.path("dangling"))
    c.call(0, "create through a dangling link", open_close, c.path("dangling"), os.O_CREAT | os.O_WRONLY)
    c.check(os.path.exists(c.path("made")), "the target has been made")
    c.call(errno.EEXIST, "exclusive create over a dangling link", open_close, c.path("to-nothing") if os.symlink("no", c.path("to-nothing")) else
           c.path("to-nothing"), os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    c.call(errno.ELOOP, "open without following", open_close, c.path("to-file"), os.O_RDONLY | os.O_NOFOLLOW)
    c.call(errno.ENOTDIR, "rmdir of a link to a folder", os.rmdir, c.path("to-folder"))
    chain = c.path("target")
    for i in range(39):
        os.symlink(os.path.basename(chain), c.path(f"c{i}"))
        chain = c.path(f"c{i}")
    c.call(0, "39 links in a chain", os.stat, chain)
    os.symlink(os.path.basename(chain), c.path("c39"))
    os.symlink("c39", c.path("c40"))
    c.call(errno.ELOOP, "41 links in a chain", os.stat, c.path("c40"))
    c.call(0, "chmod through a link", os.chmod, c.path("to-file"), 0o604)
    c.equal(oct(os.stat(target).st_mode & 0o7777), oct(0o604), "the target's mode")


def many(c):
    names = {f"entry-{i:04d}" for i in range(700)}
    for i, name in enumerate(sorted(names)):
        if i % 7:
            open_close(c.path(name), os.O_CREAT | os.O_WRONLY)
        else:
            os.mkdir(c.path(name))
    with os.scandir(c.root) as entries:
        seen = list(entries)
    c.equal(len(seen), 700, "entries listed")
    c.equal({e.name for e in seen}, names, "the names")
    c.equal(sum(e.is_dir(follow_symlinks=False) for e in seen), 100, "d_type tells folders")
    c.equal(sum(e.inode() != os.lstat(e.path).st_ino for e in seen), 0, "d_ino is st_ino")
    with os.scandir(c.root) as entries:  # removing while listing: nobody is seen twice, all that stay are seen
        listed = []
        for e in entries:
            listed.append(e.name)
            if len(listed) % 2:
                remove(e.path)
    c.equal(len(listed), len(set(listed)), "nobody is listed twice while entries are removed")
    c.equal(len(os.listdir(c.root)), 700 - (len(listed) + 1) // 2, "what is left")

# SPDX-License-Identifier: Apache-2.0
"""Who may do what: permission bits class by class, the sticky bit, chmod and chown by whom, and when set-user-id goes away."""
import errno
import os
import stat

from test.posix.conform.base import ALICE, BOB, CAROL, TYPES, ctime, open_close, remove, tick

CLASSES = {"owner": (6, ALICE, ALICE, ()), "group": (3, BOB, ALICE, ()), "extra group": (3, BOB, BOB, (ALICE,)), "other": (0, BOB, BOB, ())}


def run(c):
    with c.scratch("permission bits of files"):
        file_bits(c)
    with c.scratch("permission bits of folders"):
        folder_bits(c)
    with c.scratch("sticky bit"):
        sticky(c)
    for kind in TYPES:
        with c.scratch(f"chmod {kind}"):
            chmod(c, kind)
        with c.scratch(f"chown {kind}"):
            chown(c, kind)
    with c.scratch("chown by users"):
        chown_by_users(c)
    with c.scratch("set-user-id"):
        suid(c)


def want(allowed):
    return 0 if allowed else errno.EACCES


def file_bits(c):
    path = c.make("file", "f", 0o644, ALICE)
    with open(path, "w") as f:
        f.write("text")
    for name, (shift, uid, gid, groups) in CLASSES.items():
        for bits in range(8):
            # The other classes get the opposite, so that a wrong class is noticed.
            mode = (0o777 & ~(7 << shift) & ~(bits * 0o111 & ~(7 << shift))) | bits << shift
            os.chmod(path, mode)
            with c.user(uid, gid, groups):
                r, w, x = bits & 4, bits & 2, bits & 1
                tag = f"{mode:o} as {name}"
                c.call(want(r), f"read {tag}", open_close, path, os.O_RDONLY)
                c.call(want(w), f"write {tag}", open_close, path, os.O_WRONLY)
                c.call(want(r and w), f"read and write {tag}", open_close, path, os.O_RDWR)
                c.call(want(w), f"truncate {tag}", os.truncate, path, 4)
                c.equal(os.access(path, os.X_OK, effective_ids=True), bool(x), f"execute {tag}")


def folder_bits(c):
    d = c.make("dir", "d", 0o777, ALICE)
    for name, (shift, uid, gid, groups) in CLASSES.items():
        for bits in range(8):
            for path in ("in", "gone"):
                c.make("file", f"d/{path}", 0o666)
            os.chmod(d, (0o777 & ~(7 << shift) & ~(bits * 0o111 & ~(7 << shift))) | bits << shift)
            tag = f"{bits << shift:o} as {name}"
            with c.user(uid, gid, groups):
                r, wx, x = bits & 4, bits & 3 == 3, bits & 1
                c.call(want(r), f"list {tag}", os.listdir, d)
                c.call(want(x), f"search {tag}", os.stat, d + "/in")
                c.call(want(x), f"open {tag}", open_close, d + "/in", os.O_RDONLY)
                c.call(want(wx), f"create {tag}", open_close, d + "/new", os.O_CREAT | os.O_WRONLY)
                c.call(want(wx), f"unlink {tag}", os.unlink, d + "/gone")
                c.call(want(wx), f"rename {tag}", os.rename, d + "/in", d + "/moved")
            os.chmod(d, 0o777)
            for entry in os.listdir(d):
                os.unlink(f"{d}/{entry}")


def sticky(c):
    no = (errno.EPERM, errno.EACCES)
    for folder_owner in (ALICE, BOB):
        for owner in (ALICE, BOB, CAROL):
            for kind in TYPES:
                d = c.make("dir", "s", 0o777, folder_owner)
                os.chmod(d, 0o1777)
                c.make(kind, "s/x", 0o644, owner)
                c.make(kind, "s/over", 0o644, owner)
                c.make(kind, "mine", 0o644, ALICE)
                ok = 0 if ALICE in (folder_owner, owner) else no
                tag = f"{kind} of {owner} in a folder of {folder_owner} by {ALICE}"
                with c.user(ALICE):
                    # a folder's move to another parent writes its "..", which needs write permission on it
                    moved = ok if kind != "dir" or owner == ALICE or ok else (errno.EACCES,)
                    c.call(ok, f"rename within: {tag}", os.rename, c.path("s/x"), c.path("s/y"))
                    name = "s/x" if os.path.lexists(c.path("s/x")) else "s/y"
                    c.call(moved, f"rename out: {tag}", os.rename, c.path(name), c.path("out"))
                    c.call(ok, f"rename over: {tag}", os.rename, c.path("mine"), c.path("s/over"))
                    name = next((n for n in ("s/x", "s/y") if os.path.lexists(c.path(n))), None)
                    if name:
                        c.call(ok, f"remove: {tag}", remove, c.path(name))
                for entry in ("s/x", "s/y", "s/over", "out", "mine"):
                    if os.path.lexists(c.path(entry)):
                        remove(c.path(entry))
                os.rmdir(d)


def chmod(c, kind):
    path = c.make(kind, "x", 0o644, ALICE)
    if kind == "symlink":
        return
    for mode in (0o000, 0o111, 0o222, 0o444, 0o555, 0o644, 0o755, 0o777, 0o1777, 0o2755, 0o4755, 0o6711, 0o7777):
        before = os.lstat(path)
        c.call(0, f"chmod {mode:o}", os.chmod, path, mode)
        c.equal(oct(stat.S_IMODE(os.lstat(path).st_mode)), oct(mode), f"mode {mode:o}")
        c.equal(os.lstat(path).st_mtime_ns, before.st_mtime_ns, f"mtime after chmod {mode:o}")
    before = ctime(path)
    tick()
    os.chmod(path, 0o600)
    c.check(ctime(path) > before, "ctime moves")
    before = ctime(path)
    with c.user(BOB):
        c.call(errno.EPERM, "chmod by another user", os.chmod, path, 0o777)
    c.equal(ctime(path), before, "ctime after a refused chmod")
    with c.user(ALICE):
        c.call(0, "chmod by the owner", os.chmod, path, 0o640)
        c.call(0, "chmod by the owner with set-gid of the own group", os.chmod, path, 0o2750)
    c.equal(oct(os.lstat(path).st_mode & 0o7777), oct(0o2750), "set-gid of the own group stays")
    os.chown(path, ALICE, BOB)
    with c.user(ALICE):
        c.call(0, "chmod by the owner with set-gid of a foreign group", os.chmod, path, 0o2755)
    c.equal(oct(os.lstat(path).st_mode & 0o7777), oct(0o755), "set-gid of a foreign group is dropped")


def chown(c, kind):
    path = c.make(kind, "x", 0o644)
    for uid, gid in ((ALICE, BOB), (BOB, -1), (-1, CAROL), (0, 0), (4294967294, 4294967294), (70000, 80000)):
        before = os.lstat(path)
        c.call(0, f"lchown {uid}:{gid}", os.lchown, path, uid, gid)
        st = os.lstat(path)
        c.equal((st.st_uid, st.st_gid), (before.st_uid if uid == -1 else uid, before.st_gid if gid == -1 else gid), f"owner after {uid}:{gid}")
    before = os.lstat(path)
    tick()
    os.lchown(path, ALICE, ALICE)
    after = os.lstat(path)
    c.check(after.st_ctime_ns > before.st_ctime_ns, "ctime moves")
    c.equal(after.st_mtime_ns, before.st_mtime_ns, "mtime stays")
    if kind != "symlink":
        os.symlink("x", c.path("l"))
        link = os.lstat(c.path("l"))
        c.call(0, "chown through a link", os.chown, c.path("l"), BOB, CAROL)
        c.equal((os.lstat(path).st_uid, os.lstat(c.path("l")).st_uid), (BOB, link.st_uid), "the target's owner, not the link's")


def chown_by_users(c):
    for kind in TYPES:
        path = c.make(kind, kind, 0o644)
        os.lchown(path, ALICE, ALICE)
        with c.user(ALICE, ALICE, (BOB,)):
            c.call(errno.EPERM, f"{kind}: give it away", os.lchown, path, BOB, -1)
            c.call(0, f"{kind}: to a group of one's own", os.lchown, path, -1, BOB)
            c.call(0, f"{kind}: to oneself", os.lchown, path, ALICE, ALICE)
            c.call(errno.EPERM, f"{kind}: to a foreign group", os.lchown, path, -1, CAROL)
        with c.user(BOB, BOB, (ALICE,)):
            c.call(errno.EPERM, f"{kind}: by another user", os.lchown, path, BOB, -1)
            c.call(errno.EPERM, f"{kind}: group by another user", os.lchown, path, -1, BOB)
        c.equal((os.lstat(path).st_uid, os.lstat(path).st_gid), (ALICE, ALICE), f"{kind}: owner at the end")


def mode_of(path):
    return oct(os.lstat(path).st_mode & 0o7777)


def suid(c):
    for mode in (0o4777, 0o2777, 0o6777, 0o4755, 0o6711):
        path = c.make("file", f"f{mode:o}", 0o777, ALICE)
        os.chmod(path, mode)
        os.chown(path, ALICE, ALICE)
        c.equal(mode_of(path), oct(mode & 0o777), f"{mode:o}: chown by root of what can be executed")
        os.chmod(path, mode)
        with c.user(ALICE):
            os.chown(path, ALICE, ALICE)
        c.equal(mode_of(path), oct(mode & 0o777), f"{mode:o}: chown by the owner")
    for mode in (0o4777, 0o2777, 0o6777):
        path = c.make("file", f"w{mode:o}", 0o777, ALICE)
        os.chmod(path, mode)
        with c.user(BOB):
            with open(path, "wb", buffering=0) as f:
                f.write(b"x")
        c.equal(mode_of(path), oct(mode & 0o777), f"{mode:o}: write by another user")
        os.chmod(path, mode)
        with c.user(BOB):
            os.truncate(path, 0)
        c.equal(mode_of(path), oct(mode & 0o777), f"{mode:o}: truncate by another user")
        os.chmod(path, mode)
        with c.user(BOB):
            open_close(path, os.O_WRONLY | os.O_TRUNC)
        os.chmod(path, mode)
        with open(path, "wb", buffering=0) as f:
            f.write(b"x")
        c.equal(mode_of(path), oct(mode), f"{mode:o}: write by root keeps it")
    d = c.make("dir", "d", 0o755, ALICE)
    os.chmod(d, 0o2755)
    os.chown(d, BOB, BOB)
    c.equal(mode_of(d), oct(0o2755), "a folder keeps set-gid at chown")

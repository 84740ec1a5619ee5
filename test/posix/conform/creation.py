# SPDX-License-Identifier: Apache-2.0
"""What creating, linking, removing and renaming does to the object, its attributes, its parent's times and its link count."""
import errno
import os
import stat

from test.posix.conform.base import ALICE, BOB, CAROL, FORMAT, TYPES, ctime, mtime, open_close, remove, tick


def run(c):
    for kind in TYPES:
        with c.scratch(f"create {kind}"):
            create(c, kind)
        with c.scratch(f"umask {kind}"):
            umask(c, kind)
        with c.scratch(f"remove {kind}"):
            removal(c, kind)
        if kind != "dir":
            with c.scratch(f"link {kind}"):
                link(c, kind)
        with c.scratch(f"rename {kind}"):
            rename(c, kind)
    with c.scratch("rename over"):
        rename_over(c)
    with c.scratch("rename folders"):
        rename_folders(c)
    with c.scratch("set-gid folder"):
        setgid_folder(c)
    with c.scratch("nlink of folders"):
        folder_links(c)


def create(c, kind):
    os.chown(c.root, BOB, BOB)
    before = os.lstat(c.root)
    tick()
    uid = 0 if kind in ("block", "char") else ALICE  # devices are root's to make
    with c.user(uid, CAROL):
        path = c.make(kind, "x", 0o640)
    st, after = os.lstat(path), os.lstat(c.root)
    c.equal(stat.S_IFMT(st.st_mode), FORMAT[kind], "type")
    if kind != "symlink":
        c.equal(stat.S_IMODE(st.st_mode), 0o640, "mode")
    c.equal(st.st_uid, uid, "owner is the effective user")
    c.check(st.st_gid in (CAROL, BOB), f"group {st.st_gid} is the effective one or the parent's")
    c.equal(st.st_gid, CAROL, "group is the effective one without set-gid")
    if kind == "dir":
        c.check(st.st_nlink in (1, 2), f"links of a new folder: {st.st_nlink}")
    else:
        c.equal(st.st_nlink, 1, "links")
    if kind == "file":
        c.equal(st.st_size, 0, "size")
    if kind in ("block", "char"):
        c.equal(st.st_rdev, os.makedev(1, 3), "device number")
    if kind == "symlink":
        c.equal(st.st_size, len("nowhere"), "size of a link is its text's")
        c.equal(os.readlink(path), "nowhere", "text of the link")
    c.check(after.st_mtime_ns > before.st_mtime_ns, "parent's mtime moves")
    c.check(after.st_ctime_ns > before.st_ctime_ns, "parent's ctime moves")
    for which, value in (("atime", st.st_atime_ns), ("mtime", st.st_mtime_ns), ("ctime", st.st_ctime_ns)):
        c.check(value > before.st_mtime_ns, f"own {which} is new")
    c.call(errno.EEXIST, "create again", c.make, kind, "x")


def umask(c, kind):
    if kind == "symlink" or kind == "socket":
        return
    for mask in (0o000, 0o022, 0o027, 0o077, 0o151, 0o345, 0o501):
        for mode in (0o777, 0o755, 0o644, 0o151, 0o070):
            old = os.umask(mask)
            try:
                path = c.path(f"m{mask:o}-{mode:o}")
                if kind == "file":
                    open_close(path, os.O_CREAT | os.O_WRONLY, mode)
                elif kind == "dir":
                    os.mkdir(path, mode)
                elif kind == "fifo":
                    os.mkfifo(path, mode)
                else:
                    os.mknod(path, FORMAT[kind] | mode, os.makedev(1, 5))
            finally:
                os.umask(old)
            c.equal(oct(stat.S_IMODE(os.lstat(path).st_mode)), oct(mode & ~mask), f"mode {mode:o} with umask {mask:o}")


def removal(c, kind):
    path = c.make(kind, "x")
    if kind != "dir":
        os.link(path, c.path("y"), follow_symlinks=False)
    before = os.lstat(c.root)
    before_link = ctime(c.path("y")) if kind != "dir" else 0
    tick()
    if kind == "dir":
        c.call((errno.EISDIR, errno.EPERM), "unlink of a folder", os.unlink, path)
        c.make("file", "x/inside")
        c.call((errno.ENOTEMPTY, errno.EEXIST), "rmdir of a full folder", os.rmdir, path)
        os.unlink(c.path("x/inside"))
        c.call((errno.EINVAL,), "rmdir of .", os.rmdir, path + "/.")
        c.call((errno.ENOTEMPTY, errno.EEXIST, errno.EINVAL, errno.EBUSY), "rmdir of ..", os.rmdir, path + "/..")
        c.call(0, "rmdir", os.rmdir, path)
    else:
        c.call(errno.ENOTDIR, "rmdir of no folder", os.rmdir, path)
        c.call(0, "unlink", os.unlink, path)
        c.equal(os.lstat(c.path("y")).st_nlink, 1, "links after removing one of two")
        c.check(ctime(c.path("y")) > before_link, "ctime of what has another name moves")
    after = os.lstat(c.root)
    c.check(after.st_mtime_ns > before.st_mtime_ns, "parent's mtime moves")
    c.check(after.st_ctime_ns > before.st_ctime_ns, "parent's ctime moves")
    c.call(errno.ENOENT, "stat after removal", os.lstat, path)
    c.call(errno.ENOENT, "remove again", os.rmdir if kind == "dir" else os.unlink, path)


def link(c, kind):
    path, other = c.make(kind, "x"), c.path("y")
    os.mkdir(c.path("sub"))
    before, parent = os.lstat(path), os.lstat(c.path("sub"))
    tick()
    c.call(0, "link", os.link, path, other, follow_symlinks=False)
    a, b = os.lstat(path), os.lstat(other)
    c.equal(a.st_ino, b.st_ino, "one inode")
    c.equal((a.st_nlink, b.st_nlink), (2, 2), "links")
    c.check(a.st_ctime_ns > before.st_ctime_ns, "ctime moves")
    c.equal(a.st_mtime_ns, before.st_mtime_ns, "mtime stays")
    c.call(0, "link in another folder", os.link, other, c.path("sub/z"), follow_symlinks=False)
    c.equal(os.lstat(path).st_nlink, 3, "links")
    after = os.lstat(c.path("sub"))
    c.check(after.st_mtime_ns > parent.st_mtime_ns and after.st_ctime_ns > parent.st_ctime_ns, "times of the new parent move")
    if kind != "symlink":
        os.chmod(other, 0o611)
        c.equal(oct(stat.S_IMODE(os.lstat(path).st_mode)), oct(0o611), "mode through one name, seen through the other")
    os.lchown(c.path("sub/z"), ALICE, BOB)
    st = os.lstat(path)
    c.equal((st.st_uid, st.st_gid), (ALICE, BOB), "owner through one name, seen through the other")
    c.call(errno.EEXIST, "link over a name", os.link, path, other, follow_symlinks=False)
    os.unlink(path)
    c.equal(os.lstat(other).st_nlink, 2, "links after removal of the first name")
    os.unlink(other)
    c.equal(os.lstat(c.path("sub/z")).st_nlink, 1, "links of the last name")


def rename(c, kind):
    path, other = c.make(kind, "x"), c.path("y")
    os.mkdir(c.path("sub"))
    before, a, b = os.lstat(path), os.lstat(c.root), os.lstat(c.path("sub"))
    tick()
    c.call(0, "rename in its folder", os.rename, path, other)
    c.call(errno.ENOENT, "old name", os.lstat, path)
    st = os.lstat(other)
    c.equal((st.st_ino, st.st_mode, st.st_nlink), (before.st_ino, before.st_mode, before.st_nlink), "inode, mode and links stay")
    c.check(mtime(c.root) > a.st_mtime_ns and ctime(c.root) > a.st_ctime_ns, "times of the folder move")
    a = os.lstat(c.root)
    tick()
    c.call(0, "rename into another folder", os.rename, other, c.path("sub/z"))
    c.equal(os.lstat(c.path("sub/z")).st_ino, before.st_ino, "inode stays across folders")
    c.check(mtime(c.root) > a.st_mtime_ns and ctime(c.root) > a.st_ctime_ns, "times of the old folder move")
    c.check(mtime(c.path("sub")) > b.st_mtime_ns and ctime(c.path("sub")) > b.st_ctime_ns, "times of the new folder move")
    c.call(0, "rename to itself", os.rename, c.path("sub/z"), c.path("sub/z"))
    c.check(os.path.lexists(c.path("sub/z")), "still there after a rename to itself")
    if kind != "dir":
        os.link(c.path("sub/z"), c.path("twin"), follow_symlinks=False)
        c.call(0, "rename to a twin name of one inode", os.rename, c.path("sub/z"), c.path("twin"))
        c.check(os.path.lexists(c.path("sub/z")) and os.path.lexists(c.path("twin")), "both twin names stay")
        c.equal(os.lstat(c.path("twin")).st_nlink, 2, "links of twins stay")


def rename_over(c):
    for old in TYPES:
        for new in TYPES:
            a, b = c.make(old, "old"), c.make(new, "new")
            ino, over = os.lstat(a).st_ino, os.lstat(b).st_ino
            keep = None
            if new != "dir":
                keep = c.path("keep")
                os.link(b, keep, follow_symlinks=False)
            if old == "dir" and new != "dir":
                want = errno.ENOTDIR
            elif old != "dir" and new == "dir":
                want = errno.EISDIR
            else:
                want = 0
            c.call(want, f"{old} over {new}", os.rename, a, b)
            c.equal(os.lstat(b).st_ino, over if want else ino, f"{old} over {new}: who has the name")
            c.equal(os.path.lexists(a), bool(want), f"{old} over {new}: old name is there")
            if keep:
                c.equal(os.lstat(keep).st_nlink, 2 if want else 1, f"{old} over {new}: links of what was replaced")
                os.unlink(keep)
            for path in (a, b):
                if os.path.lexists(path):
                    remove(path)


def rename_folders(c):
    os.makedirs(c.path("a/b/c"))
    os.makedirs(c.path("full/x"))
    c.call(errno.EINVAL, "into itself", os.rename, c.path("a"), c.path("a/d"))
    c.call(errno.EINVAL, "below itself", os.rename, c.path("a"), c.path("a/b/c/d"))
    c.call((errno.ENOTEMPTY, errno.EEXIST), "over a full folder", os.rename, c.path("a"), c.path("full"))
    c.call((errno.ENOTEMPTY, errno.EEXIST), "over an ancestor", os.rename, c.path("a/b"), c.path("a"))
    c.call((errno.EINVAL, errno.EBUSY), "of .", os.rename, c.path("a/."), c.path("z"))
    c.call((errno.EINVAL, errno.EBUSY, errno.ENOTEMPTY), "of ..", os.rename, c.path("a/b/.."), c.path("z"))
    c.call(errno.ENOENT, "of what is not there", os.rename, c.path("nothing"), c.path("z"))
    c.call(errno.ENOENT, "into what is not there", os.rename, c.path("a"), c.path("nothing/z"))
    up = os.lstat(c.root).st_nlink
    c.call(0, "to another folder", os.rename, c.path("a/b"), c.path("full/b"))
    c.check(os.path.isdir(c.path("full/b/c")), "its content is at the new place")
    c.equal(os.lstat(c.path("full/b/..")).st_ino, os.lstat(c.path("full")).st_ino, ".. is the new parent")
    c.equal(os.lstat(c.root).st_nlink, up, "links of a folder that is not concerned")
    c.call(errno.EXDEV, "to another file system", os.rename, c.path("a"), f"{c.outside}/conform-x")
    c.call(errno.EXDEV, "link to another file system", os.link, c.make("file", "f"), f"{c.outside}/conform-y")
    c.call((errno.EPERM,), "link of a folder", os.link, c.path("a"), c.path("a2"))


def setgid_folder(c):
    os.chown(c.root, ALICE, CAROL)
    os.chmod(c.root, 0o2777)
    for kind in TYPES:
        uid = 0 if kind in ("block", "char") else BOB
        with c.user(uid):
            path = c.make(kind, kind, 0o755)
        st = os.lstat(path)
        c.equal(st.st_gid, CAROL, f"{kind}: group of the parent")
        c.equal(st.st_uid, uid, f"{kind}: owner")
    with c.user(BOB):
        os.mkdir(c.path("inherits"), 0o755)
    c.equal(oct(os.lstat(c.path("inherits")).st_mode & 0o7777), oct(0o2755), "a folder inherits set-gid")


def folder_links(c):
    os.mkdir(c.path("p"))
    base = os.lstat(c.path("p")).st_nlink
    for i in range(5):
        os.mkdir(c.path(f"p/{i}"))
        c.check(os.lstat(c.path("p")).st_nlink in (1, base + i + 1), f"links of a folder with {i + 1} folders: {os.lstat(c.path('p')).st_nlink}")
    for i in range(5):
        os.rmdir(c.path(f"p/{i}"))
        c.check(os.lstat(c.path("p")).st_nlink in (1, base + 4 - i), f"links of a folder with {4 - i} folders left: {os.lstat(c.path('p')).st_nlink}")
    os.mkdir(c.path("q"))
    os.mkdir(c.path("p/x"))
    os.rename(c.path("p/x"), c.path("q/x"))
    c.check(os.lstat(c.path("p")).st_nlink in (1, base), "links of the old parent after a rename")
    c.check(os.lstat(c.path("q")).st_nlink in (1, base + 1), "links of the new parent after a rename")

# SPDX-License-Identifier: Apache-2.0
"""Random changes to a tree of names. Two ways:

    python3 -m test.posix.stress compare DIR [--other DIR] [--seed N] [--ops N] [--seconds S]
        each operation is done here and on a local tmpfs too; results, errors and now and then the whole trees must be the same.
        --other: the same folder through another mount; operations go through one or the other at random, so that a stale name,
        size or mode is seen at once.
    python3 -m test.posix.stress crowd DIR [--other DIR] [--processes N] [--seconds S] [--seed N]
        several processes at once, no reference; then the tree must be whole: every name can be looked up, link counts are
        the number of names, both mounts show the same, and all can be removed.

In the spirit of fsstress; this project's own text. The same seed does the same operations (compare)."""
import argparse
import errno
import hashlib
import os
import random
import shutil
import stat
import sys
import tempfile
import time

NAMES = "abcdef"
SAME = {errno.ENOTEMPTY: errno.EEXIST, errno.EPERM: errno.EACCES}  # standards allow either
MODES = (0o755, 0o700, 0o644, 0o600, 0o777, 0o1777, 0o711)
UIDS = (0, 65532, 65533)


class Difference(Exception):
    pass


def pick_path(rng):
    return "/".join(rng.choice(NAMES) for _ in range(rng.choice((1, 1, 2, 2, 2, 3, 3, 4))))


def write(path, offset, data, flags):
    fd = os.open(regular(path), os.O_WRONLY | os.O_NONBLOCK | flags, 0o644)
    try:
        if flags & os.O_APPEND:
            return os.write(fd, data)
        return os.pwrite(fd, data, offset)
    finally:
        os.close(fd)


def read(path):
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # another process may have put a fifo there meanwhile
    try:
        with open(fd, "rb", closefd=False) as f:  # of a folder this fails
            return hashlib.md5(f.read()).hexdigest()
    finally:
        os.close(fd)


def allocate(path, offset, size):
    fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        os.posix_fallocate(fd, offset, size)
    finally:
        os.close(fd)


def look(path):
    """What stat says that must be the same everywhere."""
    st = os.lstat(path)
    kind = stat.S_IFMT(st.st_mode)
    size = st.st_size if kind in (stat.S_IFREG, stat.S_IFLNK) else 0
    return kind, stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, size, 0 if kind == stat.S_IFDIR else st.st_nlink


def attributes(path):
    return sorted(n for n in os.listxattr(path, follow_symlinks=False) if n.startswith("user."))


def operation(rng):
    """A random operation: (name, function of a root, weight is in the list)."""
    p, q = pick_path(rng), pick_path(rng)
    n, at, data = rng.choice((0, 1, 100, 4096, 70000)), rng.choice((0, 0, 10, 5000, 65536, 300000)), rng.randbytes(rng.choice((1, 50, 4096, 9000, 140000)))
    mode, uid = rng.choice(MODES), rng.choice(UIDS)
    table = [
        ("create", 8, lambda r: os.close(os.open(f"{r}/{p}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))),
        ("write", 8, lambda r: write(f"{r}/{p}", at, data, os.O_CREAT)),
        ("append", 4, lambda r: write(f"{r}/{p}", 0, data, os.O_APPEND)),
        ("rewrite", 3, lambda r: write(f"{r}/{p}", 0, data, os.O_CREAT | os.O_TRUNC)),
        ("mkdir", 9, lambda r: os.mkdir(f"{r}/{p}", mode)),
        ("rmdir", 3, lambda r: os.rmdir(f"{r}/{p}")),
        ("unlink", 6, lambda r: os.unlink(f"{r}/{p}")),
        ("rename", 9, lambda r: os.rename(f"{r}/{p}", f"{r}/{q}")),
        ("link", 5, lambda r: os.link(f"{r}/{p}", f"{r}/{q}", follow_symlinks=False)),
        ("symlink", 3, lambda r: os.symlink(q, f"{r}/{p}")),
        ("readlink", 1, lambda r: os.readlink(f"{r}/{p}")),
        ("mkfifo", 1, lambda r: os.mkfifo(f"{r}/{p}", mode)),
        ("truncate", 5, lambda r: os.truncate(regular(f"{r}/{p}"), n)),
        ("fallocate", 2, lambda r: allocate(regular(f"{r}/{p}"), at, n + 1)),
        ("chmod", 4, lambda r: os.chmod(f"{r}/{p}", mode)),
        ("chown", 3, lambda r: os.lchown(f"{r}/{p}", uid, uid)),
        ("utime", 2, lambda r: os.utime(f"{r}/{p}", ns=(n * 10**9, at * 10**9), follow_symlinks=False)),
        ("mtime", 1, lambda r: at_time(f"{r}/{p}")),
        ("setxattr", 3, lambda r: os.setxattr(f"{r}/{p}", f"user.{q[0]}", data[:60], follow_symlinks=False)),
        ("removexattr", 1, lambda r: os.removexattr(f"{r}/{p}", f"user.{q[0]}", follow_symlinks=False)),
        ("listxattr", 1, lambda r: attributes(f"{r}/{p}")),
        ("stat", 8, lambda r: look(f"{r}/{p}")),
        ("list", 5, lambda r: sorted(os.listdir(f"{r}/{p}"))),
        ("read", 6, lambda r: read(regular(f"{r}/{p}"))),
    ]
    name, _, function = rng.choices(table, [w for _, w, _ in table])[0]
    return f"{name} {p} {q} n={n} at={at} len={len(data)} mode={mode:o} uid={uid}", function


def regular(path):
    """path, unless opening it would wait (a fifo)."""
    try:
        if stat.S_ISFIFO(os.stat(path).st_mode):
            raise OSError(errno.ENXIO, "fifo")
    except FileNotFoundError:
        pass
    return path


def at_time(path):
    """The mtime when it was set by utime (it is not new); else nothing that could be compared."""
    s = os.lstat(path).st_mtime_ns // 10**9
    return s if s < 10**6 else None


def attempt(function, root):
    try:
        return function(root), 0
    except OSError as e:
        return None, SAME.get(e.errno, e.errno)


def tree(root):
    """Everything below root that must be the same: {path: facts}."""
    found = {}
    for where, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(where, name)
            facts = look(path)
            more = read(path) if stat.S_ISREG(facts[0]) else os.readlink(path) if stat.S_ISLNK(facts[0]) else ""
            found[os.path.relpath(path, root)] = (*facts, more, tuple(attributes(path)))
    return found


def compare_trees(want, root, history):
    got = tree(root)
    for path in sorted(set(want) | set(got)):
        if want.get(path) != got.get(path):
            raise Difference(f"{root}/{path}: is {got.get(path)}, should be {want.get(path)}" + told(history))


def told(history):
    return "\nthe last operations:\n  " + "\n  ".join(history[-40:])


def compare(folder, other=None, seed=1, ops=3000, seconds=1e9):
    """Number of operations; Difference when results differ."""
    rng, history, done = random.Random(seed), [], 0
    name = f"stress-{seed}-{os.getpid()}"
    reference = tempfile.mkdtemp(prefix="stress-", dir="/dev/shm")
    roots = [f"{folder}/{name}"] + ([f"{other}/{name}"] if other else [])
    os.mkdir(roots[0])
    os.chmod(reference, 0o755)
    os.chmod(roots[0], 0o755)
    old, end = os.umask(0o022), time.monotonic() + seconds
    try:
        while done < ops and time.monotonic() < end:
            text, function = operation(rng)
            side = rng.randrange(len(roots))
            want, got = attempt(function, reference), attempt(function, roots[side])
            history.append(f"{done:6} {'other mount: ' if side else ''}{text} -> {errno.errorcode.get(want[1], want[0])}")
            if want != got:
                raise Difference(f"seed {seed}, operation {done}: {text}{' (other mount)' if side else ''}: is {shown(got)}, should be {shown(want)}"
                                 + told(history))
            done += 1
            if done % 1000 == 0:
                compare_trees(tree(reference), roots[-1], history)
        want = tree(reference)
        for root in roots:
            compare_trees(want, root, history)
    finally:
        os.umask(old)
        shutil.rmtree(reference, ignore_errors=True)
        shutil.rmtree(roots[0], ignore_errors=True)
    if os.path.lexists(roots[0]) or os.path.lexists(roots[-1]):
        raise Difference(f"seed {seed}: the tree could not be removed")
    return done


def shown(outcome):
    return errno.errorcode.get(outcome[1], str(outcome[1])) if outcome[1] else repr(outcome[0])


# ---- many at once ----

ODD = {errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EINVAL, errno.EAGAIN, errno.EPROTO}


def crowd_member(root, seed, seconds):
    """Exit status 0, or 1 after an error that no sequence of operations explains."""
    rng, end, n = random.Random(seed), time.monotonic() + seconds, 0
    while time.monotonic() < end:
        text, function = operation(rng)
        _, error = attempt(function, root)
        if error in ODD and not (error == errno.EINVAL and text.startswith(("rename", "readlink"))):
            print(f"stress: process {seed}: {text}: {errno.errorcode.get(error, error)}", file=sys.stderr)
            os._exit(1)
        n += 1
    os._exit(0)


def crowd(folder, other=None, processes=6, seconds=5, seed=1):
    """Names at the end; Difference when the tree is not whole."""
    name = f"crowd-{seed}-{os.getpid()}"
    roots = [f"{folder}/{name}"] + ([f"{other}/{name}"] if other else [])
    os.mkdir(roots[0])
    children = []
    for i in range(processes):
        pid = os.fork()
        if not pid:
            crowd_member(roots[i % len(roots)], seed * 1000 + i, seconds)
        children.append(pid)
    bad = sum(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0 for pid in children)
    if bad:
        raise Difference(f"seed {seed}: {bad} of {processes} processes met an error that cannot be")
    first = tree(roots[0])
    compare_trees(first, roots[-1], [])
    names = {}
    for path in first:
        st = os.lstat(f"{roots[0]}/{path}")
        if not stat.S_ISDIR(st.st_mode):
            names.setdefault(st.st_ino, [st.st_nlink, []])[1].append(path)
    wrong = [(links, paths) for links, paths in names.values() if links != len(paths)]
    if wrong:
        raise Difference(f"seed {seed}: link count is not the number of names: {wrong[:5]}")
    shutil.rmtree(roots[0])
    if os.path.lexists(roots[-1]):
        raise Difference(f"seed {seed}: the tree is still there after its removal")
    return len(first)


def main():
    p = argparse.ArgumentParser(prog="python3 -m test.posix.stress")
    p.add_argument("way", choices=("compare", "crowd"))
    p.add_argument("folder")
    p.add_argument("--other")
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--ops", type=int, default=10**9)
    p.add_argument("--seconds", type=float, default=10)
    p.add_argument("--processes", type=int, default=6)
    a = p.parse_args()
    try:
        if a.way == "compare":
            n = compare(a.folder, a.other, a.seed, a.ops, a.seconds)
            print(f"stress: seed {a.seed}: {n} operations, no difference")
        else:
            n = crowd(a.folder, a.other, a.processes, a.seconds, a.seed)
            print(f"stress: seed {a.seed}: {a.processes} processes, {n} names at the end, whole")
    except Difference as e:
        print(f"stress: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

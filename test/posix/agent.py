# SPDX-License-Identifier: Apache-2.0
"""Another process on another mount: it does what it is told and tells what came of it. Used for locks, appends, mmap.

    with Agent() as a:
        fd = a("open", path, os.O_RDWR)         # a method of Hands below; OSError is raised here as there
        a.start("lock", fd, fcntl.LOCK_EX)      # without waiting; a.done(seconds) asks, a.result() waits
        a.kill()                                # the process is gone without closing anything"""
import fcntl
import mmap
import multiprocessing
import os
import struct

FLOCK = "hhqqi4x"  # struct flock on 64-bit Linux
LIMIT_S = 60


class Hands:
    """What an agent can do. Descriptors and maps live in its process."""

    def __init__(self):
        self.maps = {}

    open = staticmethod(os.open)
    close = staticmethod(os.close)
    pwrite = staticmethod(os.pwrite)
    pread = staticmethod(os.pread)
    write = staticmethod(os.write)
    fsync = staticmethod(os.fsync)
    flock = staticmethod(fcntl.flock)

    def size(self, fd):
        return os.fstat(fd).st_size

    def lock(self, fd, how, length=0, start=0):
        fcntl.lockf(fd, how, length, start)

    def holder(self, fd, how, length=0, start=0):
        """F_GETLK: None when the lock could be had, else (type, start, length)."""
        asked = struct.pack(FLOCK, how, 0, start, length, 0)
        kind, _, first, size, _ = struct.unpack(FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else (kind, first, size)

    def map(self, fd, length):
        self.maps[fd] = mmap.mmap(fd, length)

    def map_read(self, fd, at, n):
        return self.maps[fd][at:at + n]

    def map_write(self, fd, at, data):
        self.maps[fd][at:at + len(data)] = data

    def map_sync(self, fd):
        self.maps[fd].flush()

    def unmap(self, fd):
        self.maps.pop(fd).close()

    def append(self, path, mark, count):
        """count records of 64 bytes, each by one write."""
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        for i in range(count):
            os.write(fd, f"{mark}-{i:06d}".encode().ljust(63, b".") + b"\n")
        os.close(fd)


def _serve(pipe):
    hands = Hands()
    while True:
        try:
            name, args = pipe.recv()
        except EOFError:
            os._exit(0)
        try:
            pipe.send((getattr(hands, name)(*args), None))
        except OSError as e:
            pipe.send((None, (e.errno, str(e))))


class Agent:
    def __init__(self):
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=_serve, args=(other,), daemon=True)
        self.process.start()
        other.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self, name, *args):
        self.pipe.send((name, args))

    def done(self, seconds=0):
        return self.pipe.poll(seconds)

    def result(self, seconds=LIMIT_S):
        if not self.pipe.poll(seconds):
            raise TimeoutError(f"no answer within {seconds} s")
        value, error = self.pipe.recv()
        if error:
            raise OSError(*error)
        return value

    def __call__(self, name, *args):
        self.start(name, *args)
        return self.result()

    def kill(self):
        self.process.kill()
        self.process.join(10)

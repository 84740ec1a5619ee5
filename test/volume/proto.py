# SPDX-License-Identifier: Apache-2.0
"""Frames of docs/protocol/volume.md in Python, as far as tests of bricks need them: written from the tables, not from the C code."""
import json
import socket
import struct

MAGIC = 0x3142564B
HELLO, OP, REPL, DELTA, FETCH, PUSH, PING, ADMIN, BAD_BLOCK, EARLY = range(1, 11)
CLIENT, SESSION, PEER, ADMINISTRATOR, PULL = range(1, 6)
HEAD = struct.Struct("<IHHIIQIHhQII")


def _table():
    t = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ 0x82F63B78 if n & 1 else n >> 1
        t.append(n)
    return t


TABLE = _table()


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for b in data:
        crc = TABLE[(crc ^ b) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def fnv64(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = ((h ^ b) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return h


def head(kind, body=b"", payload=b"", request=1, volume=0, group=0, epoch=0, flags=0, payload_crc=0):
    return HEAD.pack(MAGIC, kind, flags, len(body), len(payload), request, volume, group, 0, epoch, crc32c(body), payload_crc)


def text(s):
    return bytes([len(s)]) + s.encode()


class Wire:
    """One connection. volume: the uuid's 16 bytes."""

    def __init__(self, address, role=ADMINISTRATOR, volume=bytes(16), client=1, hello=True, timeout=10, receive_buffer=None):
        host, port = address.rsplit(":", 1)
        self.s = socket.socket()
        if receive_buffer:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.s.settimeout(timeout)
        self.s.connect((host, int(port)))
        self.volume, self.request = fnv64(volume) & 0xFFFFFFFF, 0
        if hello:
            self.send(HELLO, struct.pack("<IB", 1, role) + volume + struct.pack("<QQ", client, 0) + text("test") + text("a"))
            self.hello = self.receive()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.s.close()

    def send(self, kind, body=b"", payload=b"", **more):
        self.request += 1
        self.s.sendall(head(kind, body, payload, request=self.request, volume=self.volume, **more) + body + payload)
        return self.request

    def exactly(self, n):
        data = b""
        while len(data) < n:
            part = self.s.recv(n - len(data))
            if not part:
                raise ConnectionError("closed")
            data += part
        return data

    def receive(self):
        """(type, flags, status, request, body, payload)"""
        f = HEAD.unpack(self.exactly(HEAD.size))
        body, payload = self.exactly(f[3]), self.exactly(f[4])
        if f[0] != MAGIC or crc32c(body) != f[10]:
            raise ValueError("not a frame")
        return f[1], f[2], f[8], f[5], body, payload

    def ask(self, kind, body=b"", payload=b"", **more):
        request = self.send(kind, body, payload, **more)
        while True:
            answer = self.receive()
            if answer[3] == request:
                return answer

    def admin(self, verb, **more):
        _, _, status, _, body, _ = self.ask(ADMIN, json.dumps({"verb": verb, **more}).encode())
        return status, json.loads(body)

    def closed(self):
        """Waits until the other side has closed."""
        try:
            while self.s.recv(65536):
                pass
        except ConnectionError:
            pass
        return True


# ---- operations ----
(LOOKUP, GETATTR, SETATTR, CREATE, MKDIR, UNLINK, RMDIR, RENAME, LINK, READDIR, READ, WRITE, DELEGATE,
 UNDELEGATE) = 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 31, 32
EXCL, KNOWN, NUMBERED, TIMED = 1, 1024, 4096, 8192
WANT_LEASE, LEASED, ANY_MEMBER = 2, 4, 16
ROOT = (bytes(15) + b"\1", 0)
ATTR = ("size", "blocks", "atime", "mtime", "ctime", "mode", "nlink", "uid", "gid", "rdev", "gen", "version", "home")
ATTR_FIELDS = struct.Struct("<QQqqqHIIIIIQB")


def pack_ino(ino):
    return ino[0] + struct.pack("<Q", ino[1])


def pack_attr(a):
    ino = a.get("ino", (bytes(16), 0))
    return pack_ino(ino) + ATTR_FIELDS.pack(*[a.get(f, 0) for f in ATTR]) + (a.get("up", bytes(16)) if ino[1] == 0 else b"")


def operation(kind, id=None, ino=None, ino2=None, target=None, name=None, name2=None, flags=0, set=0, gen=0, off=0, len=0, attr=None):
    mask, body = 0, b""
    fields = [(1, id, lambda v: struct.pack("<QIQ", *v)), (2, ino, pack_ino), (4, ino2, pack_ino), (8, target, pack_ino),
              (16, name, lambda v: struct.pack("<H", v.__len__()) + v.encode()), (32, name2, lambda v: struct.pack("<H", v.__len__()) + v.encode()),
              (64, flags, lambda v: struct.pack("<I", v)), (128, set, lambda v: struct.pack("<I", v)), (256, gen, lambda v: struct.pack("<I", v)),
              (512, off, lambda v: struct.pack("<Q", v)), (1024, len, lambda v: struct.pack("<Q", v)), (2048, attr, pack_attr)]
    for bit, value, pack in fields:
        if value:
            mask |= bit
            body += pack(value)
    return struct.pack("<BI", kind, mask) + body


def result(body):
    """{"err", "flags", "attr", "parent", "gone", "lock": (start, end), "data"} as far as they are there."""
    err, flags, mask = struct.unpack_from("<iIB", body)
    r, at = {"err": err, "flags": flags}, 9

    def attributes():
        nonlocal at
        a = {"ino": (body[at:at + 16], struct.unpack_from("<Q", body, at + 16)[0])}
        a.update(zip(ATTR, ATTR_FIELDS.unpack_from(body, at + 24)))
        at += 24 + ATTR_FIELDS.size
        if a["ino"][1] == 0:
            a["up"] = body[at:at + 16]
            at += 16
        return a
    for bit, name in ((1, "attr"), (2, "parent"), (4, "gone")):
        if mask & bit:
            r[name] = attributes()
    if mask & 8:
        r["lock"] = struct.unpack_from("<QQ", body, at)
        at += 30
    if mask & 32:
        at += 16
    n_crcs = n_data = 0
    if mask & 128:
        r["crc_off"], n_crcs = struct.unpack_from("<QI", body, at)
        at += 12
    if mask & 64:
        n_data = struct.unpack_from("<I", body, at)[0]
        at += 4
    at += 4 * n_crcs
    r["data"] = body[at:at + n_data]
    return r


def payload_crc(payload):
    """Of bytes at the beginning of a file: the CRC of its chunks' CRCs, none of which is 0 or 1."""
    crcs = [crc32c(payload[i:i + 4096]) for i in range(0, len(payload), 4096)]
    return crc32c(b"".join(struct.pack("<I", c if c > 1 else c ^ 0xFFFFFFFF) for c in crcs))

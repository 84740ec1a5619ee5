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

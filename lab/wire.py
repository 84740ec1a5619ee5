# SPDX-License-Identifier: Apache-2.0
"""Client of lab-wire (lab/wire.c): the network between the machines."""
import json
import socket
import subprocess

from lab.util import BUILD, LabError, wait_for


class Wire:
    def __init__(self, folder):
        self.path, self.log = folder / "wire.sock", folder / "log/wire.log"
        self.process = None

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([BUILD / "lab/lab-wire", self.path], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for("the wire starts", self.path.exists, 5, [self.log], 0.01)

    def command(self, text):
        """One command line; the JSON of the answer, or None."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            try:
                s.connect(str(self.path))
                s.sendall(text.encode() + b"\n")
                answer = b""
                while not answer.endswith(b"\n"):
                    part = s.recv(65536)
                    if not part:
                        raise OSError("closed")
                    answer += part
            except OSError as e:
                raise LabError(f"wire: {text}: {e}; log: {self.log}") from None
        word, _, rest = answer.decode().strip().partition(" ")
        if word != "ok":
            raise LabError(f"wire: {text}: {rest}")
        return json.loads(rest) if rest else None

    def stop(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        self.path.unlink(missing_ok=True)

# SPDX-License-Identifier: Apache-2.0
"""Certificates of the lab: one CA, made by `kuayu pki`."""
from lab.util import KUAYU, run


class Pki:
    def __init__(self, folder):
        self.folder, self.ca = folder, folder / "ca.crt"

    def init(self):
        run(KUAYU, "pki", "init", f"--dir={self.folder}")

    def issue(self, name, cn, groups=(), hosts=()):
        """name.crt and name.key for client use, with hosts for server use too; returns the two paths."""
        cert, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        if cert.exists():
            return cert, key
        argv = [KUAYU, "pki", "issue", f"--dir={self.folder}", f"--name={name}", f"--cn={cn}", "--client", "--days=3650"]
        argv += [f"--org={g}" for g in groups]
        if hosts:
            argv += ["--server"] + [f"--san={'IP' if h.replace('.', '').isdigit() else 'DNS'}:{h}" for h in hosts]
        run(*argv)
        return cert, key

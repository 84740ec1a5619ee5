# SPDX-License-Identifier: Apache-2.0
"""Certificates of the lab: one CA for etcd, one for the cluster.."""
from lab.util import run


class Pki:
    def __init__(self, folder):
        self.folder = folder
        self.ca, self.ca_key = folder / "ca.crt", folder / "ca.key"

    def init(self):
        """A new CA, for 10 years."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.ca.exists():
            return
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650",
            "-subj", "/CN=kuayu", "-keyout", self.ca_key, "-out", self.ca,
            "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature")

    def issue(self, name, cn, groups=(), hosts=()):
        """name.crt and name.key for server and client use; returns the two paths."""
        cert, key = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        if cert.exists():
            return cert, key
        alternative = ",".join(("IP:" if h.replace(".", "").isdigit() else "DNS:") + h for h in hosts)
        extensions = "extendedKeyUsage=serverAuth,clientAuth\nkeyUsage=critical,digitalSignature\nbasicConstraints=critical,CA:FALSE\n"
        if alternative:
            extensions += f"subjectAltName={alternative}\n"
        request, ext = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        ext.write_text(extensions)
        subject = "".join(f"/O={g}" for g in groups) + f"/CN={cn}"
        run("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject,
            "-keyout", key, "-out", request)
        run("openssl", "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.ca_key, "-days", "3650", "-extfile", ext,
            "-out", cert)
        request.unlink()
        ext.unlink()
        return cert, key

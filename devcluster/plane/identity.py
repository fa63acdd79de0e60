"""Who the embedded plane is for its clients: port, certificate and token. Kept, it is the same after a restart."""

import secrets
import ssl
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import msgspec

from devcluster.plane import tls

HOSTS = ("127.0.0.1", "localhost", "kubernetes.default.svc")


@dataclass(frozen=True, slots=True)
class Identity:
    """`authority` and `pair` (certificate and key) are PEM; port 0 is one that the kernel chooses."""

    port: int
    token: str
    authority: str
    pair: str

    def context(self, directory: Path) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        pair = directory / "apiserver.pem"
        tls.write_private(pair, self.pair.encode())
        try:
            context.load_cert_chain(pair)
        finally:
            pair.unlink()  # the context holds the key now
        return context

    def at(self, port: int) -> "Identity":
        return replace(self, port=port)

    def kubeconfig(self) -> bytes:
        return tls.kubeconfig(f"https://127.0.0.1:{self.port}", self.authority.encode(), {"token": self.token})


def new_identity() -> Identity:
    authority = tls.Authority("embedded-plane-ca")
    certificate, key = authority.issue("embedded-apiserver", hosts=HOSTS)
    return Identity(0, secrets.token_urlsafe(32), authority.pem.decode(), (certificate + key).decode())


def kept(data_dir: Path) -> Identity | None:
    path = data_dir / "identity.json"
    return msgspec.json.decode(path.read_bytes(), type=Identity) if path.exists() else None


def keep(data_dir: Path, identity: Identity) -> None:
    tls.write_private(data_dir / "identity.json", msgspec.json.encode(asdict(identity)))

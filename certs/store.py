"""Where the certificates are kept: a Secret that all replicas share, or a directory outside a cluster."""

from __future__ import annotations

import base64
import binascii
import os
from typing import TYPE_CHECKING, Final, Protocol

from allocator.kube import errors
from allocator.kube.resources import SECRETS
from certs.authority import Material

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object

SECRET_NAME: Final = "spiderpool-webhook-certs"  # noqa: S105 - the name of the object
# Names of the keys in the Secret and of the files in the directory; the first three as cert-manager writes them.
CA, CERTIFICATE, KEY, CA_KEY = "ca.crt", "tls.crt", "tls.key", "ca.key"


class UnusableError(Exception):
    """What is kept is no certificate and key; the message says where, and what to do."""


class Store(Protocol):
    async def load(self) -> Material | None:
        """What is kept; None when nothing is. UnusableError when it cannot be used."""

    async def save(self, material: Material) -> bool:
        """Keep it in place of what `load` gave last. False when somebody else was faster: load again."""


class SecretStore:
    def __init__(self, client: KubeClient, namespace: str, name: str = SECRET_NAME) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._seen: Object | None = None

    async def load(self) -> Material | None:
        try:
            self._seen = await self._client.get(SECRETS, self._name, namespace=self._namespace)
        except errors.NotFound:
            self._seen = None
            return None
        data = self._seen.get("data") or {}
        try:
            texts = {key: base64.b64decode(value, validate=True).decode() for key, value in data.items()}
        except (binascii.Error, UnicodeDecodeError, TypeError) as error:
            raise UnusableError(f"Secret {self._namespace}/{self._name} holds no PEM: delete it") from error
        return _material(texts, f"Secret {self._namespace}/{self._name}")

    async def save(self, material: Material) -> bool:
        data = {key: base64.b64encode(text.encode()).decode() for key, text in _texts(material).items()}
        try:
            if self._seen is None:
                await self._client.create(SECRETS, self._new(data), namespace=self._namespace)
            else:
                await self._client.replace(SECRETS, {**self._seen, "data": {**(self._seen.get("data") or {}), **data}})
        except (errors.AlreadyExists, errors.Conflict, errors.NotFound):
            return False
        return True

    def _new(self, data: dict[str, str]) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                "labels": {"app.kubernetes.io/part-of": "spiderpool"},
            },
            "type": "kubernetes.io/tls",
            "data": data,
        }


class DirectoryStore:
    """One process writes, any may read: files are replaced one by one, and a reader that meets two halves of a change
    finds a pair that does not fit and reads again.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def load(self) -> Material | None:
        texts = {}
        for name in (CA, CERTIFICATE, KEY, CA_KEY):
            try:
                texts[name] = (self._directory / name).read_text(encoding="ascii")
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise UnusableError(f"{self._directory / name} cannot be read: {error}") from error
        return _material(texts, str(self._directory)) if texts else None

    async def save(self, material: Material) -> bool:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, text in _texts(material).items():
            _write(self._directory / name, text)
        return True


def _material(texts: dict[str, str], where: str) -> Material:
    missing = [name for name in (CA, CERTIFICATE, KEY) if not texts.get(name)]
    if missing:
        raise UnusableError(f"{where} lacks {', '.join(missing)}: add it, or delete the rest to have all made anew")
    return Material(texts[CA], texts[CERTIFICATE], texts[KEY], texts.get(CA_KEY, ""))


def _texts(material: Material) -> dict[str, str]:
    return {CA: material.ca, CERTIFICATE: material.certificate, KEY: material.key, CA_KEY: material.ca_key}


def _write(path: Path, text: str) -> None:
    """Replace the file in one step; nobody but the owner may read it, not even for a moment."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
    draft.replace(path)

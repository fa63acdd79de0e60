"""Where the certificates are kept: a Secret that all replicas share, or a directory outside a cluster."""

from __future__ import annotations

import base64
import binascii
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from allocator.kube import errors
from allocator.kube.resources import SECRETS
from allocator.runtime.config import ConfigError
from certs import authority
from certs.authority import Material

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object

SECRET_NAME: Final = "spiderpool-webhook-certs"  # noqa: S105 - the name of the object
# Names of the keys in the Secret and of the files in the directory; the first three as cert-manager writes them.
CA, CERTIFICATE, KEY, CA_KEY = "ca.crt", "tls.crt", "tls.key", "ca.key"


PARTS: Final = {"ca": CA, "certificate": CERTIFICATE, "key": KEY, "ca_key": CA_KEY}


@dataclass(frozen=True, slots=True)
class Reading:
    """Which parts count, and what a person does about one that cannot be used."""

    parts: tuple[str, ...]
    remedy: str


OWN: Final = Reading(
    (CA, CERTIFICATE, KEY, CA_KEY), "put the right one there, or delete all of them to have new ones made"
)
# ca.key is no business of ours then: it is left from before, or a mistake.
GIVEN: Final = Reading(
    (CA, CERTIFICATE, KEY), f"who issues the certificate has to write {CA}, {CERTIFICATE} and {KEY} there"
)


class UnusableError(ConfigError):
    """What is kept is no certificate and key, or cannot be kept; the message says where, and what to do."""


class Store(Protocol):
    where: str
    """For messages."""

    async def load(self, reading: Reading = OWN) -> Material | None:
        """What is kept; None when nothing is. UnusableError when it cannot be used."""

    async def save(self, material: Material) -> bool:
        """Keep it in place of what `load` gave last. False when somebody else was faster: load again."""


class SecretStore:
    def __init__(self, client: KubeClient, namespace: str, name: str = SECRET_NAME) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._seen: Object | None = None
        self.where = f"Secret {namespace}/{name}"

    async def load(self, reading: Reading = OWN) -> Material | None:
        try:
            self._seen = await self._client.get(SECRETS, self._name, namespace=self._namespace)
        except errors.NotFound:
            self._seen = None
            return None
        data = self._seen.get("data") or {}
        texts = {}
        for key in data.keys() & set(reading.parts):  # what else somebody keeps in there is none of our business
            try:
                texts[key] = base64.b64decode(data[key], validate=True).decode("ascii")
            except (binascii.Error, UnicodeDecodeError, TypeError):
                raise UnusableError(f"{self.where}: {key} is no PEM: {reading.remedy}") from None
        return _material(texts, self.where, reading)

    async def save(self, material: Material) -> bool:
        data = {key: base64.b64encode(text.encode()).decode() for key, text in _texts(material).items()}
        try:
            if self._seen is None:
                await self._client.create(SECRETS, self._new(data), namespace=self._namespace)
            else:
                await self._client.replace(SECRETS, {**self._seen, "data": {**(self._seen.get("data") or {}), **data}})
        except errors.NotFound:
            if self._seen is None:
                why = f"there is no namespace {self._namespace}: create it, or give another --namespace"
                raise UnusableError(f"{self.where} cannot be made: {why}") from None
            return False
        except (errors.AlreadyExists, errors.Conflict):
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
        self.where = str(directory)

    async def load(self, reading: Reading = OWN) -> Material | None:
        texts = {}
        for name in reading.parts:
            try:
                texts[name] = (self._directory / name).read_text(encoding="ascii")
            except FileNotFoundError:
                continue
            except (OSError, UnicodeDecodeError) as error:
                raise UnusableError(f"{self._directory / name} cannot be read: {error}") from error
        return _material(texts, self.where, reading)

    async def save(self, material: Material) -> bool:
        """In an order in which a crash leaves what the next start puts right: without ca.key it would be a stranger's,
        and a key that does not fit has its certificate made anew.
        """
        texts = _texts(material)
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for name in (CA_KEY, CA, KEY, CERTIFICATE):
                _write(self._directory / name, texts[name])
        except OSError as error:
            raise UnusableError(f"{self._directory} cannot be written: {error}; give another --cert-dir") from error
        return True


def _material(texts: dict[str, str], where: str, reading: Reading) -> Material | None:
    """The texts as a value; None when there are none, or the beginning of a first set: all is made anew then."""
    if texts.keys() <= {CA_KEY}:
        return None
    # With ca.key and ca.crt the rest can be made.
    needed = (CA,) if texts.get(CA_KEY) else (CA, CERTIFICATE, KEY)
    missing = [name for name in needed if not texts.get(name)]
    if missing:
        raise UnusableError(f"{where} lacks {', '.join(missing)}: {_how_to_complete(missing, reading)}")
    if texts.get(CA_KEY) == "":
        raise UnusableError(f"{where}: {CA_KEY} is empty: delete it to have the certificate served as it is")
    material = Material(texts[CA], texts.get(CERTIFICATE, ""), texts.get(KEY, ""), texts.get(CA_KEY, ""))
    try:
        authority.check(material)
    except authority.UnreadableError as error:
        raise UnusableError(f"{where}: {PARTS[error.part]} {error.why}; {reading.remedy}") from None
    return material


def _how_to_complete(missing: list[str], reading: Reading) -> str:
    if reading is OWN:
        return "add it, or delete the rest to have all made anew"
    if missing == [CA]:
        # Without it the API server would go by its own list of public CAs, none of which knows the name of a Service.
        return "add the certificate of the CA, of a public one too: the API server is told to trust it"
    return reading.remedy


def _texts(material: Material) -> dict[str, str]:
    return {CA: material.ca, CERTIFICATE: material.certificate, KEY: material.key, CA_KEY: material.ca_key}


def _write(path: Path, text: str) -> None:
    """Replace the file in one step; nobody but the owner may read it, not even for a moment."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)  # or a power cut may leave an empty file under the new name
    draft.replace(path)

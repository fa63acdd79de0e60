"""What no log and no event may tell (I14): credentials and private keys, whole or a line of them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from allocator.kube.resources import Object

# As text, and as the API server and kubeconfigs have it: the beginnings of PKCS 8 and of its elder.
MARKS: Final = frozenset({
    "PRIVATE KEY",
    *(base64.b64encode(f"-----BEGIN {kind}PRIVATE KEY-----"[:27].encode()).decode() for kind in ("", "EC ", "RSA ")),
})  # fmt: skip
# The last line of a key may be a few letters, which are anywhere.
LINE_LETTERS: Final = 20


def of_kubeconfig(path: Path) -> set[str]:
    user = yaml.safe_load(path.read_text())["users"][0]["user"]
    return {str(user[name]) for name in ("token", "client-key-data", "password") if user.get(name)}


def of_keys(folder: Path) -> set[str]:
    """Of all that lie in the folder or beneath it."""
    return {line for path in folder.rglob("*.key") for line in _body(path.read_text())}


def of_secret(secret: Object) -> set[str]:
    values = {name: value for name, value in (secret.get("data") or {}).items() if name.endswith(".key")}
    return {line for value in values.values() for line in (value, *_body(base64.b64decode(value).decode()))}


def told(texts: Iterable[tuple[str, str]], secrets: Iterable[str]) -> list[str]:
    """Who of (name, text) tells one; not what, for this is printed."""
    marks = {*MARKS, *secrets}
    return [f"{name} tells a secret" for name, text in texts if any(mark in text for mark in marks)]


def _body(pem: str) -> set[str]:
    return {line for line in pem.splitlines() if len(line) >= LINE_LETTERS and not line.startswith("-----")}

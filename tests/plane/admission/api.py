"""The API server as a user's client sees it, warnings included."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp

from allocator.kube.access import find_access
from allocator.kube.resources import (
    SPIDER_ENDPOINTS,
    SPIDER_IP_ADDRESSES,
    SPIDER_IP_POOLS,
    SPIDER_RESERVED_IPS,
    SPIDER_SUBNETS,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from allocator.kube.access import Access
    from allocator.kube.resources import Object
    from devcluster.plane import Plane

RESOURCES: Final = {
    resource.kind: resource
    for resource in (SPIDER_IP_POOLS, SPIDER_SUBNETS, SPIDER_RESERVED_IPS, SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES)
}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Object
    warnings: list[str]


class Api:
    def __init__(self, access: Access, session: aiohttp.ClientSession) -> None:
        self._access = access
        self._session = session

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, plane: Plane) -> AsyncIterator[Api]:
        access = await find_access(plane.kubeconfig)
        headers = {}
        if authorization := await access.credentials.authorization():
            headers["Authorization"] = authorization
        async with aiohttp.ClientSession(access.server, headers=headers) as session:
            yield cls(access, session)

    async def call(self, method: str, path: str, body: object = None, *, user: str = "", **params: str) -> Answer:
        form = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Content-Type": form}
        if user:
            headers |= {"Impersonate-User": user, "Impersonate-Group": "system:masters"}
        async with self._session.request(
            method, path, params=params, json=body, headers=headers, ssl=self._access.tls or True
        ) as response:
            warnings = [_warning(text) for text in response.headers.getall("Warning", [])]
            # The API server's own, about the original's finalizer.
            warnings = [text for text in warnings if not text.startswith("metadata.finalizers: ")]
            return Answer(response.status, await response.json(content_type=None), warnings)

    async def done(self, method: str, path: str, body: object = None, **params: str) -> Object:
        """The body of a call that must succeed."""
        answer = await self.call(method, path, body, **params)
        assert answer.status < 300, f"{method} {path}: {answer.body.get('message')}"
        return answer.body


def _warning(header: str) -> str:
    """The text of `299 - "text"` (RFC 7234, 5.5)."""
    found = re.match(r'299 \S+ "((?:[^"\\]|\\.)*)"', header)
    assert found, header
    return re.sub(r"\\(.)", r"\1", found.group(1))


def path_of(obj: Object) -> str:
    return collection_of(obj) + f"/{obj['metadata']['name']}"


def collection_of(obj: Object) -> str:
    return RESOURCES[obj["kind"]].path(obj["metadata"].get("namespace"))

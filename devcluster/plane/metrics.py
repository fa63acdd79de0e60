"""Two of kube-apiserver's own metrics, by its names: how many requests it answered, and how large their bodies were."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from devcluster.plane.request import flag

if TYPE_CHECKING:
    from aiohttp import web

    from devcluster.plane.request import Target


class Metrics:
    def __init__(self) -> None:
        self._requests: Counter[tuple[str, str, str, int]] = Counter()
        self._body_bytes: Counter[tuple[str, str]] = Counter()

    def count(self, request: web.Request, target: Target, code: int) -> None:
        """A request that has been answered; a watch counts at its end."""
        group, resource, verb = target.rt.group, target.rt.plural, _verb(request, target)
        self._requests[group, resource, verb, code] += 1
        if request.content_length:
            self._body_bytes[group, resource] += request.content_length

    def text(self) -> str:
        """In the exposition format of Prometheus."""
        requests = (
            f'apiserver_request_total{{code="{code}",group="{group}",resource="{resource}",verb="{verb}"}} {count}\n'
            for (group, resource, verb, code), count in sorted(self._requests.items())
        )
        sizes = (
            f'apiserver_request_body_size_bytes_sum{{group="{group}",resource="{resource}"}} {size}\n'
            for (group, resource), size in sorted(self._body_bytes.items())
        )
        return "".join((*requests, *sizes))


def _verb(request: web.Request, target: Target) -> str:
    if request.method == "GET" and not target.name:
        return "WATCH" if flag(request.query, "watch") else "LIST"
    return request.method

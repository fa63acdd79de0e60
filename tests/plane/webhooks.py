"""Real webhook processes for the tests, clients that speak to them, and reviews to send."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from allocator.domain import defaulting
from allocator.kube import errors
from allocator.kube.resources import MUTATING_WEBHOOKS, SPIDER_SUBNETS, VALIDATING_WEBHOOKS
from tests.plane.support import eventually
from webhook.entries import NAME, Registration, UrlTarget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource

START_S = 30.0
STOP_S = 15.0
API_VERSION = "spiderpool.spidernet.io/v2beta1"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A running process. `ca` is the path of its caBundle when it keeps certificates in a directory."""

    port: int
    certs: Path
    log: Path
    process: subprocess.Popen[bytes]

    @property
    def base(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_bundle(self) -> str:
        return (self.certs / "ca.crt").read_text()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The log lines of that event so far."""
        lines = (json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{"))
        return [line for line in lines if line["event"] == event]

    @contextlib.asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        tls = ssl.create_default_context(cadata=self.ca_bundle)
        async with aiohttp.ClientSession(self.base, connector=aiohttp.TCPConnector(ssl=tls, limit=0)) as session:
            yield session


@contextlib.contextmanager
def running_webhook(
    kubeconfig: Path, directory: Path, *options: str, in_secret: bool = False, until: str = "listening"
) -> Iterator[Webhook]:
    """The process, on a port of its own that the log line `until` has; SIGTERM at the end ends it in time with 0."""
    directory.mkdir(exist_ok=True)
    certs, log = directory / "certs", directory / "webhook.log"
    kept = () if in_secret else ("--cert-dir", str(certs))
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "webhook", "--kubeconfig", str(kubeconfig), "--listen", "127.0.0.1:0"),
                *kept,
                *options,
            ],
            stderr=stderr,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )
    try:
        running = Webhook(0, certs, log, process)
        deadline = time.monotonic() + START_S
        while not (lines := running.lines(until)):
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.02)
        yield Webhook(lines[0]["port"], certs, log, process)
    finally:
        process.terminate()
        try:
            code = process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"the webhook did not stop within {STOP_S:.0f} s")
    assert code == 0, log.read_text()[-3000:]


def pool(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": "SpiderIPPool", "metadata": {"name": name}, "spec": spec}


def subnet(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": "SpiderSubnet", "metadata": {"name": name}, "spec": spec}


def reservation(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": "SpiderReservedIP", "metadata": {"name": name}, "spec": spec}


def review(obj: dict[str, Any], operation: str = "CREATE", **request: Any) -> dict[str, Any]:
    """The question that the API server asks about the object."""
    kind = obj["kind"]
    group, version = API_VERSION.split("/")
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u1",
            "kind": {"group": group, "version": version, "kind": kind},
            "resource": {"group": group, "version": version, "resource": f"{kind.lower()}s"},
            "name": obj["metadata"]["name"],
            "operation": operation,
            "object": obj,
            **request,
        },
    }


async def register(kube: KubeClient, server: Webhook) -> None:
    """Have the API server ask it, and wait until it does."""
    registration = Registration(target=UrlTarget(server.base), namespace="spiderpool", has_subnets=True)
    for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
        await kube.create(resource, configuration(resource, registration.webhooks(resource, server.ca_bundle)))

    async def is_asked() -> bool:
        try:
            probe = await kube.create(SPIDER_SUBNETS, subnet("probe", subnet="192.0.2.0/24"), dry_run=True)
        except errors.ServerError:
            return False
        return defaulting.FINALIZER in (probe["metadata"].get("finalizers") or [])

    await eventually(is_asked)


def configuration(resource: Resource, webhooks: list[Object]) -> Object:
    head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": NAME}}
    return {**head, "webhooks": webhooks}

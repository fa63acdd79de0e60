"""Real controller processes for the tests, and the objects that they look after."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from allocator.domain.addresses import object_name, parse_address
from allocator.kube.codec import encode_time
from allocator.kube.errors import NotFound
from allocator.kube.resources import LEASES, SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS, STATEFUL_SETS
from devcluster.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource

API = "spiderpool.spidernet.io/v2beta1"
FINALIZER = "spiderpool.spidernet.io"
# The UID of no pod.
NOBODY = "00000000-0000-0000-0000-000000000000"
STOP_S = 15.0
# A lease that changes hands in seconds, so that tests of it need no more.
QUICK_LEASE = {
    "SPIDERPOOL_LEADER_DURATION": "3",
    "SPIDERPOOL_LEADER_RENEW_DEADLINE": "2",
    "SPIDERPOOL_LEADER_RETRY_PERIOD": "0.3",
}


@dataclass(frozen=True, slots=True)
class Controller:
    process: subprocess.Popen[bytes]
    log: Path

    def lines(self, event: str, **fields: str) -> list[dict[str, Any]]:
        """What it logged under this event, with these fields."""
        wanted = {"event": event, **fields}
        logged = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [line for line in logged if wanted.items() <= line.items()]

    async def logged(self, event: str, *, within_s: float = 20.0, **fields: str) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            return next(iter(self.lines(event, **fields)), None)

        return await until(look, within_s=within_s, what=f"the controller to log {event}")

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def running_controller(
    kubeconfig: Path, namespace: str, directory: Path, *arguments: str, identity: str = "one", **environ: str
) -> Iterator[Controller]:
    """The controller as a process of its own, with short times; SIGTERM at the end, and then it must go in time."""
    log = directory / f"{identity}.log"
    command = [
        sys.executable, "-m", "controller", "--kubeconfig", str(kubeconfig), "--namespace", namespace,
        "--identity", identity, "--health-listen", "0", "--reclaim-grace", "0.6", "--sweep-interval", "0.5",
        "--reuse-delay", "1", "--log-level", "debug", *arguments,
    ]  # fmt: skip
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            command, stderr=stderr, env={**os.environ, **QUICK_LEASE, "PYTHONWARNINGS": "error", **environ}
        )
    try:
        yield Controller(process, log)
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait(STOP_S)


async def leader_of(kube: KubeClient, namespace: str) -> str:
    """The identity given to the replica that holds the lease now; "" for none."""
    try:
        lease = await kube.get(LEASES, "spiderpool-controller-leases", namespace=namespace)
    except NotFound:
        return ""
    return str(lease["spec"].get("holderIdentity") or "").partition("_")[0]


async def make_pool(kube: KubeClient, name: str, items: str, **spec: Any) -> Object:
    meta = {"name": name, "finalizers": [FINALIZER]}
    body = {"subnet": "10.30.0.0/16", "ips": [items], "ipVersion": 4, **spec}
    return await kube.create(
        SPIDER_IP_POOLS, {"apiVersion": API, "kind": "SpiderIPPool", "metadata": meta, "spec": body}
    )


async def make_record(
    kube: KubeClient, text: str, pool: str, namespace: str, pod: str, pod_uid: str, **said: Any
) -> Object:
    """A Held address object, unless said otherwise."""
    address = parse_address(text)
    now = datetime.now(UTC)
    spec = {
        "address": text,
        "ipVersion": address.version,
        "pool": pool,
        "state": "Held",
        "holder": {
            "namespace": namespace,
            "pod": pod,
            "podUID": pod_uid,
            "interface": "eth0",
            "node": "node-1",
            "containerID": "c1",
        },
        "since": encode_time(now),
        **said,
    }
    meta = {"name": object_name(address)}
    return await kube.create(
        SPIDER_IP_ADDRESSES, {"apiVersion": API, "kind": "SpiderIPAddress", "metadata": meta, "spec": spec}
    )


def in_seconds(seconds: float) -> str:
    return encode_time(datetime.now(UTC) + timedelta(seconds=seconds))


def slot_of(stateful_set: Object, ordinal: int) -> dict[str, Any]:
    meta = stateful_set["metadata"]
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "namespace": meta["namespace"],
        "name": meta["name"],
        "ordinal": ordinal,
    }


async def make_stateful_set(kube: KubeClient, namespace: str, replicas: int) -> Object:
    labels = {"app": "db"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "main", "image": "none"}]}}
    spec = {"replicas": replicas, "serviceName": "db", "selector": {"matchLabels": labels}, "template": template}
    meta = {"name": "db", "namespace": namespace}
    return await kube.create(
        STATEFUL_SETS, {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta, "spec": spec}
    )


async def make_endpoint(kube: KubeClient, pod: Object, pool: str, text: str, *, static: bool = False) -> Object:
    """As an agent leaves it: that of a static pod has no owner."""
    meta = pod["metadata"]
    owner = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
    ip = {"interface": "eth0", "ipv4": f"{text}/16", "ipv4Pool": pool, "vlan": 0}
    body = {
        "apiVersion": API,
        "kind": "SpiderEndpoint",
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "ownerReferences": [] if static else [owner],
            "finalizers": [FINALIZER],
        },
        "status": {
            "current": {"uid": meta["uid"], "node": "node-1", "ips": [ip]},
            "ownerControllerType": "StatefulSet" if static else "Pod",
            "ownerControllerName": meta["name"],
        },
    }
    return await kube.create(SPIDER_ENDPOINTS, body)


async def find(kube: KubeClient, text: str) -> Object | None:
    try:
        return await kube.get(SPIDER_IP_ADDRESSES, object_name(parse_address(text)))
    except NotFound:
        return None


async def state_of(kube: KubeClient, text: str) -> str:
    """The state of the address object, "" when there is none."""
    found = await find(kube, text)
    return str(found["spec"]["state"]) if found else ""


async def until_state(kube: KubeClient, text: str, *states: str, within_s: float = 20.0) -> str:
    """Wait for one of the states; "" means gone."""

    async def look() -> str | None:
        state = await state_of(kube, text)
        return f"={state}" if state in states else None

    wanted = " or ".join(state or "gone" for state in states)
    return (await until(look, within_s=within_s, what=f"{text} to be {wanted}")).removeprefix("=")


async def status_of(kube: KubeClient, pool: str) -> dict[str, Any]:
    found = await kube.get(SPIDER_IP_POOLS, pool)
    return found.get("status") or {}


async def until_status(
    kube: KubeClient, pool: str, holds: Callable[[dict[str, Any]], bool], *, within_s: float = 20.0
) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        status = await status_of(kube, pool)
        return status if status and holds(status) else None

    return await until(look, within_s=within_s, what=f"the status of SpiderIPPool {pool}")


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(each for each in status["conditions"] if each["type"] == kind)
    return found


async def until_gone(
    kube: KubeClient, name: str, *, resource: Resource = SPIDER_IP_POOLS, within_s: float = 20.0
) -> None:
    async def gone() -> bool:
        try:
            await kube.get(resource, name)
        except NotFound:
            return True
        return False

    await until(gone, within_s=within_s, what=f"{resource.kind} {name} to go")

"""A small kubelet: for each pod of its node CNI ADD, status, CNI DEL, and the end of its deletion.

Each pod has one task, from its first sighting to its end, which reads top to bottom. Nothing is remembered across
restarts: namespaces end with this process, and a pod found again is added again, which IPAM answers with the same
addresses.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from allocator.kube import errors, resources
from allocator.kube.cache import Cache, Change
from allocator.runtime import backoff, logs
from devcluster.nodes import podstatus
from devcluster.nodes.cni import Attachment, CniError
from devcluster.nodes.links import LinkError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from allocator.kube.client import KubeClient
    from allocator.kube.events import Recorder
    from allocator.kube.resources import Object
    from allocator.runtime.clock import Clock
    from devcluster.nodes.attach import Attacher, Sandbox
    from devcluster.nodes.sandboxes import Sandboxes

log = logs.get_logger(__name__)

INTERFACE = "eth0"

# A real kubelet starts far more at once; here all nodes share one machine.
PARALLEL_ADDS = 4

RETRY_BASE_S = 0.5
RETRY_CAP_S = 10.0


@dataclass(slots=True)
class Network:
    """A pod's sandbox once ADD went well."""

    attachment: Attachment
    sandbox: Sandbox
    result: dict[str, Any]


@dataclass(slots=True)
class _Pod:
    latest: Object | None  # None once the API server has no such object
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    life: asyncio.Task[None] | None = None
    network: Network | None = None

    @property
    def is_wanted(self) -> bool:
        return self.latest is not None and not self.latest["metadata"].get("deletionTimestamp")


class Kubelet:
    def __init__(  # noqa: PLR0913 - what a kubelet is made of
        self,
        client: KubeClient,
        *,
        node: str,
        host: str,
        attacher: Attacher,
        sandboxes: Sandboxes,
        events: Recorder,
        clock: Clock,
    ) -> None:
        self.node = node
        self._client, self._events, self._clock = client, events, clock
        self._host, self._attacher, self._sandboxes = host, attacher, sandboxes
        self._cache = Cache(
            client, resources.PODS, clock=clock, field_selector=f"spec.nodeName={node}", on_change=self._see
        )
        self._pods: dict[str, _Pod] = {}  # by UID
        self._crashed: set[str] = set()
        self._adds = asyncio.Semaphore(PARALLEL_ADDS)
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Until cancelled; sandboxes are closed then, without CNI DEL."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            await self._cache.run()

    def network_of(self, uid: str) -> Network | None:
        pod = self._pods.get(uid)
        return pod.network if pod else None

    async def crash_pod(self, uid: str) -> None:
        """Lose a pod as a power cut does: its sandbox is gone, CNI DEL is never called, the object stays as it is."""
        pod = self._pods.get(uid)
        if pod is None or pod.life is None:
            raise LookupError(f"node {self.node} runs no pod with UID {uid}")
        self._crashed.add(uid)
        pod.life.cancel()
        await asyncio.wait({pod.life})

    def _see(self, change: Change) -> None:
        seen = change.new or change.old
        if seen is None or self._group is None:
            return
        uid = seen["metadata"]["uid"]
        if uid in self._crashed:
            return
        if uid in self._pods:
            self._pods[uid].latest = change.new
            self._pods[uid].changed.set()
        elif change.new is not None and not change.new["spec"].get("hostNetwork"):
            pod = self._pods[uid] = _Pod(latest=change.new)
            pod.life = self._group.create_task(self._live(uid, pod), name=f"pod {_key(change.new)}")

    async def _live(self, uid: str, pod: _Pod) -> None:
        try:
            if pod.latest is not None and not podstatus.is_over(pod.latest):
                pod.network = await self._set_up(pod)
            if pod.network is not None:
                await self._report_running(pod, pod.network)
                await self._stay(pod, pod.network)
                await self._tear_down(pod, pod.network)
            await self._gone(pod)
            await self._finish_deletion(pod)
        finally:
            if pod.network is not None:
                self._sandboxes.close(pod.network.sandbox)
            self._pods.pop(uid, None)

    async def _set_up(self, pod: _Pod) -> Network | None:
        """None when the pod was deleted before it had a network."""
        waits = backoff.delays(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S, rng=random.SystemRandom())
        while pod.is_wanted and pod.latest is not None:
            seen = pod.latest  # the pod may be gone after each await
            attachment, sandbox = await self._open(seen)
            added: Network | None = None
            try:
                async with self._adds:
                    result = await self._attacher.add(attachment, sandbox)
                added = Network(attachment, sandbox, result)
                return added
            except (CniError, LinkError) as error:
                self._report_failure(seen, error)
                await self._delete(attachment, sandbox, None)
            finally:
                if added is None:
                    self._sandboxes.close(sandbox)
            await self._changed(pod, within_s=next(waits))
        return None

    async def _open(self, pod: Object) -> tuple[Attachment, Sandbox]:
        meta = pod["metadata"]
        container_id = secrets.token_hex(32)
        name = f"{meta['namespace']}_{meta['name']}"[:200]
        sandbox = await self._sandboxes.open(f"{name}_{container_id[:6]}")
        arguments = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": meta["namespace"],
            "K8S_POD_NAME": meta["name"],
            "K8S_POD_INFRA_CONTAINER_ID": container_id,
            "K8S_POD_UID": meta["uid"],
        }
        attachment = Attachment(container_id=container_id, netns=sandbox.netns, interface=INTERFACE, args=arguments)
        return attachment, sandbox

    def _report_failure(self, pod: Object, error: CniError | LinkError) -> None:
        log.warning("pod_sandbox_failed", node=self.node, pod=_key(pod), error=str(error))
        self._events.emit(
            regarding=pod,
            reason="FailedCreatePodSandBox",
            message=f"Failed to create pod sandbox: {error}",
            type="Warning",
            action="CreatePodSandBox",
        )

    async def _report_running(self, pod: _Pod, network: Network) -> None:
        if pod.latest is None:
            return
        status = podstatus.running(
            pod.latest,
            addresses=podstatus.addresses_of(network.result),
            host=self._host,
            container_id=network.attachment.container_id,
            now=self._clock.now(),
        )
        log.info("pod_running", node=self.node, pod=_key(pod.latest), addresses=[ip["ip"] for ip in status["podIPs"]])
        await self._write_status(pod, status)

    async def _stay(self, pod: _Pod, network: Network) -> None:
        finish = podstatus.finishes_after(pod.latest) if pod.latest is not None else None
        if finish is None:
            await self._gone(pod)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(finish):
                await self._gone(pod)
        if pod.is_wanted and pod.latest is not None:
            container_id = network.attachment.container_id
            status = podstatus.succeeded(pod.latest, container_id=container_id, now=self._clock.now())
            await self._write_status(pod, status)

    async def _tear_down(self, pod: _Pod, network: Network) -> None:
        await self._delete(network.attachment, network.sandbox, network.result)
        pod.network = None
        self._sandboxes.close(network.sandbox)

    async def _delete(self, attachment: Attachment, sandbox: Sandbox, result: dict[str, Any] | None) -> None:
        """CNI DEL until it succeeds, as runtimes do."""
        for wait in backoff.delays(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S, rng=random.SystemRandom()):
            try:
                await self._attacher.delete(attachment, sandbox, result)
            except (CniError, LinkError) as error:
                name = f"{attachment.args['K8S_POD_NAMESPACE']}/{attachment.args['K8S_POD_NAME']}"
                log.warning("pod_sandbox_not_removed", node=self.node, pod=name, error=str(error))
                await self._clock.sleep(wait)
            else:
                return

    async def _finish_deletion(self, pod: _Pod) -> None:
        if pod.latest is None:
            return
        meta = pod.latest["metadata"]
        await _insist(
            lambda: self._client.delete(
                resources.PODS, meta["name"], namespace=meta["namespace"], uid=meta["uid"], grace_period_s=0
            )
        )

    async def _write_status(self, pod: _Pod, status: Object) -> None:
        if pod.latest is None:
            return
        meta = pod.latest["metadata"]
        # The UID makes it this pod and no successor of the same name.
        body = {"metadata": {"uid": meta["uid"]}, "status": status}
        written = await _insist(
            lambda: self._client.patch(
                resources.PODS, meta["name"], body, namespace=meta["namespace"], subresource="status"
            )
        )
        if written is not None:
            self._cache.note(written)

    async def _gone(self, pod: _Pod) -> None:
        while pod.is_wanted:
            await self._changed(pod, within_s=None)

    async def _changed(self, pod: _Pod, *, within_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await pod.changed.wait()
        pod.changed.clear()


async def _insist(call: Callable[[], Awaitable[Object]]) -> Object | None:
    """Repeat while the API server is away or busy. None when the object is gone or has another UID."""
    for wait in backoff.delays(base_s=RETRY_BASE_S, cap_s=RETRY_CAP_S, rng=random.SystemRandom()):
        try:
            return await call()
        except (errors.NotFound, errors.Conflict):
            return None
        except (errors.Unreachable, errors.ServerError, errors.TooManyRequests) as error:
            log.warning("kubelet_write_retried", error=str(error))
            await asyncio.sleep(wait)
    return None


def _key(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"

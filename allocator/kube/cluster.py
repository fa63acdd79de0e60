"""What an agent sees of the cluster: its own pods and node, the namespaces, and the owners of pods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain.applications import application_of
from allocator.domain.candidates import Surroundings
from allocator.domain.slots import KNOWN
from allocator.domain.subnet_pools import NO_SUBNETS
from allocator.kube.cache import Cache
from allocator.kube.codec import decode_pod
from allocator.kube.errors import NotFound
from allocator.kube.owners import Owners
from allocator.kube.patience import patiently
from allocator.kube.resources import NAMESPACES, NODES, PODS
from allocator.kube.slots import Slots

if TYPE_CHECKING:
    import random

    from allocator.domain.record import Slot
    from allocator.domain.request import Owner, Pod
    from allocator.domain.slots import Workload
    from allocator.domain.subnet_pools import SubnetRules
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object, Resource
    from allocator.runtime.clock import Clock


@dataclass(frozen=True, slots=True)
class Networks:
    """What a pool's `multusName` is read with: our own namespace, and the network of eth0 where a pod names none."""

    own_namespace: str
    cluster_network: str


NO_NETWORKS: Final = Networks("", "")


class NodeView:
    """ClusterView of one node. `caches` must run; the view answers for pods of this node only."""

    def __init__(  # noqa: PLR0913 - a node, and what the operator has set for all
        self,
        client: KubeClient,
        node: str,
        *,
        clock: Clock,
        rng: random.Random,
        networks: Networks = NO_NETWORKS,
        kept: frozenset[Workload] = KNOWN,
        subnet_rules: SubnetRules = NO_SUBNETS,
    ) -> None:
        self._client = client
        self._kept = kept
        self._slots = Slots(client, kept, clock=clock, rng=rng)
        self._networks = networks
        self._subnet_rules = subnet_rules
        self._clock = clock
        self._rng = rng
        self._node = node
        self._owners = Owners(client, clock=clock, rng=rng)
        self.pods = Cache(client, PODS, clock=clock, field_selector=f"spec.nodeName={node}")
        self.nodes = Cache(client, NODES, clock=clock, field_selector=f"metadata.name={node}", metadata_only=True)
        self.namespaces = Cache(client, NAMESPACES, clock=clock, metadata_only=True)

    @property
    def caches(self) -> tuple[Cache, ...]:
        return self.pods, self.nodes, self.namespaces

    def pod(self, namespace: str, name: str) -> Pod | None:
        raw = self.pods.get(name, namespace)
        return None if raw is None else decode_pod(raw, self._kept)

    async def read_pod(self, namespace: str, name: str) -> Pod | None:
        raw = await self._read(PODS, name, namespace)
        return None if raw is None else decode_pod(raw, self._kept)

    async def surroundings(self, pod: Pod) -> Surroundings:
        # A namespace younger than the watch's last word is read live.
        namespace = self.namespaces.get(pod.namespace) or await self._read(NAMESPACES, pod.namespace) or {}
        node = self.nodes.get(self._node) or await self._read(NODES, self._node) or {}
        meta = namespace.get("metadata") or {}
        return Surroundings(
            application=application_of(await self._owners.of(pod), pod.namespace),
            namespace_labels=meta.get("labels") or {},
            namespace_annotations=meta.get("annotations") or {},
            node_labels=(node.get("metadata") or {}).get("labels") or {},
            own_namespace=self._networks.own_namespace,
            cluster_network=self._networks.cluster_network,
            subnet_rules=self._subnet_rules,
        )

    async def owner(self, pod: Pod) -> Owner:
        return await self._owners.of(pod)

    async def slot_is_wanted(self, slot: Slot) -> bool:
        return await self._slots.is_wanted(slot)

    async def _read(self, resource: Resource, name: str, namespace: str | None = None) -> Object | None:
        async def attempt() -> Object | None:
            try:
                return await self._client.get(resource, name, namespace=namespace)
            except NotFound:
                return None

        return await patiently(f"read {resource.kind} {name}", attempt, clock=self._clock, rng=self._rng)

"""What is asked for, and what is known when it is decided: the planner's input as values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from allocator.domain.slots import slot_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from allocator.domain.record import Slot


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """One network interface of one sandbox, as CNI names it (CNI_CONTAINERID, CNI_IFNAME, CNI_NETNS)."""

    container_id: str
    name: str
    netns: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddRequest:
    namespace: str
    pod: str
    # Empty when an old runtime does not pass K8S_POD_UID; then the API server's is taken.
    pod_uid: str
    interface: Interface
    default_ipv4_pools: tuple[str, ...] = ()
    default_ipv6_pools: tuple[str, ...] = ()
    clean_gateway: bool = False
    # Only pools whose subnet holds an address of the interface's master may serve it.
    match_master_subnet: bool = False
    # The CNI network's name; empty when the caller does not tell, as the original's plugin.
    network: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelRequest:
    namespace: str
    pod: str
    pod_uid: str
    interface: Interface


@dataclass(frozen=True, slots=True)
class Owner:
    """The top controller of a pod: the Deployment behind a ReplicaSet, the CronJob behind a Job, or the pod itself."""

    api_version: str
    kind: str
    name: str
    uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    namespace: str
    name: str
    uid: str
    node: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    phase: str = "Pending"
    reason: str = ""
    # status.podIPs, as its kubelet reports them.
    ips: tuple[str, ...] = ()
    # Which controller made it (metadata.ownerReferences with controller: true); None for a bare pod.
    controller: Owner | None = None
    deleted_at: datetime | None = None
    # Whether the operator wants pods of this workload to keep their addresses.
    keeps_slot: bool = True

    @property
    def alive(self) -> bool:
        """Whether containers of the pod run or may still be started.

        Succeeded and Failed are final whatever the restart policy (PodPhase in k8s.io/api core/v1): a pod that was
        evicted, or that a node's shutdown ended, stays Failed with restartPolicy Always until somebody deletes it.
        """
        return self.deleted_at is None and not self.is_over

    def answers_to(self, uid: str) -> bool:
        """Whether the runtime means this pod by that UID. Of a pod from a kubelet's own files it knows no other than
        the one in the mirror annotation (k8s.io/api core/v1, MirrorPodAnnotationKey).
        """
        return uid in (self.uid, self.annotations.get("kubernetes.io/config.mirror"))

    @property
    def is_over(self) -> bool:
        """Whether its containers have ended for good (PodPhase): unlike one that is only being deleted."""
        return self.phase in ("Succeeded", "Failed")

    @property
    def runs_without_ips(self) -> bool:
        """Whether its containers are said to run, or its node is silent (phase Unknown), and it has no address."""
        return self.phase in ("Running", "Unknown") and not self.ips

    @property
    def slot(self) -> Slot | None:
        """The place in a workload that the pod fills, unless the operator has switched it off."""
        return slot_of(self.namespace, self.name, self.controller) if self.keeps_slot else None

"""Why a pool does not serve a pod, one property of the pool at a time, in words for the user.

The agent asks all of it; admission leaves out what is not known before a node is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from allocator.domain.networks import qualified

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from allocator.domain.addresses import Version
    from allocator.domain.applications import Application
    from allocator.domain.pool import Pool


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a pool does not serve the pod: the filter's name and a sentence for the user. `pool` may be a pattern."""

    pool: str
    filter: str
    why: str

    def __str__(self) -> str:
        return f"{self.pool}: {self.why}"


def by_state(pool: Pool, version: Version) -> Iterator[Refusal]:
    if pool.edition.terminating:
        yield Refusal(pool.name, "terminating", "the pool is being deleted")
    if pool.disabled:
        yield Refusal(pool.name, "disabled", "the pool is disabled (spec.disable)")
    if pool.unadopted:
        why = "status.allocatedIPs holds records of another Spiderpool, which this one has not taken over"
        yield Refusal(pool.name, "adoption", why)
    if pool.version != version:
        yield Refusal(pool.name, "family", f"the pool is IPv{pool.version}, listed for IPv{version}")


def by_node(pool: Pool, node: str, labels: Mapping[str, str]) -> Iterator[Refusal]:
    """Names beat labels: where names are given, the labels are not looked at, as in the original."""
    if pool.node_names:
        if node not in pool.node_names:
            yield Refusal(pool.name, "nodeName", f"node {node} is not in spec.nodeName")
    elif pool.node_affinity is not None and not pool.node_affinity.matches(labels):
        yield Refusal(pool.name, "nodeAffinity", f"the labels of node {node} do not match spec.nodeAffinity")


def by_namespace(pool: Pool, namespace: str, labels: Mapping[str, str] | None) -> Iterator[Refusal]:
    """Names beat labels here too. `labels` is None where they are not known: those are not looked at then."""
    if pool.namespace_names:
        if namespace not in pool.namespace_names:
            yield Refusal(pool.name, "namespaceName", f"namespace {namespace} is not in spec.namespaceName")
    elif pool.namespace_affinity is not None and labels is not None and not pool.namespace_affinity.matches(labels):
        why = f"the labels of namespace {namespace} do not match spec.namespaceAffinity"
        yield Refusal(pool.name, "namespaceAffinity", why)


def by_pod(pool: Pool, labels: Mapping[str, str]) -> Iterator[Refusal]:
    """Automatic pools are left to `by_application`."""
    if pool.purpose is None and pool.pod_affinity is not None and not pool.pod_affinity.matches(labels):
        yield Refusal(pool.name, "podAffinity", "the pod's labels do not match spec.podAffinity")


def by_application(pool: Pool, application: Application, interface: str) -> Iterator[Refusal]:
    """An automatic pool is for one interface of one application, and not for its successor of the same name."""
    purpose = pool.purpose
    if purpose is not None and not purpose.serves(application, interface):
        made_for, asking = purpose.application, str(application)
        earlier = f" (UID {made_for.uid})" if str(made_for) == asking and made_for.uid != application.uid else ""
        why = f"the pool is made for {purpose.interface} of {made_for}{earlier}, and {interface} of {asking} asks"
        yield Refusal(pool.name, "application", why)


def by_network(pool: Pool, network: str, interface: str, *, own_namespace: str) -> Iterator[Refusal]:
    """`network` is the `namespace/name` of the interface's; pools without `multusName` serve all."""
    if pool.multus_names and network not in {qualified(name, own_namespace) for name in pool.multus_names}:
        yield Refusal(pool.name, "multusName", f"network {network} of {interface} is not in spec.multusName")

"""Values that the unit tests of the domain start from; each test changes what it is about."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from allocator.domain.addresses import IntervalSet, parse_address, parse_network, version_of
from allocator.domain.applications import Application
from allocator.domain.auto_pools import Purpose, labelled
from allocator.domain.candidates import Surroundings
from allocator.domain.pool import Edition, Pool
from allocator.domain.record import Holder, Record, Slot, State
from allocator.domain.request import AddRequest, Interface, Owner, Pod
from allocator.domain.selectors import LabelSelector, Requirement

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def pool(name: str, items: str, subnet: str = "10.20.0.0/24", **changes: Any) -> Pool:
    network = parse_network(subnet)
    version = version_of(network)
    made = Pool(
        name=name,
        edition=Edition(f"uid-{name}", 1),
        created=NOON,
        version=version,
        subnet=network,
        ips=IntervalSet.parse(version, [items]),
        excludes=IntervalSet(version),
    )
    return replace(made, **changes)


def four(name: str, **changes: Any) -> Pool:
    """An IPv4 pool, where only its name and what is changed matter."""
    return pool(name, "10.20.0.10-10.20.0.19", **changes)


def six(name: str, **changes: Any) -> Pool:
    return pool(name, "fd00::10-fd00::19", "fd00::/64", **changes)


def automatic(
    name: str,
    items: str = "",
    *,
    of: str = "s4",
    application: Application | None = None,
    interface: str = "eth0",
    **changes: Any,
) -> Pool:
    """A pool that the controller made of the SpiderSubnet `of`; without items it has just been born."""
    network = "fd00::/64" if name.startswith("auto6") else "10.20.0.0/24"
    made = pool(name, items or "fd00::10" if ":" in network else items or "10.20.0.10", network)
    purpose = Purpose(labelled(application or CART), interface, made.version, of, is_reclaimed=True)
    ips = made.ips if items else IntervalSet(made.version)
    return replace(made, ips=ips, purpose=purpose, pod_affinity=NO_PODS, **changes)


def by_name(*pools: Pool) -> dict[str, Pool]:
    return {each.name: each for each in pools}


def pod(name: str = "cart-1", uid: str = "u1", **changes: Any) -> Pod:
    return replace(Pod(namespace="shop", name=name, uid=uid, node="n1"), **changes)


def stateful_pod(ordinal: int = 0, uid: str = "u1", **changes: Any) -> Pod:
    return pod(f"web-{ordinal}", uid, controller=Owner("apps/v1", "StatefulSet", "web", "s1"), **changes)


def launcher(name: str = "aaaaa", uid: str = "u1", **changes: Any) -> Pod:
    """A pod that runs the virtual machine `ledger`; KubeVirt gives each a name of its own."""
    owner = Owner("kubevirt.io/v1", "VirtualMachineInstance", "ledger", "i1")
    return pod(f"virt-launcher-ledger-{name}", uid, **{"controller": owner, **changes})


def request(of: Pod, container: str = "c1", interface: str = "eth0") -> AddRequest:
    return AddRequest(
        namespace=of.namespace,
        pod=of.name,
        pod_uid=of.uid,
        interface=Interface(container_id=container, name=interface),
    )


def holder(of: Pod, container: str = "c1", interface: str = "eth0") -> Holder:
    return Holder(
        namespace=of.namespace, pod=of.name, pod_uid=of.uid, interface=interface, node=of.node, container_id=container
    )


def record(address: str, of: Pod, state: State = State.HELD, pool: str = "a", **changes: Any) -> Record:
    made = Record(
        address=parse_address(address),
        pool=pool,
        state=state,
        holder=holder(of),
        slot=of.slot,
        since=NOON,
        uid=f"uid-{address}",
        resource_version="1",
    )
    return replace(made, **changes)


def slot(ordinal: int) -> Slot:
    return Slot(api_version="apps/v1", kind="StatefulSet", namespace="shop", name="web", ordinal=ordinal)


# As the podAffinity of an automatic pool: no pod has such a label.
NO_PODS = LabelSelector((Requirement("ipam.spidernet.io/app-name", "In", frozenset({"cart"})),))
CART = Application("apps/v1", "Deployment", "shop", "cart", "aaaaaaaa-0000-0000-0000-8a1f3c5599d0")
NOWHERE = Surroundings(application=CART, namespace_labels={}, namespace_annotations={}, node_labels={})

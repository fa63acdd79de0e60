"""Kubernetes objects to values and back. Raw JSON stops here: inside, a value needs no second check.

Decoding is for objects that the API server has stored and so has checked against the CRD; what is wrong all the same
(an object older than its schema) raises Malformed, and the caller leaves that one object out and says so.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Any, Final

from allocator.domain.addresses import (
    AddressError,
    IntervalSet,
    address_of,
    object_name,
    parse_address,
    parse_network,
    version_of,
)
from allocator.domain.auto_pools import purpose_of
from allocator.domain.mending import Shown
from allocator.domain.pool import Edition, Pool, Reservation, Route
from allocator.domain.reclaim import NodeState
from allocator.domain.record import Holder, Record, Slot, State
from allocator.domain.request import Owner, Pod
from allocator.domain.selectors import LabelSelector, Requirement
from allocator.domain.slots import KNOWN
from allocator.kube.resources import SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES, Object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocator.domain.addresses import Version
    from allocator.domain.auto_pools import Purpose
    from allocator.domain.endpoint import Assigned, Endpoint
    from allocator.domain.slots import Workload

# status.allocationSource of a pool whose status.allocatedIPs our projection wrote from the ledger.
LEDGER: Final = "Ledger"
# k8s.io/api core/v1, TaintNodeOutOfService: put there by people whose node is off for good.
OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"
EPOCH: Final = datetime.fromtimestamp(0, UTC)


class Malformed(ValueError):
    """A stored object that cannot be read; the message names it and says what is wrong."""


def decode_edition(raw: Object) -> Edition:
    meta = raw["metadata"]
    return Edition(meta["uid"], int(meta.get("generation", 0)), meta.get("deletionTimestamp") is not None)


def decode_pool(raw: Object) -> Pool:
    """SpiderIPPool. Malformed when its addresses cannot be read; the webhook and the CRD let no such pool in."""
    spec, name = raw.get("spec") or {}, raw["metadata"]["name"]
    try:
        subnet = parse_network(spec["subnet"])
        version = version_of(subnet)
        return Pool(
            name=name,
            edition=decode_edition(raw),
            created=created_at(raw),
            version=version,
            subnet=subnet,
            ips=IntervalSet.parse(version, spec.get("ips") or ()),
            excludes=IntervalSet.parse(version, spec.get("excludeIPs") or ()),
            gateway=parse_address(spec["gateway"], version) if spec.get("gateway") else None,
            routes=tuple(Route(route["dst"], route["gw"]) for route in spec.get("routes") or ()),
            default=bool(spec.get("default")),
            disabled=bool(spec.get("disable")),
            node_names=tuple(spec.get("nodeName") or ()),
            node_affinity=decode_selector(spec.get("nodeAffinity")),
            namespace_names=tuple(spec.get("namespaceName") or ()),
            namespace_affinity=decode_selector(spec.get("namespaceAffinity")),
            pod_affinity=decode_selector(spec.get("podAffinity")),
            multus_names=tuple(spec.get("multusName") or ()),
            purpose=decode_purpose(raw),
            unadopted=is_unadopted(raw),
        )
    except (AddressError, KeyError) as error:
        raise Malformed(f"SpiderIPPool {name}: {error}") from error


def unreadable_pool(raw: Object, problem: str) -> Pool:
    """A pool that cannot be read: it offers nothing and says why, but its edition counts as any other's."""
    nowhere = IPv6Network("::/128") if (raw.get("spec") or {}).get("ipVersion") == 6 else IPv4Network("0.0.0.0/32")
    version = version_of(nowhere)
    nothing = IntervalSet(version)
    return Pool(
        name=raw["metadata"]["name"],
        edition=decode_edition(raw),
        created=created_at(raw),
        version=version,
        subnet=nowhere,
        ips=nothing,
        excludes=nothing,
        purpose=decode_purpose(raw),
        problem=problem,
    )


def decode_purpose(raw: Object) -> Purpose | None:
    """For whom an automatic pool is; None of a pool that people made. Metadata is enough."""
    return purpose_of(raw["metadata"].get("labels") or {})


def is_unadopted(raw: Object) -> bool:
    """Whether the pool's status holds records that did not come from the ledger."""
    status = raw.get("status") or {}
    return bool(status.get("allocatedIPs")) and status.get("allocationSource") != LEDGER


def decode_selector(raw: Mapping[str, Any] | None) -> LabelSelector | None:
    """metav1.LabelSelector; None when there is none. An empty one matches everything."""
    if raw is None:
        return None
    exact = [Requirement(key, "In", frozenset([value])) for key, value in (raw.get("matchLabels") or {}).items()]
    expressions = [
        Requirement(each["key"], each["operator"], frozenset(each.get("values") or ()))
        for each in raw.get("matchExpressions") or ()
    ]
    return LabelSelector((*exact, *expressions))


def decode_reservation(raw: Object) -> Reservation:
    """SpiderReservedIP. Malformed when its addresses cannot be read."""
    spec, name = raw.get("spec") or {}, raw["metadata"]["name"]
    items = spec.get("ips") or []
    try:
        version: Version = spec.get("ipVersion") or (6 if items and ":" in items[0] else 4)
        return Reservation(name, decode_edition(raw), IntervalSet.parse(version, items))
    except AddressError as error:
        raise Malformed(f"SpiderReservedIP {name}: {error}") from error


def reserving_nothing(raw: Object) -> Reservation:
    """A reservation that cannot be read: it reserves nothing, but its edition counts as any other's."""
    return Reservation(raw["metadata"]["name"], decode_edition(raw), IntervalSet(4))


def decode_record(raw: Object) -> Record:
    """SpiderIPAddress. One that cannot be read (of a newer version, say) still blocks its address: it is given as a
    Conflict, which no machine touches. Malformed only when its name is no address either.
    """
    spec, meta = raw.get("spec") or {}, raw["metadata"]
    try:
        address = address_of(meta["name"])
    except AddressError as error:
        raise Malformed(f"SpiderIPAddress {meta['name']}: {error}") from error
    unreadable = Record(
        address=address,
        pool=str(spec.get("pool", "")),
        state=State.CONFLICT,
        holder=None,
        since=created_at(raw),
        uid=meta["uid"],
        resource_version=meta["resourceVersion"],
    )
    try:
        return replace(
            unreadable,
            state=State(spec["state"]),
            holder=_decode_holder(spec.get("holder")),
            peer=_decode_holder(spec.get("peer")),
            slot=_decode_slot(spec.get("slot")),
            since=decode_time(spec.get("since")) or unreadable.since,
            until=decode_time(spec.get("until")),
        )
    except (KeyError, ValueError, TypeError):
        return unreadable


def created_at(raw: Object) -> datetime:
    return decode_time(raw["metadata"].get("creationTimestamp")) or EPOCH


def encode_record(record: Record) -> Object:
    """The object that claims the address by being created."""
    return {
        "apiVersion": SPIDER_IP_ADDRESSES.api_version,
        "kind": SPIDER_IP_ADDRESSES.kind,
        "metadata": {"name": object_name(record.address)},
        "spec": {
            "address": str(record.address),
            "ipVersion": record.address.version,
            **{key: value for key, value in _moving_fields(record).items() if value is not None},
        },
    }


def encode_move(record: Record) -> Object:
    """A JSON merge patch that writes the record where it still is as it was read (uid and resourceVersion, I6).

    A patch and not a whole object, so that fields which this version does not know stay.
    """
    spec = _moving_fields(record)
    for party in ("holder", "peer"):
        if spec[party]:
            # A merge would keep what an earlier holder said.
            spec[party].setdefault("network", None)
    return {"metadata": {"uid": record.uid, "resourceVersion": record.resource_version}, "spec": spec}


def _moving_fields(record: Record) -> dict[str, Any]:
    slot = record.slot
    return {
        "pool": record.pool,
        "state": record.state.value,
        "holder": record.holder and _encode_holder(record.holder),
        "peer": record.peer and _encode_holder(record.peer),
        "slot": slot
        and {
            "apiVersion": slot.api_version,
            "kind": slot.kind,
            "namespace": slot.namespace,
            "name": slot.name,
            "ordinal": slot.ordinal,
        },
        "since": encode_time(record.since),
        "until": record.until and encode_time(record.until),
    }


def _encode_holder(holder: Holder) -> dict[str, Any]:
    return {
        "namespace": holder.namespace,
        "pod": holder.pod,
        "podUID": holder.pod_uid,
        "interface": holder.interface,
        "node": holder.node,
        "containerID": holder.container_id,
        **({"network": holder.network} if holder.network else {}),
    }


def _decode_holder(raw: Mapping[str, Any] | None) -> Holder | None:
    if raw is None:
        return None
    return Holder(
        namespace=raw["namespace"],
        pod=raw["pod"],
        pod_uid=raw["podUID"],
        interface=raw["interface"],
        node=raw["node"],
        container_id=raw["containerID"],
        network=raw.get("network", ""),
    )


def _decode_slot(raw: Mapping[str, Any] | None) -> Slot | None:
    if raw is None:
        return None
    return Slot(
        api_version=raw["apiVersion"],
        kind=raw["kind"],
        namespace=raw["namespace"],
        name=raw["name"],
        ordinal=int(raw["ordinal"]),
    )


def decode_pod(raw: Object, kept: frozenset[Workload] = KNOWN) -> Pod:
    """`kept` are the workloads whose pods keep their addresses."""
    controller = decode_controller(raw)
    meta, spec, status = raw["metadata"], raw.get("spec") or {}, raw.get("status") or {}
    return Pod(
        namespace=meta["namespace"],
        name=meta["name"],
        uid=meta["uid"],
        node=spec.get("nodeName") or "",
        labels=meta.get("labels") or {},
        annotations=meta.get("annotations") or {},
        phase=status.get("phase") or "Pending",
        reason=status.get("reason") or "",
        ips=tuple(each["ip"] for each in status.get("podIPs") or () if each.get("ip")),
        controller=controller,
        deleted_at=decode_time(meta.get("deletionTimestamp")),
        keeps_slot=controller is not None and (controller.api_version, controller.kind) in kept,
    )


def decode_node_state(raw: Object | None) -> NodeState:
    """None: the API server has no such node."""
    if raw is None:
        return NodeState.GONE
    conditions = (raw.get("status") or {}).get("conditions") or ()
    if any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions):
        return NodeState.READY
    taints = (raw.get("spec") or {}).get("taints") or ()
    is_fenced = any(each.get("key") == OUT_OF_SERVICE for each in taints)
    return NodeState.FENCED if is_fenced else NodeState.NOT_READY


def decode_controller(raw: Object) -> Owner | None:
    """The owner reference with `controller: true`, if any."""
    for reference in raw["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return Owner(reference["apiVersion"], reference["kind"], reference["name"], reference["uid"])
    return None


def encode_endpoint(endpoint: Endpoint) -> Object:
    """SpiderEndpoint. A static pod's belongs to nobody, so that it outlives the pod."""
    pod = endpoint.pod
    owners = [{"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid}]
    return {
        "apiVersion": SPIDER_ENDPOINTS.api_version,
        "kind": SPIDER_ENDPOINTS.kind,
        "metadata": {
            "name": endpoint.name,
            "namespace": pod.namespace,
            **({} if endpoint.is_static else {"ownerReferences": owners}),
        },
        "status": {
            "current": {"uid": pod.uid, "node": pod.node, "ips": _encode_interfaces(endpoint.assigned)},
            "ownerControllerType": endpoint.owner.kind,
            "ownerControllerName": endpoint.owner.name,
        },
    }


def _encode_interfaces(assigned: tuple[Assigned, ...]) -> list[dict[str, Any]]:
    interfaces: dict[str, dict[str, Any]] = {}
    for each in assigned:
        entry = interfaces.setdefault(each.interface, {"interface": each.interface, "vlan": 0, "routes": []})
        family = f"ipv{each.version}"
        entry[family] = each.with_prefix
        entry[f"{family}Pool"] = each.pool
        if each.gateway is not None:
            entry[f"{family}Gateway"] = str(each.gateway)
            if each.clean_gateway is not None:
                entry["cleanGateway"] = each.clean_gateway
        entry["routes"] += [{"dst": route.dst, "gw": route.gw} for route in each.routes]
    return [{key: value for key, value in entry.items() if key != "routes" or value} for entry in interfaces.values()]


def decode_endpoint(raw: Object) -> list[Shown]:
    """What a SpiderEndpoint shows; what cannot be read (people may write it) is left out."""
    found = []
    families: tuple[Version, Version] = (4, 6)
    for entry in ((raw.get("status") or {}).get("current") or {}).get("ips") or ():
        for version in families:
            text = str(entry.get(f"ipv{version}") or "").partition("/")[0]
            try:
                address = parse_address(text, version)
            except AddressError:
                continue
            found.append(Shown(str(entry.get("interface") or ""), address, str(entry.get(f"ipv{version}Pool") or "")))
    return found


def endpoint_uid(raw: Object) -> str:
    """Of the pod that a SpiderEndpoint speaks of; empty where it speaks of none."""
    return str(((raw.get("status") or {}).get("current") or {}).get("uid") or "")


def encode_time(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds, as metav1.MicroTime."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def decode_time(text: str | None) -> datetime | None:
    """RFC 3339; None for nothing. ValueError when it is no time."""
    return datetime.fromisoformat(text).astimezone(UTC) if text else None

"""What is said of each change that reclaim makes: one log line and one event, with all that the decision rested on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from allocator.domain.addresses import object_name
from allocator.domain.record import State
from allocator.kube.codec import encode_time
from allocator.kube.resources import LEASES, PODS, SPIDER_IP_ADDRESSES
from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from allocator.domain.reclaim import Verdict
    from allocator.domain.record import Holder, Record
    from allocator.domain.request import Pod
    from allocator.kube.events import Recorder
    from allocator.kube.resources import Object
    from controller.metrics import Metrics

_log = get_logger(__name__)

_DID: Final = {State.COOLING: "released", State.RETAINED: "retained", State.HELD: "parted"}


class Receipts:
    """`lease` names the Lease by which the controller leads: events about the controller itself stand there."""

    def __init__(self, recorder: Recorder, metrics: Metrics, *, namespace: str, lease: str) -> None:
        self._recorder = recorder
        self._metrics = metrics
        self._controller: Object = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"namespace": namespace, "name": lease},
        }

    def moved(self, read: Record, after: Record, verdict: Verdict, seen: tuple[datetime, datetime]) -> None:
        """`read` is the record as it was read right before; `seen` the times of the first and the second sighting."""
        holder = _departed(read, after)
        first, second = (encode_time(moment) for moment in seen)
        did = _DID[after.state]
        self._count(after.state, verdict.why.value)
        fields: dict[str, Any] = {
            "address": str(read.address),
            "pool": read.pool,
            "pod": f"{holder.namespace}/{holder.pod}",
            "pod_uid": holder.pod_uid,
            "interface": holder.interface,
            "node": holder.node,
            "reason": verdict.why.value,
            "first_sighting": first,
            "second_sighting": second,
            "resource_version": read.resource_version,
        }
        _log.info(f"address_{did}", **fields)
        self._recorder.emit(
            regarding=_address(after),
            related=_pod(holder),
            reason=f"Address{did.capitalize()}",
            action="Reclaim",
            message=(
                f"{did} {read.address} of SpiderIPPool {read.pool}, which pod {fields['pod']} (UID {holder.pod_uid}) "
                f"had{_beside(after)}: {verdict.why.value}, seen {first} and {second}, "
                f"at resourceVersion {read.resource_version}"
            ),
        )

    def _count(self, state: State, why: str) -> None:
        counters = {
            State.COOLING: self._metrics.released,
            State.RETAINED: self._metrics.retained,
            State.HELD: self._metrics.parted,
        }
        counters[state].labels(why).inc()
        if state is State.COOLING:
            self._metrics.counts.inc()

    def voided(self, address: str, why: str) -> None:
        """A verdict that is not carried out: the next sighting is a first one again."""
        _log.warning("verdict_void", address=address, why=why)
        self._metrics.voided.inc()
        self._metrics.failures.inc()

    def endpoint_removed(self, namespace: str, name: str, pod_uid: str) -> None:
        _log.info("endpoint_removed", namespace=namespace, name=name, pod_uid=pod_uid)

    def endpoint_mended(self, pod: Pod, addresses: Sequence[str]) -> None:
        _log.info("endpoint_mended", namespace=pod.namespace, name=pod.name, pod_uid=pod.uid, addresses=list(addresses))
        self._metrics.mended.labels("endpoint").inc()

    def record_made_again(self, made: Record) -> None:
        """Somebody deleted the record of an address that a living pod uses."""
        holder = _holder(made)
        name = f"{holder.namespace}/{holder.pod}"
        _log.warning("record_made_again", address=str(made.address), pool=made.pool, pod=name, pod_uid=holder.pod_uid)
        self._metrics.mended.labels("record").inc()
        self._recorder.emit(
            regarding=_address(made),
            related=_pod(holder),
            reason="AddressMadeAgain",
            action="Mend",
            type="Warning",
            message=f"somebody deleted or released it; pod {name} (UID {holder.pod_uid}) uses it, so it stands again",
        )

    def spare_released(self, after: Record) -> None:
        """A pod had two addresses of a family for an interface, and uses the other one."""
        holder = _holder(after)
        pod = f"{holder.namespace}/{holder.pod}"
        _log.info("spare_released", address=str(after.address), pool=after.pool, pod=pod, pod_uid=holder.pod_uid)
        self._metrics.mended.labels("spare").inc()

    def conflict(self, pod: Pod, found: Record) -> None:
        """The pod uses an address that another living pod holds by now."""
        other, name = _holder(found), f"{pod.namespace}/{pod.name}"
        others = f"{other.namespace}/{other.pod}"
        _log.error("address_conflict", address=str(found.address), pod=name, pod_uid=pod.uid, holder=others)
        message = f"two pods use {found.address}: {name}, which has no record of it, and {others}. Delete {name}"
        users = (_pod_of(pod.namespace, pod.name, pod.uid), _pod(other))
        for regarding, related in (users, users[::-1]):
            self._recorder.emit(
                regarding=regarding,
                related=related,
                reason="AddressConflict",
                action="Mend",
                type="Warning",
                message=message,
            )

    def quarantine_ended(self, after: Record) -> None:
        _log.info("quarantine_ended", address=str(after.address), pool=after.pool)
        self._recorder.emit(
            regarding=_address(after),
            reason="QuarantineEnded",
            action="Reclaim",
            message=f"{after.address} of SpiderIPPool {after.pool} has been in quarantine for long enough",
        )

    def braked(self, would_free: int, total: int, confirm_s: float) -> None:
        message = (
            f"a sweep would free {would_free} of {total} addresses in use; nothing is freed until a complete sweep "
            f"{confirm_s:g} s later agrees. If the pods are really gone, wait; if not, look at the API server"
        )
        _log.warning("reclaim_braked", would_free=would_free, in_use=total, confirm_s=confirm_s)
        self._recorder.emit(
            regarding=self._controller, reason="ReclaimBraked", action="Reclaim", message=message, type="Warning"
        )

    def brake_released(self, would_free: int, total: int) -> None:
        _log.warning("reclaim_brake_released", would_free=would_free, in_use=total)
        self._recorder.emit(
            regarding=self._controller,
            reason="ReclaimBrakeReleased",
            action="Reclaim",
            message=f"{would_free} of {total} addresses in use are waiting to be freed; reclaim goes on",
        )


def _departed(read: Record, after: Record) -> Holder:
    """Whose pod is gone: of two that had the address, the one that is not left."""
    gone = [party for party in read.parties if after.state is State.HELD and party not in after.parties]
    return gone[0] if gone else _holder(read)


def _holder(record: Record) -> Holder:
    if record.holder is None:
        raise AssertionError("a record without a holder is never moved by us")
    return record.holder


def _beside(after: Record) -> str:
    holder = after.holder
    if after.state is not State.HELD or holder is None:
        return ""
    return f" beside pod {holder.namespace}/{holder.pod}, which goes on with it"


def _address(record: Record) -> Object:
    return {
        "apiVersion": SPIDER_IP_ADDRESSES.api_version,
        "kind": SPIDER_IP_ADDRESSES.kind,
        "metadata": {
            "name": object_name(record.address),
            "uid": record.uid,
            "resourceVersion": record.resource_version,
        },
    }


def _pod(holder: Holder) -> Object:
    return _pod_of(holder.namespace, holder.pod, holder.pod_uid)


def _pod_of(namespace: str, name: str, uid: str) -> Object:
    return {
        "apiVersion": PODS.api_version,
        "kind": PODS.kind,
        "metadata": {"namespace": namespace, "name": name, "uid": uid},
    }

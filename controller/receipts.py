"""What is said of each change that reclaim makes: one log line and one event, with all that the decision rested on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from allocator.domain.addresses import object_name
from allocator.domain.record import State
from allocator.kube.codec import encode_time
from allocator.kube.resources import LEASES, PODS, SPIDER_IP_ADDRESSES
from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    from datetime import datetime

    from allocator.domain.reclaim import Verdict
    from allocator.domain.record import Holder, Record
    from allocator.kube.events import Recorder
    from allocator.kube.resources import Object

_log = get_logger(__name__)

_DID: Final = {"Cooling": "released", "Retained": "retained", "Held": "parted"}


class Receipts:
    """`lease` names the Lease by which the controller leads: events about the controller itself stand there."""

    def __init__(self, recorder: Recorder, *, namespace: str, lease: str) -> None:
        self._recorder = recorder
        self._controller: Object = {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"namespace": namespace, "name": lease},
        }

    def moved(self, read: Record, after: Record, verdict: Verdict, seen: tuple[datetime, datetime]) -> None:
        """`read` is the record as it was read right before; `seen` the times of the first and the second sighting."""
        holder = _departed(read, after)
        first, second = (encode_time(moment) for moment in seen)
        did = _DID[after.state.value]
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

    def endpoint_removed(self, namespace: str, name: str, pod_uid: str) -> None:
        _log.info("endpoint_removed", namespace=namespace, name=name, pod_uid=pod_uid)

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
    holder = gone[0] if gone else read.holder
    if holder is None:
        raise AssertionError("a record without a holder is never moved by reclaim")
    return holder


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
    return {
        "apiVersion": PODS.api_version,
        "kind": PODS.kind,
        "metadata": {"namespace": holder.namespace, "name": holder.pod, "uid": holder.pod_uid},
    }

"""What the kubelet writes into a pod's status. Containers are not run: ready means that the network is there."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from allocator.kube.resources import Object

# A pod with this annotation ends well so many seconds after its start: what a Job is for.
FINISH_AFTER = "devcluster.spidernet.io/finish-after-seconds"

READY_TYPES = ("PodScheduled", "Initialized", "ContainersReady", "Ready")


def addresses_of(result: Mapping[str, Any]) -> list[str]:
    """Pod addresses of a CNI result without their prefix, IPv4 first as dual-stack clusters have it."""
    found = {ip_interface(str(ip["address"])).ip for ip in result.get("ips") or ()}
    return [str(address) for address in sorted(found, key=lambda address: (address.version, int(address)))]


def running(pod: Object, *, addresses: list[str], host: str, container_id: str, now: datetime) -> Object:
    started = _time(now)
    return {
        "phase": "Running",
        "startTime": started,
        "hostIP": host,
        "hostIPs": [{"ip": host}],
        "podIP": addresses[0] if addresses else "",
        "podIPs": [{"ip": address} for address in addresses],
        "conditions": _conditions(READY_TYPES, (), now),
        "containerStatuses": [
            {
                **_container(container, container_id),
                "ready": True,
                "started": True,
                "state": {"running": {"startedAt": started}},
            }
            for container in pod["spec"]["containers"]
        ],
    }


def succeeded(pod: Object, *, container_id: str, now: datetime) -> Object:
    ended = {"exitCode": 0, "reason": "Completed", "finishedAt": _time(now), "startedAt": pod["status"]["startTime"]}
    return {
        "phase": "Succeeded",
        "conditions": _conditions(("PodScheduled", "Initialized"), ("ContainersReady", "Ready"), now),
        "containerStatuses": [
            {**_container(container, container_id), "ready": False, "started": False, "state": {"terminated": ended}}
            for container in pod["spec"]["containers"]
        ],
    }


def finishes_after(pod: Object) -> float | None:
    value = (pod["metadata"].get("annotations") or {}).get(FINISH_AFTER)
    return None if value is None else float(value)


def is_over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}


def _conditions(true: Iterable[str], false: Iterable[str], now: datetime) -> list[Object]:
    states = [(name, "True") for name in true] + [(name, "False") for name in false]
    return [{"type": name, "status": state, "lastTransitionTime": _time(now)} for name, state in states]


def _container(container: Object, container_id: str) -> Object:
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "containerID": f"devcluster://{container_id}",
        "restartCount": 0,
    }


def _time(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")

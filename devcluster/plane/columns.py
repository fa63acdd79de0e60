"""Cells of `kubectl get` that no JSONPath can fill: ages, READY 1/2, the STATUS of a pod."""

from datetime import UTC, datetime
from typing import Any

from devcluster.plane.problems import Object
from devcluster.plane.registry import Column

_MINUTE, _HOUR, _DAY, _YEAR = 60, 3600, 86400, 365 * 86400


def duration(seconds: float) -> str:
    """As kubectl prints ages: two units where the larger one alone would be coarse."""
    s = int(seconds)
    if s < -1:
        return "<invalid>"
    s = max(s, 0)

    def pair(unit: int, name: str, small: int, small_name: str) -> str:
        rest = s % unit // small
        return f"{s // unit}{name}{rest}{small_name}" if rest else f"{s // unit}{name}"

    steps = (
        (2 * _MINUTE, f"{s}s"),
        (10 * _MINUTE, pair(_MINUTE, "m", 1, "s")),
        (3 * _HOUR, f"{s // _MINUTE}m"),
        (8 * _HOUR, pair(_HOUR, "h", _MINUTE, "m")),
        (2 * _DAY, f"{s // _HOUR}h"),
        (8 * _DAY, pair(_DAY, "d", _HOUR, "h")),
        (2 * _YEAR, f"{s // _DAY}d"),
        (8 * _YEAR, pair(_YEAR, "y", _DAY, "d")),
    )
    return next((text for below, text in steps if s < below), f"{s // _YEAR}y")


def age(timestamp: Any, now: datetime) -> str:
    if not timestamp:
        return "<unknown>"
    try:
        then = datetime.fromisoformat(str(timestamp))
    except ValueError:
        return "<invalid>"
    return duration((now - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds())


def object_age(obj: Object, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _status(obj: Object) -> Object:
    found: Object = obj.get("status") or {}
    return found


def _spec(obj: Object) -> Object:
    found: Object = obj.get("spec") or {}
    return found


def _pod_ready(obj: Object, _: datetime) -> str:
    statuses = _status(obj).get("containerStatuses") or []
    return f"{sum(bool(s.get('ready')) for s in statuses)}/{len(_spec(obj).get('containers') or [])}"


def _pod_status(obj: Object, _: datetime) -> str:
    status = _status(obj)
    reason = status.get("reason") or status.get("phase") or "Unknown"
    for container in status.get("containerStatuses") or []:
        state = container.get("state") or {}
        for waiting in (state.get("waiting") or {}, state.get("terminated") or {}):
            reason = waiting.get("reason") or reason
    if obj["metadata"].get("deletionTimestamp"):
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return str(reason)


def _pod_restarts(obj: Object, _: datetime) -> str:
    return str(sum(s.get("restartCount", 0) for s in _status(obj).get("containerStatuses") or []))


def _node_status(obj: Object, _: datetime) -> str:
    ready = [c for c in _status(obj).get("conditions") or [] if c.get("type") == "Ready"]
    words = ["Ready" if ready[0].get("status") == "True" else "NotReady"] if ready else ["Unknown"]
    return ",".join(words + (["SchedulingDisabled"] if _spec(obj).get("unschedulable") else []))


def _node_roles(obj: Object, _: datetime) -> str:
    prefix = "node-role.kubernetes.io/"
    labels = obj["metadata"].get("labels") or {}
    return ",".join(sorted(k.removeprefix(prefix) for k in labels if k.startswith(prefix))) or "<none>"


def _node_address(kind: str) -> Column:
    def cell(obj: Object, _: datetime) -> str:
        addresses = _status(obj).get("addresses") or []
        return next((a["address"] for a in addresses if a.get("type") == kind), "<none>")

    return Column("Internal-IP" if kind == "InternalIP" else "External-IP", priority=1, cell=cell)


def _ready_of_replicas(obj: Object, _: datetime) -> str:
    return f"{_status(obj).get('readyReplicas') or 0}/{_spec(obj).get('replicas', 1)}"


def _count(name: str, *path: str) -> Column:
    def cell(obj: Object, _: datetime) -> int:
        value: Any = obj
        for step in path:
            value = (value or {}).get(step)
        return int(value or 0)

    return Column(name, "integer", cell=cell)


def _containers(name: str, key: str) -> Column:
    def cell(obj: Object, _: datetime) -> str:
        template = _spec(obj).get("template") or {}
        return ",".join(c.get(key, "") for c in (template.get("spec") or {}).get("containers") or [])

    return Column(name, priority=1, cell=cell)


def selector_text(selector: Object | None) -> str:
    labels, asked = ((selector or {}).get(name) or () for name in ("matchLabels", "matchExpressions"))
    found = [(key, f"{key}={labels[key]}") for key in labels]
    found += [(each["key"], _requirement_text(each)) for each in asked]
    return ",".join(text for _, text in sorted(found, key=lambda pair: pair[0]))


def _requirement_text(requirement: Object) -> str:
    key, operator = requirement["key"], requirement["operator"]
    if operator in {"Exists", "DoesNotExist"}:
        return f"{'!' if operator == 'DoesNotExist' else ''}{key}"
    return f"{key} {operator.lower()} ({','.join(sorted(requirement['values']))})"


def _or_none(name: str, path: str, *, priority: int = 0) -> Column:
    def cell(obj: Object, _: datetime) -> str:
        value: Any = obj
        for step in path.split("."):
            value = (value or {}).get(step)
        return str(value) if value not in (None, "", []) else "<none>"

    return Column(name, priority=priority, cell=cell)


def _completions(obj: Object, _: datetime) -> str:
    return f"{_status(obj).get('succeeded') or 0}/{_spec(obj).get('completions', 1)}"


def _nothing(_obj: Object, _: datetime) -> str:
    return "<none>"


def _service_ports(obj: Object, _: datetime) -> str:
    ports = _spec(obj).get("ports") or []
    return ",".join(f"{p['port']}/{p.get('protocol', 'TCP')}" for p in ports) or "<none>"


def _data_count(obj: Object, _: datetime) -> int:
    return len(obj.get("data") or {}) + len(obj.get("binaryData") or {})


def _event_object(obj: Object, _: datetime) -> str:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    return f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"


def _event_seen(obj: Object, now: datetime) -> str:
    series = obj.get("series") or {}
    return age(
        series.get("lastObservedTime") or obj.get("lastTimestamp") or obj.get("eventTime") or obj.get("firstTimestamp"),
        now,
    )


def _event_message(obj: Object, _: datetime) -> str:
    return str(obj.get("message") or obj.get("note") or "").strip()


def _selector(obj: Object, _: datetime) -> str:
    return selector_text(_spec(obj).get("selector")) or "<none>"


def _webhook_count(obj: Object, _: datetime) -> int:
    return len(obj.get("webhooks") or [])


NAME = Column("Name", format="name", cell=lambda obj, _: obj["metadata"]["name"])
AGE = Column("Age", cell=object_age)
_IMAGES = (
    _containers("Containers", "name"),
    _containers("Images", "image"),
    Column("Selector", priority=1, cell=_selector),
)

PODS = (
    NAME,
    Column("Ready", cell=_pod_ready),
    Column("Status", cell=_pod_status),
    Column("Restarts", cell=_pod_restarts),
    AGE,
    _or_none("IP", "status.podIP", priority=1),
    _or_none("Node", "spec.nodeName", priority=1),
    _or_none("Nominated Node", "status.nominatedNodeName", priority=1),
    Column("Readiness Gates", priority=1, cell=_nothing),
)
DEPLOYMENTS = (
    NAME,
    Column("Ready", cell=_ready_of_replicas),
    _count("Up-to-date", "status", "updatedReplicas"),
    _count("Available", "status", "availableReplicas"),
    AGE,
    *_IMAGES,
)
REPLICA_SETS = (
    NAME,
    _count("Desired", "spec", "replicas"),
    _count("Current", "status", "replicas"),
    _count("Ready", "status", "readyReplicas"),
    AGE,
    *_IMAGES,
)
STATEFUL_SETS = (NAME, Column("Ready", cell=_ready_of_replicas), AGE, *_IMAGES[:2])
DAEMON_SETS = (
    NAME,
    _count("Desired", "status", "desiredNumberScheduled"),
    _count("Current", "status", "currentNumberScheduled"),
    _count("Ready", "status", "numberReady"),
    _count("Up-to-date", "status", "updatedNumberScheduled"),
    _count("Available", "status", "numberAvailable"),
    AGE,
    *_IMAGES,
)
SCALES = (NAME, _count("Desired", "spec", "replicas"), _count("Available", "status", "replicas"), AGE)
NODES = (
    NAME,
    Column("Status", cell=_node_status),
    Column("Roles", cell=_node_roles),
    AGE,
    _or_none("Version", "status.nodeInfo.kubeletVersion"),
    _node_address("InternalIP"),
    _node_address("ExternalIP"),
)
NAMESPACES = (NAME, _or_none("Status", "status.phase"), AGE)
LEASES = (NAME, _or_none("Holder", "spec.holderIdentity"), AGE)
JOBS = (NAME, Column("Completions", cell=_completions), AGE, *_IMAGES)
SERVICES = (
    NAME,
    _or_none("Type", "spec.type"),
    _or_none("Cluster-IP", "spec.clusterIP"),
    Column("External-IP", cell=_nothing),
    Column("Port(s)", cell=_service_ports),
    AGE,
)
CONFIG_MAPS = (NAME, Column("Data", "integer", cell=_data_count), AGE)
SECRETS = (NAME, _or_none("Type", "type"), Column("Data", "integer", cell=_data_count), AGE)
EVENTS = (
    Column("Last Seen", cell=_event_seen),
    _or_none("Type", "type"),
    _or_none("Reason", "reason"),
    Column("Object", cell=_event_object),
    Column("Message", cell=_event_message),
    Column("Name", format="name", priority=1, cell=lambda obj, _: obj["metadata"]["name"]),
)
CRDS = (NAME, _or_none("Created At", "metadata.creationTimestamp"))
WEBHOOK_CONFIGURATIONS = (NAME, Column("Webhooks", "integer", cell=_webhook_count), AGE)

"""A row of an admission table as a value: what stands, what somebody does, and what the API server answers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from allocator.domain.addresses import object_name, parse_address
from tests.plane.webhooks import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterable

    from allocator.kube.resources import Object

Operation: TypeAlias = Literal["CREATE", "UPDATE", "DELETE"]

# The registrations of the tables let objects with these labels by: as if they were from before the webhook, and as if
# somebody had undone the completion.
FINALIZER: Final = "spiderpool.spidernet.io"

LEGACY: Final = "tests/legacy"
NOT_COMPLETED: Final = "tests/not-completed"


@dataclass(frozen=True, slots=True)
class Cause:
    type: Literal["Invalid", "Required", "Forbidden", "NotSupported", "Duplicate", "TooMany"]
    field: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """All causes, in their order. `words` are in the message of a refusal that has no causes.

    `by_schema`: a real API server refuses it by the CRD's own rules before it asks the webhook.
    """

    code: int
    reason: str
    causes: tuple[Cause, ...] = ()
    words: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    by_schema: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """What is stored afterwards, where the row says it: whole values. One text for each warning, with words of it."""

    spec: Object | None = None
    metadata: Object = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


Expected: TypeAlias = Accepted | Refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`obj` is created, or stands already and is changed or deleted; `cluster` stands beside it."""

    name: str
    operation: Operation
    obj: Object
    expected: Expected
    change: Object = field(default_factory=dict)
    cluster: tuple[Object, ...] = ()
    user: str = ""


def create(name: str, obj: Object, expected: Expected, *cluster: Object) -> Row:
    return Row(name=name, operation="CREATE", obj=obj, expected=expected, cluster=cluster)


def update(name: str, obj: Object, change: Object, expected: Expected, *cluster: Object) -> Row:
    """`change` is a merge patch of the spec."""
    return edit(name, obj, {"spec": change}, expected, *cluster)


def edit(name: str, obj: Object, change: Object, expected: Expected, *cluster: Object) -> Row:
    """`change` is a merge patch of the whole object."""
    return Row(name=name, operation="UPDATE", obj=obj, change=change, expected=expected, cluster=cluster)


def delete(name: str, obj: Object, expected: Expected, *cluster: Object) -> Row:
    return Row(name=name, operation="DELETE", obj=obj, expected=expected, cluster=cluster)


def named(rows: Iterable[Row]) -> dict[str, Row]:
    """By name, for a parametrization; two rows of one name are a mistake."""
    table: dict[str, Row] = {}
    for row in rows:
        if row.name in table:
            raise ValueError(f"two rows are named {row.name}")
        table[row.name] = row
    return table


def invalid(*causes: tuple[Any, str, str], warnings: tuple[str, ...] = ()) -> Refused:
    """422 with all of these (type, field, words)."""
    found = tuple(Cause(*cause) for cause in causes)
    return Refused(code=422, reason="Invalid", causes=found, warnings=warnings)


def by_schema(refusal: Refused) -> Refused:
    return replace(refusal, by_schema=True)


def forbidden(*words: str) -> Refused:
    return Refused(code=403, reason="Forbidden", words=words)


ALREADY_EXISTS: Final = Refused(code=409, reason="AlreadyExists", words=("already exists",))


def allowed(*warnings: str, **metadata: Any) -> Accepted:
    """Stored whatever it looks like, with these labels, annotations or finalizers."""
    return Accepted(metadata=metadata, warnings=warnings)


def stored(*warnings: str, **spec: Any) -> Accepted:
    """With exactly this spec, but for the two flags of a pool that the CRD fills in."""
    return Accepted(spec=spec, warnings=warnings)


def legacy(obj: Object) -> Object:
    """From before the webhook."""
    return labelled(obj, **{LEGACY: "yes"})


def not_completed(obj: Object) -> Object:
    """Somebody behind our mutating webhook undid it: only the validating one is asked."""
    return labelled(obj, **{NOT_COMPLETED: "yes"})


def labelled(obj: Object, **labels: str) -> Object:
    metadata = obj["metadata"]
    return {**obj, "metadata": {**metadata, "labels": {**metadata.get("labels", {}), **labels}}}


def annotated(obj: Object, **annotations: str) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "annotations": annotations}}


def terminating(obj: Object) -> Object:
    """Deleted, and kept by a finalizer."""
    finalizers = [*obj["metadata"].get("finalizers", []), FINALIZER]
    return {**obj, "metadata": {**obj["metadata"], "deletionTimestamp": "", "finalizers": finalizers}}


def finalized(obj: Object) -> Object:
    return {**obj, "metadata": {**obj["metadata"], "finalizers": [FINALIZER]}}


def with_status(obj: Object, **status: Any) -> Object:
    return {**obj, "status": status}


def by(user: str, row: Row) -> Row:
    """The row, done by somebody else than the admin of the tests."""
    return replace(row, user=user)


def record(address: str, pool: str, pod: str = "shop/cart-0", **said: Any) -> Object:
    """Who has the address: Held, unless said otherwise."""
    parsed = parse_address(address)
    namespace, _, name = pod.partition("/")
    holder = {"namespace": namespace, "pod": name, "podUID": f"uid-{name}", "interface": "eth0", "node": "node-1"}
    spec = {
        "address": address,
        "ipVersion": parsed.version,
        "pool": pool,
        "state": "Held",
        "holder": {**holder, "containerID": "c1"},
        "since": "2026-01-01T00:00:00.000000Z",
        **said,
    }
    metadata = {"name": object_name(parsed)}
    return {"apiVersion": API_VERSION, "kind": "SpiderIPAddress", "metadata": metadata, "spec": spec}


def endpoint(*ips: Object, name: str = "cart-0", **status: Any) -> Object:
    """What the agent writes of a pod in the namespace default."""
    return {
        "apiVersion": API_VERSION,
        "kind": "SpiderEndpoint",
        "metadata": {"name": name, "namespace": "default"},
        "status": {
            "ownerControllerType": "Deployment",
            "ownerControllerName": "cart",
            "current": {"uid": "uid-1", "node": "node-1", "ips": list(ips)},
            **status,
        },
    }

"""List requests: selectors, versions, and pages that all show one moment."""

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from devcluster.plane import paths, problems, selectors
from devcluster.plane.problems import Object
from devcluster.plane.registry import NAME_AND_NAMESPACE, ResourceType
from devcluster.plane.store import Key, Store, TooOld
from devcluster.plane.views import from_storage

Match = Callable[[Object], bool]
_MATCH = "resourceVersionMatch"
_Item = tuple[Key, Object]

_CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You must start a new list without "
    "the continue parameter."
)


@dataclass(frozen=True, slots=True)
class Page:
    objects: list[Object]
    metadata: Object


def parse_version(text: str) -> int | None:
    """None when the client names none. Problem 400 for what is no version."""
    if not text:
        return None
    if not text.isdigit():
        raise problems.bad_request(f'resourceVersion: Invalid value: "{text}": strconv.ParseUint: invalid syntax')
    return int(text)


def matcher(rt: ResourceType, query: Mapping[str, str], *, name: str = "") -> Match | None:
    """What labelSelector and fieldSelector (and the name, for a watch of one object) let through; None: everything."""
    labels = selectors.parse_labels(query.get("labelSelector", ""))
    fields = selectors.parse_fields(query.get("fieldSelector", ""))
    for field, _, _ in fields:
        if field not in NAME_AND_NAMESPACE and field not in rt.fields:
            plain = f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"'
            raise problems.bad_request(f"field label not supported: {field}" if rt.custom or rt.fields else plain)
    if name:
        fields = [*fields, ("metadata.name", True, name)]
    if labels is None and not fields:
        return None

    def matches(obj: Object) -> bool:
        if labels is not None and not labels(obj["metadata"].get("labels") or {}):
            return False
        shown = from_storage(rt, obj) if rt.group == "events.k8s.io" else obj
        return all((_field(shown, field) == value) is equal for field, equal, value in fields)

    return matches


def _field(obj: Object, field: str) -> str:
    if field == "source":
        return str((obj.get("source") or {}).get("component") or "")
    return paths.text_at(obj, f".{field}")


def _encode(revision: int, after: Key) -> str:
    token = {"v": "meta.k8s.io/v1", "rv": revision, "start": [after.namespace, after.name]}
    return base64.urlsafe_b64encode(json.dumps(token).encode()).decode().rstrip("=")


def _decode(token: str) -> tuple[int, tuple[str, str]]:
    try:
        found = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(found["rv"]), (found["start"][0], found["start"][1])
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise problems.bad_request("continue key is not valid: illegal encoding") from error


def _moment(store: Store, query: Mapping[str, str]) -> tuple[int, tuple[str, str] | None]:
    """The revision to list at, and the (namespace, name) after which the page begins."""
    if query.get("continue"):
        if query.get("resourceVersion", "") not in ("", "0"):
            raise problems.bad_request("specifying resource version is not allowed when using continue")
        return _decode(query["continue"])
    wanted = parse_version(query.get("resourceVersion", ""))
    if wanted and wanted > store.revision:
        raise problems.too_new(wanted, store.revision)
    if wanted and query.get("resourceVersionMatch") == "Exact":
        return wanted, None
    return store.revision, None


def _items(store: Store, rt: ResourceType, namespace: str, query: Mapping[str, str]) -> tuple[int, list[_Item]]:
    """What is left to list from the page's beginning on, before selection."""
    revision, after = _moment(store, query)
    try:
        found = store.items(rt.stored_in, namespace=namespace, at=revision)
    except TooOld as error:
        if after is not None:
            raise problems.Problem(410, "Expired", _CONTINUE_EXPIRED) from error
        raise problems.expired(revision, error.oldest) from error
    if after is not None:
        found = [(key, obj) for key, obj in found if (key.namespace, key.name) > after]
    return revision, found


def _check_options(query: Mapping[str, str]) -> None:
    version, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    if query.get("sendInitialEvents"):
        why, field = "Forbidden: sendInitialEvents is forbidden for list", "sendInitialEvents"
    elif (
        not match or (match in {"Exact", "NotOlderThan"} and version not in ("", "0")) or (match != "Exact" and version)
    ):
        return
    elif not version:
        why, field = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided", _MATCH
    else:
        why, field = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"', _MATCH
    raise wrong_options([problems.FieldProblem("FieldValueForbidden", field, why)])


def wrong_options(causes: list[problems.FieldProblem], kind: str = "ListOptions") -> problems.Problem:
    return problems.invalid(ResourceType(group="meta.k8s.io", version="v1", plural="", kind=kind), "", causes)


def list_page(store: Store, rt: ResourceType, namespace: str, query: Mapping[str, str]) -> Page:
    _check_options(query)
    given = query.get("limit", "0") or "0"
    if not given.isdigit():
        raise problems.bad_request(f'strconv.ParseInt: parsing "{given}": invalid syntax')
    limit = int(given)
    revision, found = _items(store, rt, namespace, query)
    match = matcher(rt, query)
    if match:
        found = [(key, obj) for key, obj in found if match(obj)]
    metadata: Object = {"resourceVersion": str(revision)}
    if limit and len(found) > limit:
        metadata["continue"] = _encode(revision, found[limit - 1][0])
        if match is None:
            metadata["remainingItemCount"] = len(found) - limit
        found = found[:limit]
    return Page([obj for _, obj in found], metadata)

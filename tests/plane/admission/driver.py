"""Carries out the rows of an admission table through the API server, and compares its whole answer."""

from __future__ import annotations

import contextlib
import ipaddress
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from allocator.kube.access import find_access
from allocator.kube.resources import (
    CRDS,
    MUTATING_WEBHOOKS,
    SPIDER_ENDPOINTS,
    SPIDER_IP_ADDRESSES,
    SPIDER_IP_POOLS,
    SPIDER_RESERVED_IPS,
    SPIDER_SUBNETS,
    VALIDATING_WEBHOOKS,
)
from tests.plane.admission.rows import LEGACY, NOT_COMPLETED, Accepted, Refused, legacy, not_completed
from tests.plane.support import eventually
from tests.plane.webhooks import pool, reservation, subnet
from webhook.entries import NAME, Registration, UrlTarget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from allocator.kube.access import Access
    from allocator.kube.resources import Object, Resource
    from devcluster.plane import Plane
    from tests.plane.admission.rows import Row
    from tests.plane.webhooks import Webhook

RESOURCES: Final = {
    resource.kind: resource
    for resource in (SPIDER_IP_POOLS, SPIDER_SUBNETS, SPIDER_RESERVED_IPS, SPIDER_ENDPOINTS, SPIDER_IP_ADDRESSES)
}
WITH_STATUS: Final = ("SpiderIPPool", "SpiderSubnet")
TITLES: Final = {
    "Invalid": "Invalid value",
    "Required": "Required value",
    "Forbidden": "Forbidden",
    "NotSupported": "Unsupported value",
    "Duplicate": "Duplicate value",
}
# The flags of a pool come from the CRD.
FLAGS: Final = {"SpiderIPPool": {"default": False, "disable": False}}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: Object
    warnings: list[str]


class Api:
    """The API server as a user's client sees it, warnings included."""

    def __init__(self, access: Access, session: aiohttp.ClientSession) -> None:
        self._access = access
        self._session = session

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, plane: Plane) -> AsyncIterator[Api]:
        access = await find_access(plane.kubeconfig)
        headers = {}
        if authorization := await access.credentials.authorization():
            headers["Authorization"] = authorization
        async with aiohttp.ClientSession(access.server, headers=headers) as session:
            yield cls(access, session)

    async def call(self, method: str, path: str, body: object = None, *, user: str = "", **params: str) -> Answer:
        form = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Content-Type": form}
        if user:
            headers |= {"Impersonate-User": user, "Impersonate-Group": "system:masters"}
        async with self._session.request(
            method, path, params=params, json=body, headers=headers, ssl=self._access.tls or True
        ) as response:
            warnings = [_warning(text) for text in response.headers.getall("Warning", [])]
            # The API server's own, about the original's finalizer.
            warnings = [text for text in warnings if not text.startswith("metadata.finalizers: ")]
            return Answer(response.status, await response.json(content_type=None), warnings)

    async def done(self, method: str, path: str, body: object = None, **params: str) -> Object:
        """The body of a call that must succeed."""
        answer = await self.call(method, path, body, **params)
        assert answer.status < 300, f"{method} {path}: {answer.body.get('message')}"
        return answer.body


def _warning(header: str) -> str:
    """The text of `299 - "text"` (RFC 7234, 5.5)."""
    found = re.match(r'299 \S+ "((?:[^"\\]|\\.)*)"', header)
    assert found, header
    return re.sub(r"\\(.)", r"\1", found.group(1))


def path_of(obj: Object) -> str:
    return _collection_of(obj) + f"/{obj['metadata']['name']}"


def _collection_of(obj: Object) -> str:
    return RESOURCES[obj["kind"]].path(obj["metadata"].get("namespace"))


@contextlib.asynccontextmanager
async def registered(api: Api, server: Webhook, *, has_subnets: bool = True) -> AsyncIterator[None]:
    """The registrations of the webhook, but for objects with the labels of rows.py; gone afterwards."""
    registration = Registration(target=UrlTarget(server.base), namespace="spiderpool", has_subnets=has_subnets)
    for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
        labels = [LEGACY, NOT_COMPLETED] if resource == MUTATING_WEBHOOKS else [LEGACY]
        selector = {"matchExpressions": [{"key": label, "operator": "DoesNotExist"} for label in labels]}
        entries = [{**entry, "objectSelector": selector} for entry in registration.webhooks(resource, server.ca_bundle)]
        head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": NAME}}
        await api.done("POST", resource.path(), {**head, "webhooks": entries})

    async def is_asked() -> bool:
        return await _asked(api) == [True, True]

    async def is_asked_no_more() -> bool:
        return await _asked(api) == [False, False]

    try:
        await eventually(is_asked)
        yield
    finally:
        for resource in (VALIDATING_WEBHOOKS, MUTATING_WEBHOOKS):
            await api.done("DELETE", resource.path(name=NAME))
        await eventually(is_asked_no_more)


async def _asked(api: Api) -> list[bool]:
    """Whether the API server asks the mutating webhook, which fills in the family, and the validating one, which
    misses it. The family may be switched off.
    """
    probe = reservation("probe", ips=["192.0.2.1"])
    completed = await api.call("POST", _collection_of(probe), probe, dryRun="All")
    judged = await api.call("POST", _collection_of(probe), not_completed(probe), dryRun="All")
    is_completed = "ipVersion" in completed.body.get("spec", {})
    return [is_completed or "switched off" in completed.body.get("message", ""), judged.status == 422]


@contextlib.asynccontextmanager
async def without_rules(api: Api) -> AsyncIterator[None]:
    """The CRDs without their CEL rules, as objects of the original were stored; put back afterwards."""
    probes = [
        legacy(reservation("probe", ips=["x"])),
        legacy(pool("probe", subnet="192.0.2.0/24", ips=["x"])),
        legacy(subnet("probe", subnet="192.0.2.0/24", ips=["x"])),
    ]

    async def answers() -> list[int]:
        return [(await api.call("POST", _collection_of(probe), probe, dryRun="All")).status for probe in probes]

    async def are_off() -> bool:
        return await answers() == [201] * len(probes)

    before = await answers()

    async def are_back() -> bool:
        return await answers() == before

    paths = [
        CRDS.path(name=f"{resource.plural}.{resource.group}")
        for resource in (SPIDER_RESERVED_IPS, SPIDER_IP_POOLS, SPIDER_SUBNETS)
    ]
    specs = [(await api.done("GET", path))["spec"] for path in paths]
    try:
        for path, spec in zip(paths, specs, strict=True):
            await api.done("PATCH", path, {"spec": {"versions": _lenient(spec["versions"])}})
        await eventually(are_off)
        yield
    finally:
        for path, spec in zip(paths, specs, strict=True):
            await api.done("PATCH", path, {"spec": {"versions": spec["versions"]}})
        await eventually(are_back)


def _lenient(schema: Any) -> Any:
    """A copy without rules, at any depth."""
    if isinstance(schema, list):
        return [_lenient(item) for item in schema]
    if isinstance(schema, dict):
        return {key: _lenient(value) for key, value in schema.items() if key != "x-kubernetes-validations"}
    return schema


@dataclass(slots=True)
class Cluster:
    """What a row puts there, and takes away."""

    api: Api
    made: list[Object] = field(default_factory=list)

    async def put(self, obj: Object) -> None:
        """Create the object with its status; webhook and API server know it afterwards."""
        metadata = dict(obj["metadata"])
        is_leaving = metadata.pop("deletionTimestamp", None) is not None
        await self.api.done("POST", _collection_of(obj), {**obj, "metadata": metadata})
        self.made.append(obj)
        if obj["kind"] in WITH_STATUS and "status" in obj:
            await self.api.done("PATCH", f"{path_of(obj)}/status", {"status": obj["status"]})
        if LEGACY in obj["metadata"].get("labels", {}) and obj["kind"] in WITH_STATUS:
            await self._until_known(obj)
        if is_leaving:
            await self.api.done("DELETE", path_of(obj))

    async def _until_known(self, obj: Object) -> None:
        """The webhook hears of what it did not judge by a watch: until it refuses what cannot stand beside it."""
        try:
            network = ipaddress.ip_network(obj["spec"]["subnet"])
        except ValueError:  # it can be in nobody's way
            return
        beside = str(network.supernet() if network.prefixlen else next(network.subnets()))
        make = pool if obj["kind"] == "SpiderIPPool" else subnet
        probe = make("probe", subnet=beside)

        async def is_known() -> bool:
            answer = await self.api.call("POST", _collection_of(probe), probe, dryRun="All")
            return f'"{obj["metadata"]["name"]}"' in str(answer.body.get("message"))

        await eventually(is_known)

    async def clear(self) -> None:
        """Leaves first: records keep pools, pools keep subnets."""
        order = ["SpiderIPAddress", "SpiderEndpoint", "SpiderIPPool", "SpiderSubnet", "SpiderReservedIP"]
        for obj in sorted(self.made, key=lambda each: order.index(each["kind"])):
            if "status" in obj and obj["kind"] in WITH_STATUS:  # it may speak of users
                await self.api.call("PATCH", f"{path_of(obj)}/status", {"status": dict.fromkeys(obj["status"])})
            if obj["kind"] in WITH_STATUS or "finalizers" in obj["metadata"]:
                await self.api.call("PATCH", path_of(obj), {"metadata": {"finalizers": None}})
            answer = await self.api.call("DELETE", path_of(obj))
            assert answer.status in (200, 404), answer.body


async def carry_out(api: Api, row: Row) -> None:
    """The row's operation in the row's cluster; AssertionError when the answer is another one."""
    cluster = Cluster(api)
    try:
        for obj in row.cluster:
            await cluster.put(obj)
        if row.operation != "CREATE":
            await cluster.put(row.obj)
            if LEGACY in row.obj["metadata"].get("labels", {}):
                await api.done("PATCH", path_of(row.obj), {"metadata": {"labels": {LEGACY: None}}})
        answer = await _perform(api, row)
        if row.operation == "CREATE" and answer.status == 201:
            cluster.made.append(row.obj)
        if isinstance(row.expected, Refused):
            _check_refusal(row, row.expected, answer)
        else:
            _check_acceptance(row, row.expected, answer)
    finally:
        await cluster.clear()


async def _perform(api: Api, row: Row) -> Answer:
    match row.operation:
        case "CREATE":
            return await api.call("POST", _collection_of(row.obj), row.obj, user=row.user)
        case "UPDATE":
            return await api.call("PATCH", path_of(row.obj), row.change, user=row.user)
        case "DELETE":
            return await api.call("DELETE", path_of(row.obj), user=row.user)


def _check_refusal(row: Row, expected: Refused, answer: Answer) -> None:
    body = answer.body
    resource = RESOURCES[row.obj["kind"]]
    assert (answer.status, body.get("reason")) == (expected.code, expected.reason), body
    message = str(body["message"])
    opening = f'admission webhook "{resource.kind.lower()}.{resource.group}" denied the request: '
    assert expected.by_schema or message.startswith(opening), message
    details = dict(body["details"])
    causes = details.pop("causes", [])
    wanted = {"group": resource.group, "kind": _kind_in(resource, expected), "name": row.obj["metadata"]["name"]}
    assert details == wanted, details
    got = [(cause["reason"], cause["field"]) for cause in causes]
    assert got == [(f"FieldValue{cause.type}", cause.field) for cause in expected.causes], message
    for cause, said in zip(causes, expected.causes, strict=True):
        assert cause["message"].startswith(f"{TITLES[said.type]}: "), cause
        assert said.words in cause["message"], message
        assert f"{cause['field']}: {cause['message']}" in message
    for words in expected.words:
        assert words in message, message
    _check_warnings(expected.warnings, answer)


def _kind_in(resource: Resource, expected: Refused) -> str:
    """As the original fills `details.kind`, and kube-apiserver where it forbids."""
    return resource.plural if expected.reason == "Forbidden" else resource.kind


def _check_acceptance(row: Row, expected: Accepted, answer: Answer) -> None:
    assert answer.status in (200, 201), answer.body.get("message")
    if expected.spec is not None:
        wanted = {**FLAGS.get(row.obj["kind"], {}), **expected.spec}
        assert answer.body["spec"] == wanted, answer.body["spec"]
    for key, value in expected.metadata.items():
        found = answer.body["metadata"].get(key)
        assert found == value, found
    _check_warnings(expected.warnings, answer)


def _check_warnings(expected: tuple[str, ...], answer: Answer) -> None:
    assert len(answer.warnings) == len(expected), answer.warnings
    for words, warning in zip(expected, answer.warnings, strict=True):
        assert words in warning, warning

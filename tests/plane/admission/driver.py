"""Carries out the rows of an admission table through the API server, and compares its whole answer."""

from __future__ import annotations

import contextlib
import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from allocator.domain.defaulting import OWNER_LABEL
from tests.plane.admission.api import RESOURCES, collection_of, path_of
from tests.plane.admission.rows import LEGACY, Accepted, Refused
from tests.plane.support import eventually
from tests.plane.webhooks import pool, subnet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from allocator.kube.resources import Object, Resource
    from tests.plane.admission.api import Answer, Api
    from tests.plane.admission.rows import Row

WITH_STATUS: Final = ("SpiderIPPool", "SpiderSubnet")
TITLES: Final = {
    "Invalid": "Invalid value",
    "Required": "Required value",
    "Forbidden": "Forbidden",
    "NotSupported": "Unsupported value",
    "Duplicate": "Duplicate value",
    "TooMany": "Too many",
}
# The flags of a pool come from the CRD.
FLAGS: Final = {"SpiderIPPool": {"default": False, "disable": False}}


@dataclass(slots=True)
class Cluster:
    """What a row puts there, and takes away."""

    api: Api
    made: list[Object] = field(default_factory=list)

    async def put(self, obj: Object) -> None:
        """Create the object with its status; webhook and API server know it afterwards."""
        metadata = dict(obj["metadata"])
        is_leaving = metadata.pop("deletionTimestamp", None) is not None
        await self.api.done("POST", collection_of(obj), {**obj, "metadata": metadata})
        self.made.append(obj)
        if obj["kind"] in WITH_STATUS and "status" in obj:
            await self.api.done("PATCH", f"{path_of(obj)}/status", {"status": obj["status"]})
        if LEGACY in obj["metadata"].get("labels", {}) and obj["kind"] in WITH_STATUS:
            await self._until_known(obj)
        if is_leaving:
            await self.api.done("DELETE", path_of(obj))
            if obj["kind"] == "SpiderSubnet":
                await self._until_known_to_leave(obj)

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
            answer = await self.api.call("POST", collection_of(probe), probe, dryRun="All")
            return f'"{obj["metadata"]["name"]}"' in str(answer.body.get("message"))

        await eventually(is_known)

    async def _until_known_to_leave(self, leaving: Object) -> None:
        """Until the webhook gives pools to it no more."""
        probe = pool("probe", subnet=leaving["spec"]["subnet"])

        async def is_known() -> bool:
            answer = await self.api.call("POST", collection_of(probe), probe, dryRun="All")
            return OWNER_LABEL not in answer.body["metadata"].get("labels", {})

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


@contextlib.asynccontextmanager
async def standing(api: Api, row: Row) -> AsyncIterator[Cluster]:
    """What the row finds; gone afterwards, with what it left."""
    cluster = Cluster(api)
    try:
        for obj in row.cluster:
            await cluster.put(obj)
        if row.operation != "CREATE":
            await cluster.put(row.obj)
            if LEGACY in row.obj["metadata"].get("labels", {}):
                await api.done("PATCH", path_of(row.obj), {"metadata": {"labels": {LEGACY: None}}})
        yield cluster
    finally:
        await cluster.clear()


async def carry_out(api: Api, row: Row) -> None:
    """The row's operation in the row's cluster; AssertionError when the answer is another one."""
    async with standing(api, row) as cluster:
        answer = await _perform(api, row)
        if answer.status == 201:
            cluster.made.append(row.obj)
        if isinstance(row.expected, Refused):
            _check_refusal(row, row.expected, answer)
        else:
            _check_acceptance(row, row.expected, answer)


async def _perform(api: Api, row: Row) -> Answer:
    match row.operation:
        case "CREATE":
            return await api.call("POST", collection_of(row.obj), row.obj, user=row.user)
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
    said = list(expected.causes)
    if expected.by_schema:  # the API server tells them in any order
        causes, said = sorted(causes, key=lambda cause: cause["field"]), sorted(said, key=lambda cause: cause.field)
    got = [(cause["reason"], cause["field"]) for cause in causes]
    assert got == [(f"FieldValue{cause.type}", cause.field) for cause in said], message
    for cause, wanted_cause in zip(causes, said, strict=True):
        assert cause["message"].startswith(f"{TITLES[wanted_cause.type]}: "), cause
        assert wanted_cause.words in cause["message"], message
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

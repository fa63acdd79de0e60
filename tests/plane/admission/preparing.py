"""What the API server is made to do before a table: ask the webhook, or store what its own rules would refuse."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from allocator.kube.resources import (
    CRDS,
    MUTATING_WEBHOOKS,
    SPIDER_IP_POOLS,
    SPIDER_RESERVED_IPS,
    SPIDER_SUBNETS,
    VALIDATING_WEBHOOKS,
)
from tests.plane.admission.api import collection_of
from tests.plane.admission.rows import LEGACY, NOT_COMPLETED, legacy, not_completed
from tests.plane.support import eventually
from tests.plane.webhooks import pool, reservation, subnet
from webhook.entries import NAME, Registration, UrlTarget

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.plane.admission.api import Api
    from tests.plane.webhooks import Webhook


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
    completed = await api.call("POST", collection_of(probe), probe, dryRun="All")
    judged = await api.call("POST", collection_of(probe), not_completed(probe), dryRun="All")
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
        return [(await api.call("POST", collection_of(probe), probe, dryRun="All")).status for probe in probes]

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

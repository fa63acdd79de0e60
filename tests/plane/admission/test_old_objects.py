"""What the original let through and the cluster still has: it is no reason to refuse anything but an edit of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.plane.admission.driver import carry_out
from tests.plane.admission.preparing import without_rules
from tests.plane.admission.rows import (
    allowed,
    create,
    delete,
    edit,
    forbidden,
    invalid,
    legacy,
    named,
    record,
    stored,
    update,
)
from tests.plane.webhooks import pool, reservation, subnet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.plane.admission.api import Api
    from tests.plane.admission.rows import Row

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _stored_unchecked(api: Api) -> AsyncIterator[None]:
    async with without_rules(api):
        yield


V4, V6 = "10.20.0.0/16", "fd00:7::/64"
BACKWARDS = legacy(pool("p", subnet=V4, ips=["10.20.0.9-10.20.0.1"]))
MESS = legacy(
    pool(
        "p",
        subnet=V4,
        ips=["10.20.0.1-10.20.0.9", "10.20.0.5-10.20.0.7", "::ffff:10.20.0.77"],
        gateway="10.20.0.5",
        routes=[{"dst": "10.0.0.0/0", "gw": "10.21.0.1"}],
        podAffinity={"matchExpressions": [{"key": "a b", "operator": "In"}]},
    )
)
LABEL = {"metadata": {"labels": {"team": "net"}}}

POOLS = [
    edit("a reversed pool is labelled", BACKWARDS, LABEL, allowed()),
    edit("a messy pool is labelled", MESS, LABEL, allowed()),
    edit("the finalizer of a messy pool is taken off", MESS, {"metadata": {"finalizers": None}}, allowed()),
    delete("a reversed pool is deleted", BACKWARDS, allowed()),
    delete("a messy pool is deleted", MESS, allowed()),
    delete(
        "a messy pool in use is not deleted", MESS, forbidden("10.20.0.2 (pod shop/cart-0)"), record("10.20.0.2", "p")
    ),
    update(
        "a reversed pool is edited", BACKWARDS, {"disable": True}, invalid(("Invalid", "spec.ips[0]", "is reversed"))
    ),
    update(
        "a reversed pool is put right",
        BACKWARDS,
        {"ips": ["10.20.0.1-10.20.0.9"]},
        stored(ipVersion=4, subnet=V4, ips=["10.20.0.1-10.20.0.9"]),
    ),
    update(
        "a messy pool is edited",
        MESS,
        {"disable": True},
        invalid(
            ("Invalid", "spec.ips[2]", 'is IPv4-mapped: write "10.20.0.77"'),
            ("Invalid", "spec.ips[0]", "contains the gateway"),
            ("Invalid", "spec.ips[1]", "contains the gateway"),
            ("Invalid", "spec.routes[0].dst", "is a default route"),
            ("Invalid", "spec.routes[0].gw", "lies outside"),
            ("Invalid", "spec.podAffinity.matchExpressions[0].key", "is no label key"),
            ("Required", "spec.podAffinity.matchExpressions[0].values", "In needs values"),
        ),
    ),
    update(
        "a messy pool is put right",
        MESS,
        {"ips": ["10.20.0.6"], "routes": None, "podAffinity": None},
        stored(ipVersion=4, subnet=V4, ips=["10.20.0.6"], gateway="10.20.0.5"),
    ),
    update(
        "a pool whose subnet has host bits cannot be edited",
        legacy(pool("p", subnet="10.20.0.1/16")),
        {"disable": True},
        invalid(("Invalid", "spec.subnet", 'write "10.20.0.0/16"')),
    ),
    delete("a pool whose subnet is a word is deleted", legacy(pool("p", subnet="rack7")), allowed()),
]

BESIDE = [
    create(
        "beside a reversed pool, whose ranges offer nothing",
        pool("b", subnet=V4, ips=["10.20.0.5"]),
        allowed(),
        BACKWARDS,
    ),
    create(
        "beside a reversed pool, whose network counts",
        pool("b", subnet="10.20.7.0/24"),
        invalid(("Invalid", "spec.subnet", 'overlaps 10.20.0.0/16 of SpiderIPPool "p"')),
        BACKWARDS,
    ),
    create("beside a pool whose subnet is a word", pool("b", subnet=V4), allowed(), legacy(pool("a", subnet="rack7"))),
    create(
        "beside a subnet whose network is a word",
        pool("b", subnet=V4),
        allowed(),
        legacy(subnet("s", subnet="rack7")),
    ),
    create(
        "a subnet beside a reversed pool",
        subnet("s", subnet=V4, ips=["10.20.1.0-10.20.1.9"]),
        allowed(),
        BACKWARDS,
    ),
]

UNREADABLE = legacy(subnet("s", subnet=V4, ips=["10.20.0.9-10.20.0.1"], gateway="10.20.0.254"))
OTHERS = [
    create(
        "in a reversed subnet, which offers nothing",
        pool("b", subnet=V4, ips=["10.20.0.5"]),
        invalid(("Forbidden", "spec.ips", '10.20.0.5 is not offered by SpiderSubnet "s"')),
        UNREADABLE,
    ),
    create("an empty pool in a reversed subnet", pool("b", subnet=V4), allowed(), UNREADABLE),
    edit(
        "a reversed subnet is labelled", legacy(subnet("s", subnet=V6, ips=["fd00:7::9-fd00:7::1"])), LABEL, allowed()
    ),
    update(
        "a reversed subnet is edited",
        legacy(subnet("s", subnet=V6, ips=["fd00:7::9-fd00:7::1"])),
        {"gateway": "fd00:7::1"},
        invalid(("Invalid", "spec.ips[0]", "is reversed")),
    ),
    update(
        "a reversed subnet is put right",
        legacy(subnet("s", subnet=V6, ips=["fd00:7::9-fd00:7::1"])),
        {"ips": ["fd00:7::1-fd00:7::9"]},
        stored(ipVersion=6, subnet=V6, ips=["fd00:7::1-fd00:7::9"]),
    ),
    delete("a reversed subnet is deleted", legacy(subnet("s", subnet=V6, ips=["fd00:7::9-fd00:7::1"])), allowed()),
    edit("a reservation of words is labelled", legacy(reservation("r", ips=["x", "y"])), LABEL, allowed()),
    update(
        "a reservation of words is edited",
        legacy(reservation("r", ips=["x", "y"])),
        {"ips": ["10.20.0.1", "y"]},
        invalid(("Invalid", "spec.ips[1]", "is not an IP address")),
    ),
    update(
        "a reservation of words is put right",
        legacy(reservation("r", ips=["x", "y"])),
        {"ips": ["10.20.0.1"]},
        stored(ipVersion=4, ips=["10.20.0.1"]),
    ),
    delete("a reservation of words is deleted", legacy(reservation("r", ips=["x", "y"])), allowed()),
]

TABLE = named([*POOLS, *BESIDE, *OTHERS])


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
async def test_old_objects(api: Api, row: Row) -> None:
    await carry_out(api, row)

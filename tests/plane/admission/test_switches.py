"""What is switched off in the ConfigMap, through the API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plane.admission.driver import carry_out
from tests.plane.admission.rows import (
    FINALIZER,
    allowed,
    create,
    delete,
    endpoint,
    invalid,
    legacy,
    named,
    record,
    update,
)
from tests.plane.webhooks import pool, reservation, subnet

if TYPE_CHECKING:
    from tests.plane.admission.api import Api
    from tests.plane.admission.rows import Row

pytestmark = pytest.mark.asyncio(loop_scope="module")

V4, V6 = "10.20.0.0/16", "fd00:7::/64"
NO_V4 = "IPv4 is switched off: set enableIPv4 in the ConfigMap"
NO_V6 = "IPv6 is switched off: set enableIPv6 in the ConfigMap"
P = pool("p", subnet=V6, ips=["fd00:7::10-fd00:7::1f"])

WITHOUT_IPV6 = {"enableIPv6": False}
IPV4_ONLY = named(
    [
        create("pool 3: IPv6", P, invalid(("Forbidden", "spec.ipVersion", NO_V6))),
        create(
            "pool 3: IPv6, and wrong",
            pool("p", subnet=V6, ips=["fd00:8::1"], gateway="x"),
            invalid(
                ("Forbidden", "spec.ipVersion", NO_V6),
                ("Invalid", "spec.ips[0]", "lies outside"),
                ("Invalid", "spec.gateway", "is not an IP address"),
            ),
        ),
        create("pool 3: IPv4", pool("p", subnet=V4), allowed()),
        update(
            "pool update 3: IPv6, from before it was switched off",
            legacy(P),
            {"disable": True},
            invalid(("Forbidden", "spec.ipVersion", NO_V6)),
        ),
        create("subnet 1: IPv6", subnet("s", subnet=V6), invalid(("Forbidden", "spec.ipVersion", NO_V6))),
        update(
            "subnet update 2: IPv6, from before it was switched off",
            legacy(subnet("s", subnet=V6)),
            {"gateway": "fd00:7::1"},
            invalid(("Forbidden", "spec.ipVersion", NO_V6)),
        ),
        create(
            "reservation 3: IPv6", reservation("r", ips=["fd00:7::1"]), invalid(("Forbidden", "spec.ipVersion", NO_V6))
        ),
        create("reservation 3: IPv4", reservation("r", ips=["10.20.0.1"]), allowed()),
        delete("a pool that is in nobody's way any more goes", legacy(P), allowed()),
    ]
)

WITHOUT_MUCH = {"enableIPv4": False, "enableSpiderSubnet": False, "enableValidatingResourcesDeletedWebhook": False}
REST = named(
    [
        create("pool 3: IPv4", pool("p", subnet=V4), invalid(("Forbidden", "spec.ipVersion", NO_V4))),
        create("pool 3: IPv6", P, allowed(finalizers=[FINALIZER])),
        create(
            "reservation 3: IPv4", reservation("r", ips=["10.20.0.1"]), invalid(("Forbidden", "spec.ipVersion", NO_V4))
        ),
        create("a subnet is nobody's business", subnet("s", subnet=V6), allowed(finalizers=None, labels=None)),
        create(
            "pool 4, 22: its SpiderSubnet does not count",
            P,
            allowed(labels={"ipam.spidernet.io/ippool-cidr": "fd00-7---64"}),
            subnet("s", subnet=V6, ips=["fd00:7::ff"], gateway="fd00:7::1"),
        ),
        delete("pool delete: in use", P, allowed(), record("fd00:7::11", "p")),
        update(
            "pool update 7: an edit is refused nevertheless",
            P,
            {"ips": ["fd00:7::12"]},
            invalid(("Forbidden", "spec.ips", "in use: fd00:7::11 (pod shop/cart-0)")),
            record("fd00:7::11", "p"),
        ),
        create(
            "an endpoint may have an address of either family",
            endpoint({"interface": "eth0", "ipv4": "10.20.0.10/16"}),
            allowed("a SpiderEndpoint only shows"),
        ),
    ]
)


@pytest.mark.parametrize("api", [WITHOUT_IPV6], ids=["without IPv6"], indirect=True)
@pytest.mark.parametrize("row", IPV4_ONLY.values(), ids=IPV4_ONLY.keys())
async def test_a_family_may_be_switched_off(api: Api, row: Row) -> None:
    await carry_out(api, row)


@pytest.mark.parametrize("api", [WITHOUT_MUCH], ids=["without IPv4, subnets, deletion"], indirect=True)
@pytest.mark.parametrize("row", REST.values(), ids=REST.keys())
async def test_ipv4_subnets_and_the_guard_of_deletion_may_be_switched_off(api: Api, row: Row) -> None:
    await carry_out(api, row)

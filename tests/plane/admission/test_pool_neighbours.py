"""Creating a SpiderIPPool beside other pools and in a SpiderSubnet, through the API server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.plane.admission.driver import carry_out
from tests.plane.admission.rows import (
    ALREADY_EXISTS,
    allowed,
    create,
    invalid,
    labelled,
    legacy,
    named,
    stored,
    terminating,
    update,
    with_status,
)
from tests.plane.webhooks import pool, subnet

if TYPE_CHECKING:
    from tests.plane.admission.api import Api
    from tests.plane.admission.rows import Row

pytestmark = pytest.mark.asyncio(loop_scope="module")

V4, V6 = "10.20.0.0/16", "fd00:7::/64"
A = pool("a", subnet=V4, ips=["10.20.0.10-10.20.0.20"])
OF_A = 'already belongs to SpiderIPPool "a"'

NAMES = [
    create("7: the name is taken", pool("a", subnet="10.99.0.0/16"), ALREADY_EXISTS, A),
    create("7: the name is taken by a pool of the other family", pool("a", subnet=V6), ALREADY_EXISTS, A),
    create("7: the name is taken, and the rest is wrong", pool("a", subnet=V4, ips=["x"]), ALREADY_EXISTS, A),
    create("7: the name of a SpiderSubnet", pool("a", subnet=V4), allowed(), subnet("a", subnet="10.99.0.0/16")),
    create(
        "7: what is wrong tells of AlreadyExists",
        pool("b", subnet=V4, ips=["AlreadyExists"]),
        invalid(("Invalid", "spec.ips[0]", "is not an IP address")),
        A,
    ),
]

NETWORKS = [
    create("8: the same network, other addresses", pool("b", subnet=V4, ips=["10.20.0.21"]), allowed(), A),
    create("8: another network", pool("b", subnet="10.21.0.0/16", ips=["10.21.0.10"]), allowed(), A),
    create(
        "9: a network in that of another pool",
        pool("b", subnet="10.20.7.0/24"),
        invalid(("Invalid", "spec.subnet", 'overlaps 10.20.0.0/16 of SpiderIPPool "a"')),
        A,
    ),
    create(
        "9: a network around that of another pool",
        pool("b", subnet="10.0.0.0/8"),
        invalid(("Invalid", "spec.subnet", 'overlaps 10.20.0.0/16 of SpiderIPPool "a"')),
        A,
    ),
    create(
        "9: an IPv6 network in that of another pool",
        pool("b", subnet="fd00:7::/96"),
        invalid(("Invalid", "spec.subnet", 'overlaps fd00:7::/64 of SpiderIPPool "a"')),
        pool("a", subnet=V6),
    ),
    create(
        "9: networks of two pools",
        pool("b", subnet="10.0.0.0/8"),
        invalid(
            ("Invalid", "spec.subnet", 'overlaps 10.20.0.0/16 of SpiderIPPool "a"'),
            ("Invalid", "spec.subnet", 'overlaps 10.21.0.0/16 of SpiderIPPool "c"'),
        ),
        A,
        pool("c", subnet="10.21.0.0/16"),
    ),
]

SHARED = [
    create(
        "13: addresses of another pool",
        pool("b", subnet=V4, ips=["10.20.0.20-10.20.0.30"]),
        invalid(("Forbidden", "spec.ips", f"10.20.0.20 {OF_A}")),
        A,
    ),
    create(
        "13: excluded by the other pool",
        pool("b", subnet=V4, ips=["10.20.0.15"]),
        allowed(),
        pool("a", subnet=V4, ips=["10.20.0.10-10.20.0.20"], excludeIPs=["10.20.0.15"]),
    ),
    create(
        "13: excluded by the new pool",
        pool("b", subnet=V4, ips=["10.20.0.1-10.20.0.30"], excludeIPs=["10.20.0.9-10.20.0.21"]),
        allowed(),
        A,
    ),
    create("13: an empty pool", pool("b", subnet=V4), allowed(), A),
    create(
        "13: IPv6 addresses in another spelling",
        pool("b", subnet=V6, ips=["fd00:7:0::0010"]),
        invalid(("Forbidden", "spec.ips", f"fd00:7::10 {OF_A}")),
        pool("a", subnet=V6, ips=["fd00:7::10"]),
    ),
    create(
        "13: addresses of two pools, and a word",
        pool("b", subnet=V4, ips=["10.20.0.20-10.20.0.30"], gateway="router"),
        invalid(
            ("Invalid", "spec.gateway", "is not an IP address"),
            ("Forbidden", "spec.ips", f"10.20.0.20 {OF_A}"),
            ("Forbidden", "spec.ips", '10.20.0.25 already belongs to SpiderIPPool "c"'),
        ),
        A,
        pool("c", subnet=V4, ips=["10.20.0.25"]),
    ),
    create(
        "13: many ranges of another pool",
        pool("b", subnet=V4, ips=["10.20.0.0-10.20.0.255"]),
        invalid(("Forbidden", "spec.ips", f"10.20.0.6, 10.20.0.8 and 2 more {OF_A}")),
        pool("a", subnet=V4, ips=[f"10.20.0.{n}" for n in range(0, 14, 2)]),
    ),
    create(
        "13: a pool that is being deleted",
        pool("b", subnet=V4, ips=["10.20.0.10"]),
        invalid(("Forbidden", "spec.ips", f"10.20.0.10 {OF_A}")),
        terminating(A),
    ),
]

UNSEEN = [
    create(
        "11: a pool without its label",
        pool("b", subnet=V4, ips=["10.20.0.10"]),
        invalid(("Forbidden", "spec.ips", f"10.20.0.10 {OF_A}")),
        legacy(A),
    ),
    create(
        "11: a pool with another network's label",
        pool("b", subnet=V4, ips=["10.20.0.10"]),
        invalid(("Forbidden", "spec.ips", f"10.20.0.10 {OF_A}")),
        labelled(legacy(A), **{"ipam.spidernet.io/ippool-cidr": "10-99-0-0-16"}),
    ),
    create(
        "11: a pool without its family is in the way",
        pool("b", subnet="10.20.0.0/24"),
        invalid(("Invalid", "spec.subnet", 'overlaps 10.20.0.0/16 of SpiderIPPool "a"')),
        legacy(pool("a", subnet=V4)),
    ),
    create(
        "11: a pool without its family is far away",
        pool("b", subnet=V6, ips=["fd00:7::1"]),
        allowed(),
        legacy(A),
    ),
]

LENDER = subnet(
    "dc1",
    subnet=V4,
    ips=["10.20.0.10-10.20.9.250"],
    excludeIPs=["10.20.5.0-10.20.5.255"],
    gateway="10.20.0.1",
    routes=[{"dst": "10.99.0.0/16", "gw": "10.20.0.254"}],
)
CIDR_LABEL = {"ipam.spidernet.io/ippool-cidr": "10-20-0-0-16"}
OWNED = {**CIDR_LABEL, "ipam.spidernet.io/owner-spider-subnet": "dc1"}

LENT = [
    create(
        "5.2: gateway and routes come from the SpiderSubnet",
        pool("p", subnet=V4, ips=["10.20.0.10"]),
        stored(
            ipVersion=4,
            subnet=V4,
            ips=["10.20.0.10"],
            gateway="10.20.0.1",
            routes=[{"dst": "10.99.0.0/16", "gw": "10.20.0.254"}],
        ),
        LENDER,
    ),
    create(
        "5.2: an adopted pool is labelled, and owned by nobody",
        pool("p", subnet=V4),
        allowed(labels=OWNED, ownerReferences=None),
        LENDER,
    ),
    create(
        "5.2: its own gateway, and no routes",
        pool("p", subnet=V4, ips=["10.20.0.10"], gateway="10.20.0.2", routes=[]),
        stored(ipVersion=4, subnet=V4, ips=["10.20.0.10"], gateway="10.20.0.2", routes=[]),
        LENDER,
    ),
    create(
        "5.2: a SpiderSubnet with nothing to give",
        pool("p", subnet=V4, ips=["10.20.0.10"]),
        stored(ipVersion=4, subnet=V4, ips=["10.20.0.10"]),
        subnet("dc1", subnet=V4, ips=["10.20.0.10"]),
    ),
    create(
        "5.2: another network's SpiderSubnet",
        pool("p", subnet="10.21.0.0/16", ips=["10.21.0.10"]),
        allowed(labels={"ipam.spidernet.io/ippool-cidr": "10-21-0-0-16"}),
        LENDER,
    ),
    create(
        "5.2: addresses that the SpiderSubnet does not have",
        pool("p", subnet=V4, ips=["10.20.0.5-10.20.0.12", "10.20.9.249-10.20.9.252"]),
        invalid(("Forbidden", "spec.ips", "10.20.0.5-10.20.0.9, 10.20.9.251-10.20.9.252")),
        subnet("dc1", subnet=V4, ips=["10.20.0.10-10.20.9.250"]),
    ),
    create(
        "5.2: the refusal names the SpiderSubnet",
        pool("p", subnet=V4, ips=["10.20.0.5"]),
        invalid(("Forbidden", "spec.ips", 'SpiderSubnet "dc1"')),
        subnet("dc1", subnet=V4, ips=["10.20.0.10-10.20.9.250"]),
    ),
    create(
        "5.2: addresses that the SpiderSubnet excludes",
        pool("p", subnet=V4, ips=["10.20.4.250-10.20.5.7"]),
        invalid(("Forbidden", "spec.ips", "10.20.5.0-10.20.5.7")),
        LENDER,
    ),
    create(
        "5.2: excluded by the pool itself",
        pool("p", subnet=V4, ips=["10.20.4.250-10.20.5.7"], excludeIPs=["10.20.5.0-10.20.5.9"]),
        allowed(),
        LENDER,
    ),
    create("5.2: an empty pool", pool("p", subnet=V4), allowed(labels=OWNED), LENDER),
    create(
        "5.2: an IPv6 /64 in its SpiderSubnet",
        pool("p", subnet=V6, ips=["fd00:7::-fd00:7::ffff:ffff:ffff:fffe"]),
        allowed(),
        subnet("dc1", subnet=V6, ips=["fd00:7::-fd00:7::ffff:ffff:ffff:ffff"]),
    ),
    create(
        "5.2: outside the SpiderSubnet, and of another pool",
        pool("p", subnet=V4, ips=["10.20.0.5", "10.20.0.20"]),
        invalid(("Forbidden", "spec.ips", f"10.20.0.20 {OF_A}"), ("Forbidden", "spec.ips", 'SpiderSubnet "dc1"')),
        subnet("dc1", subnet=V4, ips=["10.20.0.10-10.20.9.250"]),
        A,
    ),
]

AUTOMATIC = {"ipam.spidernet.io/owner-application-name": "cart"}
LOAN = {"ips": ["10.20.0.30-10.20.0.39"], "application": "apps_v1_Deployment_shop_cart"}
ACCOUNTS = with_status(LENDER, controlledIPPools=json.dumps({"auto4-cart": LOAN, "b": {"ips": ["10.20.0.50"]}}))
AUTO = labelled(pool("auto4-cart", subnet=V4, ips=["10.20.0.30-10.20.0.39"]), **AUTOMATIC)
EMPTIED = labelled(pool("auto4-cart", subnet=V4, ips=[]), **AUTOMATIC)
HALF = labelled(pool("auto4-cart", subnet=V4, ips=["10.20.0.30-10.20.0.34"]), **AUTOMATIC)
PUT_BACK = "the controller gives it back what is taken out by hand: change the annotation ipam.spidernet.io/ippool-ip"
LENT_TO_APPLICATIONS = [
    create("5.2, 7: an automatic pool as the accounts have it", AUTO, allowed(), ACCOUNTS),
    create("5.2, 7: an automatic pool with less than the accounts have", HALF, allowed(), ACCOUNTS),
    create("5.2, 7: an automatic pool is born empty", EMPTIED, allowed(), LENDER),
    create(
        "5.2, 7: an automatic pool that the accounts do not have",
        labelled(pool("auto4-web", subnet=V4, ips=["10.20.0.30"]), **AUTOMATIC),
        invalid(("Forbidden", "spec.ips", "is not lent to it by its SpiderSubnet, which lends it nothing")),
        ACCOUNTS,
    ),
    create(
        "5.2, 7: accounts that cannot be read lend nothing",
        AUTO,
        invalid(("Forbidden", "spec.ips", "which lends it nothing")),
        with_status(LENDER, controlledIPPools="{"),
    ),
    create("5.2, 1: an automatic pool without a SpiderSubnet", AUTO, allowed()),
    update(
        "update 8: an automatic pool gets what it is not lent",
        AUTO,
        {"ips": ["10.20.0.30-10.20.0.40"]},
        invalid(
            ("Forbidden", "spec.ips", "10.20.0.40 is not lent to it by its SpiderSubnet, which lends it 10.20.0.30-")
        ),
        ACCOUNTS,
    ),
    update(
        "update 8: an automatic pool gets what it is lent",
        HALF,
        {"ips": ["10.20.0.30-10.20.0.36"]},
        allowed(),
        ACCOUNTS,
    ),
    update("update 8: an automatic pool is shrunk by hand", AUTO, {"ips": ["10.20.0.31"]}, allowed(PUT_BACK), ACCOUNTS),
    update("update 8: an automatic pool, but not its addresses", AUTO, {"disable": True}, allowed(), ACCOUNTS),
    create(
        "what is lent to an application's pool that does not offer it now",
        pool("p", subnet=V4, ips=["10.20.0.25-10.20.0.32"]),
        invalid(("Forbidden", "spec.ips", '10.20.0.30-10.20.0.32 is lent to SpiderIPPool "auto4-cart"')),
        ACCOUNTS,
    ),
    create(
        "what is lent to an application's pool, which offers a part of it",
        pool("p", subnet=V4, ips=["10.20.0.33-10.20.0.36"]),
        invalid(
            ("Forbidden", "spec.ips", '10.20.0.33-10.20.0.34 already belongs to SpiderIPPool "auto4-cart"'),
            ("Forbidden", "spec.ips", '10.20.0.35-10.20.0.36 is lent to SpiderIPPool "auto4-cart"'),
        ),
        ACCOUNTS,
        HALF,
    ),
    create(
        "what the accounts say of a pool that a person made",
        pool("p", subnet=V4, ips=["10.20.0.50"]),
        allowed(),
        ACCOUNTS,
    ),
    update(
        "update: a pool takes what is lent to an application's",
        pool("p", subnet=V4, ips=["10.20.0.25"]),
        {"ips": ["10.20.0.25", "10.20.0.39"]},
        invalid(("Forbidden", "spec.ips", '10.20.0.39 is lent to SpiderIPPool "auto4-cart"')),
        ACCOUNTS,
    ),
    update(
        "update: what a pool had before it was lent is no reason",
        legacy(pool("p", subnet=V4, ips=["10.20.0.30-10.20.0.31"])),
        {"ips": ["10.20.0.30"]},
        allowed(),
        ACCOUNTS,
    ),
    update(
        "update: an automatic pool that has too much may have less",
        legacy(labelled(pool("auto4-web", subnet=V4, ips=["10.20.0.60-10.20.0.62"]), **AUTOMATIC)),
        {"ips": ["10.20.0.60"]},
        allowed(PUT_BACK),
        ACCOUNTS,
    ),
]

CROSSED = [
    create(
        "a network within that of a SpiderSubnet",
        pool("p", subnet="10.20.7.0/24"),
        allowed('spec.subnet 10.20.7.0/24 crosses 10.20.0.0/16 of SpiderSubnet "dc1"'),
        LENDER,
    ),
    create(
        "a network around that of a SpiderSubnet",
        pool("p", subnet="10.0.0.0/8"),
        allowed('spec.subnet 10.0.0.0/8 crosses 10.20.0.0/16 of SpiderSubnet "dc1"'),
        LENDER,
    ),
]

TABLE = named([*NAMES, *NETWORKS, *SHARED, *UNSEEN, *LENT, *LENT_TO_APPLICATIONS, *CROSSED])


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
async def test_creating_a_pool_beside_others(api: Api, row: Row) -> None:
    await carry_out(api, row)

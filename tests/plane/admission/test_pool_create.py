"""Creating a SpiderIPPool: each rule by itself, through the API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plane.admission.driver import carry_out
from tests.plane.admission.rows import allowed, create, invalid, named, not_completed
from tests.plane.webhooks import pool

if TYPE_CHECKING:
    from tests.plane.admission.api import Api
    from tests.plane.admission.rows import Row

pytestmark = pytest.mark.asyncio(loop_scope="module")

V4, V6 = "10.20.0.0/16", "fd00:7::/64"
HOP = "10.20.0.254"
TEN = ["10.20.0.10-10.20.0.19"]

FAMILY = [
    create(
        "1: no family, and none can be derived",
        pool("p", subnet="rack7"),
        invalid(("Invalid", "spec.ipVersion", "null: cannot be derived"), ("Invalid", "spec.subnet", "is not a CIDR")),
    ),
    create(
        "1: no family, since the completion was undone",
        not_completed(pool("p", subnet=V4)),
        invalid(("Invalid", "spec.ipVersion", "null: cannot be derived")),
    ),
    create(
        "2: a family that there is not",
        pool("p", subnet=V4, ipVersion=5),
        invalid(("NotSupported", "spec.ipVersion", '5: supported values: "4", "6"')),
    ),
    create(
        "2: the other family than the subnet's",
        pool("p", subnet=V4, ipVersion=6),
        invalid(("Invalid", "spec.subnet", "is IPv4, but spec.ipVersion is 6")),
    ),
]

SUBNET = [
    create("4: no CIDR", pool("p", subnet="10.20.0.0", ipVersion=4), invalid(("Invalid", "spec.subnet", "not a CIDR"))),
    create(
        "4: a netmask",
        pool("p", subnet="10.20.0.0/255.255.0.0", ipVersion=4),
        invalid(("Invalid", "spec.subnet", 'write "10.20.0.0/16"')),
    ),
    create(
        "4: an IPv4-mapped network",
        pool("p", subnet="::ffff:10.20.0.0/112", ipVersion=4),
        invalid(("Invalid", "spec.subnet", "IPv4-mapped")),
    ),
    create(
        "5: host bits", pool("p", subnet="10.20.0.1/16"), invalid(("Invalid", "spec.subnet", 'write "10.20.0.0/16"'))
    ),
    create("5: capitals", pool("p", subnet="FD00:7::/64"), invalid(("Invalid", "spec.subnet", 'write "fd00:7::/64"'))),
    create(
        "5: not the shortest form",
        pool("p", subnet="fd00:7:0::/64"),
        invalid(("Invalid", "spec.subnet", 'write "fd00:7::/64"')),
    ),
    create("a subnet of one address", pool("p", subnet="10.20.0.1/32", ips=["10.20.0.1"]), allowed()),
    create("a subnet of everything", pool("p", subnet="0.0.0.0/0", ips=["10.20.0.1"]), allowed()),
]

ITEM = {
    "a word": ("printer", "is not an IP address"),
    "an empty text": ("", "is not an IP address"),
    "outside the subnet": ("10.21.0.1", "lies outside spec.subnet 10.20.0.0/16"),
    "partly outside the subnet": ("10.20.255.0-10.21.0.1", "lies outside spec.subnet"),
    "of the other family": ("fd00:7::1", "is IPv6, but an IPv4 address is needed"),
    "of both families": ("10.20.0.1-fd00:7::1", "is IPv6, but an IPv4 address is needed"),
    "reversed": ("10.20.0.9-10.20.0.1", 'is reversed: write "10.20.0.1-10.20.0.9"'),
    "with blanks": ("10.20.0.1 - 10.20.0.4", 'contains blanks: write "10.20.0.1-10.20.0.4"'),
    "a CIDR": ("10.20.0.0/24", "is a CIDR"),
    "with three ends": ("10.20.0.1-10.20.0.3-10.20.0.9", 'more than one "-"'),
    "a list": ("10.20.0.1,10.20.0.2", "is not an IP address"),
    "a short end": ("10.20.0.1-20", "is not an IP address"),
    "with a leading zero": ("10.20.0.010", "is not an IP address"),
    "IPv4-mapped": ("::ffff:10.20.0.1", 'is IPv4-mapped: write "10.20.0.1"'),
}
ITEM_V6 = {
    "reversed": ("fd00:7::9-fd00:7::1", 'is reversed: write "fd00:7::1-fd00:7::9"'),
    "with a zone": ("fd00:7::1%eth0", 'has a zone: write "fd00:7::1"'),
    "outside the subnet": ("fd00:8::1", "lies outside spec.subnet fd00:7::/64"),
    "of the other family": ("10.20.0.1", "is IPv4, but an IPv6 address is needed"),
    "IPv4-mapped": ("::ffff:10.20.0.1", 'is IPv4-mapped: write "10.20.0.1"'),
}

RANGES = [
    *(
        create(
            f"10: the only item of {key} is {how}",
            pool("p", subnet=V4, **{key: [item]}),
            invalid(("Invalid", f"spec.{key}[0]", words)),
        )
        for key in ("ips", "excludeIPs")
        for how, (item, words) in ITEM.items()
    ),
    *(
        create(
            f"10: an IPv6 item of {key} is {how}",
            pool("p", subnet=V6, **{key: ["fd00:7::a", item]}),
            invalid(("Invalid", f"spec.{key}[1]", words)),
        )
        for key in ("ips", "excludeIPs")
        for how, (item, words) in ITEM_V6.items()
    ),
    create(
        "10: each wrong item is named",
        pool("p", subnet=V4, ips=["10.20.0.9-10.20.0.1", "10.20.0.20", "x"], excludeIPs=["10.30.0.1"]),
        invalid(
            ("Invalid", "spec.ips[0]", "is reversed"),
            ("Invalid", "spec.ips[2]", "is not an IP address"),
            ("Invalid", "spec.excludeIPs[0]", "lies outside spec.subnet"),
        ),
    ),
    create(
        "10: exclusions of what ips does not have", pool("p", subnet=V4, ips=TEN, excludeIPs=["10.20.9.9"]), allowed()
    ),
    create("10: no addresses at all", pool("p", subnet=V4), allowed()),
]

GATEWAY = [
    create(
        "14: a gateway that is a word",
        pool("p", subnet=V4, gateway="router"),
        invalid(("Invalid", "spec.gateway", "is not an IP address")),
    ),
    create(
        "14: a gateway of the other family",
        pool("p", subnet=V4, gateway="fd00:7::1"),
        invalid(("Invalid", "spec.gateway", "is IPv6, but an IPv4 address is needed")),
    ),
    create(
        "14: a gateway outside the subnet",
        pool("p", subnet=V4, gateway="10.21.0.1"),
        invalid(("Invalid", "spec.gateway", "lies outside spec.subnet 10.20.0.0/16")),
    ),
    create(
        "14: an IPv4-mapped gateway",
        pool("p", subnet=V4, gateway="::ffff:10.20.0.1"),
        invalid(("Invalid", "spec.gateway", 'is IPv4-mapped: write "10.20.0.1"')),
    ),
    create(
        "15: a range with the gateway",
        pool("p", subnet=V4, ips=["10.20.0.1-10.20.0.9"], gateway="10.20.0.5"),
        invalid(("Invalid", "spec.ips[0]", "contains the gateway 10.20.0.5")),
    ),
    create(
        "15: the gateway as an item of its own",
        pool("p", subnet=V4, ips=["10.20.0.5", "10.20.0.9"], gateway="10.20.0.9"),
        invalid(("Invalid", "spec.ips[1]", "contains the gateway 10.20.0.9")),
    ),
    create(
        "15: the gateway in another spelling",
        pool("p", subnet=V6, ips=["fd00:7::1"], gateway="fd00:7:0::0001"),
        invalid(("Invalid", "spec.ips[0]", "contains the gateway fd00:7::1")),
    ),
    create(
        "15: the excluded gateway in another spelling",
        pool("p", subnet=V6, ips=["fd00:7::-fd00:7::f"], excludeIPs=["fd00:7::1"], gateway="fd00:7:0::0001"),
        allowed(),
    ),
    create(
        "15: an excluded range with the gateway",
        pool("p", subnet=V4, ips=["10.20.0.1-10.20.0.9"], excludeIPs=["10.20.0.4-10.20.0.6"], gateway="10.20.0.5"),
        allowed(),
    ),
]

DESTINATION = {
    "16: the default route": (V4, "0.0.0.0/0", "Invalid", "is a default route"),
    "16: the IPv6 default route": (V6, "::/0", "Invalid", "is a default route"),
    "16: the IPv6 default route spelled otherwise": (V6, "::0/0", "Invalid", "is a default route"),
    "16: the default route with host bits": (V4, "10.0.0.0/0", "Invalid", "is a default route"),
    "18: no CIDR": (V4, "10.99.0.0", "Invalid", "is not a CIDR"),
    "18: a route of the other family": (V4, "fd00:99::/64", "Invalid", "is IPv6, but the pool is IPv4"),
    "18: an IPv4-mapped route": (V6, "::ffff:10.99.0.0/112", "Invalid", "is not a CIDR"),
}
NEXT_HOP = {
    "19: a next hop that is a word": ("router", "is not an IP address"),
    "19: a next hop of the other family": ("fd00:7::1", "is IPv6, but an IPv4 address is needed"),
    "19: a next hop outside the subnet": ("10.21.0.1", "lies outside spec.subnet 10.20.0.0/16"),
    "19: an IPv4-mapped next hop": ("::ffff:10.20.0.254", 'is IPv4-mapped: write "10.20.0.254"'),
}

ROUTES = [
    *(
        create(
            name,
            pool("p", subnet=subnet, routes=[{"dst": dst, "gw": HOP if subnet == V4 else "fd00:7::fe"}]),
            invalid((kind, "spec.routes[0].dst", words)),
        )
        for name, (subnet, dst, kind, words) in DESTINATION.items()
    ),
    create(
        "17: the same destination twice",
        pool("p", subnet=V4, routes=[{"dst": "10.99.0.0/16", "gw": HOP}, {"dst": "10.99.0.0/16", "gw": "10.20.0.253"}]),
        invalid(("Duplicate", "spec.routes[1].dst", "is the destination of spec.routes[0] too")),
    ),
    create(
        "17: the same destination in another spelling",
        pool(
            "p",
            subnet=V6,
            routes=[{"dst": "fd00:99::/64", "gw": "fd00:7::fe"}, {"dst": "FD00:99:0::1/64", "gw": "fd00:7::fe"}],
        ),
        invalid(("Duplicate", "spec.routes[1].dst", "is the destination of spec.routes[0] too")),
    ),
    *(
        create(
            name,
            pool("p", subnet=V4, routes=[{"dst": "10.98.0.0/16", "gw": HOP}, {"dst": "10.99.0.0/16", "gw": hop}]),
            invalid(("Invalid", "spec.routes[1].gw", words)),
        )
        for name, (hop, words) in NEXT_HOP.items()
    ),
]

MANY = [
    create(
        "21: everything at once",
        pool(
            "p",
            subnet=V4,
            ips=["10.20.0.9-10.20.0.1", "10.20.0.5"],
            excludeIPs=["10.21.0.1"],
            gateway="10.9.9.9",
            routes=[{"dst": "0.0.0.0/0", "gw": "10.21.0.1"}],
            podAffinity={},
            nodeAffinity={"matchExpressions": [{"key": "rack", "operator": "In"}]},
            multusName=["Net/x"],
        ),
        invalid(
            ("Invalid", "spec.ips[0]", "is reversed"),
            ("Invalid", "spec.excludeIPs[0]", "lies outside"),
            ("Invalid", "spec.gateway", "lies outside"),
            ("Invalid", "spec.routes[0].dst", "is a default route"),
            ("Invalid", "spec.routes[0].gw", "lies outside"),
            ("Invalid", "spec.podAffinity", "is empty"),
            ("Required", "spec.nodeAffinity.matchExpressions[0].values", "In needs values"),
            ("Invalid", "spec.multusName[0]", 'has "N" in its namespace'),
        ),
    ),
    create(
        "21: the problems of the subnet come with the rest",
        pool("p", subnet="10.20.0.1/16", ips=["10.21.0.1"], gateway="x"),
        invalid(
            ("Invalid", "spec.subnet", 'write "10.20.0.0/16"'),
            ("Invalid", "spec.ips[0]", "lies outside spec.subnet 10.20.0.0/16"),
            ("Invalid", "spec.gateway", "is not an IP address"),
        ),
    ),
]

# The schema is asked after the webhook.
TYPES = [
    create("no spec", {**pool("p"), "spec": None}, invalid(("Required", "spec", "describe the object"))),
    create(
        "no subnet",
        pool("p"),
        invalid(("Invalid", "spec.ipVersion", "cannot be derived"), ("Required", "spec.subnet", "write the network")),
    ),
    create(
        "other types than those of the schema",
        pool(
            "p",
            subnet=V4,
            ips="10.20.0.1",
            excludeIPs=[7, None],
            gateway=["10.20.0.1"],
            routes=["10.99.0.0/16", {"gw": "10.20.0.1"}, {"dst": "10.98.0.0/16"}],
            podAffinity="rack",
            nodeAffinity={"matchExpressions": ["rack"]},
            multusName="macvlan",
            default="yes",
        ),
        invalid(
            ("Invalid", "spec.ips", "must be a list"),
            ("Invalid", "spec.excludeIPs[0]", "7: must be a text"),
            ("Invalid", "spec.excludeIPs[1]", "null: must be a text"),
            ("Invalid", "spec.gateway", "must be a text"),
            ("Invalid", "spec.routes[0]", "must be a route"),
            ("Required", "spec.routes[1].dst", "write the destination"),
            ("Required", "spec.routes[2].gw", "write an address"),
            ("Invalid", "spec.podAffinity", "must be a label selector"),
            ("Invalid", "spec.nodeAffinity.matchExpressions[0]", "must be a requirement"),
            ("Invalid", "spec.multusName", "must be a list"),
            ("Invalid", "spec.default", "must be true or false"),
        ),
    ),
]

MANY_WRONG = [
    create(
        "21: more problems than anybody mends at once",
        pool("p", subnet=V4, ips=["x"] * 4096, excludeIPs=["y"] * 4096),
        invalid(
            *(("Invalid", f"spec.ips[{n}]", "is not an IP address") for n in range(100)),
            ("TooMany", "spec.ips[100]", "8092 more problems are not shown"),
        ),
    ),
    create(
        "21: a long text is shown in part",
        pool("p", subnet=V4, ips=["10.20.0.1 " * 1000]),
        invalid(("Invalid", "spec.ips[0]", "contains blanks")),
    ),
]

# Ranges of any size, as fast as small ones: each of these has the API server's usual 2 s.
SIZES = [
    create("an IPv6 /64", pool("p", subnet=V6, ips=["fd00:7::-fd00:7::ffff:ffff:ffff:ffff"]), allowed()),
    create(
        "all of IPv6", pool("p", subnet="::/0", ips=["::1:0:0:0-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]), allowed()
    ),
    create("an IPv4 /8", pool("p", subnet="10.0.0.0/8", ips=["10.0.0.0-10.255.255.255"]), allowed()),
    create(
        "an IPv6 /64 with its gateway in it",
        pool("p", subnet=V6, ips=["fd00:7::-fd00:7::ffff:ffff:ffff:ffff"], gateway="fd00:7::1"),
        invalid(("Invalid", "spec.ips[0]", "contains the gateway")),
    ),
    create(
        "two times an IPv6 /64",
        pool("p", subnet=V6, ips=["fd00:7::5:0:0:0-fd00:7::6:0:0:0"]),
        invalid(("Forbidden", "spec.ips", 'fd00:7:0:0:5::-fd00:7:0:0:6:: already belongs to SpiderIPPool "a"')),
        pool("a", subnet=V6, ips=["fd00:7::-fd00:7::ffff:ffff:ffff:ffff"]),
    ),
    create(
        "more items than are taken, that merge into one",
        pool("p", subnet="10.0.0.0/8", ips=[f"10.1.{n // 256}.{n % 256}" for n in range(5000)]),
        allowed(),
    ),
    create(
        "more items than are taken",
        pool("p", subnet="10.0.0.0/8", ips=[f"10.1.{n // 128}.{n % 128 * 2}" for n in range(5000)]),
        invalid(("Invalid", "spec.ips", "has 5000 items")),
    ),
]

TABLE = named([*FAMILY, *SUBNET, *RANGES, *GATEWAY, *ROUTES, *MANY, *TYPES, *MANY_WRONG, *SIZES])


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
async def test_creating_a_pool(api: Api, row: Row) -> None:
    await carry_out(api, row)

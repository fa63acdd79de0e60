"""What admission makes of pools, subnets and reservations as people type them, through the API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plane.admission.driver import carry_out
from tests.plane.admission.rows import (
    FINALIZER,
    allowed,
    create,
    edit,
    invalid,
    labelled,
    legacy,
    named,
    stored,
    terminating,
    update,
)
from tests.plane.webhooks import pool, reservation, subnet

if TYPE_CHECKING:
    from collections.abc import Callable

    from allocator.kube.resources import Object
    from tests.plane.admission.api import Api
    from tests.plane.admission.rows import Row

pytestmark = pytest.mark.asyncio(loop_scope="module")

V4, V6 = "10.20.0.0/16", "fd00:7::/64"
POOL_LABEL, SUBNET_LABEL = "ipam.spidernet.io/ippool-cidr", "ipam.spidernet.io/subnet-cidr"
OWNER_LABEL = "ipam.spidernet.io/owner-spider-subnet"
MADE: dict[str, Callable[..., Object]] = {"pool": pool, "subnet": subnet}
LABELS = {"pool": POOL_LABEL, "subnet": SUBNET_LABEL}

# What is typed, and what is stored.
LISTS = {
    "in order, and in one range": (V4, ["10.20.0.5", "10.20.0.1-10.20.0.3", "10.20.0.4"], ["10.20.0.1-10.20.0.5"]),
    "that overlap": (V4, ["10.20.0.1-10.20.0.3", "10.20.0.2-10.20.0.8"], ["10.20.0.1-10.20.0.8"]),
    "twice": (V4, ["10.20.0.9", "10.20.0.9"], ["10.20.0.9"]),
    "that touch over a border of octets": (V4, ["10.20.0.255", "10.20.1.0"], ["10.20.0.255-10.20.1.0"]),
    "apart": (V4, ["10.20.0.9", "10.20.0.1", "10.20.0.5"], ["10.20.0.1", "10.20.0.5", "10.20.0.9"]),
    "as a number orders them, not a text": (V4, ["10.20.0.10", "10.20.0.9"], ["10.20.0.9-10.20.0.10"]),
    "alone, a range of one": (V4, ["10.20.0.1-10.20.0.1"], ["10.20.0.1"]),
    "none": (V4, [], []),
    "in capitals": (V6, ["FD00:7::A", "fd00:7::b"], ["fd00:7::a-fd00:7::b"]),
    "in long form, alone": (V6, ["fd00:7:0:0:0:0:0:1-fd00:7::ff"], ["fd00:7::1-fd00:7::ff"]),
    "of a whole /64": (
        V6,
        ["fd00:7::8000:0:0:0-fd00:7::ffff:ffff:ffff:ffff", "fd00:7::-fd00:7::7fff:ffff:ffff:ffff"],
        ["fd00:7::-fd00:7::ffff:ffff:ffff:ffff"],
    ),
}
RANGES = [
    create(
        f"{kind} 6, 7: {key} {how}",
        make("p", subnet=network, **{key: typed}),
        stored(ipVersion=6 if network == V6 else 4, subnet=network, **{key: kept}),
    )
    for kind, make in MADE.items()
    for key in ("ips", "excludeIPs")
    for how, (network, typed, kept) in LISTS.items()
]

METADATA = [
    *(
        create(
            f"{kind} 1, 3: finalizer and label of {network}",
            make("p", subnet=network),
            allowed(finalizers=[FINALIZER], labels={LABELS[kind]: value}),
        )
        for kind, make in MADE.items()
        for network, value in {
            V4: "10-20-0-0-16",
            "172.18.40.0/24": "172-18-40-0-24",
            "fd00:db8::/32": "fd00-db8---32",
            "::/0": "0---0",
            "::/64": "0---64",
            "1:2:3:4:5:6:7:8/128": "1-2-3-4-5-6-7-8-128",
        }.items()
    ),
    *(
        create(
            f"{kind} 1, 3: what stands in the metadata stays",
            labelled(
                {**make("p", subnet=V4), "metadata": {"name": "p", "finalizers": ["example.com/mine"]}},
                **{"team": "net", LABELS[kind]: "10-99-0-0-16"},
            ),
            allowed(finalizers=["example.com/mine", FINALIZER], labels={"team": "net", LABELS[kind]: "10-20-0-0-16"}),
        )
        for kind, make in MADE.items()
    ),
    *(
        create(
            f"{kind} 1: the finalizer is there already",
            {**make("p", subnet=V4), "metadata": {"name": "p", "finalizers": [FINALIZER]}},
            allowed(finalizers=[FINALIZER]),
        )
        for kind, make in MADE.items()
    ),
    *(
        edit(
            f"{kind} 3: another label is put right with the next edit",
            make("p", subnet=V4),
            {"metadata": {"labels": {LABELS[kind]: "10-99-0-0-16"}}, "spec": {"gateway": "10.20.0.1"}},
            allowed(finalizers=[FINALIZER], labels={LABELS[kind]: "10-20-0-0-16"}),
        )
        for kind, make in MADE.items()
    ),
    *(
        edit(
            f"{kind} 0: nothing is added to what is being deleted",
            terminating({**make("p", subnet=V4), "metadata": {"name": "p", "finalizers": ["example.com/mine"]}}),
            {"metadata": {"labels": None, "finalizers": ["example.com/mine"]}},
            allowed(finalizers=["example.com/mine"], labels=None),
        )
        for kind, make in MADE.items()
    ),
]

FAMILY = [
    *(
        create(
            f"{kind} 2: the family of {network}", make("p", subnet=network), stored(ipVersion=family, subnet=network)
        )
        for kind, make in MADE.items()
        for network, family in {V4: 4, V6: 6}.items()
    ),
    *(
        create(
            f"{kind} 2: a family that was typed",
            make("p", subnet=V4, ipVersion=4),
            stored(ipVersion=4, subnet=V4),
        )
        for kind, make in MADE.items()
    ),
    *(
        create(
            f"{kind} 2: what cannot be completed is refused",
            make("p", subnet="10.20", ips=["10.20.0.2", "10.20.0.1"]),
            invalid(("Invalid", "spec.ipVersion", "cannot be derived"), ("Invalid", "spec.subnet", "is not a CIDR")),
        )
        for kind, make in MADE.items()
    ),
    *(
        create(
            f"{kind} 6: what cannot be merged is refused",
            make("p", subnet=V4, ips=["10.20.0.2", "10.20.0.9-10.20.0.1"]),
            invalid(("Invalid", "spec.ips[1]", "is reversed")),
        )
        for kind, make in MADE.items()
    ),
]

LENDER = subnet("dc1", subnet=V4, ips=["10.20.0.10-10.20.0.250"], gateway="10.20.0.1")
LONG = "s" * 80
OWNER = [
    create(
        "pool 4: the name of a long SpiderSubnet is cut for the label",
        pool("p", subnet=V4),
        allowed(
            labels={POOL_LABEL: "10-20-0-0-16", OWNER_LABEL: "s" * 52 + "-e4a44013b5"},
        ),
        subnet(LONG, subnet=V4),
    ),
    create(
        "pool 4: somebody else's label",
        labelled(pool("p", subnet=V4), **{OWNER_LABEL: "dc9"}),
        allowed(labels={POOL_LABEL: "10-20-0-0-16", OWNER_LABEL: "dc1"}),
        LENDER,
    ),
    create(
        "pool 5: a pool that has the label inherits nothing",
        labelled(pool("p", subnet=V4), **{OWNER_LABEL: "dc1"}),
        stored(ipVersion=4, subnet=V4),
        LENDER,
    ),
    create(
        "pool 4: a SpiderSubnet that is being deleted takes no pools",
        pool("p", subnet=V4, ips=["10.20.0.20"]),
        allowed(labels={POOL_LABEL: "10-20-0-0-16"}),
        terminating(LENDER),
    ),
    create(
        "pool 4: a SpiderSubnet that is being deleted gives nothing",
        pool("p", subnet=V4, ips=["10.20.0.20"]),
        stored(ipVersion=4, subnet=V4, ips=["10.20.0.20"]),
        terminating(LENDER),
    ),
    update(
        "pool 4, 5: an old pool comes to its SpiderSubnet with the next edit",
        legacy(pool("p", subnet=V4, ips=["10.20.0.20"])),
        {"ips": ["10.20.0.21"]},
        stored(ipVersion=4, subnet=V4, ips=["10.20.0.21"], gateway="10.20.0.1"),
        LENDER,
    ),
    update(
        "pool 5: a SpiderSubnet that changes does not change its pools",
        pool("p", subnet=V4, gateway="10.20.0.2"),
        {"ips": ["10.20.0.20"]},
        stored(ipVersion=4, subnet=V4, ips=["10.20.0.20"], gateway="10.20.0.2"),
        LENDER,
    ),
]

RESERVED = [
    *(
        create(
            f"reservation: items {how}",
            reservation("r", ips=typed),
            stored(ipVersion=6 if network == V6 else 4, ips=kept),
        )
        for how, (network, typed, kept) in LISTS.items()
        if typed
    ),
    create("reservation: a family without items", reservation("r", ipVersion=6), stored(ipVersion=6)),
    create(
        "reservation: no finalizer, no label",
        reservation("r", ips=["10.20.0.2"]),
        allowed(finalizers=None, labels=None),
    ),
    update(
        "reservation: an edit is completed too",
        reservation("r", ips=["10.20.0.2"]),
        {"ips": ["10.20.0.4", "10.20.0.3"], "ipVersion": None},
        stored(ipVersion=4, ips=["10.20.0.3-10.20.0.4"]),
    ),
]

TABLE = named([*RANGES, *METADATA, *FAMILY, *OWNER, *RESERVED])


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
async def test_what_is_left_out_or_typed_otherwise_is_completed(api: Api, row: Row) -> None:
    await carry_out(api, row)

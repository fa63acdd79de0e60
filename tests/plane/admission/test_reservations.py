"""Creating and editing a SpiderReservedIP, through the API server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plane.admission.driver import carry_out
from tests.plane.admission.rows import (
    allowed,
    create,
    delete,
    edit,
    forbidden,
    invalid,
    named,
    not_completed,
    record,
    stored,
    terminating,
    update,
)
from tests.plane.webhooks import pool, reservation

if TYPE_CHECKING:
    from tests.plane.admission.api import Api
    from tests.plane.admission.rows import Row

pytestmark = pytest.mark.asyncio(loop_scope="module")

R = reservation("r", ips=["10.20.0.2-10.20.0.3"])
ITEM = {
    "reversed": ("10.20.0.9-10.20.0.1", 'is reversed: write "10.20.0.1-10.20.0.9"'),
    "with blanks": ("10.20.0.1 - 10.20.0.4", "contains blanks"),
    "a CIDR": ("10.20.0.0/24", "is a CIDR"),
    "with three ends": ("10.20.0.1-10.20.0.3-10.20.0.9", 'more than one "-"'),
    "a word": ("printer", "is not an IP address"),
    "of the other family": ("fd00:7::1", "is IPv6, but an IPv4 address is needed"),
    "IPv4-mapped": ("::ffff:10.20.0.1", 'write "10.20.0.1"'),
}

CREATED = [
    create("1: nothing", reservation("r", ips=[]), invalid(("Invalid", "spec.ipVersion", "null: cannot be derived"))),
    create(
        "1: no family, since the completion was undone",
        not_completed(reservation("r", ips=["10.20.0.2"])),
        invalid(("Invalid", "spec.ipVersion", "null: cannot be derived")),
    ),
    create(
        "1, 4: a first item without a family",
        reservation("r", ips=["printer", "10.20.0.1"]),
        invalid(("Invalid", "spec.ipVersion", "cannot be derived"), ("Invalid", "spec.ips[0]", "is not an IP address")),
    ),
    create(
        "2: a family that there is not",
        reservation("r", ipVersion=5, ips=["10.20.0.2"]),
        invalid(("NotSupported", "spec.ipVersion", "supported values")),
    ),
    *(
        create(
            f"4: an item that is {how}",
            reservation("r", ipVersion=4, ips=["10.20.0.7", item]),
            invalid(("Invalid", "spec.ips[1]", words)),
        )
        for how, (item, words) in ITEM.items()
    ),
    create(
        "4: an item with a zone",
        reservation("r", ips=["fd00:7::1", "fe80::1%eth0"]),
        invalid(("Invalid", "spec.ips[1]", "has a zone")),
    ),
    create(
        "4: each wrong item is named",
        reservation("r", ipVersion=6, ips=["x", "fd00:7::1", "10.20.0.1"]),
        invalid(("Invalid", "spec.ips[0]", "is not an IP address"), ("Invalid", "spec.ips[2]", "is IPv4")),
    ),
    create(
        "an IPv6 range of any size",
        reservation("r", ips=["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]),
        allowed(),
    ),
    create("all of IPv4", reservation("r", ips=["0.0.0.0-255.255.255.255"]), allowed()),
    create("addresses of a pool", R, allowed(), pool("a", subnet="10.20.0.0/16", ips=["10.20.0.2-10.20.0.9"])),
]

A = pool("a", subnet="10.20.0.0/16", ips=["10.20.0.2-10.20.0.99"])
UNTIL = "2036-01-01T00:00:00.000000Z"
IN_USE = [
    create(
        "in use by a pod",
        R,
        allowed("1 of the addresses is in use, and nothing is taken from a living pod: 10.20.0.2 (pod shop/cart-0)"),
        A,
        record("10.20.0.2", "a"),
        record("10.20.0.9", "a", "shop/cart-9"),
    ),
    create(
        "in use by many",
        reservation("r", ips=["10.20.0.2-10.20.0.99"]),
        allowed("7 of the addresses are in use, and nothing is taken"),
        A,
        *(record(f"10.20.0.{n}", "a", f"shop/cart-{n}") for n in range(2, 9)),
    ),
    create(
        "an IPv6 /64 over an address in use",
        reservation("r", ips=["fd00:7::-fd00:7::ffff:ffff:ffff:ffff"]),
        allowed("fd00:7::11 (pod shop/cart-0)"),
        pool("a", subnet="fd00:7::/64", ips=["fd00:7::10-fd00:7::1f"]),
        record("fd00:7::11", "a"),
    ),
    create("cooling", R, allowed(), A, record("10.20.0.2", "a", state="Cooling", until=UNTIL)),
    update(
        "an edit reserves what is in use",
        R,
        {"ips": ["10.20.0.2-10.20.0.4"]},
        allowed("10.20.0.4 (pod shop/cart-0)"),
        A,
        record("10.20.0.4", "a"),
    ),
    update("in use, and reserved before", R, {"ips": ["10.20.0.2-10.20.0.4"]}, allowed(), A, record("10.20.0.3", "a")),
]

EDITED = [
    update(
        "update: another family",
        R,
        {"ipVersion": 6},
        invalid(
            ("Forbidden", "spec.ipVersion", "is immutable: keep"),
            ("Invalid", "spec.ips[0]", "is IPv4, but an IPv6 address is needed"),
        ),
    ),
    update(
        "update: no family: it is filled in again",
        R,
        {"ipVersion": None},
        stored(ipVersion=4, ips=["10.20.0.2-10.20.0.3"]),
    ),
    update(
        "update: no family, and addresses of the other one",
        R,
        {"ipVersion": None, "ips": ["fd00:7::1"]},
        invalid(("Forbidden", "spec.ipVersion", "is immutable")),
    ),
    update(
        "update: wrong items",
        R,
        {"ips": ["10.20.0.9-10.20.0.1", "10.20.0.7", "y"]},
        invalid(("Invalid", "spec.ips[0]", "is reversed"), ("Invalid", "spec.ips[2]", "is not an IP address")),
    ),
    update("update: no addresses", R, {"ips": None}, stored(ipVersion=4)),
    edit(
        "update: one that is being deleted",
        terminating(R),
        {"spec": {"ips": ["10.20.0.7"]}},
        forbidden('"r" is forbidden: it is being deleted'),
    ),
    edit(
        "update: the finalizer of one that is being deleted",
        terminating(R),
        {"metadata": {"finalizers": None}},
        allowed(),
    ),
    delete("delete: always", R, allowed(), A, record("10.20.0.2", "a")),
]

TABLE = named([*CREATED, *IN_USE, *EDITED])


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
async def test_creating_and_editing_a_reservation(api: Api, row: Row) -> None:
    await carry_out(api, row)

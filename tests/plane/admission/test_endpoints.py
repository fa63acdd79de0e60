"""Edits by hand of a SpiderEndpoint, through the API server: they move no address, and must at least be readable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plane.admission.driver import carry_out
from tests.plane.admission.rows import (
    allowed,
    by_schema,
    create,
    delete,
    edit,
    endpoint,
    finalized,
    invalid,
    legacy,
    named,
    record,
)

if TYPE_CHECKING:
    from tests.plane.admission.api import Api
    from tests.plane.admission.rows import Row

pytestmark = pytest.mark.asyncio(loop_scope="module")

ETH0 = {"interface": "eth0", "ipv4": "10.20.0.10/16", "ipv4Pool": "a", "ipv4Gateway": "10.20.0.1"}
NET1 = {"interface": "net1", "ipv6": "fd00:7::10/64", "ipv6Pool": "b", "ipv6Gateway": "fd00:7::1"}
GOOD = endpoint(ETH0, NET1)
DERIVED = "a SpiderEndpoint only shows what the SpiderIPAddress objects say"

WRONG = {
    "an IPv4 address without prefix length": ({"ipv4": "10.20.0.10"}, "ipv4", "IPv4 address with prefix length"),
    "an IPv4 address that is a word": ({"ipv4": "x"}, "ipv4", "IPv4 address with prefix length"),
    "an IPv6 address for an IPv4 one": ({"ipv4": "fd00:7::10/64"}, "ipv4", "IPv4 address"),
    "an IPv4 address for an IPv6 one": ({"ipv6": "10.20.0.10/16"}, "ipv6", "IPv6 address"),
    "an IPv6 address without prefix length": ({"ipv6": "fd00:7::10"}, "ipv6", "IPv6 address with prefix length"),
    "an IPv4 gateway that is a word": ({"ipv4Gateway": "router"}, "ipv4Gateway", "is not an IP"),
    "an IPv6 gateway for an IPv4 one": ({"ipv4Gateway": "fd00:7::1"}, "ipv4Gateway", "an IPv4 address"),
    "an IPv4 gateway for an IPv6 one": ({"ipv6Gateway": "10.20.0.1"}, "ipv6Gateway", "an IPv6 address"),
}


def changed(*ips: object) -> dict[str, object]:
    return {"status": {"current": {"ips": list(ips)}}}


TABLE = named(
    [
        create("create: as an agent writes it", GOOD, allowed(DERIVED)),
        create(
            "create: with empty fields",
            endpoint({"interface": "eth0", "ipv4": "", "ipv6Gateway": ""}),
            allowed(DERIVED),
        ),
        create("create: no interfaces", endpoint(), allowed(DERIVED)),
        create("create: as it was exported", finalized(GOOD), allowed(DERIVED)),
        *(
            create(
                f"create: {how}",
                endpoint(ETH0, {"interface": "net1", **detail}),
                by_schema(invalid(("Invalid", f"status.current.ips[1].{field}", words))),
            )
            for how, (detail, field, words) in WRONG.items()
        ),
        create(
            "create: everything at once",
            endpoint({"interface": "eth0", "ipv4": "x", "ipv4Gateway": "y"}, {"interface": "net1", "ipv6": "z"}),
            by_schema(
                invalid(
                    ("Invalid", "status.current.ips[0].ipv4", "IPv4 address"),
                    ("Invalid", "status.current.ips[0].ipv4Gateway", "is not an IP"),
                    ("Invalid", "status.current.ips[1].ipv6", "IPv6 address"),
                )
            ),
        ),
        edit("update: another address", GOOD, changed({**ETH0, "ipv4": "10.20.0.11/16"}), allowed(DERIVED)),
        edit(
            "update: no address",
            GOOD,
            changed(ETH0, {**NET1, "ipv6": "fd00:7::"}),
            by_schema(invalid(("Invalid", "status.current.ips[1].ipv6", "IPv6 address"))),
        ),
        edit("update: a label", GOOD, {"metadata": {"labels": {"team": "net"}}}, allowed()),
        delete("delete: a pod without addresses", GOOD, allowed()),
        delete(
            "delete: a pod with addresses",
            GOOD,
            allowed("this frees no address"),
            record(
                "10.20.0.10",
                "a",
                holder={
                    "namespace": "default",
                    "pod": "cart-0",
                    "podUID": "uid-1",
                    "interface": "eth0",
                    "node": "node-1",
                    "containerID": "c1",
                },
            ),
        ),
        delete("delete: one from before the webhook", legacy(GOOD), allowed()),
    ]
)


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
async def test_editing_an_endpoint_by_hand(api: Api, row: Row) -> None:
    await carry_out(api, row)

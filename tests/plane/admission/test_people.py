"""Whom admission concerns: what people change of a spec, and neither metadata nor our own accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.plane.admission.driver import carry_out
from tests.plane.admission.rows import (
    allowed,
    by,
    create,
    delete,
    edit,
    endpoint,
    invalid,
    legacy,
    named,
    record,
    stored,
    update,
)
from tests.plane.webhooks import pool, reservation, subnet
from webhook.entries import ACCOUNTS

if TYPE_CHECKING:
    from tests.plane.admission.api import Api
    from tests.plane.admission.rows import Row

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real_plane]

V6 = "fd00:7::/64"
# What the CRD's own rules cannot see.
WRONG, BESIDE = pool("p", subnet="10.20.7.0/24"), pool("a", subnet="10.20.0.0/16")
OVERLAPS = invalid(("Invalid", "spec.subnet", 'overlaps 10.20.0.0/16 of SpiderIPPool "a"'))
CONTROLLER = "system:serviceaccount:spiderpool:spiderpool-controller"
AGENT = "system:serviceaccount:spiderpool:spiderpool-agent"

TABLE = named(
    [
        *(
            by(
                f"system:serviceaccount:spiderpool:{account}",
                create(f"{account} creates a pool", WRONG, allowed(finalizers=None), BESIDE),
            )
            for account in ACCOUNTS
        ),
        by(
            "system:serviceaccount:default:spiderpool-agent",
            create("the account of another namespace", WRONG, OVERLAPS, BESIDE),
        ),
        by(
            "system:serviceaccount:spiderpool:default",
            create("another account of our namespace", WRONG, OVERLAPS, BESIDE),
        ),
        by("jane", create("a person", WRONG, OVERLAPS, BESIDE)),
        by(
            CONTROLLER,
            create(
                "the controller creates a subnet", subnet("s", subnet="10.20.7.0/24"), allowed(finalizers=None), BESIDE
            ),
        ),
        by(
            CONTROLLER,
            create("the controller reserves", reservation("r", ips=["10.20.0.2"]), stored(ips=["10.20.0.2"])),
        ),
        by(
            CONTROLLER,
            update(
                "the controller edits a pool",
                pool("p", subnet=V6, ips=["fd00:7::10"]),
                {"ips": []},
                allowed(),
                record("fd00:7::10", "p"),
            ),
        ),
        by(
            CONTROLLER,
            delete("the controller deletes a pool", pool("p", subnet=V6), allowed(), record("fd00:7::10", "p")),
        ),
        by(
            AGENT,
            create("an agent writes an endpoint", endpoint({"interface": "eth0", "ipv4": "10.20.0.10/16"}), allowed()),
        ),
        by(
            "jane", edit("a person labels a wrong pool", legacy(WRONG), {"metadata": {"labels": {"a": "b"}}}, allowed())
        ),
        by(
            "jane",
            edit(
                "a person takes the finalizer off",
                pool("p", subnet=V6),
                {"metadata": {"finalizers": None}},
                allowed(finalizers=None),
            ),
        ),
        by(
            "system:kube-controller-manager",
            delete("garbage collection", endpoint({"interface": "eth0", "ipv4": "10.20.0.10/16"}), allowed()),
        ),
    ]
)


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE.keys())
async def test_who_is_asked(api: Api, row: Row) -> None:
    await carry_out(api, row)

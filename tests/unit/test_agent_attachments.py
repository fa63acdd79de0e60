"""Garbage collection of attachments: what is leaked by one look, how many are too many, and what an error leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from allocator import collecting
from allocator.domain import errors
from allocator.domain.attachments import Attachments, is_leaked, too_many
from tests.unit import values
from tests.unit.memory import MemoryWorld

if TYPE_CHECKING:
    from allocator.domain.record import Record
    from allocator.domain.request import Pod

POD = values.pod()
RECORD = values.record("10.20.0.10", POD)


def on_blue(record: Record, container: str = "c1") -> Record:
    assert record.holder is not None
    return replace(record, holder=replace(record.holder, network="blue", container_id=container))


@pytest.mark.parametrize(
    ("record", "pod", "is_gone"),
    [
        pytest.param(RECORD, None, True, id="no such pod"),
        pytest.param(RECORD, values.pod(uid="u2"), True, id="another pod of that name"),
        pytest.param(RECORD, values.pod(phase="Succeeded"), True, id="finished"),
        pytest.param(RECORD, values.pod(phase="Failed"), True, id="failed"),
        pytest.param(RECORD, POD, False, id="alive"),
        pytest.param(RECORD, values.pod(deleted_at=values.NOON), False, id="being deleted, and past its grace"),
        pytest.param(
            RECORD,
            values.pod(uid="u2", annotations={"kubernetes.io/config.mirror": "u1"}),
            False,
            id="a mirror pod that came back",
        ),
        pytest.param(
            replace(RECORD, peer=values.holder(values.pod("other", "u3"))), None, False, id="one of two that migrate"
        ),
    ],
)
def test_an_unlisted_attachment_is_leaked_when_its_pod_is_gone_and_not_before(
    record: Record, pod: Pod | None, *, is_gone: bool
) -> None:
    assert is_leaked(record, pod, values.NOON) is is_gone


@pytest.mark.parametrize(
    ("leaked", "of", "is_braked"),
    [(0, 0, False), (5, 5, False), (6, 7, True), (6, 60, False), (11, 110, False), (12, 110, True)],
)
def test_more_than_five_and_more_than_a_tenth_are_too_many(leaked: int, of: int, *, is_braked: bool) -> None:
    assert too_many(leaked, of) is is_braked


async def test_a_pod_that_cannot_be_read_is_told_and_the_others_are_looked_at() -> None:
    world = MemoryWorld()
    for index, name in enumerate(("away", "gone")):
        record = on_blue(values.record(f"10.20.0.1{index}", values.pod(name, f"u{index}")), name)
        world.ledger.records[record.address] = record
    read = world.view.read_pod

    async def read_all_but_one(namespace: str, name: str) -> Pod | None:
        if name == "away":
            raise errors.Unavailable("read Pod away: the API server is away")
        return await read(namespace, name)

    world.view.read_pod = read_all_but_one  # type: ignore[method-assign]
    releases, problems = await collecting.leaked(
        Attachments(network="blue", valid=frozenset({("other", "eth0")})), world.ports()
    )
    assert [request.pod for request in releases] == ["gone"]
    assert problems == ("read Pod away: the API server is away",)


async def test_pods_that_the_informer_shows_alive_cost_no_read() -> None:
    world = MemoryWorld()
    world.view.put(POD)
    world.ledger.records[RECORD.address] = on_blue(RECORD)

    async def refuse(namespace: str, name: str) -> Pod | None:
        raise AssertionError(f"{namespace}/{name} was read")

    world.view.read_pod = refuse  # type: ignore[method-assign]
    assert await collecting.leaked(Attachments(network="blue", valid=frozenset()), world.ports()) == (frozenset(), ())


async def test_both_families_of_an_interface_are_one_attachment() -> None:
    """Three pods that are gone are no mass, though six addresses go with them."""
    world = MemoryWorld()
    for index in range(3):
        pod = values.pod(f"p{index}", f"u{index}")
        for address in (f"10.20.0.1{index}", f"fd00::1{index}"):
            record = on_blue(values.record(address, pod), f"c{index}")
            world.ledger.records[record.address] = record
    releases, _ = await collecting.leaked(Attachments(network="blue", valid=frozenset()), world.ports())
    assert sorted(request.pod for request in releases) == ["p0", "p1", "p2"]

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
    from allocator.domain.request import DelRequest, Pod

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


class Runtime:
    """A garbage collection of network blue with a list that knows none of its attachments here."""

    def __init__(self) -> None:
        self.world = MemoryWorld()
        self.released: list[str] = []
        self.refusing: set[str] = set()

    def attach(self, name: str, *addresses: str) -> None:
        """An attachment of a pod that is gone."""
        for address in addresses:
            record = on_blue(values.record(address, values.pod(name, f"uid-{name}")), f"c-{name}")
            self.world.ledger.records[record.address] = record

    async def release(self, request: DelRequest) -> None:
        if request.pod in self.refusing:
            raise errors.Unavailable(f"release {request.pod}: the API server is away")
        self.released.append(request.pod)

    async def collect(self) -> None:
        valid = frozenset({("c-other", "eth0")})
        await collecting.collect(Attachments(network="blue", valid=valid), self.world.ports(), self.release)


@pytest.fixture
def runtime() -> Runtime:
    return Runtime()


async def test_what_cannot_be_read_or_released_is_told_after_all_the_others_were_tried(runtime: Runtime) -> None:
    for index, name in enumerate(("unreadable", "stuck", "gone", "gone-too")):
        runtime.attach(name, f"10.20.0.1{index}")
    runtime.refusing = {"stuck"}
    read = runtime.world.view.read_pod

    async def read_all_but_one(namespace: str, name: str) -> Pod | None:
        if name == "unreadable":
            raise errors.Unavailable("read Pod unreadable: the API server is away")
        return await read(namespace, name)

    runtime.world.view.read_pod = read_all_but_one  # type: ignore[method-assign]
    with pytest.raises(errors.Unavailable) as refusal:
        await runtime.collect()
    assert sorted(runtime.released) == ["gone", "gone-too"]
    for problem in ("read Pod unreadable", "release stuck"):
        assert problem in str(refusal.value)


async def test_pods_that_the_informer_shows_alive_cost_no_read(runtime: Runtime) -> None:
    runtime.world.view.put(POD)
    runtime.world.ledger.records[RECORD.address] = on_blue(RECORD)

    async def refuse(namespace: str, name: str) -> Pod | None:
        raise AssertionError(f"{namespace}/{name} was read")

    runtime.world.view.read_pod = refuse  # type: ignore[method-assign]
    await runtime.collect()
    assert runtime.released == []


async def test_both_families_of_an_interface_are_one_attachment(runtime: Runtime) -> None:
    """Three pods that are gone are no mass, though six addresses go with them."""
    for index in range(3):
        runtime.attach(f"p{index}", f"10.20.0.1{index}", f"fd00::1{index}")
    await runtime.collect()
    assert sorted(runtime.released) == ["p0", "p1", "p2"]


async def test_a_mass_that_seems_gone_is_not_released(runtime: Runtime) -> None:
    for index in range(6):
        runtime.attach(f"p{index}", f"10.20.0.1{index}")
    with pytest.raises(errors.MassRelease, match="6 of the 6 attachments"):
        await runtime.collect()
    assert runtime.released == []

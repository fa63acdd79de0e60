"""The ledger's port, told once and held by both: the objects on the API server, and the memory that unit tests use."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast

import pytest

from allocator.domain import errors
from allocator.domain.addresses import object_name, parse_address
from allocator.domain.record import State, rebound, released, retained
from allocator.kube.cache import Cache
from allocator.kube.codec import decode_record
from allocator.kube.errors import Unreachable
from allocator.kube.ledger import KubeLedger
from allocator.kube.resources import SPIDER_IP_ADDRESSES
from allocator.runtime.clock import SystemClock
from tests.unit import values
from tests.unit.memory import MemoryLedger

if TYPE_CHECKING:
    from collections.abc import Callable

    from allocator.domain.record import Record
    from allocator.domain.request import Pod
    from allocator.kube.client import KubeClient
    from allocator.ports import Ledger

LATER = values.NOON + timedelta(seconds=1)
POD = values.pod()


def fresh(address: str = "10.20.0.10", **changes: object) -> Record:
    """A record as it is before its first write."""
    return replace(values.record(address, POD), uid="", resource_version="", **changes)  # type: ignore[arg-type]


@pytest.fixture(params=["memory", "plane"])
def ledger(request: pytest.FixtureRequest, kube: KubeClient) -> Ledger:
    if request.param == "memory":
        return MemoryLedger()
    clock = SystemClock()
    index = Cache(kube, SPIDER_IP_ADDRESSES, clock=clock)
    return KubeLedger(kube, index, clock=clock, rng=random.Random(7))  # noqa: S311


@pytest.mark.parametrize("address", ["10.20.0.10", "fd00::10"])
async def test_what_is_created_reads_back_the_same(ledger: Ledger, address: str) -> None:
    created = await ledger.create(fresh(address, slot=values.slot(0)))
    assert created is not None
    assert await ledger.read(parse_address(address)) == created
    assert replace(created, uid="", resource_version="") == fresh(address, slot=values.slot(0))


async def test_a_record_that_a_read_found_gone_is_no_longer_shown_as_ones_own(ledger: Ledger, kube: KubeClient) -> None:
    """An undo whose answer was lost, and a watch that is behind: the next try must not answer this address."""
    created = await ledger.create(fresh())
    assert created is not None
    if isinstance(ledger, MemoryLedger):
        await ledger.delete(created)
    else:
        await kube.delete(SPIDER_IP_ADDRESSES, object_name(created.address))
    assert await ledger.read(created.address) is None
    assert list(ledger.own(POD.uid)) == []


async def test_an_address_is_created_once_whatever_the_pool(ledger: Ledger) -> None:
    assert await ledger.create(fresh()) is not None
    assert await ledger.create(fresh(pool="b")) is None


async def test_a_move_is_written_where_the_record_is_as_it_was_read(ledger: Ledger) -> None:
    created = await ledger.create(fresh())
    assert created is not None
    moved = await ledger.replace(released(created, LATER))
    assert (moved.state, moved.until) == (State.COOLING, LATER + timedelta(seconds=30))
    assert await ledger.read(created.address) == moved


async def test_a_move_of_an_outdated_record_is_a_conflict_and_changes_nothing(ledger: Ledger) -> None:
    created = await ledger.create(fresh())
    assert created is not None
    newer = await ledger.replace(rebound(created, values.holder(POD, container="c2")))
    with pytest.raises(errors.Conflict):
        await ledger.replace(released(created, LATER))
    with pytest.raises(errors.Conflict):
        await ledger.delete(created)
    assert await ledger.read(created.address) == newer


async def test_a_move_never_meets_a_successor_of_the_object(ledger: Ledger) -> None:
    created = await ledger.create(fresh())
    assert created is not None
    await ledger.delete(created)
    successor = await ledger.create(fresh())
    with pytest.raises(errors.Conflict):
        await ledger.replace(released(created, LATER))
    with pytest.raises(errors.Conflict):
        await ledger.delete(created)
    assert await ledger.read(created.address) == successor


async def test_deleting_what_is_gone_is_silent(ledger: Ledger) -> None:
    created = await ledger.create(fresh())
    assert created is not None
    await ledger.delete(created)
    await ledger.delete(created)
    assert await ledger.read(created.address) is None


async def test_moving_what_is_gone_is_a_conflict(ledger: Ledger) -> None:
    created = await ledger.create(fresh())
    assert created is not None
    await ledger.delete(created)
    with pytest.raises(errors.Conflict):
        await ledger.replace(retained(replace(created, slot=values.slot(0)), LATER))


async def test_records_are_found_by_pool_by_uid_and_all_together(ledger: Ledger) -> None:
    other = values.holder(values.pod("cart-2", "u2"))
    first = await ledger.create(fresh())
    second = await ledger.create(fresh("10.20.0.11", pool="b", holder=other))
    assert first is not None
    assert second is not None
    assert list(await ledger.in_pool("a")) == [first.entry]
    assert list(ledger.own("u1")) == [first]
    assert list(ledger.of_container("c1")) == [first, second]
    assert set(await ledger.everything()) == {first.entry, second.entry}


@pytest.mark.parametrize("of", [values.stateful_pod, values.launcher], ids=["StatefulSet", "virtual machine"])
async def test_records_are_found_by_their_slot(ledger: Ledger, of: Callable[[], Pod]) -> None:
    pod = of()
    assert pod.slot is not None
    others = [
        replace(pod.slot, name="other"),
        replace(pod.slot, namespace="other"),
        replace(pod.slot, api_version="apps.kruise.io/v1"),
        None,
    ]
    for number, slot in enumerate(others, start=11):
        holder = replace(values.holder(pod), namespace=slot.namespace if slot else "shop")
        assert await ledger.create(fresh(f"10.20.0.{number}", holder=holder, slot=slot))
    first = await ledger.create(fresh(holder=values.holder(pod), slot=pod.slot))
    assert list(await ledger.of_slot(pod.slot)) == [first]


class LosesAnswers:
    """The API server behind a network that loses the answer of one write, after its commit."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def create(self, *args: Any) -> Any:
        return self._lose(await self._client.create(*args))

    async def patch(self, *args: Any) -> Any:
        return self._lose(await self._client.patch(*args))

    def _lose(self, answer: Any) -> Any:
        if self._lost:
            return answer
        self._lost = True
        raise Unreachable("connection reset")


async def test_a_write_whose_answer_was_lost_is_recognised_as_ones_own_and_known_at_once(kube: KubeClient) -> None:
    def ledger() -> KubeLedger:
        client = cast("KubeClient", LosesAnswers(kube))
        index = Cache(kube, SPIDER_IP_ADDRESSES, clock=SystemClock())
        return KubeLedger(client, index, clock=SystemClock(), rng=random.Random(7))  # noqa: S311

    first = ledger()
    created = await first.create(fresh())
    assert created is not None
    assert list(first.own("u1")) == [created]
    second = ledger()
    moved = await second.replace(rebound(created, values.holder(POD, container="c2")))
    assert list(second.own("u1")) == [moved]
    assert await first.read(created.address) == moved


async def test_a_lost_answer_does_not_make_somebody_elses_record_ones_own(kube: KubeClient) -> None:
    index = Cache(kube, SPIDER_IP_ADDRESSES, clock=SystemClock())
    ledger = KubeLedger(kube, index, clock=SystemClock(), rng=random.Random(7))  # noqa: S311
    assert await ledger.create(fresh(holder=values.holder(values.pod("other", "other")))) is not None
    lossy = KubeLedger(
        cast("KubeClient", LosesAnswers(kube)),
        index,
        clock=SystemClock(),
        rng=random.Random(7),  # noqa: S311
    )
    assert await lossy.create(fresh()) is None


async def test_an_object_that_cannot_be_read_blocks_its_address_and_nothing_else(kube: KubeClient) -> None:
    index = Cache(kube, SPIDER_IP_ADDRESSES, clock=SystemClock())
    ledger = KubeLedger(kube, index, clock=SystemClock(), rng=random.Random(7))  # noqa: S311
    created = await ledger.create(fresh())
    assert created is not None
    raw = await kube.get(SPIDER_IP_ADDRESSES, "10.20.0.10")
    raw["spec"]["state"] = "OfTheFuture"
    record = decode_record(raw)
    assert (record.address, record.pool, record.state, record.holder) == (created.address, "a", State.CONFLICT, None)


async def test_a_fence_is_asked_before_each_write_and_keeps_it_from_leaving(kube: KubeClient) -> None:
    def fence() -> None:
        raise errors.Unavailable("this replica does not lead any more")

    clock, rng = SystemClock(), random.Random(7)  # noqa: S311
    index = Cache(kube, SPIDER_IP_ADDRESSES, clock=clock)
    ledger = KubeLedger(kube, index, clock=clock, rng=rng)
    fenced = KubeLedger(kube, index, clock=clock, rng=rng, fence=fence)
    record = await ledger.create(fresh())
    assert record is not None
    for write in (fenced.create(fresh("10.20.0.11")), fenced.replace(released(record, LATER)), fenced.delete(record)):
        with pytest.raises(errors.Unavailable):
            await write
    assert await ledger.read(record.address) == record
    assert await ledger.read(parse_address("10.20.0.11")) is None

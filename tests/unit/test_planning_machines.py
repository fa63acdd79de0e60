"""Who gets a virtual machine's addresses while other pods of the machine may still run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from allocator.domain import errors
from allocator.domain.basis import Basis
from allocator.domain.planning import MIGRATION_ANNOTATION, Plan, Snapshot, plan
from allocator.domain.record import State
from allocator.domain.request import Owner
from tests.unit import values

if TYPE_CHECKING:
    from allocator.domain.record import Record
    from allocator.domain.request import Pod

POOLS = {name: values.pool(name, f"10.20.0.{start}-10.20.0.{start + 9}") for name, start in (("a", 10), ("b", 20))}
IN_A, IN_B = ({"ipam.spidernet.io/ippool": f'{{"ipv4": ["{name}"]}}'} for name in "ab")
MIGRATES = {MIGRATION_ANNOTATION: "m1"}

SOURCE = values.launcher("aaaaa", "u1", annotations=IN_A)
TARGET = values.launcher("bbbbb", "u2", node="n2", annotations=IN_A | MIGRATES)
THIRD = values.launcher("ccccc", "u3", annotations=IN_A | MIGRATES)
ALONE = values.record("10.20.0.10", SOURCE)
PAIR = values.record("10.20.0.10", TARGET, peer=values.holder(SOURCE))


def planned(pod: Pod, *records: Record, running: tuple[Pod, ...] = ()) -> Plan:
    seen = Snapshot(
        pod=pod,
        running={each.uid: each for each in running},
        around=values.NOWHERE,
        basis=Basis(POOLS, ()),
        records=records,
        versions=frozenset({4, 6}),
        now=values.NOON,
    )
    return plan(values.request(pod), seen)


def parties(decided: Plan) -> list[str]:
    """The pods, the holder first, that have the one address which the plan moves."""
    (move,) = decided.moves
    assert (decided.wants, decided.drops, move.after.state) == ((), (), State.HELD)
    return [party.pod_uid for party in move.after.parties]


@pytest.mark.parametrize("record", [ALONE, replace(ALONE, state=State.RETAINED), PAIR])
def test_a_successor_has_the_address_alone_when_nobody_else_may_run(record: Record) -> None:
    assert parties(planned(replace(THIRD, annotations=IN_A), record)) == ["u3"]


@pytest.mark.parametrize("record", [ALONE, replace(ALONE, state=State.RETAINED)])
def test_the_target_of_a_migration_shares_the_address_with_its_source(record: Record) -> None:
    assert parties(planned(TARGET, record, running=(SOURCE,))) == ["u2", "u1"]


def test_a_pod_that_shares_the_address_already_may_ask_again() -> None:
    assert parties(planned(SOURCE, PAIR, running=(TARGET,))) == ["u1", "u2"]
    assert planned(TARGET, PAIR, running=(SOURCE,)).kept == (PAIR,)


def test_the_next_migration_shares_with_whoever_of_the_last_one_runs() -> None:
    assert parties(planned(THIRD, PAIR, running=(TARGET,))) == ["u3", "u2"]


@pytest.mark.parametrize(
    ("pod", "record", "running"),
    [
        pytest.param(replace(TARGET, annotations=IN_A), ALONE, (SOURCE,), id="no migration"),
        pytest.param(
            replace(TARGET, controller=Owner("kubevirt.io/v1", "VirtualMachineInstance", "ledger", "i2")),
            ALONE,
            (SOURCE,),
            id="the machine was started anew meanwhile",
        ),
        pytest.param(THIRD, PAIR, (SOURCE, TARGET), id="two have it"),
        pytest.param(replace(TARGET, annotations=IN_A), replace(ALONE, state=State.RETAINED), (SOURCE,), id="retained"),
    ],
)
def test_anybody_else_waits_for_the_end_of_the_pods_that_may_run(
    pod: Pod, record: Record, running: tuple[Pod, ...]
) -> None:
    with pytest.raises(errors.SlotInUse, match=r"10\.20\.0\.10 of VirtualMachineInstance shop/ledger"):
        planned(pod, record, running=running)


def test_an_address_of_another_pool_is_not_taken_from_the_source_that_uses_it() -> None:
    decided = planned(replace(TARGET, annotations=IN_B | MIGRATES), ALONE, running=(SOURCE,))
    assert (decided.moves, decided.drops) == ((), ())
    assert [[pool.name for pool in want.pools] for want in decided.wants] == [["b"]]

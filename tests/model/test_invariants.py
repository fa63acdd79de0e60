"""The invariants of DESIGN.md hold in whatever order things happen; and each safeguard is missed when it is away.

A failure prints the steps that led to it: pasted into a test, on `Machine()`, they play the same again.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from agent.order import Turns
from allocator import attempts, claiming
from allocator.domain.addresses import IntervalSet
from allocator.domain.pool import Edition, Reservation
from tests.model.cluster import AgentEndpoints, AgentLedger, AgentPools, AgentReservations, AgentView
from tests.model.invariants import Violation
from tests.model.machine import AFTER_A_WRITE, BEFORE_A_WRITE, ENOUGH, Machine
from tests.model.scenery import ITEMS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    from allocator.domain.endpoint import Endpoint
    from allocator.domain.record import Record
    from allocator.domain.request import Pod

STEPS = 50
EXAMPLES = 300
# Enough to miss any of the safeguards; it ends with the first violation.
EXAMPLES_WITHOUT = 1000


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of calls, most of them disturbed: their logs tell nothing and take longer than they."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    yield
    structlog.configure(**before)


def play(machine: type[Machine], examples: int, *phases: Phase) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            phases=phases,
            derandomize=True,
            deadline=None,
            report_multiple_bugs=False,
            # They judge the speed of this machine and how many steps had nothing to do.
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_invariants_hold_whatever_happens_in_whatever_order() -> None:
    play(Machine, EXAMPLES, Phase.generate, Phase.shrink)


class CachedPools(AgentPools):
    async def edition(self, name: str) -> Edition | None:
        return self._agent.pools[name].edition if name in self._agent.pools else None


class CachedReservations(AgentReservations):
    async def editions(self) -> frozenset[tuple[str, Edition]]:
        return frozenset((each.name, each.edition) for each in self._agent.reservations)


class ForgetfulLedger(AgentLedger):
    """Its index is the watch alone, without what this agent has just written."""

    def own(self, pod_uid: str) -> Sequence[Record]:
        shown = self._agent.shown.values()
        return [each for each in shown if each.holder and each.holder.pod_uid == pod_uid]


class UndoingNothing(AgentLedger):
    async def delete(self, record: Record) -> None:  # noqa: ARG002 - nothing is done with it
        return


class RashEndpoints(AgentEndpoints):
    async def write(self, endpoint: Endpoint) -> None:
        await self._write(endpoint, whoever_has_it=True)


class CachedView(AgentView):
    async def read_pod(self, namespace: str, name: str) -> Pod | None:
        return self._agent.pods.get((namespace, name)) or await super().read_pod(namespace, name)


class Disorder(Turns):
    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:  # noqa: ARG002 - nobody waits
        yield


def without(**ports: Any) -> Callable[[pytest.MonkeyPatch], type[Machine]]:
    return lambda _patch: type("Weakened", (Machine,), ports)


def patched(target: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], type[Machine]]:
    def patch(monkeypatch: pytest.MonkeyPatch) -> type[Machine]:
        monkeypatch.setattr(target, name, value)
        return Machine

    return patch


SAFEGUARDS: Mapping[str, tuple[Callable[[pytest.MonkeyPatch], type[Machine]], set[str]]] = {
    "a write names the resourceVersion that it read": (without(compares=False), {"I1/I5", "I3", "I4", "I10"}),
    "the pod is read live": (without(view_port=CachedView), {"I1/I5", "I3", "I4", "I8", "I10", "DEL"}),
    "one call at a time for each pod": (without(turns=Disorder), {"I1/I5", "I3", "I4", "I10"}),
    "a refused claim is undone": (without(ledger_port=UndoingNothing), {"I2", "I4", "I11"}),
    "an endpoint of a successor is left alone": (without(endpoints_port=RashEndpoints), {"I10"}),
}


@pytest.mark.parametrize(("weaken", "numbers"), SAFEGUARDS.values(), ids=SAFEGUARDS)
def test_a_missing_safeguard_is_noticed(
    weaken: Callable[[pytest.MonkeyPatch], type[Machine]], numbers: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Violation) as noticed:
        play(weaken(monkeypatch), EXAMPLES_WITHOUT, Phase.generate)
    assert noticed.value.number in numbers


def lands_after_the_next_try(machine: Machine) -> None:
    machine.arrive(pick=0, node="n1", wish=0, gates=BEFORE_A_WRITE)
    machine.disturb(pick=0, how="late", gates=ENOUGH)
    machine.add(pick=0, other=False, fresh=True, gates=ENOUGH)
    machine.land(pick=0)


def is_for_an_address_that_is_reserved_just_before(machine: Machine) -> None:
    machine.pass_time(node="n1", behind=True, seconds=0)
    machine.arrive(pick=0, node="n1", wish=0, gates=BEFORE_A_WRITE)
    address = machine.stage.gates[0].about
    assert address is not None
    ips = IntervalSet.addresses(4, [address])
    machine.cluster.reservations["late"] = Reservation("late", Edition("late", 1), ips)
    machine.cluster.mark()
    machine.go_on(pick=0, gates=ENOUGH)


def is_for_an_address_that_the_pool_gives_up_just_before(machine: Machine) -> None:
    machine.pass_time(node="n1", behind=True, seconds=0)
    machine.arrive(pick=0, node="n1", wish=0, gates=BEFORE_A_WRITE)
    machine.edit(name="alpha", how="ips", pick=len(ITEMS["alpha"]) - 1)
    machine.go_on(pick=0, gates=ENOUGH)


def is_not_shown_by_the_watch_yet_when_the_sandbox_is_made_anew(machine: Machine) -> None:
    machine.pass_time(node="n1", behind=True, seconds=0)
    machine.arrive(pick=0, node="n1", wish=0, gates=ENOUGH)
    machine.add(pick=0, other=False, fresh=True, gates=ENOUGH)


def is_cut_off_and_its_address_excluded(machine: Machine) -> None:
    machine.arrive(pick=0, node="n1", wish=0, gates=AFTER_A_WRITE)
    machine.disturb(pick=0, how="cut off", gates=ENOUGH)
    machine.edit(name="alpha", how="exclude", pick=1)
    machine.add(pick=0, other=False, fresh=True, gates=ENOUGH)


async def claim_something_else(*_args: object) -> None:
    return


# What the machine rarely meets by chance, step by step: what happens to a claim, and which safeguard that is for.
STORIES: Mapping[str, tuple[Callable[[Machine], None], Callable[[pytest.MonkeyPatch], type[Machine]], str]] = {
    "it lands after the next try, which is for the same address again": (
        lands_after_the_next_try,
        patched(claiming.PoolClaims, "claim_this", claim_something_else),
        "I4",
    ),
    "it is for an address that is reserved just before, and the reservations are read live": (
        is_for_an_address_that_is_reserved_just_before,
        without(reservations_port=CachedReservations),
        "I2",
    ),
    "it is for an address that the pool gives up just before, and the pool is read live": (
        is_for_an_address_that_the_pool_gives_up_just_before,
        without(pools_port=CachedPools),
        "I2",
    ),
    "the watch does not show it yet, and the agent remembers what it has written": (
        is_not_shown_by_the_watch_yet_when_the_sandbox_is_made_anew,
        without(ledger_port=ForgetfulLedger),
        "I4",
    ),
    "it is cut off and then excluded, and what was never answered is undone first": (
        is_cut_off_and_its_address_excluded,
        patched(attempts.Attempts, "open", lambda *_: []),
        "I2",
    ),
}


def tell(story: Callable[[Machine], None], machine: Machine) -> None:
    try:
        story(machine)
        machine.check()
    finally:
        machine.teardown()


@pytest.mark.parametrize(("story", "weaken", "number"), STORIES.values(), ids=STORIES)
def test_a_claim_comes_to_no_harm_and_without_its_safeguard_that_is_noticed(
    story: Callable[[Machine], None],
    weaken: Callable[[pytest.MonkeyPatch], type[Machine]],
    number: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tell(story, Machine())
    with pytest.raises(Violation) as noticed:
        tell(story, weaken(monkeypatch)())
    assert noticed.value.number == number

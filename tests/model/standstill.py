"""An event loop that stands still: whatever a call wants from the world waits at a gate until a rule opens it.

So the order in which the calls of all agents meet the API server is a list of choices, and the same choices give the
same run. A request passes two gates: at the first it travels to the API server, at the second its answer travels back.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

from allocator.domain import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from allocator.domain.addresses import Address

T = TypeVar("T")

NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
CALL: Final[ContextVar[Call]] = ContextVar("call")


class Outcome(StrEnum):
    PASSED = "passed"
    # The request does not arrive, or the answer is lost: the caller sees Unavailable either way.
    LOST = "lost"
    # The caller sees Unavailable now, and the write takes effect later.
    LATE = "late"


@dataclass(eq=False)
class Call:
    """One ADD or DEL under way. `is_faultless`: nothing that it asked the world for has failed; `was_behind`: it has
    looked into a cache that was out of date.
    """

    number: int
    node: str
    what: str
    began: int
    began_at: float
    uid: str
    is_faultless: bool = True
    was_behind: bool = False
    was_killed: bool = False
    task: asyncio.Task[Any] | None = None
    # The addresses of the records that it has claimed: (address, tick of the commit).
    claims: list[tuple[Address, int]] = field(default_factory=list)


@dataclass(eq=False)
class Gate:
    call: Call
    what: str
    passed: asyncio.Future[Outcome]
    # What happens on the API server once the request is there; None for answers and sleeps.
    effect: Callable[[], Awaitable[object]] | None = None
    about: Address | None = None
    # Whether it may take effect when its caller has given up.
    is_write: bool = False
    # Seconds on the clock before which the gate may not open: a sleep.
    due: float = 0.0


class Killed(asyncio.CancelledError):
    """The process is gone: nothing that it still does reaches anybody."""


class Standstill(asyncio.SelectorEventLoop):
    """`ready` is asyncio's own list of what can run now; an empty one means that everybody waits at a gate."""

    _ready: list[object]

    def run_until_still(self) -> None:
        while self._ready:
            self.call_soon(self.stop)
            self.run_forever()


class Stage:
    """The loop, the clock, and the gates that are shut."""

    def __init__(self) -> None:
        self.loop = Standstill()
        self.loop.set_debug(False)
        self.gates: list[Gate] = []
        self.late: list[Gate] = []
        # Every address that a node's agent asked anything about, in order.
        self.touched: list[tuple[str, Address]] = []
        self.elapsed = 0.0
        self._dead: set[Call] = set()

    def start(self, call: Call, work: Coroutine[Any, Any, Any]) -> None:
        context = copy_context()
        context.run(CALL.set, call)
        call.task = self.loop.create_task(work, name=call.what, context=context)
        self.loop.run_until_still()

    async def ask(self, what: str, effect: Callable[[], Awaitable[T]], *, about: Address | None = None) -> T:
        """Send a request, let it take effect, and bring the answer back. `about`: the address whose record it is."""
        return await self._ask(Gate(CALL.get(), what, self.loop.create_future(), effect, about), effect)

    async def write(self, what: str, effect: Callable[[], Awaitable[T]], *, about: Address) -> T:
        """As `ask`; but what it asks for may take effect after the caller has given up."""
        return await self._ask(Gate(CALL.get(), what, self.loop.create_future(), effect, about, is_write=True), effect)

    async def _ask(self, gate: Gate, effect: Callable[[], Awaitable[T]]) -> T:
        outcome = await self._wait_at(gate)
        if outcome is Outcome.LATE:
            self._may_land(gate)
        if outcome is not Outcome.PASSED:
            raise errors.Unavailable(f"{gate.what}: {outcome}")
        try:
            value = await effect()
        except errors.Conflict:
            await self._come_back(gate)
            raise
        await self._come_back(gate)
        return value

    async def _come_back(self, request: Gate) -> None:
        gate = Gate(request.call, f"answer to {request.what}", self.loop.create_future(), about=request.about)
        if await self._wait_at(gate) is not Outcome.PASSED:
            raise errors.Unavailable(f"{request.what}: the answer was lost")

    async def sleep(self, seconds: float) -> None:
        due = self.elapsed + seconds
        await self._wait_at(Gate(CALL.get(), f"sleep {seconds:.3f}", self.loop.create_future(), due=due))

    def open(self, gate: Gate, outcome: Outcome = Outcome.PASSED) -> None:
        self.elapsed = max(self.elapsed, gate.due)
        if outcome is not Outcome.PASSED and not gate.due:
            gate.call.is_faultless = False
        self.gates.remove(gate)
        gate.passed.set_result(outcome)
        self.loop.run_until_still()

    def cancel(self, call: Call, *, lands: bool, killed: bool = False) -> None:
        """The caller hangs up, or its process dies; `lands`: a write that is on its way takes effect later."""
        call.is_faultless = False
        if killed:
            self._dead.add(call)
        for gate in [gate for gate in self.gates if gate.call is call]:
            self.gates.remove(gate)
            if lands:
                self._may_land(gate)
        if call.task is not None:
            call.task.cancel()
        self.loop.run_until_still()

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.elapsed)

    def monotonic(self) -> float:
        return self.elapsed

    async def _wait_at(self, gate: Gate) -> Outcome:
        if gate.call in self._dead:
            raise Killed
        self.gates.append(gate)
        if gate.about is not None:
            self.touched.append((gate.call.node, gate.about))
        try:
            return await gate.passed
        except asyncio.CancelledError:
            if gate in self.gates:  # a sibling failed, and this one goes with it: its write may still arrive
                self.gates.remove(gate)
                self._may_land(gate)
            raise

    def _may_land(self, gate: Gate) -> None:
        if gate.is_write:
            self.late.append(gate)

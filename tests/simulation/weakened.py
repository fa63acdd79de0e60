"""The product without one of its safeguards, to see that the simulation misses it."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from agent.order import Turns
from allocator.confirming import Confirmation
from allocator.domain.record import Entry, Record, State
from allocator.kube.cluster import NodeView
from allocator.kube.election import Election
from allocator.kube.fences import no_fence
from controller import leading
from controller.mending import Mending
from controller.reclaim import Reclaim
from controller.suspects import Suspects
from controller.witness import Witness
from tests.simulation import weakened_lending
from tests.simulation.apiserver import ApiServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from allocator.domain.basis import Basis
    from allocator.domain.reclaim import Sighting
    from allocator.domain.request import Pod
    from controller.suspects import Suspect
    from tests.simulation.apiserver import Reply, Request


def _second_sighting() -> None:
    """What is seen once is dealt with at the next turn, after a live look."""
    due = Suspects.due

    def at_once(self: Suspects[Any], monotonic: float, grace_s: float) -> list[Suspect[Any]]:
        return due(self, monotonic, 0.0)

    Suspects.due = at_once  # type: ignore[method-assign]


def _soon_enough() -> None:
    """The second look comes after a minute."""
    due = Suspects.due

    def late(self: Suspects[Any], monotonic: float, grace_s: float) -> list[Suspect[Any]]:
        return due(self, monotonic, max(grace_s, 60.0))

    Suspects.due = late  # type: ignore[method-assign]


def _mending() -> None:
    """What people take from a running pod by hand is not brought back."""

    async def nothing(self: Mending, *_: object) -> None:
        return None

    Mending._make_again = nothing  # type: ignore[method-assign,assignment]  # noqa: SLF001 - nobody else does it


def _fence() -> None:
    """The lease is asked before a write, and not again before it is tried once more. Seldom seen: the unit test is
    tests/plane/test_ledger.py::test_a_fence_is_asked_before_each_write_and_keeps_it_from_leaving.
    """
    vars(leading)["leaders"] = lambda _may_act: no_fence


def _live_read() -> None:
    """The second look, and that of agents, is into the cache again."""

    class Cached(Witness):
        books: Any = None

        async def look(self, record: Record) -> Sighting:
            sighting: Sighting = self.books.sighting(record)
            return sighting

    init = Reclaim.__init__

    def with_cached(self: Reclaim, books: Any, hands: Any, *rest: Any) -> None:
        hands.witness.__class__ = Cached
        hands.witness.books = books
        init(self, books, hands, *rest)

    read = NodeView.read_pod

    async def cached_pod(self: NodeView, namespace: str, name: str) -> Pod | None:
        return self.pod(namespace, name) or await read(self, namespace, name)

    Reclaim.__init__ = with_cached  # type: ignore[method-assign,assignment]
    NodeView.read_pod = cached_pod  # type: ignore[method-assign]


def _preconditions() -> None:
    """The server forgets to compare what a write names with what is stored."""
    answer = ApiServer.answer

    def careless(self: ApiServer, request: Request, **options: Any) -> Reply:
        body = request.body
        if "/spideripaddresses/" in request.path and isinstance(body, dict):
            without = {key: body["metadata"][key] for key in body.get("metadata", {}) if key not in _NAMED}
            body = {key: value for key, value in body.items() if key != "preconditions"}
            request = replace(request, body={**body, "metadata": without} if "metadata" in body else body)
        return answer(self, request, **options)

    ApiServer.answer = careless  # type: ignore[method-assign]


_NAMED: Final = ("uid", "resourceVersion")


def _confirmation() -> None:
    """What was claimed is answered, whatever has become of its pool."""

    async def nothing(self: Confirmation, names: object, basis: Basis) -> str:
        return ""

    Confirmation.changed = nothing  # type: ignore[method-assign]


def _turns() -> None:
    """Requests of one pod run side by side."""

    @asynccontextmanager
    async def of(self: Turns, key: str) -> AsyncIterator[None]:
        yield

    Turns.of = of  # type: ignore[method-assign]


def _fencing() -> None:
    """A leader that slept goes on where it was."""

    async def never(self: Election) -> None:
        await asyncio.Event().wait()

    weaker = {"is_valid": lambda self: self._renewed_at is not None, "_wait_until_overdue": never}
    for name, method in weaker.items():
        setattr(Election, name, method)


def _patience_with_cooling() -> None:
    """Whatever cools is as good as free."""
    for kind in (Record, Entry):
        setattr(kind, "is_free", lambda self, _now: self.state is State.COOLING)  # noqa: B010 - no plain assignment does


# Each with the invariants by which its absence shows.
SAFEGUARDS: Final[dict[str, tuple[Callable[[], None], frozenset[str]]]] = {
    "second sighting": (_second_sighting, frozenset({"I1", "I5", "I8"})),
    "live read": (_live_read, frozenset({"I1", "I5", "I8"})),
    "preconditions": (_preconditions, frozenset({"I1", "I3", "I4", "I5", "I8"})),
    "confirmation": (_confirmation, frozenset({"I2"})),
    "fencing": (_fencing, frozenset({"I12"})),
    "cooling": (_patience_with_cooling, frozenset({"I9"})),
    "bounded leaks": (_soon_enough, frozenset({"L2"})),
    "mending": (_mending, frozenset({"I5"})),
    "the lease is asked before each try": (_fence, frozenset({"I12"})),
    "turns": (_turns, frozenset({"I3", "I4", "I5", "I11"})),
    **weakened_lending.SAFEGUARDS,
}


def take_away(name: str) -> None:
    """For the rest of this process."""
    if name:
        SAFEGUARDS[name][0]()

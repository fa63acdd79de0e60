"""The weather between processes and the API server: what becomes of each request and each watch, by the seed.

Each kind of fault is either absent from a seed or comes with a rate of its own, so that some seeds have a storm of one
kind and others a little of everything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from devcluster.plane.problems import Object
    from tests.simulation.apiserver import Request
    from tests.simulation.loop import Process

# Per request, unless it says otherwise.
KINDS: Final = (
    "refused",  # the connection is refused: nothing was sent
    "lost",  # the request took effect, and its answer is lost
    "late",  # it takes effect when its caller has given up
    "conflict",  # somebody else writes the same object right before
    "throttled",  # 429 with Retry-After
    "broken",  # 500 and 503, before anything happens
    "half done",  # 504, and it did happen
    "slow",  # it takes seconds
    "partial",  # of a cache's list, items are missing
    "cut watch",  # per event of a watch
    "stuck watch",  # per event: what follows comes up to a minute later
    "expired watch",  # per watch that is opened: 410
)
# What only those seeds have in which subnets lend, as well.
LENDING_KINDS: Final = (
    "adrift",  # per write of a pool or a subnet: its connection breaks at once, and it takes effect much later
    "lost event",  # per event of an application: a watch never tells it, and goes on
)
RATES: Final = (0.01, 0.03, 0.1)
STUCK_AT_MOST_S: Final = 60.0
# Longer than a client waits for an answer.
LATE_S: Final = (10.5, 25.0)
# Long enough for its author to have gone on, or for another leader to have begun.
ADRIFT_S: Final = ((0.05, 3.0), (0.05, 3.0), (3.0, 45.0))
WAYLAID_S: Final = (0.5, 12.0)
# So few writes there are of these.
_ADRIFT_TIMES: Final = 3.0
_LENDING: Final = ("/spidersubnets", "/spiderippools")
_LOSSY: Final = ("/apis/apps/v1/deployments", "/apis/batch/v1/jobs")
# What agents may find incomplete: a list of their own records that lies would give a pod a second address, and nothing
# could tell.
_PARTIAL_FOR_AGENTS: Final = ("/api/v1/pods",)


@dataclass(frozen=True, slots=True)
class Fate:
    """`there_s` until the request arrives, `back_s` until the answer does; None: never. `status` is answered in place
    of the server's own answer, before or after the request has taken effect. `breaks_s` until the connection breaks,
    whatever becomes of the request.
    """

    there_s: float | None
    back_s: float | None
    status: int = 0
    takes_effect: bool = True
    retry_after_s: int = 0
    kind: str = ""
    breaks_s: float | None = None


class Weather:
    """`fair` seeds have no faults at all. `calm` ends all faults for good."""

    def __init__(self, rng: random.Random, *, fair: bool, lends: bool) -> None:
        self._rng = rng
        self._rates = {} if fair else {kind: rng.choice(RATES) for kind in KINDS if rng.random() < 0.5}
        if lends and not fair:
            self._rates |= {kind: rng.choice(RATES) for kind in LENDING_KINDS if rng.random() < 0.7}
        self._base_s = rng.choice((0.001, 0.004, 0.02))
        # Names of processes that cannot reach the API server, nor it them.
        self.cut_off: set[str] = set()
        # Whether it refuses this request, answered within so many seconds, whatever the rates: the next one of a kind.
        self.trap: Callable[[Process, Request, float], bool] | None = None
        # Whether this request drifts, whatever the rates: the next one of a kind.
        self.waylay: Callable[[Process, Request], bool] | None = None
        self.told = 0

    def __str__(self) -> str:
        return ", ".join(f"{kind} {rate:g}" for kind, rate in self._rates.items()) or "fair"

    def calm(self) -> None:
        self._rates = {}
        self.trap = self.waylay = None
        self.cut_off.clear()

    def latency_s(self) -> float:
        return self._base_s * (0.5 + self._rng.random())

    def fate(self, process: Process, request: Request) -> Fate:
        there_s, back_s = self.latency_s(), self.latency_s()
        if process.name in self.cut_off:
            return Fate(None, there_s, kind="refused")
        if self.trap is not None and self.trap(process, request, there_s + back_s):
            self.told += 1
            return Fate(there_s, back_s, status=503, takes_effect=False, kind="broken")
        if (adrift_s := self._drifts_for(process, request)) is not None:
            self.told += 1
            return Fate(adrift_s, None, kind="adrift", breaks_s=there_s)
        if not self._rates or request.is_watch:
            return Fate(there_s, back_s)
        for kind in ("refused", "lost", "late", "conflict", "throttled", "broken", "half done", "slow"):
            rate = self._rates.get(kind)
            if rate is not None and self._rng.random() < rate:
                fate = self._fate(kind, there_s, back_s, request)
                if fate is not None:
                    self.told += 1
                    return fate
        return Fate(there_s, back_s)

    def _fate(self, kind: str, there_s: float, back_s: float, request: Request) -> Fate | None:  # noqa: PLR0911 - a table
        draw = self._rng
        if kind == "conflict" and request.method in ("GET", "POST"):
            return None
        fate = Fate(there_s, back_s, kind=kind)
        match kind:
            case "refused":
                return replace(fate, there_s=None)
            case "lost":
                # The connection breaks, or nothing more is ever heard.
                return replace(fate, back_s=draw.choice((None, back_s)), status=-1)
            case "late":
                return replace(fate, there_s=draw.uniform(*LATE_S))
            case "throttled":
                return replace(fate, status=429, takes_effect=False, retry_after_s=draw.choice((0, 1, 3)))
            case "broken":
                return replace(fate, status=draw.choice((500, 503)), takes_effect=False)
            case "half done":
                return replace(fate, status=504)
            case "slow":
                return replace(fate, there_s=draw.uniform(0.1, 4.0), back_s=draw.uniform(0.1, 4.0))
            case _:
                return fate

    def leaving_out(self, process: Process, request: Request) -> Callable[[list[Object]], list[Object]] | None:
        """What a partial list leaves out, when this one is to be partial."""
        rate = self._rates.get("partial")
        if rate is None or request.is_write or self._rng.random() >= rate * 3:
            return None
        is_cache = request.query.get("limit") and "fieldSelector" not in request.query
        if not (is_cache if process.name.startswith("controller") else request.path in _PARTIAL_FOR_AGENTS):
            return None
        draw = self._rng

        def some(objects: list[Object]) -> list[Object]:
            left = [obj for obj in objects if draw.random() < 0.5]
            self.told += len(left) < len(objects)
            return left

        return some

    def strikes(self, kind: str) -> bool:
        rate = self._rates.get(kind)
        return rate is not None and self._rng.random() < rate

    def _drifts_for(self, process: Process, request: Request) -> float | None:
        if self.waylay is not None and self.waylay(process, request):
            return self._rng.uniform(*WAYLAID_S)
        rate = self._rates.get("adrift")
        is_lending = request.is_write and any(part in request.path for part in _LENDING)
        if rate is None or not is_lending or self._rng.random() >= rate * _ADRIFT_TIMES:
            return None
        return self._rng.uniform(*self._rng.choice(ADRIFT_S))

    def loses(self, path: str) -> bool:
        """Whether a watch of this path never tells an event."""
        return path in _LOSSY and self.strikes("lost event")

    def stuck_s(self) -> float:
        """How long a watch tells nothing from now on; mostly it does not get stuck."""
        return self._rng.uniform(1.0, STUCK_AT_MOST_S) if self.strikes("stuck watch") else 0.0

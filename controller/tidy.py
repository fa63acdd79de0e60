"""What is left behind when addresses have gone back: cooled address objects, and endpoints without an address."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from allocator.domain import errors
from allocator.domain.addresses import object_name
from allocator.domain.reclaim import UNSEEN_END_DELAY, Act, Rules, cooling_time, judge, stands_for
from allocator.domain.record import REUSE_DELAY, State, quarantine_ended
from allocator.domain.request import Owner
from allocator.domain.slots import MACHINE_INSTANCE, slot_of
from allocator.kube.codec import is_unadopted
from allocator.runtime.logs import get_logger
from controller.reclaim import PARALLEL, TICK_S, Hands
from controller.suspects import Suspects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import timedelta

    from allocator.domain.record import Record, Slot
    from allocator.domain.request import Pod
    from controller.books import Books
    from controller.suspects import Suspect

_log = get_logger(__name__)

# Clocks differ: an address is not forgotten while its agent may still hold it to be cooling.
SLACK_S: Final = 1.0
# The states that end by time.
_ENDING: Final = (State.COOLING, State.QUARANTINED)
# Between the two looks at the pod of a quarantined address, where reclaim is switched off and sets no other.
GRACE_S: Final = 20.0
# After a deletion that failed, and while the pod of a quarantined address runs.
RETRY_S: Final = 5.0
QUARANTINE_RETRY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class _Ending:
    """`was_seen_gone`: the first look has found nobody who may run with a quarantined address."""

    edition: str
    at_s: float
    was_seen_gone: bool = False


class Cooled:
    """Deletes Cooling records whose time is over, and lets Quarantined ones cool when theirs is.

    How long (`until` less `since`, both from the clock of the one who released it) is measured on this process's
    monotonic clock from the moment it first saw the record, and never longer than any release of ours says: a clock
    that jumps or is wrong, here or elsewhere, neither cuts the cooling short nor locks an address away.

    A quarantine may last for days, longer than a leader: here what the clock says is left counts, if it is less.
    """

    def __init__(self, books: Books, hands: Hands, *, reuse_delay: timedelta, grace_s: float = GRACE_S) -> None:
        self._hands = hands
        self._books = books
        self._reuse_delay = reuse_delay
        self._grace_s = grace_s
        self._longest_s = max(reuse_delay, REUSE_DELAY, UNSEEN_END_DELAY).total_seconds()
        self._endings: dict[str, _Ending] = {}
        books.on_record.append(self._on_record)

    async def run(self) -> None:
        while True:
            try:
                await self.turn()
            except Exception:  # noqa: BLE001 - the border of the loop
                _log.exception("cooled_turn_failed")
            await self._hands.clock.sleep(TICK_S)

    async def turn(self) -> None:
        now = self._hands.clock.monotonic()
        due = [key for key, ending in self._endings.items() if ending.at_s <= now]
        if due and not self._hands.may_act():
            return
        for start in range(0, len(due), PARALLEL):
            async with asyncio.TaskGroup() as group:
                for key in due[start : start + PARALLEL]:
                    group.create_task(self._forget(key), name=f"forget-{key}")

    async def _forget(self, key: str) -> None:
        ending = self._endings.pop(key, None)
        record = self._books.record(key)
        if ending is None or record is None or record.state not in _ENDING:
            return
        try:
            if record.state is State.QUARANTINED:
                await self._end_quarantine(record, ending)
            elif self._hands.may_act():
                await self._hands.ledger.delete(record)
        except errors.Conflict:
            # Claimed by somebody, say: the watch will show it, or did not yet.
            _log.debug("cooled_address_changed", address=key)
        except errors.IpamError as error:
            _log.warning("cooled_address_stays", address=key, why=str(error))
            self._try_again(key, ending)
        except Exception:  # noqa: BLE001 - the border of one record, for the sake of the others
            _log.exception("cooled_address_stays", address=key)
            self._try_again(key, ending)

    async def _end_quarantine(self, record: Record, ending: _Ending) -> None:
        """Only a person puts the address of a pod in quarantine, which lasts for as long as that pod may run. As for
        any other address, the pod's end is seen twice.
        """
        key, delay = object_name(record.address), self._reuse_delay
        if record.holder is not None:
            seen = await self._hands.witness.look(replace(record, state=State.HELD))
            verdict = judge(seen, Rules(), self._hands.clock.now())
            if verdict.act in (Act.KEEP, Act.PART):
                self._try_again(key, replace(ending, was_seen_gone=False), QUARANTINE_RETRY_S)
                return
            if not ending.was_seen_gone:
                self._try_again(key, replace(ending, was_seen_gone=True), self._grace_s)
                return
            delay = cooling_time(verdict, seen.node, delay)
        after = quarantine_ended(record, self._hands.clock.now(), delay)
        self._hands.receipts.quarantine_ended(await self._hands.ledger.replace(after))

    def _try_again(self, key: str, ending: _Ending, pause_s: float = RETRY_S) -> None:
        # What the watch has shown meanwhile is newer.
        self._endings.setdefault(key, replace(ending, at_s=self._hands.clock.monotonic() + pause_s))

    def _on_record(self, old: Record | None, new: Record | None) -> None:
        if new is None or new.state not in _ENDING:
            if old is not None:
                self._endings.pop(object_name(old.address), None)
            return
        key, edition = object_name(new.address), f"{new.uid}/{new.resource_version}"
        if key in self._endings and self._endings[key].edition == edition:
            return
        self._endings[key] = _Ending(edition, self._hands.clock.monotonic() + self._lasts_s(new) + SLACK_S)

    def _lasts_s(self, record: Record) -> float:
        if record.until is None:
            return 0.0
        lasts_s = (record.until - record.since).total_seconds()
        longest_s = self._longest_s
        if record.state is State.QUARANTINED:
            longest_s = (record.until - self._hands.clock.now()).total_seconds()
        return max(0.0, min(lasts_s, longest_s))


@dataclass(frozen=True, slots=True)
class _EndpointOf:
    """`machine` is the slot of a virtual machine, whose name the endpoint has; else it has that of the pod."""

    namespace: str
    name: str
    pod_uid: str
    machine: Slot | None


class OrphanEndpoints:
    """Removes SpiderEndpoints of pods that are gone or over and hold no address, static ones too: what a slot still has
    stands in the ledger. Those that speak of a pool which the ledger has not taken over yet are the original's.
    """

    def __init__(self, books: Books, hands: Hands, *, grace_s: float, sweep_interval_s: float) -> None:
        self._books = books
        self._hands = hands
        self._grace_s = grace_s
        self._sweep_interval_s = sweep_interval_s
        self._suspects: Suspects[_EndpointOf] = Suspects()
        self._swept_at = -math.inf

    async def run(self) -> None:
        while True:
            try:
                await self.turn()
            except Exception:  # noqa: BLE001 - the border of the loop
                _log.exception("endpoints_turn_failed")
            await self._hands.clock.sleep(min(1.0, self._sweep_interval_s))

    async def turn(self) -> None:
        clock = self._hands.clock
        if clock.monotonic() - self._swept_at >= self._sweep_interval_s and not self._books.behind():
            self._swept_at = clock.monotonic()
            self._sweep()
        for suspect in self._suspects.due(clock.monotonic(), self._grace_s):
            await self._settle(suspect)

    def _sweep(self) -> None:
        clock = self._hands.clock
        orphans = {}
        for found in _ours(self._books.endpoints.items(), self._is_adopted):
            if not self._is_used(found) and not _any_stands(self._books.of_pod(found.pod_uid), found):
                orphans[f"{found.namespace}/{found.name}"] = found
        self._suspects.keep_only(orphans)
        for key, found in orphans.items():
            if self._suspects.see(key, found.pod_uid, found, now=clock.now(), monotonic=clock.monotonic()):
                _log.info("endpoint_suspected", endpoint=key, pod_uid=found.pod_uid)

    def _is_adopted(self, pool: str) -> bool:
        raw = self._books.pools.get(pool)
        return raw is None or not is_unadopted(raw)

    def _is_used(self, found: _EndpointOf) -> bool:
        if found.machine is not None:
            return self._books.is_wanted(found.machine)
        return _uses(self._books.pod(found.namespace, found.name), found)

    async def _is_used_now(self, found: _EndpointOf) -> bool:
        if found.machine is not None:
            return await self._hands.witness.is_wanted(found.machine)
        return _uses(await self._hands.witness.pod(found.namespace, found.name), found)

    async def _settle(self, suspect: Suspect[_EndpointOf]) -> None:
        self._suspects.clear(suspect.key)
        found = suspect.subject
        try:
            is_used = await self._is_used_now(found)
            records = self._books.of_pod(found.pod_uid)
            if is_used or _any_stands(records, found) or not self._hands.may_act():
                return
            await self._hands.endpoints.remove(found.namespace, found.name, found.pod_uid)
        except (errors.IpamError, errors.Conflict) as error:
            _log.warning("endpoint_not_removed", endpoint=suspect.key, why=str(error))
        except Exception:  # noqa: BLE001 - the border of one endpoint, for the sake of the others
            _log.exception("endpoint_not_removed", endpoint=suspect.key)
        else:
            self._hands.receipts.endpoint_removed(found.namespace, found.name, found.pod_uid)


def _uses(pod: Pod | None, found: _EndpointOf) -> bool:
    """Whether the endpoint's pod still runs, or may: one that has ended for good holds nothing once reclaim is done."""
    return pod is not None and pod.uid == found.pod_uid and not pod.is_over


def _any_stands(records: Iterable[Record], found: _EndpointOf) -> bool:
    return any(stands_for(record, found.pod_uid) for record in records)


def _ours(raws: Iterable[Mapping[str, Any]], is_adopted: Callable[[str], bool]) -> Iterable[_EndpointOf]:
    """All that speak of a pod, but for those with the original's records."""
    for raw in raws:
        meta, status = raw["metadata"], raw.get("status") or {}
        current, kind = status.get("current") or {}, status.get("ownerControllerType")
        if not current.get("uid") or not all(map(is_adopted, _pools_of(current))):
            continue
        namespace, name, machine = meta["namespace"], meta["name"], None
        if not meta.get("ownerReferences") and kind == MACHINE_INSTANCE[1]:
            machine = slot_of(namespace, "", Owner(*MACHINE_INSTANCE, name))
        yield _EndpointOf(namespace, name, current["uid"], machine)


def _pools_of(current: Mapping[str, Any]) -> set[str]:
    entries = current.get("ips") or ()
    return {entry[key] for entry in entries for key in ("ipv4Pool", "ipv6Pool") if entry.get(key)}

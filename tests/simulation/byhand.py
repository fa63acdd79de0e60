"""What people take by hand from pods that use it, and what is forgiven for that: the write itself, and that two pods
use an address once another one got it before it could come back. Nothing else is.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from allocator.domain.addresses import version_of
from allocator.domain.record import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.domain.addresses import Address, Version
    from allocator.domain.record import Holder, Record
    from tests.simulation.kubelet import Sandbox


@dataclass
class ByHand:
    """`told` are conflicts that the leader has told of: the UID of the pod without a record, and the address."""

    told: set[tuple[str, str]] = field(default_factory=set)
    is_at_work: bool = False
    # Who has lost which address, and has it not back.
    _lost: dict[Address, list[Holder]] = field(default_factory=dict)
    # Everybody who ever lost one: pod UID, interface, family.
    _struck: set[tuple[str, str, Version]] = field(default_factory=set)

    @contextmanager
    def taking(self) -> Iterator[None]:
        """What is written inside is a person's doing."""
        self.is_at_work = True
        try:
            yield
        finally:
            self.is_at_work = False

    def written(self, old: Record | None, new: Record | None) -> None:
        if self.is_at_work and old is not None and old.holder is not None:
            self._lost.setdefault(old.address, []).append(old.holder)
            self._struck.add((old.holder.pod_uid, old.holder.interface, version_of(old.address)))
        elif new is not None and new.state is State.HELD and new.holder is not None:
            self._strike(new.address, new.holder.pod_uid, new.holder.interface)

    def moved(self, uid: str, interface: str, address: Address) -> None:
        """The pod has been told another address instead of this one."""
        self._strike(address, uid, interface)

    def _strike(self, address: Address, uid: str, interface: str) -> None:
        left = [each for each in self._lost.get(address, ()) if (each.pod_uid, each.interface) != (uid, interface)]
        self._lost[address] = left

    def has_lost(self, uid: str, address: Address) -> bool:
        """Whether it was taken from the pod, and has not come back."""
        return any(each.pod_uid == uid for each in self._lost.get(address, ()))

    def was_taken(self, uid: str, interface: str, version: Version) -> bool:
        """Whether the interface ever lost an address: then its own ADD and the leader may both bring it one."""
        return (uid, interface, version) in self._struck

    def is_forgiven(self, sandbox: Sandbox, address: Address) -> bool:
        """Whether the sandbox uses an address without a record through no fault of ours."""
        return any(
            (each.namespace, each.pod, each.node) == (sandbox.namespace, sandbox.pod, sandbox.node)
            for each in self._lost.get(address, ())
        )

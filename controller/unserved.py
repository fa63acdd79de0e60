"""Applications that do not get what they ask for: an event for each, and a condition of the subnets that they list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from allocator.domain.applications import Application
    from allocator.kube.events import Recorder


@dataclass(frozen=True, slots=True)
class _Case:
    application: Application
    subnets: frozenset[str]
    reason: str
    why: str


class Unserved:
    """By the text of the labelled application."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._cases: dict[str, _Case] = {}
        self._touched: set[str] = set()

    def refuse(self, text: str, application: Application, subnets: Iterable[str], reason: str, why: str) -> None:
        """`reason` is the CamelCase word of the event, `why` a sentence that says what to do."""
        case = _Case(application, frozenset(subnets), reason, why)
        before = self._cases.get(text)
        if before != case:
            self._touched |= case.subnets | (before.subnets if before else frozenset())
        self._cases[text] = case
        regarding = {
            "apiVersion": application.api_version,
            "kind": application.kind,
            "metadata": {"namespace": application.namespace, "name": application.name, "uid": application.uid},
        }
        self._recorder.emit(regarding=regarding, reason=reason, message=why, type="Warning", action="LendAddresses")

    def forgive(self, text: str) -> None:
        if (case := self._cases.pop(text, None)) is not None:
            self._touched |= case.subnets

    def listing(self, subnet: str) -> list[str]:
        """Those that wait for this subnet."""
        return [text for text, case in self._cases.items() if subnet in case.subnets]

    def of(self, subnet: str) -> dict[str, str]:
        """What is said of them, by application, in words."""
        return {str(case.application): case.why for case in self._cases.values() if subnet in case.subnets}

    def touched(self) -> set[str]:
        """The subnets of which something else is said since the last call."""
        touched, self._touched = self._touched, set()
        return touched

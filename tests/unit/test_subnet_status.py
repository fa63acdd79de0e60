"""What a SpiderSubnet's status says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain.addresses import IntervalSet
from allocator.domain.lending import Loan
from allocator.domain.subnet_status import CONDITIONS, SubnetStatus, subnet_status
from tests.unit.values import NOON

if TYPE_CHECKING:
    from allocator.domain.conditions import Condition

OFFERED = IntervalSet.parse(4, ["10.20.2.1-10.20.2.20"])
LOANS = {
    "auto4-cart-eth0-8a1f3": Loan(IntervalSet.parse(4, ["10.20.2.1-10.20.2.3"]), "apps_v1_Deployment_shop_cart"),
    "hand": Loan(IntervalSet.parse(4, ["10.20.2.18-10.20.2.20"])),
}
FREE = IntervalSet.parse(4, ["10.20.2.4-10.20.2.17"])


def status(offered: IntervalSet = OFFERED, free: IntervalSet = FREE, **changes: Any) -> SubnetStatus:
    surroundings: dict[str, Any] = {
        "generation": 3,
        "is_terminating": False,
        "overlap": None,
        "unserved": {},
        "before": (),
        "now": NOON,
    }
    return subnet_status(offered, free, changes.pop("accounts", LOANS), **surroundings | changes)


def condition(found: SubnetStatus, kind: str) -> Condition:
    return next(each for each in found.conditions if each.type == kind)


def test_it_counts_what_it_has_what_pools_have_and_what_is_free() -> None:
    found = status()
    assert (found.total, found.allocated, found.free, found.observed_generation) == (20, 6, 14, 3)


def test_the_accounts_are_the_originals_text() -> None:
    assert status().accounts == (
        '{"auto4-cart-eth0-8a1f3":{"ips":["10.20.2.1-10.20.2.3"],"application":"apps_v1_Deployment_shop_cart"},'
        '"hand":{"ips":["10.20.2.18-10.20.2.20"]}}'
    )


def test_without_pools_there_is_no_text() -> None:
    assert status(accounts={}).accounts is None


def test_more_than_a_number_holds_is_shown_as_the_most_that_it_holds() -> None:
    large = IntervalSet.parse(6, ["fd00::-fd00:ffff::"])
    shown = status(large, large, accounts={"hand": Loan(large)})
    assert (shown.total, shown.allocated, shown.free) == (2**63 - 1, 2**63 - 1, 2**63 - 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({}, ("True", "Lending"), id="lends"),
        pytest.param({"is_terminating": True}, ("False", "Terminating"), id="is being deleted"),
        pytest.param({"offered": IntervalSet(4), "free": IntervalSet(4)}, ("False", "NoAddress"), id="has nothing"),
    ],
)
def test_it_is_ready_while_it_lends(changes: dict[str, Any], said: tuple[str, str]) -> None:
    found = condition(status(**changes), "Ready")
    assert (found.status, found.reason) == said


@pytest.mark.parametrize(
    ("free", "nearly", "quite"),
    [
        pytest.param(["10.20.2.1-10.20.2.3"], "False", "False", id="three of twenty"),
        pytest.param(["10.20.2.1-10.20.2.2"], "True", "False", id="two of twenty"),
        pytest.param([], "True", "True", id="nothing"),
    ],
)
def test_it_is_nearly_exhausted_at_a_tenth(free: list[str], nearly: str, quite: str) -> None:
    found = status(free=IntervalSet.parse(4, free))
    assert (condition(found, "NearlyExhausted").status, condition(found, "Exhausted").status) == (nearly, quite)
    assert condition(found, "Exhausted").message.startswith(f"{IntervalSet.parse(4, free).size} of 20 addresses")


def test_it_names_the_applications_that_wait_and_why() -> None:
    found = condition(
        status(unserved={"Deployment shop/cart": "no room", "Pod shop/a": "no sense"}), "ApplicationsUnserved"
    )
    assert (found.status, found.reason) == ("True", "ApplicationsWait")
    assert found.message == "Deployment shop/cart: no room, Pod shop/a: no sense"


def test_of_many_that_wait_it_names_five() -> None:
    waiting = {f"Pod shop/p{nth}": "no room" for nth in range(8)}
    assert condition(status(unserved=waiting), "ApplicationsUnserved").message.endswith(
        "Pod shop/p4: no room and 3 more"
    )


def test_with_nobody_waiting_it_says_so() -> None:
    assert condition(status(), "ApplicationsUnserved").status == "False"


def test_every_condition_is_one_of_those_that_are_ours() -> None:
    assert {each.type for each in status().conditions} <= CONDITIONS


def test_equal_input_gives_an_equal_status_later_too() -> None:
    first = status()
    assert status(before=first.conditions, now=NOON + timedelta(hours=1)) == first


def test_a_condition_that_changes_has_another_time_and_the_others_keep_theirs() -> None:
    first, later = status(), NOON + timedelta(hours=1)
    second = status(free=IntervalSet(4), before=first.conditions, now=later)
    times = {each.type: each.since for each in second.conditions}
    assert times == {"Ready": NOON, "Exhausted": later, "NearlyExhausted": later, "ApplicationsUnserved": NOON}
    assert replace(second, conditions=()) == replace(first, conditions=(), free=0)

"""What an edit or a deletion would take from those who use it, and the annotation that forces it."""

from __future__ import annotations

import json
from ipaddress import ip_address
from typing import Any

import pytest

from allocator.domain import overlap, usage
from allocator.domain.addresses import IntervalSet
from allocator.domain.usage import User

SUBNET = "10.20.0.0/16"


def pool(*ips: str, name: str = "rack7", exclude: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    spec = {"subnet": SUBNET, "ipVersion": 4, "ips": list(ips), "excludeIPs": list(exclude)}
    return {"kind": "SpiderIPPool", "metadata": {"name": name}, "spec": spec, **more}


def subnet(*ips: str, lent: dict[str, Any] | None = None) -> dict[str, Any]:
    status = {"controlledIPPools": json.dumps(lent or {})}
    return {**pool(*ips, name="dc1"), "kind": "SpiderSubnet", "status": status}


def users(*addresses: str) -> list[User]:
    return [User(ip_address(address), f"pod shop/{address}") for address in addresses]


def stranded(old: dict[str, Any], new: dict[str, Any], *addresses: str) -> list[str]:
    gone = usage.taken_away(old, new)
    problems = usage.stranded(gone, users(*addresses)) if gone else []
    assert all((problem.type, problem.field) == ("Forbidden", "spec.ips") for problem in problems)
    return [problem.message for problem in problems]


OLD = pool("10.20.0.10-10.20.0.20")


@pytest.mark.parametrize(
    "new",
    [
        pytest.param(pool("10.20.0.12-10.20.0.20"), id="shrunk"),
        pytest.param(pool("10.20.0.10-10.20.0.20", exclude=("10.20.0.11",)), id="excluded"),
        pytest.param(pool(), id="emptied"),
    ],
)
def test_an_address_in_use_may_not_be_taken_away(new: dict[str, Any]) -> None:
    [message] = stranded(OLD, new, "10.20.0.11")
    assert message.startswith("in use: 10.20.0.11 (pod shop/10.20.0.11); keep them in ips, or delete the pods first")
    assert 'ipam.spidernet.io/force-in-use: "true"' in message


def test_many_users_are_counted_not_listed() -> None:
    [message] = stranded(OLD, pool(), *(f"10.20.0.{n}" for n in range(17, 9, -1)))
    assert "in use: 10.20.0.10 (pod" in message
    assert "10.20.0.14 (pod shop/10.20.0.14) and 3 more" in message


@pytest.mark.parametrize(
    "new",
    [
        pytest.param(pool("10.20.0.10-10.20.0.20", "10.20.0.40"), id="grown"),
        pytest.param(pool("10.20.0.10-10.20.0.18"), id="shrunk elsewhere"),
        pytest.param(pool("10.20.0.10-10.20.0.20"), id="unchanged"),
    ],
)
def test_what_is_in_use_outside_what_the_change_takes_is_no_reason_to_refuse(new: dict[str, Any]) -> None:
    assert stranded(OLD, new, "10.20.0.12", "10.20.9.9") == []


@pytest.mark.parametrize(
    "new",
    [
        pytest.param({"spec": {"subnet": "nonsense"}}, id="no subnet"),
        pytest.param(pool("10.20.0.x"), id="no address"),
        pytest.param({"spec": {"subnet": "fd00::/64", "ips": []}}, id="another family"),
    ],
)
def test_what_cannot_be_read_takes_nothing_away(new: dict[str, Any]) -> None:
    assert usage.taken_away(OLD, new) is None


def test_the_deletion_of_a_pool_names_the_first_five_and_how_many() -> None:
    assert usage.why_not_deleted([]) == ""
    assert usage.why_not_deleted(users("10.20.0.1")).startswith("1 of its addresses is in use: 10.20.0.1 (pod shop/")
    many = usage.why_not_deleted(users(*(f"10.20.0.{n}" for n in range(1, 9))))
    assert many.startswith("8 of its addresses are in use: 10.20.0.1 (")
    assert " and 3 more; delete the pods first" in many


def test_the_originals_text_counts_where_there_are_no_address_objects() -> None:
    text = json.dumps({"10.20.0.11": {"pod": "shop/cart-0", "podUid": "u"}, "10.20.0.12": None, "x": {}, "fd00::1": {}})
    found = usage.users_of_status(pool(status={"allocatedIPs": text}), 4)
    assert list(map(str, found)) == ["10.20.0.11 (pod shop/cart-0)", "10.20.0.12 (nobody knows who)"]


@pytest.mark.parametrize("text", ["{broken", "[]", "[" * 100_000, None, 7])
def test_a_broken_status_says_nothing(text: Any) -> None:
    assert usage.users_of_status(pool(status={"allocatedIPs": text}), 4) == []


def lent_by(raw: dict[str, Any], *pools: dict[str, Any]) -> dict[str, list[str]]:
    extent = overlap.extent_of(raw)
    assert extent is not None
    extents = [found for each in pools if (found := overlap.extent_of(each)) is not None]
    return {name: ranges.texts() for name, ranges in usage.lent_by(extent, raw["status"], extents).items()}


def test_a_subnet_has_lent_what_its_accounts_and_its_pools_say() -> None:
    accounts = {"auto": {"ips": ["10.20.0.10-10.20.0.19"]}, "none": {"ips": None}}
    raw = subnet("10.20.0.12-10.20.0.99", lent=accounts)
    by_hand = pool("10.20.0.30", "10.21.0.1", name="by-hand")
    other = {**pool("10.20.0.31", name="other"), "spec": {"subnet": "10.20.0.0/24", "ips": ["10.20.0.31"]}}
    # .10 and .11 are not the subnet's.
    assert lent_by(raw, by_hand, other) == {"auto": ["10.20.0.12-10.20.0.19"], "none": [], "by-hand": ["10.20.0.30"]}


@pytest.mark.parametrize(
    "entry", [{"ips": ["x"]}, {"ips": [5]}, {"ips": [[]]}, {"ips": 5}, {"ips": {"a": 1}}, [], 7, None]
)
def test_broken_accounts_say_that_nothing_is_lent(entry: Any) -> None:
    assert lent_by(subnet("10.20.0.12-10.20.0.99", lent={"broken": entry})) == {"broken": []}


def test_a_range_that_a_pool_has_may_not_be_taken_from_the_subnet() -> None:
    gone = usage.taken_away(subnet("10.20.0.12-10.20.0.99"), subnet("10.20.0.15-10.20.0.99"))
    assert gone is not None
    lent = {"rack7": IntervalSet.parse(4, ["10.20.0.14-10.20.0.20"]), "rack8": IntervalSet.parse(4, ["10.20.0.30"])}
    [problem] = usage.taken_from_pools(gone, lent)
    assert problem.message.startswith('lent to SpiderIPPool "rack7": 10.20.0.14; take them out of the pool first')


def test_a_subnet_is_not_deleted_under_pools_that_people_made_or_under_pods_of_automatic_ones() -> None:
    nothing, some = IntervalSet(4), IntervalSet.parse(4, ["10.20.0.14"])
    assert usage.why_no_subnet_deleted({"empty": nothing}, []) == ""
    assert usage.why_no_subnet_deleted({"b": some, "a": some}, []).startswith(
        "2 SpiderIPPools have addresses of it: a, b; delete these pools first, or force it"
    )
    assert usage.why_no_subnet_deleted({}, users("10.20.0.1")).startswith(
        "1 address of its automatic pools is in use: 10.20.0.1 (pod shop/10.20.0.1); delete these pods first, or force"
    )
    both = usage.why_no_subnet_deleted({"a": some}, users("10.20.0.2", "10.20.0.1"))
    assert "1 SpiderIPPool has addresses of it: a, and 2 addresses of its automatic pools are in use: 10.20.0.1" in both
    assert "delete these pools and pods first" in both


def test_an_automatic_pool_takes_any_part_of_what_its_subnet_lends_it_and_no_more() -> None:
    status = {"controlledIPPools": json.dumps({"rack7": {"ips": ["10.20.0.1-10.20.0.3"]}})}
    for ips in (["10.20.0.1-10.20.0.3"], ["10.20.0.2"], []):
        assert usage.beside_the_accounts(extent(*ips), status) == []
    (problem,) = usage.beside_the_accounts(extent("10.20.0.3-10.20.0.4"), status)
    assert "10.20.0.4 is not lent to it by its SpiderSubnet, which lends it 10.20.0.1-10.20.0.3" in problem.message
    assert "annotation ipam.spidernet.io/ippool-ip-number" in problem.message
    (problem,) = usage.beside_the_accounts(extent("10.20.0.4"), {})
    assert "which lends it nothing" in problem.message


def extent(*ips: str, name: str = "rack7") -> overlap.Extent:
    found = overlap.extent_of(pool(*ips, name=name))
    assert found is not None
    return found


def test_what_is_lent_to_an_automatic_pool_is_not_for_others_whatever_it_offers_now() -> None:
    entries = {
        "auto4-a": {"ips": ["10.20.0.1-10.20.0.3"], "application": "apps_v1_Deployment_shop_a"},
        "auto4-b": {"ips": ["10.20.0.9"], "application": "apps_v1_Deployment_shop_b"},
        "by-hand": {"ips": ["10.20.0.4"]},
        "broken": 7,
    }
    lent = usage.lent_to_others(extent("10.20.0.2-10.20.0.8"), {"controlledIPPools": json.dumps(entries)})
    assert {name: ranges.texts() for name, ranges in lent.items()} == {"auto4-a": ["10.20.0.2-10.20.0.3"]}
    (problem,) = usage.taken_from_applications(lent | {"none": IntervalSet(4)})
    assert (problem.type, problem.field) == ("Forbidden", "spec.ips")
    assert problem.message.startswith('10.20.0.2-10.20.0.3 is lent to SpiderIPPool "auto4-a", which belongs to an app')


def test_a_pool_may_have_what_was_lent_to_it_before_it_was_in_the_hands_of_people() -> None:
    status = {"controlledIPPools": json.dumps({"rack7": {"ips": ["10.20.0.1"], "application": "v1_Pod_shop_one"}})}
    assert usage.lent_to_others(extent("10.20.0.1"), status) == {}


def reserved(*ips: str, version: Any = 4) -> dict[str, Any]:
    return {"spec": {"ipVersion": version, "ips": list(ips)}}


def test_only_what_is_newly_reserved_is_asked_about() -> None:
    added = usage.newly_reserved(reserved("10.20.0.1"), reserved("10.20.0.1-10.20.0.3"))
    assert added is not None
    assert added.texts() == ["10.20.0.2-10.20.0.3"]
    assert usage.newly_reserved({}, reserved("10.20.0.1")) == IntervalSet.parse(4, ["10.20.0.1"])
    assert usage.newly_reserved({}, reserved("10.20.0.1", version=True)) is None


@pytest.mark.parametrize(("value", "forced"), [("true", True), ("True", False), ("", False), (None, False), (1, False)])
def test_only_true_forces(value: Any, forced: bool) -> None:  # noqa: FBT001 - a column of the table
    assert usage.is_forced({"metadata": {"annotations": {usage.FORCE: value}}}) is forced
    assert not usage.is_forced({"metadata": {"annotations": None}})

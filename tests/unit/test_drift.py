"""How a pool stands to the gateway and the routes of its SpiderSubnet."""

from __future__ import annotations

from typing import Any

import pytest

from allocator.domain import drift

ROUTE = {"dst": "10.99.0.0/16", "gw": "10.20.0.254"}
OTHER = {"dst": "10.98.0.0/16", "gw": "10.20.0.254"}
SIX = {"subnet": "fd00:7::/64", "gateway": "fd00:7::1", "routes": [{"dst": "fd00:8::/64", "gw": "fd00:7::fe"}]}


def subnet(name: str = "dc1", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"subnet": "10.20.0.0/16", **spec}}


def pool(*, owner: str = "dc1", follow: str = "", **spec: Any) -> dict[str, Any]:
    annotations = {drift.FOLLOW: follow} if follow else {}
    labels = {"ipam.spidernet.io/owner-spider-subnet": owner}
    metadata = {"name": "p", "labels": labels, "annotations": annotations}
    return {"metadata": metadata, "spec": {"subnet": "10.20.0.0/16", **spec}}


DC1 = subnet(gateway="10.20.0.1", routes=[ROUTE, OTHER])


@pytest.mark.parametrize(
    ("spec", "offered"),
    [
        pytest.param({"gateway": "10.20.0.1", "routes": [ROUTE, OTHER]}, DC1["spec"], id="all as there"),
        pytest.param({"gateway": "10.20.0.1", "routes": [OTHER, ROUTE]}, DC1["spec"], id="routes in another order"),
        pytest.param({"gateway": "10.20.0.9", "routes": [ROUTE]}, {"routes": []}, id="the subnet sets neither"),
        pytest.param(
            {"gateway": "fd00:7:0::0001", "routes": [{"dst": "FD00:8:0::/64", "gw": "fd00:7:0::fe"}]},
            SIX,
            id="another spelling",
        ),
    ],
)
def test_a_pool_does_not_drift(spec: dict[str, Any], offered: dict[str, Any]) -> None:
    mine, its = pool(**spec), subnet(**{key: value for key, value in offered.items() if key != "subnet"})
    assert drift.taken_over(mine, its) == {}
    assert drift.finding(mine, its)[:2] == (False, "AsSubnet")


@pytest.mark.parametrize(
    ("spec", "changes"),
    [
        pytest.param({"gateway": "10.20.0.2", "routes": [ROUTE, OTHER]}, {"gateway": "10.20.0.1"}, id="gateway"),
        pytest.param({"routes": [ROUTE, OTHER]}, {"gateway": "10.20.0.1"}, id="no gateway"),
        pytest.param({"gateway": "10.20.0.1", "routes": [ROUTE]}, {"routes": [ROUTE, OTHER]}, id="routes"),
        pytest.param({"gateway": "10.20.0.1", "routes": []}, {"routes": [ROUTE, OTHER]}, id="no routes, on purpose"),
        pytest.param({"gateway": "10.20.0.1", "routes": ["odd"]}, {"routes": [ROUTE, OTHER]}, id="odd routes"),
        pytest.param({}, {"gateway": "10.20.0.1", "routes": [ROUTE, OTHER]}, id="both"),
    ],
)
def test_what_differs_is_what_would_be_taken_over(spec: dict[str, Any], changes: dict[str, Any]) -> None:
    assert drift.taken_over(pool(**spec), DC1) == changes
    assert drift.finding(pool(**spec), DC1)[0]


def test_the_finding_says_what_differs_that_it_may_and_how_to_take_over() -> None:
    _, reason, message = drift.finding(pool(gateway="10.20.0.2", routes=[]), DC1)
    assert reason == "DiffersFromSubnet"
    assert message == (
        "SpiderSubnet dc1 has gateway 10.20.0.1 and routes 10.99.0.0/16 via 10.20.0.254, 10.98.0.0/16 via 10.20.0.254, "
        "this pool gateway 10.20.0.2 and routes none. A pool may have its own; the annotation "
        'ipam.spidernet.io/follow-subnet: "true" on the pool takes it over, now and whenever the subnet changes: '
        "pods that run keep what they got, only new ones get it"
    )


def test_a_pool_that_follows_says_so_or_why_it_cannot() -> None:
    following = pool(gateway="10.20.0.2", routes=[ROUTE, OTHER], follow="true")
    assert drift.finding(following, DC1)[1] == "Following"
    holds, reason, message = drift.finding(following, DC1, "spec.ips contains the gateway")
    assert (holds, reason) == (True, "CannotFollow")
    assert message.endswith("because the API server refuses it: spec.ips contains the gateway")


@pytest.mark.parametrize(("text", "does"), [("true", True), ("True", False), ("false", False), ("", False)])
def test_only_true_follows(text: str, *, does: bool) -> None:
    assert drift.follows(pool(follow=text)) is does


@pytest.mark.parametrize(
    ("mine", "its", "is_its"),
    [
        pytest.param(pool(), DC1, True, id="label and network"),
        pytest.param(pool(owner="dc2"), DC1, False, id="the label of another one"),
        pytest.param(pool(subnet="10.21.0.0/16"), DC1, False, id="another network"),
        pytest.param(pool(subnet="fd00:7:0::/64"), subnet(subnet="fd00:7::/64"), True, id="another spelling"),
        pytest.param({"metadata": {}, "spec": {"subnet": "10.20.0.0/16"}}, DC1, False, id="no label"),
        pytest.param(
            pool(owner=f"{'a' * 52}-2816597888"), subnet("a" * 100), True, id="a name that is cut in the label"
        ),
    ],
)
def test_a_pool_is_of_the_subnet_whose_label_and_network_it_has(
    mine: dict[str, Any], its: dict[str, Any], *, is_its: bool
) -> None:
    assert drift.is_of(mine, its) is is_its

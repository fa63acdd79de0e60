"""What an ADD makes of the pools of its application: whose they are, and when it has to wait for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain import errors
from allocator.domain.addresses import IntervalSet
from allocator.domain.applications import Application
from allocator.domain.basis import Basis
from allocator.domain.planning import Snapshot, plan
from allocator.domain.pool import Edition
from tests.unit import values
from tests.unit.test_subnet_pools import EARLIER, ON, PREFIX, asks
from tests.unit.values import CART, automatic, by_name

if TYPE_CHECKING:
    from allocator.domain.planning import Plan
    from allocator.domain.pool import Pool
    from allocator.domain.record import Record
    from allocator.domain.request import Pod
    from allocator.domain.subnet_pools import SubnetRules


def planned(pod: Pod, *pools: Pool, records: tuple[Record, ...] = (), rules: SubnetRules = ON) -> Plan:
    seen = Snapshot(
        pod=pod,
        around=replace(values.NOWHERE, subnet_rules=rules),
        basis=Basis(by_name(*pools), ()),
        records=records,
        versions=frozenset({4, 6}),
        now=values.NOON,
    )
    return plan(values.request(pod), seen)


POD = values.pod(annotations=asks(subnet={"ipv4": ["s4"]}))
GOING = Edition("u", 2, terminating=True)


def test_the_labels_of_the_pod_do_not_matter_to_a_pool_of_its_application() -> None:
    (want,) = planned(POD, automatic("auto4-a", "10.20.0.10")).wants
    assert [pool.name for pool in want.pools] == ["auto4-a"]


@pytest.mark.parametrize(
    ("pools", "why"),
    [
        pytest.param([], "none is made", id="none"),
        pytest.param([automatic("auto4-a")], "auto4-a: spec.ips is empty", id="an empty one"),
        pytest.param(
            [automatic("auto4-a", "10.20.0.10", edition=GOING)],
            "auto4-a: the pool is being deleted",
            id="one that goes",
        ),
        pytest.param(
            [automatic("auto4-a", "10.20.0.10", disabled=True), automatic("auto4-b")],
            "auto4-a: the pool is disabled (spec.disable); auto4-b: spec.ips is empty",
            id="an empty one beside one that does not serve",
        ),
    ],
)
def test_a_pool_that_is_to_come_is_told_with_the_application_and_where_to_look(pools: list[Pool], why: str) -> None:
    with pytest.raises(errors.PoolPending) as refusal:
        planned(POD, *pools)
    assert str(refusal.value) == (
        f"eth0 of Deployment shop/cart has no IPv4 pool with addresses of SpiderSubnet s4 yet ({why}). What holds it "
        "up is told by the events of Deployment shop/cart and by the conditions of the subnet: kubectl describe ss s4"
    )
    assert (refusal.value.application, refusal.value.subnets) == (CART, {4: ("s4",)})


def test_both_families_are_waited_for_together() -> None:
    pod = values.pod(annotations=asks(subnet={"ipv4": ["s4"], "ipv6": ["s6", "t6"]}))
    with pytest.raises(errors.PoolPending, match=r"no IPv4 pool .*; no IPv6 pool .* ss s4 s6 t6$") as refusal:
        planned(pod)
    assert refusal.value.subnets == {4: ("s4",), 6: ("s6", "t6")}


@pytest.mark.parametrize(
    "changes",
    [
        {"disabled": True},
        {"excludes": IntervalSet.parse(4, ["10.20.0.10"])},
        {"problem": "it is no pool", "ips": IntervalSet(4)},
    ],
)
def test_a_pool_that_is_made_and_does_not_serve_is_not_waited_for(changes: dict[str, Any]) -> None:
    pool = replace(automatic("auto4-a", "10.20.0.10"), **changes)
    with pytest.raises(errors.NoPool, match=r"no IPv4 pool of the SpiderSubnets \(pod annotation\) serves eth0"):
        planned(POD, pool)


def test_a_pod_that_has_its_address_does_not_wait_for_a_pool() -> None:
    pod = replace(POD, annotations=asks(subnet={"ipv4": ["s4"], "ipv6": ["s6"]}))
    record = values.record("10.20.0.10", pod, pool="auto4-a")
    decided = planned(pod, records=(record,))
    assert (decided.kept, decided.wants) == ((record,), ())


def test_a_pod_that_has_its_address_keeps_it_where_no_pools_are_made_any_more() -> None:
    record = values.record("10.20.0.10", POD, pool="auto4-a")
    assert planned(POD, records=(record,), rules=replace(ON, makes_pools=False)).kept == (record,)


@pytest.mark.parametrize(
    ("pool", "why"),
    [
        (automatic("auto4-a", "10.20.0.10", application=replace(CART, name="pay")), "eth0 of Deployment shop/pay"),
        (automatic("auto4-a", "10.20.0.10", application=EARLIER), r"eth0 of Deployment shop/cart \(UID .*11\)"),
        (automatic("auto4-a", "10.20.0.10", interface="net1"), "net1 of Deployment shop/cart"),
    ],
)
def test_a_pool_of_others_is_not_to_be_had_by_its_name_either(pool: Pool, why: str) -> None:
    pod = values.pod(annotations=asks(ippool={"ipv4": ["auto4-a"]}), labels={f"{PREFIX}app-name": "cart"})
    with pytest.raises(errors.NoPool, match=f"auto4-a: the pool is made for {why}, and eth0 of Deployment shop/cart"):
        planned(pod, pool)


def test_a_pool_of_ones_own_may_be_named() -> None:
    pod = values.pod(annotations=asks(ippool={"ipv4": ["auto4-a"]}))
    assert len(planned(pod, automatic("auto4-a", "10.20.0.10")).wants) == 1


def test_a_stateful_pod_gives_up_what_it_had_of_the_pool_of_an_earlier_stateful_set() -> None:
    web = Application("apps/v1", "StatefulSet", "shop", "web", "s1")
    pod = values.stateful_pod(annotations=asks(subnet={"ipv4": ["s4"]}))
    before = values.record("10.20.0.10", values.stateful_pod(uid="u0"), pool="auto4-web-s0")
    seen = Snapshot(
        pod=pod,
        around=replace(values.NOWHERE, application=web, subnet_rules=ON),
        basis=Basis(
            by_name(
                automatic("auto4-web-s0", "10.20.0.10", application=replace(web, uid="s0")),
                automatic("auto4-web-s1", "10.20.0.20", application=web),
            ),
            (),
        ),
        records=(before,),
        versions=frozenset({4}),
        now=values.NOON,
    )
    decided = plan(values.request(pod), seen)
    assert [move.before for move in decided.drops] == [before]
    assert [pool.name for want in decided.wants for pool in want.pools] == ["auto4-web-s1"]

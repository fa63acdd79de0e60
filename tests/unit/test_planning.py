"""From what is known to what is done: candidates, re-use, take-over."""

from dataclasses import replace
from datetime import timedelta

import pytest

from allocator.domain import errors
from allocator.domain.addresses import Version
from allocator.domain.basis import Basis
from allocator.domain.candidates import Surroundings
from allocator.domain.planning import Plan, Snapshot, plan
from allocator.domain.pool import Edition, Pool
from allocator.domain.record import Record, State
from allocator.domain.request import AddRequest, Pod
from allocator.domain.selectors import LabelSelector, Requirement
from tests.unit import values

BOTH: frozenset[Version] = frozenset({4, 6})
A = values.pool("a", "10.20.0.10-10.20.0.19")
B = values.pool("b", "10.20.0.20-10.20.0.29")
SIX = values.pool("six", "fd00::10-fd00::19", "fd00::/64")


def asks(pod: Pod, ippool: str) -> Pod:
    return replace(pod, annotations={"ipam.spidernet.io/ippool": ippool})


def planned(
    pod: Pod,
    *pools: Pool,
    records: tuple[Record, ...] = (),
    versions: frozenset[Version] = BOTH,
    around: Surroundings = values.NOWHERE,
    request: AddRequest | None = None,
) -> Plan:
    seen = Snapshot(
        pod=pod,
        around=around,
        basis=Basis({pool.name: pool for pool in pools}, ()),
        records=records,
        versions=versions,
        now=values.NOON + timedelta(minutes=1),
    )
    return plan(request or values.request(pod), seen)


def wanted(decided: Plan) -> list[tuple[Version, list[str]]]:
    return [(want.version, [pool.name for pool in want.pools]) for want in decided.wants]


def test_pools_are_tried_in_the_listed_order() -> None:
    assert wanted(planned(asks(values.pod(), '{"ipv4": ["b", "a"]}'), A, B)) == [(4, ["b", "a"])]


def test_a_pool_tied_more_closely_is_tried_first() -> None:
    tied = replace(B, node_names=("n1",))
    assert wanted(planned(asks(values.pod(), '{"ipv4": ["a", "b"]}'), A, tied)) == [(4, ["b", "a"])]


def test_dual_stack_wants_one_address_of_each_family() -> None:
    assert wanted(planned(asks(values.pod(), '{"ipv4": ["a"], "ipv6": ["six"]}'), A, SIX)) == [(4, ["a"]), (6, ["six"])]


def test_a_family_that_is_switched_off_is_not_wanted() -> None:
    pod = asks(values.pod(), '{"ipv4": ["a"], "ipv6": ["six"]}')
    assert wanted(planned(pod, A, SIX, versions=frozenset({4}))) == [(4, ["a"])]


def test_nothing_but_a_switched_off_family_is_a_refusal_and_not_an_empty_answer() -> None:
    with pytest.raises(errors.NoPool, match="switched off"):
        planned(asks(values.pod(), '{"ipv6": ["six"]}'), SIX, versions=frozenset({4}))


def test_the_pod_beats_the_namespace_which_beats_the_configuration_which_beats_the_cluster_default() -> None:
    cluster = replace(values.pool("d", "10.20.0.90"), default=True)
    namespace = replace(values.NOWHERE, namespace_annotations={"ipam.spidernet.io/default-ipv4-ippool": '["b"]'})
    configured = replace(values.request(values.pod()), default_ipv4_pools=("c",))
    c = values.pool("c", "10.20.0.50")
    pools = (A, B, c, cluster)
    assert wanted(planned(asks(values.pod(), '{"ipv4": ["a"]}'), *pools, around=namespace, request=configured)) == [
        (4, ["a"])
    ]
    assert wanted(planned(values.pod(), *pools, around=namespace, request=configured)) == [(4, ["b"])]
    assert wanted(planned(values.pod(), *pools, request=configured)) == [(4, ["c"])]
    assert wanted(planned(values.pod(), *pools)) == [(4, ["d"])]


def test_without_any_source_the_refusal_says_where_to_name_a_pool() -> None:
    with pytest.raises(errors.NoPool, match=r"spec\.default: true"):
        planned(values.pod(), A)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        pytest.param({"disabled": True}, "disabled", id="disabled"),
        pytest.param({"edition": Edition("uid-a", 2, terminating=True)}, "being deleted", id="terminating"),
        pytest.param({"unadopted": True}, "not taken over", id="of the original"),
        pytest.param({"node_names": ("n2",)}, "node n1 is not in spec.nodeName", id="node name"),
        pytest.param({"namespace_names": ("lab",)}, "namespace shop is not in", id="namespace name"),
        pytest.param(
            {"node_affinity": LabelSelector((Requirement("rack", "In", frozenset({"7"})),))},
            "labels of node n1",
            id="node labels",
        ),
        pytest.param(
            {"namespace_affinity": LabelSelector((Requirement("team", "Exists"),))},
            "labels of namespace shop",
            id="namespace labels",
        ),
        pytest.param(
            {"pod_affinity": LabelSelector((Requirement("app", "In", frozenset({"cart"})),))},
            "pod's labels do not match",
            id="pod labels",
        ),
        pytest.param({"multus_names": ("lab/m1",)}, "nothing says which network eth0 belongs to", id="no network"),
    ],
)
def test_a_pool_that_does_not_serve_the_pod_is_named_with_the_reason(changed: dict[str, object], why: str) -> None:
    refusing = replace(A, **changed)  # type: ignore[arg-type]
    with pytest.raises(errors.NoPool) as refusal:
        planned(asks(values.pod(), '{"ipv4": ["a"]}'), refusing)
    assert str(refusal.value).startswith(
        "no IPv4 pool of the annotation ipam.spidernet.io/ippool serves eth0 of this pod: a: "
    )
    assert why in str(refusal.value)


def test_a_pool_of_a_network_serves_the_interfaces_of_that_network_only() -> None:
    around = replace(values.NOWHERE, own_namespace="spiderpool", cluster_network="m1")
    pod = asks(values.pod(), '{"ipv4": ["b", "a"]}')
    decided = planned(pod, replace(A, multus_names=("m1",)), replace(B, multus_names=("lab/m1",)), around=around)
    assert wanted(decided) == [(4, ["a"])]
    assert str(decided.wants[0].refusals[0]) == "b: network spiderpool/m1 of eth0 is not in spec.multusName"


def test_an_unknown_pool_is_named_while_the_next_one_serves() -> None:
    decided = planned(asks(values.pod(), '{"ipv4": ["nowhere", "a"]}'), A)
    assert wanted(decided) == [(4, ["a"])]
    assert [str(refusal) for refusal in decided.wants[0].refusals] == ["nowhere: there is no SpiderIPPool of this name"]


def test_a_pool_of_the_other_family_is_refused() -> None:
    with pytest.raises(errors.NoPool, match="six: the pool is IPv6, listed for IPv4"):
        planned(asks(values.pod(), '{"ipv4": ["six"]}'), SIX)


def test_a_repeated_add_keeps_the_address_and_claims_nothing() -> None:
    pod = asks(values.pod(), '{"ipv4": ["a"]}')
    held = values.record("10.20.0.10", pod)
    decided = planned(pod, A, records=(held,))
    assert (decided.kept, decided.moves, decided.wants) == ((held,), (), ())


def test_a_new_sandbox_of_the_same_pod_rebinds_its_address() -> None:
    pod = asks(values.pod(), '{"ipv4": ["a"]}')
    decided = planned(pod, A, records=(values.record("10.20.0.10", pod),), request=values.request(pod, container="c2"))
    assert [move.after.holder for move in decided.moves] == [values.holder(pod, container="c2")]
    assert decided.wants == ()


def test_a_pod_keeps_its_address_when_its_annotation_has_become_wrong() -> None:
    pod = asks(values.pod(), "broken")
    held = values.record("10.20.0.10", pod)
    assert planned(pod, A, records=(held,)).kept == (held,)


def test_the_second_family_is_claimed_when_an_earlier_try_got_only_the_first() -> None:
    pod = asks(values.pod(), '{"ipv4": ["a"], "ipv6": ["six"]}')
    assert wanted(planned(pod, A, SIX, records=(values.record("10.20.0.10", pod),))) == [(6, ["six"])]


def test_of_two_addresses_of_a_family_the_older_is_given_back_for_the_younger_was_answered() -> None:
    pod = asks(values.pod(), '{"ipv4": ["a"]}')
    first = values.record("10.20.0.11", pod)
    second = values.record("10.20.0.10", pod, since=values.NOON + timedelta(seconds=1))
    decided = planned(pod, A, records=(second, first))
    assert decided.kept == (second,)
    assert [(move.before, move.after.state) for move in decided.drops] == [(first, State.COOLING)]


def test_of_two_addresses_of_another_interface_neither_is_given_back_while_it_runs_with_one_of_them() -> None:
    ippools = '[{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv4": ["a"]}]'
    pod = replace(values.pod(), annotations={"ipam.spidernet.io/ippools": ippools})
    records = (values.record("10.20.0.11", pod), values.record("10.20.0.10", pod))
    decided = planned(pod, A, records=records, request=values.request(pod, interface="net1"))
    assert (decided.moves, decided.drops) == ((), ())
    assert [want.holder.interface for want in decided.wants] == ["net1"]


def test_another_interface_of_the_same_pod_gets_an_address_of_its_own() -> None:
    pod = asks(values.pod(), '{"ipv4": ["a"]}')
    held = values.record("10.20.0.10", pod)
    decided = planned(pod, A, records=(held,), request=values.request(pod, interface="net1"))
    assert (decided.kept, wanted(decided)) == ((), [(4, ["a"])])


@pytest.mark.parametrize("state", [State.RETAINED, State.HELD])
def test_the_successor_in_a_slot_takes_over_what_its_predecessor_left(state: State) -> None:
    left = values.record("10.20.0.10", values.stateful_pod(uid="u0"), state)
    pod = asks(values.stateful_pod(uid="u1"), '{"ipv4": ["a"]}')
    decided = planned(pod, A, records=(left,))
    (move,) = decided.moves
    assert (move.before, move.after.state, move.after.holder) == (left, State.HELD, values.holder(pod))
    assert decided.wants == ()


@pytest.mark.parametrize("state", [State.COOLING, State.QUARANTINED, State.CONFLICT])
def test_the_successor_in_a_slot_leaves_alone_what_its_slot_has_no_more(state: State) -> None:
    left = values.record("10.20.0.10", values.stateful_pod(uid="u0"), state)
    decided = planned(asks(values.stateful_pod(uid="u1"), '{"ipv4": ["a"]}'), A, records=(left,))
    assert (decided.moves, decided.drops, wanted(decided)) == ((), (), [(4, ["a"])])


def test_of_two_addresses_that_a_slot_has_the_successor_gives_one_back() -> None:
    before = values.stateful_pod(uid="u0")
    first = values.record("10.20.0.11", before)
    second = values.record("10.20.0.10", before, State.RETAINED, since=values.NOON + timedelta(seconds=1))
    decided = planned(asks(values.stateful_pod(uid="u1"), '{"ipv4": ["a"]}'), A, records=(second, first))
    assert [move.before for move in decided.moves] == [first]
    assert [(move.before, move.after.state) for move in decided.drops] == [(second, State.COOLING)]


def test_a_full_or_disabled_pool_does_not_keep_a_slot_from_its_own_address() -> None:
    left = values.record("10.20.0.10", values.stateful_pod(uid="u0"), State.RETAINED)
    pod = asks(values.stateful_pod(uid="u1"), '{"ipv4": ["a"]}')
    assert len(planned(pod, replace(A, disabled=True), records=(left,)).moves) == 1


def test_a_pod_that_only_looks_like_a_member_takes_nothing_over() -> None:
    left = values.record("10.20.0.10", values.stateful_pod(uid="u0"), State.RETAINED)
    bare = asks(values.pod("web-0"), '{"ipv4": ["a"]}')
    decided = planned(bare, A, records=(left,))
    assert (decided.moves, wanted(decided)) == ((), [(4, ["a"])])


def test_a_slot_whose_pool_is_asked_for_no_longer_moves_and_gives_the_old_address_back() -> None:
    left = values.record("10.20.0.10", values.stateful_pod(uid="u0"), State.RETAINED)
    pod = asks(values.stateful_pod(uid="u1"), '{"ipv4": ["b"]}')
    decided = planned(pod, A, B, records=(left,))
    assert wanted(decided) == [(4, ["b"])]
    assert [(move.before, move.after.state) for move in decided.drops] == [(left, State.COOLING)]


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param({"deleted_at": values.NOON}, id="terminating"),
        pytest.param({"phase": "Succeeded"}, id="finished"),
        pytest.param({"phase": "Failed", "reason": "Terminated"}, id="ended by its node's shutdown"),
        pytest.param({"phase": "Failed", "reason": "Evicted"}, id="evicted"),
    ],
)
def test_a_pod_that_is_ending_gets_no_address(ending: dict[str, object]) -> None:
    pod = replace(asks(values.pod(), '{"ipv4": ["a"]}'), **ending)  # type: ignore[arg-type]
    with pytest.raises(errors.PodGone):
        planned(pod, A)


def test_neither_the_gateway_nor_an_excluded_nor_a_reserved_address_is_usable() -> None:
    pool = values.pool("a", "10.20.0.1-10.20.0.6")
    sets = {text: values.pool("x", text).ips for text in ("10.20.0.2", "10.20.0.3-10.20.0.4")}
    pool = replace(pool, gateway=pool.ips.nth(0), excludes=sets["10.20.0.2"])
    assert pool.usable(sets["10.20.0.3-10.20.0.4"]).texts() == ["10.20.0.5-10.20.0.6"]

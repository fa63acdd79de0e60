"""What admission makes of a new pod: what is told, what is written out, and which nodes are left."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.domain import errors
from allocator.domain.addresses import IntervalSet
from allocator.domain.annotations import asked_by_pod
from allocator.domain.candidates import resolved
from allocator.domain.patterns import is_pattern
from allocator.domain.pod_admission import MAX_WARNINGS, WARNING_LIMIT, Advice, NewPod, Seen, advise
from allocator.domain.pool import Edition
from allocator.domain.selectors import LabelSelector, Requirement
from allocator.domain.subnet_advice import Subnets
from tests.unit.values import by_name, four, six

if TYPE_CHECKING:
    from allocator.domain.pool import Pool

IPPOOL = "ipam.spidernet.io/ippool"
IPPOOLS = "ipam.spidernet.io/ippools"
SWITCH = "ipam.spidernet.io/node-affinity"
DEFAULT_NETWORK = "v1.multus-cni.io/default-network"
NETWORKS = "k8s.v1.cni.cncf.io/networks"

NONE = f"no IPv4 pool of the annotation {IPPOOL}"
POOLS = (four("a"), four("b"), six("c"), four("rack-1"), six("rack-6"))


def cluster(*pools: Pool, free: dict[str, int] | None = None, **changes: Any) -> Seen:
    seen = Seen(
        pools=by_name(*pools),
        free=(free or {}).get,
        namespace_labels={"team": "shop"},
        versions=frozenset((4, 6)),
        own_namespace="spiderpool",
        subnets=Subnets(),
    )
    return replace(seen, **changes)


def pod(ippool: str = "", **changes: Any) -> NewPod:
    annotations = {**({IPPOOL: ippool} if ippool else {}), **changes.pop("annotations", {})}
    return NewPod(namespace="shop", labels={"app": "web"}, annotations=annotations, **changes)


def has(key: str, value: str) -> LabelSelector:
    return LabelSelector((Requirement(key, "In", frozenset([value])),))


def on(*nodes: str) -> list[dict[str, Any]]:
    return [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]} for node in nodes]


# Warnings


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"edition": Edition("u", 2, terminating=True)}, "the pool is being deleted", id="terminating"),
        pytest.param({"disabled": True}, "the pool is disabled (spec.disable)", id="disabled"),
        pytest.param({"unadopted": True}, "status.allocatedIPs holds records of another Spiderpool", id="unadopted"),
        pytest.param({"problem": "spec.ips is odd"}, "spec.ips is odd", id="unreadable"),
        pytest.param({"ips": IntervalSet(4)}, "spec.ips is empty", id="no address"),
        pytest.param({"namespace_names": ("db",)}, "namespace shop is not in spec.namespaceName", id="namespaceName"),
        pytest.param({"namespace_affinity": has("team", "db")}, "labels of namespace shop do not match", id="affinity"),
        pytest.param({"pod_affinity": has("app", "db")}, "the pod's labels do not match spec.podAffinity", id="labels"),
    ],
)
def test_a_pool_that_does_not_serve_is_told_and_the_pod_is_let_in(changes: dict[str, Any], told: str) -> None:
    alone = advise(pod('{"ipv4": ["a"]}'), cluster(four("a", **changes)))
    beside = advise(pod('{"ipv4": ["a", "b"]}'), cluster(four("a", **changes), four("b")))
    assert (alone.problems, beside.problems) == ([], [])
    (warning,) = alone.warnings
    assert warning.startswith(f"no IPv4 pool of the annotation {IPPOOL} serves this pod now: a: ")
    assert told in warning
    (warning,) = beside.warnings
    assert warning.startswith(f"annotation {IPPOOL}: a: ")
    assert told in warning


@pytest.mark.parametrize(
    ("annotations", "seen", "warnings"),
    [
        pytest.param({IPPOOL: '{"ipv4": ["a"], "ipv6": ["c"]}'}, cluster(*POOLS), (), id="all is well"),
        pytest.param({IPPOOL: "a"}, cluster(*POOLS, free={"a": 3}), (), id="a pool with room"),
        pytest.param(
            {IPPOOL: '{"ipv4": ["x", "a", "y"]}'},
            cluster(*POOLS),
            (f"annotation {IPPOOL}: x, y: there is no SpiderIPPool of this name",),
            id="unknown pools",
        ),
        pytest.param(
            {IPPOOL: "a,x"},
            cluster(*POOLS),
            (f"the annotation {IPPOOL} cannot be followed: x: there is no SpiderIPPool of this name",),
            id="an unknown pool in the short form",
        ),
        pytest.param(
            {IPPOOL: '{"ipv4": ["store-*"]}'},
            cluster(*POOLS),
            (f"{NONE} serves this pod now: store-*: no IPv4 SpiderIPPool has such a name",),
            id="a pattern without a pool",
        ),
        pytest.param(
            {IPPOOL: '{"ipv6": ["a", "c"]}'},
            cluster(*POOLS),
            (f"annotation {IPPOOL}: a: the pool is IPv4, listed for IPv6",),
            id="the wrong family",
        ),
        pytest.param(
            {IPPOOL: "a"},
            cluster(*POOLS, free={"a": 0}),
            (f"no IPv4 pool of the annotation {IPPOOL} serves this pod now: a: no free address",),
            id="an exhausted pool",
        ),
        pytest.param(
            {IPPOOL: '{"ipv4": ["a", "b"]}'},
            cluster(*POOLS, free={"a": 0}),
            (f"annotation {IPPOOL}: a: no free address",),
            id="an exhausted pool beside another",
        ),
        pytest.param(
            {IPPOOL: '{"ipv4": ["*"]}'}, cluster(*POOLS, four("off", disabled=True)), (), id="one of a pattern's"
        ),
        pytest.param(
            {IPPOOL: "a,c"},
            cluster(*POOLS, versions=frozenset([4])),
            (f"annotation {IPPOOL}: IPv6 is switched off in this cluster, so this is not looked at: c",),
            id="a family that is off",
        ),
        pytest.param(
            {IPPOOLS: '[{"interface": "eth0", "ipv4": ["a"]}, {"interface": "net1", "ipv4": ["x"]}]'},
            cluster(*POOLS),
            (f"{NONE}s serves net1 of this pod now: x: there is no SpiderIPPool of this name",),
            id="an interface",
        ),
        pytest.param(
            {IPPOOL: "a"},
            cluster(four("a", namespace_affinity=has("team", "db")), namespace_labels=None),
            (),
            id="labels of a namespace that is not known yet",
        ),
        pytest.param({"ipam.spidernet.io/dns": "{}"}, cluster(), (), id="no pool is named"),
    ],
)
def test_what_may_be_right_tomorrow_is_told(annotations: dict[str, str], seen: Seen, warnings: tuple[str, ...]) -> None:
    assert advise(pod(annotations=annotations), seen).warnings == warnings


@pytest.mark.parametrize(
    ("annotations", "told"),
    [
        pytest.param({IPPOOL: "m"}, "", id="only the agent knows the cluster's network"),
        pytest.param({IPPOOL: "m", DEFAULT_NETWORK: "spiderpool/m0"}, "", id="its own network is asked for"),
        pytest.param({IPPOOL: "m", DEFAULT_NETWORK: "m1"}, "network spiderpool/m1 of eth0", id="it has another one"),
        pytest.param({IPPOOL: "m", NETWORKS: "m1"}, "", id="which interface asks is open"),
        pytest.param({IPPOOL: "m", NETWORKS: "m1", DEFAULT_NETWORK: "m1"}, "", id="it is open even so"),
        pytest.param(
            {IPPOOLS: '[{"interface": "net1", "ipv4": ["m"]}]', NETWORKS: "m1"}, "network shop/m1 of net1", id="net1"
        ),
        pytest.param({IPPOOLS: '[{"interface": "net1", "ipv4": ["m"]}]'}, "", id="nobody has named its network yet"),
        pytest.param({IPPOOLS: '[{"interface": "net1", "ipv4": ["m"]}]', NETWORKS: "{"}, "", id="Multus will complain"),
    ],
)
def test_networks_are_compared_where_they_can_be_told(annotations: dict[str, str], told: str) -> None:
    warnings = advise(pod(annotations=annotations), cluster(four("m", multus_names=("m0",)))).warnings
    assert told in warnings[0] if told else warnings == ()


def test_a_pod_on_the_hosts_network_is_told_that_it_gets_nothing_and_left_alone() -> None:
    advice = advise(pod("a,{", is_on_host_network=True), cluster(four("a", node_names=("n1",))))
    assert advice == Advice(
        warnings=("the pod has hostNetwork and gets no address: its ipam.spidernet.io/ annotations mean nothing",)
    )


def test_warnings_are_few_and_short() -> None:
    items = [{"interface": f"net{i}", "ipv4": [f"pool-{i}-{j}-{'x' * 40}" for j in range(9)]} for i in range(9)]
    warnings = advise(pod(annotations={IPPOOLS: json.dumps(items)}), cluster()).warnings
    assert len(warnings) == MAX_WARNINGS
    assert {len(text) for text in warnings[:-1]} == {WARNING_LIMIT}
    assert warnings[-1] == "and 5 more warnings about this pod's pools"


def test_a_refusal_brings_the_hints_along_and_changes_nothing() -> None:
    advice = advise(pod("{", annotations={"ipam.spidernet.io/ipools": "a"}), cluster(*POOLS))
    assert [problem.field for problem in advice.problems] == [f"metadata.annotations[{IPPOOL}]"]
    assert advice.warnings == ('annotation "ipam.spidernet.io/ipools" is unknown: is ipam.spidernet.io/ippools meant?',)
    assert (advice.ippool, advice.required) == (None, None)


# The short form


@pytest.mark.parametrize(
    ("typed", "written"),
    [
        pytest.param("a", '{"ipv4":["a"]}', id="one pool"),
        pytest.param("c,a", '{"ipv4":["a"],"ipv6":["c"]}', id="two families"),
        pytest.param(" b , a ", '{"ipv4":["b","a"]}', id="the order stays"),
        pytest.param("rack-*,a", '{"ipv4":["rack-*","a"],"ipv6":["rack-*"]}', id="a pattern, in both families"),
        pytest.param("rack-[0-5]", '{"ipv4":["rack-[0-5]"]}', id="a pattern, in one"),
        pytest.param("a,x", None, id="an unknown name"),
        pytest.param("a,x*", None, id="a pattern without a pool"),
        pytest.param("broken", None, id="a pool that cannot be read"),
        pytest.param("brok*", None, id="a pattern of such a pool"),
        pytest.param('{"ipv4": ["a"]}', None, id="JSON"),
        pytest.param('{"IPv4": ["a"], "note": 1}', None, id="JSON in words of its own"),
    ],
)
def test_the_short_form_is_written_out_where_the_families_are_known(typed: str, written: str | None) -> None:
    assert advise(pod(typed), cluster(*POOLS, four("broken", problem="odd"))).ippool == written


NAMES = st.sampled_from(["a", "b", "rack-1", "rack-2", "rack-*", "rack-[12]", "?", "*"])


@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), st.dictionaries(NAMES, st.booleans()))
def test_what_is_written_out_means_what_was_typed_and_is_left_alone_then(
    typed: list[str], pools: dict[str, bool]
) -> None:
    seen = cluster(*(four(name) if is_four else six(name) for name, is_four in pools.items() if not is_pattern(name)))
    written = advise(pod(",".join(typed)), seen).ippool
    (before,) = asked_by_pod({IPPOOL: ",".join(typed)})
    if written is None:
        with pytest.raises(errors.NoPool):
            resolved(before, seen.pools)
    else:
        (after,) = asked_by_pod({IPPOOL: written})
        assert resolved(after, seen.pools) == resolved(before, seen.pools)
        assert advise(pod(written), seen).ippool is None


# Nodes


def test_the_pods_nodes_are_those_where_each_interface_and_family_has_a_pool_that_serves() -> None:
    seen = cluster(four("a", node_names=("n1", "n2")), six("c", node_names=("n2", "n3")), four("m", node_names=("n2",)))
    text = '[{"interface": "eth0", "ipv4": ["a"], "ipv6": ["c"]}, {"interface": "net1", "ipv4": ["m"]}]'
    assert advise(pod(annotations={IPPOOLS: text}), seen).required == on("n2")


@pytest.mark.parametrize(
    ("others", "nodes"),
    [
        pytest.param({}, None, id="a pool for all nodes"),
        pytest.param({"disabled": True}, on("n1"), id="a disabled one does not count"),
        pytest.param({"edition": Edition("u", 2, terminating=True)}, on("n1"), id="one that is being deleted"),
        pytest.param({"problem": "odd"}, on("n1"), id="one that cannot be read"),
        pytest.param({"namespace_names": ("db",)}, on("n1"), id="one of another namespace"),
        pytest.param({"pod_affinity": has("app", "db")}, on("n1"), id="one for other pods"),
    ],
)
def test_only_pools_that_serve_the_pod_widen_its_nodes(others: dict[str, Any], nodes: list[Any] | None) -> None:
    seen = cluster(four("a", node_names=("n1",)), four("b", **others))
    assert advise(pod('{"ipv4": ["a", "b", "unknown"]}'), seen).required == nodes


@pytest.mark.parametrize(
    ("others", "nodes"),
    [
        pytest.param({"disabled": True}, on("n1", "n2"), id="two that are disabled"),
        pytest.param({"ips": IntervalSet(4)}, on("n1", "n2"), id="one that is empty"),
        pytest.param({"edition": Edition("u", 2, terminating=True)}, None, id="one that is being deleted"),
        pytest.param({"problem": "odd"}, None, id="one that cannot be read"),
    ],
)
def test_where_no_pool_serves_the_pod_it_is_kept_to_the_nodes_of_those_that_may_serve_it_tomorrow(
    others: dict[str, Any], nodes: list[Any] | None
) -> None:
    seen = cluster(four("a", node_names=("n1",), disabled=True), four("b", node_names=("n2",), **others))
    assert advise(pod('{"ipv4": ["a", "b"]}'), seen).required == nodes
    assert advise(pod('{"ipv4": ["a", "b", "unknown"]}'), seen).required is None


def test_an_exhausted_pool_counts_for_it_may_have_room_when_the_pod_starts() -> None:
    seen = cluster(four("a", node_names=("n1",)), four("b", node_names=("n2",)), free={"a": 0})
    assert advise(pod('{"ipv4": ["a", "b"]}'), seen).required == on("n1", "n2")


def test_a_family_that_is_off_and_pools_that_are_unknown_ask_for_nothing() -> None:
    pools = (four("a"), six("c", node_names=("n1",)))
    assert advise(pod("a,c"), cluster(*pools, versions=frozenset([4]))).required is None
    assert advise(pod('{"ipv4": ["x"], "ipv6": ["c"]}'), cluster(*pools)).required == on("n1")
    assert advise(pod("x,c"), cluster(*pools)).required is None


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"node": "n9"}, id="it has a node"),
        pytest.param({"required": on("n9")}, id="its affinity names one, as a DaemonSet has it"),
        pytest.param({"annotations": {SWITCH: "false"}}, id="the annotation says so"),
    ],
)
def test_a_pods_scheduling_is_left_alone_where(changes: dict[str, Any]) -> None:
    assert advise(pod("a", **changes), cluster(four("a", node_names=("n1",)))).required is None


def test_a_pod_that_has_its_node_is_told_of_pools_that_do_not_serve_it() -> None:
    seen = cluster(four("a", node_names=("n1",)))
    assert advise(pod("a", node="n1"), seen).warnings == ()
    (warning,) = advise(pod("a", node="n9"), seen).warnings
    assert warning.endswith("a: node n9 is not in spec.nodeName")


def test_a_pod_whose_node_selector_leaves_no_node_is_told_and_left_alone() -> None:
    advice = advise(pod("a", selector={"rack": "8"}), cluster(four("a", node_affinity=has("rack", "7"))))
    assert advice.required is None
    (warning,) = advice.warnings
    assert warning.endswith("its pools serve no node that its nodeSelector allows")


def test_a_pod_that_no_node_can_serve_is_told_and_left_alone() -> None:
    advice = advise(pod("a,c"), cluster(four("a", node_names=("n1",)), six("c", node_names=("n2",))))
    assert advice.required is None
    (warning,) = advice.warnings
    assert warning.startswith("the pod's node affinity stays as it is: no node is served for all of its addresses")


@pytest.mark.parametrize(
    ("pool", "terms"),
    [
        pytest.param({"node_names": ("n1",)}, on("n1"), id="by name"),
        pytest.param(
            {"node_affinity": has("rack", "7")},
            [{"matchExpressions": [{"key": "rack", "operator": "In", "values": ["7"]}]}],
            id="by labels",
        ),
    ],
)
def test_what_is_so_already_is_not_written_again(pool: dict[str, Any], terms: list[Any]) -> None:
    seen = cluster(four("a", **pool))
    once = advise(pod("a"), seen)
    assert (once.ippool, once.required) == ('{"ipv4":["a"]}', terms)
    assert advise(pod(once.ippool or "", required=once.required), seen) == Advice()

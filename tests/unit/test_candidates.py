"""Which of the listed pools serve a pod, in which order, and why not the others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain.addresses import IntervalSet, parse_address
from allocator.domain.candidates import DOUBTFUL, Master, Subject, Surroundings, doubtful, sift, summary
from allocator.domain.filters import Refusal
from allocator.domain.pool import Edition, Pool
from allocator.domain.selectors import LabelSelector, Requirement
from tests.unit import values
from tests.unit.values import by_name, four, six

if TYPE_CHECKING:
    from collections.abc import Mapping

NETWORKS = "k8s.v1.cni.cncf.io/networks"

NOTHING = IntervalSet(4)
EVERYTHING = LabelSelector()


def sifted(
    names: tuple[str, ...],
    pools: Mapping[str, Pool],
    *,
    version: Any = 4,
    around: Surroundings = values.NOWHERE,
    reserved: IntervalSet = NOTHING,
    interface: str = "eth0",
    **pod: Any,
) -> tuple[list[str], tuple[Refusal, ...]]:
    subject = Subject(values.pod(**pod), interface, version)

    def usable(pool: Pool) -> IntervalSet:
        return pool.usable(reserved if pool.version == reserved.version else IntervalSet(pool.version))

    found, refusals = sift(names, pools, subject, around, usable=usable, overlap=lambda _: None)
    return [pool.name for pool in found], refusals


def has(key: str, value: str) -> LabelSelector:
    return LabelSelector((Requirement(key, "In", frozenset({value})),))


RACK7 = replace(
    values.NOWHERE,
    node_labels={"rack": "7"},
    namespace_labels={"team": "shop"},
    own_namespace="spiderpool",
    cluster_network="m0",
)
UPLINK = Master((parse_address("192.0.2.7"), parse_address("10.20.0.2")))


@pytest.mark.parametrize(
    "admitting",
    [
        pytest.param({}, id="nothing asked for"),
        pytest.param({"node_names": ("n9", "n1")}, id="nodeName"),
        pytest.param({"node_affinity": has("rack", "7")}, id="nodeAffinity"),
        pytest.param({"node_affinity": EVERYTHING}, id="an empty nodeAffinity matches everything"),
        pytest.param({"node_names": ("n1",), "node_affinity": has("rack", "9")}, id="nodeName beats nodeAffinity"),
        pytest.param({"namespace_names": ("shop",)}, id="namespaceName"),
        pytest.param({"namespace_affinity": has("team", "shop")}, id="namespaceAffinity"),
        pytest.param({"namespace_affinity": EVERYTHING}, id="an empty namespaceAffinity matches everything"),
        pytest.param(
            {"namespace_names": ("shop",), "namespace_affinity": has("team", "x")},
            id="namespaceName beats namespaceAffinity",
        ),
        pytest.param({"pod_affinity": has("app", "cart")}, id="podAffinity"),
        pytest.param({"multus_names": ("lab/m1", "m0")}, id="multusName"),
        pytest.param({"multus_names": ("spiderpool/m0",)}, id="multusName with the namespace"),
    ],
)
def test_a_pool_serves_the_pods_that_its_affinities_name(admitting: dict[str, Any]) -> None:
    pools = by_name(four("a", **admitting))
    assert sifted(("a",), pools, around=RACK7, labels={"app": "cart"}) == (["a"], ())


@pytest.mark.parametrize(
    ("changes", "name", "why"),
    [
        pytest.param(
            {"edition": Edition("u", 2, terminating=True)}, "terminating", "the pool is being deleted", id="terminating"
        ),
        pytest.param({"disabled": True}, "disabled", "the pool is disabled (spec.disable)", id="disabled"),
        pytest.param({"unadopted": True}, "adoption", "not taken over", id="of another Spiderpool"),
        pytest.param({"node_names": ("n2",)}, "nodeName", "node n1 is not in spec.nodeName", id="nodeName"),
        pytest.param(
            {"node_names": ("n2",), "node_affinity": has("rack", "7")},
            "nodeName",
            "node n1 is not in spec.nodeName",
            id="nodeName beats nodeAffinity",
        ),
        pytest.param(
            {"node_affinity": has("rack", "9")},
            "nodeAffinity",
            "the labels of node n1 do not match spec.nodeAffinity",
            id="nodeAffinity",
        ),
        pytest.param(
            {"namespace_names": ("lab",)},
            "namespaceName",
            "namespace shop is not in spec.namespaceName",
            id="namespaceName",
        ),
        pytest.param(
            {"namespace_names": ("lab",), "namespace_affinity": has("team", "shop")},
            "namespaceName",
            "namespace shop is not in",
            id="namespaceName beats namespaceAffinity",
        ),
        pytest.param(
            {"namespace_affinity": has("team", "lab")},
            "namespaceAffinity",
            "the labels of namespace shop do not match spec.namespaceAffinity",
            id="namespaceAffinity",
        ),
        pytest.param(
            {"pod_affinity": has("app", "pay")},
            "podAffinity",
            "the pod's labels do not match spec.podAffinity",
            id="podAffinity",
        ),
        pytest.param(
            {"multus_names": ("lab/m0", "m1")},
            "multusName",
            "network spiderpool/m0 of eth0 is not in spec.multusName",
            id="multusName",
        ),
        pytest.param(
            {"excludes": IntervalSet.parse(4, ["10.20.0.10-10.20.0.19"])},
            "addresses",
            "spec.excludeIPs, SpiderReservedIPs and the gateway leave no address of spec.ips",
            id="fully excluded",
        ),
        pytest.param(
            {"ips": IntervalSet.parse(4, ["10.20.0.1"]), "gateway": parse_address("10.20.0.1")},
            "addresses",
            "the gateway leave no address",
            id="nothing but the gateway",
        ),
        pytest.param({"ips": NOTHING}, "addresses", "spec.ips is empty", id="empty"),
    ],
)
def test_a_pool_that_does_not_serve_the_pod_is_refused_by_filter_and_reason(
    changes: dict[str, Any], name: str, why: str
) -> None:
    pools = by_name(four("a", **changes), four("b"))
    found, (refusal,) = sifted(("a", "b"), pools, around=RACK7, labels={"app": "cart"})
    assert (found, refusal.pool, refusal.filter) == (["b"], "a", name)
    assert why in refusal.why


def test_a_fully_reserved_pool_is_refused() -> None:
    reserved = IntervalSet.parse(4, ["10.20.0.0-10.20.0.99"])
    found, (refusal,) = sifted(("a",), by_name(four("a")), reserved=reserved)
    assert (found, refusal.filter) == ([], "addresses")


def test_a_pool_of_the_other_family_and_an_unknown_one_are_refused_while_the_next_one_serves() -> None:
    found, refusals = sifted(("b", "nowhere", "a"), by_name(four("a"), six("b")))
    assert found == ["a"]
    assert [(refusal.filter, str(refusal)) for refusal in refusals] == [
        ("family", "b: the pool is IPv6, listed for IPv4"),
        ("exists", "nowhere: there is no SpiderIPPool of this name"),
    ]


def test_all_reasons_are_kept_and_not_the_first_only() -> None:
    odd = four("a", disabled=True, node_names=("n2",), pod_affinity=has("app", "pay"), multus_names=("m1",))
    _, refusals = sifted(("a",), by_name(odd), around=replace(RACK7, master=Master((), "no such interface")))
    assert [refusal.filter for refusal in refusals] == [
        "disabled",
        "nodeName",
        "podAffinity",
        "multusName",
        "matchMasterSubnet",
    ]


# Networks of interfaces


def test_a_pool_without_networks_serves_where_no_network_is_known() -> None:
    assert sifted(("a",), by_name(four("a"))) == (["a"], ())


@pytest.mark.parametrize(
    ("interface", "annotations", "why"),
    [
        pytest.param("eth0", {}, "nothing says which network eth0 belongs to", id="no default network"),
        pytest.param("net1", {}, "nothing says which network net1 belongs to", id="no list of networks"),
        pytest.param("net2", {NETWORKS: "m1"}, "nothing says which network net2 belongs to", id="not in the list"),
        pytest.param("net1", {NETWORKS: "m2"}, "network shop/m2 of net1 is not in spec.multusName", id="another one"),
        pytest.param("net1", {NETWORKS: "{"}, "annotation k8s.v1.cni.cncf.io/networks is not JSON", id="no JSON"),
    ],
)
def test_a_pool_with_networks_is_refused_where_the_interface_has_none_of_them(
    interface: str, annotations: dict[str, str], why: str
) -> None:
    pools = by_name(four("a", multus_names=("shop/m1",)), four("b"))
    found, (refusal,) = sifted(("a", "b"), pools, interface=interface, annotations=annotations)
    assert (found, refusal.filter) == (["b"], "multusName")
    assert why in refusal.why


# match_master_subnet


def test_the_master_is_not_looked_at_unless_it_is_asked_for() -> None:
    assert sifted(("a",), by_name(values.pool("a", "10.9.0.1", "10.9.0.0/24"))) == (["a"], ())


def test_a_pool_serves_where_an_address_of_the_master_lies_in_its_subnet() -> None:
    pools = by_name(four("a", multus_names=("m0",)), values.pool("b", "10.9.0.1", "10.9.0.0/24", multus_names=("m0",)))
    found, (refusal,) = sifted(("a", "b"), pools, around=replace(RACK7, master=UPLINK))
    assert found == ["a"]
    assert (refusal.filter, refusal.why) == (
        "matchMasterSubnet",
        "no address of the pod's master interface (192.0.2.7, 10.20.0.2) lies in spec.subnet 10.9.0.0/24",
    )


def test_a_master_that_cannot_be_found_refuses_every_pool_with_its_problem() -> None:
    found, refusals = sifted(
        ("a", "b"), by_name(four("a"), four("b")), around=replace(RACK7, master=Master((), "gone"))
    )
    assert (found, [str(refusal) for refusal in refusals]) == ([], ["a: gone", "b: gone"])


# Order


def test_equal_pools_keep_the_listed_order() -> None:
    pools = by_name(*(four(name) for name in "abcdefgh"))
    for names in (tuple("hcabgfde"), tuple("edabhgfc")):
        assert sifted(names, pools)[0] == list(names)


TIES: list[tuple[str, dict[str, Any]]] = [
    ("podAffinity", {"pod_affinity": EVERYTHING}),
    ("nodeName", {"node_names": ("n1",)}),
    ("nodeAffinity", {"node_affinity": EVERYTHING}),
    ("namespaceName", {"namespace_names": ("shop",)}),
    ("namespaceAffinity", {"namespace_affinity": EVERYTHING}),
    ("multusName", {"multus_names": ("m0",)}),
    ("nothing", {}),
]


@pytest.mark.parametrize("place", range(len(TIES) - 1), ids=[name for name, _ in TIES[:-1]])
def test_one_closer_tie_beats_all_looser_ones_together(place: int) -> None:
    close = four("close", **TIES[place][1])
    loose = four("loose", **{key: value for _, tie in TIES[place + 1 :] for key, value in tie.items()})
    assert sifted(("loose", "close"), by_name(loose, close), around=RACK7)[0] == ["close", "loose"]


def test_between_equal_ties_the_next_one_decides_and_then_the_list() -> None:
    both = {"pod_affinity": EVERYTHING, "node_names": ("n1",)}
    pools = by_name(four("a", pod_affinity=EVERYTHING), four("b", **both), four("c", **both))
    assert sifted(("a", "c", "b"), pools)[0] == ["c", "b", "a"]


# The words


def test_pools_that_share_their_reasons_are_told_together() -> None:
    refusals = [Refusal("a", "x", "is odd"), Refusal("a", "y", "is old"), Refusal("b", "x", "is odd")]
    refusals += [Refusal("c", "x", "is odd"), Refusal("d", "x", "is odd"), Refusal("d", "y", "is old")]
    assert summary(refusals) == "a, d: is odd and is old; b, c: is odd"


def test_more_than_ten_pools_are_counted_and_not_spelled_out() -> None:
    told = summary(Refusal(f"pool-{number:02}", "x", "is odd") for number in range(37))
    assert told.startswith("pool-00, pool-01, ")
    assert told.endswith("pool-08, pool-09: is odd; and 27 more")


def test_only_what_a_watch_may_not_have_shown_is_worth_reading_again() -> None:
    _, refusals = sifted(("gone", "a", "b", "c*"), by_name(four("a", disabled=True), four("b", unadopted=True)))
    assert doubtful(refusals) == ("gone", "b")
    assert {refusal.filter for refusal in refusals} >= DOUBTFUL


def test_an_operator_that_nobody_knows_refuses_the_pool_and_not_the_whole_request() -> None:
    odd = LabelSelector((Requirement("rack", "Near", frozenset({"7"})),))
    found, (refusal,) = sifted(("a", "b"), by_name(four("a", node_affinity=odd), four("b")), around=RACK7)
    assert (found, refusal.filter) == (["b"], "nodeAffinity")


@pytest.mark.parametrize(
    ("requirement", "matches"),
    [
        pytest.param(Requirement("rack", "In", frozenset({"7", "8"})), True, id="In"),
        pytest.param(Requirement("rack", "In", frozenset({"8"})), False, id="In, another value"),
        pytest.param(Requirement("hall", "In", frozenset({"7"})), False, id="In, no such label"),
        pytest.param(Requirement("rack", "NotIn", frozenset({"8"})), True, id="NotIn"),
        pytest.param(Requirement("rack", "NotIn", frozenset({"7"})), False, id="NotIn, that value"),
        pytest.param(Requirement("hall", "NotIn", frozenset({"7"})), True, id="NotIn, no such label"),
        pytest.param(Requirement("rack", "Exists"), True, id="Exists"),
        pytest.param(Requirement("hall", "Exists"), False, id="Exists, no such label"),
        pytest.param(Requirement("hall", "DoesNotExist"), True, id="DoesNotExist"),
        pytest.param(Requirement("rack", "DoesNotExist"), False, id="DoesNotExist, such a label"),
    ],
)
def test_requirements_mean_what_kubernetes_means(requirement: Requirement, *, matches: bool) -> None:
    selector = LabelSelector((Requirement("rack", "Exists"), requirement)) if matches else LabelSelector((requirement,))
    assert bool(sifted(("a",), by_name(four("a", node_affinity=selector)), around=RACK7)[0]) is matches

"""The node affinity that pools ask of a pod: tables of forms, and the law that it means what the pools mean."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.domain.filters import by_node
from allocator.domain.node_affinity import MOST, Restricted, names_nodes, restricted
from allocator.domain.selectors import LabelSelector, Requirement
from tests.unit.values import four

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from allocator.domain.pool import Pool

ANYWHERE = four("anywhere")


def on(*nodes: str) -> Pool:
    return four(f"on-{'-'.join(nodes)[:40]}", node_names=nodes)


def where(*requirements: tuple[str, str, list[str]]) -> Pool:
    selector = LabelSelector(tuple(Requirement(key, operator, frozenset(v)) for key, operator, v in requirements))
    return four("selecting", node_affinity=selector)


def field(*nodes: str, operator: str = "In") -> dict[str, Any]:
    return {"matchFields": [{"key": "metadata.name", "operator": operator, "values": [*nodes]}]}


def labels(*requirements: tuple[Any, ...]) -> dict[str, Any]:
    return {
        "matchExpressions": [
            {"key": key, "operator": operator, **({"values": values[0]} if values else {})}
            for key, operator, *values in requirements
        ]
    }


RACK7 = ("rack", "In", ["7"])
RACK8 = ("rack", "In", ["8"])


@pytest.mark.parametrize(
    ("groups", "terms"),
    [
        pytest.param([], None, id="no group asks for nothing"),
        pytest.param([[ANYWHERE]], None, id="a pool for all nodes asks for nothing"),
        pytest.param([[on("n1"), ANYWHERE]], None, id="one of several pools for all nodes is enough"),
        pytest.param([[where()]], None, id="an empty selector is for all nodes"),
        pytest.param([[on("n1", "n2")]], [field("n1"), field("n2")], id="a term for each name"),
        pytest.param([[where(RACK7)]], [labels(RACK7)], id="a selector is a term"),
        pytest.param([[on("n1"), where(RACK7)]], [field("n1"), labels(RACK7)], id="pools of a group are alternatives"),
        pytest.param(
            [[four("a", node_names=("n1",), node_affinity=LabelSelector())]], [field("n1")], id="names beat labels"
        ),
        pytest.param([[on("n1", "n2")], [on("n2", "n3")]], [field("n2")], id="a name must be in each group"),
        pytest.param([[on("n1")], [ANYWHERE]], [field("n1")], id="a group that is for all nodes narrows nothing"),
        pytest.param([[on("n1")], [where(RACK7)]], [labels(RACK7) | field("n1")], id="a name with labels"),
        pytest.param(
            [[where(RACK7)], [where(("zone", "Exists", []))]],
            [labels(RACK7, ("zone", "Exists"))],
            id="labels of two groups",
        ),
        pytest.param([[where(RACK7), where(RACK7)]], [labels(RACK7)], id="the same selector twice"),
        pytest.param(
            [[where(RACK7), where(RACK7, ("zone", "Exists", []))]], [labels(RACK7)], id="one within another is left out"
        ),
        pytest.param([[where(RACK7), where(RACK8)]] * 2, [labels(RACK7), labels(RACK8)], id="dual stack"),
        pytest.param(
            [[where(("rack", "In", ["7", "8"]))], [where(("rack", "NotIn", ["8"]), ("zone", "DoesNotExist", []))]],
            [labels(RACK7, ("zone", "DoesNotExist"))],
            id="values are narrowed",
        ),
        pytest.param(
            [[where(("rack", "NotIn", ["8"]))], [where(("rack", "Exists", []))]],
            [labels(("rack", "Exists"), ("rack", "NotIn", ["8"]))],
            id="two requirements of one label",
        ),
        pytest.param(
            [[where(("rack", "NotIn", ["8", "no value!"]), ("no key!", "DoesNotExist", []))]],
            [labels(("rack", "NotIn", ["8"]))],
            id="what no node can have is not asked for",
        ),
        pytest.param([[where(("no key!", "NotIn", ["x"]))]], None, id="what every node has narrows nothing"),
        pytest.param([[on("n1", "No Name")]], [field("n1")], id="a name that no node can have is left out"),
    ],
)
def test_pools_ask_for_the_nodes_that_they_serve(groups: list[list[Pool]], terms: list[dict[str, Any]] | None) -> None:
    assert restricted(None, groups) == Restricted(terms)


@pytest.mark.parametrize(
    ("own", "terms"),
    [
        pytest.param([labels(("a", "Exists"))], [labels(("a", "Exists")) | field("n1")], id="both must hold"),
        pytest.param(
            [labels(("a", "Exists")), labels(("b", "Exists"))],
            [labels(("a", "Exists")) | field("n1"), labels(("b", "Exists")) | field("n1")],
            id="each of its alternatives is narrowed",
        ),
        pytest.param(
            [labels(("cores", "Gt", ["4"]))], [labels(("cores", "Gt", ["4"])) | field("n1")], id="numbers stay"
        ),
        pytest.param([field("n1")], [field("n1")], id="what lies within stays"),
        pytest.param([field("n2"), field("n1")], [field("n1")], id="an alternative that is not served goes"),
        pytest.param(
            [field("n2", operator="NotIn")],
            [{"matchFields": [*field("n2", operator="NotIn")["matchFields"], *field("n1")["matchFields"]]}],
            id="a name that is barred",
        ),
        pytest.param([{}, field("n1")], [{}, field("n1")], id="a term that matches nothing stays as it is"),
        pytest.param(
            [{"matchExpressions": None, "matchFields": []}, labels(("a", "Exists"))],
            [{"matchExpressions": None, "matchFields": []}, labels(("a", "Exists")) | field("n1")],
            id="an empty one does too",
        ),
        pytest.param(
            [labels(("metadata.name", "In", ["n9"]))],
            [labels(("metadata.name", "In", ["n9"])) | field("n1")],
            id="a label that is called like the field is none",
        ),
    ],
)
def test_the_pods_own_requirements_hold_as_well(own: list[dict[str, Any]], terms: list[dict[str, Any]]) -> None:
    assert restricted(own, [[on("n1")]]) == Restricted(terms)
    assert restricted(terms, [[on("n1")]]) == Restricted(terms)


@pytest.mark.parametrize(
    ("own", "pools", "terms"),
    [
        pytest.param(
            [labels(("rack", "In", ["7", "8"]))],
            [where(("rack", "NotIn", ["8"]))],
            [labels(("rack", "In", ["7", "8"]), ("rack", "NotIn", ["8"]))],
            id="a value that is barred",
        ),
        pytest.param(
            [labels(RACK7), labels(RACK8)],
            [where(("rack", "NotIn", ["8"]))],
            [labels(RACK7)],
            id="an alternative that is barred",
        ),
        pytest.param(
            [labels(RACK7)],
            [where(RACK7), where(("zone", "Exists", []))],
            [labels(RACK7)],
            id="what lies within one stays",
        ),
    ],
)
def test_the_pods_own_labels_are_compared_with_those_of_the_pools(
    own: list[dict[str, Any]], pools: list[Pool], terms: list[dict[str, Any]]
) -> None:
    assert restricted(own, [pools]) == Restricted(terms)


@pytest.mark.parametrize(
    ("own", "groups", "told"),
    [
        pytest.param(None, [[on("n1")], [on("n2")]], "no node is served for all of its addresses", id="two names"),
        pytest.param(None, [[where(RACK7)], [where(RACK8)]], "no node is served", id="two labels"),
        pytest.param(None, [[where(("rack", "In", []))]], "no node is served", id="a selector without values"),
        pytest.param(
            None, [[where(("rack", "Gt", ["7"]))]], "no node is served", id="an operator of no label selector"
        ),
        pytest.param(None, [[on("No Name")]], "no node is served", id="no name of a node"),
        pytest.param([field("n2")], [[on("n1")]], "no node that its own node affinity allows", id="own and pools"),
        pytest.param([{}], [[on("n1")]], "no node that its own node affinity allows", id="own that matches nothing"),
        pytest.param(
            None, [[on(*(f"n{i}" for i in range(MOST + 1)))]], "101 nodes by name, more than 100", id="too many names"
        ),
        pytest.param(
            None,
            [[where(RACK7), *(on(f"n{i}") for i in range(MOST))]],
            "101 nodes or selectors of nodes, more than 100",
            id="too many of both",
        ),
        pytest.param(
            [labels(("a", "In", [str(i)])) for i in range(MOST + 1)],
            [[on("n1")]],
            "it has 101 terms",
            id="too many own",
        ),
        pytest.param(
            [labels(("a", "Exists")), labels(("b", "Exists"))],
            [[on(*(f"n{i}" for i in range(60)))]],
            "would be 120 terms",
            id="too many together",
        ),
    ],
)
def test_a_pod_that_cannot_be_narrowed_is_left_alone_and_told_why(
    own: list[dict[str, Any]] | None, groups: list[list[Pool]], told: str
) -> None:
    found = restricted(own, groups)
    assert found.terms is None
    assert told in found.problem


def test_a_hundred_names_are_taken() -> None:
    names = tuple(f"n{i}" for i in range(MOST))
    assert restricted(None, [[on(*names)], [on(*reversed(names))]]) == Restricted([field(name) for name in names])


@pytest.mark.parametrize(
    ("own", "is_chosen"),
    [
        pytest.param(None, False, id="no affinity"),
        pytest.param([], False, id="no term"),
        pytest.param([field("n1")], True, id="as a DaemonSet has it"),
        pytest.param([field("n1") | labels(("a", "Exists"))], True, id="with labels"),
        pytest.param([field("n1"), {}], True, id="beside a term that matches nothing"),
        pytest.param([field("n1"), labels(("a", "Exists"))], False, id="not in every term"),
        pytest.param([field("n1", operator="NotIn")], False, id="a name that is barred"),
    ],
)
def test_a_pod_names_its_nodes_when_every_term_does(own: list[dict[str, Any]] | None, *, is_chosen: bool) -> None:
    assert names_nodes(own) is is_chosen


def test_a_pod_whose_node_selector_allows_no_served_node_is_left_alone_and_told_so() -> None:
    pools = [where(RACK7), where(RACK8)]
    found = restricted(None, [pools], {"rack": "6"})
    assert found == Restricted(problem="its pools serve no node that its nodeSelector allows")
    assert restricted(None, [[*pools, on("n1")]], {"rack": "7"}) == Restricted([field("n1"), labels(RACK7)])


# The law


NAMES = ("n1", "n2", "n3")
KEYS = ("rack", "zone")
VALUES = ("6", "7", "8")


def requirements(*operators: str) -> st.SearchStrategy[Requirement]:
    return st.builds(
        lambda key, operator, values: Requirement(
            key, operator, values if operator in ("In", "NotIn") else frozenset()
        ),
        st.sampled_from(KEYS),
        st.sampled_from(operators),
        st.frozensets(st.sampled_from(VALUES), min_size=1),
    )


POOLS = st.one_of(
    st.builds(lambda names: on(*names), st.lists(st.sampled_from(NAMES), min_size=1, unique=True)),
    st.builds(
        lambda found: four("selecting", node_affinity=LabelSelector(tuple(found))),
        st.lists(requirements("In", "NotIn", "Exists", "DoesNotExist"), max_size=3),
    ),
    st.just(ANYWHERE),
)
GROUPS = st.lists(st.lists(POOLS, min_size=1, max_size=3), max_size=3)


def raw(requirement: Requirement) -> dict[str, Any]:
    values = {"values": sorted(requirement.values)} if requirement.values else {}
    return {"key": requirement.key, "operator": requirement.operator, **values}


EXPRESSIONS = st.one_of(
    requirements("In", "NotIn", "Exists", "DoesNotExist").map(raw),
    st.builds(
        lambda key, operator, bound: {"key": key, "operator": operator, "values": [bound]},
        st.sampled_from(KEYS),
        st.sampled_from(["Gt", "Lt"]),
        st.sampled_from(VALUES),
    ),
)
FIELDS = st.builds(
    lambda operator, name: {"key": "metadata.name", "operator": operator, "values": [name]},
    st.sampled_from(["In", "NotIn"]),
    st.sampled_from(NAMES),
)
OWN = st.none() | st.lists(
    st.fixed_dictionaries(
        {},
        optional={"matchExpressions": st.lists(EXPRESSIONS, max_size=2), "matchFields": st.lists(FIELDS, max_size=1)},
    ),
    min_size=1,
    max_size=3,
)
NODES = [
    (name, {key: value for key, value in (("rack", rack), ("zone", zone)) if value})
    for name in (*NAMES, "n4")
    for rack in (*VALUES, "")
    for zone in (*VALUES, "")
]


def satisfies(terms: Sequence[Mapping[str, Any]] | None, name: str, found: Mapping[str, str]) -> bool:
    """As kube-scheduler decides, written from the documentation of NodeSelector."""
    return terms is None or any(
        bool(term.get("matchExpressions") or term.get("matchFields"))
        and all(holds(each, found) for each in term.get("matchExpressions") or ())
        and all(holds(each, {"metadata.name": name}) for each in term.get("matchFields") or ())
        for term in terms
    )


def holds(expression: Mapping[str, Any], found: Mapping[str, str]) -> bool:
    value, values = found.get(expression["key"]), expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(values[0])
        case _:
            return value is not None and int(value) < int(values[0])


@given(OWN, GROUPS, st.none() | st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES)))
def test_a_node_satisfies_the_affinity_when_it_satisfies_the_pods_own_and_each_group_has_a_pool_that_serves_it(
    own: list[dict[str, Any]] | None, groups: list[list[Pool]], selector: dict[str, str] | None
) -> None:
    found = restricted(own, groups, selector)
    selected = [(name, has) for name, has in NODES if (selector or {}).items() <= has.items()]
    fitting = [
        name
        for name, has in selected
        if satisfies(own, name, has) and all(any(not [*by_node(pool, name, has)] for pool in pools) for pools in groups)
    ]
    if found.problem:
        assert not fitting
    else:
        terms = own if found.terms is None else found.terms
        assert [name for name, has in selected if satisfies(terms, name, has)] == fitting
        assert restricted(terms, groups, selector).terms in (terms, None), "completing twice changes nothing more"

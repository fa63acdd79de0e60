"""Which pools a pod has that takes its addresses from SpiderSubnets."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from allocator.domain import errors
from allocator.domain.applications import Application, label_value
from allocator.domain.candidates import listed
from allocator.domain.subnet_pools import SubnetRules
from tests.unit import values
from tests.unit.values import CART, automatic, by_name, four

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocator.domain.annotations import PoolNames
    from allocator.domain.pool import Pool

PREFIX = "ipam.spidernet.io/"
ON = SubnetRules(is_on=True, makes_pools=True, defaults={4: ("cluster",)})
EARLIER = replace(CART, uid="aaaaaaaa-0000-0000-0000-111111111111")
LONG = replace(CART, name="c" * 80)


def asks(**annotations: object) -> dict[str, str]:
    return {
        PREFIX + key.replace("_", "-"): text if isinstance(text, str) else json.dumps(text)
        for key, text in annotations.items()
    }


def names_of(
    annotations: Mapping[str, str],
    *pools: Pool,
    rules: SubnetRules = ON,
    namespace: Mapping[str, str] | None = None,
    application: Application = CART,
    interface: str = "eth0",
    **request: Any,
) -> PoolNames:
    pod = values.pod(annotations=annotations)
    around = replace(values.NOWHERE, application=application, namespace_annotations=namespace or {}, subnet_rules=rules)
    asked = replace(values.request(pod, interface=interface), **request)
    return next(each for each in listed(asked, pod, around, by_name(*pools)) if each.interface == interface)


# Which pools


def test_the_pools_come_in_the_order_of_the_subnets_and_then_by_name() -> None:
    pools = [automatic("auto4-b", of="s4"), automatic("auto4-a", of="s4"), automatic("auto4-c", of="t4")]
    assert names_of(asks(subnet={"ipv4": ["t4", "s4"]}), *pools).by_version == {4: ("auto4-c", "auto4-a", "auto4-b")}


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(automatic("auto4-x", application=EARLIER), id="of an earlier one of the same name"),
        pytest.param(automatic("auto4-x", application=replace(CART, name="pay")), id="of another name"),
        pytest.param(automatic("auto4-x", application=replace(CART, namespace="lab")), id="of another namespace"),
        pytest.param(automatic("auto4-x", application=replace(CART, kind="DaemonSet")), id="of another kind"),
        pytest.param(automatic("auto4-x", interface="net1"), id="for another interface"),
        pytest.param(automatic("auto4-x", of="t4"), id="of a subnet that is not listed"),
        pytest.param(automatic("auto6-x"), id="of the other family"),
        pytest.param(four("hand"), id="made by hand"),
    ],
)
def test_only_what_was_made_for_this_interface_of_this_application_counts(other: Pool) -> None:
    assert names_of(asks(subnet={"ipv4": ["s4"]}), automatic("auto4-a"), other).by_version == {4: ("auto4-a",)}


def test_names_that_are_too_long_for_a_label_are_found_by_what_is_left_of_them() -> None:
    pool = automatic("auto4-a", application=LONG, of=label_value("s" * 70))
    found = names_of(asks(subnet={"ipv4": ["s" * 70]}), pool, application=LONG)
    assert found.by_version == {4: ("auto4-a",)}


def test_a_bare_pod_is_an_application_of_its_own() -> None:
    bare = Application("v1", "Pod", "shop", "cart-1", "u1")
    pools = automatic("auto4-a", application=bare), automatic("auto4-b")
    assert names_of(asks(subnet={"ipv4": ["s4"]}), *pools, application=bare).by_version == {4: ("auto4-a",)}


# Where the subnets come from

SUBNET = asks(subnet={"ipv4": ["pod"]})
NAMESPACE = asks(default_ipv4_subnet=["namespace"])
MADE = [automatic(f"auto4-{subnet}", of=subnet) for subnet in ("pod", "namespace", "cluster")]
HAND = [four("hand"), four("default", default=True)]


@pytest.mark.parametrize(
    ("given", "pool"),
    [
        pytest.param({"annotations": SUBNET, "namespace": NAMESPACE}, "auto4-pod", id="the pod's annotation"),
        pytest.param(
            {"annotations": {**SUBNET, **asks(ippool="hand")}, "default_ipv4_pools": ("hand",)},
            "auto4-pod",
            id="the pod's annotation before pools",
        ),
        pytest.param({"annotations": asks(ippool="hand"), "namespace": NAMESPACE}, "hand", id="the pod's own pools"),
        pytest.param(
            {"annotations": {}, "namespace": NAMESPACE, "default_ipv4_pools": ("hand",)},
            "auto4-namespace",
            id="the namespace",
        ),
        pytest.param(
            {"annotations": {}, "namespace": asks(default_ipv4_ippool=["hand"])}, "hand", id="the namespace's pools"
        ),
        pytest.param({"annotations": {}}, "auto4-cluster", id="the cluster before its default pools"),
        pytest.param({"annotations": {}, "default_ipv4_pools": ("hand",)}, "hand", id="the CNI configuration"),
        pytest.param(
            {"annotations": {}, "rules": replace(ON, makes_pools=False)}, "default", id="no pools are made: no defaults"
        ),
        pytest.param(
            {"annotations": {**SUBNET, **asks(ippool="hand")}, "rules": replace(ON, is_on=False)},
            "hand",
            id="the feature is off",
        ),
    ],
)
def test_subnets_go_before_pools_in_each_source(given: dict[str, Any], pool: str) -> None:
    assert names_of(given.pop("annotations"), *MADE, *HAND, **given).by_version == {4: (pool,)}


def test_an_interface_that_has_no_item_goes_on_to_the_other_sources() -> None:
    annotations = {**SUBNET, **asks(ippool="hand")}
    assert names_of(annotations, *MADE, *HAND, interface="net1").by_version == {4: ("hand",)}


def test_an_item_of_ippools_means_nothing_for_an_interface_that_has_subnets() -> None:
    items = [{"interface": "eth0", "ipv4": ["hand"]}, {"interface": "net1", "ipv4": ["hand"]}]
    pod = values.pod(annotations={**SUBNET, **asks(ippools=items)})
    around = replace(values.NOWHERE, subnet_rules=ON)
    found = listed(values.request(pod, interface="net1"), pod, around, by_name(*MADE, *HAND))
    assert [each.interface for each in found] == ["net1"]


@pytest.mark.parametrize("given", [{"annotations": SUBNET}, {"annotations": {}, "namespace": NAMESPACE}])
def test_subnets_are_refused_in_words_where_no_pools_are_made_of_them(given: dict[str, Any]) -> None:
    with pytest.raises(errors.Invalid, match=r"eth0 asks for SpiderSubnets .* enableAutoPoolForApplication is false"):
        names_of(given["annotations"], rules=replace(ON, makes_pools=False), namespace=given.get("namespace"))

"""Whom a SpiderIPPool serves, by its CRD alone: no webhook is registered here. The embedded plane has no CEL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.plane.crds import refusal
from tests.plane.webhooks import pool

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient

pytestmark = pytest.mark.real_plane

V4 = "10.20.0.0/16"
LONG_PREFIX = ".".join(["a" * 60] * 4) + ".aaaaaaaaa"  # 253 characters


def wants(**expression: Any) -> dict[str, Any]:
    return {"matchExpressions": [{"key": "rack", "operator": "In", "values": ["a"], **expression}]}


RIGHT: dict[str, dict[str, Any]] = {
    "labels": {"matchLabels": {"rack": "7", "example.com/zone_1.a": "", "A": "b_c.d-e"}},
    "longest key and value": {"matchLabels": {f"{LONG_PREFIX}/{'a' * 63}": "a" * 63}},
    "In": wants(values=["a", ""]),
    "NotIn": wants(operator="NotIn"),
    "Exists": wants(operator="Exists", values=[]),
    "DoesNotExist": wants(operator="DoesNotExist", values=[]),
}
LABELS, EXPRESSION = "matchLabels", "matchExpressions[0]"
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "key with a blank": ({"matchLabels": {"a b": "x"}}, LABELS, "example.com/name"),
    "empty key": ({"matchLabels": {"": "x"}}, LABELS, "example.com/name"),
    "key without a name": ({"matchLabels": {"example.com/": "x"}}, LABELS, "example.com/name"),
    "key without a prefix": ({"matchLabels": {"/zone": "x"}}, LABELS, "example.com/name"),
    "prefix in capitals": ({"matchLabels": {"Example.com/zone": "x"}}, LABELS, "example.com/name"),
    "prefix with two dots": ({"matchLabels": {"example..com/zone": "x"}}, LABELS, "example.com/name"),
    "long name": ({"matchLabels": {"a" * 64: "x"}}, LABELS, "at most 63"),
    "long prefix": ({"matchLabels": {f"{LONG_PREFIX}a/a": "x"}}, LABELS, "example.com/name"),
    "value with a blank": ({"matchLabels": {"rack": "x y"}}, f"{LABELS}[rack]", "is no label value"),
    "value with a slash": ({"matchLabels": {"rack": "x/y"}}, f"{LABELS}[rack]", "is no label value"),
    "long value": ({"matchLabels": {"rack": "x" * 64}}, f"{LABELS}[rack]", "at most 63"),
    "In without values": (wants(values=[]), f"{EXPRESSION}.values", "must be given"),
    "NotIn without values": (
        {"matchExpressions": [{"key": "rack", "operator": "NotIn"}]},
        f"{EXPRESSION}.values",
        "must be given",
    ),
    "Exists with values": (wants(operator="Exists"), f"{EXPRESSION}.values", "must not be given"),
    "unknown operator": (wants(operator="Gt"), f"{EXPRESSION}.operator", "must be In, NotIn"),
    "expression without a key": (
        {"matchExpressions": [{"operator": "Exists"}]},
        f"{EXPRESSION}.key",
        "Required",
    ),
    "expression with an empty key": (wants(key=""), f"{EXPRESSION}.key", "is no label key"),
    "expression with a bad key": (wants(key="a/b/c"), f"{EXPRESSION}.key", "is no label key"),
    "expression with a long prefix": (wants(key=f"{LONG_PREFIX}a/a"), f"{EXPRESSION}.key", "is no label key"),
    "expression with a bad value": (wants(values=["a", "b c"]), f"{EXPRESSION}.values[1]", "should match"),
    "expression with a long value": (wants(values=["a" * 64]), f"{EXPRESSION}.values[0]", "63"),
}
SELECTORS = pytest.mark.parametrize("key", ["podAffinity", "namespaceAffinity", "nodeAffinity"])


@SELECTORS
@pytest.mark.parametrize("selector", RIGHT.values(), ids=RIGHT.keys())
async def test_a_selector_of_kubernetes_is_accepted(kube: KubeClient, key: str, selector: dict[str, Any]) -> None:
    assert (await refusal(kube, pool("p", subnet=V4, **{key: selector}))).text == ""


@SELECTORS
@pytest.mark.parametrize(("selector", "field", "word"), WRONG.values(), ids=WRONG.keys())
async def test_what_kubernetes_does_not_take_as_a_selector_is_refused(
    kube: KubeClient, key: str, selector: dict[str, Any], field: str, word: str
) -> None:
    found = await refusal(kube, pool("p", subnet=V4, **{key: selector}))
    assert found.fields == [f"spec.{key}.{field}"], found.text
    assert word in found.text


NAMES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "right": (
        {"nodeName": ["n", "n"], "namespaceName": ["shop"], "multusName": ["netops/macvlan-bond0", "a.b-c", "a"]},
        [],
    ),
    "empty": (
        {"nodeName": [""], "namespaceName": ["a", ""], "multusName": [""]},
        ["spec.multusName[0]", "spec.namespaceName[1]", "spec.nodeName[0]"],
    ),
    "two slashes": ({"multusName": ["a/b/c"]}, ["spec.multusName[0]"]),
    "no name": ({"multusName": ["netops/"]}, ["spec.multusName[0]"]),
    "no namespace": ({"multusName": ["/bond0"]}, ["spec.multusName[0]"]),
    "capitals": ({"multusName": ["netops/Bond0"]}, ["spec.multusName[0]"]),
    "a namespace with a dot": ({"multusName": ["net.ops/bond0"]}, ["spec.multusName[0]"]),
    "two dots": ({"multusName": ["netops/a..b"]}, ["spec.multusName[0]"]),
    "a dash at the end": ({"multusName": ["netops/a-"]}, ["spec.multusName[0]"]),
    "a number for a flag": ({"disable": 1}, ["spec.disable"]),
    "a text for a flag": ({"default": "yes"}, ["spec.default"]),
    "nobody": ({"podAffinity": {}}, ["spec.podAffinity"]),
    "nobody in particular": ({"podAffinity": {"matchLabels": {}, "matchExpressions": []}}, ["spec.podAffinity"]),
    "every namespace and node": ({"namespaceAffinity": {}, "nodeAffinity": {}}, []),
}


@pytest.mark.parametrize(("spec", "fields"), NAMES.values(), ids=NAMES.keys())
async def test_names_are_judged(kube: KubeClient, spec: dict[str, Any], fields: list[str]) -> None:
    found = await refusal(kube, pool("p", subnet=V4, **spec))
    assert found.fields == fields, found.text

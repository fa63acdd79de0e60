"""The definitions as files: what the original's users and tools rely on, and that every field explains itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2] / "manifests" / "crds"
CRDS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(ROOT.glob("spider*.yaml"))}
EVERY = pytest.mark.parametrize("crd", CRDS.values(), ids=CRDS.keys())


def version(crd: dict[str, Any]) -> dict[str, Any]:
    [only] = crd["spec"]["versions"]
    return dict(only)


def schema(crd: dict[str, Any]) -> dict[str, Any]:
    return dict(version(crd)["schema"]["openAPIV3Schema"])


def fields(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from fields(child, f"{path}.{name}")
    for part in ("items", "additionalProperties"):
        if isinstance(node.get(part), dict):
            yield from fields(node[part], f"{path}[]")


@pytest.mark.parametrize(
    ("plural", "kind", "scope", "short"),
    [
        ("spidersubnets", "SpiderSubnet", "Cluster", "ss"),
        ("spiderippools", "SpiderIPPool", "Cluster", "sp"),
        ("spiderreservedips", "SpiderReservedIP", "Cluster", "sr"),
        ("spiderendpoints", "SpiderEndpoint", "Namespaced", "se"),
        ("spideripaddresses", "SpiderIPAddress", "Cluster", "sia"),
    ],
)
def test_names_and_scope(plural: str, kind: str, scope: str, short: str) -> None:
    spec = CRDS[plural]["spec"]
    assert CRDS[plural]["metadata"]["name"] == f"{plural}.spiderpool.spidernet.io"
    assert (spec["group"], spec["scope"]) == ("spiderpool.spidernet.io", scope)
    assert spec["names"] == {
        "kind": kind,
        "listKind": f"{kind}List",
        "plural": plural,
        "singular": kind.lower(),
        "shortNames": [short],
        "categories": ["spiderpool"],
    }
    assert version(CRDS[plural])["name"] == "v2beta1"


def test_only_pools_and_subnets_have_a_status_subresource() -> None:
    with_status = {plural for plural, crd in CRDS.items() if "status" in version(crd).get("subresources", {})}
    assert with_status == {"spiderippools", "spidersubnets"}


@pytest.mark.parametrize(
    ("plural", "columns"),
    [
        (
            "spiderippools",
            [
                *("VERSION", "SUBNET", "ALLOCATED-IP-COUNT", "TOTAL-IP-COUNT", "DEFAULT", "DISABLE", "NodeName"),
                *("MultusName", "APP-NAMESPACE"),
            ],
        ),
        ("spidersubnets", ["VERSION", "SUBNET", "ALLOCATED-IP-COUNT", "TOTAL-IP-COUNT"]),
        ("spiderreservedips", ["VERSION"]),
        ("spiderendpoints", ["INTERFACE", "IPV4POOL", "IPV4", "IPV6POOL", "IPV6", "NODE"]),
        ("spideripaddresses", ["STATE", "POOL", "NAMESPACE", "POD", "NODE", "INTERFACE", "UNTIL", "AGE"]),
    ],
)
def test_the_columns_of_the_original_come_first(plural: str, columns: list[str]) -> None:
    names = [column["name"] for column in version(CRDS[plural])["additionalPrinterColumns"]]
    assert names[: len(columns)] == columns


@EVERY
def test_every_field_has_a_description(crd: dict[str, Any]) -> None:
    # kube-apiserver refuses a description of .metadata, and shows its own.
    silent = [path for path, node in fields(schema(crd)) if not node.get("description") and path != ".metadata"]
    assert silent == []


@EVERY
def test_every_list_that_a_rule_looks_into_is_bounded(crd: dict[str, Any]) -> None:
    unbounded = [
        path
        for path, node in fields(schema(crd))
        if node.get("type") == "array" and "maxItems" not in node and not path.endswith(".values")
    ]
    assert unbounded == []


@EVERY
def test_every_rule_says_what_is_wrong(crd: dict[str, Any]) -> None:
    for path, node in fields(schema(crd)):
        for rule in node.get("x-kubernetes-validations", []):
            assert rule["message"], path
            assert rule["reason"] in {"FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired"}, path


# What expressions may call: all of it is in Kubernetes 1.31 (the standard functions and macros of CEL, its strings of
# version 2, the lists, addresses and networks of Kubernetes). Equality of addresses and networks is not: the cost that
# early patches of 1.31 expect of it is beyond the limit, so texts are compared.
CALLS = {
    *("all", "exists", "exists_one", "filter", "map", "has", "hasValue", "value"),
    *("contains", "double", "int", "matches", "size", "string"),
    *("indexOf", "lowerAscii", "replace", "split", "substring", "min", "max"),
    *("cidr", "containsIP", "family", "ip", "isCIDR", "isIP", "masked", "prefixLength"),
}


@EVERY
def test_expressions_call_what_kubernetes_1_31_has(crd: dict[str, Any]) -> None:
    for path, node in fields(schema(crd)):
        for rule in node.get("x-kubernetes-validations", []):
            for expression in (rule["rule"], rule.get("messageExpression", "")):
                code = re.sub(r"'[^']*'", "''", expression)
                assert set(re.findall(r"(\w+)\(", code)) <= CALLS, path
                assert not re.search(r"(masked|ip)\(\) [!=]=|[!=]= (ip|cidr)\(", code), path


def test_a_subnet_judges_its_network_as_a_pool_does() -> None:
    pool, subnet = (schema(CRDS[plural])["properties"]["spec"] for plural in ("spiderippools", "spidersubnets"))
    assert subnet["x-kubernetes-validations"] == pool["x-kubernetes-validations"]
    for name, field in subnet["properties"].items():
        assert without_descriptions(field) == without_descriptions(pool["properties"][name]), name


def without_descriptions(node: Any) -> Any:
    if isinstance(node, list):
        return [without_descriptions(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: without_descriptions(value) for key, value in node.items() if key != "description"}


def test_nothing_is_required_that_the_original_did_not_require() -> None:
    required = {
        plural: {path: node["required"] for path, node in fields(schema(CRDS[plural])) if node.get("required")}
        for plural in ("spiderippools", "spidersubnets", "spiderreservedips", "spiderendpoints")
    }
    expression, condition = ["key", "operator"], ["type", "status", "lastTransitionTime", "reason", "message"]
    affinities = {f".spec.{kind}Affinity.matchExpressions[]": expression for kind in ("pod", "namespace", "node")}
    network = {".spec": ["subnet"], ".spec.routes[]": ["dst", "gw"], ".status.conditions[]": condition}
    assert required == {
        "spiderippools": {**network, **affinities},
        "spidersubnets": network,
        "spiderreservedips": {},
        "spiderendpoints": {
            ".status": ["current", "ownerControllerType", "ownerControllerName"],
            ".status.current": ["uid", "node", "ips"],
            ".status.current.ips[]": ["interface"],
            ".status.current.ips[].routes[]": ["dst", "gw"],
        },
    }


def test_defaults_are_those_of_the_original() -> None:
    defaults = {
        f"{plural}{path}": node["default"]
        for plural, crd in CRDS.items()
        for path, node in fields(schema(crd))
        if "default" in node
    }
    assert defaults == {
        "spiderippools.spec.default": False,
        "spiderippools.spec.disable": False,
        "spiderendpoints.status.current.ips[].vlan": 0,
    }

"""Objects that were stored before the rules: the API server judges again only what is changed (Kubernetes 1.30+).

The kinds are copies in a group of their own, first without a rule, then with all. The embedded plane has no CEL.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from allocator.kube import errors
from allocator.kube.resources import CRDS, Resource
from tests.plane.support import eventually, install_crd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object

pytestmark = pytest.mark.real_plane

FOLDER = Path(__file__).resolve().parents[2] / "manifests" / "crds"
GROUP = "old.test.example.com"
POOLS = Resource(GROUP, "v2beta1", "spiderippools", "SpiderIPPool", namespaced=False)
RESERVATIONS = Resource(GROUP, "v2beta1", "spiderreservedips", "SpiderReservedIP", namespaced=False)

V4 = "10.20.0.0/16"
# One fault for each place where a rule stands, and several of the spec as a whole.
WRONG_FIELDS: Object = {
    "subnet": V4,
    "ips": ["10.20.0.9-10.20.0.1", "10.20.0.20"],
    "nodeName": [""],
    "multusName": ["a/b/c"],
    "podAffinity": {"matchLabels": {"a b": "c d"}},
    "nodeAffinity": {"matchExpressions": [{"key": "a b", "operator": "Gt", "values": ["c d"]}]},
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.20.0.1"}],
}
WRONG_TOGETHER: Object = {
    "subnet": "fd00:7::/64",
    "ips": ["fd00:7::9-fd00:7::1", "fd00:8::1"],
    "gateway": "fd00:9::1",
    "routes": [{"dst": "10.99.0.0/16", "gw": "10.21.0.1"}],
}


def definition(resource: Resource) -> Object:
    found: Object = yaml.safe_load((FOLDER / f"{resource.plural}.yaml").read_text())
    found["metadata"]["name"] = f"{resource.plural}.{GROUP}"
    found["spec"]["group"] = GROUP
    found["spec"]["names"] = {"plural": resource.plural, "kind": resource.kind}
    return found


def without_rules(node: Any) -> Any:
    """The same without what this project and Kubernetes ask of a text: no rules, patterns, lengths or counts."""
    if isinstance(node, list):
        return [without_rules(item) for item in node]
    if not isinstance(node, dict):
        return node
    asked = {"x-kubernetes-validations", "pattern", "minLength", "maxLength"}
    return {key: without_rules(value) for key, value in node.items() if key not in asked}


@pytest.fixture
async def old(kube: KubeClient) -> AsyncIterator[dict[str, Object]]:
    """What was stored, by name; the rules are in force now."""
    stored = {
        "fields": (POOLS, WRONG_FIELDS),
        "together": (POOLS, WRONG_TOGETHER),
        "words": (RESERVATIONS, {"ips": ["x", "y"]}),
        "empty": (RESERVATIONS, None),
    }
    for resource in (POOLS, RESERVATIONS):
        await install_crd(kube, without_rules(definition(resource)))
    objects = {}
    for name, (resource, spec) in stored.items():
        obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}}
        objects[name] = await kube.create(resource, obj if spec is None else {**obj, "spec": copy.deepcopy(spec)})
    for resource in (POOLS, RESERVATIONS):
        strict = definition(resource)
        await kube.patch(CRDS, strict["metadata"]["name"], {"spec": strict["spec"]})
        await eventually(lambda resource=resource: is_judged(kube, resource))  # type: ignore[misc]
    yield objects
    for resource in (POOLS, RESERVATIONS):
        await kube.delete(CRDS, f"{resource.plural}.{GROUP}")


async def is_judged(kube: KubeClient, resource: Resource) -> bool:
    """Whether the server has taken the rules in."""
    obj = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": "probe"}}
    try:
        await kube.create(resource, {**obj, "spec": {"subnet": V4, "ips": ["x"]}}, dry_run=True)
    except errors.Invalid:
        return True
    return False


async def test_old_objects_can_be_lived_with_and_are_mended_field_by_field(
    kube: KubeClient, old: dict[str, Object]
) -> None:
    label = {"metadata": {"labels": {"team": "net"}, "finalizers": ["example.com/kept"]}}
    for name, obj in old.items():
        resource = POOLS if obj["kind"] == POOLS.kind else RESERVATIONS
        await kube.patch(resource, name, label)
        await kube.patch(resource, name, {"metadata": {"finalizers": None}})
    status = {"status": {"totalIPCount": 1}}
    for name in ("fields", "together"):
        await kube.patch(POOLS, name, status, subresource="status")

    # A fault in a field that stays as it was is nobody's business.
    await kube.patch(POOLS, "fields", {"spec": {"disable": True, "gateway": "10.20.0.1"}})
    with pytest.raises(errors.Invalid, match=r"spec\.nodeName\[1\]"):
        await kube.patch(POOLS, "fields", {"spec": {"nodeName": ["n", ""]}})
    with pytest.raises(errors.Invalid, match=r"spec\.ips\[0\].*reversed"):
        await kube.patch(POOLS, "fields", {"spec": {"ips": ["10.20.0.9-10.20.0.1"]}})
    await kube.patch(POOLS, "fields", {"spec": {"ips": ["10.20.0.1-10.20.0.9"], "gateway": "10.20.0.10"}})

    # A fault between fields is told with any change of the spec, as the webhook does it.
    with pytest.raises(errors.Invalid, match=r"reversed|outside") as told:
        await kube.patch(POOLS, "together", {"spec": {"disable": True}})
    assert {cause["field"] for cause in told.value.details["causes"]} == {"spec.ips", "spec.gateway", "spec.routes"}
    right = {"ips": ["fd00:7::1-fd00:7::9"], "gateway": None, "routes": None, "disable": True}
    await kube.patch(POOLS, "together", {"spec": right})

    with pytest.raises(errors.Invalid, match=r"spec\.ips\[1\]"):
        await kube.patch(RESERVATIONS, "words", {"spec": {"ips": ["10.20.0.1", "y"]}})
    await kube.patch(RESERVATIONS, "words", {"spec": {"ips": ["10.20.0.1"]}})
    await kube.patch(RESERVATIONS, "empty", {"spec": {"ips": ["10.20.0.1"]}})

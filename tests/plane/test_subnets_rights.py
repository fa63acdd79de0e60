"""A kind that the account of the controller may not read keeps nobody else waiting."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from allocator.kube.resources import Resource
from tests.plane import robots
from tests.plane.controllers import running_controller
from tests.plane.subnets import (
    asks,
    config_with,
    make_deployment,
    make_lone_pod,
    make_subnet,
    pools_of,
    until_event,
    until_pool,
    until_unserved,
)

if TYPE_CHECKING:
    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane

pytestmark = pytest.mark.real_plane

BASE = Path(__file__).resolve().parents[2] / "manifests" / "base"
ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True)
RBAC = "rbac.authorization.k8s.io"
ROLES = Resource(RBAC, "v1", "roles", "Role", namespaced=True)
BINDINGS = Resource(RBAC, "v1", "rolebindings", "RoleBinding", namespaced=True)
CLUSTER_ROLES = Resource(RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTER_BINDINGS = Resource(RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False)
KINDS = {each.kind: each for each in (ACCOUNTS, ROLES, BINDINGS, CLUSTER_ROLES, CLUSTER_BINDINGS)}


async def _account(kube: KubeClient, plane: Plane, namespace: str, directory: Path) -> Path:
    """A kubeconfig with the rights that manifests/base gives the controller, of this namespace."""
    for obj in yaml.safe_load_all((BASE / "controller.yaml").read_text()):
        if (resource := KINDS.get(obj["kind"])) is None:
            continue
        if resource.namespaced:
            obj["metadata"]["namespace"] = namespace
        else:
            obj["metadata"]["name"] += f"-{namespace}"
        if "roleRef" in obj and not resource.namespaced:
            obj["roleRef"]["name"] += f"-{namespace}"
        for subject in obj.get("subjects") or ():
            subject["namespace"] = namespace
        await kube.create(resource, obj)
    path = ACCOUNTS.path(namespace, "spiderpool-controller", "token")
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
    token = (await kube.raw("POST", path, body=body))["status"]["token"]
    config = copy.deepcopy(yaml.safe_load(plane.kubeconfig.read_text()))
    config["users"][0]["user"] = {"token": token}
    made = directory / "controller.kubeconfig"
    made.write_text(yaml.safe_dump(config))
    return made


async def test_an_application_of_a_kind_that_may_not_be_read_is_told_so_and_all_others_go_on(
    kube: KubeClient, plane: Plane, namespace: str, tmp_path: Path
) -> None:
    await robots.install(kube)
    account = await _account(kube, plane, namespace, tmp_path)
    await make_subnet(kube, "forbidden", "10.67.2.1-10.67.2.20")
    annotations = asks("forbidden", number="2")
    robot = await robots.make_one(kube, robots.ROBOTS, namespace, "arm", annotations, crew=1)
    await make_lone_pod(kube, namespace, "arm-1", annotations, owner=robot)
    said = config_with(tmp_path, subnetApplicationKinds=robots.KINDS)
    with running_controller(account, namespace, tmp_path, *said) as controller:
        event = await until_event(kube, robot, "ApplicationUnreadable")
        assert "what it asks for cannot be read" in event["note"]
        assert "cannot be read" in (await until_unserved(kube, "forbidden", robot))["message"]
        cart = await make_deployment(kube, namespace, "cart", annotations, replicas=1)
        await until_pool(kube, cart, "10.67.2.1-10.67.2.2")
        await until_unserved(kube, "forbidden", robot)
        assert await pools_of(kube, robot) == []
        assert controller.lines("watch_failed", resource="robots")

"""What a person types: real kubectl against the plane."""

import asyncio
import json
import os
import re

import pytest
import yaml

from allocator.kube import resources
from allocator.kube.client import KubeClient
from allocator.kube.resources import Resource
from devcluster.plane import Plane
from tests.plane.support import Kubectl, config_map, eventually, pod, widget


def text(obj: object) -> str:
    return yaml.safe_dump(obj)


async def test_apply_creates_changes_and_leaves_alone(kubectl: Kubectl, widgets: Resource, namespace: str) -> None:
    one = widget("one", namespace, tags=["a"])
    name = "widget.test.example.com/one"
    assert await kubectl("apply", "-f", "-", stdin=text(one)) == f"{name} created\n"
    assert await kubectl("apply", "-f", "-", stdin=text(one)) == f"{name} unchanged\n"
    changed = widget("one", namespace, color="green")
    assert await kubectl("apply", "-f", "-", stdin=text(changed)) == f"{name} configured\n"
    spec = json.loads(await kubectl("get", "wd", "one", "-n", namespace, "-o", "json"))["spec"]
    assert spec == {"color": "green", "size": 1}


async def test_diff_shows_what_apply_would_change(kubectl: Kubectl, widgets: Resource, namespace: str) -> None:
    await kubectl("apply", "-f", "-", stdin=text(widget("one", namespace)))
    out = await kubectl("diff", "-f", "-", stdin=text(widget("one", namespace, color="green")), check=False)
    assert re.search(r"^-  color: red$", out, re.MULTILINE)
    assert re.search(r"^\+  color: green$", out, re.MULTILINE)


async def test_create_refuses_unknown_fields(kubectl: Kubectl, widgets: Resource, namespace: str) -> None:
    out = await kubectl("create", "-f", "-", stdin=text(widget("one", namespace, colour="red")), check=False)
    assert 'strict decoding error: unknown field "spec.colour"' in out
    out = await kubectl("create", "--validate=warn", "-f", "-", stdin=text(widget("one", namespace, colour="red")))
    assert 'Warning: unknown field "spec.colour"' in out


async def test_create_tells_every_wrong_field(kubectl: Kubectl, widgets: Resource, namespace: str) -> None:
    wrong = widget("one", namespace, color="blue", size=10)
    out = await kubectl("create", "-f", "-", stdin=text(wrong), check=False)
    assert out.startswith('The Widget "one" is invalid: \n* spec.')
    assert '* spec.color: Unsupported value: "blue": supported values: "red", "green"' in out


async def test_get_prints_the_columns_of_the_definition(kubectl: Kubectl, widgets: Resource, namespace: str) -> None:
    await kubectl("create", "-f", "-", stdin=text(widget("one", namespace, parts=[{"name": "p1"}])))
    lines = (await kubectl("get", "wd", "-n", namespace)).splitlines()
    assert lines[0].split() == ["NAME", "COLOR", "SIZE", "FIRST", "AGE"]
    assert lines[1].split()[:4] == ["one", "red", "1", "p1"]
    assert re.fullmatch(r"\d+s", lines[1].split()[4])
    wide = await kubectl("get", "things", "-n", namespace, "-o", "wide")
    assert wide.splitlines()[0].split() == ["NAME", "COLOR", "SIZE", "FIRST", "APP", "AGE"]


async def test_get_selects_by_label_and_field(kubectl: Kubectl, widgets: Resource, namespace: str) -> None:
    for name, color in (("a", "red"), ("b", "green")):
        await kubectl("create", "-f", "-", stdin=text(widget(name, namespace, color=color)))
    await kubectl("label", "widget", "a", "-n", namespace, "kept=yes")
    assert (
        await kubectl("get", "wd", "-n", namespace, "-l", "kept in (yes)", "-o", "name")
        == "widget.test.example.com/a\n"
    )
    found = await kubectl("get", "wd", "-n", namespace, "--field-selector", "spec.color=green", "-o", "name")
    assert found == "widget.test.example.com/b\n"


async def test_get_watch_prints_a_row_for_each_change(
    kubectl: Kubectl, kube: KubeClient, widgets: Resource, namespace: str
) -> None:
    await kube.create(widgets, widget("one", namespace))
    process = await asyncio.create_subprocess_exec(
        "kubectl", "get", "wd", "-n", namespace, "-w", "--output-watch-events",
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "KUBECONFIG": str(kubectl.kubeconfig), "HOME": str(kubectl.home)},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            rows = [(await process.stdout.readline()).decode().split()[:3] for _ in range(2)]
            await kube.patch(widgets, "one", {"spec": {"color": "green"}}, namespace=namespace)
            rows.append((await process.stdout.readline()).decode().split()[:3])
            await kube.delete(widgets, "one", namespace=namespace)
            rows.append((await process.stdout.readline()).decode().split()[:3])
    finally:
        process.kill()
        await process.wait()
    assert rows == [
        ["EVENT", "NAME", "COLOR"],
        ["ADDED", "one", "red"],
        ["MODIFIED", "one", "green"],
        ["DELETED", "one", "green"],
    ]


async def test_edit_changes_through_an_editor(kubectl: Kubectl, widgets: Resource, namespace: str) -> None:
    await kubectl("create", "-f", "-", stdin=text(widget("one", namespace)))
    out = await kubectl("edit", "wd", "one", "-n", namespace, KUBE_EDITOR="sed -i s/red/green/")
    assert out == "widget.test.example.com/one edited\n"
    assert "green" in await kubectl("get", "wd", "one", "-n", namespace)


async def test_scale_wait_and_patch(kubectl: Kubectl, widgets: Resource, namespace: str) -> None:
    await kubectl("create", "-f", "-", stdin=text(widget("one", namespace)))
    assert "scaled" in await kubectl("scale", "widget/one", "-n", namespace, "--replicas", "4")
    await kubectl("wait", "-n", namespace, "--for=jsonpath={.spec.size}=4", "widget/one", "--timeout=10s")
    patch = '[{"op": "remove", "path": "/spec/size"}]'
    await kubectl("patch", "wd", "one", "-n", namespace, "--type=json", "-p", patch)
    assert await kubectl("get", "wd", "one", "-n", namespace, "-o", "jsonpath={.spec.size}") == "1"
    await kubectl(
        "patch", "wd", "one", "-n", namespace, "--subresource=status", "--type=merge", "-p", '{"status":{"note":"x"}}'
    )
    assert await kubectl("get", "wd", "one", "-n", namespace, "-o", "jsonpath={.status.note}") == "x"


async def test_describe_shows_fields_and_events(
    kubectl: Kubectl, kube: KubeClient, widgets: Resource, namespace: str
) -> None:
    made = await kube.create(widgets, widget("one", namespace))
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "one.1", "namespace": namespace},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "reportingController": "tester",
        "reportingInstance": "tester-0",
        "action": "Painting",
        "reason": "Painted",
        "type": "Normal",
        "note": "it is red now",
        "regarding": {
            "apiVersion": "test.example.com/v1",
            "kind": "Widget",
            "namespace": namespace,
            "name": "one",
            "uid": made["metadata"]["uid"],
        },
    }
    await kube.create(resources.EVENTS, event)
    out = await kubectl("describe", "wd", "one", "-n", namespace)
    assert re.search(r"Color:\s+red", out)
    assert re.search(r"Normal\s+Painted\s.*it is red now", out)


async def test_explain_shows_types_and_descriptions(kubectl: Kubectl, widgets: Resource) -> None:
    out = await kubectl("explain", "widget.spec.color")
    assert "FIELD: color <string>" in out
    assert "The paint." in out
    assert "weight\t<integer>" in await kubectl("explain", "widgets.spec.parts")


async def test_delete_waits_until_it_is_done(kubectl: Kubectl, widgets: Resource, namespace: str) -> None:
    await kubectl("create", "-f", "-", stdin=text(widget("one", namespace)))
    assert '"one" deleted' in await kubectl("delete", "wd", "one", "-n", namespace)
    out = await kubectl("get", "wd", "one", "-n", namespace, check=False)
    assert 'Error from server (NotFound): widgets.test.example.com "one" not found' in out
    assert await kubectl("delete", "wd", "one", "-n", namespace, "--ignore-not-found") == ""


async def test_apply_merges_what_it_does_not_own_in_built_in_kinds(
    kubectl: Kubectl, kube: KubeClient, namespace: str
) -> None:
    container = {"name": "main", "image": "registry.invalid/app:1", "env": [{"name": "A", "value": "1"}]}
    body = pod("one", namespace, containers=[container], schedulerName="nobody")
    await kubectl("apply", "-f", "-", stdin=text(body))
    await kubectl("label", "pod", "one", "-n", namespace, "by=hand")
    container["image"] = "registry.invalid/app:2"
    await kubectl("apply", "-f", "-", stdin=text(body))
    after = await kube.get(resources.PODS, "one", namespace=namespace)
    assert after["spec"]["containers"][0]["image"] == "registry.invalid/app:2"
    assert after["spec"]["containers"][0]["env"] == [{"name": "A", "value": "1"}]
    assert after["metadata"]["labels"] == {"by": "hand"}
    lines = (await kubectl("get", "pods", "-n", namespace)).splitlines()
    assert lines[0].split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert lines[1].split()[:4] == ["one", "0/1", "Pending", "0"]


async def test_typed_commands_create_built_in_objects(kubectl: Kubectl, kube: KubeClient, namespace: str) -> None:
    await kubectl("create", "configmap", "one", "-n", namespace, "--from-literal=a=b")
    assert (await kube.get(resources.CONFIG_MAPS, "one", namespace=namespace))["data"] == {"a": "b"}
    await kubectl("create", "secret", "generic", "two", "-n", namespace, "--from-literal=a=b")
    assert (await kube.get(resources.SECRETS, "two", namespace=namespace))["data"] == {"a": "Yg=="}
    await kubectl("create", "namespace", f"{namespace}-more")
    assert "Active" in await kubectl("get", "ns", f"{namespace}-more")
    await kubectl("delete", "namespace", f"{namespace}-more", "--wait=false")
    await kubectl("create", "deployment", "web", "-n", namespace, "--image=registry.invalid/web:1", "--replicas=0")
    out = await kubectl("get", "deploy", "-n", namespace, "-o", "wide")
    assert re.search(r"web\s+0/0\s+0\s+0\s+\d+s\s+web\s+registry.invalid/web:1\s+app=web", out)
    await kubectl("scale", "deployment", "web", "-n", namespace, "--replicas=2")
    assert (await kube.get(resources.DEPLOYMENTS, "web", namespace=namespace))["spec"]["replicas"] == 2
    assert "restarted" in await kubectl("rollout", "restart", "deployment/web", "-n", namespace)


async def test_a_job_is_made_from_a_cron_job_that_owns_it(kubectl: Kubectl, kube: KubeClient, namespace: str) -> None:
    await kubectl(
        "create", "cronjob", "nightly", "-n", namespace, "--image=registry.invalid/a:1", "--schedule=0 0 1 1 *"
    )
    template = {"metadata": {"annotations": {"a": "b"}}, "spec": {"nodeSelector": {"c": "d"}}}
    body = {"spec": {"jobTemplate": {"spec": {"parallelism": 2, "template": template}}}}
    await kube.patch(resources.CRON_JOBS, "nightly", body, namespace=namespace)
    await kubectl("create", "job", "now", "-n", namespace, "--from=cronjob/nightly")
    made = await kube.get(resources.JOBS, "now", namespace=namespace)
    (reference,) = made["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["name"], reference["controller"]) == ("CronJob", "nightly", True)
    made_of = made["spec"]["template"]
    assert made["spec"]["parallelism"] == 2
    assert made_of["metadata"]["annotations"] == {"a": "b"}
    assert made_of["spec"]["nodeSelector"] == {"c": "d"}
    assert made_of["spec"]["containers"][0]["image"] == "registry.invalid/a:1"


async def test_a_collection_is_deleted_by_selector(kubectl: Kubectl, kube: KubeClient, namespace: str) -> None:
    for name in ("a", "b"):
        await kube.create(resources.CONFIG_MAPS, config_map(name, namespace, labels={"x": "y"}))
    await kubectl("delete", "cm", "-n", namespace, "-l", "x=y")

    async def none_left() -> bool:
        return not (await kube.list(resources.CONFIG_MAPS, namespace=namespace, label_selector="x"))["items"]

    await eventually(none_left)


async def test_kubectl_knows_who_and_what(plane: Plane, kubectl: Kubectl, widgets: Resource) -> None:
    assert (await kubectl("auth", "can-i", "create", "widgets")).strip().endswith("yes")
    assert "kubernetes-admin" in await kubectl("auth", "whoami")
    line = next(x for x in (await kubectl("api-resources", "--categories=things")).splitlines() if "widgets" in x)
    assert line.split() == ["widgets", "wd", "test.example.com/v1", "true", "Widget"]
    assert "Server Version: v1." in await kubectl("version")
    if not plane.real:
        assert "+embedded" in await kubectl("version")


async def test_the_manifests_of_our_kinds_are_accepted_and_listed_by_category(plane: Plane, kubectl: Kubectl) -> None:
    out = await kubectl("apply", "-k", "manifests/crds")
    accepted = [line for line in out.splitlines() if not line.startswith("Warning: resource")]  # made without apply
    assert len(accepted) == 5
    assert all(line.startswith("customresourcedefinition.apiextensions.k8s.io/spider") for line in accepted)
    explained = await kubectl("explain", "spiderippool.spec.ips")
    assert "FIELD: ips <[]string>" in explained
    assert await kubectl("get", "spiderpool", "-A") in {"No resources found\n", "No resources found"}


@pytest.mark.parametrize("kind", ["pods", "deployments", "statefulsets", "replicasets", "leases", "jobs"])
async def test_built_in_kinds_are_listed(kubectl: Kubectl, namespace: str, kind: str) -> None:
    out = await kubectl("get", kind, "-n", namespace)
    assert "No resources found" in out

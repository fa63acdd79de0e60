"""The workload controllers and the kubelet against an API server; addresses come from a plugin of a few lines."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from allocator.kube import resources
from allocator.kube.errors import NotFound
from allocator.kube.events import Recorder
from allocator.runtime.clock import SystemClock
from devcluster.nodes import attach, podstatus, registration
from devcluster.nodes.kubelet import Kubelet
from devcluster.nodes.sandboxes import NoNamespaces
from devcluster.plane import envtest
from devcluster.waiting import until
from devcluster.workloads import manager

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane

WITHIN_S = 20.0
MINUTE = timedelta(minutes=1)

# Gives 10.8.0.N out in the order of the calls, and writes down every call. A file `refuse` makes ADD fail.
PLUGIN = """
    import fcntl, json, os, sys
    here = os.path.dirname(sys.argv[0])
    json.load(sys.stdin)
    command, arguments = os.environ["CNI_COMMAND"], dict(p.split("=") for p in os.environ["CNI_ARGS"].split(";"))
    with open(here + "/calls", "a+") as calls:
        fcntl.flock(calls, fcntl.LOCK_EX)
        calls.seek(0)
        number = len(calls.readlines()) + 1
        print(json.dumps([command, arguments["K8S_POD_NAME"], os.environ["CNI_CONTAINERID"]]), file=calls)
    if command == "ADD" and os.path.exists(here + "/refuse"):
        print(json.dumps({"code": 999, "msg": "pool demo-v4 is full"}))
        sys.exit(1)
    if command == "ADD":
        ips = [{"address": f"fd00:8::{number}/64"}, {"address": f"10.8.0.{number}/24"}]
        print(json.dumps({"cniVersion": "1.0.0", "ips": ips}))
"""


class MinuteAhead(SystemClock):
    """What was made just now was made before this minute began: a CronJob of every minute is due at once."""

    def now(self) -> datetime:
        return super().now() + MINUTE


class Workshop:
    """A namespace with nodes that run."""

    def __init__(self, kube: KubeClient, namespace: str, plugins: Path, kubelets: dict[str, Kubelet]) -> None:
        self.kube, self.namespace, self.plugins, self.kubelets = kube, namespace, plugins, kubelets

    def calls(self) -> list[tuple[str, str]]:
        path = self.plugins / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(command, pod) for command, pod, _ in map(json.loads, lines)]

    async def create(self, resource: resources.Resource, name: str, **spec: Any) -> dict[str, Any]:
        group = "" if resource.group == "" else f"{resource.group}/"
        obj = {
            "apiVersion": f"{group}{resource.version}",
            "kind": resource.kind,
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": spec,
        }
        return await self.kube.create(resource, obj)

    async def pods(self) -> list[dict[str, Any]]:
        items, _ = await self.kube.list_all(resources.PODS, namespace=self.namespace)
        return sorted(items, key=lambda pod: str(pod["metadata"]["name"]))

    async def pod(self, name: str) -> dict[str, Any] | None:
        return next((pod for pod in await self.pods() if pod["metadata"]["name"] == name), None)

    async def running(self, number: int) -> list[dict[str, Any]]:
        async def found() -> bool:
            pods = await self.pods()
            return len(pods) == number and all(pod["status"].get("phase") == "Running" for pod in pods)

        await until(found, within_s=WITHIN_S, what=f"{number} running pods")
        return await self.pods()

    async def until(self, condition: Callable[[], Awaitable[object]], what: str) -> None:
        await until(condition, within_s=WITHIN_S, what=what)


def workload(app: str, **annotations: str) -> dict[str, Any]:
    template: dict[str, Any] = {
        "metadata": {"labels": {"app": app}, "annotations": annotations},
        "spec": {
            "containers": [{"name": "main", "image": "registry.k8s.io/pause:3.10"}],
            "nodeSelector": {registration.LABEL: "true"},
        },
    }
    return {"selector": {"matchLabels": {"app": app}}, "template": template}


def missing_controllers(plane: Plane) -> tuple[manager.Plan, ...]:
    if plane.kind != "envtest":
        return (*manager.CONTROLLERS, *manager.SCHEDULER)
    beside = {path.name for path in envtest.binaries().iterdir()}
    return (
        *(() if "kube-controller-manager" in beside else manager.CONTROLLERS),
        *(() if "kube-scheduler" in beside else manager.SCHEDULER),
    )


@asynccontextmanager
async def _nodes(plane: Plane, kube: KubeClient, folder: Path) -> AsyncIterator[dict[str, Kubelet]]:
    clock = SystemClock()
    plugins = folder / "bin"
    plugins.mkdir()
    (plugins / attach.IPAM_PLUGIN).write_text(f"#!{sys.executable} -IS\n{textwrap.dedent(PLUGIN)}")
    (plugins / attach.IPAM_PLUGIN).chmod(0o755)
    events = Recorder(kube, component="devcluster", clock=clock)
    kubelets = {}
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(events.run(), name="events")]
        if plans := missing_controllers(plane):
            workloads = manager.Manager(kube, plans, events=events, clock=MinuteAhead())
            tasks.append(group.create_task(workloads.run(), name="workloads"))
        for name in ("node-1", "node-2"):
            await registration.register(kube, name, host="192.0.2.1", clock=clock)
            kubelets[name] = Kubelet(
                kube,
                node=name,
                host="192.0.2.1",
                attacher=attach.Plugins(attach.alone({"type": attach.IPAM_PLUGIN}), (plugins,), None),
                sandboxes=NoNamespaces(folder / "netns"),
                events=events,
                clock=clock,
            )
            tasks.append(group.create_task(kubelets[name].run(), name=f"kubelet {name}"))
        yield kubelets
        for task in tasks:
            task.cancel()
    for name in kubelets:
        await kube.delete(resources.NODES, name)


KINDS = (
    resources.DEPLOYMENTS,
    resources.STATEFUL_SETS,
    resources.DAEMON_SETS,
    resources.CRON_JOBS,
    resources.JOBS,
)


@pytest.fixture
async def shop(plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path) -> AsyncIterator[Workshop]:
    async with _nodes(plane, kube, tmp_path) as kubelets:
        shop = Workshop(kube, namespace, tmp_path / "bin", kubelets)
        yield shop
        for resource in KINDS:
            for obj in (await kube.list(resource, namespace=namespace))["items"]:
                await kube.delete(resource, obj["metadata"]["name"], namespace=namespace, propagation="Background")
        for pod in await shop.pods():
            try:
                await kube.delete(resources.PODS, pod["metadata"]["name"], namespace=namespace)
            except NotFound:
                continue

        async def empty() -> bool:
            return not await shop.pods()

        await shop.until(empty, "all pods to be gone")


async def test_pods_of_a_deployment_run_with_the_addresses_of_the_cni_result(shop: Workshop) -> None:
    await shop.create(resources.DEPLOYMENTS, "web", replicas=3, **workload("web"))
    pods = await shop.running(3)

    assert {pod["spec"]["nodeName"] for pod in pods} == {"node-1", "node-2"}
    for pod in pods:
        number = pod["status"]["podIP"].rpartition(".")[2]
        assert [one["ip"] for one in pod["status"]["podIPs"]] == [f"10.8.0.{number}", f"fd00:8::{number}"]


async def test_scaling_down_calls_del_and_finishes_the_deletion(shop: Workshop) -> None:
    await shop.create(resources.DEPLOYMENTS, "web", replicas=3, **workload("web"))
    before = {pod["metadata"]["name"] for pod in await shop.running(3)}
    patch = {"spec": {"replicas": 1}}
    await shop.kube.patch(resources.DEPLOYMENTS, "web", patch, namespace=shop.namespace)
    after = {pod["metadata"]["name"] for pod in await shop.running(1)}

    assert {pod for command, pod in shop.calls() if command == "DEL"} == before - after


async def test_a_rolling_update_ends_with_new_pods_only(shop: Workshop) -> None:
    await shop.create(resources.DEPLOYMENTS, "web", replicas=2, **workload("web"))
    before = {pod["metadata"]["uid"] for pod in await shop.running(2)}
    body = {"spec": {"template": {"metadata": {"annotations": {"edition": "2"}}}}}
    await shop.kube.patch(resources.DEPLOYMENTS, "web", body, namespace=shop.namespace)

    async def complete() -> bool:
        found = await shop.kube.get(resources.DEPLOYMENTS, "web", namespace=shop.namespace)
        status = found.get("status") or {}
        counts = [status.get(name) for name in ("replicas", "updatedReplicas", "availableReplicas")]
        return bool(status.get("observedGeneration") == found["metadata"]["generation"] and counts == [2, 2, 2])

    await shop.until(complete, "the rollout")
    assert not before & {pod["metadata"]["uid"] for pod in await shop.running(2)}


async def test_a_deleted_ordinal_comes_back_under_its_name(shop: Workshop) -> None:
    await shop.create(resources.STATEFUL_SETS, "db", replicas=2, serviceName="db", **workload("db"))
    pods = await shop.running(2)
    assert [pod["metadata"]["name"] for pod in pods] == ["db-0", "db-1"]
    uid = pods[0]["metadata"]["uid"]
    await shop.kube.delete(resources.PODS, "db-0", namespace=shop.namespace)

    async def back() -> bool:
        pod = await shop.pod("db-0")
        return pod is not None and pod["metadata"]["uid"] != uid and pod["status"].get("phase") == "Running"

    await shop.until(back, "the successor of db-0")
    assert shop.calls().count(("DEL", "db-0")) == 1


async def test_a_job_completes_and_its_pods_give_their_addresses_back(shop: Workshop) -> None:
    spec = {"template": workload("sum", **{podstatus.FINISH_AFTER: "0.1"})["template"]}
    spec["template"]["spec"]["restartPolicy"] = "Never"
    await shop.create(resources.JOBS, "sum", completions=2, parallelism=2, **spec)

    async def complete() -> bool:
        job = await shop.kube.get(resources.JOBS, "sum", namespace=shop.namespace)
        conditions = (job.get("status") or {}).get("conditions") or []
        return any(item["type"] == "Complete" and item["status"] == "True" for item in conditions)

    await shop.until(complete, "the Job")

    async def released() -> bool:
        return [command for command, _ in shop.calls()].count("DEL") == 2

    await shop.until(released, "both pods to be released")


async def test_a_daemon_set_runs_on_each_node_and_an_update_replaces_its_pods(shop: Workshop) -> None:
    await shop.create(resources.DAEMON_SETS, "agent", **workload("agent"))
    before = await shop.running(2)
    assert {pod["spec"]["nodeName"] for pod in before} == {"node-1", "node-2"}
    body = {"spec": {"template": {"metadata": {"annotations": {"edition": "2"}}}}}
    await shop.kube.patch(resources.DAEMON_SETS, "agent", body, namespace=shop.namespace)

    async def complete() -> bool:
        found = await shop.kube.get(resources.DAEMON_SETS, "agent", namespace=shop.namespace)
        status = found.get("status") or {}
        names = ("desiredNumberScheduled", "currentNumberScheduled", "updatedNumberScheduled", "numberReady")
        counts = [status.get(name) for name in names]
        return bool(status.get("observedGeneration") == found["metadata"]["generation"] and counts == [2, 2, 2, 2])

    await shop.until(complete, "the rollout")
    after = await shop.running(2)
    assert {pod["spec"]["nodeName"] for pod in after} == {"node-1", "node-2"}
    assert not {pod["metadata"]["uid"] for pod in before} & {pod["metadata"]["uid"] for pod in after}


async def test_pods_go_with_their_daemon_set(shop: Workshop) -> None:
    await shop.create(resources.DAEMON_SETS, "agent", **workload("agent"))
    await shop.running(2)
    await shop.kube.delete(resources.DAEMON_SETS, "agent", namespace=shop.namespace, propagation="Background")

    async def gone() -> bool:
        return not await shop.pods()

    await shop.until(gone, "the pods to be gone")


async def test_the_jobs_of_a_cron_job_run_and_go_with_it(shop: Workshop) -> None:
    template = workload("nightly", **{podstatus.FINISH_AFTER: "0.1"})["template"]
    template["spec"]["restartPolicy"] = "Never"
    job = {"spec": {"template": template}}
    made = await shop.create(resources.CRON_JOBS, "nightly", schedule="* * * * *", jobTemplate=job)

    async def succeeded() -> bool:
        cron_job = await shop.kube.get(resources.CRON_JOBS, "nightly", namespace=shop.namespace)
        return "lastSuccessfulTime" in (cron_job.get("status") or {})

    # A real controller-manager looks at the real clock.
    await until(succeeded, within_s=MINUTE.total_seconds() + WITHIN_S, what="the first Job")
    done = (await shop.kube.list(resources.JOBS, namespace=shop.namespace))["items"][0]
    (reference,) = done["metadata"]["ownerReferences"]
    assert (reference["kind"], reference["uid"], reference["controller"]) == ("CronJob", made["metadata"]["uid"], True)
    pods = [pod for pod in await shop.pods() if pod["metadata"]["ownerReferences"][0]["uid"] == done["metadata"]["uid"]]
    assert [pod["status"]["phase"] for pod in pods] == ["Succeeded"]
    await shop.kube.delete(resources.CRON_JOBS, "nightly", namespace=shop.namespace, propagation="Background")

    async def gone() -> bool:
        left = (await shop.kube.list(resources.JOBS, namespace=shop.namespace))["items"]
        return not left and not await shop.pods()

    await shop.until(gone, "the Jobs and their pods to be gone")


async def test_a_refused_add_is_tried_again_in_a_new_sandbox_and_told_as_an_event(shop: Workshop) -> None:
    refuse = shop.plugins / "refuse"
    refuse.touch()
    await shop.create(resources.STATEFUL_SETS, "db", replicas=1, serviceName="db", **workload("db"))

    async def told() -> bool:
        events = (await shop.kube.list(resources.EVENTS, namespace=shop.namespace))["items"]
        return any(
            event["reason"] == "FailedCreatePodSandBox" and "pool demo-v4 is full" in event["note"] for event in events
        )

    await shop.until(told, "the event")
    refuse.unlink()
    await shop.running(1)
    lines = [json.loads(line) for line in (shop.plugins / "calls").read_text().splitlines()]
    assert [command for command, _, _ in lines[:2]] == ["ADD", "DEL"]
    assert lines[0][2] == lines[1][2] != lines[-1][2]


async def test_a_crashed_pod_is_never_released_by_its_node(shop: Workshop) -> None:
    await shop.create(resources.STATEFUL_SETS, "db", replicas=1, serviceName="db", **workload("db"))
    (pod,) = await shop.running(1)
    uid = pod["metadata"]["uid"]
    await shop.kubelets[pod["spec"]["nodeName"]].crash_pod(uid)
    await shop.kube.delete(resources.PODS, "db-0", namespace=shop.namespace, grace_period_s=0)

    async def replaced() -> bool:
        found = await shop.pod("db-0")
        return found is not None and found["metadata"]["uid"] != uid and found["status"].get("phase") == "Running"

    await shop.until(replaced, "the successor of db-0")
    assert ("DEL", "db-0") not in shop.calls()


async def test_pods_go_with_their_deployment(shop: Workshop) -> None:
    await shop.create(resources.DEPLOYMENTS, "web", replicas=2, **workload("web"))
    await shop.running(2)
    await shop.kube.delete(resources.DEPLOYMENTS, "web", namespace=shop.namespace, propagation="Background")

    async def gone() -> bool:
        left = (await shop.kube.list(resources.REPLICA_SETS, namespace=shop.namespace))["items"]
        return not left and not await shop.pods()

    await shop.until(gone, "ReplicaSet and pods to be gone")


async def test_a_node_of_someone_else_is_left_alone(kube: KubeClient) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-7", "labels": {"rack": "7"}}}
    await kube.create(resources.NODES, node)
    try:
        with pytest.raises(registration.ForeignNodeError, match="a node node-7 of its own"):
            await registration.register(kube, "node-7", host="192.0.2.7", clock=SystemClock())
        assert (await kube.get(resources.NODES, "node-7"))["metadata"]["labels"] == {"rack": "7"}
    finally:
        await kube.delete(resources.NODES, "node-7")

"""What pods, people and runtimes do so that an agent comes by each of its boundaries, whatever dies meanwhile."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from allocator.kube.resources import PODS, SPIDER_ENDPOINTS
from devcluster.waiting import until
from tests.crash.runtime import NotReleased, Plugin, armed_plugin
from tests.plane.controllers import FINALIZER

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from allocator.kube.resources import Object
    from tests.crash.stage import Cluster

    Scene = Callable[[Cluster], Coroutine[None, None, object]]


def asks_for(*pools: Object) -> str:
    """The annotation `ippool`."""
    names: dict[str, list[str]] = {}
    for pool in pools:
        names.setdefault(f"ipv{pool['spec']['ipVersion']}", []).append(pool["metadata"]["name"])
    return json.dumps(names)


async def add(cluster: Cluster) -> None:
    await cluster.runtime.start(await cluster.pod(asks_for(await cluster.pool(3))))


async def add_both_families(cluster: Cluster) -> None:
    pools = [await cluster.pool(3), await cluster.pool(3, version=6)]
    await cluster.runtime.start(await cluster.pod(asks_for(*pools)))


async def new_sandbox(cluster: Cluster) -> None:
    """The pod lives through a restart of its sandbox, in a full pool."""
    pod = await cluster.pod(asks_for(await cluster.pool(1)))
    before = await cluster.runtime.start(pod)
    assert await cluster.runtime.start(pod) == before


async def last_address(cluster: Cluster) -> None:
    """It goes from one pod to the next before it has cooled."""
    annotation = asks_for(await cluster.pool(1))
    first = await cluster.pod(annotation)
    await cluster.runtime.start(first)
    await cluster.end(first)
    await cluster.runtime.start(await cluster.pod(annotation))


async def successor(cluster: Cluster) -> None:
    """A member of a StatefulSet ends, and the next one of its name gets its address."""
    owner, annotation = await cluster.stateful_set(), asks_for(await cluster.pool(3))
    name = f"{owner['metadata']['name']}-0"
    first = await cluster.pod(annotation, name=name, owner=owner)
    before = await cluster.runtime.start(first)
    await cluster.end(first)
    assert await cluster.runtime.start(await cluster.pod(annotation, name=name, owner=owner)) == before


async def refusal(cluster: Cluster) -> None:
    """There is an IPv4 address for the second pod and no IPv6 one, until the first ends."""
    annotation = asks_for(await cluster.pool(2), await cluster.pool(1, version=6))
    first, second = await cluster.pod(annotation), await cluster.pod(annotation)
    await cluster.runtime.start(first)
    await cluster.runtime.try_once(second)
    await cluster.end(first)
    await cluster.runtime.start(second)


async def long_refusal(cluster: Cluster) -> None:
    """A pod that waits for an address says so for so long that its event is counted."""
    annotation = asks_for(await cluster.pool(1))
    first, second = await cluster.pod(annotation), await cluster.pod(annotation)
    await cluster.runtime.start(first)
    pid = cluster.stage.actors[f"agent-{cluster.nodes[0]}"].pid

    async def refused() -> bool:
        await cluster.runtime.try_once(second)
        return cluster.stage.actors[f"agent-{cluster.nodes[0]}"].pid != pid

    await until(refused, within_s=40, what="an event that is counted")
    await cluster.end(first)
    await cluster.runtime.start(second)


async def more_interfaces(cluster: Cluster) -> None:
    pod = await cluster.pod(asks_for(await cluster.pool(3)))
    await cluster.runtime.start(pod, "eth0", "net1")


async def endpoint_of_the_original(cluster: Cluster) -> None:
    """The original's agents gave endpoints a finalizer."""
    pod = await cluster.pod(asks_for(await cluster.pool(1)))
    await cluster.runtime.start(pod)
    endpoint = {"metadata": {key: pod["metadata"][key] for key in ("name", "namespace")}}
    await cluster.api.patch(SPIDER_ENDPOINTS, endpoint, {"metadata": {"finalizers": [FINALIZER]}})
    await cluster.end(pod)


async def same_name(cluster: Cluster) -> None:
    """A pod that ended without DEL, and another one of its name at once."""
    annotation = asks_for(await cluster.pool(3))
    first = await cluster.pod(annotation)
    await cluster.runtime.start(first)
    await cluster.lose(first)
    await cluster.runtime.start(await cluster.pod(annotation, name=first["metadata"]["name"]))


async def job_whose_runtime_dies_too(cluster: Cluster) -> None:
    """The pod has ended well and stands for as long as people want to look at it; nobody repeats the DEL."""
    pod = await cluster.pod(asks_for(await cluster.pool(1)))
    await cluster.runtime.start(pod)
    told = cluster.runtime.forget(pod)
    assert told is not None
    await cluster.api.patch(PODS, pod, {"status": {"phase": "Succeeded"}}, subresource="status")
    with suppress(NotReleased):
        await cluster.runtime.lines[pod["spec"]["nodeName"]].delete(pod, "eth0", told.container)


async def migration_that_fails(cluster: Cluster) -> None:
    """The source of a virtual machine's live migration goes on with the address."""
    machine, annotation = await cluster.machine(), asks_for(await cluster.pool(1))
    source = await cluster.launcher(machine, annotation)
    before = await cluster.runtime.start(source)
    target = await cluster.launcher(machine, annotation, migrates=True)
    assert await cluster.runtime.start(target) == before
    await cluster.end(target)


async def release_while_the_agent_is_away(cluster: Cluster) -> None:
    """The plugin keeps the DEL, and the agent makes up for it."""
    pod = await cluster.pod(asks_for(await cluster.pool(1)))
    await cluster.runtime.start(pod)
    told = await cluster.lose(pod)
    assert told is not None
    node = pod["spec"]["nodeName"]
    # Stopped, so that it is away for as long as the plugin asks.
    agent = cluster.stage.actors[f"agent-{node}"]
    agent.pause()
    await cluster.runtime.release(told, line=plugin_of(cluster, node))
    agent.resume()
    agent.kill()
    intents = cluster.stage.folder / node / "intents"

    async def made_up_for() -> bool:
        return not list(intents.glob("*.json"))

    await until(made_up_for, within_s=60, what="the agent to make up for the DEL")


async def restart(cluster: Cluster) -> None:
    """SIGTERM, as of a rolling update; the pod of before is known, and another one is served."""
    annotation = asks_for(await cluster.pool(2))
    await cluster.runtime.start(await cluster.pod(annotation))
    await cluster.stage.restart(f"agent-{cluster.nodes[0]}")
    await cluster.runtime.start(await cluster.pod(annotation))


def plugin_of(cluster: Cluster, node: str) -> Plugin:
    stage = cluster.stage
    return Plugin(armed_plugin(stage.plugin_fuse(node)), stage.folder / f"{node}.sock", stage.folder / node)


# The scenes that lead by each boundary, and by no other of the kind before.
SCENES: Final[dict[str, tuple[Scene, ...]]] = {
    "create-SpiderIPAddress": (add, add_both_families),
    "patch-SpiderIPAddress=Held": (new_sandbox, last_address, successor, migration_that_fails),
    "patch-SpiderIPAddress=Cooling": (last_address,),
    "patch-SpiderIPAddress=Retained": (successor,),
    "delete-SpiderIPAddress": (refusal,),
    "create-SpiderEndpoint": (add, same_name),
    "replace-SpiderEndpoint": (successor, more_interfaces),
    "patch-SpiderEndpoint=status": (migration_that_fails,),
    "patch-SpiderEndpoint=finalizers": (endpoint_of_the_original,),
    "delete-SpiderEndpoint": (last_address, job_whose_runtime_dies_too),
    "create-Event": (refusal,),
    "patch-Event=series": (long_refusal,),
    "name-socket": (restart,),
    "remove-socket": (restart,),
    "remove-intent": (release_while_the_agent_is_away,),
}

"""The operations of the agent API, version 1, in one table: it makes the routes and the OpenAPI document."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import structlog
from aiohttp import web

from agent import answers, api, bodies

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from agent.work import Work

T = TypeVar("T", bound=bodies.Form | None)

# An ADD may wait for an API server that restarts, and kubelet waits 4 minutes for a sandbox; DEL has to be back soon,
# or the plugin keeps it for later.
ADD_S: Final = 60.0
DEL_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[T]):
    """`within_s` is the deadline, unless the caller has less time left. `on_tcp`: also on the port for probes."""

    name: str
    method: str
    path: str
    summary: str
    does: Callable[[Work, T, float], Awaitable[web.Response]]
    body: type[T] | None = None
    query: type[T] | None = None
    gives: type | None = None
    refuses: Mapping[int, str] = field(default_factory=dict)
    within_s: float = DEL_S
    on_tcp: bool = False
    is_implemented: bool = True
    is_logged: bool = False


async def healthy(work: Work, _asked: None, _within_s: float) -> web.Response:
    problem = work.status.problem()
    return web.Response() if problem is None else answers.bare(500, problem)


async def add(work: Work, asked: bodies.IpamAddArgs, within_s: float) -> web.Response:
    _bind(asked)
    assigned = await work.add(asked.request(), within_s=within_s)
    return web.json_response(api.add_response(assigned, work.detection))


async def delete(work: Work, asked: bodies.IpamDelArgs, within_s: float) -> web.Response:
    _bind(asked)
    await work.delete(asked.request(), within_s=within_s)
    return web.Response()


async def nothing(_work: Work, _asked: None, _within_s: float) -> web.Response:
    return web.Response()


async def hand_back(work: Work, asked: bodies.IpamBatchDelArgs, within_s: float) -> web.Response:
    _bind(asked)
    await work.hand_back(asked.request(), within_s=within_s)
    return web.Response()


async def collect(work: Work, asked: bodies.IpamGcArgs, within_s: float) -> web.Response:
    await work.collect(asked.request(), within_s=within_s)
    return web.Response()


async def status(work: Work, asked: bodies.IpamStatusArgs, within_s: float) -> web.Response:
    await work.check_status(asked.request(), within_s=within_s)
    return web.Response()


async def workload_endpoint(work: Work, asked: bodies.PodQuery, within_s: float) -> web.Response:
    found = await work.endpoint(asked.pod_namespace, asked.pod_name, within_s=within_s)
    if found is None:
        return answers.bare(404, f"pod {asked.pod_namespace}/{asked.pod_name} has no address on this node")
    return web.json_response(api.workload_endpoint(*found))


async def coordinator_config(_work: Work, _asked: None, _within_s: float) -> web.Response:
    return answers.coded(501, "the coordinator is not part of this version: leave its plugin out of the network")


async def started(work: Work, _asked: None, _within_s: float) -> web.Response:
    return web.Response() if work.status.started else answers.bare(500, "the caches are not filled yet")


async def alive(_work: Work, _asked: None, _within_s: float) -> web.Response:
    return web.Response()


NOT_NOW: Final = {500: "why not now, in words"}
OPERATIONS: Final[tuple[Operation[Any], ...]] = (
    Operation(
        name="getIpamHealthy",
        method="GET",
        path="/ipam/healthy",
        summary="Whether the agent can serve requests now.",
        does=healthy,
        refuses=NOT_NOW,
    ),
    Operation(
        name="postIpamIp",
        method="POST",
        path="/ipam/ip",
        summary="Assign addresses to an interface of a pod.",
        does=add,
        body=bodies.IpamAddArgs,
        gives=api.IpamAddResponse,
        refuses={
            500: "why there is no address, in words; X-Spiderpool-Reason and X-Spiderpool-CNI-Code say it in codes"
        },
        within_s=ADD_S,
        is_logged=True,
    ),
    Operation(
        name="deleteIpamIp",
        method="DELETE",
        path="/ipam/ip",
        summary="Release what an interface holds. The addresses of a pod that lives stay.",
        does=delete,
        body=bodies.IpamDelArgs,
        refuses=NOT_NOW,
        is_logged=True,
    ),
    Operation(
        name="postIpamIps",
        method="POST",
        path="/ipam/ips",
        summary="Nothing: the plugin of the original has a call for it.",
        does=nothing,
    ),
    Operation(
        name="deleteIpamIps",
        method="DELETE",
        path="/ipam/ips",
        summary="Hand back what the last ADD of a sandbox got, because somebody else uses it.",
        does=hand_back,
        body=bodies.IpamBatchDelArgs,
        refuses={
            500: "why not, in words",
            521: "switched off by SPIDERPOOL_ENABLED_RELEASE_CONFLICT_IPS",
            522: "the addresses of a static workload stay",
        },
        is_logged=True,
    ),
    Operation(
        name="postIpamGc",
        method="POST",
        path="/ipam/gc",
        summary="Release this node's attachments of a network that are not listed and whose pods are gone.",
        does=collect,
        body=bodies.IpamGcArgs,
        refuses={500: "what was not released, in words; nothing at all when it would be too much to be true"},
        within_s=ADD_S,
        is_logged=True,
    ),
    Operation(
        name="postIpamStatus",
        method="POST",
        path="/ipam/status",
        summary="Whether an ADD of a network with these pools can be served now.",
        does=status,
        body=bodies.IpamStatusArgs,
        refuses={500: "why not, in words; X-Spiderpool-CNI-Code is 50 or 51"},
    ),
    Operation(
        name="getWorkloadendpoint",
        method="GET",
        path="/workloadendpoint",
        summary="What the interfaces of a pod of this node hold; a virtual machine is asked for by its own name.",
        does=workload_endpoint,
        query=bodies.PodQuery,
        gives=api.WorkloadEndpointStatus,
        refuses={404: "no such pod on this node, or no address", 500: "why not now, in words"},
    ),
    Operation(
        name="getCoordinatorConfig",
        method="GET",
        path="/coordinator/config",
        summary="Not implemented.",
        does=coordinator_config,
        is_implemented=False,
    ),
    Operation(
        name="getRuntimeStartup",
        method="GET",
        path="/runtime/startup",
        summary="Whether the agent has started.",
        does=started,
        refuses=NOT_NOW,
        on_tcp=True,
    ),
    Operation(
        name="getRuntimeReadiness",
        method="GET",
        path="/runtime/readiness",
        summary="Whether the agent can serve requests now.",
        does=healthy,
        refuses=NOT_NOW,
        on_tcp=True,
    ),
    Operation(
        name="getRuntimeLiveness",
        method="GET",
        path="/runtime/liveness",
        summary="Whether the agent's event loop turns.",
        does=alive,
        on_tcp=True,
    ),
)


def _bind(asked: bodies.IpamAddArgs | bodies.IpamDelArgs | bodies.IpamBatchDelArgs) -> None:
    """What every log line of this request says."""
    structlog.contextvars.bind_contextvars(
        pod=f"{asked.pod_namespace}/{asked.pod_name}", uid=asked.pod_uid, container=asked.container_id
    )

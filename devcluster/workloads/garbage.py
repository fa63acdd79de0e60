"""Dependants of owners that are gone, for planes where nobody else collects them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.kube import resources
from devcluster.workloads.world import Action, Collect, World, controller_of, is_leaving

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = {
    "Deployment": resources.DEPLOYMENTS,
    "ReplicaSet": resources.REPLICA_SETS,
    "StatefulSet": resources.STATEFUL_SETS,
    "DaemonSet": resources.DAEMON_SETS,
    "Job": resources.JOBS,
    "CronJob": resources.CRON_JOBS,
}


def plan(world: World) -> Iterator[Action]:
    sets = (*world.deployments, *world.replica_sets, *world.stateful_sets, *world.daemon_sets)
    owners = (*sets, *world.jobs, *world.cron_jobs)
    living = {owner["metadata"]["uid"] for owner in owners}
    for resource, dependants in (
        (resources.REPLICA_SETS, world.replica_sets),
        (resources.JOBS, world.jobs),
        (resources.PODS, world.pods),
    ):
        for obj in dependants:
            controller = controller_of(obj)
            if controller and controller["kind"] in KINDS and controller["uid"] not in living and not is_leaving(obj):
                yield Collect(resource, obj, controller)

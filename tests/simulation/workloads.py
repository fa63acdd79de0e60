"""What the controllers of Deployments, StatefulSets and Jobs do for the tenants' applications, once a second.

Pods are the applications' own, without a ReplicaSet in between, and carry the annotations of the template. Of another
template they are replaced one by one. Those of an application that is gone go by their owner references.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from devcluster.plane.store import Key
from tests.simulation.tenants import APPLICATIONS, NAMESPACE

if TYPE_CHECKING:
    import random

    from devcluster.plane.problems import Object
    from tests.simulation.world import World


class Workloads:
    def __init__(self, world: World, rng: random.Random) -> None:
        self._world = world
        self._rng = rng
        self._made = 0

    async def run(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            pods: dict[str, list[Object]] = {}
            for _, pod in self._world.server.store.items("/pods"):
                for owner in pod["metadata"].get("ownerReferences") or ():
                    pods.setdefault(owner["uid"], []).append(pod)
            for name, (collection, _) in APPLICATIONS.items():
                raw = self._world.server.store.get(Key(collection, NAMESPACE, name))
                if raw is not None and not raw["metadata"].get("deletionTimestamp"):
                    self._tend(name, raw, pods.get(raw["metadata"]["uid"], []))

    def _tend(self, name: str, raw: Object, pods: list[Object]) -> None:
        standing = [pod for pod in pods if not pod["metadata"].get("deletionTimestamp")]
        living = [pod for pod in standing if not is_over(pod)]
        kind = raw["kind"]
        if kind == "Job":
            self._tend_job(raw, standing, living)
            return
        for pod in standing:
            if is_over(pod):
                self._delete(pod)
        wanted = int(raw["spec"]["replicas"])
        if kind == "StatefulSet":
            self._tend_ordinals(name, raw, pods, wanted)
        elif len(living) < wanted:
            self._make(raw, self._fresh(name))
        elif len(living) > wanted:
            self._delete(self._rng.choice(living))
        elif stale := [pod for pod in living if _said(pod) != _template(raw)]:
            self._delete(stale[0])

    def _tend_ordinals(self, name: str, raw: Object, pods: list[Object], wanted: int) -> None:
        by_name = {pod["metadata"]["name"]: pod for pod in pods}
        names = [f"{name}-{ordinal}" for ordinal in range(wanted)]
        for each, pod in by_name.items():
            if not pod["metadata"].get("deletionTimestamp") and (each not in names or _said(pod) != _template(raw)):
                self._delete(pod)
                return
        missing = [each for each in names if each not in by_name]
        if missing:
            self._make(raw, missing[0])

    def _tend_job(self, raw: Object, standing: list[Object], living: list[Object]) -> None:
        done = sum((pod.get("status") or {}).get("phase") == "Succeeded" for pod in standing)
        if done >= raw["spec"]["completions"]:
            if not (raw.get("status") or {}).get("conditions"):
                meta = raw["metadata"]
                said = {"conditions": [{"type": "Complete", "status": "True"}]}
                key = Key("batch/jobs", NAMESPACE, meta["name"])
                self._world.edit(key, lambda obj: {**obj, "status": said}, subresource="status")
        elif done + len(living) < raw["spec"]["completions"]:
            self._make(raw, self._fresh(raw["metadata"]["name"]))

    def _fresh(self, name: str) -> str:
        self._made += 1
        return f"{name}-x{self._made}"

    def _make(self, raw: Object, name: str) -> None:
        meta = raw["metadata"]
        owner = {"apiVersion": raw["apiVersion"], "kind": raw["kind"], "name": meta["name"], "uid": meta["uid"]}
        node = self._rng.choice(list(self._world.kubelets))
        self._world.make_pod(name, node, annotations=dict(_template(raw)), owner={**owner, "controller": True})

    def _delete(self, pod: Object) -> None:
        meta = pod["metadata"]
        self._world.delete_pod(meta["namespace"], meta["name"], uid=meta["uid"])


def _said(pod: Object) -> dict[str, str]:
    annotations: dict[str, str] = pod["metadata"].get("annotations") or {}
    return {key: value for key, value in annotations.items() if "ipam" in key}


def _template(raw: Object) -> dict[str, Any]:
    found: dict[str, Any] = raw["spec"]["template"]["metadata"]["annotations"]
    return found


def is_over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")

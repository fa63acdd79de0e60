"""Which applications there are, and how many addresses of which subnets each asks for.

Kubernetes' own workloads come from watches. A bare pod is its own application. Behind other pods stand controllers of
third parties, which are asked for their scale.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.applications import Application, application_of, parse_application, pool_size
from allocator.domain.auto_pools import labelled
from allocator.domain.subnet_annotations import ip_number, is_reclaimed, subnets_for
from allocator.kube.cache import Cache
from allocator.kube.codec import decode_controller
from allocator.kube.errors import NotFound
from allocator.kube.resources import JOBS, NAMESPACES, REPLICA_SETS, STATEFUL_SETS
from allocator.kube.workloads import BY_KIND, NATIVE, Workload, application_named, decode_workload, ours, trimmed
from controller.third_party import ThirdParty

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from allocator.domain.addresses import Version
    from allocator.domain.subnet_annotations import SubnetNames
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from allocator.kube.view import Change
    from allocator.runtime.clock import Clock
    from controller.books import Books

_MIDDLEMEN: Final = {(each.api_version, each.kind): each for each in (REPLICA_SETS, JOBS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What of the configuration plays a part. `spare`: surplus of those that name no number. `kinds`: ThirdParty's."""

    versions: frozenset[Version]
    spare: int
    defaults: Mapping[Version, tuple[str, ...]]
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Of one application, for one interface and family. `number` is how the size came about, `+1` or `5`."""

    application: Application
    interface: str
    version: Version
    subnets: tuple[str, ...]
    size: int
    number: str
    is_reclaimed: bool


class Applications:
    """Known by the text of `labelled(application)`. `on_change` hears it whenever one may ask for something else."""

    def __init__(
        self, client: KubeClient, books: Books, rules: Rules, *, clock: Clock, on_change: Callable[[str], None]
    ) -> None:
        self._client = client
        self._books = books
        self._rules = rules
        self._on_change = on_change
        self._native: dict[str, Workload] = {}
        self._in_namespace: defaultdict[str, set[str]] = defaultdict(set)
        # Third parties' applications, by what their pods say: by the pods' UIDs.
        self._others: dict[str, tuple[Application, dict[str, Object]]] = {}
        self._top_of_pod: dict[str, str] = {}
        # Pods whose ReplicaSet or Job has not been heard of yet, by that and their UIDs: who is above it?
        self._waiting: dict[Application, dict[str, Object]] = {}
        caches = [each for each in NATIVE if each != STATEFUL_SETS]
        self._workloads = {
            (each.api_version, each.kind): Cache(client, each, clock=clock, keep=trimmed, on_change=self._changed)
            for each in caches
        }
        self._namespaces = Cache(client, NAMESPACES, clock=clock, metadata_only=True, on_change=self._on_namespace)
        self.third_party = ThirdParty(client, rules.kinds, clock=clock, on_change=self._on_third_party)
        books.on_stateful_set.append(self._changed)
        books.on_pod_change.append(self._on_pod)

    @property
    def caches(self) -> dict[str, Cache]:
        named = {f"{kind.lower()}s": cache for (_, kind), cache in self._workloads.items()}
        return {**named, "namespaces": self._namespaces}

    @property
    def synced(self) -> bool:
        return all(cache.synced for cache in self.caches.values())

    def texts(self) -> set[str]:
        """All that are known."""
        return {*self._native, *self._others}

    async def demands(self, text: str) -> tuple[Demand, ...]:
        """errors.Invalid when what the application asks for cannot be; ApiError and Unreachable when nobody knows."""
        workload = self._native.get(text) or await self._of_third_party(text)
        if workload is None or workload.is_on_host:
            return ()
        return tuple(self._demands_of(workload))

    def named(self, text: str) -> Application | None:
        if (workload := self._native.get(text)) is not None:
            return workload.application
        return self._others[text][0] if text in self._others else None

    def subnets(self, text: str) -> set[str]:
        """The SpiderSubnets that the application names, as far as anybody can tell without asking."""
        if (workload := self._native.get(text)) is not None:
            application, said = workload.application, [dict(workload.annotations)]
        elif text in self._others:
            application, pods = self._others[text]
            said = [pod["annotations"] for pod in pods.values()]
        else:
            return set()
        found: set[str] = set()
        for each in said:
            try:
                names = self._names(each, application)
            except errors.Invalid:
                continue
            found |= {name for item in names for listed in item.by_version.values() for name in listed}
        return found

    async def is_gone(self, application: Application) -> bool | None:
        """Whether, by a live read, no such object stands; None where its kind is none of those that are read here."""
        resource = BY_KIND.get((application.api_version, application.kind))
        try:
            if resource is not None:
                raw = await self._client.get(resource, application.name, namespace=application.namespace)
            elif self.third_party.knows(application):
                raw = await self.third_party.read(application) or {}
            else:
                return None
        except NotFound:
            return True
        return bool((raw.get("metadata") or {}).get("uid") != application.uid)

    def _demands_of(self, workload: Workload) -> Iterator[Demand]:
        application, annotations = workload.application, workload.annotations
        names = self._names(annotations, application)
        if not names:
            return
        number, goes_along = ip_number(annotations), is_reclaimed(annotations)
        size = 0 if workload.is_over else pool_size(number, workload.replicas, spare=self._rules.spare)
        text = f"+{self._rules.spare}" if number is None else str(number)
        for each in names:
            for version, subnets in sorted(each.by_version.items()):
                if version in self._rules.versions:
                    yield Demand(
                        application=application,
                        interface=each.interface,
                        version=version,
                        subnets=subnets,
                        size=size,
                        number=text,
                        is_reclaimed=goes_along,
                    )

    def _names(self, annotations: Mapping[str, str], application: Application) -> tuple[SubnetNames, ...]:
        namespace = self._namespaces.get(application.namespace) or {}
        of_namespace = (namespace.get("metadata") or {}).get("annotations") or {}
        return subnets_for(annotations, of_namespace, self._rules.defaults)

    async def _of_third_party(self, text: str) -> Workload | None:
        application, pods = self._others.get(text, (parse_application(text), {}))
        if application is None or (application.api_version, application.kind) in BY_KIND:
            return None
        if not self.third_party.knows(application):
            asking = (pod for pod in pods.values() if not pod["is_on_host"])
            if any(self._names(pod["annotations"], application) for pod in asking):
                raise errors.Invalid(self._unknown_kind(application))
            return None
        workload = await self.third_party.workload(application)
        if workload is None or workload.annotations or not pods:
            return workload
        # Without a template of its own (a Rollout that borrows one): what its youngest pod says.
        youngest = max(pods.values(), key=lambda pod: str(pod["created"]))
        return Workload(
            application=workload.application,
            annotations=youngest["annotations"],
            replicas=workload.replicas,
            is_on_host=youngest["is_on_host"],
            is_over=workload.is_over,
        )

    @staticmethod
    def _unknown_kind(application: Application) -> str:
        return (
            f"{application.kind} of {application.api_version} is no kind that pools are made for here: add it to "
            "subnetApplicationKinds of the ConfigMap, and let the account of the controller read it and its scale"
        )

    def _changed(self, change: Change) -> None:
        raw = change.new or change.old
        if raw is None:
            return
        application = application_named(raw)
        self._put(labelled(application), None if change.new is None else decode_workload(change.new))
        for uid, pod in self._waiting.pop(application, {}).items():
            self._look_above(uid, pod)

    def _put(self, application: Application, workload: Workload | None) -> None:
        text = application.text
        if self._native.get(text) == workload:
            return
        if workload is None:
            del self._native[text]
            self._in_namespace[application.namespace].discard(text)
        else:
            self._native[text] = workload
            self._in_namespace[application.namespace].add(text)
        self._on_change(text)

    def _on_third_party(self, application: Application, *, is_gone: bool) -> None:
        text = labelled(application).text
        _, pods = self._others.get(text, (None, {}))
        if is_gone and not pods:
            self._others.pop(text, None)
        else:
            self._others[text] = application, pods
        self._on_change(text)

    def _on_namespace(self, change: Change) -> None:
        raw = change.new or change.old
        if raw is None:
            return
        was, now = (((each or {}).get("metadata") or {}).get("annotations") for each in (change.old, change.new))
        if was != now:
            name = raw["metadata"]["name"]
            texts = [text for text, (application, _) in self._others.items() if application.namespace == name]
            for text in (*self._in_namespace.get(name, ()), *texts):
                self._on_change(text)

    def _on_pod(self, change: Change) -> None:
        raw = change.new or change.old
        if raw is None:
            return
        uid = raw["metadata"]["uid"]
        is_over = change.new is None or _is_over(change.new)
        if decode_controller(raw) is None:
            application = application_named(raw)
            workload = None if change.new is None else _of_bare_pod(change.new, application, is_over=is_over)
            self._put(labelled(application), workload)
            return
        # Somebody may have taken it up that was bare.
        self._put(labelled(application_named(raw)), None)
        if is_over:
            self._forget_pod(uid, raw)
        else:
            self._look_above(uid, raw)

    def _look_above(self, uid: str, raw: Object) -> None:
        """Remember a pod whose top controller is none of Kubernetes' own."""
        namespace, controller = raw["metadata"]["namespace"], decode_controller(raw)
        if controller is not None and (controller.api_version, controller.kind) in _MIDDLEMEN:
            cache = self._workloads[controller.api_version, controller.kind]
            middleman = cache.get(controller.name, namespace)
            if middleman is None:
                self._waiting.setdefault(application_of(controller, namespace), {})[uid] = raw
                return
            controller = decode_controller(middleman)
        if controller is not None and (controller.api_version, controller.kind) not in BY_KIND:
            self._remember_pod(uid, raw, application_of(controller, namespace))

    def _remember_pod(self, uid: str, raw: Object, top: Application) -> None:
        text, meta = labelled(top).text, raw["metadata"]
        known, pods = self._others.get(text, (None, {}))
        said: Object = {
            "created": meta.get("creationTimestamp"),
            "annotations": ours(meta.get("annotations") or {}),
            "is_on_host": bool((raw.get("spec") or {}).get("hostNetwork")),
        }
        if pods.get(uid) == said and known == top:
            return
        pods[uid] = said
        self._others[text] = top, pods
        self._top_of_pod[uid] = text
        self._on_change(text)

    def _forget_pod(self, uid: str, raw: Object) -> None:
        controller = decode_controller(raw)
        if controller is not None:
            middleman = application_of(controller, raw["metadata"]["namespace"])
            if others := {key: pod for key, pod in self._waiting.pop(middleman, {}).items() if key != uid}:
                self._waiting[middleman] = others
        text = self._top_of_pod.pop(uid, None)
        if text is None or text not in self._others:
            return
        application, pods = self._others[text]
        pods.pop(uid, None)
        if not pods and not self.third_party.shows(application):
            del self._others[text]
        self._on_change(text)


def _of_bare_pod(raw: Object, application: Application, *, is_over: bool) -> Workload:
    return Workload(
        application=application,
        annotations=ours(raw["metadata"].get("annotations") or {}),
        replicas=1,
        is_on_host=bool((raw.get("spec") or {}).get("hostNetwork")),
        is_over=is_over,
    )


def _is_over(raw: Object) -> bool:
    phase = (raw.get("status") or {}).get("phase")
    return phase in ("Succeeded", "Failed") or bool(raw["metadata"].get("deletionTimestamp"))

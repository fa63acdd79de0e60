"""What admission makes of pods. On a plane that does not evaluate matchConditions every new pod comes by here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from allocator.domain.annotations import IPPOOL
from allocator.domain.jsonpatch import patch_of
from allocator.domain.pod_admission import NewPod, Seen, advise
from allocator.domain.pod_annotations import has_ours
from allocator.kube.resources import PODS
from webhook.neighbours import NotReadyError
from webhook.paths import Judge
from webhook.review import Allowed, BadReviewError, Denied, invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocator.domain.addresses import Version
    from allocator.domain.pod_admission import Advice
    from allocator.domain.validation import Families
    from allocator.kube.cache import Cache
    from allocator.kube.resources import Object
    from webhook.known_pools import KnownPools
    from webhook.known_subnets import KnownSubnets
    from webhook.neighbours import Neighbours
    from webhook.review import Request, Verdict

# kubelet's copy of a static pod; k8s.io/api core/v1, MirrorPodAnnotationKey.
MIRROR: Final = "kubernetes.io/config.mirror"


class _Metadata(msgspec.Struct):
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _Requirement(msgspec.Struct):
    key: str = ""
    operator: str = ""
    values: list[str] | None = None


class _Term(msgspec.Struct):
    matchExpressions: list[_Requirement] | None = None  # noqa: N815 - the API's name
    matchFields: list[_Requirement] | None = None  # noqa: N815


class _Required(msgspec.Struct):
    nodeSelectorTerms: list[_Term] | None = None  # noqa: N815


class _NodeAffinity(msgspec.Struct):
    required: _Required | None = msgspec.field(default=None, name="requiredDuringSchedulingIgnoredDuringExecution")


class _Affinity(msgspec.Struct):
    nodeAffinity: _NodeAffinity | None = None  # noqa: N815


class _Spec(msgspec.Struct):
    nodeName: str | None = None  # noqa: N815
    hostNetwork: bool | None = None  # noqa: N815
    nodeSelector: dict[str, str] | None = None  # noqa: N815
    affinity: _Affinity | None = None


class _Pod(msgspec.Struct):
    """The shape of what is looked at."""

    metadata: _Metadata
    spec: _Spec


class Pods:
    def __init__(
        self,
        pools: Neighbours,
        known: KnownPools,
        subnets: KnownSubnets,
        namespaces: Cache,
        *,
        families: Families,
        own_namespace: str,
    ) -> None:
        self._pools = pools
        self._known = known
        self._subnets = subnets
        self._namespaces = namespaces
        self._versions = _versions(families)
        self._own_namespace = own_namespace

    def judges(self) -> list[Judge]:
        return [Judge(PODS, "mutate", self.mutate)]

    async def mutate(self, request: Request) -> Verdict:
        if request.operation != "CREATE":
            return Allowed()
        pod = _decoded(request)
        if not has_ours(pod.annotations) or MIRROR in pod.annotations:
            return Allowed()
        if not self._pools.is_ready:
            raise NotReadyError("the pools are not known yet: try again")
        advice = advise(pod, self._seen(request.namespace))
        if advice.problems:
            refusal = invalid(request, advice.problems)
            return Denied(refusal.code, refusal.reason, refusal.message, refusal.problems, advice.warnings)
        return Allowed(patch_of(request.new, _advised(request.new, advice)), advice.warnings)

    def _seen(self, namespace: str) -> Seen:
        stored = self._namespaces.get(namespace)
        return Seen(
            pools=self._known.all,
            free=self._known.free,
            # One that was made a moment ago.
            namespace_labels=None if stored is None else stored["metadata"].get("labels") or {},
            versions=self._versions,
            own_namespace=self._own_namespace,
            subnets=self._subnets.seen(),
        )


def _versions(families: Families) -> frozenset[Version]:
    switches: tuple[tuple[Version, bool], ...] = ((4, families.ipv4), (6, families.ipv6))
    return frozenset(version for version, is_on in switches if is_on)


def _decoded(request: Request) -> NewPod:
    """BadReviewError when the object has another shape than a pod."""
    try:
        pod = msgspec.convert(request.new, _Pod)
    except msgspec.ValidationError as error:
        raise BadReviewError(f"the object is no pod: {error}") from None
    return NewPod(
        namespace=request.namespace,
        labels=pod.metadata.labels or {},
        annotations=pod.metadata.annotations or {},
        is_on_host_network=bool(pod.spec.hostNetwork),
        node=pod.spec.nodeName or "",
        selector=pod.spec.nodeSelector,
        required=_required(request.new["spec"]),
    )


def _required(spec: Mapping[str, Any]) -> list[Object] | None:
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return None if required is None else required.get("nodeSelectorTerms") or []


def _advised(pod: Object, advice: Advice) -> Object:
    """A copy along the paths that change."""
    if advice.ippool is not None:
        metadata = pod["metadata"]
        annotations = {**metadata["annotations"], IPPOOL.key: advice.ippool}
        pod = {**pod, "metadata": {**metadata, "annotations": annotations}}
    if advice.required is not None:
        affinity = pod["spec"].get("affinity") or {}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": advice.required}}
        nodes = {**(affinity.get("nodeAffinity") or {}), **required}
        pod = {**pod, "spec": {**pod["spec"], "affinity": {**affinity, "nodeAffinity": nodes}}}
    return pod

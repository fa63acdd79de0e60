"""The entries of the two webhook configurations: what the API server asks us about, and what it does when we are away.

Every field is written out, defaults too, so that what is stored can be compared with it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain.defaulting import FINALIZER
from allocator.kube.resources import MUTATING_WEBHOOKS, PODS, SPIDER_ENDPOINTS, SPIDER_IP_POOLS, SPIDER_SUBNETS
from webhook.paths import CUSTOM, path_of, timeout_s_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.kube.resources import Object, Resource
    from webhook.paths import Side

NAME: Final = "spiderpool-webhook"
ACCOUNTS: Final = ("spiderpool-agent", "spiderpool-controller", "spiderpool-webhook")


@dataclass(frozen=True, slots=True)
class UrlTarget:
    """Only one process: `base` is https://host:port. Registered for as long as it runs."""

    base: str

    def client_config(self, path: str) -> Object:
        return {"url": f"{self.base}{path}"}


@dataclass(frozen=True, slots=True)
class ServiceTarget:
    """Whatever pods stand behind the Service. Registered for good: other replicas go on."""

    namespace: str
    name: str = NAME
    port: int = 443

    def client_config(self, path: str) -> Object:
        service = {"namespace": self.namespace, "name": self.name, "path": path, "port": self.port}
        return {"service": service}


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What is to be registered. `namespace` is where our own accounts live, which are exempt."""

    target: UrlTarget | ServiceTarget
    namespace: str
    has_subnets: bool

    def webhooks(self, configuration: Resource, ca_bundle: str) -> list[Object]:
        """The entries of MUTATING_WEBHOOKS or VALIDATING_WEBHOOKS."""
        side: Side = "mutate" if configuration == MUTATING_WEBHOOKS else "validate"
        return [self._webhook(resource, side, ca_bundle) for resource in self._resources(side)]

    def _resources(self, side: Side) -> Iterator[Resource]:
        for resource in CUSTOM:
            # Agents make endpoints complete. Without the feature nobody answers for subnets.
            is_left_out = resource == SPIDER_ENDPOINTS and side == "mutate"
            if not is_left_out and (self.has_subnets or resource != SPIDER_SUBNETS):
                yield resource
        if side == "mutate":
            yield PODS

    def _webhook(self, resource: Resource, side: Side, ca_bundle: str) -> Object:
        rule = {
            "apiGroups": [resource.group],
            "apiVersions": [resource.version],
            "resources": [resource.plural],
            "operations": _operations(resource, side),
            "scope": "*",
        }
        webhook: Object = {
            "name": _entry_name(resource),
            "clientConfig": {
                **self.target.client_config(path_of(resource, side)),
                "caBundle": base64.b64encode(ca_bundle.encode()).decode(),
            },
            "rules": [rule],
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "timeoutSeconds": timeout_s_of(resource),
            # What agents do without us as well must not stand in a pod's way.
            "failurePolicy": "Ignore" if resource in (SPIDER_ENDPOINTS, PODS) else "Fail",
            "matchPolicy": "Equivalent",
            "matchConditions": _of_pods() if resource == PODS else self._of_people(resource, side),
            "namespaceSelector": self._elsewhere() if resource == PODS else {},
            "objectSelector": {},
        }
        return {**webhook, "reinvocationPolicy": "IfNeeded"} if side == "mutate" else webhook

    def _of_people(self, resource: Resource, side: Side) -> list[Object]:
        """CEL: our own accounts and metadata (finalizers, labels) are exempt, so a dead webhook stops no pod.

        For DELETE `object` is null; the first operand keeps it from being looked at.
        """
        accounts = ", ".join(f"'system:serviceaccount:{self.namespace}:{name}'" for name in ACCOUNTS)
        part = "status" if resource == SPIDER_ENDPOINTS else "spec"
        conditions = [
            _condition("not-our-own", f"!(request.userInfo.username in [{accounts}])"),
            _condition(
                f"{part}-changes",
                f"request.operation != 'UPDATE' || !has(object.{part}) || !has(oldObject.{part})"
                f" || object.{part} != oldObject.{part}",
            ),
        ]
        if side == "validate" and resource in (SPIDER_IP_POOLS, SPIDER_SUBNETS):
            conditions.append(
                _condition(
                    "not-judged-yet",
                    # The mutating side judges what it completes: a second call would be half of what admission costs.
                    # A name that is still to be generated it does not know, so such an object is judged again.
                    "request.operation != 'CREATE' || has(object.metadata.generateName)"
                    " || !has(object.metadata.finalizers)"
                    f" || !('{FINALIZER}' in object.metadata.finalizers)",
                )
            )
        if resource == SPIDER_ENDPOINTS:
            conditions.append(
                _condition(
                    "not-collected",
                    # The end of a namespace, and garbage collection after a pod: nobody reads a warning there.
                    "request.operation != 'DELETE' || request.userInfo.username != 'system:kube-controller-manager'"
                    " && !request.userInfo.username.startsWith('system:serviceaccount:kube-system:')",
                )
            )
        return conditions

    def _elsewhere(self) -> Object:
        """A cluster that cannot start its own pods cannot start us: theirs and ours are none of our business."""
        names = ["kube-system", self.namespace]
        return {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": names}]}


def _operations(resource: Resource, side: Side) -> list[str]:
    if resource == PODS:
        return ["CREATE"]
    is_deletion_judged = side == "validate" and resource in (SPIDER_SUBNETS, SPIDER_IP_POOLS, SPIDER_ENDPOINTS)
    return ["CREATE", "UPDATE", "DELETE"] if is_deletion_judged else ["CREATE", "UPDATE"]


def _entry_name(resource: Resource) -> str:
    """As in the original."""
    return "pods.spiderpool.spidernet.io" if resource == PODS else f"{resource.kind.lower()}.{resource.group}"


def _of_pods() -> list[Object]:
    return [
        _condition(
            "asks-for-addresses",
            "has(object.metadata.annotations)"
            " && object.metadata.annotations.exists(key, key.startsWith('ipam.spidernet.io/'))",
        ),
        # The copy of a static pod's manifest: the kubelet takes no change of it.
        _condition("no-mirror-pod", "!('kubernetes.io/config.mirror' in object.metadata.annotations)"),
    ]


def _condition(name: str, expression: str) -> Object:
    return {"name": name, "expression": expression}

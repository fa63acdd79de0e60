"""Which admission webhooks a request concerns. matchConditions are CEL and not evaluated: such a webhook is called."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from devcluster.plane import selectors
from devcluster.plane.api import Attributes
from devcluster.plane.problems import Object

Phase = Literal["mutating", "validating"]


@dataclass(frozen=True, slots=True)
class Webhook:
    """One entry of a webhook configuration, as it stands in the store."""

    phase: Phase
    configuration: str
    spec: Object

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def timeout_s(self) -> float:
        return float(self.spec.get("timeoutSeconds") or 10)

    @property
    def ignores_failure(self) -> bool:
        return self.spec.get("failurePolicy") == "Ignore"

    @property
    def serves_dry_run(self) -> bool:
        return self.spec.get("sideEffects") in {"None", "NoneOnDryRun"}


def _resource_matches(pattern: str, plural: str, subresource: str) -> bool:
    wanted, _, wanted_sub = pattern.partition("/")
    if pattern == "*/*":
        return True
    if wanted not in ("*", plural):
        return False
    return wanted_sub in ("*", subresource) if "/" in pattern else not subresource


def _rule_matches(rule: Object, attributes: Attributes) -> bool:
    rt = attributes.rt
    scope = rule.get("scope") or "*"
    return (
        any(group in ("*", rt.group) for group in rule.get("apiGroups") or [])
        and any(version in ("*", rt.version) for version in rule.get("apiVersions") or [])
        and any(operation in ("*", attributes.operation) for operation in rule.get("operations") or [])
        and any(_resource_matches(p, rt.plural, attributes.subresource) for p in rule.get("resources") or [])
        and (scope == "*" or (scope == "Namespaced") is (rt.namespaced or _is_namespace(attributes)))
    )


def _is_namespace(attributes: Attributes) -> bool:
    return attributes.rt.stored_in == "/namespaces"


def _labels(obj: Object | None) -> Mapping[str, str]:
    found: Mapping[str, str] = ((obj or {}).get("metadata") or {}).get("labels") or {}
    return found


def matches(
    webhook: Webhook,
    attributes: Attributes,
    obj: Object | None,
    namespace_labels: Callable[[str], Mapping[str, str]],
) -> bool:
    """`obj` is the object as it stands now, None for a deletion."""
    spec = webhook.spec
    if attributes.rt.plural in {"mutatingwebhookconfigurations", "validatingwebhookconfigurations"}:
        return False  # or a broken webhook could keep itself from being removed
    if not any(_rule_matches(rule, attributes) for rule in spec.get("rules") or []):
        return False
    if _is_namespace(attributes):
        in_namespace = selectors.matches(spec.get("namespaceSelector"), _labels(obj or attributes.old))
    elif attributes.rt.namespaced:
        in_namespace = selectors.matches(spec.get("namespaceSelector"), namespace_labels(attributes.namespace))
    else:
        in_namespace = True
    present = [
        labels for candidate in (obj, attributes.old) if candidate is not None for labels in [_labels(candidate)]
    ]
    return in_namespace and any(selectors.matches(spec.get("objectSelector"), labels) for labels in present)

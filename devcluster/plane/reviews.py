"""Objects that are asked and answered but never stored, and the binding of a pod."""

from datetime import datetime

from devcluster.plane.problems import Object
from devcluster.plane.registry import ResourceType
from devcluster.plane.strategy import timestamp

_EVERYTHING = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
_ALL_PATHS = {"verbs": ["*"], "nonResourceURLs": ["*"]}


def review(rt: ResourceType, body: Object, user: Object) -> Object:
    """Whoever is let in may do everything: there is no RBAC here."""
    status: Object
    match rt.kind:
        case "SelfSubjectReview":
            status = {"userInfo": user}
        case "SelfSubjectRulesReview":
            status = {"resourceRules": [_EVERYTHING], "nonResourceRules": [_ALL_PATHS], "incomplete": False}
        case _:
            status = {"allowed": True, "reason": "the embedded plane has no authorization"}
    return body | {"kind": rt.kind, "apiVersion": rt.api_version, "status": status}


def bound(pod: Object, node: str, now: datetime) -> Object:
    """The pod after a scheduler gave it a node."""
    status = pod.get("status") or {}
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": timestamp(now)}
    others = [c for c in status.get("conditions") or [] if c.get("type") != "PodScheduled"]
    return pod | {"spec": pod["spec"] | {"nodeName": node}, "status": status | {"conditions": [*others, scheduled]}}

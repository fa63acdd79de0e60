"""The annotations of a pod as they are judged when it is created: their form, and whether their keys mean anything."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.annotations import DEFAULTS, IPPOOL, IPPOOLS, asked_by_pod
from allocator.domain.dns import DNS, dns_of_pod
from allocator.domain.json_annotation import PREFIX, JsonAnnotation, quoted
from allocator.domain.routes import ROUTES, routes_of_pod
from allocator.domain.subnet_annotations import (
    DEFAULT_SUBNETS,
    IP_NUMBER,
    RECLAIM,
    SUBNET,
    SUBNETS,
    ip_number,
    is_reclaimed,
    subnets_of_pod,
)
from allocator.domain.usage import FORCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NODE_AFFINITY: Final = JsonAnnotation(PREFIX + "node-affinity", '"false", or "true" as without it')


def is_left_to_the_scheduler(annotations: Mapping[str, str]) -> bool:
    """Whether the pod's scheduling rules stay as they are. errors.Invalid when the annotation is malformed."""
    text = annotations.get(NODE_AFFINITY.key, "true")
    if text not in ("true", "false"):
        raise NODE_AFFINITY.wrong("", f"is {quoted(text)}")
    return text == "false"


# To compare names costs half a millisecond for each.
MAX_UNKNOWN: Final = 3
# Of a key (apimachinery, qualified names): a prefix of 253 characters and a name of 63.
KEY_LIMIT: Final = 317

_PARSERS: Final[Mapping[JsonAnnotation, Callable[[Mapping[str, str]], object]]] = {
    IPPOOLS: asked_by_pod,
    IPPOOL: asked_by_pod,
    SUBNETS: subnets_of_pod,
    SUBNET: subnets_of_pod,
    IP_NUMBER: ip_number,
    RECLAIM: is_reclaimed,
    ROUTES: routes_of_pod,
    DNS: dns_of_pod,
    NODE_AFFINITY: is_left_to_the_scheduler,
}
# Nobody reads one that another one beats.
_BEATEN: Final = {IPPOOL: IPPOOLS, SUBNET: SUBNETS}
# Of the coordinator, and ours of other objects.
_KNOWN: Final = (*(annotation.key for annotation in _PARSERS), PREFIX + "default-route-nic", FORCE)
# Those of namespaces, and what says the same on a pod.
_OF_NAMESPACES: Final = {
    **{annotation.key: IPPOOL.key for annotation in DEFAULTS.values()},
    **{annotation.key: SUBNET.key for annotation in DEFAULT_SUBNETS.values()},
}


def has_ours(annotations: Mapping[str, str]) -> bool:
    return any(key.startswith(PREFIX) for key in annotations)


def problems_of(annotations: Mapping[str, str]) -> list[errors.FieldError]:
    """One problem for each annotation that the agent could not read."""
    problems = []
    for annotation, parse in _PARSERS.items():
        text, better = annotations.get(annotation.key), _BEATEN.get(annotation)
        if text is None or (better is not None and better.key in annotations):
            continue
        try:
            parse(annotations)
        except errors.Invalid as error:
            problems.append(errors.FieldError("Invalid", f"metadata.annotations[{annotation.key}]", str(error), text))
    return problems


def hints_for(annotations: Mapping[str, str]) -> Iterator[str]:
    """What may not be meant so: keys that mean nothing on a pod, and an annotation that another one beats."""
    unknown = [key for key in annotations if key.startswith(PREFIX) and key not in _KNOWN]
    for key in unknown[:MAX_UNKNOWN]:
        if key in _OF_NAMESPACES:
            on_pods = _OF_NAMESPACES[key]
            yield f"annotation {key} means nothing on a pod: set it on the namespace, or set {on_pods} on the pod"
        else:
            nearest = difflib.get_close_matches(key, _KNOWN, n=1) if len(key) <= KEY_LIMIT else ()
            yield f"annotation {quoted(key)} is unknown" + (f": is {nearest[0]} meant?" if nearest else "")
    for beaten, better in _BEATEN.items():
        if beaten.key in annotations and better.key in annotations:
            yield f"annotation {beaten.key} is not looked at: {better.key} beats it"

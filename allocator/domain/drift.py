"""Where the gateway or the routes of a pool are others than those of its SpiderSubnet, which it got once, at its birth.

A pool may have its own. Who wants the subnet's, also after its next change, sets an annotation on the pool.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from allocator.domain import fields
from allocator.domain.addresses import AddressError, parse_address
from allocator.domain.applications import label_value
from allocator.domain.defaulting import OWNER_LABEL
from allocator.domain.json_annotation import PREFIX

if TYPE_CHECKING:
    from allocator.domain.conditions import Finding
    from allocator.domain.fields import Raw

CONDITION: Final = "SubnetDrift"
# On a pool, with the value "true".
FOLLOW: Final = PREFIX + "follow-subnet"
_KEYS: Final = ("gateway", "routes")
_LATER: Final = "pods that run keep what they got, only new ones get it"


def is_of(pool: Raw, subnet: Raw) -> bool:
    """Whether the pool was made of this subnet, or taken in by it: it has its network and its label."""
    meta, its = fields.mapping_at(pool, "metadata"), fields.mapping_at(subnet, "metadata")
    has_label = fields.mapping_at(meta, "labels").get(OWNER_LABEL) == label_value(str(its.get("name", "")))
    return has_label and _network(pool) == _network(subnet)


def follows(pool: Raw) -> bool:
    annotations = fields.mapping_at(fields.mapping_at(pool, "metadata"), "annotations")
    return annotations.get(FOLLOW) == "true"


def taken_over(pool: Raw, subnet: Raw) -> dict[str, Any]:
    """What changes in the pool's spec when it takes over what the subnet sets; empty where they agree."""
    spec, offered = fields.mapping_at(pool, "spec"), fields.mapping_at(subnet, "spec")
    return {
        key: copy.deepcopy(offered[key])
        for key in _KEYS
        if offered.get(key) and _meant(offered[key]) != _meant(spec.get(key))
    }


def finding(pool: Raw, subnet: Raw, refusal: str = "") -> Finding:
    """The condition of the pool. `refusal` is why the API server did not let the controller take it over."""
    title = f"SpiderSubnet {fields.mapping_at(subnet, 'metadata').get('name')}"
    others = taken_over(pool, subnet)
    if not others:
        return False, "AsSubnet", f"gateway and routes are those of {title}, where it sets them"
    spec = fields.mapping_at(pool, "spec")
    told = f"{title} has {_listed(others)}, this pool {_listed({key: spec.get(key) for key in others})}"
    if not follows(pool):
        how = f'the annotation {FOLLOW}: "true" on the pool takes it over, now and whenever the subnet changes'
        return True, "DiffersFromSubnet", f"{told}. A pool may have its own; {how}: {_LATER}"
    if refusal:
        return True, "CannotFollow", f"{told}. It is not taken over, because the API server refuses it: {refusal}"
    return True, "Following", f"{told}. It is being taken over: {_LATER}"


def _listed(values: Mapping[str, Any]) -> str:
    return " and ".join(f"{key} {_text(value)}" for key, value in values.items())


def _text(value: object) -> str:
    if isinstance(value, list):
        return fields.some_of([" via ".join(_route(each)) for each in value]) or "none"
    return str(value) if value else "none"


def _meant(value: object) -> object:
    """Gateway or routes, whatever their spelling and order."""
    if isinstance(value, list):
        return frozenset((_network_of(dst), _meant(gw)) for dst, gw in map(_route, value))
    try:
        return parse_address(str(value))
    except AddressError:
        return str(value) if value else frozenset()


def _route(raw: object) -> tuple[str, str]:
    """Whatever an object from before the schema may have there."""
    return (str(raw.get("dst")), str(raw.get("gw"))) if isinstance(raw, Mapping) else (str(raw), "")


def _network(raw: Raw) -> object:
    return _network_of(str(fields.mapping_at(raw, "spec").get("subnet")))


def _network_of(text: str) -> object:
    return fields.loose_network(text) or text

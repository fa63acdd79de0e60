"""What is wrong with one object, all of it in one answer; empty means nothing.

The functions take the object after completion (allocator/domain/defaulting.py). What needs other objects is in
overlap.py, what needs to know who uses the object in usage.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from allocator.domain import fields, network_rules
from allocator.domain.addresses import AddressError, parse_span
from allocator.domain.fields import Problems
from allocator.domain.selector_rules import SUBDOMAIN, check_selector, is_empty

if TYPE_CHECKING:
    from allocator.domain.addresses import Version
    from allocator.domain.errors import FieldError
    from allocator.domain.fields import Raw

# A pool is made for one application, and edited by the machine only, when it carries this label.
AUTO_POOL_LABEL: Final = "ipam.spidernet.io/owner-application-name"
AUTO_POOL_KEYS: Final = frozenset(
    f"ipam.spidernet.io/app-{part}" for part in ("api-group", "api-version", "kind", "namespace", "name")
)


@dataclass(frozen=True, slots=True)
class Families:
    """Which address families the cluster uses: `enableIPv4`, `enableIPv6` of the ConfigMap."""

    ipv4: bool = True
    ipv6: bool = True


def validate_pool(raw: Raw, families: Families) -> list[FieldError]:
    """Rules of a SpiderIPPool by itself, for create and update."""
    problems = Problems()
    spec = _spec_of(raw, problems)
    if spec is None:
        return problems.found
    _check_network(spec, families, problems)
    _check_pod_affinity(raw, spec, problems)
    for key in ("nodeAffinity", "namespaceAffinity"):
        check_selector(spec, key, problems)
    for key in ("nodeName", "namespaceName"):
        fields.texts_at(spec, key, f"spec.{key}", problems)
    _check_multus_names(spec, problems)
    for key in ("default", "disable"):
        fields.check_flag(spec, key, f"spec.{key}", problems)
    return problems.found


def validate_pool_update(old: Raw, new: Raw, families: Families) -> list[FieldError]:
    """Rules of a change: what may not change, and what must be right."""
    problems = Problems()
    _check_unchanged(old, new, ("ipVersion", "subnet"), problems)
    return problems.found + validate_pool(new, families)


def validate_subnet(raw: Raw, families: Families) -> list[FieldError]:
    problems = Problems()
    spec = _spec_of(raw, problems)
    if spec is not None:
        _check_network(spec, families, problems)
    return problems.found


def validate_subnet_update(old: Raw, new: Raw, families: Families) -> list[FieldError]:
    problems = Problems()
    _check_unchanged(old, new, ("ipVersion", "subnet"), problems)
    return problems.found + validate_subnet(new, families)


def validate_reservation(raw: Raw, families: Families) -> list[FieldError]:
    problems = Problems()
    spec = _spec_of(raw, problems)
    if spec is None:
        return problems.found
    version = _version_of(spec, families, "the first item of spec.ips", problems)
    items = fields.list_at(spec, "ips", "spec.ips", problems, most=fields.MAX_ITEMS)
    for index, item in enumerate(items):
        _check_reserved_item(item, f"spec.ips[{index}]", version, problems)
    return problems.found


def validate_reservation_update(old: Raw, new: Raw, families: Families) -> list[FieldError]:
    problems = Problems()
    _check_unchanged(old, new, ("ipVersion",), problems)
    return problems.found + validate_reservation(new, families)


def validate_endpoint(raw: Raw) -> list[FieldError]:
    """Rules against edits by hand of a SpiderEndpoint, whose status is an ordinary field."""
    problems = Problems()
    current = fields.mapping_at(fields.mapping_at(raw, "status"), "current")
    details = fields.list_at(current, "ips", "status.current.ips", problems)
    for index, detail in enumerate(details):
        path = f"status.current.ips[{index}]"
        if not isinstance(detail, Mapping):
            problems.invalid(path, detail, "must describe one interface")
            continue
        network_rules.check_endpoint_detail(detail, path, problems)
    return problems.found


def is_automatic(pool: Raw) -> bool:
    """Whether the pool was made for an application, by a controller."""
    return AUTO_POOL_LABEL in fields.mapping_at(fields.mapping_at(pool, "metadata"), "labels")


def _spec_of(raw: Raw, problems: Problems) -> Raw | None:
    spec = raw.get("spec")
    if isinstance(spec, Mapping):
        return spec
    if spec is None:
        problems.required("spec", "describe the object")
    else:
        problems.invalid("spec", spec, "must be an object")
    return None


def _version_of(spec: Raw, families: Families, source: str, problems: Problems) -> Version | None:
    version = spec.get("ipVersion")
    if version is None:
        problems.invalid("spec.ipVersion", None, f"cannot be derived: write {source} right, or 4 or 6 here")
    elif isinstance(version, bool) or version not in (4, 6):
        problems.unsupported("spec.ipVersion", version, 'supported values: "4", "6"')
    elif not (families.ipv4 if version == 4 else families.ipv6):
        problems.forbidden("spec.ipVersion", f"IPv{version} is switched off: set enableIPv{version} in the ConfigMap")
        return 4 if version == 4 else 6
    else:
        return 4 if version == 4 else 6
    return None


def _check_network(spec: Raw, families: Families, problems: Problems) -> None:
    version = _version_of(spec, families, "spec.subnet", problems)
    network_rules.check_network(spec, version, problems)


def _check_unchanged(old: Raw, new: Raw, keys: tuple[str, ...], problems: Problems) -> None:
    before, after = fields.mapping_at(old, "spec"), fields.mapping_at(new, "spec")
    for key in keys:
        was, now = before.get(key), after.get(key)
        # An absent family is no change: completion has derived it from what cannot change.
        if was is not None and was != now and not (key == "ipVersion" and now is None):
            problems.forbidden(f"spec.{key}", f'is immutable: keep "{was}", or create another object')


def _check_pod_affinity(raw: Raw, spec: Raw, problems: Problems) -> None:
    selector: Any = spec.get("podAffinity")
    if not isinstance(selector, Mapping):
        check_selector(spec, "podAffinity", problems)
        return
    if is_automatic(raw):
        for key in fields.mapping_at(selector, "matchLabels"):
            if key not in AUTO_POOL_KEYS:
                problems.invalid("spec.podAffinity", key, "is no label of an automatic pool: take it out")
        if selector.get("matchExpressions"):
            problems.invalid("spec.podAffinity", None, "an automatic pool takes no matchExpressions: take them out")
    elif is_empty(selector):
        problems.invalid("spec.podAffinity", {}, "is empty: name labels, or leave it out to serve every pod")
    else:
        check_selector(spec, "podAffinity", problems)


def _check_multus_names(spec: Raw, problems: Problems) -> None:
    for index, text in enumerate(fields.texts_at(spec, "multusName", "spec.multusName", problems)):
        why = _why_no_network(text)
        if why:
            problems.invalid(f"spec.multusName[{index}]", text, f"{why}; write for example netops/macvlan-bond0")


def _why_no_network(text: str) -> str:
    """What keeps it from being namespace/name or a name; empty when nothing does."""
    namespace, slash, name = text.rpartition("/")
    wrong = re.search(r"[^-a-z0-9]", namespace) or re.search(r"[^-.a-z0-9]", name)
    if wrong:
        part = "namespace" if wrong.string is namespace else "name"
        return f'has {json.dumps(wrong.group())} in its {part}: small letters, digits and "-" are taken there'
    for part, value in (("namespace", namespace), ("name", name)):
        if (part == "name" or slash) and not SUBDOMAIN.fullmatch(value):
            return f"needs a {part} that begins and ends with a letter or digit"
    return ""


def _check_reserved_item(item: object, path: str, version: Version | None, problems: Problems) -> None:
    if not isinstance(item, str):
        problems.invalid(path, item, "must be a text")
        return
    try:
        parse_span(item, version or (6 if ":" in item else 4))
    except AddressError as error:
        problems.invalid(path, item, network_rules.without_value(item, error))

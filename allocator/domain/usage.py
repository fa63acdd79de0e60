"""Whether a change of ranges takes away what the object's own status says is in use.

Only what the change itself takes away counts: trouble from before is no reason to refuse an edit, which may lessen it.

The status is a copy that may be seconds old; it is early feedback. The allocator keeps addresses in use whatever the
spec says, and the controller reports holders outside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from allocator.domain import fields
from allocator.domain.addresses import AddressError, IntervalSet, parse_address
from allocator.domain.errors import FieldError
from allocator.domain.overlap import extent_of, total_of

if TYPE_CHECKING:
    from allocator.domain.fields import Raw


def pool_usage(old: Raw, new: Raw) -> list[FieldError]:
    """Addresses of `status.allocatedIPs` that the spec no longer offers; asked in O(used), whatever the ranges."""
    before, total = _totals_of(old, new)
    if before is None or total is None:
        return []
    stranded = []
    for text, record in _json_at(new, "allocatedIPs").items():
        try:
            address = parse_address(text, total.version)
        except AddressError:
            continue
        if address in before and address not in total:
            pod = record.get("pod", "") if isinstance(record, Mapping) else ""
            stranded.append((int(address), f"{text} (pod {pod})" if pod else text))
    if not stranded:
        return []
    users = fields.some_of([text for _, text in sorted(stranded)])
    return [FieldError("Forbidden", "spec.ips", f"in use: {users}; keep them in ips, or delete the pods first")]


def subnet_usage(old: Raw, new: Raw) -> list[FieldError]:
    """Ranges of `status.controlledIPPools` that the spec no longer offers."""
    before, total = _totals_of(old, new)
    if before is None or total is None:
        return []
    problems = []
    for pool, lent in sorted(_json_at(new, "controlledIPPools").items()):
        items = lent.get("ips") if isinstance(lent, Mapping) else None
        try:
            stranded = (IntervalSet.parse(total.version, items or ()) & before) - total
        except (AddressError, TypeError):
            continue
        if stranded:
            message = (
                f'lent to SpiderIPPool "{pool}": {fields.some_of(stranded.texts())}; take them out of the pool first'
            )
            problems.append(FieldError("Forbidden", "spec.ips", message))
    return problems


def _totals_of(old: Raw, new: Raw) -> tuple[IntervalSet | None, IntervalSet | None]:
    """What the two specs offer; the family cannot change, so nothing can be said when it does."""
    before, after = _total_of(old), _total_of(new)
    if before is not None and after is not None and before.version != after.version:
        return None, None
    return before, after


def _total_of(raw: Raw) -> IntervalSet | None:
    """What the spec offers; None when it cannot be read, which is another rule's problem."""
    extent = extent_of(raw)
    return None if extent is None else total_of(fields.mapping_at(raw, "spec"), extent.version)


def _json_at(raw: Raw, key: str) -> Raw:
    """The JSON object in the text; empty when it is none, because a broken copy is no reason to refuse."""
    text = fields.mapping_at(raw, "status").get(key)
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        value = None
    return value if isinstance(value, Mapping) else {}

"""Lists of address objects, decoded to what choosing an address needs."""

from __future__ import annotations

import msgspec

from allocator.domain.addresses import AddressError, address_of
from allocator.domain.record import Entry, State
from allocator.kube.codec import Malformed, decode_time


class _EntryMeta(msgspec.Struct):
    name: str


class _EntrySpec(msgspec.Struct):
    pool: str = ""
    state: str = ""
    until: str | None = None


class EntryForm(msgspec.Struct):
    """Of a SpiderIPAddress in a list, what Entry needs."""

    metadata: _EntryMeta
    spec: _EntrySpec


def decode_entry(form: EntryForm) -> Entry:
    """As decode_record, for lists."""
    spec, name = form.spec, form.metadata.name
    try:
        address = address_of(name)
    except AddressError as error:
        raise Malformed(f"SpiderIPAddress {name}: {error}") from error
    try:
        return Entry(address, spec.pool, State(spec.state), decode_time(spec.until))
    except ValueError:
        return Entry(address, spec.pool, State.CONFLICT)

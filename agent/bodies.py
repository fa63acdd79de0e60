"""What the operations of the agent API take, as the original's plugin sends it; values of the domain come out.

Member names are the wire format. A member that is required may be empty, but not null; one that is not may be null.
Unknown members are ignored: a newer plugin may send more.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import msgspec

from allocator.domain.attachments import Attachments, Sandbox
from allocator.domain.request import AddRequest, DelRequest, Interface

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocator.domain.addresses import Version

Form: TypeAlias = msgspec.Struct
T = TypeVar("T", bound=Form)

# msgspec's words, which tell what is missing by their form only.
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]+)`(?: - at `\$\.?(?P<within>[^`]*)`)?")
_NULL = re.compile(r"Expected `[^`|]+`, got `null` - at `\$\.?(?P<name>[^`]+)`")


class BadRequest(ValueError):
    """The request is not what the operation takes. `code` is the original's: 400 no JSON, 601 a type, 602 missing."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class IpamAddArgs(msgspec.Struct, rename="camel", kw_only=True):
    container_id: str = msgspec.field(name="containerID")
    if_name: str
    net_namespace: str
    pod_namespace: str
    pod_name: str
    pod_uid: str = msgspec.field(name="podUID")
    default_ipv4_pools: list[str] | None = msgspec.field(name="defaultIPv4IPPool", default=None)
    default_ipv6_pools: list[str] | None = msgspec.field(name="defaultIPv6IPPool", default=None)
    clean_gateway: bool | None = None
    match_master_subnet: bool | None = None
    network_name: str | None = None

    def request(self) -> AddRequest:
        return AddRequest(
            namespace=self.pod_namespace,
            pod=self.pod_name,
            pod_uid=self.pod_uid,
            interface=Interface(container_id=self.container_id, name=self.if_name, netns=self.net_namespace),
            default_ipv4_pools=tuple(self.default_ipv4_pools or ()),
            default_ipv6_pools=tuple(self.default_ipv6_pools or ()),
            clean_gateway=bool(self.clean_gateway),
            match_master_subnet=bool(self.match_master_subnet),
            network=self.network_name or "",
        )


class IpamDelArgs(msgspec.Struct, rename="camel", kw_only=True):
    container_id: str = msgspec.field(name="containerID")
    if_name: str
    pod_namespace: str
    pod_name: str
    pod_uid: str = msgspec.field(name="podUID")
    net_namespace: str | None = None

    def request(self) -> DelRequest:
        return DelRequest(
            namespace=self.pod_namespace,
            pod=self.pod_name,
            pod_uid=self.pod_uid,
            interface=Interface(container_id=self.container_id, name=self.if_name, netns=self.net_namespace or ""),
        )


class IpamBatchDelArgs(msgspec.Struct, rename="camel", kw_only=True):
    container_id: str = msgspec.field(name="containerID")
    pod_namespace: str
    pod_name: str
    pod_uid: str = msgspec.field(name="podUID")
    net_namespace: str | None = None
    # Read, and without effect: addresses are as safe without it.
    is_release_conflict_ips: bool | None = msgspec.field(name="isReleaseConflictIPs", default=None)

    def request(self) -> Sandbox:
        return Sandbox(
            namespace=self.pod_namespace, pod=self.pod_name, pod_uid=self.pod_uid, container_id=self.container_id
        )


class Attachment(msgspec.Struct, rename="camel", kw_only=True):
    container_id: str = msgspec.field(name="containerID")
    if_name: str


class IpamGcArgs(msgspec.Struct, rename="camel", kw_only=True):
    network_name: str
    valid_attachments: list[Attachment]

    def request(self) -> Attachments:
        valid = frozenset((each.container_id, each.if_name) for each in self.valid_attachments)
        return Attachments(network=self.network_name, valid=valid)


class IpamStatusArgs(msgspec.Struct, rename="camel", kw_only=True):
    default_ipv4_pools: list[str] | None = msgspec.field(name="defaultIPv4IPPool", default=None)
    default_ipv6_pools: list[str] | None = msgspec.field(name="defaultIPv6IPPool", default=None)

    def request(self) -> Mapping[Version, tuple[str, ...]]:
        """The pools that the network configuration lists, by family; only families that have any."""
        listed: dict[Version, list[str] | None] = {4: self.default_ipv4_pools, 6: self.default_ipv6_pools}
        return {version: tuple(names) for version, names in listed.items() if names}


class PodQuery(msgspec.Struct, rename="camel", kw_only=True):
    pod_namespace: str
    pod_name: str


def read(form: type[T], body: bytes) -> T:
    """The body as this form. BadRequest says what is wrong."""
    if not body:
        raise BadRequest(602, f"{form.__name__} in body is required")
    try:
        found: T = _decoder(form).decode(body)
        return found
    except msgspec.ValidationError as error:
        raise _problem(str(error)) from None
    except msgspec.DecodeError as error:
        raise BadRequest(400, f"the body is not JSON: {error}") from None
    except RecursionError:
        raise BadRequest(400, "the body is nested too deeply") from None


def read_query(form: type[T], query: Mapping[str, str]) -> T:
    """The query as this form; unlike in a body, what is required must not be empty."""
    for field in msgspec.structs.fields(form):
        if field.required and not query.get(field.encode_name):
            raise BadRequest(602, f"{field.encode_name} in query is required")
    return msgspec.convert(dict(query), form)


def _problem(text: str) -> BadRequest:
    if found := _MISSING.fullmatch(text):
        within = f"{found['within']}." if found["within"] else ""
        return BadRequest(602, f"{within}{found['name']} in body is required")
    if found := _NULL.fullmatch(text):
        return BadRequest(602, f"{found['name']} in body is required")
    return BadRequest(601, f"{text} in body")


@lru_cache
def _decoder(form: type[T]) -> msgspec.json.Decoder[T]:
    return msgspec.json.Decoder(form)

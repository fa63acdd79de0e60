"""The name servers that the CNI result names for a pod (annotation `dns`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain.addresses import AddressError, parse_address
from allocator.domain.json_annotation import PREFIX, JsonAnnotation, is_plain, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

DNS: Final = JsonAnnotation(
    PREFIX + "dns",
    '{"nameservers": ["10.20.0.53"], "domain": "example.com", "search": ["example.com"], "options": ["ndots:2"]}',
)
_MEMBERS: Final = ("nameservers", "domain", "search", "options")


@dataclass(frozen=True, slots=True, kw_only=True)
class PodDns:
    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


NO_DNS: Final = PodDns()


def dns_of_pod(annotations: Mapping[str, str]) -> PodDns:
    """What the pod asks for. errors.Invalid with the place and a right example when the annotation is malformed."""
    text = annotations.get(DNS.key)
    if text is None:
        return NO_DNS
    members = DNS.members(DNS.parsed(text))
    if unknown := sorted(members.keys() - set(_MEMBERS)):
        raise DNS.wrong("", f"has the member {quoted(unknown[0])}, which means nothing")
    domain = members.get("domain") or ""
    if not isinstance(domain, str) or (domain and not is_plain(domain)):
        raise DNS.wrong("domain", "must be a text without blanks")
    return PodDns(
        nameservers=tuple(_server(item) for item in DNS.texts(members.get("nameservers"), "nameservers", "addresses")),
        domain=domain,
        search=DNS.texts(members.get("search"), "search", "domains"),
        options=DNS.texts(members.get("options"), "options", "options of resolv.conf"),
    )


def _server(text: str) -> str:
    try:
        return str(parse_address(text))
    except AddressError:
        raise DNS.wrong("nameservers", f"are addresses, and {quoted(text)} is none") from None

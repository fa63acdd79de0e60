"""The agent's IpamAddResponse as a CNI result of the version that the network asked for."""

from __future__ import annotations

from _socket import AF_INET, AF_INET6, inet_pton

from cni.errors import FAILED, CniError
from cni.wire import decode, encode, nonsense, objects

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.wire import Json

    Cidr = tuple[int, bytes, int]


def result_of(data: bytes, cni_version: str, if_name: str) -> Json:
    """The part of the answer that is this interface's, IPv4 first; all of the answer is checked. CniError 6 or 999."""
    answer = decode(data, "the agent's answer")
    by_family: dict[int, list[Json]] = {4: [], 6: []}
    for item in objects(answer, "ips"):
        family = parse_cidr(item.get("address"))[0]
        if item.get("version") != family or not isinstance(item.get("nic"), str):
            raise nonsense(f"version or nic of {item['address']} do not fit")
        # The forms before 1.0.0 carry the family. `interface`, the index of an interface, is the main plugin's to add.
        ip = {"version": str(family)} if cni_version.startswith("0.") else {}
        ip["address"] = item["address"]
        if item.get("gateway"):
            ip["gateway"] = item["gateway"]
            parse_ip(ip["gateway"], family)
        if item["nic"] == if_name:
            by_family[family].append(ip)
    routes = []
    for item in objects(answer, "routes"):
        parse_ip(item.get("gw"), parse_cidr(item.get("dst"))[0])
        if item.get("ifName") == if_name:
            routes.append({"dst": item["dst"], "gw": item["gw"]})
    dns = dns_of(answer)
    ips = by_family[4] + by_family[6]
    if not ips:
        raise CniError(FAILED, f"the agent gave {if_name} no address", "see the events of the pod")
    return {"cniVersion": cni_version, "ips": ips} | ({"routes": routes} if routes else {}) | {"dns": dns}


def dns_of(answer: Json) -> Json:
    """The members that CNI knows, those that say nothing left out."""
    dns = answer.get("dns") or {}
    if not isinstance(dns, dict):
        raise nonsense("dns is not an object")
    for member in ("nameservers", "search", "options"):
        texts = dns.get(member) or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise nonsense(f"dns.{member} is not a list of strings")
    if not isinstance(dns.get("domain") or "", str):
        raise nonsense("dns.domain is not a string")
    for server in dns.get("nameservers") or []:
        parse_ip(server, family_of(server))
    return {member: dns[member] for member in ("nameservers", "domain", "search", "options") if dns.get(member)}


def parse_cidr(text: object) -> Cidr:
    """Family (4 or 6), packed address and prefix length of `address/prefix`. CniError 6."""
    address, _, prefix = text.partition("/") if isinstance(text, str) else ("", "", "")
    family = family_of(address)
    packed = parse_ip(address, family)
    if not (prefix.isascii() and prefix.isdecimal() and len(prefix) < 4) or int(prefix) > len(packed) * 8:
        raise nonsense(f"{encode(text)[:60]} is no address with a prefix length")
    return family, packed, int(prefix)


def family_of(address: str) -> int:
    return 6 if ":" in address else 4


def parse_ip(text: object, family: int) -> bytes:
    try:
        return inet_pton(AF_INET6 if family == 6 else AF_INET, str(text))
    except (OSError, ValueError) as error:
        raise nonsense(f"{encode(text)[:60]} is no IPv{family} address") from error

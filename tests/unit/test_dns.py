"""The name servers that a pod asks for."""

from __future__ import annotations

import pytest

from allocator.domain import errors
from allocator.domain.dns import NO_DNS, PodDns, dns_of_pod


def of(text: str) -> PodDns:
    return dns_of_pod({"ipam.spidernet.io/dns": text})


def test_a_pod_may_name_servers_domain_search_list_and_options() -> None:
    text = (
        '{"nameservers": ["10.20.0.53", "FD00::53"], "domain": "a.b", "search": ["a.b", "b"], "options": ["ndots:2"]}'
    )
    assert of(text) == PodDns(
        nameservers=("10.20.0.53", "fd00::53"), domain="a.b", search=("a.b", "b"), options=("ndots:2",)
    )


@pytest.mark.parametrize("annotations", [{}, {"ipam.spidernet.io/dns": "{}"}])
def test_a_pod_may_name_none(annotations: dict[str, str]) -> None:
    assert dns_of_pod(annotations) == NO_DNS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("10.20.0.53", "dns is not JSON", id="no JSON"),
        pytest.param('["10.20.0.53"]', "dns must be an object", id="a list"),
        pytest.param('{"nameserver": ["10.20.0.53"]}', 'dns has the member "nameserver", which means', id="a typo"),
        pytest.param('{"nameservers": "10.20.0.53"}', "dns at nameservers must be a list of addresses", id="a text"),
        pytest.param('{"nameservers": ["dns.local"]}', 'at nameservers are addresses, and "dns.local" is', id="a name"),
        pytest.param('{"domain": ["a.b"]}', "dns at domain must be a text", id="a list of domains"),
        pytest.param(r'{"nameservers": ["\ud800"]}', "nameservers must be a list of addresses", id="half a pair"),
        pytest.param('{"domain": "a b"}', "dns at domain must be a text without blanks", id="two domains"),
        pytest.param('{"search": [""]}', "dns at search must be a list of domains", id="an empty domain"),
    ],
)
def test_a_malformed_annotation_is_named_with_the_place_and_a_right_example(text: str, told: str) -> None:
    with pytest.raises(errors.Invalid) as refusal:
        of(text)
    assert told in str(refusal.value)
    assert 'a right value is {"nameservers": ["10.20.0.53"], ' in str(refusal.value)

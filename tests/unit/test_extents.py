"""Extents found by where their networks lie, held against a look at every one of them."""

from __future__ import annotations

from ipaddress import ip_network

from hypothesis import given
from hypothesis import strategies as st

from allocator.domain.addresses import IntervalSet, version_of
from allocator.domain.extents import Extents
from allocator.domain.overlap import Extent

NETWORKS = st.one_of(
    st.builds(
        lambda bits, length: ip_network((bits << 24, length), strict=False), st.integers(0, 15), st.integers(0, 8)
    ),
    st.builds(
        lambda bits, length: ip_network((bits << 120, length), strict=False), st.integers(0, 15), st.integers(0, 128)
    ),
)


def extent(name: str, network: object) -> Extent:
    subnet = ip_network(str(network))
    return Extent("SpiderIPPool", name, name, subnet, IntervalSet(version_of(subnet)))


@given(changes=st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | NETWORKS)), asked=NETWORKS)
def test_those_that_share_an_address_are_near(changes: list[tuple[str, object]], asked: object) -> None:
    extents = Extents()
    stand: dict[str, Extent] = {}
    for name, network in changes:
        if network is None:
            extents.drop(name)
            stand.pop(name, None)
        else:
            stand[name] = extent(name, network)
            extents.put(stand[name])
    wanted = ip_network(str(asked))
    near = {each.name for each in stand.values() if each.subnet.version == wanted.version and _share(each, wanted)}
    found = [each.name for each in extents.near(wanted)]
    assert sorted(found) == sorted(near)
    assert {each.name: each for each in extents} == stand
    assert all(extents.get(name) == stand.get(name) for name in "abcdef")


def _share(one: Extent, network: object) -> bool:
    other = ip_network(str(network))
    return int(one.subnet[0]) <= int(other[-1]) and int(other[0]) <= int(one.subnet[-1])

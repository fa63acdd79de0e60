"""Pools of applications: their names, labels and first form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.domain.annotations import INTERFACE
from allocator.domain.applications import Application
from allocator.domain.auto_pools import Purpose, empty_pool, labelled, labels_of, pool_name, purpose_of
from allocator.domain.selector_rules import SUBDOMAIN, is_label_value
from tests.unit.values import CART

PREFIX = "ipam.spidernet.io/"
PURPOSE = Purpose(CART, "eth0", 4, "dc1", is_reclaimed=True)
SUBNET: dict[str, Any] = {
    "apiVersion": "spiderpool.spidernet.io/v2beta1",
    "kind": "SpiderSubnet",
    "metadata": {"name": "dc1", "uid": "u-dc1"},
    "spec": {
        "subnet": "10.20.0.0/16",
        "ipVersion": 4,
        "ips": ["10.20.2.1-10.20.2.20"],
        "gateway": "10.20.0.1",
        "routes": [{"dst": "10.99.0.0/16", "gw": "10.20.0.9"}],
    },
}
WORDS = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(WORDS, min_size=1, max_size=20).map(".".join).filter(lambda name: len(name) <= 253)
INTERFACES = st.text("aB0._-", min_size=1, max_size=15).filter(is_label_value)
UIDS = st.uuids().map(str)


@pytest.mark.parametrize(
    ("version", "interface", "nth", "name"),
    [
        pytest.param(4, "eth0", 1, "auto4-cart-eth0-8a1f3", id="the first"),
        pytest.param(6, "net1", 1, "auto6-cart-net1-8a1f3", id="of another family and interface"),
        pytest.param(4, "eth0", 3, "auto4-cart-eth0-8a1f3-3", id="the third"),
        pytest.param(4, "eth0.100", 1, "auto4-cart-eth0.100-8a1f3", id="a VLAN"),
        pytest.param(4, "Bond_0", 1, "auto4-cart-bond-0-8a1f3", id="what a name may not have"),
        pytest.param(4, "a..b", 1, "auto4-cart-a--b-8a1f3", id="dots where a name may not have them"),
    ],
)
def test_a_pool_is_called_after_its_application(version: Any, interface: str, nth: int, name: str) -> None:
    assert pool_name(CART, interface, version, nth) == name


@given(NAMES, INTERFACES, UIDS, st.integers(1, 64))
def test_every_name_is_one_that_the_api_server_takes(name: str, interface: str, uid: str, nth: int) -> None:
    assert INTERFACE.fullmatch(interface)
    text = pool_name(replace(CART, name=name, uid=uid), interface, 6, nth)
    assert SUBDOMAIN.fullmatch(text), text
    assert len(text) <= 253


@given(NAMES, INTERFACES, st.sampled_from([4, 6]), st.booleans())
def test_the_labels_lead_back_to_the_purpose(name: str, interface: str, version: Any, is_reclaimed: bool) -> None:  # noqa: FBT001
    application = replace(CART, name=name)
    labels = labels_of(Purpose(application, interface, version, "dc1", is_reclaimed))
    assert all(map(is_label_value, labels.values()))
    found = purpose_of(labels)
    assert found == Purpose(labelled(application), interface, version, "dc1", is_reclaimed)
    assert found.serves(application, interface)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(replace(CART, uid="another"), id="the next of its name"),
        pytest.param(replace(CART, namespace="other"), id="another namespace"),
        pytest.param(replace(CART, kind="StatefulSet"), id="another kind"),
        pytest.param(replace(CART, api_version="apps/v2"), id="another version"),
    ],
)
def test_a_pool_serves_nobody_but_its_application(changed: Application) -> None:
    assert not PURPOSE.serves(changed, "eth0")


def test_a_pool_serves_no_other_interface() -> None:
    assert not PURPOSE.serves(CART, "net1")


@pytest.mark.parametrize("missing", [key for key in labels_of(PURPOSE) if not key.endswith(("subnet", "reclaim"))])
def test_without_one_of_its_labels_a_pool_is_none_of_ours(missing: str) -> None:
    assert purpose_of({key: text for key, text in labels_of(PURPOSE).items() if key != missing}) is None


def test_a_pool_that_does_not_say_whether_it_goes_goes() -> None:
    labels = labels_of(replace(PURPOSE, is_reclaimed=False))
    del labels[PREFIX + "ippool-reclaim"]
    assert purpose_of(labels) == PURPOSE


def test_a_pool_is_born_without_addresses_and_with_what_its_subnet_says() -> None:
    pool = empty_pool("auto4-cart-eth0-8a1f3", PURPOSE, SUBNET, "+1")
    assert pool["spec"]["ips"] == []
    said = {key: SUBNET["spec"][key] for key in ("subnet", "ipVersion", "gateway", "routes")}
    assert said.items() <= pool["spec"].items()
    assert pool["metadata"]["annotations"] == {PREFIX + "ippool-ip-number": "+1"}
    assert pool["metadata"]["finalizers"] == ["spiderpool.spidernet.io"]
    assert pool["metadata"]["labels"][PREFIX + "ippool-cidr"] == "10-20-0-0-16"
    assert purpose_of(pool["metadata"]["labels"]) == PURPOSE


def test_a_pool_shares_nothing_with_the_stored_subnet() -> None:
    pool = empty_pool("auto4-cart-eth0-8a1f3", PURPOSE, SUBNET, "+1")
    assert pool["spec"]["routes"] is not SUBNET["spec"]["routes"]


def test_a_pool_of_a_subnet_without_gateway_has_none() -> None:
    bare = {**SUBNET, "spec": {"subnet": "10.20.0.0/16", "ipVersion": 4}}
    assert {"gateway", "routes"}.isdisjoint(empty_pool("auto4-cart-eth0-8a1f3", PURPOSE, bare, "5")["spec"])


def test_the_core_group_is_an_empty_one_in_the_affinity() -> None:
    purpose = replace(PURPOSE, application=Application("v1", "Pod", "shop", "one", CART.uid))
    affinity = empty_pool("auto4-one-eth0-8a1f3", purpose, SUBNET, "1")["spec"]["podAffinity"]["matchLabels"]
    assert affinity == {
        PREFIX + "app-api-group": "",
        PREFIX + "app-api-version": "v1",
        PREFIX + "app-kind": "Pod",
        PREFIX + "app-namespace": "shop",
        PREFIX + "app-name": "one",
    }

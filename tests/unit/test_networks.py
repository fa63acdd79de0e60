"""Which network an interface belongs to, as Multus reads it."""

import pytest

from allocator.domain import errors
from allocator.domain.networks import DEFAULT_NETWORK, NETWORKS, interfaces_in_order, network_of


def of(interface: str, annotations: dict[str, str], cluster_network: str = "") -> str | None:
    return network_of(
        annotations, interface, pod_namespace="shop", own_namespace="spiderpool", cluster_network=cluster_network
    )


@pytest.mark.parametrize(
    ("interface", "annotations", "cluster", "network"),
    [
        pytest.param("eth0", {}, "", None, id="nothing says it"),
        pytest.param("eth0", {}, "macvlan0", "spiderpool/macvlan0", id="eth0 has the cluster's network"),
        pytest.param("eth0", {DEFAULT_NETWORK: ""}, "lab/m0", "lab/m0", id="an empty default is none"),
        pytest.param("eth0", {DEFAULT_NETWORK: "m1"}, "", "spiderpool/m1", id="a default is in our namespace"),
        pytest.param("eth0", {DEFAULT_NETWORK: "lab/m1,lab/m2"}, "", "lab/m1", id="the first of several defaults"),
        pytest.param("eth0", {DEFAULT_NETWORK: '[{"name": "m1"}]'}, "", "spiderpool/m1", id="a default as JSON"),
        pytest.param("eth0", {NETWORKS: "m1@eth0"}, "", None, id="eth0 is never in the list"),
        pytest.param("net1", {DEFAULT_NETWORK: "lab/m1"}, "macvlan0", None, id="a default is for eth0 only"),
        pytest.param("net1", {NETWORKS: "m1@fast,m2"}, "", None, id="a named one takes its place"),
        pytest.param("eth0", {DEFAULT_NETWORK: "lab/m1"}, "macvlan0", "lab/m1", id="the pod's default beats it"),
        pytest.param("net1", {NETWORKS: "m1, lab/m2"}, "", "shop/m1", id="the first element is net1"),
        pytest.param("net2", {NETWORKS: "m1, lab/m2"}, "", "lab/m2", id="the second is net2"),
        pytest.param("fast", {NETWORKS: "m1,m2@fast"}, "", "shop/m2", id="named after @"),
        pytest.param("net9", {NETWORKS: "m1"}, "", None, id="not in the list"),
        pytest.param("net1", {NETWORKS: '[{"name": "m1", "namespace": "lab"}]'}, "", "lab/m1", id="JSON"),
        pytest.param("x", {NETWORKS: '[{"name": "m1", "interface": "x"}]'}, "", "shop/m1", id="JSON with interface"),
    ],
)
def test_an_interface_has_the_network_that_multus_gives_it(
    interface: str, annotations: dict[str, str], cluster: str, network: str | None
) -> None:
    assert of(interface, annotations, cluster) == network


@pytest.mark.parametrize(
    "text",
    [
        "a/b/c",
        "/m1",
        "m1,",
        "M1",
        "lab/-m1",
        "m1@",
        "m1@an interface",
        "m1@a/b",
        "m1@sixteen-letters-",
        "[",
        '{"name": "m1"}',
        '["m1"]',
        '[{"namespace": "lab"}]',
        '[{"name": 7}]',
        '[{"name": "M1"}]',
        r'[{"name": "m1", "interface": "\ud800"}]',
        '[{"name": "m1", "namespace": "L/A"}]',
        '[{"name": "m1", "interface": "sixteen-letters-"}]',
    ],
)
def test_a_list_that_cannot_be_read_is_refused_by_name(text: str) -> None:
    with pytest.raises(errors.Invalid, match=f"annotation {NETWORKS}"):
        of("net1", {NETWORKS: text})


def test_a_cluster_network_that_cannot_be_read_is_refused_as_the_agents_setting() -> None:
    with pytest.raises(errors.Invalid, match=r"^MULTUS_CLUSTER_NETWORK: "):
        of("eth0", {}, "a/b/c")


def test_interfaces_come_in_the_order_of_their_networks_behind_the_clusters() -> None:
    assert interfaces_in_order({NETWORKS: "m1,m2@fast,m3"}) == ["eth0", "net1", "fast", "net3"]
    assert interfaces_in_order({}) == ["eth0"]

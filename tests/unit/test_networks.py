"""Which network an interface belongs to, as Multus reads it."""

import pytest

from allocator.domain import errors
from allocator.domain.networks import DEFAULT_NETWORK, NETWORKS, network_of


def of(interface: str, annotations: dict[str, str], cluster_network: str = "") -> str | None:
    return network_of(
        annotations, interface, pod_namespace="shop", own_namespace="spiderpool", cluster_network=cluster_network
    )


@pytest.mark.parametrize(
    ("interface", "annotations", "cluster", "network"),
    [
        pytest.param("eth0", {}, "", None, id="nothing says it"),
        pytest.param("eth0", {}, "macvlan0", "spiderpool/macvlan0", id="eth0 has the cluster's network"),
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


@pytest.mark.parametrize("text", ["a/b/c", "/m1", "[", '{"name": "m1"}', '[{"namespace": "lab"}]'])
def test_a_list_that_cannot_be_read_is_refused_by_name(text: str) -> None:
    with pytest.raises(errors.Invalid, match=NETWORKS):
        of("net1", {NETWORKS: text})

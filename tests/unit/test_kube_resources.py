import pytest

from allocator.kube import resources


def test_paths_of_the_core_group_and_of_others() -> None:
    assert resources.PODS.path() == "/api/v1/pods"
    assert resources.PODS.path("default", "web-0") == "/api/v1/namespaces/default/pods/web-0"
    assert resources.PODS.path("default", "web-0", "status") == "/api/v1/namespaces/default/pods/web-0/status"
    assert resources.SPIDER_IP_POOLS.path(name="v4", subresource="status") == (
        "/apis/spiderpool.spidernet.io/v2beta1/spiderippools/v4/status"
    )


def test_a_name_cannot_leave_its_place_in_the_path() -> None:
    assert resources.NODES.path(name="../secrets?x") == "/api/v1/nodes/..%2Fsecrets%3Fx"


def test_the_api_version_of_the_core_group_has_no_slash() -> None:
    assert resources.PODS.api_version == "v1"
    assert resources.LEASES.api_version == "coordination.k8s.io/v1"


def test_places_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="cluster-scoped"):
        resources.NODES.path("default", "a")
    with pytest.raises(ValueError, match="needs a namespace"):
        resources.PODS.path(name="web-0")
    with pytest.raises(ValueError, match="needs a name"):
        resources.PODS.path("default", subresource="status")

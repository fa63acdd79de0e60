"""New pods that ask for addresses of SpiderSubnets before the webhook: what kubectl shows of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from allocator.kube.resources import PODS, SPIDER_SUBNETS
from tests.plane.test_webhook_pods import pod, shown
from tests.plane.webhooks import register, running_webhook, subnet

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from devcluster.plane import Plane
    from tests.plane.support import Kubectl
    from tests.plane.webhooks import Webhook

SUBNET = "ipam.spidernet.io/subnet"


async def test_a_pod_is_told_of_subnets_that_do_not_serve_it_and_is_let_in(
    admission: Webhook, kube: KubeClient, kubectl: Kubectl, namespace: str
) -> None:
    await kube.create(SPIDER_SUBNETS, subnet("dc1", subnet="10.20.0.0/16", ips=["10.20.0.10-10.20.0.20"]))
    await kube.create(SPIDER_SUBNETS, subnet("dc6", subnet="fd00:20::/64"))
    await kube.create(SPIDER_SUBNETS, subnet("leaving", subnet="10.21.0.0/16"))
    await kube.delete(SPIDER_SUBNETS, "leaving")
    asking = pod(namespace, annotations={"subnet": '{"ipv4": ["dc1", "dc2", "dc6", "leaving"]}'})
    out = await shown(kubectl, asking, until="being deleted")
    assert f"Warning: annotation {SUBNET}: dc2: there is no SpiderSubnet of this name; dc6: the subnet is IPv6" in out
    assert "leaving: the subnet is being deleted" in out
    assert "pod/web created" in out


async def test_a_subnet_of_the_same_file_is_no_matter(
    admission: Webhook, kube: KubeClient, kubectl: Kubectl, namespace: str
) -> None:
    asking = pod(namespace, annotations={"subnet": '{"ipv4": ["dc1"]}', "ippool-ip-number": "+1"})
    made = subnet("dc1", subnet="10.20.0.0/16", ips=["10.20.0.10-10.20.0.20"])
    out = await kubectl("create", "-f", "-", stdin=yaml.safe_dump_all([made, asking]))
    assert f"annotation {SUBNET}" not in out
    assert (await kube.get(PODS, "web", namespace=namespace))["metadata"]["annotations"] == {
        SUBNET: '{"ipv4": ["dc1"]}',
        "ipam.spidernet.io/ippool-ip-number": "+1",
    }


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({"enableSpiderSubnet": False}, f"annotation {SUBNET} is not looked at: enableSpiderSubnet is false"),
        ({"enableAutoPoolForApplication": False}, f"annotation {SUBNET} will be refused when the pod asks for its"),
    ],
    ids=["no subnets", "no automatic pools"],
)
async def test_what_is_switched_off_is_told(  # noqa: PLR0917 - what it runs on, and a row
    plane: Plane, kube: KubeClient, kubectl: Kubectl, namespace: str, tmp_path: Path, settings: Object, warning: str
) -> None:
    conf = tmp_path / "conf.yml"
    conf.write_text(yaml.safe_dump(settings))
    options = ("--register", "none", "--config", str(conf))
    with running_webhook(plane.kubeconfig, tmp_path / "webhook", *options) as server:
        await register(kube, server)
        asking = pod(namespace, annotations={"subnet": '{"ipv4": ["dc1"]}'})
        out = await kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(asking))
    assert f"Warning: {warning}" in out
    assert "there is no SpiderSubnet" not in out


async def test_the_defaults_of_a_namespace_mean_nothing_on_a_pod(
    admission: Webhook, kubectl: Kubectl, namespace: str
) -> None:
    asking = pod(namespace, annotations={"default-ipv4-subnet": '["dc1"]'})
    out = await kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(asking))
    assert f"means nothing on a pod: set it on the namespace, or set {SUBNET} on the pod" in out

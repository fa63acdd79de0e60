"""A real API server that shows the webhook a client certificate, as its AdmissionConfiguration tells it to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from allocator.kube import errors
from allocator.kube.client import KubeClient
from allocator.kube.resources import SPIDER_IP_POOLS
from devcluster.plane import envtest, tls
from tests.plane.support import eventually, install_crd
from tests.plane.webhooks import Webhook, pool, running_webhook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CRDS = Path(__file__).resolve().parents[2] / "manifests" / "crds"
PLUGINS = ("MutatingAdmissionWebhook", "ValidatingAdmissionWebhook")

pytestmark = pytest.mark.real_plane


def admission_configuration(folder: Path, authority: tls.Authority) -> Path:
    """What --admission-control-config-file names: for both plugins, a kubeconfig with the certificate to show."""
    certificate, key = authority.issue("kube-apiserver-webhook-client")
    (folder / "client.crt").write_bytes(certificate)
    (folder / "client.key").write_bytes(key)
    shown = {"client-certificate": str(folder / "client.crt"), "client-key": str(folder / "client.key")}
    user = {"name": "*", "user": shown}  # whatever the host is called
    kubeconfig = folder / "webhook-kubeconfig.yaml"
    kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "users": [user]}))
    of_plugin = {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "WebhookAdmissionConfiguration",
        "kubeConfigFile": str(kubeconfig),
    }
    plugins = [{"name": name, "configuration": of_plugin} for name in PLUGINS]
    path = folder / "admission.yaml"
    whole = {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration", "plugins": plugins}
    path.write_text(json.dumps(whole))
    return path


@pytest.fixture
def ours() -> tls.Authority:
    return tls.Authority("for-api-servers")


@pytest.fixture
async def kubeconfig(ours: tls.Authority, tmp_path: Path) -> AsyncIterator[Path]:
    """Of an API server that has a client certificate of ours."""
    try:
        envtest.binaries()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    folder = tmp_path / "plane"
    folder.mkdir()
    option = f"--admission-control-config-file={admission_configuration(folder, ours)}"
    async with envtest.serve(folder, apiserver=[option]) as plane:
        yield plane.kubeconfig


async def is_registered(webhook: Webhook) -> bool:
    return len(webhook.lines("registered")) == 2


async def test_the_webhook_answers_an_api_server_with_its_certificate_and_no_other(
    ours: tls.Authority, kubeconfig: Path, tmp_path: Path
) -> None:
    theirs = tls.Authority("theirs")
    wrong = pool("p", subnet="10.20.0.0/24", ips=["10.21.0.1"])
    async with KubeClient.connect(kubeconfig=kubeconfig, user_agent="tests") as kube:
        for path in sorted(CRDS.glob("spider*.yaml")):
            await install_crd(kube, yaml.safe_load(path.read_text()))

        async def refusal(authority: tls.Authority) -> str:
            """What who creates a wrong pool hears, where the webhook trusts that authority only."""
            file = tmp_path / "client-ca.crt"
            file.write_bytes(authority.pem)
            options = ("--register", "url", "--client-ca", str(file))
            with running_webhook(kubeconfig, tmp_path / "webhook", *options) as webhook:
                await eventually(lambda: is_registered(webhook))
                said = ""

                async def is_asked() -> bool:
                    # An API server takes a moment until it goes by a new registration.
                    nonlocal said
                    try:
                        await kube.create(SPIDER_IP_POOLS, wrong, dry_run=True)
                    except errors.ApiError as error:
                        said = str(error)
                    return "webhook" in said

                await eventually(is_asked)
                return said

        assert "failed calling webhook" in await refusal(theirs)
        assert 'admission webhook "spiderippool.spiderpool.spidernet.io" denied the request' in await refusal(ours)

"""The process with certificates of somebody else, with client certificates, and with metrics."""

from __future__ import annotations

import asyncio
import base64
import ssl
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import aiohttp
import pytest
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from allocator.kube.resources import SECRETS, VALIDATING_WEBHOOKS
from certs import authority
from devcluster.plane.tls import Authority
from tests.plane.support import eventually
from tests.plane.webhooks import Webhook, pool, review, running_webhook
from webhook.entries import NAME

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object
    from certs.authority import Material
    from devcluster.plane import Plane

VALIDATE = "/validate-spiderpool-spidernet-io-v2beta1-spiderippool"


def given() -> Material:
    return authority.renewed(None, ["127.0.0.1"], datetime.now(UTC))


def secret_of(material: Material, namespace: str) -> Object:
    texts = {"ca.crt": material.ca, "tls.crt": material.certificate, "tls.key": material.key}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "corp-tls", "namespace": namespace},
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()},
    }


async def status(url: str, tls: ssl.SSLContext | None = None) -> int:
    async with aiohttp.ClientSession() as session, session.get(url, ssl=tls or True) as response:
        return response.status


async def test_a_given_secret_is_waited_for_then_served_registered_and_never_written(
    plane: Plane, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    options = ("--register", "url", "--namespace", namespace, "--certificates", "given", "--cert-secret", "corp-tls")
    plain = ("--health-listen", "127.0.0.1:0")
    with running_webhook(
        plane.kubeconfig, tmp_path, *options, *plain, in_secret=True, until="probes_listening"
    ) as webhook:
        probes = f"http://127.0.0.1:{webhook.port}/v1/runtime"

        async def is_awaited() -> bool:
            return bool(webhook.lines("certificate_awaited"))

        await eventually(is_awaited)
        assert f"Secret {namespace}/corp-tls is not there yet" in webhook.lines("certificate_awaited")[0]["error"]
        assert (await status(f"{probes}/readiness"), await status(f"{probes}/liveness")) == (503, 200)
        assert not webhook.lines("registered")

        first = given()
        created = await kube.create(SECRETS, secret_of(first, namespace), namespace=namespace)

        async def is_registered() -> bool:
            return len(webhook.lines("registered")) == 2

        await eventually(is_registered)
        assert await status(f"{probes}/readiness") == 200
        base = f"https://127.0.0.1:{webhook.lines('listening')[0]['port']}"
        assert await status(f"{base}/webhook-health-check", ssl.create_default_context(cadata=first.ca)) == 200

        # As cert-manager changes a CA: with the certificate, in one write.
        second = given()
        await kube.replace(SECRETS, {**created, "data": secret_of(second, namespace)["data"]})

        async def bundle() -> str:
            webhooks = (await kube.get(VALIDATING_WEBHOOKS, NAME))["webhooks"]
            return base64.b64decode(webhooks[0]["clientConfig"]["caBundle"]).decode()

        async def is_second_trusted() -> bool:
            return await bundle() == second.ca + first.ca

        await eventually(is_second_trusted)
        written = await kube.get(SECRETS, "corp-tls", namespace=namespace)
        assert written["data"] == secret_of(second, namespace)["data"]


async def test_a_given_folder_is_served_and_reloaded(plane: Plane, tmp_path: Path) -> None:
    folder = tmp_path / "certs"
    folder.mkdir()
    first = given()

    def write(material: Material) -> None:
        for name, text in (("tls.crt", material.certificate), ("tls.key", material.key), ("ca.crt", material.ca)):
            (folder / name).write_text(text)

    write(first)
    with running_webhook(plane.kubeconfig, tmp_path, "--register", "none", "--certificates", "given") as webhook:
        write(authority.issued(first, ["127.0.0.1", "renewed.example"], datetime.now(UTC)))

        async def is_renewed() -> bool:
            _, writer = await asyncio.open_connection(
                "127.0.0.1", webhook.port, ssl=ssl.create_default_context(cadata=first.ca)
            )
            names = str(writer.get_extra_info("peercert")["subjectAltName"])
            writer.transport.abort()
            return "renewed.example" in names

        await eventually(is_renewed)
        assert {path.name for path in folder.iterdir()} == {"ca.crt", "tls.crt", "tls.key"}


class Client:
    """Whoever shows the certificate that `issuer` gave out, or none."""

    def __init__(self, webhook: Webhook, folder: Path, issuer: Authority | None = None) -> None:
        self._base = webhook.base
        self._tls = ssl.create_default_context(cadata=webhook.ca_bundle)
        if issuer is not None:
            certificate, key = issuer.issue("kube-apiserver-webhook-client")
            path = folder / "client.pem"
            path.write_bytes(certificate + key)
            self._tls.load_cert_chain(path)

    async def is_let_in(self) -> bool:
        try:
            return await status(f"{self._base}/webhook-health-check", self._tls) in (200, 503)
        except (aiohttp.ClientError, OSError):
            return False


async def test_with_a_client_ca_only_who_shows_its_certificate_is_let_in(plane: Plane, tmp_path: Path) -> None:
    ours, theirs = Authority("ours"), Authority("theirs")
    file = tmp_path / "client-ca.crt"
    file.write_bytes(ours.pem)
    options = ("--register", "none", "--client-ca", str(file), "--log-level", "debug")
    with running_webhook(plane.kubeconfig, tmp_path / "w", *options) as webhook:
        assert await Client(webhook, tmp_path, ours).is_let_in()
        handshakes = len(webhook.lines("handshake_failed"))
        for issuer in (None, theirs):
            assert not await Client(webhook, tmp_path, issuer).is_let_in()
        assert len(webhook.lines("handshake_failed")) >= handshakes + 2

        before = Client(webhook, tmp_path, ours)
        file.write_bytes(theirs.pem)

        async def is_exchanged() -> bool:
            return await Client(webhook, tmp_path, theirs).is_let_in()

        await eventually(is_exchanged)
        assert not await before.is_let_in()

        # What cannot be read takes nothing away from who is let in.
        file.write_text("garbage")

        async def is_noticed() -> bool:
            return bool(webhook.lines("client_ca_not_read"))

        await eventually(is_noticed)
        assert await Client(webhook, tmp_path, theirs).is_let_in()


@pytest.mark.parametrize("content", [None, "garbage"], ids=["missing", "no certificate"])
async def test_a_client_ca_that_cannot_be_used_is_a_wrong_setting(
    plane: Plane, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "client-ca.crt"
    if content is not None:
        file.write_text(content)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "webhook", "--kubeconfig", str(plane.kubeconfig), "--listen", "127.0.0.1:0"),
        *("--register", "none", "--cert-dir", str(tmp_path / "certs"), "--client-ca", str(file)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2
    assert f"--client-ca {file} holds no certificates" in stderr.decode()
    assert "Traceback" not in stderr.decode()


async def test_metrics_tell_of_expiry_and_verdicts_and_name_nobody(plane: Plane, tmp_path: Path) -> None:
    options = ("--register", "none", "--metrics-listen", "127.0.0.1:0")
    with running_webhook(plane.kubeconfig, tmp_path, *options) as webhook:
        url = f"http://127.0.0.1:{webhook.lines('metrics_listening')[0]['port']}/metrics"

        async def is_ready() -> bool:
            return await status(
                f"{webhook.base}/webhook-health-check", ssl.create_default_context(cadata=webhook.ca_bundle)
            ) == 200  # fmt: skip

        await eventually(is_ready)
        async with webhook.session() as session:
            for subnet in ("10.0.0.0/24", "nonsense", "10.0.0.0/24"):
                body = review(pool("secret-name", subnet=subnet, ipVersion=4), dryRun=True)
                async with session.post(VALIDATE, json=body) as response:
                    assert response.status == 200
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            text = await response.text()
        assert "secret-name" not in text
        samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
        count = "spiderpool_webhook_requests_total"
        assert samples[count, "CREATE", "SpiderIPPool", "allowed"] == 2
        assert samples[count, "CREATE", "SpiderIPPool", "denied"] == 1
        duration = "spiderpool_webhook_request_duration_seconds"
        assert samples[f"{duration}_count", "CREATE", "SpiderIPPool", "allowed"] == 2
        certificates = {
            "ca": x509.load_pem_x509_certificate(webhook.ca_bundle.encode()),
            "serving": x509.load_pem_x509_certificate((webhook.certs / "tls.crt").read_bytes()),
        }
        for name, certificate in certificates.items():
            expected = certificate.not_valid_after_utc.timestamp()
            assert samples["spiderpool_tls_cert_not_after_seconds", name] == expected
        assert samples["process_resident_memory_bytes",] > 0

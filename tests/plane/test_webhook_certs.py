"""Certificates in a Secret, shared by replicas; and the rights that the manifests give."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from allocator.kube import errors
from allocator.kube.resources import MUTATING_WEBHOOKS, SECRETS, SPIDER_IP_POOLS, VALIDATING_WEBHOOKS
from allocator.runtime.clock import SystemClock
from certs import authority
from certs.reload import Keeper
from certs.source import Own
from certs.store import SECRET_NAME, SecretStore, UnusableError
from tests.plane.support import eventually
from tests.plane.webhooks import pool, running_webhook
from webhook.entries import NAME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from allocator.kube.client import KubeClient
    from devcluster.plane import Plane
    from tests.plane.support import Kubectl

BASE = Path(__file__).resolve().parents[2] / "manifests" / "base"
NAMES = ["spiderpool-webhook.spiderpool.svc"]


def keeping(kube: KubeClient, namespace: str, names: Sequence[str] = NAMES) -> Keeper:
    return Keeper(Own(SecretStore(kube, namespace), names, SystemClock()), SystemClock(), poll_s=0.02)


async def secret(kube: KubeClient, namespace: str) -> dict[str, str]:
    data = (await kube.get(SECRETS, SECRET_NAME, namespace=namespace))["data"]
    return {key: base64.b64decode(text).decode() for key, text in data.items()}


async def test_replicas_that_start_together_share_one_authority(kube: KubeClient, namespace: str) -> None:
    keepers = [keeping(kube, namespace) for _ in range(5)]
    async with asyncio.TaskGroup() as group:
        for keeper in keepers:
            group.create_task(keeper.start())
    kept = await secret(kube, namespace)
    assert {keeper.ca_bundle for keeper in keepers} == {kept["ca.crt"]}
    assert (await kube.get(SECRETS, SECRET_NAME, namespace=namespace))["type"] == "kubernetes.io/tls"


async def test_another_name_renews_the_certificate_for_everybody(kube: KubeClient, namespace: str) -> None:
    first = keeping(kube, namespace)
    await first.start()
    before = await secret(kube, namespace)
    await keeping(kube, namespace, ["10.1.2.3"]).start()
    after = await secret(kube, namespace)
    assert after["ca.crt"] == before["ca.crt"]
    assert after["tls.crt"] != before["tls.crt"]
    await first.start()
    assert await secret(kube, namespace) == after


async def test_a_secret_of_cert_manager_is_served_and_left_alone(kube: KubeClient, namespace: str) -> None:
    maker = keeping(kube, namespace)
    await maker.start()
    given = await kube.get(SECRETS, SECRET_NAME, namespace=namespace)
    del given["data"]["ca.key"]
    await kube.replace(SECRETS, given)
    await keeping(kube, namespace, ["another.name"]).start()
    assert (await secret(kube, namespace)).keys() == {"ca.crt", "tls.crt", "tls.key"}


@pytest.mark.parametrize("data", [{}, {"data": {}}, {"data": {"note": ""}}], ids=["no data", "empty", "something else"])
async def test_a_secret_with_nothing_of_it_is_filled(kube: KubeClient, namespace: str, data: dict[str, Any]) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET_NAME, "namespace": namespace}}
    await kube.create(SECRETS, {**body, **data}, namespace=namespace)
    await keeping(kube, namespace).start()
    assert {"ca.crt", "tls.crt", "tls.key", "ca.key"} <= (await secret(kube, namespace)).keys()


async def test_a_secret_that_cannot_be_used_is_named_and_what_else_is_in_it_is_left(
    kube: KubeClient, namespace: str
) -> None:
    keeper = keeping(kube, namespace)
    await keeper.start()
    await kube.patch(SECRETS, SECRET_NAME, {"data": {"keystore.p12": "/w=="}}, namespace=namespace)
    await keeper.start()
    for text in ("garbage", "\N{SNOWMAN}"):
        data = {"ca.key": base64.b64encode(text.encode()).decode()}
        await kube.patch(SECRETS, SECRET_NAME, {"data": data}, namespace=namespace)
        with pytest.raises(UnusableError, match=rf"Secret {namespace}/{SECRET_NAME}: ca\.key .*delete all"):
            await keeper.start()


async def test_a_namespace_that_is_not_there_is_named(kube: KubeClient) -> None:
    keeper = Keeper(Own(SecretStore(kube, "no-such-place"), NAMES, SystemClock()), SystemClock())
    with pytest.raises(UnusableError, match="there is no namespace no-such-place: create it"):
        await keeper.start()


async def test_certificates_that_cannot_be_used_end_the_start_with_2(plane: Plane, tmp_path: Path) -> None:
    for name in ("ca.crt", "tls.crt", "tls.key", "ca.key"):
        (tmp_path / name).write_text("garbage")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "webhook", "--kubeconfig", str(plane.kubeconfig), "--listen", "127.0.0.1:0"),
        *("--register", "none", "--cert-dir", str(tmp_path)),
        stderr=asyncio.subprocess.PIPE,
    )
    _, stderr = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2
    assert f"{tmp_path}: ca.crt holds no certificate" in stderr.decode()
    assert "Traceback" not in stderr.decode()


async def test_what_somebody_does_to_the_registrations_is_undone_within_10_s(
    plane: Plane, kube: KubeClient, tmp_path: Path
) -> None:
    both = (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS)
    with running_webhook(plane.kubeconfig, tmp_path, "--register", "url") as webhook:

        async def webhooks() -> list[object]:
            try:
                return [(await kube.get(resource, NAME))["webhooks"] for resource in both]
            except errors.NotFound:
                return []

        async def is_registered() -> bool:
            return len(webhook.lines("registered")) == 2

        await eventually(is_registered)
        intended = await webhooks()

        async def is_as_intended() -> bool:
            return await webhooks() == intended

        for resource in both:
            await kube.delete(resource, NAME)
        await eventually(is_as_intended, within_s=10)

        other = authority.renewed(None, NAMES, datetime.now(UTC)).ca
        for resource in both:
            # As Helm or a GitOps tool writes what it once rendered.
            rendered = await kube.get(resource, NAME)
            for entry in rendered["webhooks"]:
                entry["clientConfig"]["caBundle"] = base64.b64encode(other.encode()).decode()
                entry["failurePolicy"] = "Ignore"
                entry["rules"][0]["operations"] = ["CREATE"]
            rendered["webhooks"].pop()
            await kube.patch(resource, NAME, {"webhooks": rendered["webhooks"]})
        await eventually(is_as_intended, within_s=10)


@pytest.fixture
async def account(plane: Plane, kube: KubeClient, kubectl: Kubectl, tmp_path: Path) -> AsyncIterator[Path]:
    """A kubeconfig of the service account that the manifests make for the webhook, and its rights."""
    await kubectl("apply", "-k", str(BASE))
    token = (await kubectl("create", "token", "spiderpool-webhook", "-n", "spiderpool")).strip()
    document = yaml.safe_load(plane.kubeconfig.read_text())
    document["users"] = [{"name": user["name"], "user": {"token": token}} for user in document["users"]]
    path = tmp_path / "account.kubeconfig"
    path.write_text(yaml.safe_dump(document))
    yield path
    with contextlib.suppress(errors.NotFound):
        await kube.delete(SECRETS, SECRET_NAME, namespace="spiderpool")


@pytest.mark.real_plane
async def test_the_rights_of_the_manifests_suffice(account: Path, kube: KubeClient, tmp_path: Path) -> None:
    options = ("--register", "service", "--namespace", "spiderpool")
    with running_webhook(account, tmp_path / "w", *options, in_secret=True) as webhook:

        async def is_registered() -> bool:
            return len(webhook.lines("registered")) == 2

        await eventually(is_registered)
        kept = await secret(kube, "spiderpool")
        for resource in (MUTATING_WEBHOOKS, VALIDATING_WEBHOOKS):
            registration = await kube.get(resource, NAME)
            client = registration["webhooks"][0]["clientConfig"]
            assert client["service"]["name"] == "spiderpool-webhook"
            assert base64.b64decode(client["caBundle"]).decode() == kept["ca.crt"]
            registration["webhooks"][0]["clientConfig"]["caBundle"] = ""
            await kube.replace(resource, registration)

        async def is_put_right() -> bool:
            return len(webhook.lines("registration_put_right")) == 2

        await eventually(is_put_right)
        assert not webhook.lines("registration_failed")
        assert not webhook.lines("watch_failed")
    # The Service has other replicas behind it: the registration stays.
    assert await kube.get(VALIDATING_WEBHOOKS, NAME)


@pytest.mark.real_plane
async def test_our_own_accounts_are_not_asked(
    account: Path, kube: KubeClient, kubectl: Kubectl, tmp_path: Path
) -> None:
    options = ("--register", "service", "--namespace", "spiderpool")
    await kube.create(SPIDER_IP_POOLS, pool("a", subnet="10.20.0.0/16"))
    with running_webhook(account, tmp_path / "w", *options, in_secret=True) as webhook:

        async def is_registered() -> bool:
            return len(webhook.lines("registered")) == 2

        await eventually(is_registered)

        # Nothing answers behind the Service here, so whoever is asked about is refused.
        async def is_refused_to_others() -> bool:
            out = await kubectl("patch", "sp", "a", "--type=merge", "-p", '{"spec":{"disable":true}}', check=False)
            return "failed calling webhook" in out or "no endpoints available" in out

        await eventually(is_refused_to_others)
        me = "--as=system:serviceaccount:spiderpool:spiderpool-controller"
        await kubectl("patch", "sp", "a", "--type=merge", "-p", '{"spec":{"default":true}}', me)


@pytest.mark.real_plane
async def test_with_cert_manager_the_right_to_read_one_secret_suffices(
    account: Path, kube: KubeClient, kubectl: Kubectl, tmp_path: Path
) -> None:
    overlay = yaml.safe_load_all(await kubectl("kustomize", str(BASE.parent / "overlays" / "cert-manager")))
    ours = [obj for obj in overlay if not obj["apiVersion"].startswith("cert-manager.io/")]
    await kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(ours))
    options = ("--register", "service", "--namespace", "spiderpool", "--certificates", "given")
    plain = ("--health-listen", "127.0.0.1:0")
    with running_webhook(
        account, tmp_path / "w", *options, *plain, in_secret=True, until="probes_listening"
    ) as webhook:

        async def is_awaited() -> bool:
            return bool(webhook.lines("certificate_awaited"))

        await eventually(is_awaited)
        assert "is not there yet" in webhook.lines("certificate_awaited")[0]["error"]
        issued = authority.renewed(None, NAMES, datetime.now(UTC))
        texts = {"ca.crt": issued.ca, "tls.crt": issued.certificate, "tls.key": issued.key}
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET_NAME, "namespace": "spiderpool"},
            "type": "kubernetes.io/tls",
            "data": {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()},
        }
        await kube.create(SECRETS, secret, namespace="spiderpool")

        async def is_registered() -> bool:
            return len(webhook.lines("registered")) == 2

        await eventually(is_registered)
        assert not webhook.lines("certificate_not_renewed")
    await kubectl("apply", "-k", str(BASE))

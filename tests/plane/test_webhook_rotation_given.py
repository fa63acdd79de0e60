"""The same where somebody else issues: authority and certificate change in one write, without any warning."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from certs import authority
from tests.plane.newcomers import newcomers
from tests.plane.support import eventually
from tests.plane.webhooks import running_webhook

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from certs.authority import Material
    from devcluster.plane import Plane


def write(folder: Path, material: Material) -> None:
    for name, text in (("ca.crt", material.ca), ("tls.crt", material.certificate), ("tls.key", material.key)):
        (folder / name).write_text(text)


async def test_nobody_fails_while_somebody_else_exchanges_authority_and_certificate(
    plane: Plane, kube: KubeClient, tmp_path: Path
) -> None:
    first, second = (authority.renewed(None, ["127.0.0.1"], datetime.now(UTC)) for _ in range(2))
    (tmp_path / "certs").mkdir()
    write(tmp_path / "certs", first)
    with running_webhook(plane.kubeconfig, tmp_path, "--register", "url", "--certificates", "given") as webhook:

        async def is_registered() -> bool:
            return len(webhook.lines("registered")) == 2

        await eventually(is_registered)
        async with newcomers(kube, webhook, per_second=30) as stream:
            assert await stream.bundle() == first.ca
            write(webhook.certs, second)

            async def is_second_served() -> bool:
                return (await stream.served()).strip() == second.certificate.strip()

            await eventually(is_second_served, within_s=40)
            assert await stream.bundle() == second.ca + first.ca
        assert stream.answered > 100
        assert not webhook.lines("request_failed")

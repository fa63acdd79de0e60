"""Certificates and authorities change under a real process, and nobody who comes by meanwhile fails."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cryptography import x509

from certs import authority
from certs.store import DirectoryStore
from tests.plane.newcomers import newcomers
from tests.plane.support import eventually
from tests.plane.webhooks import running_webhook

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.kube.client import KubeClient
    from certs.authority import Material
    from devcluster.plane import Plane


def names_of(material: Material) -> list[str]:
    """A certificate for fewer would be replaced at once."""
    leaf = x509.load_pem_x509_certificate(material.certificate.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


async def test_nobody_fails_while_another_replica_renews_certificate_and_authority(
    plane: Plane, kube: KubeClient, tmp_path: Path
) -> None:
    with running_webhook(plane.kubeconfig, tmp_path, "--register", "url") as webhook:

        async def is_registered() -> bool:
            return len(webhook.lines("registered")) == 2

        await eventually(is_registered)
        kept = DirectoryStore(webhook.certs)
        first = await kept.load()
        assert first is not None
        now = datetime.now(UTC)
        names = names_of(first)
        other = authority.renewed(None, names, now)
        both = replace(first, ca=other.ca + first.ca, ca_key=other.ca_key)
        signed = authority.issued(both, names, now)

        async with newcomers(kube, webhook, per_second=30) as stream:

            async def has_spread(material: Material) -> None:
                """It is served, and trusted."""

                async def is_there() -> bool:
                    served = await stream.served()
                    return served.strip() == material.certificate.strip() and await stream.bundle() == material.ca

                await eventually(is_there, within_s=25)

            for step in (authority.issued(first, names, now), both, signed, replace(signed, ca=other.ca)):
                await kept.save(step)
                await has_spread(step)
        assert stream.answered > 100
        assert not webhook.lines("request_failed")
        assert not webhook.lines("handshake_failed")

"""A steady stream of clients with new connections, each of which trusts what is registered at that moment."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from allocator.kube.resources import VALIDATING_WEBHOOKS
from tests.plane.webhooks import Webhook, pool, review
from webhook.entries import NAME

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from allocator.kube.client import KubeClient

VALIDATE = "/validate-spiderpool-spidernet-io-v2beta1-spiderippool"


@dataclass(slots=True)
class Newcomers:
    """Any of them that is not answered ends the test."""

    kube: KubeClient
    webhook: Webhook
    session: aiohttp.ClientSession
    answered: int = 0

    async def bundle(self) -> str:
        """What the API server trusts."""
        webhooks = (await self.kube.get(VALIDATING_WEBHOOKS, NAME))["webhooks"]
        return base64.b64decode(webhooks[0]["clientConfig"]["caBundle"]).decode()

    async def ask(self) -> None:
        body = review(pool("p", subnet="10.0.0.0/24", ipVersion=4), dryRun=True)
        trusting = ssl.create_default_context(cadata=await self.bundle())
        async with self.session.post(f"{self.webhook.base}{VALIDATE}", json=body, ssl=trusting) as response:
            assert response.status == 200, await response.text()
        self.answered += 1

    async def served(self) -> str:
        """The certificate that a newcomer is shown, as PEM."""
        trusting = ssl.create_default_context(cadata=await self.bundle())
        _, writer = await asyncio.open_connection("127.0.0.1", self.webhook.port, ssl=trusting)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return ssl.DER_cert_to_PEM_cert(shown)


@contextlib.asynccontextmanager
async def newcomers(kube: KubeClient, webhook: Webhook, *, per_second: float) -> AsyncIterator[Newcomers]:
    """So many each second, within the block."""
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        stream = Newcomers(kube, webhook, session)

        async def come() -> None:
            while True:
                group.create_task(stream.ask())
                await asyncio.sleep(1 / per_second)  # the pace of the load; nothing is waited for

        coming = group.create_task(come())
        yield stream
        coming.cancel()

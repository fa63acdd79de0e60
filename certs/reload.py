"""The served certificate: kept up to date, and changed while connections come in."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Final

from allocator.kube import errors
from allocator.runtime import logs
from certs import authority, store
from certs.tls import LiveContext

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from allocator.runtime.clock import Clock
    from certs.authority import Material
    from certs.source import Source

log = logs.get_logger(__name__)

POLL_S: Final = 5.0
# What may be over by the next look.
TROUBLE: Final = (errors.ApiError, errors.Unreachable, store.UnusableError, OSError)


class Keeper:
    """Looks after the certificates of one process.

    `live` serves, `ca_bundle` is what clients must trust. Both are usable once `start` has returned. With `client_ca`,
    a file of certificates, clients must show a certificate that one of those has issued.
    """

    def __init__(self, source: Source, clock: Clock, *, client_ca: Path | None = None, poll_s: float = POLL_S) -> None:
        self.live = LiveContext()
        self.served: Material | None = None
        self._source = source
        self._clock = clock
        self._client_ca = client_ca
        self._clients = ""
        self._poll_s = poll_s

    @property
    def ca_bundle(self) -> str:
        """PEM of every CA to trust."""
        return self.served.ca if self.served is not None else ""

    async def start(self) -> None:
        """Serve what there is. Raises what `run` would only log."""
        await self._look_at_clients()
        await self._look_at_source()

    async def start_when_given(self) -> None:
        """Serve what there is as soon as it can be served; until then a log line says what is missing."""
        await self._look_at_clients()
        said = ""
        while True:
            try:
                await self._look_at_source()
            except TROUBLE as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("certificate_awaited", error=said)
                await self._clock.sleep(self._poll_s)
            else:
                return

    async def run(self) -> None:
        """Look again every few seconds, until cancelled; the certificate at hand is served meanwhile."""
        while True:
            await self._clock.sleep(self._poll_s)
            await self._try("certificate_not_renewed", self._look_at_source)
            await self._try("client_ca_not_read", self._look_at_clients)

    @staticmethod
    async def _try(event: str, look: Callable[[], Awaitable[None]]) -> None:
        try:
            await look()
        except TROUBLE as error:
            log.warning(event, error=str(error))
        except Exception:  # whatever is wrong with what is kept: what is served is better than nothing
            log.exception(event)

    async def _look_at_source(self) -> None:
        material = await self._source.latest()
        if material == self.served:
            return
        try:
            self.live.use(material, self._clients)
        except ssl.SSLError as error:
            raise store.UnusableError(
                f"the certificate cannot be served: {error}; write a stronger one with its key, or delete all "
                f"to have new ones made"
            ) from error
        self.served = material
        log.info("certificate_served", expires=authority.expiry_of(material).isoformat())

    async def _look_at_clients(self) -> None:
        if self._client_ca is None:
            return
        try:
            clients = "".join(authority.separate(self._client_ca.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise store.UnusableError(
                f"--client-ca {self._client_ca} holds no certificates ({error}): put those there, as PEM, whose owner "
                "issues the certificate of the API server"
            ) from None
        if clients == self._clients:
            return
        if self.served is not None:
            self.live.use(self.served, clients)
        self._clients = clients
        log.info("client_ca_used", certificates=clients.count("BEGIN"))

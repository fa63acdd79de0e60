"""The served certificate: kept up to date, and changed while connections come in."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from allocator.kube import errors
from allocator.runtime import logs
from certs import authority, store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocator.runtime.clock import Clock
    from certs.authority import Material

log = logs.get_logger(__name__)

POLL_S: Final = 5.0
# Each loss of a race means that somebody else has written; two replicas settle in two tries.
TRIES: Final = 10


class LiveContext:
    """An SSLContext for a server, whose certificate can be exchanged. Handshakes that have begun keep theirs."""

    def __init__(self) -> None:
        self.context = _server_context()

    def use(self, material: Material) -> None:
        """Serve it from now on. ssl.SSLError when it is weak or does not fit: then nothing has changed."""
        with tempfile.TemporaryDirectory(prefix="spiderpool-certs-") as directory:
            certificate, key = Path(directory, "crt"), Path(directory, "key")
            certificate.write_text(material.certificate, encoding="utf-8")
            key.touch(mode=0o600)
            key.write_text(material.key, encoding="utf-8")
            # load_cert_chain exchanges the certificate first and compares it with the key afterwards: two that do not
            # belong together would spoil a context in use. So a scratch context tries them first.
            _server_context().load_cert_chain(certificate, key)
            self.context.load_cert_chain(certificate, key)


class Keeper:
    """Looks after the certificates of one process: makes, renews and reloads them.

    `live.context` serves, `ca_bundle` is what clients must trust. Both are usable once `start` has returned.
    """

    def __init__(self, kept: store.Store, names: Sequence[str], clock: Clock, *, poll_s: float = POLL_S) -> None:
        self.live = LiveContext()
        self._kept = kept
        self._names = names
        self._clock = clock
        self._poll_s = poll_s
        self._served: Material | None = None

    @property
    def ca_bundle(self) -> str:
        """PEM of every CA to trust."""
        return self._served.ca if self._served is not None else ""

    async def start(self) -> None:
        """Serve what is kept, or make it. Raises what `run` would only log."""
        await self._turn()

    async def run(self) -> None:
        """Look again every few seconds, until cancelled; the certificate at hand is served meanwhile."""
        while True:
            await self._clock.sleep(self._poll_s)
            try:
                await self._turn()
            except (errors.ApiError, errors.Unreachable, store.UnusableError, OSError) as error:
                log.warning("certificate_not_renewed", error=str(error))
            except Exception:  # whatever is wrong with what is kept: what is served is better than nothing
                log.exception("certificate_not_renewed")

    async def _turn(self) -> None:
        for _ in range(TRIES):
            kept = await self._kept.load()
            material = authority.renewed(kept, self._names, self._clock.now())
            if material is kept or await self._kept.save(material):
                self._serve(material)
                return
        raise store.UnusableError(
            "the certificates change faster than they can be read: is a second authority at work?"
        )

    def _serve(self, material: Material) -> None:
        if material == self._served:
            return
        try:
            self.live.use(material)
        except ssl.SSLError as error:
            raise store.UnusableError(
                f"the certificate cannot be served: {error}; write a stronger one with its key, or delete all "
                f"to have new ones made"
            ) from error
        self._served = material
        log.info("certificate_served", expires=authority.expiry_of(material).isoformat())


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # TLS 1.2 with forward secrecy and authenticated encryption only; TLS 1.3 has nothing else.
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return context

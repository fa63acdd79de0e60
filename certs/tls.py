"""What TLS means here: versions, ciphers, and a certificate that can be exchanged while connections come in."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from certs.authority import Material

# Hello, the other side's answer, and the end: what takes more is no handshake.
FLIGHTS: Final = 10


class LiveContext(ssl.SSLContext):
    """An SSLContext for a server that hands each new connection to another one, which can be exchanged.

    Handshakes that have begun keep theirs.
    """

    _latest: ssl.SSLContext | None = None

    def __new__(cls) -> LiveContext:  # noqa: PYI034 - as ssl.SSLContext has it
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def use(self, material: Material, clients: str = "") -> None:
        """Serve it from now on, to clients with a certificate of the CAs in `clients` only, or to all.

        ssl.SSLError when it is weak or does not fit: then nothing has changed.
        """
        self._latest = server_context(material, clients)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - as ssl.SSLContext has it
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """What asyncio begins each connection with."""
        if self._latest is None:
            raise ssl.SSLError("there is no certificate yet")
        return self._latest.wrap_bio(incoming, outgoing, server_side, server_hostname, session)


def server_context(material: Material, clients: str = "") -> ssl.SSLContext:
    """ssl.SSLError when the certificate is weak or does not fit its key, or `clients` holds none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # TLS 1.2 with forward secrecy and authenticated encryption only; TLS 1.3 has nothing else.
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.set_alpn_protocols(["http/1.1"])
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # The API server never resumes a session; tickets are a fifth of what a handshake costs here.
    context.num_tickets = 0
    with tempfile.TemporaryDirectory(prefix="spiderpool-certs-") as directory:
        certificate, key = Path(directory, "crt"), Path(directory, "key")
        certificate.write_text(material.certificate, encoding="utf-8")
        key.touch(mode=0o600)
        key.write_text(material.key, encoding="utf-8")
        context.load_cert_chain(certificate, key)
    if clients:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, clients)
    return context


def refusal(material: Material) -> str | None:
    """Why a client that trusts `material.ca` would not accept the certificate, whatever its name; None when it would.

    The API server finds that out on its own, with the first object that somebody writes, and tells only him.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    try:
        _trust(client, material.ca)
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        server_side = server_context(material).wrap_bio(there, back, server_side=True)
        sides = (client.wrap_bio(back, there), server_side)
        for _ in range(FLIGHTS):
            through = [_is_through(side) for side in sides]
            if all(through):
                return None
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except ssl.SSLError as error:
        return error.reason or str(error)
    return "the handshake does not come to its end"


def _trust(context: ssl.SSLContext, ca: str) -> None:
    # As Go does it: each certificate of the list is trusted by itself, be it a root or not.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=ca)


def _is_through(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True

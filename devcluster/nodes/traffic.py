"""Prove that two pods reach each other: a UDP echo between sockets opened in their namespaces.

No program in the pods and no ping(8) is needed; the datagrams take the pods' own interfaces, routes and neighbours.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from devcluster.nodes import namespaces

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from devcluster.nodes.namespaces import Namespace

# A first datagram may be lost while neighbours are looked up (the kernel keeps three of them, for three seconds).
TRIES = 5
TRY_TIMEOUT_S = 1.0


class NoTrafficError(Exception):
    """Nothing came back."""


@dataclass(frozen=True, slots=True)
class Place:
    """An address and the namespace that has it."""

    namespace: Namespace
    address: IPv4Address | IPv6Address


async def echo(client: Place, server: Place) -> float:
    """Seconds that a datagram took there and back. NoTrafficError when none does."""
    loop = asyncio.get_running_loop()
    with await namespaces.inside(server.namespace, _socket, server.address) as listening:
        loop.add_reader(listening, _answer, listening)
        try:
            with await namespaces.inside(client.namespace, _socket, client.address) as sending:
                return await _ask(sending, client, server, listening.getsockname()[1])
        finally:
            loop.remove_reader(listening)


async def _ask(sending: socket.socket, client: Place, server: Place, port: int) -> float:
    loop = asyncio.get_running_loop()
    for _ in range(TRIES):
        token = secrets.token_bytes(16)
        started = loop.time()
        try:
            async with asyncio.timeout(TRY_TIMEOUT_S):
                await loop.sock_sendto(sending, token, (str(server.address), port))
                while True:
                    answer, sender = await loop.sock_recvfrom(sending, 64)
                    if answer == token and ip_address(sender[0]) == server.address:
                        return loop.time() - started
        except TimeoutError:
            continue
        except OSError as error:
            raise NoTrafficError(f"{client.address} to {server.address}: {error}") from error
    raise NoTrafficError(f"{client.address} to {server.address}: no answer to {TRIES} datagrams")


def _answer(listening: socket.socket) -> None:
    with contextlib.suppress(OSError):
        listening.sendto(*listening.recvfrom(64))


def _socket(address: IPv4Address | IPv6Address) -> socket.socket:
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        opened.setblocking(False)
        opened.bind((str(address), 0))
    except OSError:
        opened.close()
        raise
    return opened

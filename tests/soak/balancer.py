"""`python -m tests.soak.balancer PORT REPLICA...`: what a Service is to the webhook's replicas, on one machine.

Each connection leads to one of the replicas' ports by chance. One that refuses is passed over; one that hangs is not,
as in real life.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


async def balance(listen: int, ports: Sequence[int]) -> None:
    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for port in random.sample(ports, len(ports)):
            try:
                there, back = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                continue
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, back))
                group.create_task(_pump(there, writer))
            break
        writer.close()

    async with await asyncio.start_server(connect, "127.0.0.1", listen) as server:
        await server.serve_forever()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    # The one that closed first ends both.
    sink.close()


if __name__ == "__main__":
    asyncio.run(balance(int(sys.argv[1]), [int(each) for each in sys.argv[2:]]))

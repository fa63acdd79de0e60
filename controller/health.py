"""The probes over HTTP, on the original's paths: /v1/runtime/startup, readiness and liveness."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from aiohttp import web

from allocator.runtime.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from allocator.runtime.flags import HostPort

_log = get_logger(__name__)

PATHS: Final = ("startup", "readiness", "liveness")


class Health:
    """What the probes ask; each check gives "" when all is well, else what is wrong."""

    def __init__(self, *, readiness: Callable[[], str], liveness: Callable[[], str]) -> None:
        # The process that answers has started: it listens only after its settings are read and the client is there.
        self._checks: dict[str, Callable[[], str]] = {
            "startup": str,
            "readiness": readiness,
            "liveness": liveness,
        }

    def answer(self, probe: str) -> web.Response:
        problem = self._checks[probe]()
        return web.Response(status=500 if problem else 200, text=problem or "ok")

    def application(self) -> web.Application:
        app = web.Application(client_max_size=1024)
        for probe in PATHS:
            app.router.add_get(f"/v1/runtime/{probe}", self._handler(probe))
        return app

    def _handler(self, probe: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(_: web.Request) -> web.Response:
            return self.answer(probe)

        return handle


@asynccontextmanager
async def listening(app: web.Application, address: HostPort | None, event: str) -> AsyncIterator[None]:
    """Serve inside the block, and log where as `event`; nothing to do without an address. OSError when it is taken."""
    if address is None:
        yield
        return
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, address.host or None, address.port).start()
        _log.info(event, addresses=[list(each[:2]) for each in runner.addresses])
        yield
    finally:
        await runner.cleanup()

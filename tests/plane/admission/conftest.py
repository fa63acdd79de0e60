"""One webhook for each table: a real process, registered for as long as the module's rows are carried out."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest_asyncio
import yaml

from tests.plane.admission.api import Api
from tests.plane.admission.preparing import registered
from tests.plane.webhooks import running_webhook

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from devcluster.plane import Plane


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(
    plane: Plane, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Api]:
    """A client of the API server that asks the webhook; the parameter, if any, is the webhook's conf.yml."""
    directory = tmp_path_factory.mktemp("admission")
    settings = getattr(request, "param", {})
    conf = directory / "conf.yml"
    conf.write_text(yaml.safe_dump(settings))
    async with AsyncExitStack() as stack:
        server = stack.enter_context(
            running_webhook(plane.kubeconfig, directory, "--register", "none", "--config", str(conf))
        )
        client = await stack.enter_async_context(Api.connect(plane))
        has_subnets = settings.get("enableSpiderSubnet", True)
        await stack.enter_async_context(registered(client, server, has_subnets=has_subnets))
        yield client

"""What advice to pods knows of SpiderSubnets before the cache does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from allocator.domain.subnet_advice import KnownSubnet
from allocator.kube.resources import SPIDER_SUBNETS
from allocator.runtime.clock import SystemClock
from allocator.runtime.config import Conf
from tests.unit.scripted_server import connected
from tests.unit.test_webhook_side_by_side import OLD, cluster
from webhook.known_subnets import KnownSubnets
from webhook.neighbours import Neighbours

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_subnet_of_the_same_file_is_known_of_and_before_the_first_list_nothing_is(tmp_path: Path) -> None:
    async with connected(tmp_path) as (server, client), asyncio.TaskGroup() as group:
        server.otherwise = cluster(OLD, stopping=server.stopping, are_listed=False)
        subnets = Neighbours(client, SPIDER_SUBNETS, SystemClock())
        known = KnownSubnets(subnets, Conf())
        assert known.seen().find is None
        task = group.create_task(subnets.cache.run())
        await subnets.cache.wait_synced()
        subnets.admitted(OLD)
        find = known.seen().find
        assert find is not None
        assert (find("z-old"), find("another")) == (KnownSubnet(None), None)
        task.cancel()

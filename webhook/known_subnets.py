"""The cluster's SpiderSubnets, as the watch shows them: for advice to pods, which may be wrong tomorrow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.domain import fields
from allocator.domain.addresses import version_of
from allocator.domain.subnet_advice import KnownSubnet, Subnets

if TYPE_CHECKING:
    from allocator.runtime.config import Conf
    from webhook.neighbours import Neighbours


class KnownSubnets:
    def __init__(self, subnets: Neighbours, conf: Conf) -> None:
        self._subnets = subnets
        self._conf = conf

    def seen(self) -> Subnets:
        return Subnets(
            find=self._find if self._subnets.is_ready else None,
            is_on=self._conf.enable_spider_subnet,
            makes_pools=self._conf.enable_auto_pool_for_application,
        )

    def _find(self, name: str) -> KnownSubnet | None:
        stored = self._subnets.stored(name)
        if stored is None:
            # People apply a subnet and its pods in one file: then it was admitted, and the cache does not have it yet.
            return KnownSubnet(None) if self._subnets.is_named(name) else None
        network = fields.loose_network(str(fields.mapping_at(stored, "spec").get("subnet")))
        is_leaving = bool(stored["metadata"].get("deletionTimestamp"))
        return KnownSubnet(None if network is None else version_of(network), is_leaving)

"""Who uses what a change or deletion would take away: live lists, since caches may not know of the newest holder."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

import msgspec

from allocator.domain import fields, usage
from allocator.domain.addresses import AddressError, address_of
from allocator.domain.overlap import extent_of
from allocator.domain.record import State
from allocator.domain.usage import User
from allocator.kube import errors
from allocator.kube.codec import is_unadopted
from allocator.kube.resources import SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from allocator.domain.addresses import IntervalSet
    from allocator.domain.errors import FieldError
    from allocator.domain.overlap import Extent
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object

# A warning is no reason to let the API server wait for long.
WARNING_S: Final = 1.0
DERIVED: Final = (
    "a SpiderEndpoint only shows what the SpiderIPAddress objects say: what is written here by hand moves no address"
)


class _Meta(msgspec.Struct):
    name: str


class _Holder(msgspec.Struct):
    namespace: str = ""
    pod: str = ""


class _Spec(msgspec.Struct):
    state: str = ""
    holder: _Holder | None = None


class _Form(msgspec.Struct):
    """Of a SpiderIPAddress, what a User needs."""

    metadata: _Meta
    spec: _Spec


class InUse:
    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def edit_of_pool(self, old: Object, new: Object) -> list[FieldError]:
        gone = usage.taken_away(old, new)
        return usage.stranded(gone, await self._users_of(old)) if gone else []

    async def edit_of_subnet(self, old: Object, new: Object) -> list[FieldError]:
        gone = usage.taken_away(old, new)
        return usage.taken_from_pools(gone, await self._lent_by(old)) if gone else []

    async def deletion_of_pool(self, pool: Object) -> str:
        """What stands against it; empty when nothing does."""
        return usage.why_not_deleted(await self._users_of(pool))

    async def deletion_of_subnet(self, subnet: Object) -> str:
        return usage.why_no_subnet_deleted(await self._lent_by(subnet))

    async def reservation(self, old: Object, new: Object, pools: Iterable[Extent]) -> list[str]:
        """A warning when newly reserved addresses are in use by pods of these pools."""
        added = usage.newly_reserved(old, new)
        if not added:
            return []
        concerned = [pool.name for pool in pools if pool.version == added.version and pool.ips & added]
        try:
            async with asyncio.timeout(WARNING_S):
                users = await self._among(added, sorted(set(concerned)))
        except (TimeoutError, errors.ApiError, errors.Unreachable):
            return ["whether some of the addresses are in use could not be told in time: kubectl get sia shows it"]
        if not users:
            return []
        count = f"{len(users)} of the addresses {'is' if len(users) == 1 else 'are'} in use"
        return [f"{count}, and nothing is taken from a living pod: {usage.listing(users)}"]

    async def deletion_of_endpoint(self, endpoint: Object) -> list[str]:
        """A warning when the pod has addresses."""
        uid = fields.mapping_at(fields.mapping_at(endpoint, "status"), "current").get("uid")
        if not isinstance(uid, str) or not uid:
            return []
        # What a person typed there: in a selector these characters mean something (fields.EscapeValue of apimachinery).
        escaped = re.sub(r"([\\,=])", r"\\\1", uid)
        users = await self._listed(f"spec.holder.podUID={escaped}")
        if not users:
            return []
        addresses = fields.some_of([str(user.address) for user in users])
        return [f"this frees no address, it only hides them: the pod has {addresses} until it ends"]

    async def _among(self, addresses: IntervalSet, pools: Iterable[str]) -> list[User]:
        return [user for pool in pools for user in usage.among(addresses, await self._listed(f"spec.pool={pool}"))]

    async def _users_of(self, pool: Object) -> list[User]:
        users = await self._listed(f"spec.pool={pool['metadata']['name']}")
        extent = extent_of(pool)
        if extent is None or not is_unadopted(pool):
            return users
        return users + usage.users_of_status(pool, extent.version)

    async def _lent_by(self, subnet: Object) -> dict[str, IntervalSet]:
        extent = extent_of(subnet)
        if extent is None:
            return {}
        raws, _ = await self._client.list_all(SPIDER_IP_POOLS, field_selector=f"spec.subnet={extent.subnet}")
        pools = [pool for pool in map(extent_of, raws) if pool is not None]
        return usage.lent_by(extent, fields.mapping_at(subnet, "status"), pools)

    async def _listed(self, field_selector: str) -> list[User]:
        forms = await self._client.list_as(SPIDER_IP_ADDRESSES, _Form, field_selector=field_selector)
        return [user for form in forms if (user := _user(form)) is not None]


def _user(form: _Form) -> User | None:
    """None for an address that only cools."""
    spec = form.spec
    if spec.state == State.COOLING:
        return None
    try:
        address = address_of(form.metadata.name)
    except AddressError:
        # Of a newer version: what it means is not known, and our controller tells of it.
        return None
    pod = f"{spec.holder.namespace}/{spec.holder.pod}" if spec.holder is not None else ""
    match spec.state:
        case State.HELD:
            return User(address, f"pod {pod}")
        case State.RETAINED:
            return User(address, f"kept for the next {pod}")
        case _:
            return User(address, f"{spec.state}, last pod {pod}" if pod else spec.state)

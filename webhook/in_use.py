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
from allocator.domain.validation import is_automatic
from allocator.kube import errors
from allocator.kube.codec import is_unadopted
from allocator.kube.resources import SPIDER_IP_ADDRESSES, SPIDER_IP_POOLS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from allocator.domain.addresses import IntervalSet
    from allocator.domain.errors import FieldError
    from allocator.domain.overlap import Extent
    from allocator.kube.client import KubeClient
    from allocator.kube.resources import Object

# A warning is no reason to let the API server wait for long.
WARNING_S: Final = 1.0
# Pools whose addresses are listed pool by pool: every such list costs the API server a look at all addresses.
FEW: Final = 8
DERIVED: Final = (
    "a SpiderEndpoint only shows what the SpiderIPAddress objects say: what is written here by hand moves no address"
)


class _Meta(msgspec.Struct):
    name: str


class _Holder(msgspec.Struct):
    namespace: str = ""
    pod: str = ""


class _Spec(msgspec.Struct):
    pool: str = ""
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
        """Pools that people made stand against it, and addresses in use of automatic ones, which go with the subnet."""
        extent = extent_of(subnet)
        if extent is None:
            return ""
        raws = await self._pools_in(extent)
        made = [raw for raw in raws if not is_automatic(raw)]
        automatic = [raw for raw in raws if is_automatic(raw)]
        by_hand = usage.offered_by(_extents(made), extent)
        return usage.why_no_subnet_deleted(by_hand, await self._users_of_all(automatic))

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
        return await self._listed(f"spec.pool={pool['metadata']['name']}") + _unadopted(pool)

    async def _users_of_all(self, pools: Sequence[Object]) -> list[User]:
        if len(pools) <= FEW:
            return [user for pool in pools for user in await self._users_of(pool)]
        names = {pool["metadata"]["name"] for pool in pools}
        users = [user for pool in pools for user in _unadopted(pool)]
        return users + await self._listed("", among=names)

    async def _lent_by(self, subnet: Object) -> dict[str, IntervalSet]:
        extent = extent_of(subnet)
        if extent is None:
            return {}
        pools = _extents(await self._pools_in(extent))
        return usage.lent_by(extent, fields.mapping_at(subnet, "status"), pools)

    async def _pools_in(self, subnet: Extent) -> Sequence[Object]:
        """The pools that have its network."""
        raws, _ = await self._client.list_all(SPIDER_IP_POOLS, field_selector=f"spec.subnet={subnet.subnet}")
        return raws

    async def _listed(self, field_selector: str, among: Collection[str] | None = None) -> list[User]:
        """The users that the selector finds; of the pools `among` only, where that is given."""
        forms = await self._client.list_as(SPIDER_IP_ADDRESSES, _Form, field_selector=field_selector)
        wanted = (form for form in forms if among is None or form.spec.pool in among)
        return [user for form in wanted if (user := _user(form)) is not None]


def _extents(pools: Iterable[Object]) -> list[Extent]:
    return [extent for raw in pools if (extent := extent_of(raw)) is not None]


def _unadopted(pool: Object) -> list[User]:
    """Those that only the original's text in the pool's status knows."""
    extent = extent_of(pool)
    return [] if extent is None or not is_unadopted(pool) else usage.users_of_status(pool, extent.version)


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

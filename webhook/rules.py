"""The judgement of each kind: completion for the mutating side, the rules for both.

The mutating side refuses as well, with everything that is wrong: the API server would ask the schema next, and the
validating side only when that has no complaint, so the user would learn the problems one after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from allocator.domain import defaulting, validation
from allocator.domain.jsonpatch import patch_of
from allocator.domain.overlap import extent_of, newly_taken, pool_clashes, subnet_clashes
from webhook.paths import CUSTOM, Judge
from webhook.review import Allowed, Denied, invalid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from allocator.domain.errors import FieldError
    from allocator.domain.overlap import Clash, Extent
    from allocator.domain.validation import Families
    from webhook.neighbours import Neighbours
    from webhook.review import Object, Request, Verdict

Completion: TypeAlias = Callable[[Any], dict[str, Any]]
Creation: TypeAlias = Callable[[Any, "Families"], "list[FieldError]"]
Change: TypeAlias = Callable[[Any, Any, "Families"], "list[FieldError]"]


@dataclass(frozen=True, slots=True)
class OwnRules:
    """What one object of a kind is held to by itself."""

    complete: Completion
    create: Creation
    update: Change


OWN_RULES: Final = {
    "SpiderIPPool": OwnRules(defaulting.complete_pool, validation.validate_pool, validation.validate_pool_update),
    "SpiderSubnet": OwnRules(defaulting.complete_subnet, validation.validate_subnet, validation.validate_subnet_update),
    "SpiderReservedIP": OwnRules(
        defaulting.complete_reservation, validation.validate_reservation, validation.validate_reservation_update
    ),
    "SpiderEndpoint": OwnRules(
        defaulting.complete_endpoint,
        lambda new, _families: validation.validate_endpoint(new),
        lambda _old, new, _families: validation.validate_endpoint(new),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What of the configuration the rules ask for."""

    families: Families
    protects_deletion: bool


class Rules:
    """Judges requests; writes nothing. NotReadyError, ApiError and Unreachable come out when it cannot judge."""

    def __init__(self, policy: Policy, *, pools: Neighbours, subnets: Neighbours) -> None:
        self._policy = policy
        self._pools = pools
        self._subnets = subnets

    def judges(self) -> list[Judge]:
        return [
            judge
            for resource in CUSTOM
            for judge in (Judge(resource, "mutate", self.mutate), Judge(resource, "validate", self.validate))
        ]

    async def mutate(self, request: Request) -> Verdict:
        if request.operation not in ("CREATE", "UPDATE"):
            return Allowed()
        if _is_settled(request):
            return _fixed(request) or Allowed()
        completed = OWN_RULES[request.kind].complete(request.new)
        denied = await self._judge(request, completed)
        return denied or Allowed(patch_of(request.new, completed))

    async def validate(self, request: Request) -> Verdict:
        if request.operation == "DELETE":
            return self._deletion(request)
        if request.operation is None:
            return Allowed()
        if _is_settled(request):
            return _fixed(request) or Allowed()
        denied = await self._judge(request, request.new)
        known = self._known(request.kind)
        if denied is None and known is not None and not request.is_dry_run:
            # No await lies between the last look at the neighbours and this.
            known.admitted({**request.new, "kind": request.kind})
        return denied or Allowed()

    async def _judge(self, request: Request, new: Object) -> Denied | None:
        problems = self._own_problems(request, new)
        clashes, taken = await self._clashes(request, new)
        if taken:
            message = f'{request.plural}.{request.group} "{request.name}" already exists'
            return Denied(409, "AlreadyExists", message)
        problems += [clash.problem for clash in clashes]
        return invalid(request, problems) if problems else None

    def _own_problems(self, request: Request, new: Object) -> list[FieldError]:
        rules = OWN_RULES[request.kind]
        if request.operation == "CREATE":
            return rules.create(new, self._policy.families)
        return rules.update(request.old, new, self._policy.families)

    async def _clashes(self, request: Request, new: Object) -> tuple[list[Clash], bool]:
        """What other objects forbid, each confirmed by a live read; and whether the name of a new one is taken."""
        own = self._known(request.kind)
        if own is None:
            return [], False
        is_new = request.operation == "CREATE"
        if is_new and any(other.name == request.name for other in own.all()) and await own.read(request.name):
            return [], True
        mine = extent_of({**new, "kind": request.kind})
        if mine is None:
            return [], False
        if not is_new:
            mine = newly_taken(request.old, mine)
        live: dict[Extent, Extent | None] = {}
        # While one suspect is read, another may be admitted: nothing is decided before every suspect of the last
        # look has been read.
        while unread := [other for other in self._suspects(mine, is_new=is_new) if other not in live]:
            for other in unread:
                live[other] = await self._live(other)
        standing = {extent for extent in live.values() if extent is not None}
        return self._compare(mine, standing, is_new=is_new), False

    def _suspects(self, mine: Extent, *, is_new: bool) -> list[Extent]:
        subnets = self._subnets.all() if mine.kind == "SpiderSubnet" else []
        return [clash.neighbour for clash in self._compare(mine, [*self._pools.all(), *subnets], is_new=is_new)]

    @staticmethod
    def _compare(mine: Extent, others: Iterable[Extent], *, is_new: bool) -> list[Clash]:
        pools = [other for other in others if other.kind == "SpiderIPPool"]
        if mine.kind == "SpiderIPPool":
            clashes = pool_clashes(mine, pools)
            # The network of a stored pool cannot change, so an edit of it is no occasion to complain about that.
            return [clash for clash in clashes if is_new or clash.problem.field != "spec.subnet"]
        subnets = [other for other in others if other.kind == "SpiderSubnet"]
        return subnet_clashes(mine, subnets, pools) if is_new else []

    async def _live(self, neighbour: Extent) -> Extent | None:
        """The neighbour as it stands now. What was admitted a moment ago may not be stored yet, and counts as it is."""
        known = self._known(neighbour.kind)
        return neighbour if known is None or known.is_recent(neighbour) else await known.read(neighbour.name)

    def _known(self, kind: str) -> Neighbours | None:
        return {"SpiderIPPool": self._pools, "SpiderSubnet": self._subnets}.get(kind)

    def _deletion(self, request: Request) -> Verdict:
        known = self._known(request.kind)
        if known is None:
            return Allowed()
        why = validation.validate_deletion({**request.old, "kind": request.kind})
        if why is not None and self._policy.protects_deletion:
            return _forbidden(request, why)
        if not request.is_dry_run:
            known.forget(request.name)
        return Allowed()


def _is_settled(request: Request) -> bool:
    """Whether there is nothing to judge: only metadata differs, however wrong the rest is, or the object goes."""
    return request.operation == "UPDATE" and (_is_unchanged(request) or _is_terminating(request.new))


def _fixed(request: Request) -> Denied | None:
    """Who changes the spec of what is being deleted is late, unless he takes our finalizer off: it is gone then."""
    metadata = request.new.get("metadata") or {}
    is_ours = request.kind in ("SpiderIPPool", "SpiderSubnet")
    if _is_unchanged(request) or (is_ours and defaulting.FINALIZER not in (metadata.get("finalizers") or [])):
        return None
    return _forbidden(request, "it is being deleted, its spec is fixed")


def _is_unchanged(request: Request) -> bool:
    part = "status" if request.kind == "SpiderEndpoint" else "spec"
    return part in request.new and part in request.old and bool(request.new[part] == request.old[part])


def _is_terminating(obj: Object) -> bool:
    metadata = obj.get("metadata")
    return isinstance(metadata, dict) and bool(metadata.get("deletionTimestamp"))


def _forbidden(request: Request, why: str) -> Denied:
    return Denied(403, "Forbidden", f'{request.plural}.{request.group} "{request.name}" is forbidden: {why}')

"""The judgement of each custom kind: completion for the mutating side, the rules for both.

The mutating side refuses as well, with everything that is wrong: the API server would ask the schema next, and the
validating side only when that has no complaint, so the user would learn the problems one after the other. Warnings come
from whichever side is asked last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from allocator.domain import defaulting, fields, usage, validation
from allocator.domain.jsonpatch import patch_of
from webhook.in_use import DERIVED
from webhook.paths import CUSTOM, Judge
from webhook.review import Allowed, Denied, invalid

if TYPE_CHECKING:
    from allocator.domain.errors import FieldError
    from allocator.domain.validation import Families
    from webhook.in_use import InUse
    from webhook.review import Object, Request, Verdict
    from webhook.side_by_side import SideBySide

Creation: TypeAlias = Callable[[Any, "Families"], "list[FieldError]"]
Change: TypeAlias = Callable[[Any, Any, "Families"], "list[FieldError]"]


@dataclass(frozen=True, slots=True)
class OwnRules:
    """What one object of a kind is held to by itself."""

    create: Creation
    update: Change


OWN_RULES: Final = {
    "SpiderIPPool": OwnRules(validation.validate_pool, validation.validate_pool_update),
    "SpiderSubnet": OwnRules(validation.validate_subnet, validation.validate_subnet_update),
    "SpiderReservedIP": OwnRules(validation.validate_reservation, validation.validate_reservation_update),
    "SpiderEndpoint": OwnRules(
        lambda new, _families: validation.validate_endpoint(new),
        lambda _old, new, _families: validation.validate_endpoint(new),
    ),
}
# Those that completion gives our finalizer.
FINALIZED: Final = ("SpiderIPPool", "SpiderSubnet")
FORCED: Final = f"forced by the annotation {usage.FORCE}: pods keep the addresses that they have"
FORCED_EDIT: Final = f"{FORCED}; take the annotation off when you are done"
FORCED_DELETION: Final = f"{FORCED}, and it goes when the last one is released"
NOT_FORCED: Final = f'the annotation {usage.FORCE} counts only with the value "true"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What of the configuration the rules ask for."""

    families: Families
    protects_deletion: bool


class Rules:
    """Judges requests; writes nothing. NotReadyError, ApiError and Unreachable come out when it cannot judge."""

    def __init__(self, policy: Policy, neighbours: SideBySide, in_use: InUse) -> None:
        self._policy = policy
        self._neighbours = neighbours
        self._in_use = in_use

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
        completed = replace(request, new=await self._completed(request))
        denied = await self._judge(completed, completed.new)
        if denied is not None:
            return denied
        warnings = await self._let_in(completed) if _is_judged(completed) else ()
        return Allowed(patch_of(request.new, completed.new), warnings)

    async def validate(self, request: Request) -> Verdict:
        if request.operation == "DELETE":
            return await self._deletion(request)
        if request.operation is None:
            return Allowed()
        if _is_settled(request):
            return _fixed(request) or Allowed()
        denied = await self._judge(request, request.new)
        if denied is not None:
            return denied
        return Allowed(warnings=() if _is_judged(request) else await self._let_in(request))

    async def _let_in(self, request: Request) -> tuple[str, ...]:
        """To be called at once after a judgement that looked at the neighbours last: no await lies between."""
        if not request.is_dry_run:
            self._neighbours.admitted(request)
        return await self._warnings(request)

    async def _completed(self, request: Request) -> Object:
        match request.kind:
            case "SpiderIPPool":
                return defaulting.complete_pool(request.new, await self._neighbours.owner_of(request.new))
            case "SpiderSubnet":
                return defaulting.complete_subnet(request.new)
            case "SpiderReservedIP":
                return defaulting.complete_reservation(request.new)
            case _:
                # SpiderEndpoints are written by agents, which leave nothing to complete.
                return request.new

    async def _judge(self, request: Request, new: Object) -> Denied | None:
        if request.operation == "CREATE" and await self._neighbours.is_taken(request):
            message = f'{request.plural}.{request.group} "{request.name}" already exists'
            return Denied(409, "AlreadyExists", message)
        problems = self._own_problems(request, new)
        problems += await self._stranding(request, new)
        problems += await self._neighbours.problems(request, new)
        return replace(invalid(request, problems), warnings=_hint(new)) if problems else None

    def _own_problems(self, request: Request, new: Object) -> list[FieldError]:
        rules = OWN_RULES[request.kind]
        if request.operation == "CREATE":
            return rules.create(new, self._policy.families)
        return rules.update(request.old, new, self._policy.families)

    async def _stranding(self, request: Request, new: Object) -> list[FieldError]:
        """What of an edit takes away what is in use."""
        if request.operation != "UPDATE" or usage.is_forced(new):
            return []
        match request.kind:
            case "SpiderIPPool":
                return await self._in_use.edit_of_pool(request.old, new)
            case "SpiderSubnet":
                return await self._in_use.edit_of_subnet(request.old, new)
            case _:
                return []

    async def _warnings(self, request: Request) -> tuple[str, ...]:
        match request.kind:
            case "SpiderReservedIP":
                pools = self._neighbours.pools()
                return tuple(await self._in_use.reservation(request.old, request.new, pools))
            case "SpiderEndpoint":
                return (DERIVED,)
            case _:
                is_shrunk = request.operation == "UPDATE" and usage.taken_away(request.old, request.new)
                forced = (FORCED_EDIT,) if is_shrunk and usage.is_forced(request.new) else ()
                return (*forced, *self._neighbours.warnings(request))

    async def _deletion(self, request: Request) -> Verdict:
        if request.kind == "SpiderEndpoint":
            return Allowed(warnings=tuple(await self._in_use.deletion_of_endpoint(request.old)))
        warnings: tuple[str, ...] = ()
        if self._policy.protects_deletion and not _is_terminating(request.old):
            if usage.is_forced(request.old):
                warnings = (FORCED_DELETION,)
            elif why := await self._why_not_deleted(request):
                return replace(_forbidden(request, why), warnings=_hint(request.old))
        if not request.is_dry_run:
            self._neighbours.forget(request)
        return Allowed(warnings=warnings)

    async def _why_not_deleted(self, request: Request) -> str:
        match request.kind:
            case "SpiderIPPool":
                return await self._in_use.deletion_of_pool(request.old)
            case "SpiderSubnet":
                return await self._in_use.deletion_of_subnet(request.old)
            case _:
                return ""


def _hint(raw: Object) -> tuple[str, ...]:
    """For who meant to force what was refused."""
    annotations = fields.mapping_at(fields.mapping_at(raw, "metadata"), "annotations")
    return (NOT_FORCED,) if usage.FORCE in annotations and not usage.is_forced(raw) else ()


def _is_judged(request: Request) -> bool:
    """Whether it is a new object that the mutating side has been at: it has judged that, and is the last to be asked
    (the match condition `not-judged-yet`, in entries.py).
    """
    is_named = not fields.mapping_at(request.new, "metadata").get("generateName")
    return request.operation == "CREATE" and is_named and _has_finalizer(request)


def _is_settled(request: Request) -> bool:
    """Whether there is nothing to judge: only metadata differs, however wrong the rest is, or the object goes."""
    return request.operation == "UPDATE" and (_is_unchanged(request) or _is_terminating(request.new))


def _fixed(request: Request) -> Denied | None:
    """Who changes the spec of what is being deleted is late, unless he takes our finalizer off: it is gone then."""
    if _is_unchanged(request) or (request.kind in FINALIZED and not _has_finalizer(request)):
        return None
    return _forbidden(request, "it is being deleted, its spec is fixed")


def _has_finalizer(request: Request) -> bool:
    finalizers = fields.mapping_at(request.new, "metadata").get("finalizers")
    return request.kind in FINALIZED and isinstance(finalizers, list) and defaulting.FINALIZER in finalizers


def _is_unchanged(request: Request) -> bool:
    part = "status" if request.kind == "SpiderEndpoint" else "spec"
    return part in request.new and part in request.old and bool(request.new[part] == request.old[part])


def _is_terminating(obj: Object) -> bool:
    metadata = obj.get("metadata")
    return isinstance(metadata, dict) and bool(metadata.get("deletionTimestamp"))


def _forbidden(request: Request, why: str) -> Denied:
    return Denied(403, "Forbidden", f'{request.plural}.{request.group} "{request.name}" is forbidden: {why}')

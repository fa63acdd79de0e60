"""The verbs on objects: what a create, update or delete means, between the HTTP face and the store.

Asynchronous only because admission webhooks are; with `NoAdmission` no call ever waits, as a simulation needs it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

import msgspec

from devcluster.plane import crds, defaults, deletion, problems, scales, schema, strategy, views
from devcluster.plane.problems import Object
from devcluster.plane.registry import Registry, ResourceType
from devcluster.plane.store import Event, KeyExists, KeyMissing, Stale, Store

Operation = Literal["CREATE", "UPDATE", "DELETE", "CONNECT"]
NAMESPACES = "/namespaces"
DEFINITIONS = "apiextensions.k8s.io/customresourcedefinitions"
_TRIES = 8  # of a write that names no version, against others that come between

_OTHER_NAMESPACE = "the namespace of the provided object does not match the namespace sent on the request"
Change = Callable[[Object], Object]

SYSTEM_USER: Object = {"username": "system:apiserver", "groups": ["system:masters", "system:authenticated"]}


@dataclass(slots=True)
class Call:
    """Who asks, and how; warnings gather here for the answer."""

    user: Object = field(default_factory=lambda: SYSTEM_USER)
    dry_run: bool = False
    field_validation: str = "Warn"
    options: Object = field(default_factory=dict)
    duplicates: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What admission judges."""

    operation: Operation
    rt: ResourceType
    subresource: str
    namespace: str
    name: str
    old: Object | None
    call: Call


class Admission(Protocol):
    async def mutate(self, attributes: Attributes, obj: Object | None) -> Object | None: ...
    async def validate(self, attributes: Attributes, obj: Object | None) -> None: ...


class NoAdmission:
    async def mutate(self, attributes: Attributes, obj: Object | None) -> Object | None:  # noqa: ARG002
        return obj

    async def validate(self, attributes: Attributes, obj: Object | None) -> None:
        """Everything is allowed."""


def clone(obj: Object) -> Object:
    """A deep copy; much quicker than copy.deepcopy for what is JSON anyway."""
    copied: Object = msgspec.json.decode(msgspec.json.encode(obj))
    return copied


def _shown(rt: ResourceType, obj: Object, subresource: str) -> Object:
    """What a client and admission see of `obj`."""
    return scales.scale_of(rt, obj) if subresource == "scale" else views.from_storage(rt, obj)


class Api:
    def __init__(
        self, store: Store, registry: Registry, *, clock: Callable[[], datetime], new_uid: Callable[[], str]
    ) -> None:
        self.store = store
        self.registry = registry
        self.clock = clock
        self.admission: Admission = NoAdmission()
        self._new_uid = new_uid
        store.subscribe(self._definition_changed)

    def get(self, rt: ResourceType, namespace: str, name: str) -> Object:
        obj = self.store.get(rt.key(namespace, name))
        if obj is None:
            raise problems.not_found(rt, name)
        return obj

    async def create(self, rt: ResourceType, namespace: str, raw: Object, call: Call) -> Object:
        obj = self._decode(rt, raw, call)
        metadata = obj["metadata"]
        if metadata.get("resourceVersion"):
            raise problems.Problem(500, "", "resourceVersion should not be set on objects to be created")
        self._place(rt, namespace, metadata)
        attributes = Attributes("CREATE", rt, "", namespace, metadata.get("name") or "", None, call)
        mutated = await self.admission.mutate(attributes, views.from_storage(rt, obj))
        obj = self._complete(rt, views.to_storage(rt, mutated or obj))
        metadata = obj["metadata"]
        if not metadata.get("name") and metadata.get("generateName"):
            metadata["name"] = strategy.generated_name(metadata["generateName"])
        strategy.fill_create(rt, obj, uid=self._new_uid(), now=self.clock())
        obj = self._complete(rt, obj)
        self._check(rt, obj, None)
        call.warnings += strategy.finalizer_warnings(rt, None, obj)
        await self.admission.validate(attributes, views.from_storage(rt, obj))
        self._require_namespace(rt, namespace, metadata.get("name") or "")
        key = rt.key(namespace, metadata["name"])
        if self.store.get(key) is not None:
            raise problems.already_exists(rt, metadata["name"])
        if call.dry_run:
            return obj
        try:
            return self.store.create(key, obj)
        except KeyExists as error:
            raise problems.already_exists(rt, metadata["name"]) from error

    async def update(
        self,
        rt: ResourceType,
        namespace: str,
        name: str,
        change: Change,
        call: Call,
        *,
        subresource: str = "",
    ) -> Object:
        """`change` makes the new object from a private copy of the current one; it may run again after a conflict."""
        for _ in range(_TRIES):
            old = self.get(rt, namespace, name)
            new = self._changed(rt, clone(old), change, call, subresource)
            self._check_identity(rt, old, new, change)
            attributes = Attributes("UPDATE", rt, subresource, namespace, name, _shown(rt, old, subresource), call)
            mutated = await self.admission.mutate(attributes, _shown(rt, new, subresource))
            if mutated and subresource == "scale":
                new = self._complete(rt, scales.scaled(rt, new, mutated))
            else:
                new = self._complete(rt, views.to_storage(rt, mutated or new))
            sent = new["metadata"]
            new = self._complete(rt, clone(strategy.fill_update(rt, old, new, subresource)))
            causes = strategy.check_update(old, sent, new)
            if causes:
                raise problems.invalid(rt, name, causes)
            self._check(rt, new, None if subresource == "binding" else old)
            call.warnings += strategy.finalizer_warnings(rt, old, new)
            await self.admission.validate(attributes, _shown(rt, new, subresource))
            if new == old or call.dry_run:
                return new
            try:
                return self._put(rt, old, new)
            except KeyMissing as error:
                raise problems.not_found(rt, name) from error
            except Stale:
                continue
        raise problems.conflict(rt, name)

    async def delete(
        self, rt: ResourceType, namespace: str, name: str, options: Object, call: Call
    ) -> tuple[Object, bool]:
        """The last state of the object, and whether it is gone."""
        for _ in range(_TRIES):
            old = self.get(rt, namespace, name)
            deletion.check_preconditions(rt, old, options)
            attributes = Attributes("DELETE", rt, "", namespace, name, views.from_storage(rt, old), call)
            await self.admission.mutate(attributes, None)
            await self.admission.validate(attributes, None)
            marked = deletion.mark(old, options, self.clock())
            gone = strategy.is_finished(marked)
            if call.dry_run or (marked == old and not gone):
                return marked, gone
            try:
                return self._put(rt, old, marked), gone
            except KeyMissing as error:
                raise problems.not_found(rt, name) from error
            except Stale:
                continue
        raise problems.conflict(rt, name)

    def _put(self, rt: ResourceType, old: Object, new: Object) -> Object:
        """Writes the state, or removes the object when it was only waiting for this."""
        key = rt.key(old["metadata"].get("namespace", ""), old["metadata"]["name"])
        seen = old["metadata"]["resourceVersion"]
        if strategy.is_finished(new):
            return self.store.delete(key, seen=seen)
        return self.store.replace(key, new | {"metadata": dict(new["metadata"])}, seen=seen)

    def _changed(self, rt: ResourceType, obj: Object, change: Change, call: Call, subresource: str) -> Object:
        sent = change(_shown(rt, obj, subresource))
        try:
            if subresource != "scale":
                return self._decode(rt, sent, call)
            scale = self._decode(scales.TYPE, sent, call)
            scales.check_form(scale)
        except problems.Problem as problem:
            if isinstance(change, Replacement):
                raise
            raise problems.unreadable_patch(problem.message) from problem
        return scales.scaled(rt, obj, scale)

    def _decode(self, rt: ResourceType, raw: Object, call: Call) -> Object:
        """Checks what the object says it is, and drops or refuses fields that its schema does not know."""
        strategy.check_type(rt, raw)
        if not rt.custom:
            defaults.check_times(rt, raw)
        obj = {"apiVersion": rt.api_version, "kind": rt.kind} | raw | {"metadata": raw.get("metadata") or {}}
        complaints = [f'duplicate field "{path}"' for path in call.duplicates]
        if rt.schema is not None:
            complaints += [f'unknown field "{path}"' for path in schema.prune(obj, rt.schema)]
        if complaints and call.field_validation == "Strict":
            why = f"strict decoding error: {', '.join(complaints)}"
            raise problems.undecodable(rt, rt.version, rt.kind, why)
        if call.field_validation == "Warn":
            call.warnings += [text for text in complaints if text not in call.warnings]
        return self._complete(rt, views.to_storage(rt, obj))

    def _complete(self, rt: ResourceType, obj: Object) -> Object:
        """Defaults, in place; pruned again, for a webhook may have added what the schema does not know."""
        if rt.schema is not None:
            schema.prune(obj, rt.schema)
            schema.set_defaults(obj, rt.schema)
        elif rt.stored_in == DEFINITIONS:
            crds.fill(obj, strategy.timestamp(self.clock()))
        else:
            defaults.apply_defaults(rt.group, obj)
        return obj

    def _check(self, rt: ResourceType, obj: Object, old: Object | None) -> None:
        causes = strategy.check_metadata(rt, obj)
        if rt.schema is not None:
            causes += schema.validate(obj, rt.schema)
        elif rt.stored_in == DEFINITIONS:
            causes += crds.check(obj)
        else:
            causes += defaults.check(rt.group, obj, old)
        if rt.scale:
            causes += scales.check_size(rt, obj)
        if causes:
            raise problems.invalid(rt, obj["metadata"].get("name") or "", causes)

    def _check_identity(self, rt: ResourceType, old: Object, new: Object, change: Change) -> None:
        before, after = old["metadata"], new["metadata"]
        name = before["name"]
        if after.get("namespace", before.get("namespace")) != before.get("namespace"):
            raise problems.bad_request(_OTHER_NAMESPACE)
        if not after.get("name") and isinstance(change, Replacement):
            why = f"the name of the object ({name} based on URL) was undeterminable: name must be provided"
            raise problems.bad_request(why)
        if (given := after.get("name", name)) != name:
            raise problems.bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
        # Before the uid: a patch that names both of an object's predecessor is a conflict, as on kube-apiserver.
        if after.get("resourceVersion", before["resourceVersion"]) not in ("", before["resourceVersion"]):
            raise problems.conflict(rt, name)
        if (given := after.get("uid", before["uid"])) != before["uid"]:
            if not isinstance(change, Replacement):  # only a PUT means it as a precondition
                cause = problems.invalid_value("metadata.uid", f'"{given}"', "field is immutable")
                raise problems.invalid(rt, name, [cause])
            why = f"Precondition failed: UID in precondition: {given}, UID in object meta: {before['uid']}"
            raise problems.conflict(rt, name, why)
        if causes := strategy.check_unconditional(rt, new):
            raise problems.invalid(rt, name, causes)
        after["resourceVersion"] = before["resourceVersion"]
        after.setdefault("name", name)
        if rt.namespaced:
            after.setdefault("namespace", before["namespace"])

    def _place(self, rt: ResourceType, namespace: str, metadata: Object) -> None:
        given = metadata.get("namespace") or ""
        if not rt.namespaced:
            metadata.pop("namespace", None)
        elif given not in ("", namespace):
            raise problems.bad_request(_OTHER_NAMESPACE)
        else:
            metadata["namespace"] = namespace
            self._require_namespace(rt, namespace, metadata.get("name") or "")

    def _require_namespace(self, rt: ResourceType, namespace: str, name: str) -> None:
        if not rt.namespaced:
            return
        namespaces = self.registry.by_collection(NAMESPACES)
        assert namespaces is not None  # noqa: S101 -- built in
        if self.get(namespaces, "", namespace)["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            message = f"namespace {namespace} is being terminated"
            cause = {"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"}
            raise problems.forbidden(rt, name, why, causes=[cause])

    def _definition_changed(self, event: Event) -> None:
        if event.key.collection == DEFINITIONS:
            gone = event.kind == "DELETED"
            self.registry.set_custom(event.key.name, [] if gone else crds.resource_types(event.new))


@dataclass(frozen=True, slots=True)
class Replacement:
    """The change that a PUT is."""

    obj: Object

    def __call__(self, _: Object) -> Object:
        return clone(self.obj)

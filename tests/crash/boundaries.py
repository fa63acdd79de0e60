"""Every place where a process of ours leaves something behind: in the API server, on disk, with the runtime.

A boundary is named `process:write`, a failpoint `process:write:stage`. The tables are the enumeration; armed.py tells
what a process really passes, and test_every_boundary.py compares the two.
"""

from __future__ import annotations

from pathlib import PurePath
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any, Final

from allocator.kube import resources
from allocator.kube.resources import Resource

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KINDS: Final = {each.plural: each.kind for each in vars(resources).values() if isinstance(each, Resource)}
VERBS: Final = {"POST": "create", "PUT": "replace", "PATCH": "patch", "DELETE": "delete"}
# What our plugin asks the agent for that changes something.
COMMANDS: Final = {("POST", "/v1/ipam/ip"): "ADD", ("DELETE", "/v1/ipam/ip"): "DEL"}

# Before the request leaves, or the file has its name; after the answer came, or the file has it.
STAGES: Final = ("before", "after")
# A request of the plugin lies with the agent between the two.
ASKING: Final = ("before", "sent", "after")
# Half of the line is in the file.
APPENDING: Final = ("before", "torn", "after")

# For people. Nobody reads them back, so it is all the same whether a process dies after this or before what comes next.
NOTES: Final = ("create-Event", "patch-Event=series")

WRITES: Final[Mapping[str, tuple[str, ...]]] = {
    "agent": (
        "create-SpiderIPAddress",  # claim
        "patch-SpiderIPAddress=Held",  # a new sandbox, a successor, what cooled
        "patch-SpiderIPAddress=Cooling",  # DEL
        "patch-SpiderIPAddress=Retained",  # DEL of a static pod
        "delete-SpiderIPAddress",  # an ADD that is refused gives back what it had claimed
        "create-SpiderEndpoint",
        "replace-SpiderEndpoint",  # a successor, one more interface
        "patch-SpiderEndpoint=status",  # a migration failed: the source goes on
        "patch-SpiderEndpoint=finalizers",  # of the original
        "delete-SpiderEndpoint",
        "create-Event",
        "patch-Event=series",
        "name-socket",
        "remove-socket",
        "remove-intent",
    ),
    "controller": (
        "create-Lease",
        "replace-Lease",
        "patch-SpiderIPAddress=Cooling",
        "patch-SpiderIPAddress=Retained",
        "patch-SpiderIPAddress=Held",  # one of two of a migration is gone
        "create-SpiderIPAddress",  # one that somebody deleted under its pod
        "delete-SpiderIPAddress",  # cooled
        "create-SpiderEndpoint",  # deleted by hand
        "replace-SpiderEndpoint",  # edited by hand
        "patch-SpiderEndpoint=status",
        "patch-SpiderEndpoint=finalizers",
        "delete-SpiderEndpoint",
        "replace-SpiderIPPool/status",
        "patch-SpiderIPPool=finalizers",
        "create-SpiderIPPool",  # of an application
        "patch-SpiderIPPool=annotations+labels+spec",  # what it is lent
        "patch-SpiderIPPool=annotations",  # so that late writes fail
        "patch-SpiderIPPool=finalizers+labels+spec",  # one that was there before its subnet
        "patch-SpiderIPPool=spec",  # it follows its subnet
        "delete-SpiderIPPool",
        "replace-SpiderSubnet/status",  # the accounts
        "patch-SpiderSubnet=finalizers",
        "create-Event",
    ),
    "webhook": (
        "create-Secret",
        "replace-Secret",
        "create-MutatingWebhookConfiguration",
        "replace-MutatingWebhookConfiguration",
        "delete-MutatingWebhookConfiguration",
        "create-ValidatingWebhookConfiguration",
        "replace-ValidatingWebhookConfiguration",
        "delete-ValidatingWebhookConfiguration",
        "name-ca.key",
        "name-ca.crt",
        "name-tls.key",
        "name-tls.crt",
    ),
    "plugin": ("ask-ADD", "ask-DEL", "print-result", "name-intent"),
    # The embedded API server: each write before it is answered, and a journal that is begun anew.
    "plane": ("append-journal", "name-journal"),
}

# Where nobody looks for anything later. Asked for at once: gettempdir opens a file, and is asked about files opened.
NOBODYS: Final = (PurePath(gettempdir()), PurePath("/dev"))

# Files that are opened for writing and carry nothing over: a lock that the kernel frees, and lines for people.
OPENED: Final = {"agent": {"agent.lock"}, "plugin": {"plugin.log"}}


def stages(process: str, write: str) -> tuple[str, ...]:
    if write in NOTES:
        return STAGES[:1]
    if process == "plane" and write.startswith("append-"):
        return APPENDING
    return ASKING if process == "plugin" and write.startswith("ask-") else STAGES


def failpoints(process: str, writes: Iterable[str] = ()) -> list[str]:
    return [f"{process}:{write}:{stage}" for write in writes or WRITES[process] for stage in stages(process, write)]


def unknown(passed: Iterable[str]) -> set[str]:
    """What a process came by that the tables do not have."""
    known = {point for process in WRITES for point in failpoints(process)}
    known |= {f"{process}:{write}:after" for process in WRITES for write in NOTES if write in WRITES[process]}
    known |= {f"{process}:open:{name}" for process, names in OPENED.items() for name in names}
    return set(passed) - known


def of_request(method: str, path: str, body: Any) -> str:
    """What a request to the API server writes: verb and kind, and what it is that a patch changes."""
    parts = path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    if len(parts) > 2 and parts[0] == "namespaces":
        parts = parts[2:]
    plural, subresource = parts[0], f"/{parts[2]}" if len(parts) > 2 else ""
    name = f"{VERBS[method]}-{KINDS[plural]}{subresource}"
    return f"{name}={_changed(body)}" if method == "PATCH" else name


def _changed(body: Any) -> str:
    """The record's new state; of other kinds the members, apart from preconditions."""
    if state := (body.get("spec") or {}).get("state"):
        return str(state)
    members = {*body, *(body.get("metadata") or {})} - {"metadata", "uid", "resourceVersion"}
    return "+".join(sorted(members))


def of_file(path: str) -> str | None:
    """What a file is that gets or loses this name; None for drafts and temporary files, which nobody looks for."""
    name, folder = PurePath(path).name, PurePath(path).parent
    # ssl reads pairs from files only: certs/tls.py makes a folder for them that goes at once.
    is_temporary = folder in NOBODYS or (folder.parent in NOBODYS and folder.name.startswith("spiderpool-certs-"))
    if name.startswith(".") or is_temporary:
        return None
    return {".sock": "socket", ".json": "intent"}.get(PurePath(path).suffix, name)

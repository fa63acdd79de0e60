"""Pools that are made for an application: what they are called, how they are labelled, and for whom they are.

Names and labels are the original's, so that its pools and ours are found by either.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from allocator.domain.applications import Application, label_value
from allocator.domain.defaulting import OWNER_LABEL, complete_pool
from allocator.domain.json_annotation import PREFIX
from allocator.domain.subnet_annotations import IP_NUMBER
from allocator.domain.validation import AUTO_POOL_LABEL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocator.domain.addresses import Version
    from allocator.domain.fields import Raw

_OWNER: Final = PREFIX + "owner-application"
INTERFACE_LABEL: Final = PREFIX + "interface"
VERSION_LABEL: Final = PREFIX + "ip-version"
RECLAIM_LABEL: Final = PREFIX + "ippool-reclaim"
_FAMILIES: Final[Mapping[str, Version]] = {"IPv4": 4, "IPv6": 6}
# Of an object (RFC 1123 subdomain); the original leaves room for seven characters beside the suffix.
NAME_LIMIT: Final = 253
SUFFIX_LENGTH: Final = 5
# In the name of an object, where a dot stands between letters and digits; an interface's may have more.
_UNFIT: Final = re.compile(r"[^a-z0-9.-]|\.(?![a-z0-9])|(?<![a-z0-9])\.")


@dataclass(frozen=True, slots=True)
class Purpose:
    """Whom an automatic pool is for. The application's name may be cut, as labels are (`label_value`).

    `is_reclaimed`: the pool goes with its application.
    """

    application: Application
    interface: str
    version: Version
    subnet: str
    is_reclaimed: bool

    def serves(self, application: Application, interface: str) -> bool:
        """Whether it was made for this very application, its UID included."""
        # The UID first: a plan asks this of every automatic pool that there is.
        is_likely = self.application.uid == application.uid and self.interface == interface
        return is_likely and self.application == labelled(application)


def labelled(application: Application) -> Application:
    """The application as labels show it."""
    return replace(application, name=label_value(application.name))


def purpose_of(labels: Mapping[str, str]) -> Purpose | None:
    """None when the labels are not those of an automatic pool, or not whole."""
    try:
        application = Application(
            labels[f"{_OWNER}-gv"].replace("_", "/"),
            labels[f"{_OWNER}-kind"],
            labels[f"{_OWNER}-namespace"],
            labels[AUTO_POOL_LABEL],
            labels[f"{_OWNER}-uid"],
        )
        return Purpose(
            application,
            labels[INTERFACE_LABEL],
            _FAMILIES[labels[VERSION_LABEL]],
            labels.get(OWNER_LABEL, ""),
            labels.get(RECLAIM_LABEL, "true") == "true",
        )
    except KeyError:
        return None


def labels_of(purpose: Purpose) -> dict[str, str]:
    application = purpose.application
    return {
        OWNER_LABEL: label_value(purpose.subnet),
        f"{_OWNER}-gv": application.gv,
        f"{_OWNER}-kind": application.kind,
        f"{_OWNER}-namespace": application.namespace,
        AUTO_POOL_LABEL: label_value(application.name),
        f"{_OWNER}-uid": application.uid,
        INTERFACE_LABEL: purpose.interface,
        VERSION_LABEL: f"IPv{purpose.version}",
        RECLAIM_LABEL: "true" if purpose.is_reclaimed else "false",
    }


def pool_name(application: Application, interface: str, version: Version, nth: int = 1) -> str:
    """`auto4-cart-eth0-8a1f3`; the second and later ones of an application end in `-2`, `-3` and so on."""
    suffix = application.uid.rpartition("-")[2][:SUFFIX_LENGTH]
    tail = "" if nth == 1 else f"-{nth}"
    room = NAME_LIMIT - 7 - len(suffix) - len(interface) - len(tail)
    name = application.name[:room].rstrip("-.")
    text = f"auto{version}-{name}-{interface}-{suffix}{tail}".lower()
    return _UNFIT.sub("-", text)


def empty_pool(name: str, purpose: Purpose, subnet: Raw, number: str) -> dict[str, Any]:
    """The pool as it is born: without addresses, which it gets once the accounts of the subnet (the stored object)
    say that they are lent to it. `number` is the text of the annotation that says how many.
    """
    meta, offered, application = subnet["metadata"], subnet["spec"], purpose.application
    spec = {key: copy.deepcopy(offered[key]) for key in ("subnet", "ipVersion", "gateway", "routes") if key in offered}
    spec["ips"] = []
    spec["podAffinity"] = {
        "matchLabels": {
            PREFIX + "app-api-group": application.group,
            PREFIX + "app-api-version": application.version,
            PREFIX + "app-kind": application.kind,
            PREFIX + "app-namespace": application.namespace,
            PREFIX + "app-name": label_value(application.name),
        }
    }
    owner = {
        "apiVersion": subnet["apiVersion"],
        "kind": subnet["kind"],
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    raw = {
        "apiVersion": subnet["apiVersion"],
        "kind": "SpiderIPPool",
        "metadata": {
            "name": name,
            "labels": labels_of(purpose),
            "annotations": {IP_NUMBER.key: number},
            "ownerReferences": [owner],
        },
        "spec": spec,
    }
    return complete_pool(raw)

"""Applications, for which pools are made: whatever stands at the top of the owners of a group of pods.

workload                              replicas
Deployment, ReplicaSet, StatefulSet   spec.replicas
DaemonSet                             status.desiredNumberScheduled
Job, and a CronJob's template         completions, else parallelism, else 1
bare pod                              1
others                                spec.replicas of their `scale` subresource
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.domain import errors
from allocator.domain.selector_rules import NAME_LIMIT
from allocator.domain.subnet_annotations import IP_NUMBER

if TYPE_CHECKING:
    from allocator.domain.fields import Raw
    from allocator.domain.request import Owner
    from allocator.domain.subnet_annotations import IpNumber

HASH_LENGTH: Final = 10


@dataclass(frozen=True, slots=True)
class Application:
    """`uid` is that of the object, empty where only the name is known."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def text(self) -> str:
        """As the accounts of a subnet name it: `apps_v1_Deployment_shop_cart`, `v1_Pod_shop_one` in the core group."""
        return f"{self.gv}_{self.kind}_{self.namespace}_{self.name}"

    @property
    def gv(self) -> str:
        """Group and version as the value of a label: `apps_v1`."""
        return self.api_version.replace("/", "_")

    @property
    def group(self) -> str:
        """The API group; empty for the core one."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.api_version.rpartition("/")[2]

    def is_named_as(self, other: Application) -> bool:
        """Whether both are of one name: one may be the other's successor."""
        return self.text == other.text


def application_of(owner: Owner, namespace: str) -> Application:
    return Application(owner.api_version, owner.kind, namespace, owner.name, owner.uid)


def parse_application(text: str) -> Application | None:
    """The reverse of `Application.text`; None when it is no such text."""
    match text.split("_"):
        case [group, version, kind, namespace, name]:
            return Application(f"{group}/{version}", kind, namespace, name)
        case [version, kind, namespace, name]:
            return Application(version, kind, namespace, name)
        case _:
            return None


def label_value(text: str) -> str:
    """The text as the value of a label; longer than a label may be, it ends in its hash."""
    if len(text) <= NAME_LIMIT:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]
    return f"{text[: NAME_LIMIT - HASH_LENGTH - 1]}-{digest}"


def replicas_of(kind: str, raw: Raw) -> int:
    """How many pods a workload of Kubernetes' own kinds runs at once; `raw` is the stored object."""
    spec = raw.get("spec") or {}
    match kind:
        case "DaemonSet":
            return int((raw.get("status") or {}).get("desiredNumberScheduled") or 0)
        case "Job":
            return _of_job(spec)
        case "CronJob":
            return _of_job((spec.get("jobTemplate") or {}).get("spec") or {})
        case "Pod":
            return 1
        case _:
            return int(spec.get("replicas") or 0)


def _of_job(spec: Raw) -> int:
    for key in ("completions", "parallelism"):
        if spec.get(key) is not None:
            return int(spec[key]) or 1
    return 1


def pool_size(number: IpNumber | None, replicas: int | None, *, spare: int) -> int:
    """How many addresses the application's pool has. `spare` is the cluster's own surplus, for those that ask for none.

    `replicas` is None where nobody can tell: errors.Invalid then, unless the number is fixed.
    """
    if number is not None and not number.is_surplus:
        return number.number
    if replicas is None:
        raise errors.Invalid(
            f"how many replicas it has cannot be told: set the annotation {IP_NUMBER.key} to a fixed number, as "
            '"5", or give its kind a scale subresource'
        )
    return replicas + (spare if number is None else number.number)

"""Kubernetes' protobuf form of the few objects that typed kubectl commands send: `kubectl create namespace` and such.

`kubectl create -f` and every custom resource come as JSON; only commands that build the object themselves use protobuf.
Field numbers are those of the `generated.proto` files in k8s.io/api. A field that is not in the tables makes the whole
body unreadable: better refused than half understood. Answers are always JSON, which kubectl accepts.
"""

import base64
from collections.abc import Callable, Iterator
from typing import Any

from devcluster.plane.problems import Object

_MAGIC = b"k8s\x00"

# field number -> "name type"; `*` is a list, `str>str` a map; types with a capital are messages of this table.
_MESSAGES = {
    "ObjectMeta": {
        1: "name str", 2: "generateName str", 3: "namespace str", 5: "uid str", 6: "resourceVersion str",
        11: "labels str>str", 12: "annotations str>str", 13: "ownerReferences *OwnerReference",
    },
    "OwnerReference": {
        1: "kind str", 3: "name str", 4: "uid str", 5: "apiVersion str", 6: "controller bool",
        7: "blockOwnerDeletion bool",
    },
    "Namespace": {1: "metadata ObjectMeta"},
    "ConfigMap": {1: "metadata ObjectMeta", 2: "data str>str", 3: "binaryData str>bytes", 4: "immutable bool"},
    "Secret": {1: "metadata ObjectMeta", 2: "data str>bytes", 3: "type str", 4: "stringData str>str"},
    "ServiceAccount": {1: "metadata ObjectMeta"},
    "Deployment": {1: "metadata ObjectMeta", 2: "spec DeploymentSpec"},
    "DeploymentSpec": {1: "replicas int", 2: "selector LabelSelector", 3: "template PodTemplate"},
    "LabelSelector": {1: "matchLabels str>str"},
    "PodTemplate": {1: "metadata ObjectMeta", 2: "spec PodSpec"},
    "PodSpec": {
        2: "containers *Container", 3: "restartPolicy str", 4: "terminationGracePeriodSeconds int", 6: "dnsPolicy str",
        7: "nodeSelector str>str", 19: "schedulerName str",
    },
    "Container": {
        1: "name str", 2: "image str", 3: "command *str", 4: "args *str", 6: "ports *ContainerPort", 7: "env *EnvVar",
        13: "terminationMessagePath str", 14: "imagePullPolicy str", 20: "terminationMessagePolicy str",
    },
    "ContainerPort": {3: "containerPort int", 4: "protocol str"},
    "EnvVar": {1: "name str", 2: "value str"},
    "Job": {1: "metadata ObjectMeta", 2: "spec JobSpec"},
    "JobSpec": {
        1: "parallelism int", 2: "completions int", 6: "template PodTemplate", 7: "backoffLimit int",
        9: "completionMode str", 10: "suspend bool",
    },
    "CronJob": {1: "metadata ObjectMeta", 2: "spec CronJobSpec"},
    "CronJobSpec": {1: "schedule str", 3: "concurrencyPolicy str", 5: "jobTemplate JobTemplate"},
    "JobTemplate": {1: "metadata ObjectMeta", 2: "spec JobSpec"},
    "Eviction": {1: "metadata ObjectMeta", 2: "deleteOptions DeleteOptions"},
    "DeleteOptions": {1: "gracePeriodSeconds int", 2: "preconditions Preconditions", 4: "propagationPolicy str"},
    "Preconditions": {1: "uid str", 2: "resourceVersion str"},
}  # fmt: skip


class Unreadable(Exception):
    """The body holds something that the tables do not name, or is no protobuf at all."""


def decode(data: bytes) -> Object:
    if not data.startswith(_MAGIC):
        raise Unreadable("no Kubernetes protobuf")
    envelope = dict(_fields(data[len(_MAGIC) :]))
    about = dict(_fields(_bytes(envelope.get(1, b""))))
    api_version, kind = (_bytes(about.get(number, b"")).decode() for number in (1, 2))
    if kind not in _MESSAGES:
        raise Unreadable(f"kind {kind}")
    return {"apiVersion": api_version, "kind": kind, **_message(kind, _bytes(envelope.get(2, b"")))}


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) pairs; only varints and length-delimited values occur in these objects."""
    at = 0
    try:
        while at < len(data):
            tag, at = _varint(data, at)
            value, at = _varint(data, at)
            if tag & 7 == 0:
                yield tag >> 3, value
            elif tag & 7 == 2 and at + value <= len(data):
                yield tag >> 3, data[at : at + value]
                at += value
            else:
                raise Unreadable("the body is no protobuf of these kinds")
    except IndexError as error:
        raise Unreadable("the body is cut short") from error


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise Unreadable("a number where text belongs")
    return value


_SCALARS: dict[str, Callable[[int | bytes], Any]] = {
    "str": lambda value: _bytes(value).decode(),
    "bytes": lambda value: base64.b64encode(_bytes(value)).decode(),
    "int": lambda value: value,
    "bool": bool,
}


def _value(form: str, value: int | bytes) -> Any:
    return _SCALARS[form](value) if form in _SCALARS else _message(form, _bytes(value))


def _says_something(value: int | bytes) -> bool:
    """Go writes zeros and (nested) empty messages for what is not set; those may be passed over."""
    if isinstance(value, int) or not value:
        return bool(value)
    try:
        return any(_says_something(inner) for _, inner in _fields(value))
    except Unreadable:  # text, then
        return True


def _message(kind: str, data: bytes) -> Object:
    found: Object = {}
    for number, value in _fields(data):
        entry = _MESSAGES[kind].get(number)
        if entry is None:
            if _says_something(value):
                raise Unreadable(f"field {number} of {kind}")
            continue
        name, form = entry.split()
        if form.startswith("*"):
            found.setdefault(name, []).append(_value(form[1:], value))
        elif ">" in form:
            pair = dict(_fields(_bytes(value)))
            found.setdefault(name, {})[_value("str", pair.get(1, b""))] = _value(
                form.partition(">")[2], pair.get(2, b"")
            )
        elif value or form == "int":
            found[name] = _value(form, value)
    return found

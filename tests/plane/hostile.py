"""Hostile AdmissionReviews for a fuzz test: valid ones with something wrong in them, as the bytes that are sent."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hypothesis import strategies as st

from tests.plane.webhooks import API_VERSION, pool, reservation, review, subnet

if TYPE_CHECKING:
    from collections.abc import Iterator

Json: TypeAlias = Any
Path: TypeAlias = tuple[Any, ...]

SELECTOR: Final = {
    "matchLabels": {"app": "web"},
    "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}],
}
POOL: Final = pool(
    "p",
    ipVersion=4,
    subnet="10.20.0.0/16",
    ips=["10.20.0.10-10.20.0.19", "10.20.0.30"],
    excludeIPs=["10.20.0.12"],
    gateway="10.20.0.1",
    routes=[{"dst": "10.99.0.0/16", "gw": "10.20.0.254"}],
    podAffinity=SELECTOR,
    namespaceAffinity=SELECTOR,
    nodeAffinity=SELECTOR,
    namespaceName=["shop"],
    nodeName=["n1"],
    multusName=["kube-system/net1"],
    default=True,
    disable=False,
)
SUBNET: Final = subnet(
    "s", ipVersion=6, subnet="fd00::/64", ips=["fd00::10-fd00::ffff"], excludeIPs=["fd00::20"], gateway="fd00::1"
)
RESERVATION: Final = reservation("r", ipVersion=4, ips=["10.20.0.1", "10.20.3.0-10.20.3.255"])
ENDPOINT: Final[dict[str, Any]] = {
    "apiVersion": API_VERSION,
    "kind": "SpiderEndpoint",
    "metadata": {"name": "cart-0", "namespace": "shop"},
    "status": {
        "ownerControllerType": "StatefulSet",
        "ownerControllerName": "cart",
        "current": {
            "uid": "u1",
            "node": "n1",
            "ips": [{"interface": "eth0", "ipv4": "10.20.0.11/16", "ipv4Pool": "p", "vlan": 0, "routes": []}],
        },
    },
}
PREFIX: Final = "ipam.spidernet.io"
ANNOTATIONS: Final = {
    "ippool": '{"ipv4": ["p"], "ipv6": ["p6-*"]}',
    "ippools": '[{"interface": "eth0", "ipv4": ["p"], "cleangateway": true}, {"interface": "net1", "ipv6": ["q"]}]',
    "routes": '[{"dst": "10.99.0.0/16", "gw": "10.20.0.254"}]',
    "dns": '{"nameservers": ["10.20.0.53"], "search": ["svc"], "options": ["ndots:5"]}',
    "subnet": '{"ipv4": ["s"]}',
    "subnets": '[{"interface": "eth0", "ipv4": ["s"]}]',
    "ippool-ip-number": "+2",
    "ippool-reclaim": "false",
    "node-affinity": "true",
}
TERM: Final = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["z1"]}], "matchFields": []}
POD: Final[dict[str, Any]] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "cart-0",
        "namespace": "shop",
        "labels": {"app": "web"},
        "annotations": {f"{PREFIX}/{key}": text for key, text in ANNOTATIONS.items()},
    },
    "spec": {
        "containers": [{"name": "main", "image": "registry.invalid/app:1"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [TERM]}}},
    },
}


def pod_review(annotation: str) -> Json:
    pod = copy.deepcopy(POD)
    pod["metadata"]["annotations"] = {f"{PREFIX}/{annotation}": ANNOTATIONS[annotation]}
    request: dict[str, Any] = {
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "namespace": "shop",
    }
    return review(pod, **request)


def reviews_of(obj: dict[str, Any]) -> Iterator[Json]:
    yield review(obj, dryRun=True)
    changed = {**obj, "metadata": {**obj["metadata"], "labels": {"app": "x"}}}
    yield review(changed, "UPDATE", oldObject=obj, dryRun=True)
    other = {key: value for key, value in obj.items() if key != "spec"} | {"spec": {**obj.get("spec", {}), "ips": []}}
    yield review(obj, "UPDATE", oldObject=other)
    yield review(obj, "DELETE", object=None, oldObject=obj)


OF_KIND: Final = {
    **{obj["kind"].lower(): list(reviews_of(obj)) for obj in (POOL, SUBNET, RESERVATION, ENDPOINT)},
    "pod": [pod_review(annotation) for annotation in ANNOTATIONS],
}
PATHS: Final = [
    *(
        f"/{side}-spiderpool-spidernet-io-v2beta1-{kind}"
        for kind in OF_KIND
        for side in ("mutate", "validate")
        if kind != "pod"
    ),
    "/mutate--v1-pod",
]


def kind_of(path: str) -> str:
    return path.rpartition("-")[2]


TEXTS: Final = st.one_of(
    st.text(max_size=20),
    st.sampled_from([
        "", " ", "\ud800", "\udfff\ud800", "\x00", "a" * 300, "10.0.0.0/8", "0.0.0.0/0", "::/0", "fd00::/64",
        "10.0.0.1",
        "10.0.0.9-10.0.0.1", "1-2-3", "::ffff:10.0.0.1", "fe80::1%eth0", "010.0.0.1", "10.0.0.0/33", "10.0.0.0/-1",
        "10.0.0.0/" + "9" * 5000, "9" * 5000, "::1-::2", "255.255.255.255-256.0.0.0", "../../etc", "a/b/c", "*", "[",
        "[!", "pool-[a-", "{}", "[]", '"', "{'a': 1}", '{"ipv4": [["x"]]}', '{"ipv4": "' + "x" * 5000 + '"}', "null",
        "true", "[" * 5000, "Pod", "CREATE", "DELETE", "status", "ǅ", "\u202e", "ipam.spidernet.io/ippool", "١٢٣",
    ]),
)  # fmt: skip
NUMBERS: Final = st.one_of(
    st.integers(-10, 10),
    st.floats(),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400, 4, 6, 4.0, 6.5, 1e308, -0.0]),
)
VALUES: Final = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)


OBJECTS: Final = (("request", "object"), ("request", "oldObject"))


class Twin(str):
    """A key that stands beside an equal one, as JSON's grammar allows."""

    __slots__ = ()

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other


def nodes(value: Json, path: Path = ()) -> Iterator[Path]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from nodes(inner, (*path, key))


def nested(depth: int) -> Json:
    value: Json = 1
    for number in range(depth):
        value = [value] if number % 2 else {"a": value}
    return value


@st.composite
def mutated(draw: st.DrawFn, seed: Json) -> Json:
    """The document with one to three nodes replaced, removed, doubled, renamed or buried, mostly in its objects."""
    document = copy.deepcopy(seed)
    for _ in range(draw(st.integers(1, 3))):
        inner = [path for path in nodes(document) if path[:2] in OBJECTS and len(path) > 2]
        paths = draw(st.sampled_from([inner] * 7 + [[path for path in nodes(document) if path]]))
        if not paths:
            return document
        *above, key = draw(st.sampled_from(paths))
        parent = document
        for step in above:
            parent = parent[step]
        match draw(st.sampled_from(["replace", "replace", "replace", "remove", "double", "rename", "bury"])):
            case "remove":
                del parent[key]
            case "double":
                value = draw(VALUES)
                if isinstance(parent, list):
                    parent.extend([parent[key]] * draw(st.sampled_from([1, 2, 300])))
                else:
                    parent[Twin(key)] = value
            case "rename" if isinstance(parent, dict):
                parent[draw(TEXTS)] = parent.pop(key)
            case "bury":
                parent[key] = nested(draw(st.sampled_from([30, 60, 70, 500])))
            case _:  # replace
                parent[key] = draw(VALUES)
    return document


@st.composite
def exchanges(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path, and a review that is wrong in some way and mostly meant for that path."""
    path = draw(st.sampled_from(PATHS))
    kind = draw(st.sampled_from([kind_of(path)] * 9 + list(OF_KIND)))
    seed = draw(st.sampled_from(OF_KIND[kind]))
    return path, json.dumps(draw(mutated(seed))).encode()


@st.composite
def garbage(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path, and bytes: anything, or a review in which some have been exchanged, or that is cut off."""
    path = draw(st.sampled_from(PATHS))
    body = bytearray(json.dumps(draw(st.sampled_from(OF_KIND[kind_of(path)]))).encode())
    match draw(st.sampled_from(["any", "exchanged", "cut", "around"])):
        case "any":
            return path, draw(st.binary(max_size=200))
        case "cut":
            return path, bytes(body[: draw(st.integers(0, len(body)))])
        case "around":
            return path, draw(st.binary(max_size=8)) + bytes(body) + draw(st.binary(max_size=8))
        case _:  # exchanged
            for place in draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=5)):
                body[place] = draw(st.integers(0, 255))
            return path, bytes(body)

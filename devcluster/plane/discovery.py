"""Discovery: which groups, versions and resources there are, one document each or aggregated."""

from collections.abc import Iterator

from devcluster.plane.problems import Object
from devcluster.plane.registry import Registry, ResourceType

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
VERSION: Object = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.0+embedded",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "none",
    "platform": "linux/amd64",
}
_READ_WRITE = ["get", "patch", "update"]


def wants_aggregated(accept: str) -> bool:
    return "as=APIGroupDiscoveryList" in accept and "v=v2;" in f"{accept.replace(',', ';')};"


def _groups(registry: Registry) -> dict[str, dict[str, list[ResourceType]]]:
    found: dict[str, dict[str, list[ResourceType]]] = {}
    for rt in registry.all():
        found.setdefault(rt.group, {}).setdefault(rt.version, []).append(rt)
    return found


def _subresources(rt: ResourceType) -> Iterator[tuple[str, tuple[str, str, str], list[str]]]:
    """(name, (group, version, kind), verbs)."""
    own = (rt.group, rt.version, rt.kind)
    if rt.status:
        yield "status", own, _READ_WRITE
    if rt.scale:
        yield "scale", ("autoscaling", "v1", "Scale"), _READ_WRITE
    if rt.stored_in == "/pods":
        yield "binding", ("", "v1", "Binding"), ["create"]
        yield "eviction", ("policy", "v1", "Eviction"), ["create"]
    if rt.stored_in == "/namespaces":
        yield "finalize", own, ["update"]


def core_versions(server: str) -> Object:
    address = [{"clientCIDR": "0.0.0.0/0", "serverAddress": server}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": address}


def _group(name: str, versions: list[str]) -> Object:
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def group_list(registry: Registry) -> Object:
    groups = [_group(name, list(versions)) for name, versions in _groups(registry).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(registry: Registry, name: str) -> Object | None:
    versions = _groups(registry).get(name)
    if not versions:
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, list(versions))}


def resource_list(registry: Registry, name: str, version: str) -> Object | None:
    types = _groups(registry).get(name, {}).get(version)
    if not types:
        return None
    resources: list[Object] = []
    for rt in types:
        entry: Object = {
            "name": rt.plural,
            "singularName": rt.singular,
            "namespaced": rt.namespaced,
            "kind": rt.kind,
            "verbs": list(rt.verbs),
        }
        if rt.short_names:
            entry["shortNames"] = list(rt.short_names)
        if rt.categories:
            entry["categories"] = list(rt.categories)
        resources.append(entry)
        for sub, (sub_group, sub_version, kind), verbs in _subresources(rt):
            inner = {"name": f"{rt.plural}/{sub}", "singularName": "", "namespaced": rt.namespaced, "kind": kind}
            if (sub_group, sub_version) != (rt.group, rt.version):
                inner |= {"group": sub_group, "version": sub_version}
            resources.append(inner | {"verbs": verbs})
    group_version = f"{name}/{version}" if name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources}


def _aggregated_resource(rt: ResourceType) -> Object:
    entry: Object = {
        "resource": rt.plural,
        "responseKind": {"group": rt.group, "version": rt.version, "kind": rt.kind},
        "scope": "Namespaced" if rt.namespaced else "Cluster",
        "singularResource": rt.singular,
        "verbs": list(rt.verbs),
    }
    if rt.short_names:
        entry["shortNames"] = list(rt.short_names)
    if rt.categories:
        entry["categories"] = list(rt.categories)
    subresources = [
        {"subresource": sub, "responseKind": {"group": g, "version": v, "kind": kind}, "verbs": verbs}
        for sub, (g, v, kind), verbs in _subresources(rt)
    ]
    return entry | ({"subresources": subresources} if subresources else {})


def aggregated(registry: Registry, *, core: bool) -> Object:
    """For /api the core group alone, for /apis all the others."""
    items = [
        {
            "metadata": {"name": name, "creationTimestamp": None},
            "versions": [
                {"version": version, "resources": [_aggregated_resource(rt) for rt in types], "freshness": "Current"}
                for version, types in versions.items()
            ],
        }
        for name, versions in _groups(registry).items()
        if (name == "") is core
    ]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items}


def document(registry: Registry, path: list[str], server: str) -> Object | None:
    """The document of the old form at /api, /apis, /api/V, /apis/G or /apis/G/V; None when there is none."""
    match path:
        case ["api"]:
            return core_versions(server)
        case ["apis"]:
            return group_list(registry)
        case ["apis", name]:
            return group(registry, name)
        case ["api", version]:
            return resource_list(registry, "", version)
        case ["apis", name, version]:
            return resource_list(registry, name, version)
        case _:
            return None

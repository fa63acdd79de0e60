"""The pure parts of the embedded plane: paths, ages, patches, selectors, schemas, protobuf, webhook rules."""

from datetime import UTC, datetime
from typing import Any

import pytest

from devcluster.plane import columns, patches, paths, protobuf, schema, selectors, webhook_rules
from devcluster.plane.api import Attributes, Call, Operation
from devcluster.plane.problems import Object, Problem
from devcluster.plane.registry import ResourceType

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.ips[0].name", ["x"]),
        (".spec.ips[-1].name", ["y"]),
        (".spec.ips[*].name", ["x", "y"]),
        (".spec.labels['a\\.b/c\\-d']", ["1"]),
        (".spec.labels.a\\.b/c-d", ["1"]),
        (".spec.none.deeper", []),
        (".spec.ips[7].name", []),
        ("{.spec.ips[0].name}", ["x"]),
    ],
)
def test_a_path_leads_to_values(path: str, found: list[str]) -> None:
    obj = {"spec": {"ips": [{"name": "x"}, {"name": "y"}], "labels": {"a.b/c-d": "1"}}}
    assert paths.find(obj, path) == found


@pytest.mark.parametrize("path", [".spec[?(@.a)]", "..spec", ".a[1:2]"])
def test_a_path_outside_the_subset_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="unsupported JSONPath"):
        paths.parse(path)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"), (119, "119s"), (120, "2m"), (125, "2m5s"), (601, "10m"), (3 * 3600, "3h"), (3 * 3600 + 60, "3h1m"),
        (9 * 3600, "9h"), (2 * 86400, "2d"), (2 * 86400 + 3600, "2d1h"), (9 * 86400, "9d"), (800 * 86400, "2y70d"),
        (-5, "<invalid>"),
    ],
)  # fmt: skip
def test_ages_are_printed_as_kubectl_does(seconds: int, shown: str) -> None:
    assert columns.duration(seconds) == shown


@pytest.mark.parametrize(("given", "shown"), [(None, "<unknown>"), ("x", "<invalid>"), ("2026-01-01T11:59:00Z", "60s")])
def test_an_age_that_cannot_be_told_says_so(given: str | None, shown: str) -> None:
    assert columns.age(given, NOON) == shown


@pytest.mark.parametrize(
    ("target", "patch", "wanted"),
    [
        pytest.param(
            {"containers": [{"name": "a", "image": "1"}, {"name": "b"}]},
            {"containers": [{"name": "a", "image": "2"}]},
            {"containers": [{"name": "a", "image": "2"}, {"name": "b"}]},
            id="merged by name",
        ),
        pytest.param(
            {"containers": [{"name": "a"}, {"name": "b"}]},
            {"containers": [{"name": "a", "$patch": "delete"}]},
            {"containers": [{"name": "b"}]},
            id="an element deleted",
        ),
        pytest.param(
            {"containers": [{"name": "a"}]},
            {"containers": [{"name": "b"}, {"$patch": "replace"}]},
            {"containers": [{"name": "b"}]},
            id="a list replaced",
        ),
        pytest.param({"args": ["a", "b"]}, {"args": ["c"]}, {"args": ["c"]}, id="a list of scalars"),
        pytest.param(
            {"finalizers": ["a", "b"]},
            {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]},
            {"finalizers": ["b", "c"]},
            id="a set",
        ),
        pytest.param(
            {"ports": [{"containerPort": 1}, {"containerPort": 2}]},
            {
                "$setElementOrder/ports": [{"containerPort": 2}, {"containerPort": 1}],
                "ports": [{"containerPort": 1, "x": 1}],
            },
            {"ports": [{"containerPort": 2}, {"containerPort": 1, "x": 1}]},
            id="ordered",
        ),
        pytest.param(
            {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"a": 1}}},
            {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}},
            {"strategy": {"type": "Recreate"}},
            id="keys retained",
        ),
        pytest.param({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}, {"a": {"c": 2}}, id="a key removed"),
    ],
)  # fmt: skip
def test_a_strategic_patch_merges(target: Object, patch: Object, wanted: Object) -> None:
    assert patches.apply_patch(patches.STRATEGIC, target, patch) == wanted


def test_a_patch_leaves_the_object_itself_alone() -> None:
    obj = {"spec": {"tags": ["a"], "size": 1}}
    patches.apply_patch(patches.JSON, obj, [{"op": "add", "path": "/spec/tags/-", "value": "b"}])
    patches.apply_patch(patches.MERGE, obj, {"spec": {"size": 2}})
    assert obj == {"spec": {"tags": ["a"], "size": 1}}


@pytest.mark.parametrize(
    "operations", [[{"op": "nonsense", "path": "/a"}], [{"op": "remove", "path": "/none"}], {}, "x"]
)
def test_a_broken_json_patch_is_refused(operations: Any) -> None:
    with pytest.raises(Problem) as refused:
        patches.apply_patch(patches.JSON, {"a": 1}, operations)
    assert refused.value.code in {400, 422}


@pytest.mark.parametrize("text", ["a=b=c", "a in b", "a in (b", "=x", "a notin", "!", "a in (b c)"])
def test_a_broken_label_selector_is_refused(text: str) -> None:
    with pytest.raises(Problem):
        selectors.parse_labels(text)


def test_field_selectors_know_escapes() -> None:
    terms = selectors.parse_fields(r"metadata.name=a\,b,spec.x!=c\=d,status.phase==")
    assert terms == [("metadata.name", True, "a,b"), ("spec.x", False, "c=d"), ("status.phase", True, "")]


SCHEMA: Object = {
    "type": "object",
    "properties": {
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "properties": {
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "maybe": {"type": "string", "nullable": True},
                "mode": {"type": "string", "default": "auto"},
                "names": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "list": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {"type": "object", "properties": {"name": {"type": "string"}}},
                },
            },
        },
    },
}


def test_pruning_tells_what_it_removes() -> None:
    obj = {"metadata": {"name": "a", "nmae": 1}, "spec": {"free": {"x": 1}, "fre": 1, "list": [{"nam": 1}]}, "other": 1}
    assert schema.prune(obj, SCHEMA) == ["metadata.nmae", "other", "spec.fre", "spec.list[0].nam"]
    assert obj == {"metadata": {"name": "a"}, "spec": {"free": {"x": 1}, "list": [{}]}}


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [({}, {"mode": "auto"}), ({"mode": None}, {"mode": "auto"}), ({"mode": "x"}, {"mode": "x"}), (None, None)],
)
def test_defaults_fill_what_is_absent_or_null(spec: Object | None, wanted: Object | None) -> None:
    obj = {} if spec is None else {"spec": spec}
    schema.set_defaults(obj, SCHEMA)
    assert obj.get("spec") == wanted


@pytest.mark.parametrize(
    ("spec", "problems"),
    [
        ({"maybe": None}, []),
        ({"names": ["a", "b", "a"]}, ['spec.names[2]: Duplicate value: "a"']),
        ({"list": [{"name": "a"}, {"name": "a"}]}, ['spec.list[1]: Duplicate value: {"name":"a"}']),
    ],
)
def test_lists_that_are_sets_or_maps_hold_nothing_twice(spec: Object, problems: list[str]) -> None:
    assert [str(problem) for problem in schema.validate({"spec": spec}, SCHEMA)] == problems


def _field(number: int, payload: bytes) -> bytes:
    return bytes([number << 3 | 2, len(payload)]) + payload


def _envelope(kind: bytes, raw: bytes) -> bytes:
    about = _field(1, b"v1") + _field(2, kind)
    return b"k8s\x00" + _field(1, about) + _field(2, raw) + _field(3, b"") + _field(4, b"")


def test_protobuf_of_a_config_map_is_understood() -> None:
    entry = _field(1, b"a") + _field(2, b"b")
    raw = _field(1, _field(1, b"one") + _field(8, b"")) + _field(2, entry)
    assert protobuf.decode(_envelope(b"ConfigMap", raw)) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "one"},
        "data": {"a": "b"},
    }


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"{}", "no Kubernetes protobuf"),
        (_envelope(b"Pod", b""), "kind Pod"),
        (_envelope(b"ConfigMap", _field(9, b"\x0a\x01x")), "field 9 of ConfigMap"),
        (_envelope(b"ConfigMap", b"\x0a\x7fx"), "the body is no protobuf"),
        (_envelope(b"ConfigMap", b"\x0a"), "cut short"),
    ],
)
def test_protobuf_that_is_not_understood_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(protobuf.Unreadable, match=why):
        protobuf.decode(data)


PODS = ResourceType(group="", version="v1", plural="pods", kind="Pod")
RULE: Object = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}


def _attributes(operation: Operation = "CREATE", subresource: str = "") -> Attributes:
    return Attributes(operation, PODS, subresource, "ns", "a", None, Call())


@pytest.mark.parametrize(
    ("change", "attributes", "wanted"),
    [
        ({}, _attributes(), True),
        ({}, _attributes("UPDATE"), False),
        ({}, _attributes(subresource="status"), False),
        ({"resources": ["*"]}, _attributes(), True),
        ({"resources": ["*"]}, _attributes(subresource="status"), False),
        ({"resources": ["pods/*"]}, _attributes(subresource="status"), True),
        ({"resources": ["*/status"]}, _attributes(subresource="status"), True),
        ({"resources": ["*/*"]}, _attributes(), True),
        ({"scope": "Cluster"}, _attributes(), False),
        ({"scope": "Namespaced"}, _attributes(), True),
        ({"apiVersions": ["v2"]}, _attributes(), False),
        ({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"]}, _attributes("DELETE"), True),
    ],
)
def test_rules_say_which_requests_a_webhook_sees(change: Object, attributes: Attributes, *, wanted: bool) -> None:
    webhook = webhook_rules.Webhook("validating", "c", {"name": "w", "rules": [RULE | change]})
    pod: Object = {"metadata": {"labels": {}}}
    assert webhook_rules.matches(webhook, attributes, pod, lambda _: {}) is wanted


def test_a_namespace_selector_looks_at_the_labels_of_the_namespace() -> None:
    selector = {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["ns"]}]}
    webhook = webhook_rules.Webhook("validating", "c", {"name": "w", "rules": [RULE], "namespaceSelector": selector})
    labels = {"ns": {"kubernetes.io/metadata.name": "ns"}}
    assert not webhook_rules.matches(webhook, _attributes(), {"metadata": {}}, labels.__getitem__)

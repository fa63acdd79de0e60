"""What the server fills in for built-in kinds, as far as kubectl, controllers and schedulers rely on it."""

import base64
import json
import re
import zlib
from collections.abc import Callable
from ipaddress import IPv4Address

from devcluster.plane import paths, problems
from devcluster.plane.problems import FieldProblem, Object, forbidden_field, invalid_value, required
from devcluster.plane.registry import ResourceType

_CHANGEABLE = {"activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds", "schedulingGates"}
_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
_MICRO_TIMES = {"Lease": (".spec.acquireTime", ".spec.renewTime"), "Event": (".eventTime", ".series.lastObservedTime")}
_SERVICE_NETWORK = IPv4Address("10.96.0.0")


def _fill(target: Object, **values: object) -> None:
    for key, value in values.items():
        if target.get(key) is None:
            target[key] = value


def _pod_spec(spec: Object) -> None:
    _fill(
        spec,
        restartPolicy="Always",
        terminationGracePeriodSeconds=30,
        dnsPolicy="ClusterFirst",
        securityContext={},
        schedulerName="default-scheduler",
    )
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        image = str(container.get("image", ""))
        tag = image.rpartition("/")[2].partition(":")[2]
        _fill(
            container,
            resources={},
            terminationMessagePath="/dev/termination-log",
            terminationMessagePolicy="File",
            imagePullPolicy="Always" if tag in {"", "latest"} and "@" not in image else "IfNotPresent",
        )
        for port in container.get("ports") or []:
            _fill(port, protocol="TCP")


def _template(spec: Object) -> None:
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    _pod_spec(template.setdefault("spec", {}))


def _pod(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _pod_spec(spec)
    _fill(spec, enableServiceLinks=True, preemptionPolicy="PreemptLowerPriority", priority=0)
    _fill(
        spec,
        tolerations=[
            {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            for key in ("not-ready", "unreachable")
        ],
    )
    _fill(obj.setdefault("status", {}), phase="Pending", qosClass="BestEffort")


def _deployment(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _fill(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600, strategy={})
    strategy = spec["strategy"]
    _fill(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        _fill(strategy, rollingUpdate={})
        _fill(strategy["rollingUpdate"], maxSurge="25%", maxUnavailable="25%")
    _template(spec)


def _replica_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _fill(spec, replicas=1)
    _template(spec)


def _stateful_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _fill(
        spec,
        replicas=1,
        revisionHistoryLimit=10,
        podManagementPolicy="OrderedReady",
        serviceName="",
        updateStrategy={},
        persistentVolumeClaimRetentionPolicy={"whenDeleted": "Retain", "whenScaled": "Retain"},
    )
    _fill(spec["updateStrategy"], type="RollingUpdate")
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        _fill(spec["updateStrategy"], rollingUpdate={"partition": 0})
    _template(spec)


def _daemon_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _fill(spec, revisionHistoryLimit=10, updateStrategy={})
    _fill(spec["updateStrategy"], type="RollingUpdate")
    if spec["updateStrategy"]["type"] == "RollingUpdate":
        _fill(spec["updateStrategy"], rollingUpdate={})
        _fill(spec["updateStrategy"]["rollingUpdate"], maxUnavailable=1, maxSurge=0)
    _template(spec)


def _job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _fill(spec, backoffLimit=6, completionMode="NonIndexed", suspend=False)
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = 1
    _fill(spec, parallelism=1)
    _template(spec)
    uid = obj["metadata"].get("uid")
    if not spec.get("manualSelector") and not spec.get("selector") and uid:
        labels = {"batch.kubernetes.io/controller-uid": uid}
        spec["selector"] = {"matchLabels": labels}
        own = {"controller-uid": uid, "job-name": obj["metadata"]["name"]}
        own |= {f"batch.kubernetes.io/{key}": value for key, value in own.items()}
        spec["template"]["metadata"]["labels"] = (spec["template"]["metadata"].get("labels") or {}) | own


def _cron_job(obj: Object) -> None:
    _fill(
        obj.setdefault("spec", {}),
        concurrencyPolicy="Allow",
        suspend=False,
        successfulJobsHistoryLimit=3,
        failedJobsHistoryLimit=1,
    )


def _namespace(obj: Object) -> None:
    metadata = obj["metadata"]
    metadata["labels"] = (metadata.get("labels") or {}) | {"kubernetes.io/metadata.name": metadata.get("name", "")}
    obj.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    _fill(obj.setdefault("status", {}), phase="Active")


def _service(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    _fill(spec, type="ClusterIP", sessionAffinity="None", internalTrafficPolicy="Cluster")
    for port in spec.get("ports") or []:
        _fill(port, protocol="TCP", targetPort=port.get("port"))
    if spec["type"] != "ExternalName":
        # No packet is ever sent there: the devcluster has no service proxy. Any stable address will do.
        name = f"{obj['metadata'].get('namespace')}/{obj['metadata'].get('name')}"
        _fill(spec, clusterIP=str(_SERVICE_NETWORK + 256 + zlib.crc32(name.encode()) % 60_000))
        _fill(spec, clusterIPs=[spec["clusterIP"]], ipFamilies=["IPv4"], ipFamilyPolicy="SingleStack")
    obj.setdefault("status", {"loadBalancer": {}})


def _secret(obj: Object) -> None:
    for key, value in (obj.pop("stringData", None) or {}).items():
        obj.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()
    _fill(obj, type="Opaque")


def _webhooks(obj: Object) -> None:
    for webhook in obj.get("webhooks") or []:
        _fill(
            webhook,
            failurePolicy="Fail",
            matchPolicy="Equivalent",
            namespaceSelector={},
            objectSelector={},
            timeoutSeconds=10,
        )
        if obj.get("kind") == "MutatingWebhookConfiguration":
            _fill(webhook, reinvocationPolicy="Never")
        if service := (webhook.get("clientConfig") or {}).get("service"):
            _fill(service, port=443)
        for rule in webhook.get("rules") or []:
            _fill(rule, scope="*")


_DEFAULTS: dict[tuple[str, str], Callable[[Object], None]] = {
    ("", "Pod"): _pod,
    ("", "Namespace"): _namespace,
    ("", "Service"): _service,
    ("", "Secret"): _secret,
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replica_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("apps", "DaemonSet"): _daemon_set,
    ("batch", "Job"): _job,
    ("batch", "CronJob"): _cron_job,
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): _webhooks,
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): _webhooks,
}


def apply_defaults(group: str, obj: Object) -> None:
    """In place. Harmless when repeated."""
    if fill := _DEFAULTS.get((group, str(obj.get("kind")))):
        fill(obj)


def check_times(rt: ResourceType, obj: Object) -> None:
    """Problem 400 for a MicroTime without its six digits, which Go's decoder takes in no other form."""
    for path in _MICRO_TIMES.get(rt.kind, ()):
        for value in paths.find(obj, path):
            if value is not None and not _MICRO_TIME.fullmatch(str(value)):
                why = f'parsing time "{value}" as "2006-01-02T15:04:05.000000Z07:00": cannot parse it'
                raise problems.undecodable(rt, rt.version, rt.kind, why)


def check(group: str, obj: Object, old: Object | None) -> list[FieldProblem]:
    """The few rules of built-in kinds whose breach would confuse controllers."""
    kind, spec = obj.get("kind"), obj.get("spec") or {}
    if kind == "Pod" and not group:
        return _check_containers(spec, "spec") + _check_pod_change(spec, (old or {}).get("spec"))
    if group == "admissionregistration.k8s.io" and kind in {
        "MutatingWebhookConfiguration",
        "ValidatingWebhookConfiguration",
    }:
        return [problem for at, w in enumerate(obj.get("webhooks") or []) for problem in _check_webhook(w, at)]
    if group == "apps" and kind in {"Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"}:
        return _check_workload(spec, (old or {}).get("spec"))
    return []


def _check_containers(spec: Object, path: str) -> list[FieldProblem]:
    if not spec.get("containers"):
        return [required(f"{path}.containers")]
    return [
        required(f"{path}.containers[{at}].{field}")
        for at, container in enumerate(spec["containers"])
        for field in ("name", "image")
        if not container.get(field)
    ]


def _fixed(spec: Object) -> Object:
    """What of a pod's spec no update may change."""
    kept = {key: value for key, value in spec.items() if key not in _CHANGEABLE}
    for key in ("containers", "initContainers"):
        kept[key] = [{k: v for k, v in c.items() if k != "image"} for c in spec.get(key) or []]
    return kept


def _check_pod_change(spec: Object, old: Object | None) -> list[FieldProblem]:
    if old is None or _fixed(spec) == _fixed(old):
        return []
    why = (
        "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
        "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
        "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
    )
    return [forbidden_field("spec", why)]


def _check_webhook(webhook: Object, at: int) -> list[FieldProblem]:
    path, name = f"webhooks[{at}]", str(webhook.get("name") or "")
    found: list[FieldProblem] = []
    if len(name.split(".")) < 3:
        why = "should be a domain with at least three segments separated by dots"
        found.append(invalid_value(f"{path}.name", f'"{name}"', why))
    if webhook.get("sideEffects") not in {"None", "NoneOnDryRun"}:
        found.append(required(f"{path}.sideEffects", "must specify one of None, NoneOnDryRun"))
    config = webhook.get("clientConfig") or {}
    if bool(config.get("url")) is bool(config.get("service")):
        found.append(required(f"{path}.clientConfig", "exactly one of url or service is required"))
    if not webhook.get("admissionReviewVersions"):
        found.append(required(f"{path}.admissionReviewVersions", "must specify one of v1, v1beta1"))
    return found


def _check_workload(spec: Object, old: Object | None) -> list[FieldProblem]:
    selector, template = spec.get("selector"), spec.get("template") or {}
    if not selector:
        return [required("spec.selector")]
    labels = (template.get("metadata") or {}).get("labels") or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        why = "`selector` does not match template `labels`"
        return [invalid_value("spec.template.metadata.labels", json.dumps(labels, separators=(",", ":")), why)]
    if old and old.get("selector") != selector:
        return [invalid_value("spec.selector", json.dumps(selector, separators=(",", ":")), "field is immutable")]
    return _check_containers(template.get("spec") or {}, "spec.template.spec")

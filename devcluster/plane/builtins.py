"""The built-in kinds: one line each. Their content is not checked against a schema (see the package's docstring)."""
# ruff: noqa: E501 -- a table reads best with one row a line

from devcluster.plane import columns
from devcluster.plane.registry import ALL_VERBS, Column, ResourceType, ScalePaths

_SELECTOR = ScalePaths(selector=".spec.selector")
_EVENT_FIELDS = (
    *(f"involvedObject.{f}" for f in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")),
    "reason", "reportingComponent", "source", "type",
)  # fmt: skip
_POD_FIELDS = (
    "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
    "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName",
)  # fmt: skip


def _type(  # noqa: PLR0913 -- a table row
    api: str,
    plural: str,
    kind: str,
    short: str = "",
    *,
    cluster: bool = False,
    status: bool = False,
    scale: bool = False,
    everywhere: bool = False,
    columns: tuple[Column, ...] | None = None,
    fields: tuple[str, ...] = (),
    collection: str = "",
    review: bool = False,
) -> ResourceType:
    group, _, version = api.rpartition("/")
    return ResourceType(
        group=group,
        version=version,
        plural=plural,
        kind=kind,
        namespaced=not cluster,
        singular=kind.lower(),
        list_kind=f"{kind}List",
        short_names=tuple(short.split()),
        categories=("all",) if everywhere else (),
        verbs=("create",) if review else ALL_VERBS,
        status=status,
        scale=_SELECTOR if scale else None,
        columns=columns,
        fields=fields,
        collection=collection,
    )


BUILTINS: tuple[ResourceType, ...] = (
    _type("v1", "namespaces", "Namespace", "ns", cluster=True, status=True, columns=columns.NAMESPACES, fields=("status.phase",)),
    _type("v1", "nodes", "Node", "no", cluster=True, status=True, columns=columns.NODES, fields=("spec.unschedulable",)),
    _type("v1", "pods", "Pod", "po", status=True, everywhere=True, columns=columns.PODS, fields=_POD_FIELDS),
    _type("v1", "services", "Service", "svc", status=True, everywhere=True, columns=columns.SERVICES, fields=("spec.clusterIP", "spec.type")),
    _type("v1", "endpoints", "Endpoints", "ep"),
    _type("v1", "configmaps", "ConfigMap", "cm", columns=columns.CONFIG_MAPS),
    _type("v1", "secrets", "Secret", columns=columns.SECRETS, fields=("type",)),
    _type("v1", "serviceaccounts", "ServiceAccount", "sa"),
    _type("v1", "events", "Event", "ev", columns=columns.EVENTS, fields=_EVENT_FIELDS),
    _type("v1", "persistentvolumeclaims", "PersistentVolumeClaim", "pvc", status=True),
    _type("v1", "persistentvolumes", "PersistentVolume", "pv", cluster=True, status=True),
    _type("v1", "podtemplates", "PodTemplate"),
    _type("v1", "limitranges", "LimitRange", "limits"),
    _type("v1", "resourcequotas", "ResourceQuota", "quota", status=True),
    _type("apps/v1", "deployments", "Deployment", "deploy", status=True, scale=True, everywhere=True, columns=columns.DEPLOYMENTS),
    _type("apps/v1", "replicasets", "ReplicaSet", "rs", status=True, scale=True, everywhere=True, columns=columns.REPLICA_SETS, fields=("status.replicas",)),
    _type("apps/v1", "statefulsets", "StatefulSet", "sts", status=True, scale=True, everywhere=True, columns=columns.STATEFUL_SETS),
    _type("apps/v1", "daemonsets", "DaemonSet", "ds", status=True, everywhere=True, columns=columns.DAEMON_SETS),
    _type("apps/v1", "controllerrevisions", "ControllerRevision"),
    _type("batch/v1", "jobs", "Job", status=True, everywhere=True, columns=columns.JOBS, fields=("status.successful",)),
    _type("batch/v1", "cronjobs", "CronJob", "cj", status=True, everywhere=True),
    _type("coordination.k8s.io/v1", "leases", "Lease", columns=columns.LEASES),
    _type("events.k8s.io/v1", "events", "Event", "ev", columns=columns.EVENTS, collection="/events"),
    _type("discovery.k8s.io/v1", "endpointslices", "EndpointSlice"),
    _type("rbac.authorization.k8s.io/v1", "roles", "Role"),
    _type("rbac.authorization.k8s.io/v1", "rolebindings", "RoleBinding"),
    _type("rbac.authorization.k8s.io/v1", "clusterroles", "ClusterRole", cluster=True),
    _type("rbac.authorization.k8s.io/v1", "clusterrolebindings", "ClusterRoleBinding", cluster=True),
    _type("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", cluster=True, columns=columns.WEBHOOK_CONFIGURATIONS),
    _type("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", cluster=True, columns=columns.WEBHOOK_CONFIGURATIONS),
    _type("admissionregistration.k8s.io/v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", cluster=True, status=True),
    _type("admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding", cluster=True),
    _type("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", "crd crds", cluster=True, status=True, columns=columns.CRDS),
    _type("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", "pc", cluster=True),
    _type("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", "pdb", status=True),
    _type("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", "netpol"),
    _type("networking.k8s.io/v1", "ingresses", "Ingress", "ing", status=True),
    _type("storage.k8s.io/v1", "storageclasses", "StorageClass", "sc", cluster=True),
    _type("node.k8s.io/v1", "runtimeclasses", "RuntimeClass", cluster=True),
    _type("autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler", "hpa", status=True, everywhere=True),
    _type("flowcontrol.apiserver.k8s.io/v1", "flowschemas", "FlowSchema", cluster=True, status=True),
    _type("flowcontrol.apiserver.k8s.io/v1", "prioritylevelconfigurations", "PriorityLevelConfiguration", cluster=True, status=True),
    _type("authorization.k8s.io/v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", cluster=True, review=True),
    _type("authorization.k8s.io/v1", "subjectaccessreviews", "SubjectAccessReview", cluster=True, review=True),
    _type("authorization.k8s.io/v1", "localsubjectaccessreviews", "LocalSubjectAccessReview", review=True),
    _type("authorization.k8s.io/v1", "selfsubjectrulesreviews", "SelfSubjectRulesReview", cluster=True, review=True),
    _type("authentication.k8s.io/v1", "selfsubjectreviews", "SelfSubjectReview", cluster=True, review=True),
)  # fmt: skip

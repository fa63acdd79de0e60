"""The kinds that this program reads or writes, and their paths on the API server."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Object = dict[str, Any]  # a Kubernetes object as the API server sent it: JSON, unknown fields included
Objects = list[Object]


@dataclass(frozen=True, slots=True)
class Resource:
    group: str  # "" for the core group
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path. Without a namespace a namespaced resource means all namespaces, which only lists can."""
        if namespace and not self.namespaced:
            raise ValueError(f"{self.kind} is cluster-scoped: it has no namespace {namespace!r}")
        if name == "":
            raise ValueError(f"{self.kind} without a name would be the list of all")
        if name and self.namespaced and not namespace:
            raise ValueError(f"{self.kind} {name!r} needs a namespace")
        if subresource and not name:
            raise ValueError(f"subresource {subresource!r} of {self.kind} needs a name")
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"
        place = f"/namespaces/{quote(namespace, safe='')}" if namespace else ""
        parts = [self.plural, *(quote(part, safe="") for part in (name, subresource) if part)]
        return f"{root}{place}/{'/'.join(parts)}"


PODS = Resource("", "v1", "pods", "Pod", namespaced=True)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
SECRETS = Resource("", "v1", "secrets", "Secret", namespaced=True)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", namespaced=True)
EVENTS = Resource("events.k8s.io", "v1", "events", "Event", namespaced=True)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True)
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment", namespaced=True)
REPLICA_SETS = Resource("apps", "v1", "replicasets", "ReplicaSet", namespaced=True)
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet", namespaced=True)
DAEMON_SETS = Resource("apps", "v1", "daemonsets", "DaemonSet", namespaced=True)
JOBS = Resource("batch", "v1", "jobs", "Job", namespaced=True)
CRON_JOBS = Resource("batch", "v1", "cronjobs", "CronJob", namespaced=True)
MACHINES = Resource("kubevirt.io", "v1", "virtualmachines", "VirtualMachine", namespaced=True)
MACHINE_INSTANCES = Resource("kubevirt.io", "v1", "virtualmachineinstances", "VirtualMachineInstance", namespaced=True)
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
MUTATING_WEBHOOKS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
    namespaced=False,
)
VALIDATING_WEBHOOKS = Resource(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
    namespaced=False,
)

SPIDERPOOL_GROUP = "spiderpool.spidernet.io"
SPIDERPOOL_VERSION = "v2beta1"
SPIDER_SUBNETS = Resource(SPIDERPOOL_GROUP, SPIDERPOOL_VERSION, "spidersubnets", "SpiderSubnet", namespaced=False)
SPIDER_IP_POOLS = Resource(SPIDERPOOL_GROUP, SPIDERPOOL_VERSION, "spiderippools", "SpiderIPPool", namespaced=False)
SPIDER_RESERVED_IPS = Resource(
    SPIDERPOOL_GROUP, SPIDERPOOL_VERSION, "spiderreservedips", "SpiderReservedIP", namespaced=False
)
SPIDER_ENDPOINTS = Resource(SPIDERPOOL_GROUP, SPIDERPOOL_VERSION, "spiderendpoints", "SpiderEndpoint", namespaced=True)
SPIDER_IP_ADDRESSES = Resource(
    SPIDERPOOL_GROUP, SPIDERPOOL_VERSION, "spideripaddresses", "SpiderIPAddress", namespaced=False
)

"""Settings: the ConfigMap's conf.yml, and environment variables. Both are read once, when a process starts."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jsonschema
import yaml

from allocator.runtime import logs

log = logs.get_logger(__name__)

DEFAULT_SOCKET = "/var/run/spidernet/spiderpool.sock"


class ConfigError(ValueError):
    """A setting that cannot be used; the message names it and says what it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conf:
    """conf.yml. The defaults stand for a missing file or key and are what the chart writes.

    The original instead takes a missing boolean for false, so that a node without the file would refuse all IPv4.
    """

    ipam_unix_socket_path: str = DEFAULT_SOCKET
    enable_ipv4: bool = True
    enable_ipv6: bool = True
    enable_stateful_set: bool = True
    enable_kubevirt_static_ip: bool = True
    enable_spider_subnet: bool = True
    enable_auto_pool_for_application: bool = True
    enable_ip_conflict_detection: bool = False
    enable_gateway_detection: bool = False
    enable_clean_outdated_endpoint: bool = False
    enable_validating_resources_deleted_webhook: bool | None = None  # None: not said, the reader decides
    # Of pods whose annotations, namespace and CNI configuration name neither subnets nor pools.
    cluster_default_ipv4_subnet: tuple[str, ...] = ()
    cluster_default_ipv6_subnet: tuple[str, ...] = ()
    cluster_subnet_auto_pool_default_redundant_ip_number: int = 1  # spare addresses of an auto pool
    # Kinds of third parties that pools are made for, as kubectl takes them: plural.version.group.
    subnet_application_kinds: tuple[str, ...] = (
        "clonesets.v1alpha1.apps.kruise.io",
        "statefulsets.v1beta1.apps.kruise.io",
        "rollouts.v1alpha1.argoproj.io",
    )
    tune_sysctl_config: bool = True


_FLAG: dict[str, Any] = {"type": ["boolean", "null"]}
_COUNT: dict[str, Any] = {"type": ["integer", "null"], "minimum": 0}
_NAMES: dict[str, Any] = {"type": ["array", "null"], "items": {"type": "string", "minLength": 1}, "uniqueItems": True}
# plural.version.group, as kubectl takes it; without a group it is the core one
_KIND = r"^[a-z][a-z0-9-]*\.v[a-z0-9]+(\.[a-z0-9]([a-z0-9.-]*[a-z0-9])?)?$"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "ipamUnixSocketPath": {"type": ["string", "null"]},
        "enableIPv4": _FLAG,
        "enableIPv6": _FLAG,
        "enableStatefulSet": _FLAG,
        "enableKubevirtStaticIP": _FLAG,
        "enableSpiderSubnet": _FLAG,
        "enableAutoPoolForApplication": _FLAG,
        "enableIPConflictDetection": _FLAG,
        "enableGatewayDetection": _FLAG,
        "enableCleanOutdatedEndpoint": _FLAG,
        "enableValidatingResourcesDeletedWebhook": _FLAG,
        "clusterDefaultIPv4Subnet": _NAMES,
        "clusterDefaultIPv6Subnet": _NAMES,
        "clusterSubnetAutoPoolDefaultRedundantIPNumber": _COUNT,
        "clusterSubnetDefaultFlexibleIPNumber": _COUNT,
        "subnetApplicationKinds": {**_NAMES, "items": {"type": "string", "pattern": _KIND}},
        "tuneSysctlConfig": _FLAG,
    },
}
# Keys of the original whose features are not ours: an existing file has them, and that is no mistake.
OTHERS_KEYS = frozenset({"podResourceInject", "iaasNetworkProvider", "agent", "networkResourcePlugin"})

_FIELDS = {
    "ipamUnixSocketPath": "ipam_unix_socket_path",
    "enableIPv4": "enable_ipv4",
    "enableIPv6": "enable_ipv6",
    "enableStatefulSet": "enable_stateful_set",
    "enableKubevirtStaticIP": "enable_kubevirt_static_ip",
    "enableSpiderSubnet": "enable_spider_subnet",
    "enableAutoPoolForApplication": "enable_auto_pool_for_application",
    "enableIPConflictDetection": "enable_ip_conflict_detection",
    "enableGatewayDetection": "enable_gateway_detection",
    "enableCleanOutdatedEndpoint": "enable_clean_outdated_endpoint",
    "enableValidatingResourcesDeletedWebhook": "enable_validating_resources_deleted_webhook",
    "clusterDefaultIPv4Subnet": "cluster_default_ipv4_subnet",
    "clusterDefaultIPv6Subnet": "cluster_default_ipv6_subnet",
    # The chart and the documents write the second name, the original's code reads the first. The first wins.
    "clusterSubnetDefaultFlexibleIPNumber": "cluster_subnet_auto_pool_default_redundant_ip_number",
    "clusterSubnetAutoPoolDefaultRedundantIPNumber": "cluster_subnet_auto_pool_default_redundant_ip_number",
    "subnetApplicationKinds": "subnet_application_kinds",
    "tuneSysctlConfig": "tune_sysctl_config",
}


def load_conf(path: Path | None) -> Conf:
    """Read conf.yml; the defaults when there is no such file. A key without a value counts as missing.

    Unknown keys are logged and ignored. ConfigError for YAML that is none and for values of a wrong type.
    """
    if path is None:
        return Conf()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        log.warning("conf_missing", path=str(path))
        return Conf()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    return parse_conf(document if document is not None else {}, source=str(path))


def parse_conf(document: object, *, source: str) -> Conf:
    problems = [
        f"{'.'.join(map(str, error.absolute_path)) or 'the document'}: {error.message}"
        for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(document)
    ]
    if problems or not isinstance(document, dict):
        raise ConfigError(f"{source}: {'; '.join(sorted(problems))}")
    unknown = sorted(str(key) for key in document.keys() - _FIELDS.keys() - OTHERS_KEYS)
    if unknown:
        log.warning("conf_unknown_keys", source=source, keys=unknown)
    # In the order of _FIELDS, so that the later of two names for one field wins.
    values = {field: _frozen(document[key]) for key, field in _FIELDS.items() if document.get(key) not in (None, "")}
    return Conf(**values)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


# Go's strconv.ParseBool, which the original's variables and manifests are written for.
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})


def env_str(name: str, default: str = "", *, environ: Mapping[str, str] = os.environ) -> str:
    """The trimmed value; the default when it is unset or empty."""
    return environ.get(name, "").strip() or default


def env_int(name: str, default: int, *, minimum: int | None = None, environ: Mapping[str, str] = os.environ) -> int:
    return _env_number(name, default, minimum, environ, int, "a whole number")


def env_float(
    name: str, default: float, *, minimum: float | None = None, environ: Mapping[str, str] = os.environ
) -> float:
    return _env_number(name, default, minimum, environ, float, "a number")


def env_bool(name: str, default: bool, *, environ: Mapping[str, str] = os.environ) -> bool:  # noqa: FBT001 - a value
    text = env_str(name, environ=environ)
    if not text:
        return default
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ConfigError(f"{name}={text!r}: use true or false")


N = TypeVar("N", int, float)


def _env_number(
    name: str,
    default: N,
    minimum: N | None,
    environ: Mapping[str, str],
    parse: Callable[[str], N],
    what: str,
) -> N:
    text = env_str(name, environ=environ)
    if not text:
        return default
    try:
        value = parse(text)
    except ValueError:
        raise ConfigError(f"{name}={text!r}: use {what}") from None
    # not >= rather than <: NaN passes no comparison
    if minimum is not None and not value >= minimum:
        raise ConfigError(f"{name}={text!r}: use {what} of at least {minimum}")
    return value

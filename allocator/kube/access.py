"""Where the API server is and how this process proves who it is: kubeconfig or service account."""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import yaml

from allocator.kube.errors import NoAccess

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# Exec plugins are asked again this long before their token ends, so that no request starts with a dying one.
EXPIRY_MARGIN = timedelta(minutes=5)


class Credentials(Protocol):
    async def authorization(self) -> str | None:
        """Value of the Authorization header, None when there is none (client certificate)."""

    async def renew(self) -> bool:
        """The server answered 401: get new ones. False when there is nothing to renew."""


@dataclass(frozen=True, slots=True)
class Access:
    """`tls` None means plain http; `server_name` replaces the host name in SNI and in the check of the certificate."""

    server: str
    credentials: Credentials
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    proxy: str | None = None


class FixedCredentials:
    def __init__(self, value: str | None) -> None:
        self._value = value

    async def authorization(self) -> str | None:
        return self._value

    async def renew(self) -> bool:
        return False


class TokenFile:
    """A bearer token in a file that someone else replaces: the kubelet does so with service account tokens."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    async def authorization(self) -> str | None:
        self._read()
        return f"Bearer {self._token}"

    async def renew(self) -> bool:
        before, self._seen = self._token, None
        self._read()
        return self._token != before

    def _read(self) -> None:
        try:
            stat = self._path.stat()
            # inode too: a replaced file may have the size and, on a coarse clock, the time of the old one
            seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            if seen == self._seen:
                return
            token = self._path.read_text(encoding="utf-8").strip()
        except OSError as error:
            if self._token:  # between two versions of the file the old token is good for a while
                return
            raise NoAccess(f"token file {self._path} cannot be read: {error.strerror}") from error
        if token:
            self._seen, self._token = seen, token
        elif not self._token:
            raise NoAccess(f"token file {self._path} is empty")


class ExecPlugin:
    """A token from a command of the kubeconfig (`users[].user.exec`), run again when the token ends or is refused."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader  # KubeConfigLoader of kubernetes.aio: runs the plugin, keeps token and expiry

    async def authorization(self) -> str | None:
        expiry = getattr(self._loader, "exec_plugin_expiry", None)
        if expiry is not None and expiry - EXPIRY_MARGIN <= datetime.now(UTC):
            await self._loader.load_from_exec_plugin()
        return getattr(self._loader, "token", None)

    async def renew(self) -> bool:
        if hasattr(self._loader, "exec_plugin_expiry"):
            self._loader.exec_plugin_expiry = datetime.now(UTC)  # the plugin's cache: what it holds was refused
        before = getattr(self._loader, "token", None)
        await self._loader.load_from_exec_plugin()
        return getattr(self._loader, "token", None) != before


async def find_access(kubeconfig: Path | None, environ: Mapping[str, str] = os.environ) -> Access:
    """Access from this kubeconfig; without one from the pod's service account, else as kubectl finds it
    ($KUBECONFIG, ~/.kube/config). NoAccess says what is missing or broken.

    Proxies are taken from `proxy-url` only: HTTPS_PROXY on a node is not meant for the cluster's own API server.
    """
    if kubeconfig is not None:
        return await _from_kubeconfig(kubeconfig)
    if environ.get("KUBERNETES_SERVICE_HOST"):
        return from_service_account(environ, SERVICE_ACCOUNT)
    usual = [Path(entry) for entry in environ.get("KUBECONFIG", "").split(os.pathsep) if entry]
    for path in usual or [Path.home() / ".kube" / "config"]:
        if path.is_file():
            return await _from_kubeconfig(path)
    raise NoAccess("no cluster: give --kubeconfig FILE, set KUBECONFIG, or run in a pod with a service account")


def from_service_account(environ: Mapping[str, str], directory: Path) -> Access:
    """Read here and not by `kubernetes`, whose import takes 17 MiB and half a second of CPU."""
    token, certificate = directory / "token", directory / "ca.crt"
    for path in (token, certificate):
        if not path.is_file():
            raise NoAccess(f"service account in {directory}: {path.name} is not there")
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port:
        raise NoAccess("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must both be set in a pod")
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Access(server, TokenFile(token), _tls(str(certificate)))


def _must_exist(path: Path) -> None:
    if not path.exists():
        raise NoAccess(f"there is no kubeconfig {path}: give --kubeconfig the file of the cluster")


async def _from_kubeconfig(path: Path) -> Access:
    from kubernetes.aio.client import Configuration  # noqa: PLC0415
    from kubernetes.aio.config import ConfigException, kube_config, load_kube_config  # noqa: PLC0415

    _must_exist(path)
    settings: Any = Configuration()
    try:
        user = _user_of(path)
        loader: Any = await load_kube_config(  # type: ignore[no-untyped-call]
            config_file=str(path), client_configuration=settings, persist_config=False
        )
    # The loader lets every shape error of the file through as what it happened to be.
    except (ConfigException, OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise NoAccess(f"kubeconfig {path} cannot be used: {type(error).__name__}: {error}") from error
    try:
        return _access(settings, _credentials(settings, loader, user, path.parent))
    finally:
        # The loader writes embedded keys to files, for as long as the process lives; now they are in memory.
        kube_config._cleanup_temp_files()  # type: ignore[no-untyped-call]  # noqa: SLF001


def _credentials(settings: Any, loader: Any, user: Mapping[str, Any], base: Path) -> Credentials:
    if "exec" in user:
        return ExecPlugin(loader)
    if "tokenFile" in user and not user.get("token"):
        return TokenFile(base / user["tokenFile"])
    return FixedCredentials(settings.api_key.get("BearerToken"))


def _user_of(path: Path) -> Mapping[str, Any]:
    """The user entry of the current context: the loader reads a token file once and does not say that it did."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    contexts = {entry["name"]: entry["context"] for entry in document["contexts"]}
    users = {entry["name"]: entry.get("user") for entry in document.get("users") or []}
    return users.get(contexts[document["current-context"]].get("user")) or {}


def _access(settings: Any, credentials: Credentials) -> Access:
    server = str(settings.host).rstrip("/")
    tls = _tls(settings.ssl_ca_cert, settings) if server.startswith("https:") else None
    return Access(server, credentials, tls, settings.tls_server_name or None, settings.proxy or None)


def _tls(authorities: str | None, settings: Any = None) -> ssl.SSLContext:
    """`settings`: of a kubeconfig, which may name a client certificate, or trust any server."""
    try:
        context = ssl.create_default_context(cafile=authorities)
        if settings is not None and settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file)
    except (OSError, ssl.SSLError) as error:
        raise NoAccess(f"certificates of the cluster cannot be used: {error}") from error
    # Python 3.13 wants key usages that many cluster CAs lack; Go clients, kubectl among them, do not.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if settings is not None and not settings.verify_ssl:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context

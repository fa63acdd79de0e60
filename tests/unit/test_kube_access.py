"""Ways into the cluster, over real TLS."""

import asyncio
import base64
import json
import os
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from allocator.kube.access import TokenFile, find_access, from_service_account
from allocator.kube.client import KubeClient
from allocator.kube.errors import BadRequest, NoAccess, Unreachable
from tests.unit.scripted_server import ScriptedServer, kubeconfig, refuses, says, serve


class Authority:
    """A CA of its own for each test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("test-ca", self._key.public_key(), self._key, is_ca=True)
        self.path = directory / "ca.crt"
        self.path.write_bytes(self.pem)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, *alternatives: x509.GeneralName) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key.public_key(), self._key, *alternatives)
        crt, pem = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        crt.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return crt, pem

    def server(self, *alternatives: x509.GeneralName) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.issue("server", *alternatives))
        return context

    def _sign(
        self,
        name: str,
        public: ec.EllipticCurvePublicKey,
        signer: ec.EllipticCurvePrivateKey,
        *alternatives: x509.GeneralName,
        is_ca: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test-ca")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        return builder.sign(signer, hashes.SHA256())


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


LOCALHOST = x509.IPAddress(ip_address("127.0.0.1"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def through(path: Path) -> AsyncIterator[KubeClient]:
    async with KubeClient.connect(kubeconfig=path, user_agent="spiderpool-test/1", timeout_s=5) as client:
        yield client


def sent(server: ScriptedServer) -> list[str | None]:
    return [asked.headers.get("Authorization") for asked in server.asked]


async def test_a_server_signed_by_the_ca_of_the_kubeconfig_is_trusted(authority: Authority, tmp_path: Path) -> None:
    async with serve(authority.server(LOCALHOST)) as server:
        server.then(says({"major": "1"}))
        path = kubeconfig(tmp_path, server.url, cluster={"certificate-authority": str(authority.path)})
        async with through(path) as client:
            assert await client.raw("GET", "/version") == {"major": "1"}


async def test_embedded_ca_data_is_read(authority: Authority, tmp_path: Path) -> None:
    async with serve(authority.server(LOCALHOST)) as server:
        server.then(says({}))
        data = base64.b64encode(authority.pem).decode()
        path = kubeconfig(tmp_path, server.url, cluster={"certificate-authority-data": data})
        async with through(path) as client:
            await client.raw("GET", "/version")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_server_of_another_ca_gets_no_request(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    async with serve(authority.server(LOCALHOST)) as server:
        path = kubeconfig(
            tmp_path,
            server.url,
            cluster={"certificate-authority": str(other.path)},
            user={"token": "secret-token"},
        )
        async with through(path) as client:
            with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED") as refused:
                await client.raw("GET", "/version")
    assert "secret-token" not in str(refused.value)
    assert server.asked == []


async def test_insecure_skip_tls_verify_takes_any_server(authority: Authority, tmp_path: Path) -> None:
    async with serve(authority.server()) as server:
        server.then(says({}))
        path = kubeconfig(tmp_path, server.url, cluster={"insecure-skip-tls-verify": True})
        async with through(path) as client:
            await client.raw("GET", "/version")


async def test_tls_server_name_is_what_the_certificate_must_say(authority: Authority, tmp_path: Path) -> None:
    async with serve(authority.server(x509.DNSName("kubernetes.default"))) as server:
        server.then(says({}))
        ca = {"certificate-authority": str(authority.path)}
        path = kubeconfig(tmp_path, server.url, cluster={**ca, "tls-server-name": "kubernetes.default"})
        async with through(path) as client:
            await client.raw("GET", "/version")


@pytest.mark.parametrize("embedded", [False, True], ids=["files", "data"])
async def test_a_client_certificate_proves_who_we_are(
    authority: Authority,
    tmp_path: Path,
    embedded: bool,  # noqa: FBT001 - a parameter of the table
) -> None:
    tls = authority.server(LOCALHOST)
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(authority.path)
    crt, key = authority.issue("system-admin")
    user: Mapping[str, Any] = {"client-certificate": str(crt), "client-key": str(key)}
    if embedded:
        user = {f"{name}-data": encoded(Path(path)) for name, path in user.items()}
    async with serve(tls) as server:
        server.then(says({}))
        path = kubeconfig(tmp_path, server.url, user=user, cluster={"certificate-authority": str(authority.path)})
        async with through(path) as client:
            await client.raw("GET", "/version")
    assert sent(server) == [None]


async def test_embedded_keys_are_not_left_on_disk(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    crt, key = authority.issue("system-admin")
    user = {"client-certificate-data": encoded(crt), "client-key-data": encoded(key)}
    cluster = {"certificate-authority-data": encoded(authority.path)}
    path = kubeconfig(tmp_path, "https://127.0.0.1:1", user=user, cluster=cluster)
    for _ in range(2):
        assert (await find_access(path)).tls is not None
        assert list(scratch.iterdir()) == []


async def test_a_token_is_sent_as_bearer(tmp_path: Path) -> None:
    async with serve() as server:
        server.then(says({}))
        async with through(kubeconfig(tmp_path, server.url, user={"token": "abc"})) as client:
            await client.raw("GET", "/version")
    assert sent(server) == ["Bearer abc"]


async def test_name_and_password_are_sent_as_basic(tmp_path: Path) -> None:
    async with serve() as server:
        server.then(says({}))
        async with through(kubeconfig(tmp_path, server.url, user={"username": "a", "password": "b"})) as client:
            await client.raw("GET", "/version")
    assert sent(server) == ["Basic " + base64.b64encode(b"a:b").decode()]


async def test_a_token_file_is_read_again_when_it_is_replaced(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    async with serve() as server:
        server.then(says({}), says({}))
        async with through(kubeconfig(tmp_path, server.url, user={"tokenFile": "token"})) as client:
            await client.raw("GET", "/version")
            (tmp_path / "next").write_text("two\n")
            (tmp_path / "next").rename(token)  # as the kubelet swaps it
            await client.raw("GET", "/version")
    assert sent(server) == ["Bearer one", "Bearer two"]


async def test_a_token_file_that_is_away_for_a_moment_keeps_its_last_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("one")
    token = TokenFile(path)
    assert await token.authorization() == "Bearer one"
    path.unlink()
    assert await token.authorization() == "Bearer one"
    path.write_text("")
    assert await token.authorization() == "Bearer one"


async def test_a_token_file_that_never_was_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoAccess, match="token cannot be read: No such file"):
        await TokenFile(tmp_path / "token").authorization()


async def test_a_refused_token_that_was_replaced_unseen_is_tried_once_more(tmp_path: Path) -> None:
    """Same size, same time, same inode: only the server can tell that the file is new."""
    token = tmp_path / "token"
    token.write_text("one")
    async with serve() as server:
        server.then(says({}), refuses(401, "Unauthorized"), says({}))
        async with through(kubeconfig(tmp_path, server.url, user={"tokenFile": str(token)})) as client:
            await client.raw("GET", "/version")
            before = token.stat()
            token.write_text("two")
            os.utime(token, ns=(before.st_atime_ns, before.st_mtime_ns))
            await client.raw("GET", "/version")
    assert sent(server) == ["Bearer one", "Bearer one", "Bearer two"]


async def test_a_token_that_is_refused_and_has_no_successor_is_an_error(tmp_path: Path) -> None:
    async with serve() as server:
        server.then(refuses(401, "Unauthorized"))
        async with through(kubeconfig(tmp_path, server.url, user={"token": "abc"})) as client:
            with pytest.raises(BadRequest, match="401 Unauthorized"):
                await client.raw("GET", "/version")
    assert len(server.asked) == 1


def exec_user(directory: Path, lifetime: timedelta) -> Mapping[str, Any]:
    """A plugin that gives token-1, token-2 and so on."""
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"expirationTimestamp": (datetime.now(UTC) + lifetime).strftime("%Y-%m-%dT%H:%M:%SZ")},
    }
    plugin = directory / "plugin.py"
    plugin.write_text(
        "import json, pathlib\n"
        f"runs = pathlib.Path({str(directory / 'runs')!r})\n"
        "n = int(runs.read_text()) + 1 if runs.exists() else 1\n"
        "runs.write_text(str(n))\n"
        f"credential = json.loads({json.dumps(credential)!r})\n"
        "credential['status']['token'] = f'token-{n}'\n"
        "print(json.dumps(credential))\n"
    )
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": sys.executable,
            "args": [str(plugin)],
        }
    }


async def test_an_exec_plugin_is_asked_once_while_its_token_lives(tmp_path: Path) -> None:
    async with serve() as server:
        server.then(says({}), says({}))
        path = kubeconfig(tmp_path, server.url, user=exec_user(tmp_path, timedelta(hours=1)))
        async with through(path) as client:
            await client.raw("GET", "/version")
            await client.raw("GET", "/version")
    assert sent(server) == ["Bearer token-1", "Bearer token-1"]


async def test_an_exec_plugin_is_asked_again_before_its_token_ends(tmp_path: Path) -> None:
    async with serve() as server:
        server.then(says({}))
        path = kubeconfig(tmp_path, server.url, user=exec_user(tmp_path, timedelta(minutes=4)))
        async with through(path) as client:
            await client.raw("GET", "/version")
    assert sent(server) == ["Bearer token-2"]


async def test_an_exec_plugin_is_asked_again_when_its_token_is_refused(tmp_path: Path) -> None:
    async with serve() as server:
        server.then(refuses(401, "Unauthorized"), says({}))
        path = kubeconfig(tmp_path, server.url, user=exec_user(tmp_path, timedelta(hours=1)))
        async with through(path) as client:
            await client.raw("GET", "/version")
    assert sent(server) == ["Bearer token-1", "Bearer token-2"]


async def test_a_pod_uses_its_service_account(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("pod-token")
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    access = from_service_account(environ, tmp_path)
    assert access.server == "https://10.96.0.1:443"
    assert await access.credentials.authorization() == "Bearer pod-token"
    assert access.tls is not None
    assert len(access.tls.get_ca_certs()) == 1


async def test_an_ipv6_cluster_has_brackets_in_its_address(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("pod-token")
    environ = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    assert from_service_account(environ, tmp_path).server == "https://[fd00::1]:443"


def test_a_service_account_without_a_token_is_named(tmp_path: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    with pytest.raises(NoAccess, match=f"{tmp_path}: token is not there"):
        from_service_account(environ, tmp_path)


@pytest.mark.parametrize("port", [{}, {"KUBERNETES_SERVICE_PORT": ""}])
def test_a_pod_without_the_api_servers_port_says_which_variable(
    authority: Authority, tmp_path: Path, port: dict[str, str]
) -> None:
    (tmp_path / "token").write_text("pod-token")
    with pytest.raises(NoAccess, match="KUBERNETES_SERVICE_PORT"):
        from_service_account({"KUBERNETES_SERVICE_HOST": "10.96.0.1", **port}, tmp_path)


def test_a_service_accounts_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("pod-token")
    (tmp_path / "ca.crt").write_text("no certificate")
    with pytest.raises(NoAccess, match="certificates of the cluster cannot be used"):
        from_service_account({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}, tmp_path)


async def test_outside_a_cluster_the_usual_kubeconfig_is_found(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path, "http://127.0.0.1:1")
    missing = tmp_path / "missing"
    access = await find_access(None, {"KUBECONFIG": f"{missing}{os.pathsep}{path}"})
    assert access.server == "http://127.0.0.1:1"


async def test_without_any_way_in_the_ways_are_told(tmp_path: Path) -> None:
    with pytest.raises(NoAccess, match="give --kubeconfig FILE"):
        await find_access(None, {"KUBECONFIG": str(tmp_path / "missing")})


@pytest.mark.parametrize(
    "text",
    [None, "", "][", "- a\n", "current-context: x\ncontexts: []\n", "current-context: x\ncontexts: 5\n"],
    ids=["missing", "empty", "no yaml", "list", "no context", "wrong type"],
)
async def test_a_broken_kubeconfig_is_named(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "kubeconfig"
    if text is not None:
        path.write_text(text)
    with pytest.raises(NoAccess, match="kubeconfig"):
        await find_access(path)


async def test_a_proxy_of_the_environment_is_not_used_for_the_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with serve() as server:
        server.then(says({}))
        async with through(kubeconfig(tmp_path, server.url)) as client:
            async with asyncio.timeout(5):
                await client.raw("GET", "/version")

"""spiderpool-webhook: put the parts together and run them."""

import asyncio
import ipaddress
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, assert_never

import typer
from aiohttp import web

from allocator.domain.validation import Families
from allocator.kube.cache import Cache
from allocator.kube.client import KubeClient
from allocator.kube.resources import NAMESPACES, SPIDER_IP_POOLS, SPIDER_SUBNETS
from allocator.runtime import config, flags, logs
from allocator.runtime.clock import SystemClock
from allocator.runtime.metrics import application
from certs.reload import Keeper
from certs.source import Given, Own
from certs.store import SECRET_NAME, DirectoryStore, SecretStore, Store
from webhook import server
from webhook.entries import NAME, Registration, ServiceTarget, UrlTarget
from webhook.in_use import InUse
from webhook.known_pools import KnownPools
from webhook.known_subnets import KnownSubnets
from webhook.listener import listening
from webhook.metrics import Metrics
from webhook.neighbours import Neighbours
from webhook.pods import Pods
from webhook.registration import Registrar
from webhook.rules import Policy, Rules
from webhook.side_by_side import SideBySide

log = logs.get_logger("webhook")

LISTEN = flags.HostPort("", 5722)


class Register(StrEnum):
    URL = "url"
    SERVICE = "service"
    NONE = "none"


class Certificates(StrEnum):
    OWN = "own"
    GIVEN = "given"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    kubeconfig: Path | None
    listen: flags.HostPort
    health_listen: flags.HostPort | None
    metrics_listen: flags.HostPort | None
    log_level: str
    register: Register
    namespace: str
    certificates: Certificates
    cert_secret: str
    cert_dir: Path | None
    client_ca: Path | None
    conf: config.Conf


async def serve(settings: Config) -> None:
    """The whole process: certificates, caches, server, and last the registration."""
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            KubeClient.connect(kubeconfig=settings.kubeconfig, user_agent="spiderpool-webhook")
        )
        keeper = _keeper(settings, client, clock)
        known = KnownPools()
        pools = Neighbours(client, SPIDER_IP_POOLS, clock, on_change=known.note)
        subnets = Neighbours(client, SPIDER_SUBNETS, clock)
        namespaces = Cache(client, NAMESPACES, clock=clock, metadata_only=True)

        def is_ready() -> bool:
            return keeper.served is not None and pools.is_ready and subnets.is_ready

        metrics = Metrics(lambda: keeper.served)
        for event, plain, listen in (
            ("probes_listening", _probes(is_ready), settings.health_listen),
            ("metrics_listening", application(metrics.registry), settings.metrics_listen),
        ):
            if listen is not None:
                port = await stack.enter_async_context(listening(plain, listen, None))
                log.info(event, host=listen.host, port=port)
        if settings.certificates is Certificates.GIVEN:
            await keeper.start_when_given()
        else:
            await keeper.start()
        beside = SideBySide(pools, subnets if settings.conf.enable_spider_subnet else None)
        policy = _policy(settings.conf)
        rules = Rules(policy, beside, InUse(client))
        known_subnets = KnownSubnets(subnets, settings.conf)
        pods = Pods(pools, known, known_subnets, namespaces, families=policy.families, own_namespace=settings.namespace)
        judges = [metrics.watching(judge) for judge in (*rules.judges(), *pods.judges())]
        app = server.application(judges, is_ready)
        port = await stack.enter_async_context(listening(app, settings.listen, keeper.live))
        log.info("listening", host=settings.listen.host, port=port)
        async with asyncio.TaskGroup() as group:
            group.create_task(keeper.run(), name="certificates")
            group.create_task(pools.cache.run(), name="pools")
            group.create_task(subnets.cache.run(), name="subnets")
            group.create_task(namespaces.run(), name="namespaces")
            registration = _registration(settings, port)
            if registration is not None:
                await pools.cache.wait_synced()
                await subnets.cache.wait_synced()
                registrar = Registrar(client, registration, ca_bundle=lambda: keeper.ca_bundle, clock=clock)
                group.create_task(registrar.run(), name="registration")


def _keeper(settings: Config, client: KubeClient, clock: SystemClock) -> Keeper:
    kept: Store = SecretStore(client, settings.namespace, settings.cert_secret)
    if settings.cert_dir is not None:
        kept = DirectoryStore(settings.cert_dir)
    is_given = settings.certificates is Certificates.GIVEN
    source = Given(kept, clock) if is_given else Own(kept, _names(settings), clock)
    return Keeper(source, clock, client_ca=settings.client_ca)


def _names(settings: Config) -> list[str]:
    """What the certificate must be good for: the Service, this machine, and the address to listen on."""
    service = f"{NAME}.{settings.namespace}"
    names = [NAME, service, f"{service}.svc", f"{service}.svc.cluster.local", "localhost", "127.0.0.1", "::1"]
    return [*names, settings.listen.host] if _is_reachable(settings.listen) else names


def _is_reachable(listen: flags.HostPort) -> bool:
    """Whether the host says where others find it."""
    try:
        return not ipaddress.ip_address(listen.host).is_unspecified
    except ValueError:
        return bool(listen.host)


def _policy(conf: config.Conf) -> Policy:
    return Policy(
        families=Families(ipv4=conf.enable_ipv4, ipv6=conf.enable_ipv6),
        protects_deletion=conf.enable_validating_resources_deleted_webhook is not False,
    )


def _registration(settings: Config, port: int) -> Registration | None:
    match settings.register:
        case Register.NONE:
            return None
        case Register.URL:
            target: UrlTarget | ServiceTarget = UrlTarget(f"https://{flags.HostPort(settings.listen.host, port)}")
        case Register.SERVICE:
            target = ServiceTarget(settings.namespace)
        case _:
            assert_never(settings.register)
    return Registration(target=target, namespace=settings.namespace, has_subnets=settings.conf.enable_spider_subnet)


def _probes(is_ready: Callable[[], bool]) -> web.Application:
    """Plain HTTP, for whoever cannot speak TLS to us; the paths are those of the other processes."""
    app = web.Application()

    async def alive(_request: web.Request) -> web.Response:
        return web.Response()

    async def ready(_request: web.Request) -> web.Response:
        return web.Response(status=200 if is_ready() else 503)

    app.router.add_get("/v1/runtime/startup", ready)
    app.router.add_get("/v1/runtime/readiness", ready)
    app.router.add_get("/v1/runtime/liveness", alive)
    return app


def read_config(  # noqa: PLR0913 - one parameter for each flag
    *,
    kubeconfig: flags.Kubeconfig = None,
    conf_file: flags.ConfFile = None,
    listen: Annotated[
        flags.HostPort | None,
        typer.Option(
            parser=flags.host_port,
            metavar="HOST:PORT",
            envvar="SPIDERPOOL_WEBHOOK_PORT",
            help="For TLS; [IPv6]:PORT, or :PORT for all addresses.",
        ),
    ] = LISTEN,
    register: Annotated[
        Register, typer.Option(help="Send the API server to this process, to the Service, or leave that alone.")
    ] = Register.SERVICE,
    namespace: flags.Namespace = "spiderpool",
    certificates: Annotated[
        Certificates,
        typer.Option(
            envvar="SPIDERPOOL_CERTIFICATES",
            help="own: made and renewed here; given: by cert-manager or you, never written, waited for.",
        ),
    ] = Certificates.OWN,
    cert_secret: Annotated[
        str,
        typer.Option(
            envvar="SPIDERPOOL_CERT_SECRET", help="The Secret in --namespace with tls.crt, tls.key and ca.crt."
        ),
    ] = SECRET_NAME,
    cert_dir: Annotated[
        Path | None, typer.Option(help="The certificates are in this folder, by the same names, and in no Secret.")
    ] = None,
    client_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="SPIDERPOOL_CLIENT_CA",
            help="Let in only who shows a certificate that a CA in this file (PEM) has issued.",
        ),
    ] = None,
    health_listen: flags.HealthListen = None,
    metrics_listen: flags.MetricsListen = None,
    log_level: flags.LogLevel = "info",
) -> Config:
    """Admission server for the kinds of Spiderpool: completes and judges what people write."""
    if listen is None:
        raise config.ConfigError("--listen (SPIDERPOOL_WEBHOOK_PORT) 0: the API server must reach us, give a port")
    if register is Register.URL and not _is_reachable(listen):
        raise config.ConfigError("--register url needs a HOST in --listen, which the API server can reach")
    if cert_dir is not None and cert_secret != SECRET_NAME:
        raise config.ConfigError("--cert-dir and --cert-secret name two places: give one of them")
    return Config(
        kubeconfig=kubeconfig,
        listen=listen,
        health_listen=health_listen,
        metrics_listen=metrics_listen,
        log_level=log_level,
        register=register,
        namespace=namespace,
        certificates=certificates,
        cert_secret=cert_secret,
        cert_dir=cert_dir,
        client_ca=client_ca,
        conf=config.load_conf(conf_file),
    )


def main() -> None:
    flags.main("spiderpool-webhook", read_config, serve)


if __name__ == "__main__":
    main()

"""Certificates on disk and on the wire: real files, real TLS."""

from __future__ import annotations

import asyncio
import ssl
import stat
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from allocator.runtime.clock import SystemClock
from allocator.runtime.config import ConfigError
from certs import authority
from certs.reload import Keeper
from certs.source import Own
from certs.store import OWN, DirectoryStore, Reading, Store, UnusableError
from certs.tls import LiveContext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from certs.authority import Material

NAMES = ("localhost", "127.0.0.1")


def made() -> Material:
    return authority.renewed(None, NAMES, datetime.now(UTC))


def keeping(kept: Store) -> Keeper:
    return Keeper(Own(kept, NAMES, SystemClock()), SystemClock(), poll_s=0.01)


@asynccontextmanager
async def greeting(tls: ssl.SSLContext) -> AsyncIterator[int]:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def greeted(port: int, trusted: Material, version: ssl.TLSVersion | None = None) -> bytes:
    context = ssl.create_default_context(cadata=trusted.ca)
    if version is not None:
        # Security level 0, or our own side would not even try an old version.
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    line = await reader.readline()
    writer.close()
    return line


async def test_a_new_certificate_is_served_to_new_connections() -> None:
    first, second = made(), made()
    live = LiveContext()
    live.use(first)
    async with greeting(live) as port:
        assert await greeted(port, first) == b"hello\n"
        live.use(second)
        assert await greeted(port, second) == b"hello\n"
        with pytest.raises(ssl.SSLCertVerificationError):
            await greeted(port, first)


async def test_a_pair_that_does_not_fit_changes_nothing() -> None:
    first, second = made(), made()
    live = LiveContext()
    live.use(first)
    mixed = authority.Material(second.ca, second.certificate, first.key)
    async with greeting(live) as port:
        with pytest.raises(ssl.SSLError):
            live.use(mixed)
        assert await greeted(port, first) == b"hello\n"


async def test_no_handshake_fails_while_certificates_change() -> None:
    both = [made(), made()]
    trusted = authority.Material(both[0].ca + both[1].ca, "", "")
    live = LiveContext()
    live.use(both[0])
    done = asyncio.Event()

    async def rotate() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            live.use(both[turn % 2])
            await asyncio.sleep(0)

    async with greeting(live) as port, asyncio.TaskGroup() as group:
        group.create_task(rotate())
        for _ in range(10):
            async with asyncio.TaskGroup() as clients:
                answers = [clients.create_task(greeted(port, trusted)) for _ in range(10)]
            assert [answer.result() for answer in answers] == [b"hello\n"] * 10
        done.set()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_tls_before_1_2_is_refused() -> None:
    material = made()
    live = LiveContext()
    live.use(material)
    async with greeting(live) as port:
        assert await greeted(port, material, ssl.TLSVersion.TLSv1_2) == b"hello\n"
        assert await greeted(port, material, ssl.TLSVersion.TLSv1_3) == b"hello\n"
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await greeted(port, material, ssl.TLSVersion.TLSv1_1)


async def test_a_directory_is_made_and_only_the_owner_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "certs"
    keeper = keeping(DirectoryStore(folder))
    await keeper.start()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == dict.fromkeys(("ca.crt", "tls.crt", "tls.key", "ca.key"), 0o600)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert keeper.ca_bundle == (folder / "ca.crt").read_text()


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


async def test_a_second_start_serves_what_the_first_kept(tmp_path: Path) -> None:
    await keeping(DirectoryStore(tmp_path)).start()
    kept = contents(tmp_path)
    await keeping(DirectoryStore(tmp_path)).start()
    assert contents(tmp_path) == kept


async def test_a_directory_with_half_of_it_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "tls.crt").write_text(made().certificate)
    with pytest.raises(UnusableError, match=r"lacks ca\.crt, tls\.key"):
        await DirectoryStore(tmp_path).load()


def key_pem(*, password: bytes | None = None, rsa_key: bool = False) -> str:
    key = rsa.generate_private_key(65537, 2048) if rsa_key else ec.generate_private_key(ec.SECP256R1())
    how = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how).decode()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("ca.key", "garbage", "holds no private key"),
        ("ca.key", "", "is empty"),
        ("ca.key", key_pem(rsa_key=True), "is no EC key.*delete it"),
        ("ca.key", key_pem(password=b"x"), "is encrypted.*without a password"),
        ("ca.crt", "garbage", "holds no certificate"),
        ("tls.crt", "garbage", "holds no certificate"),
        ("tls.key", "garbage", "holds no private key"),
    ],
)
async def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    await DirectoryStore(tmp_path).save(made())
    (tmp_path / name).write_text(text)
    with pytest.raises(UnusableError, match=f"{name} {words}") as caught:
        await keeping(DirectoryStore(tmp_path)).start()
    assert isinstance(caught.value, ConfigError)
    assert str(tmp_path) in str(caught.value)


async def test_a_strangers_key_that_does_not_fit_is_named(tmp_path: Path) -> None:
    await DirectoryStore(tmp_path).save(made())
    (tmp_path / "ca.key").unlink()
    (tmp_path / "tls.key").write_text(key_pem())
    with pytest.raises(UnusableError, match=r"tls\.key does not belong"):
        await DirectoryStore(tmp_path).load()


async def test_a_folder_that_cannot_be_written_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigError, match="--cert-dir"):
        await keeping(DirectoryStore(Path("/proc/nowhere"))).start()


class Crash(Exception):
    pass


@pytest.mark.parametrize("written", range(4))
@pytest.mark.parametrize("what", ["first", "authority", "certificate"])
async def test_a_crash_at_any_file_leaves_what_the_next_start_puts_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int, what: str
) -> None:
    first = made()
    now = datetime.now(UTC)
    added = made()
    changed = {
        "first": first,
        "authority": replace(first, ca=added.ca + first.ca, ca_key=added.ca_key),
        "certificate": authority.issued(first, NAMES, now),
    }[what]
    if what != "first":
        await DirectoryStore(tmp_path).save(first)
    rename, renamed = Path.replace, 0

    def crashing(draft: Path, target: Path) -> Path:
        nonlocal renamed
        if renamed == written:
            raise Crash
        renamed += 1
        return rename(draft, target)

    monkeypatch.setattr(Path, "replace", crashing)
    with pytest.raises(Crash):
        await DirectoryStore(tmp_path).save(changed)
    monkeypatch.undo()

    keeper = keeping(DirectoryStore(tmp_path))
    await keeper.start()
    kept = await DirectoryStore(tmp_path).load()
    assert kept is not None
    assert authority.renewed(kept, NAMES, now) is kept
    async with greeting(keeper.live) as port:
        assert await greeted(port, kept) == b"hello\n"
    # And it is still renewed when its time comes.
    assert authority.renewed(kept, NAMES, now + timedelta(days=61)) is not kept


async def test_what_breaks_while_it_runs_ends_nothing(tmp_path: Path) -> None:
    first = made()
    loads: list[str] = []

    class Watched(DirectoryStore):
        async def load(self, reading: Reading = OWN) -> authority.Material | None:
            loads.append("")
            return await super().load(reading)

    await DirectoryStore(tmp_path).save(first)
    keeper = keeping(Watched(tmp_path))
    await keeper.start()

    async def looked(times: int) -> None:
        until = len(loads) + times
        while len(loads) < until:  # noqa: ASYNC110 - the keeper tells nobody
            await asyncio.sleep(0.01)

    async with greeting(keeper.live) as port, asyncio.TaskGroup() as group:
        running = group.create_task(keeper.run())
        for name in ("ca.key", "tls.key", "ca.crt"):
            kept = (tmp_path / name).read_text()
            (tmp_path / name).write_text(key_pem(rsa_key=True) if name == "ca.key" else "garbage")
            await asyncio.wait_for(looked(2), 10)
            assert await greeted(port, first) == b"hello\n"
            (tmp_path / name).write_text(kept)
        running.cancel()


async def test_files_that_somebody_exchanges_are_served_soon(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    keeper = keeping(store)
    await keeper.start()
    other = made()

    async def served() -> None:
        while keeper.ca_bundle != other.ca:  # noqa: ASYNC110 - the keeper tells nobody
            await asyncio.sleep(0.01)

    async with greeting(keeper.live) as port, asyncio.TaskGroup() as group:
        running = group.create_task(keeper.run())
        (tmp_path / "tls.key").write_text("half a change")
        await store.save(other)
        await asyncio.wait_for(served(), 10)
        assert await greeted(port, other) == b"hello\n"
        running.cancel()

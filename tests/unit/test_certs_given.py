"""Certificates that somebody else issues: waited for, checked, and changed in steps that every client can follow."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import structlog
from cryptography import x509

from certs import authority, source, tls
from certs.reload import Keeper
from certs.source import Given
from certs.store import CA, CA_KEY, CERTIFICATE, KEY, DirectoryStore, UnusableError
from tests.unit.fake_clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    from certs.authority import Material

NAMES = ("localhost",)


def made(ago: timedelta = timedelta()) -> Material:
    """OpenSSL looks at the real clock."""
    return authority.renewed(None, NAMES, datetime.now(UTC) - ago)


def write(folder: Path, material: Material) -> None:
    for name, text in ((CA, material.ca), (CERTIFICATE, material.certificate), (KEY, material.key)):
        (folder / name).write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def accepts(bundle: Material, served: Material) -> bool:
    return tls.refusal(replace(served, ca=bundle.ca)) is None


async def until_refused(material: Material) -> None:
    """Until it has expired."""
    deadline = time.monotonic() + 20
    while tls.refusal(material) is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_what_is_not_there_yet_is_waited_for_and_named_once(tmp_path: Path) -> None:
    keeper = Keeper(Given(DirectoryStore(tmp_path), FakeClock()), FakeClock(auto=True))
    first = made()
    with structlog.testing.capture_logs() as lines:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(keeper.start_when_given())
            for _ in range(20):
                await asyncio.sleep(0)
            assert keeper.served is None
            assert not waiting.done()
            (tmp_path / CERTIFICATE).write_text(first.certificate)
            for _ in range(20):
                await asyncio.sleep(0)
            write(tmp_path, first)
    assert keeper.served == replace(first, ca_key="")
    said = [line["error"] for line in lines if line["event"] == "certificate_awaited"]
    assert len(said) == 2
    assert "is not there yet: who issues the certificate has to write ca.crt, tls.crt and tls.key there" in said[0]
    assert "lacks ca.crt, tls.key: who issues the certificate" in said[1]


async def test_nothing_is_written_and_a_key_of_the_ca_is_none_of_its_business(tmp_path: Path) -> None:
    write(tmp_path, made(timedelta(days=80)))
    (tmp_path / CA_KEY).write_text("left from before")
    before = contents(tmp_path)
    material = await Given(DirectoryStore(tmp_path), FakeClock()).latest()
    assert material.ca_key == ""
    assert contents(tmp_path) == before


@pytest.mark.parametrize("what", ["no ca.crt", "expired", "another CA", "another key"])
async def test_what_no_api_server_would_accept_is_not_served(tmp_path: Path, what: str) -> None:
    good = made()
    material, words = {
        "no ca.crt": (replace(good, ca=""), r"lacks ca\.crt: add the certificate of the CA, of a public one too"),
        "expired": (made(timedelta(days=91)), r"who trusts ca\.crt refuses tls\.crt: certificate has expired"),
        "another CA": (replace(good, ca=made().ca), r"refuses tls\.crt: unable to get local issuer"),
        "another key": (replace(good, key=made().key), r"tls\.key does not belong to the certificate"),
    }[what]
    write(tmp_path, material)
    with pytest.raises(UnusableError, match=words):
        await Given(DirectoryStore(tmp_path), FakeClock()).latest()


async def test_a_renewed_certificate_of_the_same_ca_is_served_at_once(tmp_path: Path) -> None:
    given = Given(DirectoryStore(tmp_path), FakeClock())
    first = made()
    write(tmp_path, first)
    await given.latest()
    second = authority.issued(first, NAMES, datetime.now(UTC))
    write(tmp_path, second)
    assert (await given.latest()).certificate == second.certificate


async def test_a_new_ca_is_trusted_before_what_it_signed_is_served_and_the_old_one_for_a_while_after(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    given = Given(DirectoryStore(tmp_path), clock)
    first, second = made(), made()
    write(tmp_path, first)
    steps = [await given.latest()]
    write(tmp_path, second)
    for _ in range(15):
        clock.advance(source.SPREAD_S / 2)
        steps.append(await given.latest())
    # Who trusts what a step told accepts what that step serves, and the next one.
    for before, after in itertools.pairwise(steps):
        assert accepts(before, before)
        assert accepts(before, after)
    certificates = [step.certificate for step in steps]
    assert certificates == [first.certificate] * 3 + [second.certificate] * 13
    trusted = [len(x509.load_pem_x509_certificates(step.ca.encode())) for step in steps]
    assert trusted == [1] + [2] * 14 + [1]
    assert steps[-1].ca == second.ca


async def test_a_new_ca_is_not_waited_for_when_nobody_accepts_the_old_certificate(tmp_path: Path) -> None:
    given = Given(DirectoryStore(tmp_path), FakeClock())
    first, second = made(authority.LEAF_LIFE - authority.BACKDATE - timedelta(seconds=4)), made()
    write(tmp_path, first)
    assert (await given.latest()).certificate == first.certificate
    write(tmp_path, second)
    assert (await given.latest()).certificate == first.certificate
    await until_refused(first)
    assert (await given.latest()).certificate == second.certificate


async def test_who_could_not_look_for_long_still_lets_the_new_ca_be_trusted_first(tmp_path: Path) -> None:
    clock = FakeClock()
    given = Given(DirectoryStore(tmp_path), clock)
    first, second = made(), made()
    write(tmp_path, first)
    before = await given.latest()
    clock.advance(source.OVERLAP_S * 10)
    write(tmp_path, second)
    after = await given.latest()
    assert after.certificate == first.certificate
    assert accepts(before, after)
    clock.advance(source.SPREAD_S)
    assert accepts(after, await given.latest())

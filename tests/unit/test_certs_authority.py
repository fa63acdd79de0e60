"""The steps in which certificates are renewed, told by a clock that the test owns."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.x509 import verification
from cryptography.x509.oid import ExtendedKeyUsageOID

from certs import authority

if TYPE_CHECKING:
    from certs.authority import Material

NOON = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
NAMES = ("spiderpool-webhook.spiderpool.svc", "127.0.0.1")
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)


def leaf_of(material: Material) -> x509.Certificate:
    return x509.load_pem_x509_certificate(material.certificate.encode())


def authorities_of(material: Material) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(material.ca.encode())


def trusts(bundle: Material, served: Material, now: datetime) -> bool:
    """Whether a client with that caBundle accepts the certificate, as RFC 5280 says."""
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store(authorities_of(bundle)))
        .time(now)
        .build_server_verifier(x509.DNSName(NAMES[0]))
    )
    try:
        verifier.verify(leaf_of(served), [])
    except verification.VerificationError:
        return False
    return True


@pytest.fixture(scope="module")
def fresh() -> Material:
    return authority.renewed(None, NAMES, NOON)


def test_a_new_certificate_is_accepted_by_who_trusts_the_authority(fresh: Material) -> None:
    leaf = leaf_of(fresh)
    assert trusts(fresh, fresh, NOON)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(days=90)
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    [ca] = authorities_of(fresh)
    assert ca.not_valid_after_utc - ca.not_valid_before_utc == timedelta(days=365)


def test_a_fresh_certificate_is_left_alone(fresh: Material) -> None:
    assert authority.renewed(fresh, NAMES, NOON + 59 * DAY) is fresh


def test_at_two_thirds_of_its_life_the_certificate_is_renewed(fresh: Material) -> None:
    later = NOON + 60 * DAY
    renewed = authority.renewed(fresh, NAMES, later)
    assert renewed.certificate != fresh.certificate
    assert renewed.ca == fresh.ca
    assert trusts(fresh, renewed, later)


def test_another_name_makes_another_certificate_that_keeps_the_first(fresh: Material) -> None:
    renewed = authority.renewed(fresh, ["10.1.2.3"], NOON)
    assert renewed.certificate != fresh.certificate
    assert authority.renewed(renewed, NAMES, NOON) is renewed


def test_the_authority_changes_in_steps_that_every_client_can_follow(fresh: Material) -> None:
    now = NOON + 244 * DAY
    known = dataclasses.replace(authority.issued(fresh, NAMES, now))

    added = authority.renewed(known, NAMES, now)
    assert len(authorities_of(added)) == 2
    assert added.certificate == known.certificate

    settling = authority.renewed(added, NAMES, now + 9 * MINUTE)
    assert settling is added

    signed = authority.renewed(added, NAMES, now + 11 * MINUTE)
    assert signed.certificate != known.certificate
    assert signed.ca == added.ca

    single = authority.renewed(signed, NAMES, now + 22 * MINUTE)
    assert len(authorities_of(single)) == 1
    assert authority.renewed(single, NAMES, now + 60 * MINUTE) is single

    # Whoever trusts what the step before gave accepts what the step serves.
    assert trusts(known, added, now)
    assert trusts(added, signed, now + 11 * MINUTE)
    assert trusts(signed, single, now + 22 * MINUTE)
    assert not trusts(known, signed, now + 11 * MINUTE)


def test_what_expired_while_nobody_looked_is_made_anew_at_once(fresh: Material) -> None:
    later = NOON + 1000 * DAY
    renewed = authority.renewed(fresh, NAMES, later)
    assert trusts(renewed, renewed, later)


@pytest.mark.parametrize(
    "names", [["FD00::1"], ["[0:0:0:0:0:0:0:1]"], ["LOCALHOST"], ["host.example."], ["fe80::1%eth0"]]
)
def test_a_name_written_another_way_is_no_reason_to_renew(names: list[str]) -> None:
    first = authority.renewed(None, names, NOON)
    assert authority.renewed(first, names, NOON) is first


def test_a_certificate_from_the_future_is_made_anew_at_once(fresh: Material) -> None:
    ahead = authority.renewed(fresh, NAMES, NOON + 61 * DAY)
    assert not trusts(ahead, ahead, NOON)
    renewed = authority.renewed(ahead, NAMES, NOON)
    assert renewed.ca == fresh.ca
    assert trusts(renewed, renewed, NOON)
    assert authority.renewed(renewed, NAMES, NOON) is renewed


def test_an_authority_from_the_future_is_made_anew_at_once() -> None:
    ahead = authority.renewed(None, NAMES, NOON + 300 * DAY)
    renewed = authority.renewed(ahead, NAMES, NOON)
    assert trusts(renewed, renewed, NOON)
    assert len(authorities_of(renewed)) == 1
    assert authority.renewed(renewed, NAMES, NOON) is renewed


def test_a_clock_that_is_a_little_ahead_is_no_reason_to_renew(fresh: Material) -> None:
    ahead = NOON + authority.BACKDATE + MINUTE
    made = authority.renewed(None, NAMES, ahead)
    assert authority.renewed(made, NAMES, NOON) is made


def test_a_key_of_another_authority_makes_a_new_one_that_nobody_has_to_wait_for(fresh: Material) -> None:
    other = authority.renewed(None, NAMES, NOON)
    torn = dataclasses.replace(fresh, ca_key=other.ca_key)
    mended = authority.renewed(torn, NAMES, NOON)
    assert len(authorities_of(mended)) == 2
    assert trusts(mended, mended, NOON)
    later = NOON + 11 * MINUTE
    signed = authority.renewed(mended, [*NAMES, "other"], later)
    assert trusts(mended, signed, later)


def test_a_key_that_does_not_fit_has_its_certificate_made_anew(fresh: Material) -> None:
    torn = dataclasses.replace(fresh, key=authority.issued(fresh, NAMES, NOON).key)
    renewed = authority.renewed(torn, NAMES, NOON)
    assert renewed.ca == fresh.ca
    assert renewed.key != torn.key
    assert trusts(fresh, renewed, NOON)


def test_certificates_of_somebody_else_are_served_as_they_are(fresh: Material) -> None:
    given = dataclasses.replace(fresh, ca_key="")
    assert authority.renewed(given, ["other"], NOON + 1000 * DAY) is given


def test_keys_do_not_show_in_logs(fresh: Material) -> None:
    assert "PRIVATE" not in repr(fresh)

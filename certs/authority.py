"""A small certificate authority: one CA, one serving certificate, both renewed at two thirds of their life.

Everything here is a function of its arguments and of fresh keys; `now` is an aware UTC datetime.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

CA_LIFE: Final = timedelta(days=365)
LEAF_LIFE: Final = timedelta(days=90)
# Clocks of API servers may be a little behind ours.
BACKDATE: Final = timedelta(minutes=5)
# A new CA is trusted everywhere before anything is signed with it: registrations are put right within seconds.
SETTLING: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Material:
    """PEM texts. `ca` holds every CA to trust, the newest first; `ca_key` is that CA's.

    Without `ca_key` somebody else issues the certificates (cert-manager, a person): they are served as they are.
    """

    ca: str
    certificate: str
    key: str
    ca_key: str = ""

    def __repr__(self) -> str:
        # Keys stay out of logs and tracebacks.
        return f"Material(certificate={self.certificate!r})"


def renewed(material: Material | None, names: Iterable[str], now: datetime) -> Material:
    """The material to serve from now on; the same object when nothing is due.

    A CA is changed in steps, so that a client that trusts the CAs of any one step can verify the certificate of the
    next: first the new CA is added to those trusted, later the certificate is signed with it, last the old one goes.
    """
    wanted = frozenset(names)
    if material is None:
        ca, ca_key = _new_ca(now)
        return issued(Material(ca, "", "", ca_key), wanted, now)
    if not material.ca_key:
        return material
    authorities = x509.load_pem_x509_certificates(material.ca.encode())
    newest = authorities[0]
    leaf = x509.load_pem_x509_certificate(material.certificate.encode())
    is_broken = now >= leaf.not_valid_after_utc
    if is_due(newest, now) and len(authorities) == 1:
        ca, ca_key = _new_ca(now)
        both = replace(material, ca=ca + material.ca, ca_key=ca_key)
        return issued(both, wanted, now) if is_broken else both
    covered = _names_of(leaf)
    is_settled = len(authorities) == 1 or is_broken or now - newest.not_valid_before_utc >= BACKDATE + SETTLING
    is_of_newest = leaf.issuer == newest.subject
    if not wanted <= covered or (is_settled and (is_due(leaf, now) or not is_of_newest)):
        # What another replica asked for stays in, or two of them would take turns.
        return issued(material, wanted | covered, now)
    if is_of_newest and len(authorities) > 1 and now - leaf.not_valid_before_utc >= BACKDATE + SETTLING:
        return replace(material, ca=_pem(newest))
    return material


def issued(material: Material, names: Iterable[str], now: datetime) -> Material:
    """The material with a new certificate for `names` (DNS names and addresses), signed with the newest CA."""
    ca = x509.load_pem_x509_certificates(material.ca.encode())[0]
    ca_key = load_pem_private_key(material.ca_key.encode(), password=None)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise TypeError("ca.key is no EC key: delete it to serve the certificate as it is")
    key = ec.generate_private_key(ec.SECP256R1())
    sorted_names = sorted(names)
    certificate = (
        _builder(key, now, LEAF_LIFE)
        .subject_name(_subject("spiderpool-webhook"))
        .issuer_name(ca.subject)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in sorted_names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return replace(material, certificate=_pem(certificate), key=_key_pem(key))


def is_due(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether two thirds of its life are over."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return now >= certificate.not_valid_before_utc + life * 2 / 3


def expiry_of(material: Material) -> datetime:
    """When the served certificate expires."""
    return x509.load_pem_x509_certificate(material.certificate.encode()).not_valid_after_utc


def _new_ca(now: datetime) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    # A number is part of the name: two CAs of one name and two keys confuse chain building.
    number = x509.random_serial_number()
    subject = _subject(f"spiderpool-webhook-ca-{number:x}"[:64])
    certificate = (
        _builder(key, now, CA_LIFE)
        .subject_name(subject)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_ca_usage(), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem(certificate), _key_pem(key)


def _builder(key: ec.EllipticCurvePrivateKey, now: datetime, life: timedelta) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now - BACKDATE + life)
    )


def _ca_usage() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names_of(certificate: x509.Certificate) -> frozenset[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress))


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

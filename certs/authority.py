"""A small certificate authority: one CA, one serving certificate, both renewed at two thirds of their life.

Everything here is a function of its arguments and of fresh keys; `now` is an aware UTC datetime.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
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

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

CA_LIFE: Final = timedelta(days=365)
LEAF_LIFE: Final = timedelta(days=90)
# Clocks of API servers may be a little behind ours.
BACKDATE: Final = timedelta(minutes=5)
# A certificate from further in the future was made while the clock was wrong: nobody accepts it until then.
CLOCK_SKEW: Final = timedelta(minutes=1)
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


class UnreadableError(ValueError):
    """One text of a Material is not what it should be; `part` is the name of its field."""

    def __init__(self, part: str, why: str) -> None:
        super().__init__(f"{part} {why}")
        self.part = part
        self.why = why


def check(material: Material) -> None:
    """UnreadableError when `renewed` could not work with it, or when somebody else's key and certificate do not fit.

    Our own that do not fit are no error: `renewed` makes them anew.
    """
    _certificates(material.ca, "ca")
    if material.ca_key:
        _ca_key(material.ca_key)
    if material.ca_key and not (material.certificate and material.key):
        return
    leaf, key = _certificates(material.certificate, "certificate")[0], _private_key(material.key, "key")
    if not material.ca_key and leaf.public_key() != key.public_key():
        raise UnreadableError("key", "does not belong to the certificate")


def renewed(material: Material | None, names: Iterable[str], now: datetime) -> Material:
    """The material to serve from now on; the same object when nothing is due. UnreadableError as of `check`.

    A CA is changed in steps, so that a client that trusts the CAs of any one step can verify the certificate of the
    next: first the new CA is added to those trusted, later the certificate is signed with it, last the old one goes.
    What no client would accept any more is made anew at once.
    """
    wanted = frozenset(canonical_name(name) for name in names)
    if material is None:
        return issued(_with_new_ca(Material("", "", ""), [], now), wanted, now)
    if not material.ca_key:
        return material
    authorities = _certificates(material.ca, "ca")
    newest = authorities[0]
    leaf = _served_leaf(material, authorities, now)
    is_sound = _is_valid(newest, now) and newest.public_key() == _ca_key(material.ca_key).public_key()
    if not is_sound or (is_due(newest, now) and len(authorities) == 1):
        both = _with_new_ca(material, authorities, now)
        return both if leaf is not None else issued(both, wanted, now)
    if leaf is None:
        return issued(material, wanted, now)
    return _next_step(material, authorities, leaf, wanted, now)


def _next_step(
    material: Material,
    authorities: list[x509.Certificate],
    leaf: x509.Certificate,
    wanted: frozenset[str],
    now: datetime,
) -> Material:
    newest, covered = authorities[0], _names_of(leaf)
    is_settled = len(authorities) == 1 or now - newest.not_valid_before_utc >= BACKDATE + SETTLING
    is_of_newest = _is_issued_by(leaf, newest)
    if not wanted <= covered or (is_settled and (is_due(leaf, now) or not is_of_newest)):
        # What another replica asked for stays in, or two of them would take turns.
        return issued(material, wanted | covered, now)
    if is_of_newest and len(authorities) > 1 and now - leaf.not_valid_before_utc >= BACKDATE + SETTLING:
        return replace(material, ca=_pem(newest))
    return material


def issued(material: Material, names: Iterable[str], now: datetime) -> Material:
    """The material with a new certificate for `names` (DNS names and addresses), signed with the newest CA."""
    ca, ca_key = _certificates(material.ca, "ca")[0], _ca_key(material.ca_key)
    key = ec.generate_private_key(ec.SECP256R1())
    sorted_names = sorted({canonical_name(name) for name in names})
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


def authority_expiry_of(material: Material) -> datetime:
    """When the CA of the served certificate expires; of the newest, where none of them issued it itself."""
    authorities = _certificates(material.ca, "ca")
    leaf = _certificates(material.certificate, "certificate")[0]
    issuer = next((ca for ca in authorities if _is_issued_by(leaf, ca)), authorities[0])
    return issuer.not_valid_after_utc


def separate(ca: str) -> list[str]:
    """Each certificate of the text by itself, in one form, once."""
    return list(dict.fromkeys(_pem(certificate) for certificate in _certificates(ca, "ca")))


def canonical_name(name: str) -> str:
    """The one form of a DNS name or address that certificates hold: compared otherwise, none would ever cover it."""
    try:
        # A zone is known to one machine only, and has no place in a certificate.
        return str(ipaddress.ip_address(name.strip("[]").partition("%")[0]))
    except ValueError:
        return name.lower().removesuffix(".")


def _served_leaf(material: Material, authorities: list[x509.Certificate], now: datetime) -> x509.Certificate | None:
    """The certificate, if clients accept it now: in its time, with its key, and from a CA that they trust."""
    if not (material.certificate and material.key):
        return None
    leaf = _certificates(material.certificate, "certificate")[0]
    fits = leaf.public_key() == _private_key(material.key, "key").public_key()
    is_trusted = any(_is_valid(ca, now) and _is_issued_by(leaf, ca) for ca in authorities)
    return leaf if fits and is_trusted and _is_valid(leaf, now) else None


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc - CLOCK_SKEW <= now < certificate.not_valid_after_utc


def _is_issued_by(leaf: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _certificates(pem: str, part: str) -> list[x509.Certificate]:
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
        for certificate in certificates:
            _names_of(certificate)
            certificate.public_key()
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension):
        raise UnreadableError(part, "holds no certificate as PEM") from None
    return certificates


def _private_key(pem: str, part: str) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem.encode(), password=None)
    except TypeError:
        raise UnreadableError(part, "is encrypted: store it without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        # Without the library's words, which may quote what they could not read.
        raise UnreadableError(part, "holds no private key as PEM") from None


def _ca_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = _private_key(pem, "ca_key")
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise UnreadableError(
            "ca_key", "is no EC key, which alone can issue here: delete it to have the certificate served as it is"
        )
    return key


def _with_new_ca(material: Material, authorities: list[x509.Certificate], now: datetime) -> Material:
    """With a CA of our own before those that are still good."""
    ca, ca_key = _new_ca(now)
    kept = "".join(_pem(authority) for authority in authorities if _is_valid(authority, now))
    return replace(material, ca=ca + kept, ca_key=ca_key)


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

"""A small certificate authority for trials: parties that have one of their own use that instead.

Elliptic curve P-256; every certificate names the party as its first DNS name (RFC 9525) and as its common name, then
the host names under which it is reached.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_CERTIFICATE, CA_KEY = "ca.pem", "ca.key"
CA_DAYS = 3650
_CLOCK_SKEW = timedelta(minutes=5)


class CertificateError(OSError):
    """A file of the authority is missing or not what it should be; the text names it."""


def make_authority(folder: Path, name: str, now: datetime | None = None) -> None:
    """`ca.pem` and `ca.key` in the folder; nothing when they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / CA_CERTIFICATE).exists() and (folder / CA_KEY).exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, subject, key.public_key(), CA_DAYS, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(folder / CA_KEY, _pem(key))
    _write(folder / CA_CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def make_certificate(
    folder: Path, party: str, names: Sequence[str], days: int = 365, now: datetime | None = None
) -> tuple[Path, Path]:
    """`PARTY.pem` and `PARTY.key`, signed by the folder's authority, for servers and clients alike. Raises
    CertificateError."""
    try:
        authority = x509.load_pem_x509_certificate((folder / CA_CERTIFICATE).read_bytes())
        signer = serialization.load_pem_private_key((folder / CA_KEY).read_bytes(), None)
    except (OSError, ValueError) as error:
        raise CertificateError(f"{folder} has no usable {CA_CERTIFICATE} and {CA_KEY}: {error}") from None
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{folder / CA_KEY} is not an elliptic-curve key; make a new authority")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, party)])
    certificate = (
        _builder(subject, authority.subject, key.public_key(), days, now)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(party), *map(_name, names)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    paths = folder / f"{party}.pem", folder / f"{party}.key"
    _write(paths[1], _pem(key))
    _write(paths[0], certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return paths


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int, now: datetime | None
) -> x509.CertificateBuilder:
    begin = (now or datetime.now(UTC)) - _CLOCK_SKEW
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Readers, a node that looks for a new certificate among them, see the old file or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    draft.replace(path)

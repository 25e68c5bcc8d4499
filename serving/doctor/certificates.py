"""Certificates of the node's ports: whether they load, are valid now, name the party and come from the authority."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from serving.doctor.finding import Finding, Level
from serving.security import port_credentials
from serving.settings import Settings
from serving.transport import CredentialsError

_SOON = timedelta(days=30)


def certificates(settings: Settings, now: datetime | None = None) -> Iterator[Finding]:
    """One finding a port with TLS, the worst of it; others for what is wrong with its name or its authority."""
    now = now or datetime.now(UTC)
    for port in settings.ports.bound():
        tls = settings.tls_of(port)
        if tls is None:
            continue
        subject = f"tls.{port}"
        try:
            port_credentials(settings, port)
            chain = x509.load_pem_x509_certificates(Path(tls.certificate).read_bytes())
            authorities = _authorities(tls.authority)
        except (CredentialsError, OSError, ValueError) as error:
            yield Finding(Level.ERROR, subject, str(error))
            continue
        yield _about(subject, chain[0], now)
        if port == settings.ports.of("party") and settings.party not in _names(chain[0]):
            reason = f"the certificate does not name party {settings.party!r}: other parties will refuse it"
            yield Finding(Level.ERROR, subject, reason)
        signers = [authority for authority in authorities if any(_issued(one, authority) for one in chain)]
        yield from _wrong(_about(subject, signer, now, "authority's certificate") for signer in signers)
        if authorities and not signers:
            yield Finding(Level.WARNING, subject, "the authority has not signed this port's own certificate")


def _wrong(findings: Iterable[Finding]) -> Iterator[Finding]:
    return (one for one in findings if one.level is not Level.OK)


def _about(subject: str, certificate: x509.Certificate, now: datetime, what: str = "certificate") -> Finding:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begin:
        return Finding(Level.ERROR, subject, f"the {what} is valid only from {begin:%Y-%m-%d %H:%M} UTC")
    if now > end:
        return Finding(Level.ERROR, subject, f"the {what} expired on {end:%Y-%m-%d %H:%M} UTC")
    if end - now < _SOON:
        return Finding(Level.WARNING, subject, f"the {what} expires on {end:%Y-%m-%d}; renew it")
    return Finding(Level.OK, subject, f"{', '.join(_names(certificate))}; valid until {end:%Y-%m-%d}")


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return extension.value.get_values_for_type(x509.DNSName)


def _authorities(file: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(Path(file).read_bytes()) if file else []


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True

"""TLS of servers and channels: certificates in PEM files, read again when they change.

TLS 1.2 at least, without renegotiation, and HTTP/2 agreed on by ALPN (RFC 9113, sections 3.2 and 9.2). No session
resumption: a certificate that is no longer trusted must not come back with a ticket.
"""

from __future__ import annotations

import logging
import ssl
from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

logger = logging.getLogger(__name__)

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
HTTP2 = "h2"


class CredentialsError(OSError):
    """A file is missing, or files do not belong together. The text names them."""


class ClientCertificates(Enum):
    """What a server asks of its clients. Those that come are always verified."""

    NONE = "none"
    OPTIONAL = "optional"
    REQUIRED = "required"


_VERIFY = {
    ClientCertificates.NONE: ssl.CERT_NONE,
    ClientCertificates.OPTIONAL: ssl.CERT_OPTIONAL,
    ClientCertificates.REQUIRED: ssl.CERT_REQUIRED,
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the files held when they were last read: PEM, empty where there is no file."""

    context: ssl.SSLContext
    certificate: bytes
    key: bytes
    authority: bytes


class Credentials(ABC):
    """`certificate` is a chain, the own one first; `authority` those whom to trust. Reading blocks: make these before
    the event loop runs, or in a thread. Raises CredentialsError."""

    def __init__(self, certificate: Path | None, key: Path | None, authority: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._authority = authority
        self._seen = self._stamps()
        self.loaded = self._load()

    def refresh(self) -> bool:
        """Read again what changed; True when there is something new. Files that do not fit, as between the writing of
        one and the other, leave what was read before. Blocks; any thread."""
        seen = self._stamps()
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self.loaded = self._load()
        except CredentialsError as error:
            logger.error("the certificates stay as they were: %s", error)
            return False
        logger.info("read the certificate %s again", self._certificate)
        return True

    @abstractmethod
    def _context(self) -> ssl.SSLContext:
        """Without certificates."""

    def _hardened(self) -> ssl.SSLContext:
        """Without certificates, and without what HTTP/2 forbids (RFC 9113, section 9.2 and appendix A)."""
        context = self._context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(_CIPHERS)
        context.options |= ssl.OP_NO_RENEGOTIATION
        return context

    def _load(self) -> Loaded:
        context = self._hardened()
        if self._authority is not None:
            try:
                context.load_verify_locations(self._authority)
            except (OSError, ValueError) as error:
                raise CredentialsError(f"{self._authority} holds no certificates of an authority: {error}") from None
        if self._certificate is not None and self._key is not None:
            try:
                context.load_cert_chain(self._certificate, self._key, password="")
            except (OSError, ValueError) as error:
                raise CredentialsError(
                    f"{self._certificate} and {self._key} are not a certificate and its key without a password: {error}"
                ) from None
        return Loaded(context, _text(self._certificate), _text(self._key), _text(self._authority))

    def _stamps(self) -> tuple[tuple[int, int, int], ...]:
        return tuple(_stamp(file) for file in (self._certificate, self._key, self._authority) if file is not None)


def _stamp(file: Path) -> tuple[int, int, int]:
    try:
        status = file.stat()
    except OSError:
        return (0, 0, 0)
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _text(file: Path | None) -> bytes:
    if file is None:
        return b""
    try:
        return file.read_bytes()
    except OSError as error:
        raise CredentialsError(f"{file}: {error.strerror}") from None


class ServerCredentials(Credentials):
    """Of a port. `protocol` is what clients must ask for by ALPN."""

    def __init__(
        self,
        certificate: Path,
        key: Path,
        authority: Path | None = None,
        clients: ClientCertificates = ClientCertificates.NONE,
        protocol: str = HTTP2,
    ) -> None:
        if clients is not ClientCertificates.NONE and authority is None:
            raise CredentialsError("certificates of clients are asked for, but no authority signs them")
        self.clients = clients
        self.protocol = protocol
        super().__init__(certificate, key, authority)
        self.context = self._hardened()
        """For listeners: hands every handshake to the certificates read last. Ciphers and options stay its own."""
        self.context.sni_callback = self._newest
        self.context.verify_mode = _VERIFY[clients]

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = _VERIFY[self.clients]
        context.set_alpn_protocols([self.protocol])
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        return context

    def _newest(self, handshake: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        handshake.context = self.loaded.context


class ChannelCredentials(Credentials):
    """Of a client. Without `authority` the system's are trusted; `certificate` and `key` are for servers that ask for
    them. The server's certificate must be for `server_name`; empty: for the host of the channel's target."""

    def __init__(
        self,
        authority: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        server_name: str = "",
    ) -> None:
        if (certificate is None) != (key is None):
            raise CredentialsError("a certificate and its key come together")
        self.server_name = server_name
        super().__init__(certificate, key, authority)

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols([HTTP2])
        if self._authority is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        return context


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What a verified certificate says about who is at the other end."""

    names: tuple[str, ...]
    """Subject alternative names; the common name when there are none."""
    key: str
    """Where the names stand, as grpc calls it."""
    properties: dict[str, list[bytes]]
    """As grpc's `auth_context`."""


NOBODY = PeerIdentity((), "", {})


def identity_of(connection: ssl.SSLObject) -> PeerIdentity:
    """Call after the handshake."""
    properties = {"transport_security_type": [b"ssl"], "security_level": [b"TSI_PRIVACY_AND_INTEGRITY"]}
    found = connection.getpeercert()
    if not found:
        return PeerIdentity((), "", properties)
    pem = ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")
    # The stubs allow any nesting; the parser makes ((("commonName", "x"),),) and (("DNS", "x"),).
    subject: tuple[tuple[tuple[str, str], ...], ...] = found.get("subject", ())  # type: ignore[assignment]
    others: tuple[tuple[str, str], ...] = found.get("subjectAltName", ())  # type: ignore[assignment]
    common = tuple(value for part in subject for key, value in part if key == "commonName")
    alternative = tuple(value for _, value in others)
    properties["x509_pem_cert"] = [pem.encode()]
    for key, names in (("x509_common_name", common), ("x509_subject_alternative_name", alternative)):
        if names:
            properties[key] = [name.encode() for name in names]
    if alternative:
        return PeerIdentity(alternative, "x509_subject_alternative_name", properties)
    return PeerIdentity(common, "x509_common_name", properties)

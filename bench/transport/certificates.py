"""A certificate for 127.0.0.1, made for one run."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from serving.transport import ServerCredentials


@dataclass(frozen=True, slots=True)
class Certificate:
    """A folder with `key.pem` and `certificate.pem`, which is its own authority."""

    folder: Path

    @property
    def chain_file(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def key_file(self) -> Path:
        return self.folder / "key.pem"

    @property
    def key(self) -> bytes:
        return self.key_file.read_bytes()

    @property
    def chain(self) -> bytes:
        return self.chain_file.read_bytes()

    def credentials(self) -> ServerCredentials:
        return ServerCredentials(self.chain_file, self.key_file)


def make_certificate(folder: Path) -> Certificate:
    """ECDSA on P-256, valid for a day, for 127.0.0.1 and localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)
    alternatives = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    folder.mkdir(parents=True, exist_ok=True)
    made = Certificate(folder)
    made.key_file.write_bytes(private)
    made.chain_file.write_bytes(certificate.public_bytes(encoding))
    return made

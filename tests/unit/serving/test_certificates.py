import ssl
import stat
from datetime import UTC, datetime, timedelta

import pytest
from click.testing import CliRunner
from cryptography import x509

from serving.certificates import CertificateError, make_authority, make_certificate
from serving.commands.certificates import certificates


def shaken_hands(folder, server, client, name):
    """One TLS handshake in memory, both sides with their certificates; the names that the server saw."""
    there = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.pem")
    there.verify_mode = ssl.CERT_REQUIRED
    there.load_cert_chain(folder / f"{server}.pem", folder / f"{server}.key")
    here = ssl.create_default_context(cafile=folder / "ca.pem")
    here.load_cert_chain(folder / f"{client}.pem", folder / f"{client}.key")
    there_to_here, here_to_there = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = there.wrap_bio(here_to_there, there_to_here, server_side=True)
    other = here.wrap_bio(there_to_here, here_to_there, server_hostname=name)
    for _ in range(4):
        for side in (other, one):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return [value for kind, value in one.getpeercert()["subjectAltName"] if kind == "DNS"]


def test_both_sides_know_each_other(tmp_path):
    make_authority(tmp_path, "trial")
    make_certificate(tmp_path, "bank", ["localhost", "127.0.0.1"])
    make_certificate(tmp_path, "shop", ["shop.example"])
    for name in ("localhost", "127.0.0.1", "bank"):
        assert shaken_hands(tmp_path, "bank", "shop", name)[0] == "shop"
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken_hands(tmp_path, "bank", "shop", "elsewhere")


def test_keys_are_for_their_owner_alone(tmp_path):
    make_authority(tmp_path, "trial")
    make_certificate(tmp_path, "bank", [])
    for name in ("ca.key", "bank.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_the_authority_stays_and_certificates_are_renewed(tmp_path):
    arguments = ["bank=localhost", "shop", "--out", str(tmp_path), "--days", "7"]
    for _ in range(2):
        done = CliRunner().invoke(certificates, arguments)
        assert done.exit_code == 0, done.output
    assert "bank.pem" in done.output
    authority = (tmp_path / "ca.pem").read_bytes()
    before = (tmp_path / "bank.pem").read_bytes()
    CliRunner().invoke(certificates, arguments)
    assert (tmp_path / "ca.pem").read_bytes() == authority
    assert (tmp_path / "bank.pem").read_bytes() != before


def test_it_ends_when_it_says(tmp_path):
    now = datetime(2030, 1, 1, tzinfo=UTC)
    make_authority(tmp_path, "trial", now)
    path, _ = make_certificate(tmp_path, "bank", [], days=10, now=now)
    ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    assert timedelta(days=9, hours=23) < ends - now <= timedelta(days=10)


def test_without_an_authority_there_is_none(tmp_path):
    with pytest.raises(CertificateError, match=r"has no usable ca\.pem"):
        make_certificate(tmp_path, "bank", [])

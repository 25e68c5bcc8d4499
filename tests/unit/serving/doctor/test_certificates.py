from datetime import UTC, datetime, timedelta

import pytest

from serving.certificates import CA_DAYS, make_authority, make_certificate
from serving.doctor.certificates import certificates
from serving.doctor.finding import Level
from serving.settings import Settings, TlsSettings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("certificates")
    make_authority(made, "one")
    make_certificate(made, "bank", [], days=100)
    make_authority(made / "other", "two")
    return made


def findings(folder, days=0, party="bank", port="party", **changes):
    files = {"certificate": folder / "bank.pem", "key": folder / "bank.key", "authority": folder / "ca.pem", **changes}
    tls = TlsSettings(**{name: str(path) for name, path in files.items()})
    now = datetime.now(UTC) + timedelta(days=days)
    found = certificates(Settings(party=party, state_dir="s", registry="r", tls={port: tls}), now)
    return [(one.level, one.text) for one in found]


def test_a_good_certificate(folder):
    [(level, text)] = findings(folder)
    assert level is Level.OK
    assert text.startswith("bank; valid until ")


def test_without_tls_there_is_nothing_to_say():
    assert not list(certificates(Settings(party="bank", state_dir="s", registry="r")))


@pytest.mark.parametrize(
    ("days", "level", "text"),
    [(-1, Level.ERROR, "valid only from"), (80, Level.WARNING, "expires on"), (101, Level.ERROR, "expired on")],
)
def test_its_time(folder, days, level, text):
    (found, said), *_ = findings(folder, days)  # of the authority another
    assert found is level
    assert text in said


def test_another_partys_certificate(folder):
    assert (
        Level.ERROR,
        "the certificate does not name party 'shop': other parties will refuse it",
    ) in findings(folder, party="shop")
    assert [level for level, _ in findings(folder, party="shop", port="service")] == [Level.OK]


def test_another_authority(folder):
    levels = [level for level, _ in findings(folder, authority=folder / "other" / "ca.pem")]
    assert levels == [Level.OK, Level.WARNING]


@pytest.mark.parametrize(("days", "level", "text"), [(0, Level.WARNING, "expires on"), (20, Level.ERROR, "expired on")])
def test_an_authority_that_ends_before_its_certificates(tmp_path, days, level, text):
    make_authority(tmp_path, "old", now=datetime.now(UTC) - timedelta(days=CA_DAYS - 10))
    make_certificate(tmp_path, "bank", [], days=100)
    [own, (found, said)] = findings(tmp_path, days)
    assert own[0] is Level.OK
    assert found is level
    assert f"the authority's certificate {text}" in said


@pytest.mark.parametrize("name", ["certificate", "key", "authority"])
def test_a_file_that_is_not_there_or_not_what_it_should_be(folder, tmp_path, name):
    broken = tmp_path / "broken.pem"
    for content in (None, b"", b"garbage"):
        if content is not None:
            broken.write_bytes(content)
        [(level, text)] = findings(folder, **{name: broken})
        assert level is Level.ERROR
        assert "broken.pem" in text

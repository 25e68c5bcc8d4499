from dataclasses import dataclass

import pytest

from serving.errors import NotAllowedError
from serving.security import caller, split_address
from serving.settings import PeerSettings, Settings


@dataclass
class From:
    """A call of whoever holds a certificate with these names."""

    names: tuple[str, ...] = ()

    def peer_identities(self):
        return self.names


def settings(**changes):
    return Settings(party="bank", state_dir="s", registry="r", peers={"shop": PeerSettings()}, **changes)


def test_a_certificate_names_the_caller():
    assert caller(From(("x.example", "shop")), settings(plaintext_caller="other")) == "shop"


def test_without_a_certificate_the_configured_party_calls():
    assert caller(From(), settings(plaintext_caller="shop")) == "shop"


def test_strangers_are_refused():
    with pytest.raises(NotAllowedError, match="no calls without a certificate"):
        caller(From(), settings())
    with pytest.raises(NotAllowedError, match="names no party"):
        caller(From(("mallory",)), settings(plaintext_caller="shop"))


@pytest.mark.parametrize(
    ("address", "parts"), [("h:0", ("h", 0)), ("[::1]:65535", ("::1", 65535)), ("127.0.0.1:8", ("127.0.0.1", 8))]
)
def test_addresses_split(address, parts):
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["", "h", ":1", "h:", "h:-1", "h:65536", "h:٣", "[h]:1", "[::1:1", "a/b:1"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match=r".+"):
        split_address(address)

import pytest

from serving.security import split_address


@pytest.mark.parametrize(
    ("address", "parts"), [("h:0", ("h", 0)), ("[::1]:65535", ("::1", 65535)), ("127.0.0.1:8", ("127.0.0.1", 8))]
)
def test_addresses_split(address, parts):
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["", "h", ":1", "h:", "h:-1", "h:65536", "h:٣", "[h]:1", "[::1:1", "a/b:1"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match=r".+"):
        split_address(address)

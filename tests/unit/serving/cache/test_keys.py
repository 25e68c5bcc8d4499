import hashlib
import hmac
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.cache.keys import KeyMaker, SecretFileError, load_secret, node_secret

SECRET = bytes(range(32))
HALF = ("m", "1", "ab" * 32)


def key(secret=SECRET, party="bank", key_id=0, host="shop", half=HALF, user="u"):
    return KeyMaker(secret, party, key_id, host, half).keys([user])[0]


@pytest.mark.parametrize("user", ["ué", "", "u" * 255, "u" * 256, "u" * 70_000], ids=len)
def test_the_key_is_what_the_contract_says(user):
    parts = (b"shop", b"m", b"1", bytes.fromhex("ab" * 32), user.encode())
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    expected = b"t1:bank:7:" + hmac.digest(SECRET, message, hashlib.sha256)[:16]
    assert key(key_id=7, user=user) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"secret": bytes(32)},
        {"party": "bank2"},
        {"key_id": 1},
        {"host": "shop2"},
        {"half": ("m2", "1", "ab" * 32)},
        {"half": ("m", "2", "ab" * 32)},
        {"half": ("m", "1", "cd" * 32)},
        {"user": "u2"},
    ],
)
def test_everything_counts(change):
    assert key(**change) != key()


@given(st.text(), st.text(), st.text(), st.text())
def test_parts_do_not_run_into_each_other(model, version, other_model, other_version):
    one, other = (model, version, "ab"), (other_model, other_version, "ab")
    assert (key(half=one) == key(half=other)) == (one == other)


def test_one_maker_serves_many_users_in_any_order():
    maker = KeyMaker(SECRET, "bank", 0, "shop", HALF)
    assert maker.keys("aba") == [key(user=user) for user in "aba"]


def test_no_raw_id_in_the_key():
    assert b"alice" not in key(user="alice")


def test_the_secret_is_made_once_and_only_for_its_owner(tmp_path):
    path = tmp_path / "state" / "cache.secret"
    secret = load_secret(path)
    assert len(secret) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_secret(path) == secret
    assert [file.name for file in path.parent.iterdir()] == ["cache.secret"]


def test_processes_that_start_at_once_agree(tmp_path):
    found = []
    threads = [threading.Thread(target=lambda: found.append(load_secret(tmp_path / "s"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("size", [0, 31, 33])
def test_another_size_is_refused_by_name(tmp_path, size):
    path = tmp_path / "s"
    path.write_bytes(bytes(size))
    path.chmod(0o600)
    with pytest.raises(SecretFileError, match=f"{path} must hold exactly 32 bytes"):
        load_secret(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_secret_that_others_can_reach_is_refused(tmp_path, mode):
    path = tmp_path / "s"
    path.write_bytes(bytes(32))
    path.chmod(mode)
    with pytest.raises(SecretFileError, match=f"{path} has mode {mode:04o}.*chmod 600"):
        load_secret(path)


def test_a_folder_in_its_place_is_refused(tmp_path):
    with pytest.raises(SecretFileError, match=f"cannot read the cache secret {tmp_path}"):
        load_secret(tmp_path)


def test_a_shared_secret_is_never_made_up(tmp_path):
    own = node_secret("", tmp_path)
    assert own == load_secret(tmp_path / "cache.secret")
    with pytest.raises(SecretFileError, match="cannot read the cache secret"):
        node_secret(str(tmp_path / "mistyped"), tmp_path)
    assert not (tmp_path / "mistyped").exists()
    shared = tmp_path / "shared"
    shared.write_bytes(SECRET)
    shared.chmod(0o600)
    assert node_secret(str(shared), tmp_path) == SECRET

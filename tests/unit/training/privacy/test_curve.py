"""Hashing to Curve25519 and blinding."""

import hashlib
import pickle
import secrets

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.privacy import curve

SMALL_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (curve.PRIME - 1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
]


@given(st.text(min_size=1))
def test_every_id_becomes_a_point_of_the_curve(identifier) -> None:
    point = curve.hash_to_curve(identifier)
    u = int.from_bytes(point, "little")
    assert len(point) == 32
    assert 0 < u < curve.PRIME
    assert pow(u**3 + curve.COEFFICIENT * u**2 + u, (curve.PRIME - 1) // 2, curve.PRIME) == 1


def test_points_stay_the_same_over_releases() -> None:
    """Two parties may run different releases: this vector must never change."""
    assert curve.hash_to_curve("user-1").hex() == "180b4a0db06bb4d5a672fe8f8eb7224d5bc8e2e62a73b4494b5e4d75d9a34966"


def test_different_ids_have_different_points() -> None:
    assert len({curve.hash_to_curve(f"user-{number}") for number in range(500)}) == 500


@given(st.integers(0, curve.PRIME - 1))
def test_the_jacobi_symbol_is_eulers_criterion(a) -> None:
    euler = pow(a, (curve.PRIME - 1) // 2, curve.PRIME)
    assert curve.jacobi(a, curve.PRIME) == {0: 0, 1: 1}.get(euler, -1)


def test_blinding_commutes() -> None:
    ids = [f"user-{number}" for number in range(20)]
    ours, theirs = curve.new_scalar(), curve.new_scalar()
    one_way = curve.multiply(theirs, curve.blind(ours, ids))
    assert one_way == curve.multiply(ours, curve.blind(theirs, ids))
    assert len(set(curve.each(one_way))) == 20


def test_multiplication_is_x25519() -> None:
    """RFC 7748, section 5.2, first vector."""
    scalar = bytes.fromhex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4")
    point = bytes.fromhex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c")
    product = bytes.fromhex("c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552")
    assert curve.multiply(scalar, point) == product


def test_scalars_are_fresh() -> None:
    assert curve.new_scalar() != curve.new_scalar()


@pytest.mark.parametrize("point", SMALL_ORDER, ids=lambda point: point[:4].hex())
def test_points_of_small_order_are_refused(point) -> None:
    good = curve.hash_to_curve("user")
    with pytest.raises(curve.PointError):
        curve.multiply(curve.new_scalar(), good + point)


def test_half_a_point_is_refused() -> None:
    with pytest.raises(curve.PointError, match="33 bytes"):
        curve.multiply(curve.new_scalar(), secrets.token_bytes(33))


def test_errors_come_back_from_other_processes() -> None:
    assert str(pickle.loads(pickle.dumps(curve.PointError("text")))) == "text"


def test_a_permutation_has_every_number_once_and_changes() -> None:
    orders = [curve.permutation(1000) for _ in range(2)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(1000))
    assert orders[0].tolist() != orders[1].tolist()
    assert curve.permutation(0).tolist() == []


def test_permutations_are_uniform() -> None:
    counts = np.zeros((4, 4))
    for _ in range(4000):
        counts[np.arange(4), curve.permutation(4)] += 1
    assert np.all(np.abs(counts - 1000) < 200)  # more than seven standard deviations


def test_an_id_is_not_its_plain_hash() -> None:
    assert curve.hash_to_curve("user-1") != hashlib.sha256(b"user-1").digest()

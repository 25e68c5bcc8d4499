from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.figures.attribution import AttributionError, Seal, head

SECRET = b"s" * 32


@given(st.text(), st.integers(0, 2**64 - 1), st.text(), st.floats(allow_nan=False), st.floats(0, 1e11))
def test_every_replica_reads_what_another_made(
    service: str, revision: int, variant: str, score: float, time_s: float
) -> None:
    said = Seal(SECRET).open(Seal(SECRET).make(head(service, revision, variant), score, time_s))
    assert (said.service, said.revision, said.variant) == (service, revision, variant)
    assert (said.score, said.time_s) == (score, time_s)


def test_no_two_are_alike_and_nothing_can_be_read_in_them() -> None:
    seals = [Seal(SECRET), Seal(SECRET)]
    made = [seal.make(head("credit", 1, "m:1"), 0.5, 1e9) for seal in seals for _ in range(100)]
    assert len(set(made)) == len({seals[0].open(one).id for one in made}) == 200
    assert not any(b"credit" in one or b"m:1" in one for one in made)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_refused(place: int, change: int) -> None:
    seal = Seal(SECRET)
    made = bytearray(seal.make(head("s", 1, "m:1"), 0.5, 0))
    made[place % len(made)] ^= change
    with pytest.raises(AttributionError):
        seal.open(bytes(made))


@pytest.mark.parametrize("junk", [b"", b"x", b"\x00" * 200])
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(AttributionError):
        Seal(SECRET).open(junk)


def test_another_party_cannot_read_it() -> None:
    with pytest.raises(AttributionError):
        Seal(b"t" * 32).open(Seal(SECRET).make(head("s", 1, "m:1"), 0.5, 0))

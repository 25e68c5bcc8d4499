from __future__ import annotations

import pytest

from training.privacy.framing import join_pieces, split_pieces
from training.privacy.matrix_cipher import ProtocolError


def test_pieces_come_back_as_they_went():
    pieces = [b"", b"abc", bytes(1000)]
    assert split_pieces(join_pieces(pieces), 3) == pieces
    assert split_pieces(b"", 0) == []


@pytest.mark.parametrize("cut", [1, 3, 4, 8])
def test_a_cut_buffer_is_refused(cut):
    with pytest.raises(ProtocolError, match="in the middle"):
        split_pieces(join_pieces([b"abc", b"defgh"])[:-cut], 2)


def test_another_count_is_refused():
    with pytest.raises(ProtocolError, match="sent 1 ciphertexts, the agreed shape needs 2"):
        split_pieces(join_pieces([b"abc"]), 2)

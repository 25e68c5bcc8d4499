from __future__ import annotations

import pickle

import numpy as np
import pytest

from training.privacy.matrix_cipher import ProtocolError, Shape
from training.privacy.memory import PlaintextTwin


def test_the_twin_refuses_to_leave_its_process():
    with pytest.raises(TypeError, match="use BfvCipher"):
        pickle.dumps(PlaintextTwin())


def test_no_value_is_in_what_would_be_sent():
    twin = PlaintextTwin()
    keys = twin.create_keys()
    queries = [twin.encrypt(keys.secret, Shape(2, 1), np.array(values)) for values in ([0.5, 1.0], [0.5, 1.0])]
    assert len(queries[0]) == 16
    assert queries[0] != queries[1]


def test_another_twin_cannot_read_its_tickets():
    here, there = PlaintextTwin(), PlaintextTwin()
    keys = here.create_keys()
    query = here.encrypt(keys.secret, Shape(2, 1), np.zeros(2))
    with pytest.raises(ProtocolError, match="one process only"):
        there.multiply(keys.public, Shape(2, 1), np.zeros((2, 1)), query)

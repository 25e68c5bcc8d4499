from __future__ import annotations

import numpy as np
import pytest

from loaders.servables.preprocess import PreprocessError, compile_steps


def test_steps_are_optional() -> None:
    steps = compile_steps([], 2, pytest.fail)
    assert np.isnan(steps.fill).all()
    assert (steps.mean.tolist(), steps.scale.tolist()) == ([0.0, 0.0], [1.0, 1.0])
    with pytest.raises(PreprocessError):
        compile_steps([{"kind": "scale", "mean": "m"}], 2, lambda name: np.zeros(2))

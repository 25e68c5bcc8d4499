"""Reads the arrays of an artifact, without unpickling."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from loaders.artifact import Artifact
from loaders.loader import LoadError
from loaders.signature import Numbers


def read_numbers(artifact: Artifact, name: str) -> Numbers:
    """A file of finite float64 numbers. Raises LoadError naming the file."""
    values = _read(artifact, name)
    if values.dtype != np.float64 or not np.isfinite(values).all():
        raise LoadError(f"{name} must hold finite float64 numbers")
    return values


def read_integers(artifact: Artifact, name: str) -> npt.NDArray[np.int32]:
    """A file of int32 numbers. Raises LoadError naming the file."""
    values = _read(artifact, name)
    if values.dtype != np.int32:
        raise LoadError(f"{name} must hold int32 numbers")
    return values


def _read(artifact: Artifact, name: str) -> npt.NDArray[Any]:
    if name not in artifact.files:
        raise LoadError(f"{name} is not among the artifact's files")
    try:
        with (artifact.path / name).open("rb") as file:
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    except (ValueError, OSError, EOFError, MemoryError) as error:  # memory: its header promises too much
        raise LoadError(f"{name} is not a .npy array: {error}") from None

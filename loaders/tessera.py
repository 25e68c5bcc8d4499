"""Format `tessera`: linear halves that the training runner publishes.

Files: `weights.npy` (features,) or (features, width); at the guest `intercept.npy` () or (width,); and what the
preprocessing steps name. float64, read without unpickling.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from loaders.loader import Loader, LoadError, Servable
from loaders.servables.arrays import read_numbers
from loaders.servables.linear import LinearServable
from loaders.servables.preprocess import PreprocessError, compile_steps
from loaders.signature import FeatureError, Missing, Numbers, Signature


class TesseraLoader(Loader):
    """One linear half."""

    format: ClassVar[str] = "tessera"

    def estimate(self) -> int:
        return sum(entry.bytes for entry in self.artifact.files.values())

    def load(self) -> Servable:
        manifest = self.artifact.manifest
        signature = self._signature()
        features = len(signature.numbers)
        weights = self._array("weights.npy")
        weights = weights[:, None] if weights.ndim == 1 else weights
        if weights.ndim != 2 or weights.shape[0] != features:
            raise LoadError(f"weights.npy has shape {weights.shape} for {features} features")
        if weights.shape[1] != signature.outputs[0].width:
            raise LoadError(
                f"weights.npy gives width {weights.shape[1]}, the declared output has {signature.outputs[0].width}"
            )
        intercept = self._intercept(weights.shape[1])
        try:
            steps = compile_steps(manifest.preprocess, features, self._array)
        except PreprocessError as error:
            raise LoadError(str(error)) from None
        self._check_missing(steps.fill)
        try:
            return LinearServable(signature, steps, weights, intercept)
        except OverflowError as error:
            raise LoadError(f"weights.npy and the scale step do not go together: {error}") from None

    def _signature(self) -> Signature:
        manifest = self.artifact.manifest
        try:
            signature = Signature(manifest.inputs, manifest.outputs)
        except FeatureError as error:
            raise LoadError(f"inputs: {error}") from None
        if signature.texts or len(manifest.outputs) != 1:
            raise LoadError("a linear half takes numbers only and has one output")
        return signature

    def _intercept(self, width: int) -> Numbers:
        if "intercept.npy" not in self.artifact.files:
            return np.zeros(width)
        intercept = np.atleast_1d(self._array("intercept.npy"))
        if intercept.shape != (width,):
            raise LoadError(f"intercept.npy has shape {intercept.shape} for width {width}")
        return intercept

    def _check_missing(self, fill: Numbers) -> None:
        position = 0
        for spec in self.artifact.manifest.inputs:
            values = fill[position : position + spec.width]
            position += spec.width
            if spec.missing is Missing.NATIVE:
                raise LoadError(f"input {spec.name!r}: a linear half cannot handle missing values natively")
            if spec.missing is Missing.IMPUTE and not all(map(math.isfinite, values)):
                raise LoadError(f"input {spec.name!r} is to be imputed, but no impute step says with what")

    def _array(self, name: str) -> Numbers:
        return read_numbers(self.artifact, name)

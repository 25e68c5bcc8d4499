"""The app that changes nothing: features in, the model's score out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from apps.app import App, Example, Request, Result, features_of
from loaders.signature import Batch, Signature


class PassThroughParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`ignore_unknown`: drop features that the model does not know instead of refusing them."""

    ignore_unknown: bool = False


class PassThrough(App):
    name: ClassVar[str] = "passthrough"
    Parameters: ClassVar[type[msgspec.Struct]] = PassThroughParameters
    examples: ClassVar[Sequence[Example]] = (Example((0.25,), (0.25,)), Example((0.2, 0.8), (0.2, 0.8)))
    parameters: PassThroughParameters

    def preprocess(self, request: Request, signature: Signature) -> Batch:
        return features_of(request, signature, self.parameters.ignore_unknown)

    def postprocess(self, request: Request, result: Result) -> Result:
        return result

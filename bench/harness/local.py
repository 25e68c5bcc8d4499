"""Services of the guest alone, on ONNX models."""

from __future__ import annotations

from dataclasses import dataclass

from bench.harness import onnx_models
from bench.harness.parties import Parties
from bench.harness.stage import Stage
from bench.load import Factory, Plan
from loaders.signature import Signature
from tessera.v1 import inference_pb2 as wire


@dataclass(frozen=True, slots=True)
class LocalService:
    """A service, the request that is sent to it, and the score that it must give."""

    name: str
    request: bytes
    score: float

    def plan(self, stage: Stage, parties: Parties) -> Plan:
        check = Factory("bench.harness.bodies:score_check", {"score": self.score})
        return stage.plan(parties, bodies=(self.request,), make_check=check)


def quick(parties: Parties, name: str = "quick") -> LocalService:
    """Logistic regression, online as `name`."""
    return _online(parties, name, *onnx_models.write_quick(parties.guest.registry, parties.guest.party, name))


def slow(parties: Parties, seconds: float, name: str = "slow") -> LocalService:
    """A model that takes about so long, online as `name`."""
    written = onnx_models.write_slow(parties.guest.registry, parties.guest.party, name, seconds)
    return _online(parties, name, *written)


def _online(parties: Parties, name: str, signature: Signature, score: float) -> LocalService:
    parties.guest.load(name, "1")
    parties.guest.online(name, name, "1")
    vector = wire.FeatureVector(signature_hash=signature.digest, numbers=onnx_models.features())
    return LocalService(name, wire.PredictRequest(service=name, vector=vector).SerializeToString(), score)

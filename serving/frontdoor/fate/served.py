"""What FATE's names lead to here, and what is told of those who answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from apps.app import Response
from loaders.artifact import Link, Merge
from loaders.fate.names import FateName, model_name, name_in
from serving.errors import InvalidRequestError, LimitError, TesseraError, UnknownNameError
from serving.frontdoor.fate.bodies import NamedBody
from serving.frontdoor.fate.descriptions import named, resource_of
from serving.frontdoor.fate.rules import Flow
from serving.peers.occasions import Occasion, Occasions
from serving.pool import ModelHandle, ModelId, ModelPool
from serving.publishing import Publishing
from serving.routing import Address

SERVICE = "com.webank.ai.fate.api.serving.InferenceService"
INFERENCE = f"/{SERVICE}/inference"
BATCH_INFERENCE = f"/{SERVICE}/batchInference"
START_JOB = f"/{SERVICE}/startInferenceJob"
JOB_RESULT = f"/{SERVICE}/getInferenceResult"
GRPC, HTTP = "fate", "fate-http"
"""As figures call the protocol, by what carries it."""


@dataclass(frozen=True, slots=True)
class FateModels:
    """What FATE's names lead to here. `user_id`: the name of the user's id among what is sent to hosts;
    `party`: this one; `occasions`: of the calls that are running."""

    publishing: Publishing
    pool: ModelPool
    user_id: str
    flow: Flow
    party: str
    occasions: Occasions

    def address(self, body: NamedBody) -> Address:
        """A service; a version; the version in use for a namespace, or for this party. Raises InvalidRequestError,
        UnknownNameError."""
        if body.service:
            return (body.service, "", "")
        if body.namespace and body.table:
            name = FateName(body.namespace, body.table)
            return ("", name.model, name.version)
        if not body.is_first_line:
            raise InvalidRequestError("serviceId is required")
        routes, used = self.publishing.routes.current, model_name(body.namespace)
        if used in routes.services:
            return (used, "", "")
        if body.namespace or body.party != self.party or not routes.default_service:
            raise UnknownNameError(f"no version is in use for {body.namespace or body.party!r}: publishOnline names it")
        return ("", "", "")

    def begun(self, handles: Iterable[ModelHandle], users: Iterable[str], body: NamedBody) -> Occasion | None:
        """What hosts of these versions hear of a call about these users, for as long as the caller keeps it."""
        if not self.occasions.asked_for:
            return None
        self.occasions.begin([handle.id for handle in handles if handle.hosts], users, occasion := body.occasion)
        return occasion

    def admitted(self, address: Address, rows: int) -> list[ModelHandle]:
        """The versions that may answer. Raises UnknownNameError, and LimitError when a flow rule is used up."""
        handles = self.handles(address)
        for handle in handles:
            resource = resource_of(named(handle))
            try:
                self.flow.take(resource, rows)
            except LimitError as error:
                self.flow.refused(resource, error, rows)
                raise
        return handles

    def answered(self, model: ModelId, rows: int) -> None:
        """For the figures of a model."""
        handle = self.pool.find(model)
        if handle is not None:
            self.flow.succeeded(resource_of(named(handle)), rows)

    def failed(self, address: Address, user: str, error: Exception, rows: int) -> None:
        """For the figures of the model that was to answer this user."""
        try:
            handle = self.pool.find(self.publishing.routes.current.target(address, user).model)
        except TesseraError:
            return
        if handle is not None:
            self.flow.refused(resource_of(named(handle)), error, rows)

    def handles(self, address: Address) -> list[ModelHandle]:
        """The versions that may answer. Raises UnknownNameError."""
        service, model, version = address
        if version:
            return [self.pool.acquire(ModelId(model, version))]
        variants = self.publishing.routes.current.service(service, model).variants
        return [self.pool.acquire(variant.model) for variant in variants]

    def described(self, model: ModelId) -> dict[str, Any]:
        """Who answered, by FATE's names where it has them; `timestamp`: since when it is loaded, in milliseconds."""
        handle = self.pool.find(model)
        name = None if handle is None else name_in(handle.artifact.manifest.provenance)
        life = self.publishing.life(model)
        return {
            "modelId": name.namespace if name else model.model,
            "modelVersion": name.table if name else model.version,
            "timestamp": int(1_000 * life.since_s) if life else 0,
        }

    def scored(self, response: Response, row: int, model: ModelId) -> dict[str, Any]:
        """One-vs-rest gives the score of its best class, many classes at once all scores; both the label."""
        handle = self.pool.find(model)
        scores = response.scores[row]
        several: Any = scores.tolist()
        if handle is not None and _takes_best(handle.artifact.manifest.merge):
            several = float(scores.max())
        found = {"score": float(scores[0]) if scores.size == 1 else several}
        return {**found, "label": response.labels[row]} if response.labels else found


def _takes_best(merge: Merge) -> bool:
    return bool(merge.labels) and merge.link is Link.SIGMOID

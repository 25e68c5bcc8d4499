"""Cases of many users in one call: each row has its own code."""

from __future__ import annotations

import math
import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from apps.app import CacheLevel, PartyStatus, Request, Response
from loaders.signature import FeatureError
from serving.codec import Codec
from serving.errors import HostFailure, InvalidRequestError, LimitError, PeerError
from serving.frontdoor.fate.bodies import BatchBody, BatchReply, RowBody, RowReply, body_in, message_of
from serving.frontdoor.fate.codes import failure, host_failure
from serving.frontdoor.fate.features import Specs, check_row, features_in, specs_of, user_id_in
from serving.frontdoor.fate.served import BATCH_INFERENCE, FateModels
from serving.pool import ModelId

_SEVERAL = frozenset({PartyStatus.REJECTED, PartyStatus.MISMATCH, PartyStatus.INTERNAL})
"""What hosts have several codes for: only their own words tell which it is."""


@dataclass(frozen=True, slots=True)
class _Case:
    """A row that can be asked."""

    index: int
    user: str
    numbers: Mapping[str, float]
    texts: Mapping[str, str]


class BatchCodec(Codec):
    """Of one call. Rows whose features cannot be used, or that name no user where there are hosts, fail by themselves;
    the others are asked together."""

    name = BATCH_INFERENCE

    def __init__(self, models: FateModels, raw: bytes, max_rows: int, protocol: str) -> None:
        """Raises InvalidRequestError, LimitError, UnknownNameError."""
        self.protocol = protocol
        self._models = models
        self._body = body_in(raw, BatchBody)
        self._address = models.address(self._body)
        _check_rows(self._body, max_rows)
        handles = models.admitted(self._address, len(self._body.batch_data_list))
        self._specs = specs_of(handle.servable.signature for handle in handles)
        self._needs_user = any(handle.hosts for handle in handles)
        self._failed: dict[int, RowReply] = {}
        self._cases: list[_Case] = []
        self._answers: dict[int, RowReply] = {}
        self._model: ModelId | None = None
        self.unexplained: list[int] = []
        """Places of rows that lack a host's part for a reason that only a call of their own tells."""
        self._answered = Counter[ModelId]()
        for row in self._body.batch_data_list:
            self._take(row, self._specs)
        self._occasion = models.begun(handles, (case.user for case in self._cases), self._body)

    def _take(self, row: RowBody, specs: Specs) -> None:
        try:
            user = user_id_in(row.send_to_remote_feature_data, self._models.user_id)
            if self._needs_user and not user:
                raise InvalidRequestError("sendToRemoteFeatureData names no user, and the model has hosts")
            numbers, texts = features_in(row.feature_data, specs)
            check_row(numbers, texts, specs)
        except (FeatureError, InvalidRequestError) as error:
            self._failed[row.index] = _failed(row.index, error)
        else:
            self._cases.append(_Case(row.index, user, numbers, texts))

    @property
    def is_hopeless(self) -> bool:
        """No row can be asked."""
        return not self._cases

    def decode(self, raw: bytes) -> Request:
        service, model, version = self._address
        return Request(
            service=service,
            model=model,
            version=version,
            case_id="",
            user_ids=tuple(case.user for case in self._cases),
            numbers={
                name: [case.numbers.get(name, math.nan) for case in self._cases]
                for name, spec in self._specs.items()
                if not spec.is_text
            },
            texts={
                name: [case.texts.get(name) for case in self._cases]
                for name, spec in self._specs.items()
                if spec.is_text
            },
            columnar=True,
        )

    @property
    def places(self) -> Sequence[int]:
        """Of the rows that can be asked."""
        return range(len(self._cases))

    def row_by_row(self, raw: bytes, places: Sequence[int]) -> list[Request]:
        """Some of the rows as calls of their own."""
        whole = self.decode(raw)
        return [whole.select([place]) for place in places]

    def encode(self, response: Response, level: CacheLevel) -> bytes:
        self._model = _answering(response, 0)
        self.unexplained = []
        self._answered.clear()
        for place in self.places:
            self._answers[place] = self._row(response, place, place)
        return self._reply()

    def encode_each(self, places: Sequence[int], answers: Sequence[Response | BaseException]) -> bytes:
        """Of rows that were asked one by one. What they were told before stays where a host says nothing now."""
        for place, answer in zip(places, answers, strict=True):
            if isinstance(answer, Response):
                self._answers[place] = self._row(answer, 0, place)
            elif not isinstance(answer, Exception):
                raise answer
            elif place not in self._answers or (isinstance(answer, PeerError) and answer.failure is not None):
                self._answers[place] = _failed(self._cases[place].index, answer)
        self._model = self._model or next(iter(self._answered), None)
        return self._reply()

    def refusal(self) -> bytes:
        """The reply when no row could be asked."""
        return self._reply()

    def count(self) -> None:
        """For the figures of the models, once the reply is there."""
        for model, rows in self._answered.items():
            self._models.answered(model, rows)
        lost = len(self._body.batch_data_list) - self._answered.total()
        if lost:
            self._models.failed(self._address, "", InvalidRequestError("rows failed"), lost)

    def count_failure(self, error: Exception) -> None:
        self._models.failed(self._address, "", error, len(self._body.batch_data_list))

    def _row(self, response: Response, row: int, place: int) -> RowReply:
        """Of a row of the response, which is the one at this place here."""
        index = self._cases[place].index
        lacking = next((one for one in response.parties if one.statuses[row]), None)
        if lacking is not None and not np.isfinite(response.scores[row]).all():
            status = lacking.statuses[row]
            if status in _SEVERAL:
                self.unexplained.append(place)
            code, text = host_failure(HostFailure(lacking.party, status))
            return RowReply(index=index, retcode=code, retmsg=text)
        model = _answering(response, row)
        self._answered[model] += 1
        return RowReply(index=index, data=self._models.scored(response, row, model))

    def _reply(self) -> bytes:
        rows = sorted([*self._failed.values(), *self._answers.values()], key=lambda row: row.index)
        described: dict[str, Any] = self._models.described(self._model or self._models.handles(self._address)[0].id)
        by_index = {str(row.index): row for row in rows}
        caseid = self._body.case or secrets.token_hex(16)
        return message_of(BatchReply(caseid=caseid, data=described, batch_data_list=rows, by_index=by_index))


def _failed(index: int, error: Exception) -> RowReply:
    code, _, text = failure(error)
    return RowReply(index=index, retcode=code, retmsg=text)


def _answering(response: Response, row: int) -> ModelId:
    """The version that answered a row."""
    if response.model:
        return ModelId(response.model, response.version)
    model, _, version = response.variants[row].partition(":")
    return ModelId(model, version)


def _check_rows(body: BatchBody, max_rows: int) -> None:
    indices = [row.index for row in body.batch_data_list]
    if not indices or len(set(indices)) != len(indices):
        raise InvalidRequestError("batchDataList holds no rows, or one index twice")
    if len(indices) > max_rows:
        raise LimitError(f"{len(indices)} rows in one call, the limit is {max_rows}")

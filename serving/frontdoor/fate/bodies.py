"""JSON bodies of FATE-Serving's inference: what callers send, and what they get. Unknown keys are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import DecodeError

from serving.errors import InvalidRequestError
from serving.peers.occasions import Occasion
from tessera.compat import fate_inference_pb2 as wire

Word = str | int | None
"""A name, which callers also spell as a number."""


class NamedBody(msgspec.Struct, rename="camel", kw_only=True):
    """What a call is about. `model_id` and `model_version`, FATE's namespace and table, count where there is no
    `service_id`, and the party where there are none of these: callers of FATE-Serving 1 send them."""

    service_id: Word = None
    model_id: Word = None
    model_version: Word = None
    appid: Word = None
    party_id: Word = None
    case_id: Word = None
    caseid: Word = None
    apply_id: Word = None

    @property
    def service(self) -> str:
        return _text(self.service_id)

    @property
    def namespace(self) -> str:
        return _text(self.model_id)

    @property
    def table(self) -> str:
        return _text(self.model_version)

    @property
    def party(self) -> str:
        return _text(self.appid) or _text(self.party_id)

    @property
    def case(self) -> str:
        return _text(self.case_id) or _text(self.caseid)

    @property
    def occasion(self) -> Occasion:
        """What hosts hear of the call."""
        return Occasion(self.service, _text(self.apply_id), self.case)

    @property
    def is_first_line(self) -> bool:
        """Whether it names what answers as only callers of FATE-Serving 1.0 and 1.1 do."""
        return not self.service and bool(self.namespace or self.party)


def _text(word: Word) -> str:
    return "" if word is None else str(word)


class SingleBody(NamedBody, rename="camel", kw_only=True):
    """`send_to_remote_feature_data` names the user to the hosts."""

    feature_data: dict[str, Any]
    send_to_remote_feature_data: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET

    def sent(self, user_id: str) -> dict[str, Any]:
        """What names the user to the hosts; callers of FATE-Serving 1 have it among the features, as `user_id`."""
        if self.send_to_remote_feature_data is not msgspec.UNSET:
            return self.send_to_remote_feature_data
        return {user_id: self.feature_data[user_id]} if user_id and user_id in self.feature_data else {}


class RowBody(msgspec.Struct, rename="camel"):
    index: int
    feature_data: dict[str, Any]
    send_to_remote_feature_data: dict[str, Any] = {}


class BatchBody(NamedBody, rename="camel", kw_only=True):
    batch_data_list: list[RowBody]


class Reply(msgspec.Struct, kw_only=True):
    """`data` holds the score, and which model gave it."""

    retcode: int = 0
    retmsg: str = ""
    caseid: str = ""
    data: dict[str, Any] = {}
    log: dict[str, Any] = {}
    warn: dict[str, Any] = {}
    flag: int = 0


class RowReply(msgspec.Struct, kw_only=True):
    index: int
    retcode: int = 0
    retmsg: str = ""
    data: dict[str, Any] | None = None


class BatchReply(Reply, rename={"batch_data_list": "batchDataList", "by_index": "singleInferenceResultMap"}):
    """Every row stands in both, as callers of FATE-Serving know it."""

    batch_data_list: list[RowReply] = []
    by_index: Mapping[str, RowReply] = {}


Body = TypeVar("Body", bound=NamedBody)


def body_in(raw: bytes, kind: type[Body]) -> Body:
    """Of a serialised InferenceMessage. Raises InvalidRequestError."""
    try:
        content = wire.InferenceMessage.FromString(raw).body
    except DecodeError:
        raise InvalidRequestError("the request is no InferenceMessage") from None
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequestError(f"the body cannot be used: {error}") from None


def message_of(reply: Reply) -> bytes:
    return wire.InferenceMessage(body=msgspec.json.encode(reply)).SerializeToString()

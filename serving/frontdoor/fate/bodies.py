"""JSON bodies of FATE-Serving's inference: what callers send, and what they get. Unknown keys are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import DecodeError

from serving.errors import InvalidRequestError
from tessera.compat import fate_inference_pb2 as wire


class NamedBody(msgspec.Struct, rename="camel", kw_only=True):
    """`model_id` and `model_version`, FATE's namespace and table, count where there is no `service_id`: callers of
    FATE-Serving 1 send them."""

    service_id: str | None = None
    case_id: str | None = None
    model_id: str | None = None
    model_version: str | None = None


class SingleBody(NamedBody, rename="camel", kw_only=True):
    """`send_to_remote_feature_data` names the user to the hosts."""

    feature_data: dict[str, Any]
    send_to_remote_feature_data: dict[str, Any] = {}


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

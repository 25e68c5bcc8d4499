"""Messages of the protocol over gRPC to tensors and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import DecodeError

from serving.errors import InvalidRequestError
from serving.frontdoor.oip.classes import classes_in
from serving.frontdoor.oip.figures import Figures
from serving.frontdoor.oip.models import ModelView
from serving.frontdoor.oip.rows import Answered, Asked, check_offered
from serving.frontdoor.oip.tensors import BF16, BYTES, Tensor, from_raw, from_values, to_raw
from tessera.compat import open_inference_pb2 as wire

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""FP16 and BF16 travel raw alone."""


def parse(raw: bytes) -> wire.ModelInferRequest:
    try:
        return wire.ModelInferRequest.FromString(raw)
    except DecodeError:
        raise InvalidRequestError("the request is not an inference.ModelInferRequest") from None


def asked(message: wire.ModelInferRequest) -> Asked:
    check_offered([one.parameters for one in message.inputs] + [one.parameters for one in message.outputs])
    return Asked(
        model=message.model_name,
        version=message.model_version,
        id=message.id,
        parameters=_parameters(message.parameters),
        inputs=_raw_inputs(message) if message.raw_input_contents else [_typed(one) for one in message.inputs],
        outputs=tuple(one.name for one in message.outputs),
        classes=tuple(classes_in(_parameters(one.parameters)) for one in message.outputs),
    )


def _parameters(given: Mapping[str, wire.InferParameter]) -> dict[str, Any]:
    return {name: getattr(one, one.WhichOneof("parameter_choice") or "string_param") for name, one in given.items()}


def _raw_inputs(message: wire.ModelInferRequest) -> list[Tensor]:
    if any(one.HasField("contents") for one in message.inputs):
        raise InvalidRequestError("inputs carry `contents` although `raw_input_contents` is there")
    if len(message.raw_input_contents) != len(message.inputs):
        raise InvalidRequestError(f"{len(message.raw_input_contents)} raw contents for {len(message.inputs)} inputs")
    return [
        from_raw(one.name, one.datatype, one.shape, raw)
        for one, raw in zip(message.inputs, message.raw_input_contents, strict=True)
    ]


def _typed(one: wire.ModelInferRequest.InferInputTensor) -> Tensor:
    if one.datatype in {"FP16", BF16}:
        raise InvalidRequestError(f"input {one.name!r}: {one.datatype} travels in raw_input_contents only")
    return from_values(one.name, one.datatype, one.shape, getattr(one.contents, _CONTENTS.get(one.datatype, BYTES), ()))


def _reply(answered: Answered) -> wire.ModelInferResponse:
    reply = wire.ModelInferResponse(model_name=answered.model, model_version=answered.version)
    for name, value in answered.parameters.items():
        kind = "bool_param" if isinstance(value, bool) else "string_param"
        setattr(reply.parameters[name], kind, value)
    for tensor in answered.outputs:
        reply.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.array.shape)
    return reply


def raw_reply(answered: Answered) -> bytes:
    reply = _reply(answered)
    reply.raw_output_contents.extend(map(to_raw, answered.outputs))
    return reply.SerializeToString()


def typed_reply(answered: Answered) -> bytes:
    if any(tensor.datatype == "FP16" for tensor in answered.outputs):
        return raw_reply(answered)
    reply = _reply(answered)
    for tensor, output in zip(answered.outputs, reply.outputs, strict=True):
        getattr(output.contents, _CONTENTS[tensor.datatype]).extend(_elements(tensor))
    return reply.SerializeToString()


def _elements(tensor: Tensor) -> list[Any]:
    flat = tensor.array.ravel()
    if flat.dtype.kind == "f" and tensor.datatype not in {"FP32", "FP64"}:
        flat = flat.astype("i8")
    elements: list[Any] = flat.tolist()
    return elements


def config(view: ModelView, max_rows: int) -> wire.ModelConfig:
    return wire.ModelConfig(
        name=view.name,
        platform=view.platform,
        backend="tessera",
        max_batch_size=max_rows,
        input=[
            wire.ModelInput(
                name=one.name, data_type=_data_type(one.datatype), dims=one.shape[1:], optional=one.optional
            )
            for one in view.inputs()
        ],
        output=[
            wire.ModelOutput(name=one.name, data_type=_data_type(one.datatype), dims=one.shape[1:])
            for one in view.outputs()
        ],
        model_transaction_policy=wire.ModelTransactionPolicy(decoupled=False),
        response_cache=wire.ModelResponseCache(enable=True),
    )


def _data_type(datatype: str) -> Any:
    return wire.DataType.Value(f"TYPE_{'STRING' if datatype == BYTES else datatype}")


def statistics(view: ModelView, figures: Figures) -> wire.ModelStatistics:
    return wire.ModelStatistics(
        name=view.name,
        version=view.versions[0],
        last_inference=figures.last_ms,
        inference_count=figures.rows,
        execution_count=figures.executions,
        inference_stats=wire.InferStatistics(
            success=wire.StatisticDuration(
                count=figures.succeeded + figures.hits, ns=figures.succeeded_ns + figures.hits_ns
            ),
            fail=wire.StatisticDuration(count=figures.failed, ns=figures.failed_ns),
            compute_infer=wire.StatisticDuration(count=figures.succeeded, ns=figures.succeeded_ns),
            cache_hit=wire.StatisticDuration(count=figures.hits, ns=figures.hits_ns),
            cache_miss=wire.StatisticDuration(count=figures.succeeded, ns=figures.succeeded_ns),
        ),
        batch_stats=[
            wire.InferBatchStatistics(batch_size=rows, compute_infer=wire.StatisticDuration(count=count, ns=took_ns))
            for rows, (count, took_ns) in sorted(figures.batches.items())
        ],
        memory_usage=[wire.MemoryUsage(type="CPU", byte_size=view.bytes)],
    )

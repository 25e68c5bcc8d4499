"""What a user of kserve's client does with a node. Its pins are its own, so it runs in an environment of its own,
`python kserve_client.py SERVICE HTTP`, imports nothing of ours and prints JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import httpx
import numpy as np
from google.protobuf import json_format
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as wire
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from kserve.protocol.infer_type import RequestedOutput

CASE = {"a": 0.25, "b": -1.5}
ROWS = [[0.0, 0.25], [1.0, 0.0]]
EVERYONE = ["0001", "0002", "stranger"]
WORDS = ["red", "grün", "", "GRÜN"]
DTYPES: dict[str, Any] = {"FP64": np.float64, "FP32": np.float32, "FP16": np.float16, "BYTES": np.object_}

Infer = Callable[[Any], Awaitable[Any]]
Steps = dict[str, Awaitable[Any]]


def tensor(name: str, datatype: str, rows: Any, binary: bool) -> Any:
    array = np.array(rows, dtype=DTYPES[datatype])
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def texts(name: str, values: list[str], binary: bool) -> Any:
    return tensor(name, "BYTES", [[one.encode()] for one in values], binary)


def request(users: list[str], datatype: str = "FP64", binary: bool = True, model: str = "s", **further: Any) -> Any:
    numbers = [tensor(name, datatype, [[value]] * len(users), binary) for name, value in CASE.items()]
    inputs = [texts("user_id", users, binary), *numbers]
    return InferRequest(model_name=model, infer_inputs=inputs, **{"request_id": "r-1", **further})


def local(binary: bool) -> Any:
    return InferRequest(model_name="local", infer_inputs=[tensor("x", "FP32", ROWS, binary)])


def words(binary: bool) -> Any:
    return InferRequest(model_name="words", infer_inputs=[texts("colour", WORDS, binary)])


def read(output: Any) -> Any:
    """Texts are bytes where they came raw, or over gRPC."""
    flat = output.as_numpy().ravel().tolist()
    return np.reshape([one.decode() if isinstance(one, bytes) else one for one in flat], output.shape).tolist()


def outputs(response: Any) -> dict[str, Any]:
    return {one.name: read(one) for one in response.outputs}


def shown(response: Any) -> dict[str, Any]:
    found = outputs(response)
    return {
        "score": found["score"],
        "status": [one for [one] in found["fed_status_shop"]],
        "id": response.id,
        "version": response.model_version,
    }


def inference(infer: Infer, case: str) -> Steps:
    async def scored(*given: Any, **options: Any) -> dict[str, Any]:
        return shown(await infer(request(*given, **options)))

    async def all_of(asked: Any) -> dict[str, Any]:
        return outputs(await infer(asked))

    return {
        "infer": scored(["0001"]),
        "batch": scored(EVERYONE),
        "typed": scored(EVERYONE, binary=False),
        "fp32": scored(["0001"], "FP32"),
        "fp16": scored(["0001"], "FP16"),
        "first": scored(["0001"], request_id="x", parameters={"case_id": case}),
        "again": scored(["0001"], request_id="y", parameters={"case_id": case}),
        "local": all_of(local(binary=True)),
        "local_typed": all_of(local(binary=False)),
        "words": all_of(words(binary=True)),
        "words_typed": all_of(words(binary=False)),
        "one_output": all_of(request(["0001"], request_outputs=[RequestedOutput("score")])),
    }


async def together(infer: Infer) -> list[Any]:
    answers = await asyncio.gather(*(infer(request([user])) for user in ("0001", "0002", "0003")))
    return [shown(one)["score"][0] for one in answers]


async def refused(call: Awaitable[object]) -> list[str]:
    try:
        await call
    except grpc.RpcError as error:
        return [str(error.code()), str(error.details())]
    except httpx.HTTPStatusError as error:
        return [str(error.response.status_code), error.response.text]
    raise AssertionError("was not refused")


async def done(steps: Steps) -> dict[str, Any]:
    """One after the other."""
    return {name: await step for name, step in steps.items()}


async def over_grpc(address: str) -> dict[str, Any]:
    async with InferenceGRPCClient(address) as client:
        return await done(
            {
                "live": client.is_server_live(),
                "ready": client.is_server_ready(),
                "model_ready": client.is_model_ready("s"),
                "none_ready": client.is_model_ready("none"),
                **inference(client.infer, "grpc"),
                "together": together(client.infer),
                "unknown": refused(client.infer(request(["0001"], model="none"))),
            }
        )


async def over_http(address: str) -> dict[str, Any]:
    base = f"http://{address}"
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:

        def infer(asked: Any) -> Awaitable[Any]:
            return client.infer(base, asked, model_name=asked.model_name)

        binary = request(EVERYONE, parameters={"binary_data_output": True})
        forms = {"score": {"binary_data": True}, "fed_status_shop": {"binary_data": False}}
        mixed = request(EVERYONE, request_outputs=[RequestedOutput(*one) for one in forms.items()])
        return await done(
            {
                "live": client.is_server_live(base),
                "ready": client.is_server_ready(base),
                "model_ready": client.is_model_ready(base, "s"),
                "none_ready": client.is_model_ready(base, "none"),
                **inference(infer, "http"),
                "together": together(infer),
                "binary_output": answered(infer(binary)),
                "mixed_output": answered(infer(mixed)),
                "unknown": refused(infer(request(["0001"], model="none"))),
            }
        )


async def answered(reply: Awaitable[Any]) -> dict[str, Any]:
    return shown(await reply)


async def described(call: Awaitable[Any]) -> Any:
    return json_format.MessageToDict(await call, preserving_proto_field_name=True)


async def by_messages(address: str) -> dict[str, Any]:
    """The methods of its stub that its client does not show. Its messages of model control are none of Triton's."""
    async with grpc.aio.insecure_channel(address) as link:
        service = GRPCInferenceServiceStub(link)
        return await done(
            {
                "server": described(service.ServerMetadata(wire.ServerMetadataRequest())),
                "metadata": described(service.ModelMetadata(wire.ModelMetadataRequest(name="s"))),
                "words_metadata": described(service.ModelMetadata(wire.ModelMetadataRequest(name="words"))),
                "version_ready": described(service.ModelReady(wire.ModelReadyRequest(name="m", version="1"))),
                "unknown": refused(service.ModelMetadata(wire.ModelMetadataRequest(name="none"))),
            }
        )


async def main() -> None:
    service, http = sys.argv[1:]
    said = {"grpc": await over_grpc(service), "http": await over_http(http), "messages": await by_messages(service)}
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(main())

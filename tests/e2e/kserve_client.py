"""What a user of kserve's client does with a node. Its pins are its own, so it runs in an environment of its own,
`python kserve_client.py SERVICE HTTP`, imports nothing of ours and prints JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

CASE = {"a": 0.25, "b": -1.5}
ROWS = [[0.0, 0.25], [1.0, 0.0]]


def request(users: list[str], model: str = "s") -> Any:
    user = InferInput("user_id", [len(users), 1], "BYTES")
    user.set_data_from_numpy(np.array([[one.encode()] for one in users], dtype=np.object_))
    tensors = [user]
    for name, value in CASE.items():
        tensor = InferInput(name, [len(users), 1], "FP64")
        tensor.set_data_from_numpy(np.full((len(users), 1), value))
        tensors.append(tensor)
    return InferRequest(model_name=model, infer_inputs=tensors, request_id="r-1")


def local() -> Any:
    tensor = InferInput("x", [len(ROWS), 2], "FP32")
    tensor.set_data_from_numpy(np.array(ROWS, dtype=np.float32))
    return InferRequest(model_name="local", infer_inputs=[tensor])


def shown(response: Any) -> dict[str, Any]:
    outputs = {one.name: one for one in response.outputs}
    statuses = outputs["fed_status_shop"].as_numpy().ravel().tolist()
    return {
        "score": outputs["score"].as_numpy().tolist(),
        "status": [one.decode() if isinstance(one, bytes) else one for one in statuses],
        "id": response.id,
        "version": response.model_version,
    }


async def over_grpc(address: str) -> dict[str, Any]:
    async with InferenceGRPCClient(address) as client:
        steps = {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model_ready": await client.is_model_ready("s"),
            "infer": shown(await client.infer(request(["0001"]))),
            "batch": shown(await client.infer(request(["0001", "0002", "stranger"]))),
            "same": {one.name: one for one in (await client.infer(local())).outputs}["same"].as_numpy().tolist(),
        }
        try:
            await client.infer(request(["0001"], "none"))
        except grpc.RpcError as error:
            steps["unknown"] = [str(error.code()), str(error.details())]
    return steps


async def over_http(address: str) -> dict[str, Any]:
    base = f"http://{address}"
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        steps = {
            "live": await client.is_server_live(base),
            "ready": await client.is_server_ready(base),
            "model_ready": await client.is_model_ready(base, "s"),
            "infer": shown(await client.infer(base, request(["0001"]), model_name="s")),
            "batch": shown(await client.infer(base, request(["0001", "0002", "stranger"]), model_name="s")),
        }
        try:
            await client.infer(base, request(["0001"], "none"), model_name="none")
        except httpx.HTTPStatusError as error:
            steps["unknown"] = [str(error.response.status_code), error.response.text]
    return steps


async def main() -> None:
    service, http = sys.argv[1:]
    sys.stdout.write(json.dumps({"grpc": await over_grpc(service), "http": await over_http(http)}))


if __name__ == "__main__":
    asyncio.run(main())

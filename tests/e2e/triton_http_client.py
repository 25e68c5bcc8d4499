"""What a user of tritonclient's HTTP form does with a node, `python triton_http_client.py ADDRESS`; prints JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

CASE = {"a": 0.25, "b": -1.5}


def inputs(users: list[str], binary: bool) -> list[Any]:
    shape = [len(users), 1]
    user = triton.InferInput("user_id", shape, "BYTES")
    user.set_data_from_numpy(np.array([[one.encode()] for one in users], dtype=np.object_), binary_data=binary)
    made = [user]
    for name, value in CASE.items():
        tensor = triton.InferInput(name, shape, "FP64")
        tensor.set_data_from_numpy(np.full(shape, value), binary_data=binary)
        made.append(tensor)
    return made


def shown(result: Any) -> dict[str, Any]:
    status = result.as_numpy("fed_status_shop").ravel().tolist()
    return {
        "score": result.as_numpy("score").tolist(),
        "status": [one.decode() if isinstance(one, bytes) else one for one in status],
        "id": result.get_response().get("id"),
    }


def refused(call: Callable[[], object]) -> list[str]:
    try:
        call()
    except InferenceServerException as error:
        return [str(error.status()), str(error.message())]
    raise AssertionError("was not refused")


def outputs(binary: bool) -> list[Any]:
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in ("score", "fed_status_shop")]


def compressed(client: Any, form: str) -> Any:
    """Both ways: the scores."""
    options = {"request_compression_algorithm": form, "response_compression_algorithm": form}
    asked, wanted = inputs(["0001"] * 1_000, binary=True), outputs(binary=form == "deflate")
    return client.infer("s", asked, outputs=wanted, **options).as_numpy("score").tolist()


def classes(client: Any, binary: bool) -> Any:
    """The larger of two columns, by Triton's classification."""
    tensor = triton.InferInput("x", [2, 2], "FP32")
    tensor.set_data_from_numpy(np.array([[0.0, 0.25], [1.0, 0.5]], dtype=np.float32))
    wanted = [triton.InferRequestedOutput("same", binary_data=binary, class_count=1)]
    return client.infer("local", [tensor], outputs=wanted).as_numpy("same").astype(str).tolist()


def main() -> None:
    client = triton.InferenceServerClient(sys.argv[1])
    steps: dict[str, Callable[[], Any]] = {
        "live": client.is_server_live,
        "ready": client.is_server_ready,
        "model_ready": lambda: client.is_model_ready("s"),
        "none_ready": lambda: client.is_model_ready("none"),
        "server": client.get_server_metadata,
        "metadata": lambda: client.get_model_metadata("s"),
        "config": lambda: client.get_model_config("s"),
        "binary": lambda: shown(client.infer("s", inputs(["0001", "0002"], binary=True), request_id="r")),
        "mixed": lambda: shown(client.infer("s", inputs(["0001"], binary=True), outputs=outputs(binary=False))),
        "gzip": lambda: compressed(client, "gzip"),
        "deflate": lambda: compressed(client, "deflate"),
        "json": lambda: shown(client.infer("s", inputs(["0003"], binary=False), outputs=outputs(binary=False))),
        "classes": lambda: [classes(client, binary) for binary in (True, False)],
        "statistics": lambda: client.get_inference_statistics("s"),
        "index": client.get_model_repository_index,
        "unknown": lambda: refused(lambda: client.infer("none", inputs(["0001"], binary=True))),
        "load": lambda: refused(lambda: client.load_model("m")),
    }
    sys.stdout.write(json.dumps({name: step() for name, step in steps.items()}))


if __name__ == "__main__":
    main()

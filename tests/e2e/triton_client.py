"""What a user of tritonclient does with a node. Two packages that define `inference.*` cannot live in one process, so
this runs as one of its own, `python triton_client.py SERVICE ADMIN`, imports nothing of ours and prints JSON."""

from __future__ import annotations

import json
import queue
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

KINDS: dict[str, Any] = {"FP64": np.float64, "FP32": np.float32, "FP16": np.float16, "BF16": ml_dtypes.bfloat16}
CASE = {"a": 0.25, "b": -1.5}


def inputs(users: list[str], datatype: str = "FP64") -> list[Any]:
    count = len(users)
    user = triton.InferInput("user_id", [count, 1], "BYTES")
    user.set_data_from_numpy(np.array([[one.encode()] for one in users], dtype=np.object_))
    made = [user]
    for name, value in CASE.items():
        tensor = triton.InferInput(name, [count, 1], datatype)
        tensor.set_data_from_numpy(np.full((count, 1), value, dtype=KINDS[datatype]))
        made.append(tensor)
    return made


def numbers_for(name: str) -> Any:
    tensor = triton.InferInput(name, [1, 1], "FP64")
    tensor.set_data_from_numpy(np.array([[1.0]]))
    return tensor


def shown(result: Any) -> dict[str, Any]:
    response = result.get_response()
    return {
        "score": result.as_numpy("score").tolist(),
        "status": [one.decode() for [one] in result.as_numpy("fed_status_shop").tolist()],
        "id": response.id,
        "model": response.model_name,
        "version": response.model_version,
        "raw": len(response.raw_output_contents) > 0,
        "last": response.parameters["triton_final_response"].bool_param,
    }


def local(client: Any, model: str) -> dict[str, Any]:
    """An ONNX model: several rows, of users that meet different versions, all outputs."""
    rows = [[0.0, 0.25], [1.0, 0.0], [0.5, 0.75], [2.0, 0.0], [0.0, 3.0]]
    tensor = triton.InferInput("x", [len(rows), 2], "FP32")
    tensor.set_data_from_numpy(np.array(rows, dtype=np.float32))
    user = triton.InferInput("user_id", [len(rows), 1], "BYTES")
    user.set_data_from_numpy(np.array([[f"user {row}".encode()] for row in range(len(rows))], dtype=np.object_))
    result = client.infer(model, [user, tensor])
    shown = {name: result.as_numpy(name).tolist() for name in ("score", "same", "larger")}
    words = [[one.decode() for one in row] for row in result.as_numpy("word").tolist()]
    return {**shown, "word": words, "names": [one.name for one in result.get_response().outputs]}


def classes(client: Any) -> Any:
    """The larger of two columns, by Triton's classification."""
    tensor = triton.InferInput("x", [2, 2], "FP32")
    tensor.set_data_from_numpy(np.array([[0.0, 0.25], [1.0, 0.5]], dtype=np.float32))
    wanted = [triton.InferRequestedOutput("same", class_count=1)]
    return client.infer("local", [tensor], outputs=wanted).as_numpy("same").astype(str).tolist()


def coloured(client: Any) -> list[list[float]]:
    """A model of one text."""
    words = ["red", "grün", "", "GRÜN"]
    tensor = triton.InferInput("colour", [len(words), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[word.encode()] for word in words], dtype=np.object_))
    scores: list[list[float]] = client.infer("words", [tensor]).as_numpy("score").tolist()
    return scores


def refused(call: Callable[[], object]) -> list[str]:
    try:
        call()
    except InferenceServerException as error:
        return [str(error.status()), str(error.message())]
    raise AssertionError("was not refused")


def streamed(client: Any) -> list[Any]:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    client.async_stream_infer("s", inputs(["0001"]), request_id="one")
    client.async_stream_infer("none", inputs(["0001"]), request_id="two")
    client.async_stream_infer("s", inputs(["0002"]), request_id="three", enable_empty_final_response=True)
    got = [answers.get(timeout=10) for _ in range(3)]
    client.stop_stream()
    return [shown(result) if error is None else str(error) for result, error in got]


def awaited(client: Any) -> dict[str, Any]:
    answers: queue.Queue[Any] = queue.Queue()
    client.async_infer("s", inputs(["0003"]), callback=lambda result, error: answers.put((result, error)))
    result, error = answers.get(timeout=10)
    assert error is None, error
    return shown(result)


Steps = dict[str, Callable[[], Any]]


def inference(service: Any) -> Steps:
    everyone = ["0001", "0002", "stranger"]
    return {
        "live": service.is_server_live,
        "ready": service.is_server_ready,
        "model_ready": lambda: service.is_model_ready("s"),
        "version_ready": lambda: service.is_model_ready("m", "1"),
        "none_ready": lambda: service.is_model_ready("none"),
        "server": lambda: service.get_server_metadata(as_json=True),
        "metadata": lambda: service.get_model_metadata("s", as_json=True),
        "config": lambda: service.get_model_config("s", as_json=True),
        "infer": lambda: shown(service.infer("s", inputs(["0001"]), request_id="r-1")),
        "explicit": lambda: shown(service.infer("m", inputs(["0001"]), model_version="1")),
        "batch": lambda: shown(service.infer("s", inputs(everyone))),
        "fp32": lambda: shown(service.infer("s", inputs(["0001"], "FP32"))),
        "fp16": lambda: shown(service.infer("s", inputs(["0001"], "FP16"))),
        "bf16": lambda: shown(service.infer("s", inputs(["0001"], "BF16"))),
        "one_output": lambda: [
            one.name
            for one in service.infer("s", inputs(["0001"]), outputs=[triton.InferRequestedOutput("score")])
            .get_response()
            .outputs
        ],
        "case": lambda: [
            shown(service.infer("s", inputs(["0001"]), request_id=one, parameters={"case_id": "c"})) for one in "xy"
        ],
        "async": lambda: awaited(service),
        "stream": lambda: streamed(service),
        "statistics": lambda: service.get_inference_statistics("s", as_json=True),
        "local": lambda: local(service, "local"),
        "split": lambda: local(service, "split"),
        "classes": lambda: classes(service),
        "words": lambda: coloured(service),
        "words_metadata": lambda: service.get_model_metadata("words", as_json=True),
        "numbers_for_words": lambda: refused(lambda: service.infer("words", [numbers_for("colour")])),
        "local_metadata": lambda: service.get_model_metadata("local", as_json=True),
        "unknown": lambda: refused(lambda: service.infer("none", inputs(["0001"]))),
    }


def control(service: Any, admin: Any) -> Steps:
    return {
        "index": lambda: service.get_model_repository_index(as_json=True),
        "load_here": lambda: refused(lambda: service.load_model("m")),
        "load_file": lambda: refused(lambda: admin.load_model("m", config="{}", files={"file:1/model.onnx": b"x"})),
        "load_unknown": lambda: refused(lambda: admin.load_model("none")),
        "load": lambda: admin.load_model("n"),
        "loaded": lambda: service.is_model_ready("n"),
        "unload": lambda: admin.unload_model("n"),
        "unloaded": lambda: service.is_model_ready("n"),
        "unload_bound": lambda: refused(lambda: admin.unload_model("m")),
        "shared_memory": lambda: refused(service.get_system_shared_memory_status),
        "log": lambda: refused(service.get_log_settings),
        "log_settings": lambda: admin.get_log_settings(as_json=True),
        "log_more": lambda: admin.update_log_settings({"log_verbose_level": 1}, as_json=True),
        "log_less": lambda: admin.update_log_settings({"log_info": False}, as_json=True),
        "log_file": lambda: refused(lambda: admin.update_log_settings({"log_file": "/tmp/x"})),
        "log_as_before": lambda: admin.update_log_settings({"log_info": True, "log_verbose_level": 0}, as_json=True),
        "trace_here": lambda: refused(service.get_trace_settings),
        "trace": lambda: admin.get_trace_settings("s", as_json=True),
        "trace_more": lambda: admin.update_trace_settings(
            settings={"trace_level": ["TIMESTAMPS"], "trace_rate": "1000", "trace_count": "5"}, as_json=True
        ),
        "trace_none": lambda: admin.update_trace_settings(settings={"trace_level": "OFF"}, as_json=True),
        "trace_as_before": lambda: admin.update_trace_settings(
            settings={"trace_level": None, "trace_rate": None, "trace_count": None}, as_json=True
        ),
        "trace_of_model": lambda: refused(lambda: admin.update_trace_settings("s", {"trace_rate": "1"})),
        "trace_of_none": lambda: refused(lambda: admin.get_trace_settings("none")),
        "trace_tensors": lambda: refused(lambda: admin.update_trace_settings(settings={"trace_level": ["TENSORS"]})),
    }


def main() -> None:
    service, admin = (triton.InferenceServerClient(address) for address in sys.argv[1:])
    steps = {**inference(service), **control(service, admin)}
    sys.stdout.write(json.dumps({name: step() for name, step in steps.items()}))


if __name__ == "__main__":
    main()

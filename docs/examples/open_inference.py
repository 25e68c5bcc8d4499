"""Ask a service with tritonclient, as any server of the Open Inference Protocol: one case, several at once, an error.

    pip install 'tritonclient[grpc]'
    python docs/examples/open_inference.py 127.0.0.1:8700 credit

The feature names are those of the model; `a` and `b` here. Its process imports nothing of Tessera.
"""

import sys

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def column(name, datatype, values):
    """One value for each row."""
    array = np.array([[value] for value in values], dtype=np.object_ if datatype == "BYTES" else np.float64)
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def main(target, service):
    client = triton.InferenceServerClient(target)
    for tensor in client.get_model_metadata(service).inputs:
        print(f"input {tensor.name}: {tensor.datatype} {list(tensor.shape)}")

    users, a, b = ["0001", "0002", "nobody"], [0.25, 0.5, 1.0], [-1.5, 0.0, 1.0]
    inputs = [
        column("user_id", "BYTES", [user.encode() for user in users]),
        column("a", "FP64", a),
        column("b", "FP64", b),
    ]
    result = client.infer(service, inputs, client_timeout=1.0)
    status = next(one.name for one in result.get_response().outputs if one.name.startswith("fed_status_"))
    for user, [score], [said] in zip(users, result.as_numpy("score"), result.as_numpy(status), strict=True):
        print(f"{user}: {score:.4f} {said.decode()}")

    case = [column("user_id", "BYTES", [b"0001"]), column("a", "FP64", a[:1]), column("b", "FP64", b[:1])]
    for again in (False, True):
        reply = client.infer(service, case, request_id="r-1", parameters={"case_id": "application 78"}).get_response()
        print(f"case {reply.id} by version {reply.model_version}{', again' if again else ''}")

    try:
        client.infer(service, [case[0], column("height", "FP64", [1.8])])
    except InferenceServerException as error:
        print(f"{error.status()}: {error.message()}")


if __name__ == "__main__":
    main(*sys.argv[1:])

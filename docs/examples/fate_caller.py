"""Ask a service as callers of FATE-Serving do: one case, several at once, a job of FATE-Serving 1, an error.

    python docs/examples/fate_caller.py 127.0.0.1:8700 credit

Any stubs of FATE's inference_service.proto will do. The feature names are those of the model; `a` and `b` here.
"""

import json
import sys
import time

import grpc

from tessera.compat.fate_inference_pb2 import InferenceMessage
from tessera.compat.fate_inference_pb2_grpc import InferenceServiceStub


def asked(method, **body):
    reply = method(InferenceMessage(body=json.dumps(body).encode()), timeout=3.0)
    return json.loads(reply.body)


def main(target, service):
    case = {"featureData": {"a": 0.25, "b": -1.5}, "sendToRemoteFeatureData": {"device_id": "0001"}}
    stranger = {**case, "sendToRemoteFeatureData": {"device_id": "nobody"}}
    with grpc.insecure_channel(target) as channel:
        stub = InferenceServiceStub(channel)

        one = asked(stub.inference, serviceId=service, caseId="application 79", **case)
        print(f"{one['retcode']}: {one['data']['score']:.4f} by {one['data']['modelId']} {one['data']['modelVersion']}")

        rows = [{"index": 0, **case}, {"index": 1, **stranger}]
        many = asked(stub.batchInference, serviceId=service, batchDataList=rows)
        for row in many["batchDataList"]:
            print(f"row {row['index']}: {row['retcode']} {row['retmsg'] or round(row['data']['score'], 4)}")

        job = asked(stub.startInferenceJob, serviceId=service, caseid="application 80", **case)
        while (result := asked(stub.getInferenceResult, caseid=job["caseid"]))["retcode"] == 109:
            time.sleep(0.01)
        print(f"job {result['caseid']}: {result['data']['score']:.4f}")

        wrong = asked(stub.inference, serviceId="nothing", **case)
        print(f"{wrong['retcode']}: {wrong['retmsg']}")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Load by locust, for those who like its console and its way of running on many machines.

    locust -f bench/locustfile.py --host 127.0.0.1:8700 --service credit --features case.json --ids users.txt

Locust's users are greenlets, and each call goes through grpcio's gevent mode: it is slower than `python -m bench.load`,
and waits for replies (a closed loop), so that its latencies hide stalls.
"""

from __future__ import annotations

import itertools
import json
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.experimental.gevent
from locust import User, constant, events, task
from locust.env import Environment

from tessera.v1 import inference_pb2, inference_pb2_grpc

grpc.experimental.gevent.init_gevent()

METHOD = "tessera.v1.Inference/Predict"


@events.init_command_line_parser.add_listener
def options(parser: ArgumentParser) -> None:
    parser.add_argument("--service", default="", help="what to ask; without it the party's default service")
    parser.add_argument("--features", type=Path, required=True, help="JSON file of one case: names to values")
    parser.add_argument("--ids", type=Path, required=True, help="file of user ids, one a line, asked about in turn")
    parser.add_argument("--timeout-s", type=float, default=2.0, help="of a call")


@events.test_start.add_listener
def read_cases(environment: Environment, **_: Any) -> None:
    """One case per id, over and over; all users of this process take from it."""
    given: Any = environment.parsed_options
    features = json.loads(given.features.read_text(encoding="utf-8"))
    numbers = {name: value for name, value in features.items() if isinstance(value, (int, float))}
    texts = {name: value for name, value in features.items() if isinstance(value, str)}
    ids = given.ids.read_text(encoding="utf-8").split()
    PredictUser.cases = itertools.cycle(
        [
            inference_pb2.PredictRequest(service=given.service, user_id=user_id, numbers=numbers, texts=texts)
            for user_id in ids
        ]
    )


class Counted(grpc.UnaryUnaryClientInterceptor):  # type: ignore[misc]
    """Tells locust how each call ended and how long it took."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def intercept_unary_unary(self, call: Callable[..., Any], details: Any, request: Any) -> Any:
        began = time.perf_counter()
        reply = call(details, request)
        failed = reply.exception()
        self._environment.events.request.fire(
            request_type="grpc",
            name=METHOD,
            response_time=1_000 * (time.perf_counter() - began),
            response_length=0 if failed else reply.result().ByteSize(),
            exception=failed,
        )
        return reply


class PredictUser(User):
    """Asks for one prediction after the other over a connection of its own."""

    wait_time = constant(0)
    cases: Iterator[inference_pb2.PredictRequest]

    def on_start(self) -> None:
        own = [("grpc.use_local_subchannel_pool", 1)]
        self._channel = grpc.insecure_channel(self.host, own)
        counted = grpc.intercept_channel(self._channel, Counted(self.environment))
        self._stub = inference_pb2_grpc.InferenceStub(counted)
        self._timeout_s = self.environment.parsed_options.timeout_s

    def on_stop(self) -> None:
        self._channel.close()

    @task
    def predict(self) -> None:
        """Its failure is counted, and the next call goes on."""
        self._stub.Predict.future(next(self.cases), timeout=self._timeout_s).exception()

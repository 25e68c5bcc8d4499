"""A locust user that calls `Predict`, for those who have their dashboards and habits there.

    locust -f bench/locustfile.py --host 127.0.0.1:8700 --service score --numbers '{"income": 1.5}' --users 20

A closed loop in Python threads that take turns: it shows behaviour, not how fast the service is. `python -m bench.load`
loads a hundred times more with one process, and does not hide stalls.
"""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from collections.abc import Callable
from random import Random
from typing import Any

import grpc
import grpc.experimental.gevent as grpc_gevent

grpc_gevent.init_gevent()  # before any channel: calls must yield to the other users of this process

from locust import User, constant_pacing, events, task  # noqa: E402 - after gevent took over
from locust.env import Environment  # noqa: E402

from tessera.v1 import inference_pb2, inference_pb2_grpc  # noqa: E402

_DEADLINE_S = 2.0


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--service", default="", help="what is asked; empty for the party's default service")
    parser.add_argument("--numbers", default="{}", help="features of every request, as JSON")
    parser.add_argument("--user-pattern", default="u{:07d}", help="how a user's number becomes an id")
    parser.add_argument("--distinct-users", type=int, default=10_000, help="users are drawn from so many")
    parser.add_argument("--pace", type=float, default=0.0, help="seconds between two calls of one locust user; 0: none")


_starting: Any = events.init_command_line_parser
_starting.add_listener(add_options)


class Recorder(grpc.UnaryUnaryClientInterceptor):
    """Tells locust of every call: its time, its size, and how it failed."""

    def __init__(self, environment: Environment) -> None:
        self._request: Any = environment.events.request

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        begun = time.perf_counter()
        call = continuation(details, request)
        error = call.exception()
        self._request.fire(
            request_type="grpc",
            name=details.method,
            response_time=(time.perf_counter() - begun) * 1000,
            response_length=0 if error else call.result().ByteSize(),
            response=None if error else call.result(),
            context={},
            exception=error,
        )
        return call


class GrpcUser(User):
    """A user with a channel of its own to `--host`. Subclasses make their stub on `self.channel`."""

    abstract = True

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        link = grpc.insecure_channel(self.host or "", options=(("grpc.use_local_subchannel_pool", 1),))
        self.channel = grpc.intercept_channel(link, Recorder(environment))

    def on_stop(self) -> None:
        self.channel.close()


class PredictUser(GrpcUser):
    """Asks for one user after another."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        self._stub = inference_pb2_grpc.InferenceStub(self.channel)
        chosen: Any = environment.parsed_options
        self._chosen = chosen
        self._numbers = json.loads(chosen.numbers)
        self._random = Random()
        self._pause = constant_pacing(chosen.pace)

    def wait_time(self) -> float:
        return float(self._pause(self))

    @task
    def predict(self) -> None:
        number = self._random.randrange(self._chosen.distinct_users)
        request = inference_pb2.PredictRequest(
            service=self._chosen.service,
            user_id=self._chosen.user_pattern.format(number),
            numbers=self._numbers,
        )
        try:
            self._stub.Predict(request, timeout=_DEADLINE_S)
        except grpc.RpcError:
            return  # locust has it

"""What a node's parts are with and without traces: assembly asks for them here."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any

from serving.admission import Admission
from serving.features.source import FeatureSource
from serving.host import HostSide
from serving.limits import Limiter
from serving.node import Part
from serving.peers.asked import Asked
from serving.peers.batching import Batcher
from serving.peers.hosts import Hosts
from serving.pipeline import Answers, Pipeline
from serving.pool import ModelPool
from serving.publishing import Publishing
from serving.request_log import LoggedPipeline, RequestLog
from serving.routing import RouteTable
from serving.settings import BatchSettings, Settings
from serving.settings_file import SettingsError
from serving.telemetry.exposition import Reading
from serving.telemetry.sending import Export, SpanSending
from serving.telemetry.spans import Watch, unwatched
from serving.telemetry.tracer import Sampling, Tracer, span_metrics
from serving.traced.host import TracedHostSide, TracedSource
from serving.traced.peers import TracedBatcher, TracedChannel, TracedHosts
from serving.traced.pipeline import LoggedTracedPipeline, TracedPipeline
from serving.traced.servers import TracedHttp, TracedServer, watching
from serving.transport import Channel, Server


class Untraced:
    """Parts as they are. `sampling`: None where nothing is traced."""

    sampling: Sampling | None = None

    def server(self, server: Server) -> Server:
        return server

    def http(self, application: Any) -> Any:
        """`application` is of ASGI."""
        return application

    def channel(self, channel: Channel) -> Channel:
        """To a party that may know which trace a call belongs to."""
        return channel

    def batcher(self, party: str, peer: Asked, settings: BatchSettings) -> Batcher:
        del party
        return Batcher(peer, settings)

    def pipeline(
        self,
        log: RequestLog | None,
        routes: RouteTable,
        pool: ModelPool,
        hosts: Hosts,
        answers: Answers,
        limiter: Limiter,
    ) -> Pipeline:
        if log is not None:
            return LoggedPipeline(log, routes, pool, hosts, answers, limiter)
        return Pipeline(routes, pool, hosts, answers, limiter)

    def host_side(self, pool: ModelPool, sources: Mapping[str, FeatureSource], admission: Admission) -> HostSide:
        return HostSide(pool, sources, admission)

    def watching(self, path: str) -> Watch:
        """For requests that come many in one call of this method."""
        del path
        return unwatched

    def parts(self) -> Sequence[Part]:
        return ()

    def readings(self) -> tuple[Reading, ...]:
        return ()

    def follow(self, publishing: Publishing) -> None:
        """What operators choose at run time."""


class Tracing(Untraced):
    """Parts that leave spans, which `export` sends."""

    def __init__(self, settings: Settings, export: Export) -> None:
        self.sampling: Sampling = Sampling(settings.traces)
        self._tracer = Tracer(settings.traces, self.sampling)
        self._sending = SpanSending(self._tracer, export)
        self._has_shared_cache = bool(settings.cache.url)

    def server(self, server: Server) -> Server:
        return TracedServer(server, self._tracer)

    def http(self, application: Any) -> Any:
        return TracedHttp(application, self._tracer)

    def channel(self, channel: Channel) -> Channel:
        return TracedChannel(channel)

    def batcher(self, party: str, peer: Asked, settings: BatchSettings) -> Batcher:
        return TracedBatcher(party, peer, settings)

    def pipeline(
        self,
        log: RequestLog | None,
        routes: RouteTable,
        pool: ModelPool,
        hosts: Hosts,
        answers: Answers,
        limiter: Limiter,
    ) -> Pipeline:
        hosts = TracedHosts(hosts, self._has_shared_cache)
        if log is not None:
            return LoggedTracedPipeline(log, routes, pool, hosts, answers, limiter)
        return TracedPipeline(routes, pool, hosts, answers, limiter)

    def host_side(self, pool: ModelPool, sources: Mapping[str, FeatureSource], admission: Admission) -> HostSide:
        return TracedHostSide(pool, {model: TracedSource(one) for model, one in sources.items()}, admission)

    def watching(self, path: str) -> Watch:
        return watching(path, self._tracer)

    def parts(self) -> Sequence[Part]:
        return (Part(self._sending.start, self._sending.stop),)

    def readings(self) -> tuple[Reading, ...]:
        return (lambda: span_metrics(self._tracer, self._sending.counts),)

    def follow(self, publishing: Publishing) -> None:
        publishing.watch(self.sampling.follow)


def make_tracing(settings: Settings) -> Untraced:
    """Raises SettingsError naming an extra or a variable that is missing."""
    traces = settings.traces
    if not traces.endpoint:
        return Untraced()
    token = os.environ.get(traces.token_env, "") if traces.token_env else ""
    if traces.token_env and not token:
        raise SettingsError([f"traces.token_env: the environment variable {traces.token_env} is not set"])
    try:
        from serving.telemetry.otlp import OtlpExport  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise SettingsError([f"traces need {error.name}: pip install 'tessera-federated[traces]'"]) from None
    return Tracing(settings, OtlpExport(traces, token, settings.party, settings.replica or socket.gethostname()))

"""This party's process: binds the port, opens channels to the others, and runs one job."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving import transport
from training import runner
from training.channels.exchange import Exchange
from training.channels.grpc import GrpcChannel
from training.channels.meeting import Meeting
from training.graph import Graph
from training.party import PartySettings
from training.pool import process_pool
from training.store import JobStore, State, Status
from training.task_context import ATTEMPT, Place, Watcher

_LAST_WORDS_S = 1.0


def job_folder(settings: PartySettings, job: str) -> Path:
    return settings.work_dir / job


def run(graph: Graph, settings: PartySettings, watcher: Watcher) -> JobStore:
    """Run the job to its end. Raises JobError, StoreError, RunError; KeyboardInterrupt when it was told to stop."""
    runner.check_here(graph, settings)
    role = graph.job.role(settings.party).value
    status = Status(graph.job.job, settings.party, role, graph.job.digest)
    with JobStore(job_folder(settings, graph.job.job), status) as store, _logging_to(store.folder / "log"):
        try:
            asyncio.run(_until_signalled(_serve(graph, settings, store, watcher)))
        except asyncio.CancelledError:
            _settle(store, State.STOPPED, "stopped by the operator")
            raise KeyboardInterrupt from None
        except Exception as error:
            _settle(store, State.FAILED, str(error))
            logging.getLogger(__name__).exception("job %s ended without success", graph.job.job)
            raise
    return store


def _settle(store: JobStore, state: State, reason: str) -> None:
    """What ended before it came to run; the runner settles the rest."""
    if store.status.state is State.PENDING:
        store.move(state, reason)


async def _serve(graph: Graph, settings: PartySettings, store: JobStore, watcher: Watcher) -> None:
    exchange, server = Exchange(settings.party), transport.server(transport.Transport.NATIVE)
    exchange.register(server)
    try:
        server.add_port(settings.listen)
    except (OSError, RuntimeError) as error:
        raise runner.RunError(f"party {settings.party} cannot listen on {settings.listen}: {error}") from None
    await server.start()
    pool = process_pool(settings.workers)
    channels = {
        peer: GrpcChannel(exchange, Meeting(graph.job.job, settings.party, peer, ATTEMPT), settings.peers[peer].address)
        for peer in graph.job.parties
        if peer != settings.party
    }
    try:
        await runner.run(graph, Place(settings, channels, pool, store, watcher))
    finally:
        await server.stop(_LAST_WORDS_S)
        pool.shutdown(wait=False, cancel_futures=True)


async def _until_signalled(work: Coroutine[Any, Any, None]) -> None:
    """SIGTERM and SIGINT cancel the work, which then says goodbye to the others."""
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await task


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("training")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()

"""Shared by every suite: a detector that fails a test which blocks the event loop from our own code; transports."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

from serving.transport import Transport

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
"""Nothing is wrong with an example that takes long on a busy machine."""

OURS = ["serving", "loaders", "apps", "training"]
QUICK_ON_GRPCIO = {"test_two_parties"}
"""Whole nodes run on both transports; on grpcio this one belongs to the quick tests, the others to the long ones."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if (
            parameters.get("transport") is Transport.GRPCIO
            and item.module.__name__.rpartition(".")[2] not in QUICK_ON_GRPCIO
        ):
            item.add_marker(pytest.mark.soak)


@pytest.fixture(autouse=True, scope="session")
def no_blocking_calls() -> Iterator[BlockBuster]:
    with blockbuster_ctx(scanned_modules=OURS) as detector:
        for call in ("os.stat", "os.unlink"):
            detector.functions[call].can_block_in("serving/transport/listening.py", {"_unix", "remove_path"})
        # A batch of 8-byte hashes into the page cache, under a lock that workers hold for microseconds.
        for call, callers in (("os.write", {"_append"}), ("os.unlink", {"begin"})):
            detector.functions[call].can_block_in("serving/budget.py", callers)
        # Reads /proc, which waits for no disk.
        for call in ("io.BufferedReader.read", "os.listdir"):
            detector.functions[call].can_block_in("serving/telemetry/exposition.py", {"text"})
        yield detector


@pytest.fixture
def loops_in_threads(no_blocking_calls: BlockBuster) -> Iterator[None]:
    """For tests with several loops, in threads: they may wait for each other, at the lock of coverage's tracer."""
    no_blocking_calls.deactivate()
    try:
        yield
    finally:
        no_blocking_calls.activate()


@pytest.fixture(scope="module")
def untraced() -> Iterator[None]:
    """For suites of what measures: processes that they start are not traced for coverage, which others do for them."""
    with pytest.MonkeyPatch.context() as environ:
        environ.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
        yield


@pytest.fixture(scope="module")
def thawed() -> Iterator[None]:
    """For suites that count what the collector finds: it looks through all that there is again afterwards."""
    yield
    gc.unfreeze()


@pytest.fixture(scope="module", params=Transport, ids=lambda kind: kind.value)
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    """For suites of whole nodes: the transport of the nodes that are started meanwhile."""
    before = os.environ.get("TESSERA_TRANSPORT")
    os.environ["TESSERA_TRANSPORT"] = request.param.value
    yield request.param
    if before is None:
        del os.environ["TESSERA_TRANSPORT"]
    else:
        os.environ["TESSERA_TRANSPORT"] = before

"""Shared by every suite: a detector that fails a test which blocks the event loop from our own code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

OURS = ["serving", "loaders", "apps", "training"]


@pytest.fixture(autouse=True, scope="session")
def no_blocking_calls() -> Iterator[BlockBuster]:
    with blockbuster_ctx(scanned_modules=OURS) as detector:
        for call in ("os.stat", "os.unlink"):
            detector.functions[call].can_block_in("serving/transport/listening.py", {"_unix", "remove_path"})
        yield detector

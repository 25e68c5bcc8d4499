"""Workers with models are replaced one by one: who calls meanwhile notices nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.pool import ModelId
from serving.transport import RpcError
from tests.nodes import PartyNode, worker_pids
from tests.unit.serving.halves import publish

pytestmark = pytest.mark.usefixtures("untraced")


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[PartyNode]:
    node = PartyNode(tmp_path, "bank", "workers = 2\n[cache]\nembedded = false\n")
    publish({"bank": node.registry}, ModelId("m", "1"))
    try:
        node.start()
        node.load("m", "1")
        node.online("s", "m", "1")
        yield node
    finally:
        node.stop()


@pytest.mark.usefixtures("loops_in_threads")
def test_every_call_is_answered_while_the_workers_are_replaced(bank: PartyNode) -> None:
    """Each call has a connection of its own, so that every worker gets some, those too that just began."""
    done = threading.Event()
    answered: list[float] = []
    failed: list[RpcError] = []

    def call() -> None:
        while not done.is_set():
            try:
                answered.append(bank.predict(service="s", numbers={"x": 1.0}).score[0])
            except RpcError as error:
                failed.append(error)

    before = worker_pids(bank)
    callers = [threading.Thread(target=call) for _ in range(3)]
    for caller in callers:
        caller.start()
    assert bank.process is not None
    bank.process.send_signal(signal.SIGHUP)
    try:
        replaced = threading.Event()
        for _ in range(600):
            if len(worker_pids(bank)) == 2 and not worker_pids(bank) & before:
                break
            replaced.wait(0.1)
        else:
            pytest.fail(bank.log)
    finally:
        done.set()
        for caller in callers:
            caller.join(30)
    assert not [caller for caller in callers if caller.is_alive()]
    assert failed == []
    assert len(set(answered)) == 1

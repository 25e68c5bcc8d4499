"""An operator's own app on a real node: brought from a web server, loaded, bound, swapped under calls, found again
after a restart when the server is gone, unloaded."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from serving.pool import ModelId
from serving.transport import Code, RpcError
from tessera.v1 import admin_pb2
from tests.app_sources import store, times
from tests.nodes import ROOT, PartyNode
from tests.unit.serving.halves import publish
from tests.web import shown

pytestmark = pytest.mark.usefixtures("untraced")

SCORE = 1 / (1 + math.exp(-0.5))
"""Of the model for x = 1, before the app."""


class Bank:
    """A guest of two workers without hosts; of app `risk`, versions 1 and 2 are allowed, which double and triple. They
    are behind a URL until `web` is closed."""

    def __init__(self, folder: Path, web: ExitStack) -> None:
        apps = folder / "apps"
        one, two = (store(apps, version, times(float(version) + 1)) for version in ("1", "2"))
        self.barred = store(apps, "3", times(4.0))
        self.web = web
        source = f"[artifacts]\nprotocols = ['http']\n[apps]\nroot = '{web.enter_context(shown(apps))}'\n"
        settings = f"workers = 2\n[cache]\nembedded = false\n{source}allowed = ['{one}', '{two}']\n"
        self.node = PartyNode(folder, "bank", settings)
        publish({"bank": self.node.registry}, ModelId("m", "1"))

    def tessera(self, *arguments: str, code: int = 0) -> str:
        """Runs the command; returns what it prints."""
        command = [sys.executable, "-P", "-m", "serving", *arguments]
        command += ["--config", str(self.node.config)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def factor(self) -> float:
        """By which the app multiplies."""
        return round(self.node.predict(service="s", numbers={"x": 1.0}).score[0] / SCORE, 9)


@pytest.fixture
def bank(tmp_path: Path) -> Iterator[Bank]:
    with ExitStack() as web:
        made = Bank(tmp_path, web)
        try:
            made.node.start()
            yield made
        finally:
            made.node.stop()


def test_the_life_of_an_app(bank: Bank) -> None:
    bank.tessera("model", "load", "m", "1")
    assert f'its digest "{bank.barred}" is not in apps.allowed' in bank.tessera("app", "load", "risk", "3", code=1)
    loaded = bank.tessera("app", "load", "risk", "1")
    assert all(f"/{worker}" in loaded for worker in range(2))
    bank.tessera("model", "online", "s", "m:1", "--app", "risk")
    assert {bank.factor() for _ in range(10)} == {2.0}

    with pytest.raises(RpcError) as failed:
        bank.node.predict(service="s", numbers={"x": 1.0}, parameters={"fail": "1"})
    assert failed.value.code is Code.INTERNAL
    assert failed.value.details.startswith("app 'risk:1' failed in postprocess; request id ")
    assert "a secret of the app" not in failed.value.details
    assert "a secret of the app" in bank.node.log

    swap_under_calls(bank)
    assert {bank.factor() for _ in range(10)} == {3.0}

    bank.web.close()
    bank.node.stop()
    bank.node.start()
    assert {bank.factor() for _ in range(10)} == {3.0}
    with pytest.raises(RpcError, match="app risk:3 cannot be read"):
        bank.node.admin("LoadApp", admin_pb2.LoadAppRequest(name="risk", version="3"))
    assert "service 's'" in bank.tessera("app", "list")
    bank.tessera("model", "rollback", "s")
    assert {bank.factor() for _ in range(10)} == {2.0}

    assert "needed by service 's'" in bank.tessera("app", "unload", "risk", "2", code=1)
    for _ in range(2):
        bank.tessera("model", "online", "s", "m:1", "--app", "passthrough")
    for version in ("1", "2"):
        bank.tessera("app", "unload", "risk", version)
    assert "risk" not in bank.tessera("app", "list")
    assert bank.factor() == 1.0


def swap_under_calls(bank: Bank) -> None:
    """Calls go on while version 2 takes over: every one is answered, by one version or the other."""
    seen: list[float] = []
    done = threading.Event()

    def call() -> None:
        while not done.is_set() or seen[-1] != 3.0:
            seen.append(bank.factor())

    caller = threading.Thread(target=call)
    caller.start()
    try:
        bank.tessera("app", "load", "risk", "2")
        bank.tessera("model", "online", "s", "m:1", "--app", "risk:2")
    finally:
        done.set()
        caller.join(30)
    assert set(seen) == {2.0, 3.0}
    assert not caller.is_alive()

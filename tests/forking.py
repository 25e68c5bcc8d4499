"""Processes that need not import anything: forks of one that has, by `main` of its module. One at a time.

python -m tests.forking MODULE      (started by ForkServer)
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from tests.nodes import ROOT


class Forked:
    """As subprocess.Popen. What it says is in its file."""

    def __init__(self, server: subprocess.Popen[bytes]) -> None:
        assert server.stdout is not None
        self._said = server.stdout
        self.pid = int(self._said.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float) -> int:
        if self.returncode is None:
            if not select.select([self._said], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("fork", timeout)
            self.returncode = int(self._said.readline())
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Of one module, which it has imported when the first process starts. What is killed leaves no figures of
    coverage: there are none."""

    def __init__(self, module: str) -> None:
        command = [sys.executable, "-m", "tests.forking", module]
        environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/proto"}
        environ.pop("COVERAGE_PROCESS_CONFIG", None)
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, env=environ, stdin=pipe, stdout=pipe, bufsize=0)

    def start(self, *arguments: str, output: Path) -> Forked:
        """`main(*arguments)`, whose output goes to the end of the file. The one before must have ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(output), *arguments]).encode() + b"\n")
        return Forked(self._process)

    def close(self) -> None:
        self._process.communicate(timeout=20)


@contextlib.contextmanager
def fork_server(module: str) -> Iterator[ForkServer]:
    server = ForkServer(module)
    try:
        yield server
    finally:
        server.close()


def serve(main: Callable[..., Any]) -> None:
    for line in sys.stdin:
        output, *arguments = json.loads(line)
        process = os.fork()
        if not process:
            end_with(main, arguments, output)
        print(process, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


def end_with(main: Callable[..., Any], arguments: list[str], output: str) -> NoReturn:
    with Path(output).open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.exit(main(*arguments))


if __name__ == "__main__":
    serve(importlib.import_module(sys.argv[1]).main)

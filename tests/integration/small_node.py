"""A node of one port without models, and its supervisor: real processes for tests of their life."""

import argparse
import asyncio
import os
import sys
from functools import partial
from pathlib import Path

from serving import worker, workers
from serving.errors import LimitError
from serving.handover import Handover
from serving.limits import make_limiter
from serving.node import Node, Port
from serving.transport import server


async def slow(payload, call):
    await asyncio.sleep(0.5)
    return payload


async def for_seconds(payload, call):
    await asyncio.sleep(float(payload))
    return payload


async def ready(state_dir):
    """Where there is a file `hold`, a node takes it away and does not become it before there is a file `go`."""
    if (state_dir / "hold").exists():
        (state_dir / "hold").unlink()
        while not (state_dir / "go").exists():
            await asyncio.sleep(0.02)


class Counted:
    """Calls of service `s` under the limits of the node. Those that enter stay."""

    def __init__(self, limiter):
        self._limiter = limiter

    def take(self, payload, call):
        return self._tried(self._limiter.take, 1)

    def enter(self, payload, call):
        return self._tried(self._limiter.enter)

    def _tried(self, ask, *arguments):
        try:
            ask("s", "", *arguments)
        except LimitError:
            return b""
        return b"%d" % os.getpid()


async def assemble(settings, counts):
    made = server(settings.transport)
    counted = Counted(make_limiter(settings, counts))
    made.add_bytes_handler("/test.Limit/Take", counted.take)
    made.add_bytes_handler("/test.Limit/Enter", counted.enter)
    made.add_bytes_handler("/test.Echo/Echo", lambda payload, call: payload)
    made.add_bytes_handler("/test.Echo/Who", lambda payload, call: b"%d" % os.getpid())
    made.add_bytes_handler("/test.Echo/Slow", slow)
    made.add_bytes_handler("/test.Echo/For", for_seconds)
    return Node(
        settings, (Port("service", made, settings.ports.service),), (), partial(ready, Path(settings.state_dir))
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", action="store_true")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--parent", type=int)
    parser.add_argument("--handover", default="{}")
    given = parser.parse_args()
    if given.worker:
        worker.die_with(given.parent)
        return worker.run(given.config, assemble, Handover.decoded(given.handover))
    return workers.supervise(given.config, (sys.executable, "-m", __spec__.name, "--worker"))


if __name__ == "__main__":
    sys.exit(main())

"""A node of one port without models, and its supervisor: real processes for tests of their life."""

import argparse
import asyncio
import os
import sys
from functools import partial
from pathlib import Path

from serving import worker, workers
from serving.handover import Handover
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


async def assemble(settings):
    made = server(settings.transport)
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

"""A node of one port without models, and its supervisor: real processes for tests of their life."""

import argparse
import asyncio
import sys
from pathlib import Path

from serving import worker, workers
from serving.node import Node, Port
from serving.transport import server


async def assemble(settings):
    made = server(settings.transport)
    made.add_bytes_handler("/test.Echo/Echo", lambda payload, call: payload)
    return Node(settings, (Port("service", made, settings.ports.service),), (), lambda: asyncio.sleep(0))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--worker", action="store_true")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--parent", type=int)
    given = parser.parse_args()
    if given.worker:
        worker.die_with(given.parent)
        return worker.run(given.config, assemble)
    return workers.supervise(given.config, (sys.executable, "-m", __spec__.name, "--worker"))


if __name__ == "__main__":
    sys.exit(main())

"""`python -m serving --worker ...` is a worker process; anything else is the command line."""

from __future__ import annotations

import argparse
import gc
import sys
from pathlib import Path


def worker(arguments: list[str]) -> int:
    from serving import worker as process  # noqa: PLC0415 - the command line does without
    from serving.assembly import assemble  # noqa: PLC0415
    from serving.handover import Handover  # noqa: PLC0415

    parser = argparse.ArgumentParser(prog="python -m serving")
    parser.add_argument("--worker", action="store_true", required=True)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--parent", type=int, help="process id to die with")
    parser.add_argument("--handover", help="what the supervisor hands over, as JSON")
    given = parser.parse_args(arguments)
    if given.parent is not None:
        process.die_with(given.parent)
    handover = Handover.decoded(given.handover) if given.handover else Handover()
    return process.run(given.config, assemble, handover)


def main() -> None:
    # Imports and requests leave no cycles; looking for some costs a sixth of a start and a fifth of the path of a hit.
    gc.set_threshold(50_000, 10, 10)
    arguments = sys.argv[1:]
    try:
        if "--worker" in arguments:
            sys.exit(worker(arguments))
        from serving import cli  # noqa: PLC0415

        cli.main()
    finally:
        gc.freeze()  # what was imported ends with the process, which would look through all of it for cycles


if __name__ == "__main__":
    main()

"""Makes changes of one kind in a folder, acknowledges each on standard output, and dies at the n-th step of one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from serving.audit import AuditLog
from serving.cache.keys import load_secret
from serving.control import FileControlStore, State
from serving.control_redis import RedisControlStore
from serving.figures.counts import Subject
from serving.figures.sqlite import SqliteFigureStore
from serving.figures.store import Outcome
from tests.dying import die, watch_steps
from tests.redis_server import url_of

SUBJECT = Subject("credit", "m:1", shadow=False)


def control(folder: Path) -> str:
    store = FileControlStore(folder)
    before = store.read()
    return str(store.compare_and_set(before.revision, State(default_service=f"s{before.revision + 1}")).revision)


def kept(folder: Path) -> str:
    """As a replica keeps what the shared store has."""
    store = FileControlStore(folder)
    newer = State(revision=store.read().revision + 1)
    store.keep({"schema": newer.schema, "revision": newer.revision}, newer)
    return str(newer.revision)


def shared(folder: Path) -> str:
    """As one of several replicas, on the server of the folder."""
    store = RedisControlStore(url_of(folder), "bank", FileControlStore(folder / "state"))
    before = store.read()
    return str(store.compare_and_set(before.revision, State(default_service=f"s{before.revision + 1}")).revision)


def secret(folder: Path) -> str:
    return load_secret(folder / "cache.secret").hex()


def audit(folder: Path) -> str:
    async def change() -> None:
        async with AuditLog(folder).change("anna", "Unload", "m/1"):
            pass

    asyncio.run(change())
    return "done"


def feedback(folder: Path) -> str:
    """Until it is killed; acknowledges as it goes."""
    store = SqliteFigureStore(folder)
    for number in range(1_000_000):
        store.take([Outcome(number.to_bytes(16, "big"), 1, SUBJECT, 7)], 1)
        print(number + 1, flush=True)
    return "all"


CHANGES: dict[str, Callable[[Path], str]] = {
    "control": control,
    "kept": kept,
    "shared": shared,
    "secret": secret,
    "audit": audit,
    "feedback": feedback,
}


def main(kind: str, where: str, dies_at: str) -> None:
    """`dies_at` -1: lives, and tells the steps."""
    folder = Path(where).resolve()
    steps: list[str] = []

    def reached(step: str) -> None:
        if len(steps) == int(dies_at):
            die()
        steps.append(step)

    watch_steps(folder, reached)
    print("acknowledged", CHANGES[kind](folder))
    print(*steps, sep="\n", flush=True)

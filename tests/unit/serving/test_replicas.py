"""A replica that begins while the state changes."""

from __future__ import annotations

import asyncio
from pathlib import Path

from serving.app_shelf import AppShelf
from serving.control import FileControlStore
from serving.pool import ModelId, ModelPool
from serving.publishing import Publishing
from serving.reconciler import Reconciler
from serving.replicas import Replicas
from serving.settings import AppSettings
from tests.unit.serving.halves import publish
from tests.unit.serving.parties import running

V1 = ModelId("m", "1")


async def test_what_was_published_while_it_began_is_there_before_it_is_ready(tmp_path: Path) -> None:
    await asyncio.to_thread(publish, {"bank": tmp_path}, V1)
    own, shared = await asyncio.to_thread(lambda: [FileControlStore(tmp_path / "state") for _ in range(2)])
    async with running("bank", tmp_path, own, replica="0") as first:
        pool = ModelPool(1 << 20)
        reconciler = Reconciler(tmp_path, "bank", pool, apps=AppShelf(AppSettings()))
        replicas = Replicas("bank", "1", shared)
        second = await asyncio.to_thread(Publishing, replicas, reconciler, pool, {}, 10.0)
        await first.publishing.load(V1)  # nobody waits for a replica that has not reported yet
        second.restore()
        await second.caught_up()
        try:
            assert pool.find(V1) is not None
            assert {report.replica for report in await asyncio.to_thread(own.reports)} == {"0", "1"}
        finally:
            await replicas.stop()
            await reconciler.stop()

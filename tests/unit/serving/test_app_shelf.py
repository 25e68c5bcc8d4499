"""Wanted apps become loaded ones, if they are allowed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from apps.app import App, AppError, Request, Result
from apps.catalog import AppParametersError, UnknownAppError
from apps.remote import RemoteApps
from loaders.content import ContentStore
from loaders.remote_folder import RemoteFolder
from loaders.signature import Signature
from serving.app_shelf import AppId, AppShelf
from serving.control import WantedApp
from serving.errors import ConflictError, NotAllowedError, TesseraError, UnknownNameError
from serving.lifecycle import ModelState
from serving.settings import AppSettings
from tests.app_sources import store, times
from tests.clock import Clock

ONE, TWO = AppId("risk", "1"), AppId("risk", "2")
REQUEST = Request("s", "", "", "", ("u",))


def want(id_: AppId, digest: str = "", epoch: int = 1) -> dict[AppId, WantedApp]:
    return {id_: WantedApp(name=id_.name, version=id_.version, digest=digest, epoch=epoch)}


def answer(app: App, score: float = 0.25) -> float:
    return float(app.postprocess(REQUEST, Result(np.array([[score]]))).scores[0, 0])


class Shelves:
    """A storage with two allowed versions: 1 doubles, 2 triples."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.digests = {id_: store(root, id_.version, times(float(id_.version) + 1)) for id_ in (ONE, TWO)}
        self.clock = Clock()

    def shelf(self, *more: str) -> AppShelf:
        return AppShelf(AppSettings(root=str(self.root), allowed=(*self.digests.values(), *more)), self.clock)


@pytest.fixture
def shelves(tmp_path: Path) -> Shelves:
    return Shelves(tmp_path)


async def test_a_wanted_app_is_loaded_and_goes_when_it_is_not_wanted_any_more(shelves: Shelves) -> None:
    shelf = shelves.shelf()
    shelf.apply(want(ONE))
    assert shelf.lives[ONE].state is ModelState.LOADING
    life = await shelf.loaded(ONE)
    assert (life.state, life.digest, life.since_s) == (ModelState.READY, shelves.digests[ONE], 1_000.0)
    app = shelf.make("risk:1", '{"plus": 1}')
    assert shelf.make("risk:1", '{"plus": 1}') is app
    assert answer(app) == 1.5
    shelf.apply({})
    assert shelf.lives == {}
    with pytest.raises(UnknownAppError, match="app risk:1 is not loaded"):
        shelf.make("risk:1", "")
    assert answer(app) == 1.5  # whoever has it goes on using it


async def test_two_versions_at_once(shelves: Shelves) -> None:
    shelf = shelves.shelf()
    shelf.apply({**want(ONE), **want(TWO)})
    await shelf.settled()
    assert [answer(shelf.make(str(id_), "")) for id_ in (ONE, TWO)] == [0.5, 0.75]
    await shelf.stop()
    assert shelf.lives == {}


async def test_applying_the_same_again_loads_nothing(shelves: Shelves) -> None:
    shelf = shelves.shelf()
    shelf.apply(want(ONE))
    before = await shelf.loaded(ONE)
    shelves.clock.tick(5)
    shelf.apply(want(ONE, shelves.digests[ONE], epoch=9), again={ONE})
    assert shelf.lives[ONE] is before
    await shelf.stop()


async def test_built_in_apps_are_there_too(shelves: Shelves) -> None:
    shelf = shelves.shelf()
    assert (await asyncio.to_thread(shelf.make, "passthrough", "")).name == "passthrough"
    with pytest.raises(UnknownAppError, match="unknown app 'risk'"):
        await asyncio.to_thread(shelf.make, "risk", "")


async def test_what_is_not_allowed_never_runs_and_its_digest_is_told(tmp_path: Path) -> None:
    trap = tmp_path / "it ran"
    digest = await asyncio.to_thread(store, tmp_path, "1", f"open({str(trap)!r}, 'w')\n")
    shelf = AppShelf(AppSettings(root=str(tmp_path), allowed=("0" * 64,)))
    shelf.apply(want(ONE))
    with pytest.raises(NotAllowedError, match=f'its digest "{digest}" is not in apps.allowed'):
        await shelf.loaded(ONE)
    assert not await asyncio.to_thread(trap.exists)


async def test_another_app_under_a_wanted_name_is_refused(shelves: Shelves) -> None:
    changed = await asyncio.to_thread(store, shelves.root, "1", times(9.0))
    shelf = shelves.shelf(changed)
    shelf.apply(want(ONE, shelves.digests[ONE]))
    with pytest.raises(ConflictError, match=f"is wanted with digest {shelves.digests[ONE]}, apps.root has {changed}"):
        await shelf.loaded(ONE)


async def test_a_digest_that_is_wanted_otherwise_takes_the_place(shelves: Shelves) -> None:
    shelf = shelves.shelf()
    shelf.apply(want(ONE))
    await shelf.loaded(ONE)
    digest = await asyncio.to_thread(store, shelves.root, "1", times(9.0))
    replaced = shelves.shelf(digest)
    replaced.apply(want(ONE, digest))
    assert (await replaced.loaded(ONE)).digest == digest
    assert answer(replaced.make("risk:1", "")) == 2.25
    await shelf.stop()
    await replaced.stop()


@pytest.mark.parametrize(
    ("version", "source", "kind", "text"),
    [
        ("9", None, UnknownNameError, r"no app risk:9 in apps.root; there is 1, 2"),
        ("9", times(2.0, example=7.0), ConflictError, "'risk:9' makes .* of its own example"),
        ("9", "raise RuntimeError('at import')\n", ConflictError, "cannot be imported: RuntimeError: at import"),
    ],
)
async def test_what_does_not_load_says_why_until_it_is_asked_for_again(
    shelves: Shelves, version: str, source: str | None, kind: type[TesseraError], text: str
) -> None:
    id_ = AppId("risk", version)
    digest = await asyncio.to_thread(store, shelves.root, version, source) if source else ""
    mended = times(5.0)
    good = await asyncio.to_thread(store, shelves.root / "elsewhere", version, mended)
    shelf = shelves.shelf(*filter(None, (digest, good)))
    told: list[str] = []
    shelf.watch(lambda: told.append(shelf.lives[id_].reason))
    shelf.apply(want(id_))
    for _ in range(2):
        with pytest.raises(kind, match=text):
            await shelf.loaded(id_)
    assert shelf.lives[id_].state is ModelState.FAILED
    await asyncio.to_thread(store, shelves.root, version, mended)
    shelf.apply(want(id_))
    assert shelf.lives[id_].state is ModelState.FAILED
    shelf.apply(want(id_), again={id_})
    assert (await shelf.loaded(id_)).digest == good
    assert (bool(told[0]), told[1:]) == (True, [""])
    await shelf.stop()


async def test_a_failed_app_is_tried_again_when_it_is_wanted_anew(shelves: Shelves) -> None:
    shelf = shelves.shelf()
    late = AppId("risk", "9")
    shelf.apply(want(late))
    await shelf.settled()
    allowed = AppShelf(AppSettings(root=str(shelves.root), allowed=tuple(shelves.digests.values())))
    shelf.apply(want(late, epoch=1))
    assert shelf.lives[late].state is ModelState.FAILED
    shelf.apply(want(late, epoch=2))
    assert shelf.lives[late].state is ModelState.LOADING
    await shelf.stop()
    await allowed.stop()


async def test_an_app_unwanted_while_it_loads_goes_when_it_is_there(shelves: Shelves) -> None:
    shelf = shelves.shelf()
    shelf.apply(want(ONE))
    shelf.apply({})
    await shelf.settled()
    assert shelf.lives == {}
    with pytest.raises(ConflictError, match="not wanted any more"):
        await shelf.loaded(ONE)


def behind_a_url(shelves: Shelves, *digests: str, max_bytes: int = 1 << 20) -> AppShelf:
    shelf = AppShelf(AppSettings(root=f"file://{shelves.root}", allowed=digests), shelves.clock)
    content = ContentStore(shelves.root / "state" / "artifacts", max_bytes)
    shelf.remote = RemoteApps(RemoteFolder(f"file://{shelves.root}"), kept_of(shelves), content, shelf.in_use)
    return shelf


def kept_of(shelves: Shelves) -> Path:
    return shelves.root / "state" / "apps"


async def test_one_behind_a_url_is_kept_once_it_is_allowed_and_loads_again_without_it(shelves: Shelves) -> None:
    shelf = await asyncio.to_thread(behind_a_url, shelves, shelves.digests[ONE])
    shelf.apply({**want(ONE), **want(TWO)})
    await shelf.loaded(ONE)
    with pytest.raises(NotAllowedError, match=f'its digest "{shelves.digests[TWO]}" is not in apps.allowed'):
        await shelf.loaded(TWO)
    assert answer(shelf.make("risk:1", "")) == 0.5
    assert shelf.in_use() == {("risk", "1"), ("risk", "2")}
    await shelf.stop()
    assert await asyncio.to_thread(lambda: [path.name for path in kept_of(shelves).glob("*/*")]) == ["1"]
    await asyncio.to_thread((shelves.root / "risk").rename, shelves.root / "gone")
    again = await asyncio.to_thread(behind_a_url, shelves, shelves.digests[ONE])
    again.apply(want(ONE, shelves.digests[ONE]))
    await again.loaded(ONE)
    await again.stop()
    barred = await asyncio.to_thread(behind_a_url, shelves)
    barred.apply(want(ONE, shelves.digests[ONE]))
    with pytest.raises(NotAllowedError):
        await barred.loaded(ONE)


async def test_one_behind_a_url_that_changed_is_refused_under_the_wanted_digest(shelves: Shelves) -> None:
    changed = await asyncio.to_thread(store, shelves.root, "1", times(9.0))
    shelf = await asyncio.to_thread(behind_a_url, shelves, shelves.digests[ONE], changed)
    shelf.apply(want(ONE, shelves.digests[ONE]))
    with pytest.raises(ConflictError, match=f"apps.root has {changed}; load that under another version"):
        await shelf.loaded(ONE)


async def test_one_behind_a_url_for_which_there_is_no_room_does_not_load(shelves: Shelves) -> None:
    shelf = await asyncio.to_thread(behind_a_url, shelves, *shelves.digests.values(), max_bytes=100)
    shelf.apply(want(ONE))
    with pytest.raises(ConflictError, match=r"does not fit into artifacts\.max_bytes = 100"):
        await shelf.loaded(ONE)


async def test_a_storage_out_of_reach_is_said_without_its_paths(
    shelves: Shelves, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*path: str) -> dict[str, bool]:
        raise OSError(f"{shelves.root} is away")

    shelf = await asyncio.to_thread(behind_a_url, shelves)
    monkeypatch.setattr(shelf.remote._remote, "names", away)
    shelf.apply(want(ONE))
    with pytest.raises(ConflictError, match=r"^app risk:1 cannot be read: input/output error$"):
        await shelf.loaded(ONE)


async def test_a_node_without_a_root_loads_none() -> None:
    shelf = AppShelf()
    shelf.apply(want(ONE))
    with pytest.raises(ConflictError, match=r"apps\.root is not set"):
        await shelf.loaded(ONE)


async def test_wrong_parameters_and_a_failing_constructor_name_the_app(shelves: Shelves) -> None:
    source = times(2.0) + "\n    def __init__(self, parameters):\n        super().__init__(parameters)\n"
    source += "        if parameters.plus:\n            raise ZeroDivisionError\n"
    digest = await asyncio.to_thread(store, shelves.root, "3", source)
    shelf = shelves.shelf(digest)
    shelf.apply(want(AppId("risk", "3")))
    await shelf.settled()
    with pytest.raises(AppParametersError, match=r"parameters of app 'risk:3'.*minus"):
        shelf.make("risk:3", '{"minus": 1}')
    with pytest.raises(AppError, match="app 'risk:3' failed with its parameters: ZeroDivisionError"):
        shelf.make("risk:3", '{"plus": 1}')
    await shelf.stop()


def test_an_absent_app_answers_with_an_error_that_names_it() -> None:
    app = AppShelf().make_or_absent("risk:1", "")
    assert app.name == "risk:1"
    with pytest.raises(AppError, match="app risk:1 is not loaded"):
        app.preprocess(REQUEST, Signature((), ()))
    with pytest.raises(AppError, match="app risk:1 is not loaded"):
        answer(app)

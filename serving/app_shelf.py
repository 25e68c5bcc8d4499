"""The apps of a replica: those built in, and those that are loaded from storage because they are wanted."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import msgspec

from apps.app import App, AppError, Request, Result
from apps.catalog import AppParametersError, UnknownAppError, make_app, with_parameters
from apps.importing import ImportedApp
from apps.remote import RemoteApps
from apps.storage import AppSource, AppSourceError, LocalFiles, MissingAppError, read_app
from loaders.artifact import ArtifactError
from loaders.signature import Batch, Signature
from serving.control import WantedApp
from serving.errors import CallerError, ConflictError, NotAllowedError, TesseraError, UnknownNameError
from serving.lifecycle import ModelState
from serving.settings import AppSettings

logger = logging.getLogger(__name__)

NONE = AppSettings()


class AppId(msgspec.Struct, frozen=True, order=True):
    """Name and version of an app that is not built in."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


@dataclass(frozen=True, slots=True)
class AppLife:
    """One wanted app at this replica: LOADING, READY or FAILED. `since_s` is Unix time; `digest` of what is loaded;
    `tried`: as it was wanted when it was last loaded; `refusal` says why it FAILED."""

    id: AppId
    state: ModelState
    since_s: float
    tried: WantedApp
    digest: str = ""
    refusal: TesseraError | None = None

    @property
    def reason(self) -> str:
        return "" if self.refusal is None else str(self.refusal)


class AppShelf:
    """One task per app that is loading. `clock` is Unix seconds. An app that goes is used on by whoever has it."""

    def __init__(self, settings: AppSettings = NONE, clock: Callable[[], float] = time.time) -> None:
        self.remote: RemoteApps | None = None
        """Where apps come from when `apps.root` is a URL."""
        self._root = settings.root
        self._allowed = frozenset(settings.allowed)
        self._clock = clock
        self._wanted: Mapping[AppId, WantedApp] = {}
        self._lives: dict[AppId, AppLife] = {}
        self._loaded: dict[AppId, ImportedApp] = {}
        self._made: dict[tuple[str, str], App] = {}
        self._tasks: dict[AppId, asyncio.Task[None]] = {}
        self._watchers: list[Callable[[], None]] = []

    @property
    def lives(self) -> Mapping[AppId, AppLife]:
        """Of every wanted app."""
        return self._lives

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have it called whenever an app has been loaded, or could not be."""
        self._watchers.append(watcher)

    def apply(self, wanted: Mapping[AppId, WantedApp], again: Set[AppId] = frozenset()) -> None:
        """Declare what is wanted; loading goes on in the background. One that FAILED is tried again when it is in
        `again` or wanted otherwise than before; a digest of "" takes any that is allowed."""
        self._wanted = wanted
        for gone in self._lives.keys() - wanted.keys() - self._tasks.keys():
            self._drop(gone)
        for id_, want in wanted.items():
            if id_ not in self._tasks and self._lacks(id_, want, again):
                self._lives[id_] = AppLife(id_, ModelState.LOADING, self._clock(), want)
                self._tasks[id_] = asyncio.create_task(self._settle(id_, want))

    async def loaded(self, id_: AppId) -> AppLife:
        """Of a wanted app once it is READY. Raises the TesseraError that says why it is not."""
        while id_ in self._tasks:
            await asyncio.shield(self._tasks[id_])
        life = self._lives.get(id_)
        if life is None:
            raise ConflictError(f"app {id_} is not wanted any more")
        if life.refusal is not None:
            raise type(life.refusal)(life.reason)
        return life

    async def settled(self) -> None:
        """Returns when every wanted app is READY or known not to load."""
        while self._tasks:
            await asyncio.wait(set(self._tasks.values()))

    async def stop(self) -> None:
        """Wait for what is under way, then let everything go."""
        self.apply({})
        await self.settled()

    def make(self, app: str, parameters: str) -> App:
        """By the name of one built in, or `name:version`, made once for these parameters. Raises UnknownAppError,
        AppParametersError or AppError."""
        name, _, version = app.partition(":")
        if not version:
            return make_app(app, parameters)
        found = self._loaded.get(AppId(name, version))
        if found is None:
            raise UnknownAppError(f"app {app} is not loaded at this party")
        made = self._made.get((app, parameters))
        if made is None:
            made = self._made[app, parameters] = with_parameters(found.kind, parameters)
        return made

    def make_or_absent(self, app: str, parameters: str) -> App:
        """As `make`; where that fails, an app that answers every call with an error."""
        try:
            return self.make(app, parameters)
        except (UnknownAppError, AppParametersError, AppError) as error:
            return _absent(app, str(error))

    def in_use(self) -> set[tuple[str, str]]:
        """What is wanted, or loading."""
        return {(id_.name, id_.version) for id_ in list(self._lives)}

    def _lacks(self, id_: AppId, want: WantedApp, again: Set[AppId]) -> bool:
        life = self._lives.get(id_)
        if life is None or life.state is ModelState.FAILED:
            return life is None or id_ in again or life.tried != want
        return want.digest not in {"", life.digest}

    def _drop(self, id_: AppId) -> None:
        del self._lives[id_]
        if id_ in self._loaded:
            self._forget(id_)
            logger.info("app %s is unloaded", id_)

    async def _settle(self, id_: AppId, want: WantedApp) -> None:
        try:
            app, digest = await asyncio.to_thread(self._import, id_, want.digest)
        except CallerError as error:
            logger.warning("app %s does not load: %s", id_, error)
            self._fail(want, error)
        except AppError as error:
            logger.warning("app %s does not load", id_, exc_info=error)
            self._fail(want, ConflictError(str(error)))
        except Exception:
            logger.exception("app %s does not load", id_)
            self._fail(want, ConflictError(f"loading app {id_} failed unexpectedly; this party's log says why"))
        else:
            self._replace(id_, app)
            self._lives[id_] = AppLife(id_, ModelState.READY, self._clock(), want, digest)
            logger.info("app %s is ready", id_)
        del self._tasks[id_]
        self.apply(self._wanted)
        for watcher in self._watchers:
            watcher()

    def _fail(self, want: WantedApp, refusal: TesseraError) -> None:
        id_ = AppId(want.name, want.version)
        self._lives[id_] = AppLife(id_, ModelState.FAILED, self._clock(), want, refusal=refusal)

    def _replace(self, id_: AppId, app: ImportedApp) -> None:
        if id_ in self._loaded:
            self._forget(id_)
        self._loaded[id_] = app

    def _forget(self, id_: AppId) -> None:
        self._loaded.pop(id_).forget()
        self._made = {key: made for key, made in self._made.items() if key[0] != str(id_)}

    def _import(self, id_: AppId, digest: str) -> tuple[ImportedApp, str]:
        """Nothing of an app runs before its digest is found to be allowed, and the one that is wanted."""
        source = self._source(id_, digest)
        found = source.digest
        if found not in self._allowed:
            raise NotAllowedError(f'app {id_} is not allowed here: its digest "{found}" is not in apps.allowed')
        if digest not in {"", found}:
            raise ConflictError(
                f"app {id_} is wanted with digest {digest}, apps.root has {found}; load that under another version"
            )
        if self.remote is not None:
            with _refusing(id_):
                self.remote.keep(source)
        return ImportedApp(source), found

    def _source(self, id_: AppId, digest: str) -> AppSource:
        if not self._root:
            raise ConflictError("this party loads no apps: apps.root is not set")
        with _refusing(id_):
            if self.remote is not None:
                return self.remote.read(id_.name, id_.version, digest)
            return read_app(LocalFiles(Path(self._root)), id_.name, id_.version)


@contextlib.contextmanager
def _refusing(id_: AppId) -> Iterator[None]:
    """What goes wrong with the storage, in words for people."""
    try:
        yield
    except MissingAppError as error:
        raise UnknownNameError(str(error)) from None
    except (AppSourceError, ArtifactError) as error:
        raise ConflictError(str(error)) from None
    except OSError as error:
        raise ConflictError(f"app {id_} cannot be read: {error.strerror or 'input/output error'}") from None


class _Absent(App):
    """Stands where a service names an app that is not there."""

    Parameters = msgspec.Struct
    examples = ()

    def preprocess(self, request: Request, signature: Signature) -> Batch:
        raise AppError(self.parameters)

    def postprocess(self, request: Request, result: Result) -> Result:
        raise AppError(self.parameters)


def refusal(app: App) -> str:
    """Why an app of `make_or_absent` answers nothing; "" for one that does."""
    return str(app.parameters) if isinstance(app, _Absent) else ""


def _absent(app: str, reason: str) -> App:
    kind: type[_Absent] = type("Absent", (_Absent,), {"name": app})
    return kind(reason)

"""How a job goes on, as bars on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn


class Bars:
    """One bar per task. Use as a context manager; a Watcher of the runner."""

    def __init__(self, tasks: int, *, visible: bool) -> None:
        self._tasks = tasks
        self._started = 0
        self._ids: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            disable=not visible,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def task(self, name: str) -> None:
        self._finish()
        self._started += 1
        self._ids[name] = self._progress.add_task(f"{self._started}/{self._tasks} {name}", total=None, note="")

    def progress(self, task: str, done: int, total: int, note: str) -> None:
        self._progress.update(self._ids[task], completed=done, total=total, note=note)

    def done(self) -> None:
        self._finish()

    def _finish(self) -> None:
        """The bar before is full, however far it came: a task may converge early."""
        for bar in self._progress.tasks[-1:]:
            self._progress.update(bar.id, total=max(bar.completed, 1), completed=max(bar.completed, 1))

"""Runs a job on this party: the tasks in order, with an eye on the other parties.

Every party tells every other exactly one thing about the job as a whole, under the tag `job/outcome`: that it has
finished, or why it failed. It is awaited from the start, so a failure ends all parties at once; the parties part when
all have finished.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import get_type_hints

import msgspec

from training.channel import Channel, ChannelError, PeerLostError, Tag
from training.component import ComponentError, Value
from training.dsl import JobError, Problem, hint
from training.graph import Graph, Task
from training.party import PartySettings
from training.store import State, StoreError
from training.task_context import ATTEMPT, Place, TaskContext
from training.together import together

# The outcome is awaited as long as the job runs; a lost peer ends the wait, not the time.
_AS_LONG_AS_IT_TAKES_S = 30 * 86_400.0
_FAREWELL_S = 3.0
_TASK = "$job"  # no task of a job can be named so


class RunError(Exception):
    """The job ended without success; one line that names the party and the reason."""


class PeerFailedError(RunError):
    """Another party says that it failed, and why."""


class Verdict(Enum):
    FINISHED = "finished"
    FAILED = "failed"


class Outcome(msgspec.Struct, frozen=True):
    verdict: Verdict
    reason: str = ""


def check_here(graph: Graph, settings: PartySettings) -> None:
    """Whether this party has what the job asks of it. Raises JobError with all that is missing."""
    job, own = graph.job, settings.party
    if own not in job.parties:
        raise JobError([Problem("$.roles", own, f"has no role in this job; {hint(own, job.parties)}")])
    problems = [
        Problem("$.roles", own, f"its settings do not say where party {peer} listens: add [peers.{peer}]")
        for peer in job.parties
        if peer != own and peer not in settings.peers
    ]
    for task in graph.tasks:
        if task.concerns(job.role(own)):
            problems += _absent_tables(graph, task, settings)
            problems += _absent_libraries(task, own)
    if problems:
        raise JobError(problems)


async def run(graph: Graph, place: Place) -> None:
    """Raises RunError, or CancelledError when it was stopped; the store knows the state either way.

    Channels are opened and closed here; the pool and the store belong to the caller.
    """
    store = place.store
    try:
        await asyncio.to_thread(store.move, State.RUNNING)
        await _meet_and_work(graph, place)
    except asyncio.CancelledError:
        await asyncio.to_thread(store.end, State.STOPPED, State.STOPPED, "stopped by the operator")
        raise
    except PeerFailedError as error:
        await asyncio.to_thread(store.end, State.STOPPED, State.FAILED, str(error))
        raise
    except BaseException as error:
        await asyncio.to_thread(store.end, State.FAILED, State.FAILED, str(error) or repr(error))
        raise
    await asyncio.to_thread(store.move, State.SUCCEEDED)


async def _meet_and_work(graph: Graph, place: Place) -> None:
    channels, settings = list(place.channels.values()), place.settings
    try:
        await together(*(channel.open(graph.job.digest, settings.meet_timeout_s) for channel in channels))
        await together(_work(graph, place), *(_listen(channel, graph.job.job) for channel in channels))
    except PeerFailedError:
        raise
    except asyncio.CancelledError:
        await _say_goodbye(graph, channels, "stopped by its operator")
        raise
    except ChannelError as error:
        await _say_goodbye(graph, channels, str(error))
        raise RunError(str(error)) from error
    except (ComponentError, StoreError) as error:  # may name own columns, values, paths: not for the others
        await _say_goodbye(graph, channels, f"task {_failed_task(place)} cannot go on; its own log says why")
        raise RunError(str(error)) from error
    except Exception as error:  # a fault in a component must not leave the others waiting
        await _say_goodbye(graph, channels, "internal error; its own log has the detail")
        raise RunError(f"party {settings.party}: internal error: {error!r}") from error
    finally:
        await asyncio.gather(*(_close(channel) for channel in channels))


async def _work(graph: Graph, place: Place) -> None:
    role = graph.job.role(place.settings.party)
    for task in graph.tasks:
        if task.concerns(role):
            await _run_task(graph, task, place)
    await together(*(_tell(graph, channel, Outcome(Verdict.FINISHED)) for channel in place.channels.values()))


async def _run_task(graph: Graph, task: Task, place: Place) -> None:
    store, party = place.store, place.settings.party
    place.watcher.task(task.name)
    context = TaskContext(place, graph.job, task.name)
    await asyncio.to_thread(store.move_task, task.name, State.RUNNING)
    inputs = await asyncio.to_thread(_inputs, task, place)
    # A failure goes up without waiting for the disk: else the peers' answer to it could come first.
    outputs = await task.component().run(context, graph.parameters[party, task.name], inputs)
    for port, value in outputs.items():
        await asyncio.to_thread(store.save, task.name, port, value)
    await asyncio.to_thread(store.move_task, task.name, State.SUCCEEDED)


def _inputs(task: Task, place: Place) -> Mapping[str, Value]:
    found: dict[str, Value] = {}
    for port, (source, output) in task.inputs.items():
        value = place.store.load(source, output)
        if value is not None:
            found[port] = value
        elif port not in task.component.optional_inputs:
            raise ComponentError(
                f"party {place.settings.party}: task {task.name} needs {source}.{output}, which does not exist here"
            )
    return found


async def _listen(channel: Channel, job: str) -> None:
    """Returns when the peer has finished. Raises PeerFailedError or ChannelError."""
    payload = await channel.receive(_outcome_tag(job), _AS_LONG_AS_IT_TAKES_S)
    try:
        outcome = msgspec.json.decode(payload, type=Outcome)
    except msgspec.DecodeError as error:
        raise PeerLostError(f"party {channel.peer}: its outcome cannot be read: {error}") from None
    if outcome.verdict is Verdict.FAILED:
        raise PeerFailedError(f"party {channel.peer} failed: {_one_line(outcome.reason)}")


def _one_line(reason: str) -> str:
    """Another party's words, fit for our terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in reason[:300])


async def _tell(graph: Graph, channel: Channel, outcome: Outcome) -> None:
    await channel.send(_outcome_tag(graph.job.job), msgspec.json.encode(outcome))


async def _say_goodbye(graph: Graph, channels: list[Channel], reason: str) -> None:
    """Tell everyone who can still be reached."""
    outcome = Outcome(Verdict.FAILED, reason)
    try:
        async with asyncio.timeout(_FAREWELL_S):
            await asyncio.gather(*(_tell(graph, channel, outcome) for channel in channels), return_exceptions=True)
    except TimeoutError:
        return


def _failed_task(place: Place) -> str:
    return next((name for name, state in place.store.status.tasks.items() if state is State.RUNNING), "")


async def _close(channel: Channel) -> None:
    """What was said last may not reach a peer that has gone; that is no failure of its own."""
    try:
        async with asyncio.timeout(_FAREWELL_S):
            await channel.close()
    except (ChannelError, TimeoutError):
        return


def _outcome_tag(job: str) -> Tag:
    return Tag(job, _TASK, ATTEMPT, "outcome", 0)


def _absent_tables(graph: Graph, task: Task, settings: PartySettings) -> Iterator[Problem]:
    """Parameters that name a table say so in their annotation."""
    hints = get_type_hints(task.component.Parameters, include_extras=True)
    for key, kind in hints.items():
        marks = [meta.extra or {} for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
        if not any(mark.get("names") == "table" for mark in marks):
            continue
        name = getattr(graph.parameters[settings.party, task.name], key)
        if name not in settings.tables:
            text = f"its settings have no table {name!r}; {hint(name, settings.tables)}"
            yield Problem(f"$.parameters.{task.name}.{key}", settings.party, text)


def _absent_libraries(task: Task, party: str) -> Iterator[Problem]:
    for library in sorted(task.component.libraries):
        if importlib.util.find_spec(library) is None:
            text = f"{task.module} needs {library}: pip install 'tessera-federated[train]'"
            yield Problem(f"$.components.{task.name}.module", party, text)

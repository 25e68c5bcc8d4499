"""From a batch and the partials of its hosts to what is answered: prepare, refuse, merge, post-process."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from apps.app import App, AppError, PartyStatus, Request, Result
from loaders.loader import Outputs, Partial, PartialError, Scores
from loaders.signature import Batch, FeatureError
from serving.errors import HostFailure, LimitError, PeerUnavailableError, UnknownUserError
from serving.peers.fallback import scored
from serving.peers.partials import HostPartials
from serving.pool import ModelHandle
from serving.settings import FallbackSettings


def prepared(app: App, request: Request, handle: ModelHandle) -> Batch:
    """Raises FeatureError, or AppError naming the app."""
    try:
        return app.preprocess(request, handle.servable.signature)
    except FeatureError:
        raise
    except Exception as error:
        raise AppError(f"app {app.name!r} failed in preprocess") from error


def merged(
    handle: ModelHandle, local: tuple[Batch, Outputs], remote: Sequence[HostPartials], fallback: FallbackSettings
) -> Result:
    """What the model says. `local`: what the local half was given and what it gave."""
    batch, outputs = local
    signature = handle.servable.signature
    scores = scored(fallback, _merge(handle, outputs[signature.outputs[0].name], remote), remote)
    return Result(scores, _labels(handle, scores), batch, signature)


def finished(app: App, request: Request, answer: Result, outputs: Outputs, remote: Sequence[HostPartials]) -> Result:
    """What the app makes of it, with the local half's further outputs. A row that lacks a party has score NaN and no
    label."""
    further = () if answer.signature is None else answer.signature.outputs[1:]
    try:
        answer = app.postprocess(request, answer)
    except Exception as error:
        raise AppError(f"app {app.name!r} failed in postprocess") from error
    if not all(part.complete for part in remote):
        answer = _without_incomplete(answer, remote)
    if not further:
        return answer
    return msgspec.structs.replace(answer, outputs={one.name: outputs[one.name] for one in further})


def refuse_failed(remote: Sequence[HostPartials]) -> None:
    """Policy `fail`: no score without every party. A single row, or a batch of which no row has all parties, is an
    error; in other batches the rows that lack a party say so one by one."""
    rows = len(remote[0].statuses)
    if any(all(part.usable(row) for part in remote) for row in range(rows)):
        return
    for part in remote:
        worst = max((part.statuses[row] for row in range(rows) if not part.usable(row)), default=PartyStatus.OK)
        failure = HostFailure(part.party, worst, part.reason)
        if worst is PartyStatus.NOT_FOUND:
            raise UnknownUserError(f"party {part.party!r} does not know the user", failure)
        if worst is not PartyStatus.OK:
            reason = f": {part.reason}" if part.reason else ""
            if part.retry_after_s is not None:
                raise LimitError(f"party {part.party!r}: {worst.name.lower()}{reason}", part.retry_after_s)
            raise PeerUnavailableError(f"party {part.party!r}: {worst.name.lower()}{reason}", failure)


def _merge(handle: ModelHandle, local: Partial, remote: Sequence[HostPartials]) -> Scores:
    try:
        return handle.merge([local, *[part.values for part in remote]])
    except PartialError as error:
        raise PeerUnavailableError(f"a host of {handle.id} sent what its guest's half cannot use: {error}") from None


def _labels(handle: ModelHandle, scores: Scores) -> tuple[str, ...]:
    """The name of each row's largest score, for models that name their scores."""
    labels = handle.artifact.manifest.merge.labels
    return tuple(labels[place] for place in scores.argmax(axis=1)) if labels else ()


def _without_incomplete(answer: Result, remote: Sequence[HostPartials]) -> Result:
    usable = [all(part.usable(row) for part in remote) for row in range(len(answer.scores))]
    if all(usable):
        return answer
    scores, labels = np.where(np.array(usable)[:, None], answer.scores, np.nan), answer.labels
    if labels:
        labels = tuple([label if said else "" for label, said in zip(labels, usable, strict=True)])
    return msgspec.structs.replace(answer, scores=scores, labels=labels)

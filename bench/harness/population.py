"""Users, features and models of the scenarios: made by rule, so that every score can be told in advance."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import msgspec
import numpy as np
import polars as pl

from loaders.artifact import HalfRef
from loaders.registry import bind, half_path, write_half
from loaders.signature import Signature
from tests.artifacts import linear_half

GUEST = "bank"
MODEL, VERSION, SERVICE = "score", "1", "s"
GUEST_FEATURES, HOST_FEATURES = 20, 10
PATTERNS = 97
"""So many different users there are; user n is like user n + 97 in everything but the id."""
USER_BYTES = 8
INTERCEPT = 0.25


def user(number: int) -> str:
    return f"u{number:07d}"


def host_name(index: int) -> str:
    return f"host{index}"


def guest_numbers() -> list[float]:
    """The guest's features, the same in every request."""
    return [(position % 7) / 7 - 0.5 for position in range(GUEST_FEATURES)]


@functools.cache
def expected_scores(hosts: int) -> tuple[float, ...]:
    """The score of each pattern."""
    own = float(np.dot(guest_numbers(), _weights(GUEST_FEATURES))) + INTERCEPT
    parts = [_patterns(index) @ np.array(_weights(HOST_FEATURES)) for index in range(hosts)]
    linear = own + np.sum(parts, axis=0) if parts else np.full(PATTERNS, own)
    return tuple(1 / (1 + math.exp(-value)) for value in linear)


def write_users(path: Path, host: int, users: int) -> None:
    """A host's feature table, as Parquet or CSV by the path's suffix."""
    rows = np.tile(_patterns(host), (-(-users // PATTERNS), 1))[:users]
    columns = {name: rows[:, position] for position, name in enumerate(_host_columns(host))}
    table = pl.DataFrame({"id": [user(number) for number in range(users)], **columns})
    if path.suffix == ".csv":
        table.write_csv(path)
    else:
        table.write_parquet(path)


@functools.cache
def scores_without(absent: int, hosts: int) -> tuple[float, ...]:
    """The same, when host `absent`'s mean partial stands in for it."""
    own = float(np.dot(guest_numbers(), _weights(GUEST_FEATURES))) + INTERCEPT + _mean_partial(absent)
    parts = [_patterns(index) @ np.array(_weights(HOST_FEATURES)) for index in range(hosts) if index != absent]
    linear = own + np.sum(parts, axis=0) if parts else np.full(PATTERNS, own)
    return tuple(1 / (1 + math.exp(-value)) for value in linear)


def mean_score(hosts: int) -> float:
    """When the mean partials stand in for all of them."""
    own = float(np.dot(guest_numbers(), _weights(GUEST_FEATURES))) + INTERCEPT
    return 1 / (1 + math.exp(-own - sum(map(_mean_partial, range(hosts)))))


def write_model(guest_root: Path, host_roots: list[Path]) -> Signature:
    """One linear model over the guest and these hosts, a bound half for each in its registry; the guest's signature.
    The guest's half declares what may stand in for each host."""
    weights = dict(zip(guest_columns(), _weights(GUEST_FEATURES), strict=True))
    manifest, files = linear_half(MODEL, VERSION, "guest", GUEST, weights, INTERCEPT)
    means = {host_name(index): [_mean_partial(index)] for index in range(len(host_roots))}
    manifest = msgspec.structs.replace(manifest, stand_ins=means)
    signature = Signature(manifest.inputs, manifest.outputs)
    binding = [HalfRef("guest", GUEST, write_half(guest_root, manifest, files))]
    paths = [half_path(guest_root, MODEL, VERSION, "guest", GUEST)]
    for index, root in enumerate(host_roots):
        weights = dict(zip(_host_columns(index), _weights(HOST_FEATURES), strict=True))
        half = linear_half(MODEL, VERSION, "host", host_name(index), weights)
        binding.append(HalfRef("host", host_name(index), write_half(root, *half)))
        paths.append(half_path(root, MODEL, VERSION, "host", host_name(index)))
    for path in paths:
        bind(path, binding)
    return signature


def guest_columns() -> list[str]:
    return [f"g{position}" for position in range(GUEST_FEATURES)]


def _host_columns(host: int) -> list[str]:
    return [f"h{host}_{position}" for position in range(HOST_FEATURES)]


def _weights(count: int) -> list[float]:
    return [(position % 5 - 2) / 8 for position in range(count)]


def _mean_partial(host: int) -> float:
    return float((_patterns(host) @ np.array(_weights(HOST_FEATURES))).mean())


def _patterns(host: int) -> np.ndarray:
    users = np.arange(PATTERNS)[:, None]
    return (users * (np.arange(HOST_FEATURES) + 2) + host) % PATTERNS / PATTERNS - 0.5

"""The order in which FATE-Serving runs components: depth first, from the order that Java's hash maps give their names.

Only there it matters: components write into the map of values that they were given, and others may hold the same map.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from loaders.fate.dsl import Node

_SMALLEST_TABLE = 16
_FULL = 0.75


def as_serving_runs(nodes: Sequence[Node]) -> list[Node]:
    """Each with the one input that is used there, which is of the component that runs first. `nodes` have no cycle."""
    by_name = {node.name: node for node in nodes}
    listed = hashed(by_name)
    waits_for = {name: len(by_name[name].upstream) for name in listed}
    stack, order = [name for name in listed if not waits_for[name]], list[str]()
    while stack:
        done = stack.pop()
        order.append(done)
        for name in listed:
            if done in by_name[name].upstream:
                waits_for[name] -= 1
                stack += [name] if not waits_for[name] else []
    places = {name: place for place, name in enumerate(order)}
    return [_with_first_input(by_name[name], places) for name in order]


def _with_first_input(node: Node, places: dict[str, int]) -> Node:
    """Small numbers are their own hashes."""
    first = min(node.upstream, key=lambda name: places[name] % _SMALLEST_TABLE, default=None)
    return node if first is None else replace(node, upstream=(first,))


def hashed(names: Iterable[str]) -> list[str]:
    """As keys of a Java HashMap come that were put there in this order."""
    names = list(names)
    size = _SMALLEST_TABLE
    while len(names) > _FULL * size:
        size *= 2
    return sorted(names, key=lambda name: _spread(_hash_code(name)) % size)


def _hash_code(text: str) -> int:
    code, units = 0, text.encode("utf-16-be")
    for place in range(0, len(units), 2):
        code = (31 * code + int.from_bytes(units[place : place + 2])) & 0xFFFFFFFF
    return code


def _spread(code: int) -> int:
    return code ^ (code >> 16)

"""A job that is right, to be spoilt by tests."""

from typing import Any


def good() -> dict[str, Any]:
    return {
        "job": "spring",
        "roles": {"guest": "bank", "hosts": ["shop"]},
        "components": {
            "reader_0": {"module": "reader"},
            "psi_0": {"module": "psi", "input": {"data": "reader_0.data"}},
            "lr_0": {"module": "hetero_lr", "input": {"train": "psi_0.data", "test": "psi_0.data"}},
            "evaluate_0": {"module": "evaluate", "input": {"data": "lr_0.prediction"}},
        },
        "parameters": {
            "common": {"reader_0": {"table": "people"}, "lr_0": {"epochs": 3}},
            "hosts": {"shop": {"reader_0": {"table": "baskets"}}},
        },
    }


def spoilt(*path: str, value: Any) -> dict[str, Any]:
    """`value` at the path, `...` to remove what is there."""
    document = node = good()
    for key in path[:-1]:
        node = node.setdefault(key, {})
    node[path[-1]] = value
    if value is ...:
        del node[path[-1]]
    return document

"""FATE's names of a model and ours.

FATE names a half by a namespace `role#party#model id` and a table, the model's version; the model id is equal at all
parties. Here a model is named by letters, digits, '.', '_' and '-'.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import rfc8785

from loaders.artifact import HalfRef

MAX_NAME = 128
_UNFIT = re.compile(r"[^A-Za-z0-9._-]")
_PREFIXED = re.compile(r"(guest|host|arbiter|local)#([^#]+)#(.+)")


class FateNameError(ValueError):
    """No names of a FATE model."""


@dataclass(frozen=True, slots=True)
class FateName:
    """Of one half. Raises FateNameError for names that cannot be one."""

    namespace: str
    table: str

    def __post_init__(self) -> None:
        if not self.namespace or not self.table:
            raise FateNameError("a model is named by a namespace and a table name")

    @property
    def model_id(self) -> str:
        return _model_id(self.namespace)

    @property
    def model(self) -> str:
        return model_name(self.namespace)

    @property
    def version(self) -> str:
        return _fitted(self.table)

    def ref(self, role: str, party: str) -> HalfRef:
        """A party's half in a binding, by what every party knows of it."""
        known = {"model_id": self.model_id, "table": self.table, "role": role, "party": party}
        return HalfRef(role, party, hashlib.sha256(rfc8785.dumps(known)).hexdigest())


def model_name(namespace: str) -> str:
    """Ours; "" for ""."""
    return _fitted(_model_id(namespace)) if namespace else ""


def name_in(provenance: Mapping[str, Any]) -> FateName | None:
    """The name that a manifest's provenance keeps."""
    kept = provenance.get("fate")
    return FateName(str(kept["namespace"]), str(kept["table"])) if isinstance(kept, dict) else None


def _model_id(namespace: str) -> str:
    found = _PREFIXED.fullmatch(namespace)
    return found[3] if found else namespace


def _fitted(name: str) -> str:
    fitted = _UNFIT.sub(".", name)
    if fitted[0] in "._-":
        fitted = f"m{fitted}"
    if len(fitted) <= MAX_NAME:
        return fitted
    return f"{fitted[:95]}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"

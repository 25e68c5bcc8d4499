"""The loaded models in memory, and the handles that pin them. Readers never wait for writers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class ModelId:
    """Name and version, equal on every party."""

    model: str
    version: str

    def __str__(self) -> str:
        return f"{self.model}/{self.version}"

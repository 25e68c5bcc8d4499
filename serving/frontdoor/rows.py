"""What the batch forms of all protocols say per row."""

from __future__ import annotations

from apps.app import Response


def first_failures(response: Response) -> bytes:
    """One PartyStatus byte per row: that of the first party that failed it; 0 where all answered."""
    statuses = bytearray(response.scores.shape[0])
    if response.complete:
        return bytes(statuses)
    for outcome in reversed(response.parties):
        for row, status in enumerate(outcome.statuses):
            if status:
                statuses[row] = status
    return bytes(statuses)

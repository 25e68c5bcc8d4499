"""What callers of FATE's protocols say of their calls beside the case itself: hosts that speak them hear it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from weakref import WeakValueDictionary

from serving.pool import ModelId


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Occasion:
    """Of one call. "" for what it does not name."""

    service: str = ""
    apply_id: str = ""
    case: str = ""

    @property
    def purpose(self) -> Occasion:
        """What calls must have in common to be told in one packet."""
        return Occasion(self.service, self.apply_id)


NONE = Occasion()


class Occasions:
    """Of the users whom running calls are about, and the models that may answer, whose hosts alone hear of it: who
    begins a call keeps its occasion for as long as it runs. Of calls about one user at once the first counts.
    `asked_for`: whether any host is to hear of them."""

    def __init__(self, *, asked_for: bool) -> None:
        self.asked_for = asked_for
        self._running: WeakValueDictionary[tuple[ModelId, str], Occasion] = WeakValueDictionary()

    def begin(self, models: Iterable[ModelId], users: Iterable[str], occasion: Occasion) -> None:
        for named in product(models, users):
            self._running.setdefault(named, occasion)

    def by_packet(self, model: ModelId, users: Sequence[str]) -> Mapping[Occasion, list[int]]:
        """The places of the users that belong in one packet, by what it says; with a case where it is of one alone."""
        if not self._running:
            return {NONE: list(range(len(users)))}
        places: dict[Occasion, list[int]] = {}
        cases: dict[Occasion, set[str]] = {}
        for place, user in enumerate(users):
            occasion = self._running.get((model, user), NONE)
            places.setdefault(occasion.purpose, []).append(place)
            cases.setdefault(occasion.purpose, set()).add(occasion.case)
        return {_of_one_case(purpose, cases[purpose]): of_packet for purpose, of_packet in places.items()}


def _of_one_case(purpose: Occasion, cases: set[str]) -> Occasion:
    return Occasion(purpose.service, purpose.apply_id, next(iter(cases))) if len(cases) == 1 else purpose

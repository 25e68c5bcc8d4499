"""From what a caller names to one version: explicit, by service, or by the party's default service.

A service's binding stores the bucket ranges of its variants; bucket = BLAKE2b-64(user id, key = the service's salt) as
big-endian integer modulo 10 000, so one user sees one version on every replica.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from apps.app import App
from serving.errors import InvalidRequestError, NotReadyError, UnknownNameError
from serving.pool import ModelId

BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class VariantRoute:
    """One weighted version under a service. `ranges` are half-open bucket intervals."""

    name: str
    model: ModelId
    ranges: tuple[tuple[int, int], ...]


class Target(msgspec.Struct, frozen=True, cache_hash=True):
    """One version that answers, and the app around it. `variant` and `service` are "" when the caller named the
    version; `revision` is the service's."""

    model: ModelId
    app: App
    variant: str
    service: str = ""
    revision: int = 0


@dataclass(frozen=True, slots=True)
class ServiceRoute:
    """What a service name leads to. `epoch` rises with any change that could change an answer. `shadows` answer nobody;
    their ranges say which users they run for. `refusal`: why this replica answers no call of the service, else ""."""

    service: str
    epoch: int
    salt: bytes
    variants: tuple[VariantRoute, ...]
    app: App
    revision: int = 0
    shadows: tuple[VariantRoute, ...] = ()
    refusal: str = ""
    _targets: Mapping[str, Target] = field(init=False)

    def __post_init__(self) -> None:
        """Made once, not by every request."""
        object.__setattr__(self, "_targets", {one.name: self.target_of(one) for one in self.variants})

    def target_of(self, variant: VariantRoute) -> Target:
        """What answers, or what a shadow would answer with."""
        return Target(variant.model, self.app, variant.name, self.service, self.revision)

    def target(self, user_id: str) -> Target:
        """What answers this user."""
        return self._targets[self.pick(user_id).name]

    def is_in(self, variant: VariantRoute, user_id: str) -> bool:
        """Whether a user is in a variant's buckets."""
        position = bucket(self.salt, user_id)
        return any(low <= position < high for low, high in variant.ranges)

    def pick(self, user_id: str) -> VariantRoute:
        """The user's variant; without a user id, the case decides at the caller."""
        if len(self.variants) == 1:
            return self.variants[0]
        position = bucket(self.salt, user_id)
        for variant in self.variants:
            if any(low <= position < high for low, high in variant.ranges):
                return variant
        raise UnknownNameError(f"service {self.service!r} has no variant for bucket {position}")


Address = tuple[str, str, str]
"""What a caller names: service, model, version; each may be empty."""


@dataclass(frozen=True, slots=True)
class Routes:
    """An immutable table, replaced in one assignment. `explicit_app` serves callers who name a version;
    `explicit_epoch` stands in their result-cache entries."""

    explicit_app: App
    explicit_epoch: int = 0
    services: Mapping[str, ServiceRoute] = field(default_factory=dict)
    default_service: str = ""

    def service(self, name: str, model: str) -> ServiceRoute:
        """The route for a caller who named no version: its service, else the service of the model's name, else the
        default. Raises InvalidRequestError, UnknownNameError, or NotReadyError when it cannot be served here."""
        if name:
            return self._known(name)
        if model:
            if model not in self.services:
                raise InvalidRequestError(
                    f"model {model!r} without a version needs a service of that name; there is none"
                )
            return self._known(model)
        if not self.default_service:
            raise InvalidRequestError("name a service, or a model and version: this party has no default service")
        return self._known(self.default_service)

    def target(self, address: Address, key: str) -> Target:
        """The version that answers a caller; `key` picks the variant: the user id, or the case id without one."""
        service, model, version = address
        if version:
            if service or not model:
                raise InvalidRequestError("name either a service or a model with its version")
            return Target(ModelId(model, version), self.explicit_app, "")
        return self.service(service, model).target(key)

    def only_target(self, address: Address) -> Target | None:
        """The version that answers whoever asks; None where that depends on the user. Raises as `target`."""
        service, model, version = address
        if version or len(self.service(service, model).variants) == 1:
            return self.target(address, "")
        return None

    def targets(self, address: Address, user_ids: Sequence[str], case_id: str) -> dict[Target, list[int]]:
        """The rows of a call by what answers them. Raises as `target`, and InvalidRequestError for no rows."""
        one = self.only_target(address)
        if one is not None and user_ids:
            return {one: list(range(len(user_ids)))}
        groups: dict[Target, list[int]] = {}
        for row, user_id in enumerate(user_ids):
            groups.setdefault(self.target(address, user_id or case_id), []).append(row)
        if not groups:
            raise InvalidRequestError("the call has no rows: send at least one user id")
        return groups

    def service_name(self, address: Address) -> str:
        """The service that an address leads to; "" for a caller who named a version."""
        service, model, version = address
        return "" if version else service or model or self.default_service

    def shadowed(self, address: Address) -> ServiceRoute | None:
        """The service that an address leads to, if versions run beside those that answer for it."""
        route = None if address[2] else self.services.get(self.service_name(address))
        return route if route is not None and route.shadows else None

    def epoch(self, address: Address) -> int:
        """Rises when the answer to a request with this address could change; -1 when nothing answers it now."""
        if address[2]:
            return self.explicit_epoch
        route = self.services.get(self.service_name(address))
        return -1 if route is None else route.epoch

    def _known(self, name: str) -> ServiceRoute:
        if name not in self.services:
            raise UnknownNameError(f"unknown service {name!r}")
        found = self.services[name]
        if found.refusal:
            raise NotReadyError(f"service {name!r} cannot be served here: {found.refusal}")
        return found


class RouteTable:
    """Holds the routes in force. Readers take `current` once per request; the control plane assigns a new table."""

    __slots__ = ("current",)

    def __init__(self, routes: Routes) -> None:
        self.current = routes


def bucket(salt: bytes, user_id: str) -> int:
    digest = hashlib.blake2b(user_id.encode(), digest_size=8, key=salt).digest()
    return int.from_bytes(digest, "big") % BUCKETS

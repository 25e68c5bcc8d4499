"""Pure edits and readings of the wanted state: which models, which variants, which routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from apps.app import App, AppError
from apps.catalog import AppParametersError, UnknownAppError, make_app, names
from loaders.signature import Signature
from serving import buckets
from serving.app_shelf import AppId, refusal
from serving.control import Binding, Service, State, Variant, WantedApp, WantedModel
from serving.errors import ConflictError, InvalidRequestError
from serving.pool import ModelHandle, ModelId
from serving.routing import BUCKETS, Routes, ServiceRoute, VariantRoute

MakeApp = Callable[[str, str], App]
"""From an app, as a binding names it, and its parameters."""


@dataclass(frozen=True, slots=True)
class VariantWeight:
    """`weight` in basis points."""

    model: ModelId
    weight: int


def check_weights(service: str, weights: Sequence[VariantWeight]) -> None:
    if not service:
        raise InvalidRequestError("name a service to put online")
    if sum(weight.weight for weight in weights) != BUCKETS or any(weight.weight <= 0 for weight in weights):
        raise InvalidRequestError("weights are basis points, each above 0, and sum to 10000")
    if len({weight.model for weight in weights}) != len(weights):
        raise InvalidRequestError("a version stands twice among the variants")


def check_widths(handles: Sequence[ModelHandle]) -> None:
    """Users of one batch may meet any variant, so all must answer with as many values. Raises
    ConflictError."""
    widths = {handle.servable.score_width: handle.id for handle in handles}
    if len(widths) > 1:
        shown = ", ".join(f"{model} gives {width}" for width, model in sorted(widths.items()))
        raise ConflictError(f"the versions of one service must give equally many scores: {shown}")


def check_shadows(shadows: Sequence[VariantWeight], weights: Sequence[VariantWeight]) -> None:
    if any(not 0 < shadow.weight <= BUCKETS for shadow in shadows):
        raise InvalidRequestError("a shadow's weight is the share of users it runs for: basis points, 1 to 10000")
    models = [one.model for one in (*weights, *shadows)]
    if len(set(models)) != len(models):
        raise InvalidRequestError("a version stands twice among variants and shadows")


def shadow_variants(shadows: Sequence[VariantWeight]) -> tuple[Variant, ...]:
    return tuple(
        Variant(model=one.model.model, version=one.model.version, weight=one.weight, ranges=((0, one.weight),))
        for one in shadows
    )


def check_app(name: str, parameters: str, signatures: Iterable[Signature] = (), make: MakeApp = make_app) -> None:
    """Raises InvalidRequestError when there is no such app, or it does not go with one of these models; AppError when
    the app itself fails."""
    try:
        app = make(name, parameters)
    except (UnknownAppError, AppParametersError) as error:
        raise InvalidRequestError(str(error)) from None
    for signature in signatures:
        try:
            app.check(signature)
        except ValueError as error:
            raise InvalidRequestError(f"app {name!r}: {error}") from None
        except Exception as error:
            raise AppError(f"app {name!r} failed in check") from error


def variants(current: Service | None, weights: Sequence[VariantWeight]) -> tuple[Variant, ...]:
    before = {(v.model, v.version): v.ranges for v in current.current.variants} if current else {}
    keys = [(weight.model.model, weight.model.version) for weight in weights]
    ranges = buckets.assign([before.get(key, ()) for key in keys], [weight.weight for weight in weights])
    return tuple(
        Variant(model=model, version=version, weight=weight.weight, ranges=own)
        for (model, version), weight, own in zip(keys, weights, ranges, strict=True)
    )


def all_variants(service: Service) -> list[Variant]:
    """Of the current and the previous binding, shadows too."""
    return [*bound(service.current), *(bound(service.previous) if service.previous else ())]


def bound(binding: Binding) -> tuple[Variant, ...]:
    return (*binding.variants, *binding.shadows)


def variant_model(variant: Variant) -> ModelId:
    return ModelId(variant.model, variant.version)


def epochs(state: State) -> dict[ModelId, int]:
    """Of every wanted version."""
    return {ModelId(wanted.model, wanted.version): wanted.epoch for wanted in state.models}


def wanted_models(state: State) -> set[ModelId]:
    return set(epochs(state))


def with_model(state: State, model: ModelId) -> State:
    kept = without_model(state, model).models
    added = WantedModel(model=model.model, version=model.version, epoch=state.revision + 1)
    return msgspec.structs.replace(state, models=(*kept, added))


def without_model(state: State, model: ModelId) -> State:
    kept = tuple(wanted for wanted in state.models if ModelId(wanted.model, wanted.version) != model)
    return msgspec.structs.replace(state, models=kept)


def without_service(state: State, service: str) -> State:
    """Nor is it the default any more."""
    kept = {name: one for name, one in state.services.items() if name != service}
    default = "" if state.default_service == service else state.default_service
    return msgspec.structs.replace(state, services=kept, default_service=default)


def wanted_apps(state: State) -> dict[AppId, WantedApp]:
    return {AppId(one.name, one.version): one for one in state.apps}


def with_app(state: State, app: AppId, digest: str) -> State:
    kept = without_app(state, app).apps
    added = WantedApp(name=app.name, version=app.version, digest=digest, epoch=state.revision + 1)
    return msgspec.structs.replace(state, apps=(*kept, added))


def without_app(state: State, app: AppId) -> State:
    kept = tuple(wanted for id_, wanted in wanted_apps(state).items() if id_ != app)
    return msgspec.structs.replace(state, apps=kept)


def check_app_wanted(state: State, app: str) -> None:
    """Raises ConflictError for one that is neither built in nor wanted."""
    if ":" in app and app not in map(str, wanted_apps(state)):
        raise ConflictError(f"app {app} has been unloaded meanwhile")


def newest_app(state: State, name: str) -> str:
    """The version of an app that was loaded last. Slow. Raises InvalidRequestError with what there is."""
    wanted = wanted_apps(state)
    found = [id_ for id_ in wanted if id_.name == name]
    if not found:
        raise InvalidRequestError(f"unknown app {name!r}: there are {', '.join([*names(), *map(str, wanted)])}")
    return str(max(found, key=lambda id_: wanted[id_].epoch))


def users_of_app(state: State, app: str) -> list[str]:
    """Services whose current or previous binding names it."""
    return [
        f"service {name!r}"
        for name, service in state.services.items()
        if any(app == binding.app for binding in (service.current, service.previous) if binding)
    ]


def users_of_model(state: State, model: ModelId) -> list[str]:
    """Services whose current or previous binding names it."""
    return [
        f"service {name!r}"
        for name, service in state.services.items()
        if any(model == variant_model(variant) for variant in all_variants(service))
    ]


def routes(state: State, explicit_app: App, make: MakeApp = make_app) -> Routes:
    loaded_at = epochs(state)

    def route(name: str, service: Service) -> ServiceRoute:
        # A version that was unloaded, or loaded again, may answer differently: the epoch rises with it.
        halves = [loaded_at.get(variant_model(v), state.revision) for v in service.current.variants]

        def variant(one: Variant) -> VariantRoute:
            return VariantRoute(f"{one.model}:{one.version}", variant_model(one), one.ranges)

        app = make(service.current.app, service.current.app_parameters)
        return ServiceRoute(
            service=name,
            epoch=max(service.epoch, *halves),
            salt=bytes.fromhex(service.salt),
            variants=tuple(map(variant, service.current.variants)),
            app=app,
            revision=service.revision,
            shadows=tuple(map(variant, service.current.shadows)),
            refusal=refusal(app),
        )

    return Routes(
        explicit_app=explicit_app,
        explicit_epoch=state.revision,
        services={name: route(name, service) for name, service in state.services.items()},
        default_service=state.default_service,
    )

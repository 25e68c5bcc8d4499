from __future__ import annotations

import pytest

from apps.catalog import make_app
from serving import bindings
from serving.bindings import VariantWeight
from serving.control import Binding, Service, State
from serving.errors import InvalidRequestError
from serving.pool import ModelId

V1, V2 = ModelId("m", "1"), ModelId("m", "2")


def service(state: State, *weights: VariantWeight, app: str = "passthrough") -> Service:
    variants = bindings.variants(None, weights)
    return Service(revision=1, epoch=state.revision, salt="abcd", current=Binding(variants=variants, app=app))


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("", [VariantWeight(V1, 10_000)], "name a service"),
        ("s", [], "sum to 10000"),
        ("s", [VariantWeight(V1, 9_999)], "sum to 10000"),
        ("s", [VariantWeight(V1, 10_000), VariantWeight(V2, 0)], "above 0"),
        ("s", [VariantWeight(V1, 20_000), VariantWeight(V2, -10_000)], "above 0"),
        ("s", [VariantWeight(V1, 5_000), VariantWeight(V1, 5_000)], "stands twice"),
    ],
)
def test_wrong_weights_are_refused(name: str, weights: list[VariantWeight], message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        bindings.check_weights(name, weights)


@pytest.mark.parametrize(
    ("app", "parameters", "message"),
    [
        ("nobody", "", "unknown app 'nobody': there are .*passthrough"),
        ("passthrough", '{"ignore": true}', "parameters of app 'passthrough'.*ignore"),
        ("passthrough", "[]", "parameters of app 'passthrough'"),
        ("passthrough", "{", "parameters of app 'passthrough'"),
    ],
)
def test_wrong_apps_and_parameters_are_refused(app: str, parameters: str, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        bindings.check_app(app, parameters)


def test_a_variant_that_stays_keeps_its_buckets() -> None:
    before = service(State(), VariantWeight(V1, 10_000))
    after = bindings.variants(before, [VariantWeight(V2, 1_000), VariantWeight(V1, 9_000)])
    assert [(variant.version, variant.ranges) for variant in after] == [
        ("2", ((9_000, 10_000),)),
        ("1", ((0, 9_000),)),
    ]


def test_models_are_wanted_once() -> None:
    state = bindings.with_model(bindings.with_model(State(), V1), V1)
    assert len(state.models) == 1
    assert bindings.wanted_models(bindings.without_model(state, V1)) == set()


def test_the_epoch_of_a_service_rises_when_a_half_is_unloaded_or_loaded_again() -> None:
    def epoch(state: State) -> int:
        return bindings.routes(state, make_app("passthrough")).services["s"].epoch

    loaded = bindings.with_model(State(revision=4), V1)
    bound = State(
        revision=5, models=loaded.models, services={"s": service(State(revision=5), VariantWeight(V1, 10_000))}
    )
    unloaded = State(revision=6, services=bound.services)
    again = State(revision=8, models=bindings.with_model(State(revision=7), V1).models, services=bound.services)
    other = State(revision=9, models=again.models, services=bound.services, default_service="s")
    assert [epoch(state) for state in (bound, unloaded, again, other)] == [5, 6, 8, 8]


def test_routes_carry_the_app_with_its_parameters() -> None:
    bound = Binding(
        variants=bindings.variants(None, [VariantWeight(V1, 10_000)]),
        app="passthrough",
        app_parameters='{"ignore_unknown": true}',
    )
    state = State(services={"s": Service(revision=1, epoch=1, salt="abcd", current=bound)}, default_service="s")
    routes = bindings.routes(state, make_app("passthrough"))
    assert routes.default_service == "s"
    assert routes.services["s"].app.parameters.ignore_unknown
    assert routes.services["s"].salt == b"\xab\xcd"

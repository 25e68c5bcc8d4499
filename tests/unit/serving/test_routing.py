from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.catalog import make_app
from serving.errors import InvalidRequestError, UnknownNameError
from serving.pool import ModelId
from serving.routing import BUCKETS, Routes, RouteTable, ServiceRoute, VariantRoute, bucket

APP = make_app("passthrough")
V1, V2 = ModelId("m", "1"), ModelId("m", "2")


def service(name: str, *variants: VariantRoute, epoch: int = 7) -> ServiceRoute:
    return ServiceRoute(name, epoch, b"salt", variants or (VariantRoute("m:1", V1, ((0, BUCKETS),)),), APP)


def routes(*services: ServiceRoute, default: str = "") -> Routes:
    return Routes(APP, 3, {route.service: route for route in services}, default)


def test_a_version_is_taken_as_named() -> None:
    target = routes(service("s")).target(("", "m", "2"), "u")
    assert (target.model, target.variant) == (V2, "")


@pytest.mark.parametrize("address", [("s", "m", "1"), ("s", "", "1"), ("", "", "1")])
def test_a_version_goes_with_a_model_and_nothing_else(address: tuple[str, str, str]) -> None:
    with pytest.raises(InvalidRequestError, match="either a service or a model"):
        routes(service("s")).target(address, "u")


def test_a_model_alone_means_the_service_of_that_name() -> None:
    assert routes(service("m")).target(("", "m", ""), "u").variant == "m:1"
    with pytest.raises(InvalidRequestError, match="'m' without a version"):
        routes(service("s")).target(("", "m", ""), "u")


def test_nothing_named_means_the_default_service() -> None:
    assert routes(service("s"), default="s").target(("", "", ""), "u").model == V1
    with pytest.raises(InvalidRequestError, match="no default service"):
        routes(service("s")).target(("", "", ""), "u")


def test_an_unknown_service_is_named() -> None:
    with pytest.raises(UnknownNameError, match="unknown service 'nobody'"):
        routes(service("s")).target(("nobody", "", ""), "u")


def test_two_variants_split_users_by_bucket() -> None:
    halves = (VariantRoute("a", V1, ((0, 5_000),)), VariantRoute("b", V2, ((5_000, BUCKETS),)))
    table = routes(service("s", *halves))
    for user in ("u1", "u2", "u3", "u4", "u5", "u6"):
        expected = V1 if bucket(b"salt", user) < 5_000 else V2
        assert table.target(("s", "", ""), user).model == expected


@given(st.binary(min_size=1, max_size=64), st.text())
def test_a_user_has_one_bucket(salt: bytes, user_id: str) -> None:
    position = bucket(salt, user_id)
    assert 0 <= position < BUCKETS
    assert position == bucket(salt, user_id)


def test_the_bucket_of_the_contract() -> None:
    """BLAKE2b-64 keyed with the salt, big-endian, modulo 10 000."""
    assert bucket(b"salt", "user") == 8214


def test_epochs_follow_what_the_caller_named() -> None:
    table = routes(service("m", epoch=9), default="m")
    assert table.epoch(("", "m", "1")) == 3
    assert table.epoch(("m", "", "")) == table.epoch(("", "m", "")) == table.epoch(("", "", "")) == 9
    assert table.epoch(("gone", "", "")) == -1


def test_the_table_is_replaced_at_once() -> None:
    table = RouteTable(routes())
    table.current = routes(service("s"))
    assert table.current.services

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from loaders import catalog, registry
from loaders.artifact import ArtifactError, Manifest
from loaders.signature import Batch
from tests.unit.training.components.parties import parties
from training.component import ComponentError, ModelPart
from training.components.publish import Publish, PublishParameters

COLUMNS = {"guest": ("age", "height"), "host": ("visits",)}
PARAMETERS = PublishParameters("tumour", "v1")


MEAN = 0.4375


def model(party: str, **changes: Any) -> ModelPart:
    weights = np.linspace(-1, 2, len(COLUMNS[party]))
    arrays = {"weights": weights} | ({"intercept": np.array(0.25)} if party == "guest" else {}) | changes
    return ModelPart("hetero_lr", COLUMNS[party], arrays, {} if party == "guest" else {"mean_partial": [MEAN]})


def scale(party: str) -> ModelPart:
    count = len(COLUMNS[party])
    arrays = {"fill": np.full(count, 2.0), "mean": np.full(count, 3.0), "scale": np.full(count, 4.0)}
    return ModelPart("scale", COLUMNS[party], arrays)


def instead(payload: bytes, _: bytes) -> bytes:
    return payload


async def first_failure_ends_all(works: Mapping[str, Coroutine[Any, Any, Any]]) -> dict[str, Any]:
    """As a runner does: results or exceptions by party."""
    tasks = [asyncio.create_task(work) for work in works.values()]
    _, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in waiting:
        task.cancel()
    return dict(zip(works, await asyncio.gather(*tasks, return_exceptions=True), strict=True))


def published(
    folder: Path,
    inputs: dict[str, dict[str, Any]] | None = None,
    parameters: PublishParameters = PARAMETERS,
    damage: Mapping[str, bytes] = MappingProxyType({}),
    gives_means: bool = False,
) -> dict[str, Any]:
    """Outcomes by party. `damage`: what the host says instead, by message name. Only parties with inputs run."""
    wanted = inputs or {name: {"model": model(name), "scale": scale(name)} for name in COLUMNS}

    async def run() -> dict[str, Any]:
        async with parties("host") as members:
            for name, member in members.items():
                member.registry = folder / name
            members["host"].gives_means = gives_means
            for name, payload in damage.items():
                members["host"].channels["guest"].damage[name] = partial(instead, payload)
            outcomes = await first_failure_ends_all(
                {name: Publish().run(members[name], parameters, wanted[name]) for name in wanted}
            )
            sent = [message for member in members.values() for c in member.channels.values() for message in c.sent]
            return {**outcomes, "sent": sent}

    return asyncio.run(run())


def test_both_halves_are_bound_alike_and_pass_their_self_tests(tmp_path: Path) -> None:
    outcomes = published(tmp_path)
    assert (outcomes["guest"], outcomes["host"]) == ({}, {})
    halves = {name: registry.open_half(tmp_path / name, "tumour", "v1", name) for name in COLUMNS}
    assert halves["guest"].binding_digest == halves["host"].binding_digest
    for name, half in halves.items():
        servable = catalog.load_servable(catalog.loader_for(half))
        rows = np.array([[5.0] * len(COLUMNS[name]), [np.nan] * len(COLUMNS[name])])
        weights = model(name).arrays["weights"]
        intercept = 0.25 if name == "guest" else 0.0
        expected = [(5 - 3) / 4 * weights.sum() + intercept, (2 - 3) / 4 * weights.sum() + intercept]
        outputs = servable.predict(Batch(rows, np.empty((2, 0), dtype=object)))
        np.testing.assert_allclose(outputs["partial"][:, 0], expected)
        assert registry.resolve_alias(tmp_path / name, "tumour", "latest") == "v1"
        assert half.manifest.provenance == {"job": "job"}


def test_nothing_but_digests_leaves_a_party(tmp_path: Path) -> None:
    sent = published(tmp_path)["sent"]
    assert sorted(name for name, _, _ in sent) == ["bound", "bound", "half", "half", "mean_partial"]
    payloads = {name: payload for name, _, payload in sent}
    assert payloads.pop("mean_partial") == b"[]"
    assert all(len(payload) == 64 and int(payload, 16) for payload in payloads.values())
    assert not any(half.stand_ins for half in manifests(tmp_path).values())


def manifests(folder: Path) -> dict[str, Manifest]:
    return {name: registry.open_half(folder / name, "tumour", "v1", name).manifest for name in COLUMNS}


def test_a_host_that_lets_its_guest_know_gives_its_mean_partial(tmp_path: Path) -> None:
    sent = published(tmp_path, gives_means=True)["sent"]
    assert [payload for name, _, payload in sent if name == "mean_partial"] == [b"[0.4375]"]
    assert {name: half.stand_ins for name, half in manifests(tmp_path).items()} == {
        "guest": {"host": [MEAN]},
        "host": {"host": [MEAN]},
    }
    assert {half.schema for half in manifests(tmp_path).values()} == {"1.1"}
    for name in COLUMNS:
        catalog.load_servable(catalog.loader_for(registry.open_half(tmp_path / name, "tumour", "v1", name)))


def test_a_model_that_was_trained_without_a_mean_partial_gives_none(tmp_path: Path) -> None:
    inputs = {name: {"model": replace(model(name), attributes={}), "scale": scale(name)} for name in COLUMNS}
    published(tmp_path, inputs, gives_means=True)
    assert not any(half.stand_ins for half in manifests(tmp_path).values())


@pytest.mark.parametrize("told", [b"", b"{}", b"[1.0, 2.0]", b"[1e999]", b'["x"]'])
def test_what_is_no_mean_partial_is_refused(tmp_path: Path, told: bytes) -> None:
    outcome = published(tmp_path, damage={"mean_partial": told}, gives_means=True)["guest"]
    assert str(outcome) == "publish: party host sent no mean partial, and not that it gives none"


def test_a_manifest_names_no_column_or_intercept_of_another(tmp_path: Path) -> None:
    published(tmp_path)
    text = (registry.half_path(tmp_path / "host", "tumour", "v1", "host", "host") / "manifest.json").read_text()
    assert not any(word in text for word in ("age", "height", "intercept"))


def test_the_self_test_lies_in_the_ranges_and_has_a_gap(tmp_path: Path) -> None:
    published(tmp_path)
    manifest = registry.open_half(tmp_path / "guest", "tumour", "v1", "guest").manifest
    assert manifest.inputs[0].range == (-9.0, 15.0)
    assert manifest.self_test is not None
    values = [value for row in manifest.self_test.numbers for value in row]
    assert values.count(None) == 1
    assert all(-9 <= value <= 15 for value in values if value is not None)
    assert len({value for value in values}) == len(values)


def test_publishing_again_changes_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        outcomes = published(tmp_path)
        assert (outcomes["guest"], outcomes["host"]) == ({}, {})


def test_another_half_under_the_same_version_is_refused(tmp_path: Path) -> None:
    published(tmp_path)
    before = registry.open_half(tmp_path / "host", "tumour", "v1", "host").half_digest
    inputs = {"host": {"model": model("host", weights=np.array([9.0])), "scale": scale("host")}}
    outcome = published(tmp_path, inputs)
    assert isinstance(outcome["host"], ComponentError) and "publish under a new version" in str(outcome["host"])
    assert registry.open_half(tmp_path / "host", "tumour", "v1", "host").half_digest == before


def test_version_is_the_job_and_no_alias_if_none_is_wanted(tmp_path: Path) -> None:
    published(tmp_path, parameters=PublishParameters("tumour", alias=""))
    assert registry.open_half(tmp_path / "host", "tumour", "job", "host").manifest.version == "job"
    with pytest.raises(ArtifactError, match="no alias"):
        registry.resolve_alias(tmp_path / "host", "tumour", "latest")


def test_what_evaluate_found_stays_in_the_guests_manifest(tmp_path: Path) -> None:
    inputs: dict[str, dict[str, Any]] = {name: {"model": model(name), "scale": scale(name)} for name in COLUMNS}
    inputs["guest"]["figures"] = ModelPart("evaluate", ("score",), {}, {"auc": 0.98765})
    outcomes = published(tmp_path, inputs)
    assert (outcomes["guest"], outcomes["host"]) == ({}, {})
    provenance = {
        name: registry.open_half(tmp_path / name, "tumour", "v1", name).manifest.provenance for name in COLUMNS
    }
    assert provenance == {"guest": {"job": "job", "metrics": {"auc": 0.98765}}, "host": {"job": "job"}}
    assert all(len(payload) == 64 for name, _, payload in outcomes["sent"] if name != "mean_partial")


def test_without_scale_no_value_may_be_missing(tmp_path: Path) -> None:
    published(tmp_path, {name: {"model": model(name)} for name in COLUMNS})
    half = registry.open_half(tmp_path / "guest", "tumour", "v1", "guest")
    assert half.manifest.preprocess == [] and {spec.missing.value for spec in half.manifest.inputs} == {"error"}
    catalog.load_servable(catalog.loader_for(half))


@pytest.mark.parametrize(("name", "reason"), [("half", "sent no SHA-256 as 'half'"), ("bound", "bound other halves")])
def test_the_alias_stays_when_the_parties_disagree(tmp_path: Path, name: str, reason: str) -> None:
    outcomes = published(tmp_path, damage={name: b"0" * (64 if name == "bound" else 3)})
    assert reason in str(outcomes["guest"])
    with pytest.raises(ArtifactError, match="no alias"):
        registry.resolve_alias(tmp_path / "guest", "tumour", "latest")


def test_inputs_that_do_not_fit(tmp_path: Path) -> None:
    other = ModelPart("scale", ("x",), scale("host").arrays)
    wrong = published(tmp_path, {"host": {"model": scale("host")}})
    foreign = published(tmp_path, {"host": {"model": model("host"), "scale": other}})
    figures = published(tmp_path, {"guest": {"model": model("guest"), "figures": scale("guest")}})
    assert "input figures must come from evaluate" in str(figures["guest"])
    assert "must come from hetero_lr" in str(wrong["host"])
    assert "not of the model's columns" in str(foreign["host"])

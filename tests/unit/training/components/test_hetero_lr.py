"""Guest and hosts train and predict together, in one process over memory channels."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

from tests.unit.training.components.parties import parties, run_all
from training.algorithms.hetero_lr import (
    Convergence,
    Descent,
    LinearHalf,
    log_loss_sum,
    probability,
    residual,
    stable_rate,
)
from training.component import ComponentError, Table
from training.components.hetero_lr import HeteroLr, LrParameters
from training.privacy.bfv import BfvCipher
from training.privacy.matrix_cipher import MatrixCipher
from training.privacy.memory import PlaintextTwin
from training.privacy.randomness import private_weights
from training.together import together

TRAIN = slice(0, 400)
FEATURES, LABEL = load_breast_cancer(return_X_y=True)
FEATURES = (FEATURES - FEATURES[TRAIN].mean(0)) / FEATURES[TRAIN].std(0)
LABEL = LABEL.astype(float)
IDS = tuple(f"user-{row:03}" for row in range(569))


def table(columns: slice, rows: slice, *, labelled: bool = False) -> Table:
    names = tuple(f"c{column}" for column in range(30)[columns])
    return Table(IDS[rows], names, FEATURES[rows, columns].copy(), LABEL[rows] if labelled else None)


def shares(*cuts: int) -> list[slice]:
    """The guest's columns, then each host's."""
    edges = [0, *cuts, 30]
    return [slice(*pair) for pair in itertools.pairwise(edges)]


def tables(*cuts: int, train: slice = TRAIN) -> dict[str, dict[str, Any]]:
    names = ("guest", "host", "second")
    return {
        name: {
            "train": table(columns, train, labelled=name == "guest"),
            "test": table(columns, slice(400, 569), labelled=name == "guest"),
        }
        for name, columns in zip(names, shares(*cuts), strict=False)
    }


async def trained(cipher: MatrixCipher, parameters: LrParameters, inputs: dict[str, dict[str, Any]]):
    async with parties(*list(inputs)[1:]) as members:
        outcomes = await run_all(HeteroLr(cipher), members, inputs, parameters)
    return members, outcomes


async def refusals(inputs: dict[str, dict[str, Any]], parameters: LrParameters | None = None) -> list[str]:
    _, outcomes = await trained(PlaintextTwin(), parameters or LrParameters(), inputs)
    assert all(isinstance(outcome, ComponentError) for outcome in outcomes.values())
    return [str(outcome) for outcome in outcomes.values()]


def plain(parameters: LrParameters) -> LinearHalf:
    """Plain logistic regression on the joined table with the same optimiser and stopping rule."""
    start = private_weights(31, 0.1, 0.5)
    descent = Descent(stable_rate(FEATURES[TRAIN], parameters.l2, 1, intercept=True), parameters.l2)
    half, convergence = LinearHalf(start[1:], descent, start[0]), Convergence(parameters.tolerance)
    for _ in range(parameters.epochs):
        predictor = half.predictor(FEATURES[TRAIN])
        errors = residual(predictor, LABEL[TRAIN])
        half.update(FEATURES[TRAIN].T @ errors, float(errors.sum()), errors.size)
        if convergence.reached(log_loss_sum(predictor, LABEL[TRAIN]) / errors.size):
            break
    return half


def joined(outcomes: dict[str, Any]) -> np.ndarray:
    return np.concatenate([outcome["model"].arrays["weights"] for outcome in outcomes.values()])


async def test_it_equals_plain_logistic_regression_under_encryption():
    members, outcomes = await trained(BfvCipher(), LrParameters(), tables(10))
    prediction = outcomes["guest"]["prediction"]
    reference = plain(LrParameters())
    federated = roc_auc_score(LABEL[400:], prediction.features[:, 0])
    assert federated == pytest.approx(roc_auc_score(LABEL[400:], reference.predictor(FEATURES[400:])), abs=1e-3)
    assert len(members["guest"].metrics) <= 60
    assert np.abs(joined(outcomes) - reference.weights).mean() < 0.15


@pytest.mark.parametrize(("cipher", "epochs", "distance"), [(BfvCipher, 60, 0.05), (PlaintextTwin, 250, 2e-3)])
async def test_run_to_the_end_the_weights_are_those_of_plain_logistic_regression(cipher, epochs, distance):
    parameters = LrParameters(epochs=epochs, tolerance=0.0, l2=0.1)
    _, outcomes = await trained(cipher(), parameters, tables(10))
    reference = plain(msgspec.structs.replace(parameters, epochs=250))
    assert np.allclose(joined(outcomes), reference.weights, atol=distance)
    assert float(outcomes["guest"]["model"].arrays["intercept"]) == pytest.approx(reference.intercept, abs=distance)


async def test_two_hosts_and_mini_batches():
    inputs = tables(10, 18, train=slice(0, 569))
    _, outcomes = await trained(PlaintextTwin(), LrParameters(epochs=40, tolerance=0, batch_rows=260), inputs)
    score = outcomes["guest"]["prediction"].features[:, 0]
    assert roc_auc_score(LABEL[400:], score) > 0.99
    assert [outcomes[name]["model"].arrays["weights"].shape for name in outcomes] == [(10,), (8,), (12,)]


async def test_outputs_of_both_sides():
    _, outcomes = await trained(PlaintextTwin(), LrParameters(epochs=3), tables(10))
    guest, host = outcomes["guest"]["model"], outcomes["host"]["model"]
    assert set(outcomes["host"]) == {"model"}
    assert (guest.kind, guest.columns) == ("hetero_lr", tuple(f"c{column}" for column in range(10)))
    assert {name: array.shape for name, array in guest.arrays.items()} == {"weights": (10,), "intercept": ()}
    assert {name: array.shape for name, array in host.arrays.items()} == {"weights": (20,)}
    own_columns = FEATURES[:400, 10:]
    assert host.attributes["mean_partial"] == [pytest.approx((own_columns @ host.arrays["weights"]).mean())]
    assert "mean_partial" not in guest.attributes
    prediction = outcomes["guest"]["prediction"]
    assert (prediction.ids, prediction.columns) == (IDS[400:], ("score",))
    assert np.array_equal(prediction.label, LABEL[400:])
    weights = joined(outcomes)
    expected = probability(FEATURES[400:] @ weights + guest.arrays["intercept"])
    assert np.allclose(prediction.features[:, 0], expected, atol=1e-12)


async def test_a_model_alone_predicts_the_same():
    inputs = tables(10)
    _, fitted = await trained(PlaintextTwin(), LrParameters(epochs=3), inputs)
    again = {name: {"model": fitted[name]["model"], "test": inputs[name]["test"]} for name in inputs}
    _, outcomes = await trained(PlaintextTwin(), LrParameters(), again)
    assert np.array_equal(outcomes["guest"]["prediction"].features, fitted["guest"]["prediction"].features)


async def test_the_loss_of_every_epoch_is_shown_at_the_guest_only():
    members, _ = await trained(PlaintextTwin(), LrParameters(epochs=5, tolerance=0), tables(10))
    losses = [value for name, value, _ in members["guest"].metrics if name == "loss"]
    assert len(losses) == 5
    assert losses == sorted(losses, reverse=True)
    assert members["guest"].notes[-1] == (5, 5, f"loss {losses[-1]:.4f}")
    assert members["host"].notes[-1] == (5, 5, "")
    assert not members["host"].metrics


@dataclasses.dataclass(frozen=True, slots=True)
class WatchedTwin(PlaintextTwin):
    """Keeps the residuals that were encrypted."""

    residuals: list[np.ndarray] = dataclasses.field(default_factory=list)

    def encrypt(self, secret, shape, vector):
        self.residuals.append(vector)
        return PlaintextTwin.encrypt(self, secret, shape, vector)


async def test_the_first_residual_is_not_a_half_minus_the_label():
    cipher = WatchedTwin()
    await trained(cipher, LrParameters(epochs=1), tables(10))
    distance = np.abs(np.abs(cipher.residuals[0]) - 0.5)
    assert np.median(distance) > 0.05
    assert np.unique(cipher.residuals[0]).size > 390


async def test_two_jobs_start_from_different_weights():
    ciphers = WatchedTwin(), WatchedTwin()
    for cipher in ciphers:
        await trained(cipher, LrParameters(epochs=1), tables(10))
    assert not np.allclose(ciphers[0].residuals[0], ciphers[1].residuals[0])


async def test_the_guest_sends_one_sum_per_declared_column_and_nothing_in_the_clear():
    members, _ = await trained(BfvCipher(), LrParameters(epochs=2, tolerance=0), tables(10))
    sent = members["guest"].channel("host").sent
    assert {name for name, _, _ in sent} == {"answer", "residual", "sums", "verdict"}
    assert [len(payload) for name, _, payload in sent if name == "sums"] == [20 * 8] * 2
    secret_half = [payload for name, _, payload in members["host"].channel("guest").sent if name == "gradient"]
    assert len(secret_half[0]) < 300_000


@pytest.mark.parametrize(("rows", "batch_rows"), [(255, 2048), (400, 128), (500, 250)])
async def test_small_batches_are_refused_and_the_host_hears_why(rows, batch_rows):
    guest, host = await refusals(tables(10, train=slice(0, rows)), LrParameters(batch_rows=batch_rows))
    assert "at least 256 rows are needed: raise batch_rows" in guest
    assert "party guest refuses: batches of" in host


async def test_batches_grow_with_the_columns_of_all_hosts_together():
    inputs = tables(1, 15, train=slice(0, 280))
    guest, *_ = await refusals(inputs)
    assert "at least 290 rows" in guest


async def test_rows_in_another_order_are_refused():
    inputs = tables(10)
    train = inputs["host"]["train"]
    inputs["host"]["train"] = dataclasses.replace(train, ids=train.ids[::-1], features=train.features[::-1])
    guest, _ = await refusals(inputs)
    assert "stand in another order" in guest


async def test_a_value_beyond_the_plaintext_space_names_party_and_column():
    inputs = tables(10)
    inputs["host"]["train"].features[5, 3] = 1e9
    outcome = await first_failure(inputs)
    assert "party host: a column holds a value beyond" in str(outcome)
    assert "(column c13)" in str(outcome)


async def first_failure(inputs: dict[str, dict[str, Any]]) -> BaseException:
    """What one party raises while the other waits for it; the runner would then end the other."""
    component = HeteroLr(PlaintextTwin())
    async with parties("host") as members:
        with pytest.raises(ComponentError) as caught:
            await together(*(component.run(members[name], LrParameters(), inputs[name]) for name in members))
    return caught.value


async def test_missing_values_name_party_and_column():
    inputs = tables(10)
    inputs["guest"]["train"].features[5, 3] = np.nan
    assert "party guest: column c3 has missing or infinite values" in str(await first_failure(inputs))


@pytest.mark.parametrize("label", [np.zeros(400), np.full(400, 2.0), np.full(400, np.nan), None])
async def test_labels_other_than_zero_and_one_are_refused(label):
    inputs = tables(10)
    inputs["guest"]["train"] = dataclasses.replace(inputs["guest"]["train"], label=label)
    assert "label must hold both 0 and 1" in str(await first_failure(inputs))


async def test_no_rows_are_refused():
    assert "party guest: the table for hetero_lr has no rows" in str(await first_failure(tables(10, train=slice(0, 0))))


async def test_nothing_to_train_on_and_no_model_is_refused():
    inputs = tables(10)
    for ports in inputs.values():
        del ports["train"]
    assert "needs the input train, or the input model" in str(await first_failure(inputs))


async def test_columns_other_than_the_models_are_refused():
    inputs = tables(10)
    inputs["host"]["test"] = dataclasses.replace(inputs["host"]["test"], columns=tuple("abcdefghijklmnopqrst"))
    assert "party host: the table's columns are not those the model was trained on" in str(await first_failure(inputs))


async def test_other_rows_to_predict_are_refused():
    inputs = tables(10)
    test = inputs["host"]["test"]
    inputs["host"]["test"] = dataclasses.replace(test, ids=test.ids[::-1])
    assert "party host: its rows to predict are not ours" in str(await first_failure(inputs))


async def spoil(name: str, change: Callable[[bytes], bytes], sender: str) -> str:
    """What the guest or host says when `sender` damages its message `name`."""
    component, inputs = HeteroLr(BfvCipher()), tables(10)
    async with parties("host") as members:
        (scoped,) = members[sender].channels.values()
        scoped.damage[name] = change
        with pytest.raises(ComponentError) as caught:
            await together(*(component.run(members[party], LrParameters(epochs=1), inputs[party]) for party in members))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "sender", "text"),
    [
        ("offer", "host", "party host: not a valid offer"),
        ("answer", "guest", "party guest: not a valid answer"),
        ("predictor", "host", "party host: expected 400 finite values"),
        ("residual", "guest", "party guest: the encrypted vector is damaged"),
        ("gradient", "host", "party host: the masked reply is damaged"),
        ("sums", "guest", "party guest: expected 20 sums below the plaintext modulus"),
        ("prediction", "host", "party host: its rows to predict are not ours"),
    ],
)
async def test_damaged_messages_give_one_clear_error(name, sender, text):
    assert text in await spoil(name, lambda payload: payload[:4] + bytes([255]) * (len(payload) - 4), sender)


@pytest.mark.parametrize(
    ("name", "sender", "text"),
    [
        ("residual", "guest", "party guest: the peer's ciphertexts end in the middle"),
        ("sums", "guest", "party guest: expected 20 sums, received 152 bytes"),
        ("prediction", "host", "party host: expected 169 finite values"),
    ],
)
async def test_cut_messages_give_one_clear_error(name, sender, text):
    assert text in await spoil(name, lambda payload: payload[:-8], sender)


async def test_a_host_without_columns_is_refused():
    guest, _ = await refusals(tables(30))
    assert "a host declares no columns" in guest


async def test_a_host_takes_part_only_with_its_consent():
    inputs = tables(10)
    async with parties("host") as members:
        members["host"].consents = False
        outcomes = await run_all(HeteroLr(PlaintextTwin()), members, inputs, LrParameters())
    text = "party host does not consent to hetero_lr with party guest; its settings decide"
    assert [str(outcome) for outcome in outcomes.values()] == [text, text]
    assert [name for name, _, _ in members["host"].channels["guest"].sent] == ["offer"]


async def test_a_host_predicts_only_with_its_consent():
    trained_on = tables(10)
    _, models = await trained(PlaintextTwin(), LrParameters(epochs=2), trained_on)
    inputs = {name: {"model": models[name]["model"], "test": trained_on[name]["test"]} for name in trained_on}
    async with parties("host") as members:
        members["host"].consents = False
        host = HeteroLr(PlaintextTwin()).run(members["host"], LrParameters(), inputs["host"])
        with pytest.raises(ComponentError, match="does not consent to hetero_lr"):
            await host
    assert not members["host"].channels["guest"].sent

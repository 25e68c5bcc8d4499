"""The update rule against calculus and scikit-learn, and the two attacks that its safeguards answer."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression

from training.algorithms.hetero_lr import (
    Convergence,
    Descent,
    LinearHalf,
    batch_plan,
    log_loss_sum,
    probability,
    residual,
    safe_batch_rows,
    stable_rate,
)
from training.privacy.randomness import private_weights


def breast_cancer() -> tuple[np.ndarray, np.ndarray]:
    features, label = load_breast_cancer(return_X_y=True)
    features = features[:400]
    return (features - features.mean(0)) / features.std(0), label[:400].astype(float)


def step(features: np.ndarray, label: np.ndarray, halves: list[tuple[LinearHalf, slice]]) -> float:
    """One full-batch step of any number of halves."""
    predictor = sum(half.predictor(features[:, columns]) for half, columns in halves)
    errors = residual(predictor, label)
    for half, columns in halves:
        half.update(features[:, columns].T @ errors, float(errors.sum()), label.size)
    return log_loss_sum(predictor, label) / label.size


def test_the_residual_is_the_derivative_of_the_loss():
    predictor, label, tiny = np.array([-40.0, -1.0, 0.3, 40.0]), np.array([0.0, 1.0, 0.0, 1.0]), 1e-6
    for row in range(4):
        shifted = predictor + tiny * (np.arange(4) == row)
        slope = (log_loss_sum(shifted, label) - log_loss_sum(predictor, label)) / tiny
        assert slope == pytest.approx(residual(predictor, label)[row], abs=1e-5)


def test_probabilities_do_not_overflow():
    assert probability(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]


def test_split_halves_take_the_same_path_as_one_half_with_all_columns():
    features, label = breast_cancer()
    start = np.linspace(-0.4, 0.4, 30)
    whole = LinearHalf(start, Descent(0.2), 0.2)
    guest, host = LinearHalf(start[:10], Descent(0.2), 0.2), LinearHalf(start[10:], Descent(0.2))
    for _ in range(50):
        alone = step(features, label, [(whole, slice(None))])
        together = step(features, label, [(guest, slice(10)), (host, slice(10, None))])
        assert together == pytest.approx(alone, abs=1e-9)
    assert np.allclose(np.concatenate([guest.weights, host.weights]), whole.weights, atol=1e-9)
    assert guest.intercept == pytest.approx(whole.intercept, abs=1e-9)
    assert host.intercept is None


def descent(features: np.ndarray, l2: float = 0.01, parties: int = 1) -> Descent:
    return Descent(stable_rate(features, l2, parties, intercept=True), l2)


def test_it_settles_within_sixty_steps_on_breast_cancer():
    features, label = breast_cancer()
    half = LinearHalf(private_weights(30, 0.1, 0.5), descent(features), 0.3)
    convergence = Convergence(1e-4)
    losses = (step(features, label, [(half, slice(None))]) for _ in range(60))
    assert any(convergence.reached(loss) for loss in losses)
    assert np.mean((half.predictor(features) > 0) == label) > 0.97


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_rate_fits_columns_of_any_scale_and_correlation(scale):
    """Forty copies of one column in two halves: a fixed rate would diverge."""
    generator = np.random.default_rng(0)
    column = generator.normal(size=(300, 1))
    features = np.repeat(column, 40, axis=1) * scale
    label = (column[:, 0] + generator.normal(size=300) > 0).astype(float)
    rates = [stable_rate(features[:, :20], 0.0, 2, intercept=own) for own in (True, False)]
    guest, host = (
        LinearHalf(np.zeros(20), Descent(rates[0], 0.0), 0.0),
        LinearHalf(np.zeros(20), Descent(rates[1], 0.0)),
    )
    losses = [step(features, label, [(guest, slice(20)), (host, slice(20, None))]) for _ in range(100)]
    assert losses[-1] < 0.6 < losses[0]
    assert losses[-1] == pytest.approx(min(losses), abs=1e-3)


def test_the_rate_of_a_column_of_zeros_is_finite():
    assert stable_rate(np.zeros((5, 1)), 0.0, 2, intercept=False) == 1.0


def test_the_optimum_is_that_of_regularised_logistic_regression():
    features, label = breast_cancer()
    half = LinearHalf(np.zeros(30), descent(features, 0.05), 0.1)
    for _ in range(1500):
        step(features, label, [(half, slice(None))])
    reference = LogisticRegression(C=1 / (0.05 * 400), tol=1e-10, max_iter=10_000).fit(features, label)
    assert np.allclose(half.weights, reference.coef_[0], atol=1e-3)
    assert half.intercept == pytest.approx(reference.intercept_[0], abs=1e-3)


def test_the_intercept_is_not_penalised():
    half = LinearHalf(np.ones(1), Descent(0.1, l2=1.0), 1.0)
    half.update(np.zeros(1), 0.0, 10)
    assert half.intercept == 1.0
    assert half.weights[0] < 1.0


def test_a_column_of_zeros_keeps_weight_zero():
    half = LinearHalf(np.zeros(2), Descent(0.1))
    half.update(np.array([0.0, 3.0]), 0.0, 10)
    assert half.weights[0] == 0.0
    assert half.weights[1] < 0.0


@pytest.mark.parametrize(
    ("rows", "batch_rows", "sizes"),
    [(10, 4, [5, 5]), (10, 10, [10]), (9, 10, [9]), (1000, 256, [334, 333, 333]), (3, 1, [1, 1, 1])],
)
def test_batches_cover_every_row_once_and_leave_no_rest(rows, batch_rows, sizes):
    plan = batch_plan(rows, batch_rows, seed=5)
    assert [len(part) for part in plan] == sizes
    assert sorted(np.concatenate(plan)) == list(range(rows))
    assert all(np.array_equal(a, b) for a, b in zip(plan, batch_plan(rows, batch_rows, seed=5), strict=True))


def test_another_seed_gives_other_batches():
    assert not np.array_equal(batch_plan(100, 50, 1)[0], batch_plan(100, 50, 2)[0])


def test_convergence_needs_three_small_moves_in_a_row():
    convergence = Convergence(0.1)
    losses = (0.5, 0.45, 0.44, 0.2, 0.21, 0.2, 0.19, 0.18)
    assert [convergence.reached(loss) for loss in losses] == [False] * 6 + [True, True]


@pytest.mark.parametrize(("columns", "rows"), [(1, 256), (20, 256), (26, 260), (300, 3000)])
def test_the_least_batch_grows_with_the_host(columns, rows):
    assert safe_batch_rows(columns) == rows


class Attacked:
    """A batch as the host sees it: its own 20 columns and the gradient of the first step, exact."""

    def __init__(self, rows: int, guest_weights: np.ndarray, intercept: float) -> None:
        generator = np.random.default_rng(rows)
        self.label = generator.integers(0, 2, rows).astype(float)
        self.columns = generator.normal(size=(rows, 20))
        guest = LinearHalf(guest_weights, Descent(0.1), intercept)
        self.errors = residual(guest.predictor(generator.normal(size=(rows, 10))), self.label)
        self.gradient = self.columns.T @ self.errors

    def labels_by_enumeration(self) -> np.ndarray | None:
        """With zero weights every residual is 1/2 or -1/2. Guess the surplus rows, solve for the others, and see
        whether what comes out is +-1/2 too."""
        surplus = self.label.size - 20
        guesses = ((np.arange(2**surplus)[:, None] >> np.arange(surplus)) & 1) - 0.5
        rest = np.linalg.solve(self.columns[:20].T, (self.gradient - guesses @ self.columns[20:]).T).T
        fits = np.flatnonzero(np.abs(np.abs(rest) - 0.5).max(axis=1) < 1e-6)
        if fits.size != 1:
            return None
        return (np.concatenate([rest[fits[0]], guesses[fits[0]]]) < 0).astype(float)

    def labels_by_solving(self) -> np.ndarray:
        """The least residuals that explain the gradient; probability minus label is negative where the label is 1."""
        return (np.linalg.lstsq(self.columns.T, self.gradient)[0] < 0).astype(float)


def test_attack_a_zero_weights_give_every_label_even_of_more_rows_than_columns():
    batch = Attacked(30, np.zeros(10), 0.0)
    assert np.array_equal(batch.labels_by_enumeration(), batch.label)


def test_attack_a_fails_when_the_guest_starts_from_private_weights():
    start = private_weights(11, 0.1, 0.5)
    batch = Attacked(30, start[1:], start[0])
    assert np.abs(np.abs(batch.errors) - 0.5).min() < np.abs(np.abs(batch.errors) - 0.5).max()
    assert batch.labels_by_enumeration() is None


def test_attack_b_twenty_columns_give_every_label_of_twenty_rows_also_with_private_weights():
    start = private_weights(11, 0.1, 0.5)
    batch = Attacked(20, start[1:], start[0])
    assert np.array_equal(batch.labels_by_solving(), batch.label)


def test_attack_b_finds_little_more_than_chance_in_the_smallest_batch_allowed():
    start = private_weights(11, 0.1, 0.5)
    batch = Attacked(safe_batch_rows(20), start[1:], start[0])
    assert 0.4 < np.mean(batch.labels_by_solving() == batch.label) < 0.75

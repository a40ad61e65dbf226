"""How likely the chosen architecture is as good as the best of all candidates, or nearly."""

import numpy as np
import pytest
from numpy.typing import NDArray

from raynas.near_best import NEAR, in_words, probability_near_best

COUNT = 60


def run(seed: int, noise: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Three rankers, accuracies from 0.6 to 0.95, and choices."""
    rng = np.random.default_rng(seed)
    accuracy_A = rng.permutation(np.linspace(0.6, 0.95, COUNT))
    scores_RA = accuracy_A + noise * rng.normal(size=(3, COUNT))
    return scores_RA, accuracy_A, rng.integers(3, size=(COUNT, 4))


def told(
    scores_RA: NDArray[np.float64],
    accuracy_A: NDArray[np.float64],
    choices_AB: NDArray[np.int64],
    known: NDArray[np.int64],
    seed: int = 0,
) -> float | None:
    """Of the best of the known."""
    known_A = np.where(np.isin(np.arange(COUNT), known), accuracy_A, np.nan)
    chosen = int(np.nanargmax(known_A))
    every_A = np.ones(COUNT, dtype=bool)
    return probability_near_best(scores_RA, known_A, choices_AB, chosen, candidate_A=every_A, seed=seed)


def test_the_best_is_told_to_be_likelier_the_best_than_one_of_the_middle() -> None:
    scores_RA, accuracy_A, choices_AB = run(0, noise=0.01)
    order = np.argsort(-accuracy_A)
    best = told(scores_RA, accuracy_A, choices_AB, order[::5])
    middle = told(scores_RA, accuracy_A, choices_AB, order[COUNT // 2 :: 3])
    assert best is not None and middle is not None
    assert best > 0.5 > 0.4 > middle


def test_of_rankers_that_know_nothing_many_may_be_better() -> None:
    scores_RA, accuracy_A, choices_AB = run(0, noise=10.0)
    known = np.argsort(-accuracy_A)[COUNT // 4 :: 5]
    found = told(scores_RA, accuracy_A, choices_AB, known)
    assert found is not None and found < 0.5


def test_once_all_are_trained_it_is_certain() -> None:
    assert told(*run(0, noise=0.1), np.arange(COUNT)) == 1.0


def test_who_is_known_to_be_worse_is_not_near_the_best() -> None:
    scores_RA, accuracy_A, choices_AB = run(0, noise=0.1)
    chosen, every_A = int(np.argsort(-accuracy_A)[1]), np.ones(COUNT, dtype=bool)
    assert accuracy_A.max() > accuracy_A[chosen] + NEAR
    assert probability_near_best(scores_RA, accuracy_A, choices_AB, chosen, candidate_A=every_A, seed=0) == 0


def test_those_that_would_not_be_trained_are_not_waited_for() -> None:
    scores_RA, accuracy_A, choices_AB = run(0, noise=0.05)
    known_A = np.where(np.arange(COUNT) % 3 == 0, accuracy_A, np.nan)
    nobody_A = np.zeros(COUNT, dtype=bool)
    chosen = int(np.nanargmax(known_A))
    assert probability_near_best(scores_RA, known_A, choices_AB, chosen, candidate_A=nobody_A, seed=0) == 1


@pytest.mark.parametrize("known", [[0, 1, 2], []])
def test_of_too_few_accuracies_nothing_is_told(known: list[int]) -> None:
    scores_RA, accuracy_A, choices_AB = run(0, noise=0.1)
    known_A = np.where(np.isin(np.arange(COUNT), known), accuracy_A, np.nan)
    every_A = np.ones(COUNT, dtype=bool)
    assert probability_near_best(scores_RA, known_A, choices_AB, 0, candidate_A=every_A, seed=0) is None


def test_of_equal_accuracies_nothing_is_told() -> None:
    scores_RA, accuracy_A, choices_AB = run(0, noise=0.1)
    assert told(scores_RA, np.full_like(accuracy_A, 0.9), choices_AB, np.arange(0, COUNT, 4)) is None


def test_the_same_seed_tells_the_same() -> None:
    known = np.arange(0, COUNT, 4)
    assert told(*run(1, noise=0.1), known, seed=3) == told(*run(1, noise=0.1), known, seed=3)


def test_a_candidate_that_nobody_has_scored_is_left_out() -> None:
    scores_RA, accuracy_A, choices_AB = run(2, noise=0.1)
    known = np.arange(0, COUNT, 4)
    blind_RA = scores_RA.copy()
    blind_RA[:, 1] = np.nan
    found = told(blind_RA, accuracy_A, choices_AB, known)
    assert found is not None and 0 <= found <= 1


def test_it_is_told_in_a_sentence_and_nothing_where_it_is_not_known() -> None:
    found = {"name": "net 3", "architecture": "3-0", "candidates": 60, "within": 0.002, "probability": 0.756}
    assert in_words({"near_best": found}) == (
        "With probability 0.76 no other of the 60 candidates would be more than 0.2 points better than the chosen "
        "net 3."
    )
    assert in_words({"near_best": None}) == in_words({}) == ""

"""How likely the chosen architecture is as good as the best of all candidates, or nearly."""

import numpy as np
import pytest
from numpy.typing import NDArray

from raynas.near_best import ENOUGH, NEAR, in_words, probability_near_best

COUNT = 120


def run(noise: float, best: float = 0.95) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Three rankers, accuracies at equal distances of 0.003, and choices."""
    rng = np.random.default_rng(0)
    accuracy_A = best - 0.003 * rng.permutation(COUNT)
    scores_RA = accuracy_A + noise * rng.normal(size=(3, COUNT))
    return scores_RA, accuracy_A, rng.integers(3, size=(COUNT, 4))


def told(
    scores_RA: NDArray[np.float64],
    accuracy_A: NDArray[np.float64],
    choices_AB: NDArray[np.int64],
    known: NDArray[np.int64],
    *,
    candidates: NDArray[np.int64] | None = None,
    seed: int = 0,
) -> float | None:
    """Of the best of the known; of all as candidates, or of these."""
    known_A = np.where(np.isin(np.arange(COUNT), known), accuracy_A, np.nan)
    chosen = int(np.nanargmax(known_A))
    candidate_A = np.isin(np.arange(COUNT), np.arange(COUNT) if candidates is None else candidates)
    return probability_near_best(scores_RA, known_A, choices_AB, chosen, candidate_A=candidate_A, seed=seed)


def of_rank(accuracy_A: NDArray[np.float64], first: int) -> NDArray[np.int64]:
    """So many as are enough, at equal distances from that place to the last."""
    return np.argsort(-accuracy_A)[np.linspace(first, COUNT - 1, ENOUGH).astype(int)]


def test_the_better_the_chosen_the_likelier_none_is_better() -> None:
    scores_RA, accuracy_A, choices_AB = run(noise=0.02)
    found = [told(scores_RA, accuracy_A, choices_AB, of_rank(accuracy_A, first)) or 0 for first in (0, 6, 12, 40)]
    assert found[0] > found[1] > found[2] > found[3] > 0
    assert found[0] > 0.2 > 0.05 > found[3]


def test_the_less_rankers_know_the_less_likely_the_best_is_the_best() -> None:
    found = []
    for noise in (0.002, 0.05, 10.0):
        scores_RA, accuracy_A, choices_AB = run(noise)
        found.append(told(scores_RA, accuracy_A, choices_AB, of_rank(accuracy_A, 0)) or 0)
    assert found[0] > found[1] > found[2]


def test_the_fewer_may_be_better_the_likelier_none_is() -> None:
    scores_RA, accuracy_A, choices_AB = run(noise=0.05)
    order, known = np.argsort(-accuracy_A), of_rank(accuracy_A, 4)
    found = [told(scores_RA, accuracy_A, choices_AB, known, candidates=order[first:]) or 0 for first in (0, 20, 80)]
    assert found[0] < found[1] < found[2]


def test_once_all_are_trained_it_is_certain() -> None:
    assert told(*run(noise=0.1), np.arange(COUNT)) == 1


def test_those_that_would_not_be_trained_are_not_waited_for() -> None:
    assert told(*run(noise=0.1), np.arange(3), candidates=np.array([], dtype=int)) == 1


def test_nothing_is_better_than_a_network_without_errors() -> None:
    scores_RA, accuracy_A, choices_AB = run(noise=0.1, best=1.0)
    assert told(scores_RA, accuracy_A, choices_AB, of_rank(accuracy_A, 0)) == 1


def test_who_is_known_to_be_worse_is_not_near_the_best() -> None:
    scores_RA, accuracy_A, choices_AB = run(noise=0.1)
    second, every_A = int(np.argsort(-accuracy_A)[1]), np.ones(COUNT, dtype=bool)
    assert accuracy_A.max() > accuracy_A[second] + NEAR
    assert probability_near_best(scores_RA, accuracy_A, choices_AB, second, candidate_A=every_A, seed=0) == 0


@pytest.mark.parametrize("missing", [1, ENOUGH - 1])
def test_of_too_few_accuracies_nothing_is_told(missing: int) -> None:
    scores_RA, accuracy_A, choices_AB = run(noise=0.1)
    assert told(scores_RA, accuracy_A, choices_AB, of_rank(accuracy_A, 0)[missing:]) is None


def test_accuracies_of_what_nobody_has_scored_do_not_count() -> None:
    scores_RA, accuracy_A, choices_AB = run(noise=0.1)
    known = of_rank(accuracy_A, 0)
    scores_RA[:, known[1]] = np.nan
    assert told(scores_RA, accuracy_A, choices_AB, known) is None
    scores_RA[:, known] = np.nan
    assert told(scores_RA, accuracy_A, choices_AB, known) is None


def test_of_equal_accuracies_nothing_is_told() -> None:
    scores_RA, accuracy_A, choices_AB = run(noise=0.1)
    assert told(scores_RA, np.full_like(accuracy_A, 0.9), choices_AB, of_rank(accuracy_A, 0)) is None


def test_that_the_best_are_equal_is_no_reason_to_tell_nothing() -> None:
    scores_RA, accuracy_A, choices_AB = run(noise=0.1)
    assert told(scores_RA, np.minimum(accuracy_A, 0.75), choices_AB, of_rank(accuracy_A, 0)) is not None


def test_a_candidate_that_nobody_has_scored_is_left_out() -> None:
    scores_RA, accuracy_A, choices_AB = run(noise=0.1)
    known = of_rank(accuracy_A, 0)
    left = np.setdiff1d(np.arange(COUNT), known)[5]
    scores_RA[:, left] = np.nan
    without = np.delete(np.arange(COUNT), left)
    assert told(scores_RA, accuracy_A, choices_AB, known) == told(
        scores_RA, accuracy_A, choices_AB, known, candidates=without
    )


def test_a_seed_tells_the_same_again_and_another_nearly() -> None:
    scores_RA, accuracy_A, choices_AB = run(noise=0.1)
    one, again, other = (
        told(scores_RA, accuracy_A, choices_AB, of_rank(accuracy_A, 4), seed=seed) or 0 for seed in (3, 3, 4)
    )
    assert one == again != other == pytest.approx(one, abs=0.05)


@pytest.mark.parametrize(
    ("probability", "begin"),
    [
        (0.756, "With a probability of about 0.75 no other candidate would be"),
        (0.99, "With a probability of more than 0.95 no other candidate would be"),
        (0.01, "With a probability of less than 0.05 no other candidate would be"),
        (0.0, "Of those that were trained from scratch, another one is"),
    ],
)
def test_it_is_told_in_a_sentence(probability: float, begin: str) -> None:
    found = {"name": "net 3", "architecture": "3-0", "within": 0.002, "probability": probability}
    assert in_words({"near_best": found}) == f"{begin} more than 0.2 points better than the chosen net 3."


@pytest.mark.parametrize("gap", [{"near_best": None}, {}])
def test_nothing_is_told_where_it_is_not_known(gap: dict[str, None]) -> None:
    assert in_words(gap) == ""

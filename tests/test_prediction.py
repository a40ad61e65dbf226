"""Predictors of what supernets say: each architecture from the others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from raynas import prediction, seeds
from raynas.aggregators.reliability import reliability
from raynas.architecture import Architecture
from raynas.members import load_member, members
from raynas.prediction import Predictor, predictions
from raynas.rank_correlation import kendall_tau_b
from raynas.testing import PREDICTOR_CHECKS
from search_spaces.nas_bench_201 import SPACE

WORTH = np.array([-4.0, 0.0, 2.0, 3.0, -1.0])
"""Of each operation, on every edge."""


def networks(count: int = 120) -> list[Architecture]:
    rng = seeds.generator(0, "networks")
    return list({SPACE.canonicalise(SPACE.sample(rng)): None for _ in range(2 * count)})[:count]


def scores_of(architectures: list[Architecture]) -> dict[Architecture, float]:
    return {one: float(WORTH[list(one)].sum()) for one in architectures}


def ridge(
    known_NF: NDArray[np.float64], ranks_N: NDArray[np.float64], asked_AF: NDArray[np.float64], *, seed: int
) -> NDArray[np.float64]:
    """A predictor as a user may have one of his own, for what does not hang on which it is."""
    del seed
    centre_F, mean = known_NF.mean(axis=0), ranks_N.mean()
    off_NF = known_NF - centre_F
    weight_F = np.linalg.solve(off_NF.T @ off_NF + np.eye(len(centre_F)), off_NF.T @ (ranks_N - mean))
    return np.asarray((asked_AF - centre_F) @ weight_F + mean)


def predicted(
    *measured: dict[Architecture, float], asked: list[Architecture], by: Predictor = ridge
) -> NDArray[np.float64]:
    return predictions({"it": by}, SPACE, measured, asked, seed=0)["it"]


@pytest.mark.parametrize("name", members("raynas.predictors"))
@pytest.mark.parametrize("check", PREDICTOR_CHECKS)
def test_every_predictor_keeps_the_contract(check: Callable[[Predictor], None], name: str) -> None:
    check(load_member("raynas.predictors", name))


@pytest.mark.parametrize("name", members("raynas.predictors"))
def test_each_architecture_is_foretold_from_the_others(name: str) -> None:
    scores, predictor = scores_of(networks(150)), load_member("raynas.predictors", name)
    assert kendall_tau_b(predicted(scores, asked=[*scores], by=predictor), list(scores.values())) > 0.6


def test_a_score_has_no_say_in_its_own_prediction() -> None:
    scores = scores_of(networks())
    before_A = predicted(scores, asked=[*scores])
    for a, one in list(enumerate(scores))[:3]:
        after_A = predicted({**scores, one: 100.0}, asked=[*scores])
        assert after_A[a] == before_A[a] and (after_A != before_A).any()


def test_neither_the_order_of_what_was_measured_nor_what_else_is_asked_matters() -> None:
    scores = scores_of(networks())
    asked = [*scores]
    forwards_A = predicted(scores, asked=asked)
    backwards_A = predicted(dict(reversed(scores.items())), asked=asked[::-1])
    np.testing.assert_array_equal(forwards_A, backwards_A[::-1])
    np.testing.assert_array_equal(predicted(scores, asked=[*asked[:7], asked[0]]), forwards_A[[*range(7), 0]])


def test_keys_of_one_network_are_foretold_the_same() -> None:
    key = next(one for one in map(SPACE.sample, [seeds.generator(2, "keys")] * 99) if not SPACE.is_canonical(one))
    one, other = predicted(scores_of(networks()), asked=[key, SPACE.canonicalise(key)])
    assert one == other


def test_only_the_order_of_scores_matters() -> None:
    scores = scores_of(networks())
    stretched = {one: float(np.exp(score)) for one, score in scores.items()}
    np.testing.assert_array_equal(predicted(stretched, asked=[*scores]), predicted(scores, asked=[*scores]))


def test_nothing_is_learnt_from_missing_scores() -> None:
    scores = scores_of(networks())
    asked = [*scores]
    gaps = {one: np.nan if a % 3 == 0 else score for a, (one, score) in enumerate(scores.items())}
    without = {one: score for one, score in gaps.items() if not np.isnan(score)}
    found_A = predicted(gaps, asked=asked)
    assert np.isfinite(found_A).all()
    np.testing.assert_array_equal(found_A, predicted(without, asked=asked))


def test_of_several_supernets_the_mean_is_told() -> None:
    first, second = scores_of(networks()), {one: -one[0] + 0.1 * one[3] for one in networks()}
    asked = networks()
    mean_A = (predicted(first, asked=asked) + predicted(second, asked=asked)) / 2
    np.testing.assert_allclose(predicted(first, second, asked=asked), mean_A, atol=1e-8)


def test_a_supernet_that_scored_nothing_has_no_say() -> None:
    scores, asked = scores_of(networks()), networks()[:30]
    np.testing.assert_array_equal(predicted(scores, {}, asked=asked), predicted(scores, asked=asked))


def test_a_wrong_supernet_is_not_believed_for_agreeing_with_its_copy() -> None:
    rng = seeds.generator(0, "copy")
    asked = networks()
    truth_A = np.array([*scores_of(asked).values()])
    others_RA = truth_A + 0.7 * truth_A.std() * rng.normal(size=(4, len(asked)))
    wrong_A = rng.normal(size=(6, 5))[np.arange(6), np.array(asked)].sum(axis=1)
    copy_A = predicted(dict(zip(asked, wrong_A.tolist(), strict=True)), asked=asked)
    assert kendall_tau_b(copy_A, wrong_A) > 0.7 > 0.3 > abs(kendall_tau_b(copy_A, truth_A))
    without, with_copy = (
        kendall_tau_b(reliability(np.vstack([others_RA, *own])), truth_A) for own in ([wrong_A], [wrong_A, copy_A])
    )
    assert with_copy > without - 0.02


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_fewer_scores_than_folds_are_no_fault(count: int) -> None:
    found_A = predicted(scores_of(networks()[:count]), asked=networks()[:20])
    assert found_A.shape == (20,) and np.isfinite(found_A).any() == (count >= prediction.FEWEST)


def test_equal_scores_tell_nothing_apart() -> None:
    assert set(predicted(dict.fromkeys(networks(), 3.0), asked=networks()[:20])) == {0.5}


def test_of_many_scores_some_are_taken_whatever_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = scores_of(networks())
    taken = sorted(scores)[:: len(scores) // 40][:40]
    monkeypatch.setattr(prediction, "MOST", 40)
    counts = []

    def counting(
        known_NF: NDArray[np.float64], ranks_N: NDArray[np.float64], asked_AF: NDArray[np.float64], *, seed: int
    ) -> NDArray[np.float64]:
        counts.append(len(ranks_N))
        return np.zeros(len(asked_AF))

    predictions({"counting": counting}, SPACE, [scores], taken, seed=0)
    assert sum(counts) == (prediction.FOLDS - 1) * 40

"""Reliability-weighted aggregation: who counts for how much, with calibration and without it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import gumbel_l, rankdata

from raynas.aggregators.reliability import measure, posterior, reliability
from raynas.rank_correlation import kendall_tau_b

NOISES = (0.4, 0.6, 0.8, 1.0, 1.5, 2.0)


def panel(seed: int, architectures: int = 400, noises: tuple[float, ...] = NOISES) -> tuple[np.ndarray, np.ndarray]:
    """Rankers that see the truth through noise of these standard deviations, and the truth."""
    rng = np.random.default_rng(seed)
    truth_A = rng.normal(size=architectures)
    return truth_A + np.array(noises)[:, None] * rng.normal(size=(len(noises), architectures)), truth_A


def some(truth_A: np.ndarray, seed: int, count: int = 24) -> np.ndarray:
    """The accuracies of `count` architectures, NaN of the others."""
    chosen = np.random.default_rng(seed).choice(len(truth_A), count, replace=False)
    return np.where(np.isin(np.arange(len(truth_A)), chosen), truth_A, np.nan)


def mean_tau(*pairs: tuple[np.ndarray, np.ndarray]) -> float:
    return float(np.mean([kendall_tau_b(one, other) for one, other in pairs]))


@pytest.mark.parametrize("calibrated", [False, True])
def test_noise_and_an_inverted_ranker_cost_at_most_two_hundredths(calibrated: bool) -> None:
    without, spoilt = [], []
    for seed in range(5):
        scores_RA, truth_A = panel(seed)
        noise_RA = np.random.default_rng(100 + seed).normal(size=(2, len(truth_A)))
        calibration_A = some(truth_A, seed) if calibrated else None
        without.append((reliability(scores_RA, calibration_A=calibration_A), truth_A))
        worse_RA = np.vstack([scores_RA, noise_RA, -scores_RA[:1]])
        spoilt.append((reliability(worse_RA, calibration_A=calibration_A), truth_A))
    assert mean_tau(*spoilt) > mean_tau(*without) - 0.02


def test_better_rankers_weigh_more() -> None:
    trust = measure(panel(0, architectures=4_000)[0])
    assert np.all(np.diff(trust.weight_R) < 0) and np.all(trust.weight_R > 0)
    assert np.all(np.diff(trust.agreement_R) < 0)


def test_an_inverted_ranker_weighs_nothing_until_calibration_says_what_it_is_worth() -> None:
    scores_RA, truth_A = panel(0, noises=(0.2, 1.0, 1.0, 1.0))
    scores_RA[0] *= -1
    alone, calibrated = measure(scores_RA), measure(scores_RA, calibration_A=some(truth_A, 0))
    assert alone.weight_R[0] == 0 and alone.agreement_R[0] < -0.5
    assert calibrated.weight_R[0] + 2 * calibrated.weight_error_R[0] < 0
    assert kendall_tau_b(calibrated.merit_A, truth_A) > kendall_tau_b(alone.merit_A, truth_A) + 0.1


def test_seeds_of_one_recipe_do_not_outvote_the_others() -> None:
    few, many = [], []
    for seed in range(3):
        scores_RA, truth_A = panel(seed, noises=(0.8, 0.8, 0.8, 2.0))
        copies_RA = scores_RA[-1] + 0.3 * np.random.default_rng(100 + seed).normal(size=(8, len(truth_A)))
        few.append((reliability(scores_RA), truth_A))
        many.append((reliability(np.vstack([scores_RA, copies_RA])), truth_A))
    assert mean_tau(*many) > mean_tau(*few) - 0.03


def test_a_repeated_ranker_has_one_vote() -> None:
    scores_RA, _ = panel(0)
    once, thrice = measure(scores_RA), measure(np.vstack([scores_RA, scores_RA[[0, 0]]]))
    assert thrice.weight_R[[0, -2, -1]].sum() == pytest.approx(once.weight_R[0], rel=0.2)
    np.testing.assert_allclose(thrice.weight_R[1:-2], once.weight_R[1:], rtol=0.2)


def test_rankers_that_agree_no_more_than_by_chance_count_the_same() -> None:
    factors_RA = np.stack([grid.ravel() for grid in np.meshgrid(*[np.arange(5.0)] * 3)])  # uncorrelated
    assert np.ptp(measure(factors_RA).weight_R) == pytest.approx(0)
    assert np.array_equal(rankdata(reliability(factors_RA)), rankdata(np.round(gumbel_sum(factors_RA), 9)))


def gumbel_sum(scores_RA: np.ndarray) -> np.ndarray:
    count = scores_RA.shape[1]
    return gumbel_l.ppf((rankdata(scores_RA, axis=1) - 0.5) / count).sum(axis=0)


def test_calibration_improves() -> None:
    alone, calibrated = [], []
    for seed in range(5):
        scores_RA, truth_A = panel(seed, noises=(0.3, 2.0, 2.0, 2.0, 2.0))
        scores_RA[1:] += np.random.default_rng(200 + seed).normal(size=len(truth_A))  # an error that most share
        alone.append((reliability(scores_RA), truth_A))
        calibrated.append((reliability(scores_RA, calibration_A=some(truth_A, seed)), truth_A))
    assert mean_tau(*calibrated) > mean_tau(*alone) + 0.05


def test_the_one_ranker_that_calibration_proves_right_is_followed() -> None:
    scores_RA, truth_A = panel(0, noises=(0.02, 1.0, 1.0, 1.0))
    trust = measure(scores_RA, calibration_A=some(truth_A, 0))
    assert kendall_tau_b(trust.merit_A, truth_A) > kendall_tau_b(scores_RA[0], truth_A) - 0.02
    assert trust.weight_R[0] == pytest.approx(1, abs=0.3) and np.all(np.abs(trust.weight_R[1:]) < 0.1)


def test_the_calibrated_are_in_the_order_of_their_accuracies() -> None:
    scores_RA, truth_A = panel(0)
    calibration_A = some(truth_A, 0)
    known = ~np.isnan(calibration_A)
    consensus_A = reliability(scores_RA, calibration_A=calibration_A)
    assert np.array_equal(rankdata(consensus_A[known]), rankdata(truth_A[known]))


def test_only_the_order_of_accuracies_counts() -> None:
    scores_RA, truth_A = panel(0)
    calibration_A = some(truth_A, 0)
    once_A, again_A = (reliability(scores_RA, calibration_A=one_A) for one_A in (calibration_A, np.exp(calibration_A)))
    np.testing.assert_array_equal(once_A, again_A)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_accuracies_order_nothing(count: int) -> None:
    scores_RA, truth_A = panel(0)
    calibration_A = some(truth_A, 0, count=count)
    np.testing.assert_array_equal(reliability(scores_RA, calibration_A=calibration_A), reliability(scores_RA))


def test_calibration_does_not_hang_on_the_order_of_anything() -> None:
    scores_RA, truth_A = panel(0, architectures=60)
    scores_RA[np.random.default_rng(1).random(scores_RA.shape) < 0.2] = np.nan
    calibration_A = some(truth_A, 0, count=10)
    consensus_A = reliability(scores_RA, calibration_A=calibration_A)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        rankers, columns = rng.permutation(len(scores_RA)), rng.permutation(len(truth_A))
        shuffled_A = reliability(scores_RA[rankers][:, columns], calibration_A=calibration_A[columns])
        np.testing.assert_array_equal(shuffled_A, consensus_A[columns])


def test_an_architecture_that_nobody_scored_stays_without_merit_though_its_accuracy_is_known() -> None:
    scores_RA, truth_A = panel(0)
    scores_RA[:, 3] = np.nan
    calibration_A = some(truth_A, 0)
    calibration_A[3] = truth_A[3]
    trust = measure(scores_RA, calibration_A=calibration_A)
    for of_each_A in (trust.merit_A, trust.deviation_A):
        assert np.flatnonzero(np.isnan(of_each_A)).tolist() == [3]


def test_less_is_known_of_what_fewer_have_scored() -> None:
    scores_RA, _ = panel(0, noises=(1.0,) * 6)
    scores_RA[:4, 0] = np.nan
    trust = measure(scores_RA)
    assert trust.deviation_A[0] > trust.deviation_A[1]


def test_merit_is_as_uncertain_as_it_says_where_errors_are_independent() -> None:
    inside = []
    for seed in range(5):
        scores_RA, truth_A = panel(seed, noises=(1.0,) * 6)
        trust = measure(scores_RA)
        inside.append(np.abs(trust.merit_A - truth_A) < 1.96 * trust.deviation_A)
    assert 0.92 < np.mean(inside) < 0.98


def test_errors_of_weights_fall_as_more_is_calibrated() -> None:
    scores_RA, truth_A = panel(0)
    few, many = (measure(scores_RA, calibration_A=some(truth_A, 0, count=count)) for count in (10, 100))
    assert np.mean(many.weight_error_R) < 0.7 * np.mean(few.weight_error_R)


def test_errors_of_agreement_need_three_rankers() -> None:
    scores_RA, _ = panel(0)
    assert np.isnan(measure(scores_RA[:2]).agreement_error_R).all()
    assert np.all(measure(scores_RA).agreement_error_R > 0)


def test_calibration_tells_what_all_rankers_get_wrong_of_a_choice() -> None:
    """They see nothing of what the first block's choice is worth; without calibration nor does the consensus."""
    with_choices, without = [], []
    for seed in range(4):
        scores_RA, truth_A = panel(seed)
        choices_AB = np.random.default_rng(200 + seed).integers(3, size=(len(truth_A), 4))
        truth_A += choices_AB[:, 0]
        known_A = some(truth_A, seed, count=40)
        np.testing.assert_array_equal(reliability(scores_RA, choices_AB=choices_AB), reliability(scores_RA))
        with_choices.append((reliability(scores_RA, calibration_A=known_A, choices_AB=choices_AB), truth_A))
        without.append((reliability(scores_RA, calibration_A=known_A), truth_A))
    assert mean_tau(*with_choices) > mean_tau(*without) + 0.05


def test_choices_that_tell_nothing_cost_little() -> None:
    with_choices, without = [], []
    for seed in range(4):
        scores_RA, truth_A = panel(seed)
        choices_AB = np.random.default_rng(200 + seed).integers(3, size=(len(truth_A), 4))
        known_A = some(truth_A, seed)
        with_choices.append((reliability(scores_RA, calibration_A=known_A, choices_AB=choices_AB), truth_A))
        without.append((reliability(scores_RA, calibration_A=known_A), truth_A))
    assert mean_tau(*with_choices) > mean_tau(*without) - 0.02


def test_merits_that_are_drawn_together_have_the_mean_and_deviation_of_each() -> None:
    scores_RA, truth_A = panel(0)
    choices_AB = np.random.default_rng(1).integers(3, size=(len(truth_A), 4))
    calibration_A = np.where(np.arange(len(truth_A)) % 20 == 0, truth_A, np.nan)
    found = measure(scores_RA, calibration_A=calibration_A, choices_AB=choices_AB)
    which = np.flatnonzero(np.isnan(calibration_A))[:50]
    calibrated = posterior(scores_RA, calibration_A, choices_AB)
    drawn_DM = calibrated.draws(which, 20_000, np.random.default_rng(2))
    np.testing.assert_array_equal(calibrated.merits()[0], found.merit_A)
    np.testing.assert_allclose(drawn_DM.mean(axis=0), found.merit_A[which], atol=0.03)
    np.testing.assert_allclose(drawn_DM.std(axis=0), found.deviation_A[which], rtol=0.03)


def test_merits_of_architectures_alike_are_drawn_alike() -> None:
    scores_RA, truth_A = panel(0)
    choices_AB = np.random.default_rng(1).integers(3, size=(len(truth_A), 4))
    scores_RA[:, 2], choices_AB[2] = scores_RA[:, 1], choices_AB[1]  # twins, and the third is like nobody
    calibration_A = np.where(np.arange(len(truth_A)) % 20 == 0, truth_A, np.nan)
    drawn_DM = posterior(scores_RA, calibration_A, choices_AB).draws(
        np.array([1, 2, 3]), 20_000, np.random.default_rng(2)
    )
    correlation = np.corrcoef(drawn_DM.T)
    assert correlation[0, 1] > correlation[0, 2] + 0.05


def sides(seed: int = 0, architectures: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three rankers that get much wrong together, one that errs alone, who that is, and the truth."""
    rng = np.random.default_rng(seed)
    truth_A, common_A = rng.normal(size=(2, architectures))
    others_RA = truth_A + common_A + 0.3 * rng.normal(size=(3, architectures))
    return np.vstack([others_RA, truth_A + 1.5 * rng.normal(size=architectures)]), np.arange(4) == 3, truth_A


def test_short_trainings_weigh_as_much_as_all_others_together() -> None:
    scores_RA, trained_R, _ = sides()
    trust, without = measure(scores_RA, trained_R=trained_R), measure(scores_RA[:3])
    sides_SA = np.array([without.merit_A - without.merit_A.mean(), measure(scores_RA[3:]).merit_A])
    sides_SA /= sides_SA.std(axis=1, keepdims=True)
    assert np.corrcoef(trust.merit_A, sides_SA.sum(axis=0))[0, 1] == pytest.approx(1)
    assert trust.weight_R[3] == pytest.approx(trust.merit_A.std() / sides_SA.sum(axis=0).std())
    np.testing.assert_array_equal(trust.agreement_R[:3], without.agreement_R)
    assert trust.agreement_R[3] == pytest.approx(np.corrcoef(sides_SA)[0, 1])


def test_one_ranker_and_short_trainings_agree_with_each_other() -> None:
    scores_RA, trained_R, _ = sides()
    trust, alike = (measure(scores_RA[2:], trained_R=one) for one in (trained_R[2:], None))
    np.testing.assert_allclose(trust.agreement_R, alike.agreement_R)
    assert trust.weight_R[0] == pytest.approx(trust.weight_R[1])


def test_of_few_architectures_two_sides_are_less_sure() -> None:
    scores_RA, trained_R, _ = sides()
    scores_RA[3, :2] = scores_RA[0, :2]  # of two the order is the same: no evidence that it would be of all
    few = measure(np.where(trained_R[:, None] & (np.arange(400) > 1), np.nan, scores_RA), trained_R=trained_R)
    assert few.deviation_A[0] > measure(scores_RA, trained_R=trained_R).deviation_A[0]


def test_among_leaders_short_trainings_are_believed_though_they_agree_with_nobody() -> None:
    told = []
    for seed in range(5):
        scores_RA, trained_R, truth_A = sides(seed)
        leaders = np.argsort(-measure(scores_RA[:3]).merit_A)[:80]  # whom the others have chosen
        scores_RA, truth_A = scores_RA[:, leaders], truth_A[leaders]
        told.append([reliability(scores_RA, trained_R=trained_R), reliability(scores_RA), truth_A])
    known, unknown = (mean_tau(*((row[one], row[2]) for row in told)) for one in (0, 1))
    assert known > unknown + 0.05


def test_without_another_side_it_is_no_matter_who_trained() -> None:
    scores_RA, trained_R, _ = sides()
    missing_RA, equal_RA = (np.where(trained_R[:, None], one, scores_RA) for one in (np.nan, 0.5))
    cases = [(scores_RA, np.full(4, True)), (scores_RA, np.full(4, False))]
    for given_RA, whose_R in (*cases, (missing_RA, trained_R), (equal_RA, trained_R), (equal_RA, ~trained_R)):
        np.testing.assert_equal(measure(given_RA, trained_R=whose_R).merit_A, measure(given_RA).merit_A)


@pytest.mark.parametrize("calibrated", [False, True])
def test_what_one_side_has_not_scored_is_ranked_by_the_other(calibrated: bool) -> None:
    scores_RA, trained_R, truth_A = sides()
    scores_RA[3, :100], scores_RA[:3, 100:200], scores_RA[:, 200] = np.nan, np.nan, np.nan
    trust = measure(scores_RA, calibration_A=some(truth_A, 0) if calibrated else None, trained_R=trained_R)
    for told_A in (trust.merit_A, trust.deviation_A):
        assert np.flatnonzero(np.isnan(told_A)).tolist() == [200]
    if not calibrated:
        ranked = reliability(scores_RA[:3, :100])
        np.testing.assert_allclose(rankdata(trust.merit_A[:100]), rankdata(ranked), atol=3)
        np.testing.assert_array_equal(rankdata(trust.merit_A[100:200].round(9)), rankdata(scores_RA[3, 100:200]))
        assert trust.deviation_A[0] > trust.deviation_A[300]


def test_calibration_says_what_either_side_is_worth() -> None:
    told = []
    for seed in range(5):
        scores_RA, trained_R, truth_A = sides(seed)
        scores_RA[3] = np.random.default_rng(seed).normal(size=len(truth_A))  # a training too short to tell anything
        calibration_A = some(truth_A, seed)
        told.append([reliability(scores_RA, calibration_A=one, trained_R=trained_R) for one in (None, calibration_A)])
        told[-1].append(truth_A)
    alone, calibrated = (mean_tau(*((row[one], row[2]) for row in told)) for one in (0, 1))
    assert calibrated > alone + 0.05

"""Rank measures against scipy, hand-made cases, and figures published for real predictions."""

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import kendalltau, spearmanr

from raynas.rank_correlation import (
    SMALL,
    best_rank_at,
    best_rank_at_count,
    bootstrap_interval,
    kendall_tau_b,
    precision_at_top,
    regret_at_count,
    s_tau,
    sparse_tau,
    spearman_rho,
)

DATA = Path(__file__).parents[1].parent / "shared" / "data"


@pytest.mark.parametrize("count", [2, 5, 30, SMALL, SMALL + 1, 500])
@pytest.mark.parametrize("levels", [4, 10**6])  # mostly ties, and none
def test_correlations_are_scipys(count, levels):
    rng = np.random.default_rng(count + levels)
    for _ in range(5):
        predicted = rng.integers(0, levels, count)
        truth = predicted + rng.integers(0, levels, count)
        if min(len(set(predicted)), len(set(truth))) > 1:
            assert kendall_tau_b(predicted, truth) == pytest.approx(kendalltau(predicted, truth).statistic)
            assert spearman_rho(predicted, truth) == pytest.approx(spearmanr(predicted, truth).statistic)


@pytest.mark.parametrize("count", [0, 1, 6, SMALL + 1])
def test_equal_scores_have_no_correlation(count):
    for statistic in (kendall_tau_b, spearman_rho):
        assert math.isnan(statistic(np.ones(count), np.arange(count)))
        assert math.isnan(statistic(np.arange(count), np.ones(count)))


def test_what_lacks_a_score_is_left_out():
    predicted, truth = [1.0, 2.0, np.nan, 3.0, 0.0], [1.0, 2.0, 0.0, 3.0, np.nan]
    assert kendall_tau_b(predicted, truth) == spearman_rho(predicted, truth) == 1
    assert regret_at_count(predicted, truth, 1) == 0
    assert precision_at_top(predicted, truth, 0.34) == 1


def test_sparse_tau_ignores_differences_below_its_resolution():
    truth = [93.0, 92.0, 91.01, 91.04]
    assert kendall_tau_b([4, 3, 1, 2], truth) == 1
    assert sparse_tau([93.0, 92.0, 91.04, 91.01], truth) == 1
    assert sparse_tau([93.0, 92.0, 91.04, 91.01], truth, resolution=0.001) == pytest.approx(4 / 6)


def test_precision_takes_a_fraction_and_not_a_count():
    truth = np.arange(200.0)
    predicted = truth.copy()
    predicted[[198, 199]] = -1.0  # of the ten best it finds eight, and two that are not
    assert precision_at_top(predicted, truth, 0.05) == 0.8
    assert precision_at_top(truth, truth, 0.05) == 1
    assert precision_at_top(-truth, truth, 0.05) == 0
    assert precision_at_top(truth, truth, 0.001) == 1  # at least one
    assert precision_at_top(predicted, truth, 1.0) == 1


def test_a_constant_prediction_has_the_precision_of_chance():
    truth = np.arange(100.0)
    assert precision_at_top(np.zeros(100), truth, 0.1) == pytest.approx(0.1)
    half = np.repeat([1.0, 2.0], 50)  # knows the better half and nothing in it
    assert precision_at_top(half, truth, 0.1) == pytest.approx(0.2)


def test_best_rank_is_a_share_of_all():
    truth = np.arange(50.0)
    assert best_rank_at(truth, truth, 0.1) == 1 / 50
    assert best_rank_at(-truth, truth, 0.1) == 46 / 50  # its five are the five worst
    assert best_rank_at(np.zeros(50), truth, 0.1) == 46 / 50  # what is not told apart is not found


def test_regret_is_what_the_best_of_the_first_lacks():
    truth, predicted = [70.0, 94.0, 93.5, 90.0], [1.0, 2.0, 3.0, 4.0]
    assert [regret_at_count(predicted, truth, count) for count in (1, 2, 3, 4, 9)] == [4.0, 0.5, 0.0, 0.0, 0.0]
    assert regret_at_count([0, 0, 0, 0], truth, 1) == 24.0


def test_s_tau_is_the_mean_over_pairs():
    one, other, third = [1, 2, 3, 4], [1, 2, 4, 3], [4, 3, 2, 1]
    pairs = [(one, other), (one, third), (other, third)]
    assert s_tau([one, other, third]) == pytest.approx(np.mean([kendalltau(*pair).statistic for pair in pairs]))
    assert math.isnan(s_tau([one]))


def test_the_interval_holds_the_value_and_repeats_itself():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=30)
    predicted = truth + rng.normal(size=30)
    low, high = bootstrap_interval(kendall_tau_b, predicted, truth, seed=1)
    assert -1 <= low < kendall_tau_b(predicted, truth) < high <= 1
    assert (low, high) == bootstrap_interval(kendall_tau_b, predicted, truth, seed=1)
    assert (low, high) != bootstrap_interval(kendall_tau_b, predicted, truth, seed=2)
    narrow = bootstrap_interval(kendall_tau_b, predicted, truth, seed=1, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap_interval(np.mean, values, seed=0)
    error = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.2 * error)


@pytest.mark.parametrize("count", [5, 7, 10])
def test_few_architectures_have_intervals_that_hold_the_truth(count):
    tau = 2 / math.pi * math.asin(0.6)  # of a bivariate normal distribution with correlation 0.6
    rng = np.random.default_rng(count)
    covered = []
    for seed in range(60):
        predicted, truth = rng.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=count).T
        low, high = bootstrap_interval(kendall_tau_b, predicted, truth, seed=seed, resamples=300)
        assert -1 <= low <= high <= 1
        covered.append(low <= tau <= high)
    assert np.mean(covered) > 0.8


def test_columns_are_drawn_together():
    scores = np.random.default_rng(0).normal(size=12)

    def difference(one, other, truth):
        return kendall_tau_b(one, truth) - kendall_tau_b(other, truth)

    assert bootstrap_interval(difference, scores, 2 * scores + 1, scores**3, seed=0) == (0, 0)


def test_resamples_that_say_nothing_are_left_out():
    predicted, truth = [1.0, 2.0, 3.0, 3.0], [0.0, 0.0, 0.0, 1.0]  # a resample without the last has equal truths
    low, high = bootstrap_interval(kendall_tau_b, predicted, truth, seed=0)
    assert 0 < low <= high <= 1
    for undefined in ([1.0, 1.0, 1.0], [1.0], []):
        assert np.isnan(bootstrap_interval(kendall_tau_b, undefined, undefined, seed=0)).all()


def test_published_predictions_have_their_published_figures():
    if not DATA.is_dir():
        pytest.skip("the ground-truth tables are not here")
    truth = pq.read_table(DATA / "nb201_cifar10.parquet", columns=["arch_index", "c10_test_200", "c10_params"])
    published = pq.read_table(DATA / "nb201_published_supernets.parquet")
    assert truth["arch_index"] == published["arch_index"]
    accuracy = truth["c10_test_200"].to_numpy()
    for predicted, tau, rho, precision, best_of_100 in (
        (published["oneshot_acc"], 0.485, 0.677, 0.014, 92.89),
        (published["fewshot_acc"], 0.551, 0.741, 0.128, 93.79),
        (truth["c10_params"], 0.578, 0.752, 0.37, None),
    ):
        scores = predicted.to_numpy().astype(float)
        assert kendall_tau_b(scores, accuracy) == pytest.approx(tau, abs=0.002)
        assert spearman_rho(scores, accuracy) == pytest.approx(rho, abs=0.002)
        assert precision_at_top(scores, accuracy, 0.05) == pytest.approx(precision, abs=0.005)
        if best_of_100:
            assert accuracy.max() - regret_at_count(scores, accuracy, 100) == pytest.approx(best_of_100, abs=0.01)


def test_top_n_rank_is_the_best_true_rank_among_the_first_n() -> None:
    truth = [0.1, 0.9, 0.5, 0.7]  # ranks 4, 1, 3, 2
    predicted = [4.0, 1.0, 3.0, 2.0]
    assert [best_rank_at_count(predicted, truth, count) for count in (1, 2, 3, 4, 9)] == [4, 3, 2, 1, 1]
    assert best_rank_at_count([1.0, 1.0, 0.0, 0.0], truth, 1) == 4  # a tie has not found the better one
    assert math.isnan(best_rank_at_count([], [], 1))

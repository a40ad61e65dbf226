"""What every rule that merges rankings must hold, by its file; then what each rule alone promises."""

from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from scipy.stats import rankdata

from raynas.aggregators.borda import borda, gumbel_scores
from raynas.aggregators.copeland import copeland
from raynas.aggregators.kemeny import EXACT, agreement, kemeny
from raynas.aggregators.median_rank import median_rank
from raynas.members import family, load_member
from raynas.rank_correlation import kendall_tau_b

MEMBERS = {name: load_member("raynas.aggregators", name) for name in family("raynas.aggregators")}
every = pytest.mark.parametrize("aggregate", MEMBERS.values(), ids=MEMBERS)
# one asks who comes first, the other believes rankers more about the worst
FAIR_TO_REVERSES = {name: rule for name, rule in MEMBERS.items() if name not in ("plackett_luce", "reliability")}


def noisy(seed=0, rankers=5, architectures=40, missing=0.0, levels=None):
    rng = np.random.default_rng(seed)
    scores_RA = rng.normal(size=architectures) + rng.normal(size=(rankers, architectures))
    if levels:
        scores_RA = np.round(scores_RA * levels)
    scores_RA[rng.random(scores_RA.shape) < missing] = np.nan
    return scores_RA


def disagreement(consensus_A, scores_RA):
    """Pairs that a ranker orders against the consensus, and half of those that the consensus ties and it does not."""
    total = 0.0
    for scores_A in scores_RA:
        for a, b in combinations(range(len(scores_A)), 2):
            theirs, ours = scores_A[a] - scores_A[b], consensus_A[a] - consensus_A[b]
            if np.isfinite(theirs) and theirs != 0:
                total += 0.5 if ours == 0 else float(np.sign(theirs) != np.sign(ours))
    return total


@every
@pytest.mark.parametrize("levels", [None, 2])
def test_unanimous_rankers_get_their_ranking(aggregate, levels):
    scores_A = noisy(rankers=1, levels=levels)[0]
    consensus_A = aggregate(np.stack([scores_A, 3 * scores_A - 7, np.exp(scores_A)]))
    assert np.array_equal(rankdata(consensus_A), rankdata(scores_A))


@every
def test_a_single_ranker_gets_its_ranking_and_its_gaps(aggregate):
    scores_A = np.array([0.3, np.nan, 0.1, 0.3, 0.9])
    assert aggregate(scores_A[None]).tolist() == pytest.approx([0.5, np.nan, 0.0, 0.5, 1.0], nan_ok=True)


@every
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_order_of_rankers_does_not_matter(aggregate, missing):
    scores_RA = noisy(missing=missing)
    consensus_A = aggregate(scores_RA)
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(len(scores_RA))
        np.testing.assert_array_equal(aggregate(scores_RA[shuffled]), consensus_A)


@every
@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_the_order_of_architectures_does_not_matter(aggregate, missing):
    scores_RA = noisy(missing=missing)
    consensus_A = aggregate(scores_RA)
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(scores_RA.shape[1])
        np.testing.assert_array_equal(aggregate(scores_RA[:, shuffled]), consensus_A[shuffled])


@every
def test_only_the_order_of_scores_counts(aggregate):
    scores_RA = noisy(missing=0.2)
    changed_RA = scores_RA.copy()
    changed_RA[0] = np.exp(5 * scores_RA[0])
    changed_RA[1] = scores_RA[1] * 1e-6 + 100
    np.testing.assert_array_equal(aggregate(changed_RA), aggregate(scores_RA))


@every
def test_the_scores_given_are_left_as_they_are(aggregate):
    scores_RA = noisy(missing=0.2)
    before_RA = scores_RA.copy()
    aggregate(scores_RA)
    np.testing.assert_array_equal(scores_RA, before_RA)


@every
def test_what_nobody_scored_has_no_consensus(aggregate):
    scores_RA = noisy(rankers=3, architectures=6)
    scores_RA[:, 2] = np.nan
    consensus_A = aggregate(scores_RA)
    assert np.flatnonzero(np.isnan(consensus_A)).tolist() == [2]
    np.testing.assert_array_equal(consensus_A[[0, 1, 3, 4, 5]], aggregate(np.delete(scores_RA, 2, axis=1)))
    assert np.isnan(aggregate(np.full((2, 3), np.nan))).all()
    assert aggregate(np.empty((2, 0))).shape == (0,)


@pytest.mark.parametrize("aggregate", FAIR_TO_REVERSES.values(), ids=FAIR_TO_REVERSES)
def test_rankers_in_full_conflict_leave_all_tied(aggregate):
    scores_A = np.arange(5.0)
    assert len(np.unique(aggregate(np.stack([scores_A, -scores_A])))) == 1


@every
def test_a_ranker_that_scored_nothing_changes_nothing(aggregate):
    scores_RA = noisy(missing=0.2)
    with_empty = np.vstack([scores_RA[:2], np.full((1, scores_RA.shape[1]), np.nan), scores_RA[2:]])
    np.testing.assert_array_equal(aggregate(with_empty), aggregate(scores_RA))


@every
def test_a_ranker_that_tells_nothing_apart_changes_no_order(aggregate):
    scores_RA = noisy()
    with_constant = np.vstack([scores_RA, np.zeros((1, scores_RA.shape[1]))])
    np.testing.assert_array_equal(rankdata(aggregate(with_constant)), rankdata(aggregate(scores_RA)))


@every
def test_a_whole_benchmark_is_merged(aggregate):
    rng = np.random.default_rng(0)
    truth_A = rng.normal(size=15_625)
    scores_RA = np.round(truth_A + rng.normal(size=(12, len(truth_A))), 2)
    consensus_A = aggregate(scores_RA)
    assert agreement(consensus_A, truth_A[None]) > max(agreement(one, truth_A[None]) for one in scores_RA)


def test_borda_ties_share_their_mean_rank():
    assert borda(np.array([[1.0, 2.0, 2.0, 3.0]])).tolist() == [0.0, 0.5, 0.5, 1.0]


def test_borda_is_the_mean_over_those_who_scored():
    nan = np.nan
    scores_RA = np.array([[0.0, 1.0, 2.0, 3.0, 4.0], [nan, nan, 9.0, 8.0, nan]])
    assert borda(scores_RA).tolist() == [0.0, 0.25, (0.5 + 1.0) / 2, (0.75 + 0.0) / 2, 1.0]


def test_borda_equal_means_are_equal_numbers():
    rng = np.random.default_rng(0)
    for rankers in (3, 6):
        ranks_RA = np.stack([rng.permutation(31) for _ in range(rankers)])  # n / 30: sums of them round
        sums_A, consensus_A = ranks_RA.sum(axis=0), borda(ranks_RA)
        assert np.array_equal(sums_A[:, None] == sums_A, consensus_A[:, None] == consensus_A)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("levels", [None, 1])
def test_kemeny_never_disagrees_more_than_borda(missing, levels):
    less = 0
    for seed in range(20):
        scores_RA = noisy(seed, rankers=2 + seed % 5, architectures=5 + seed % 7, missing=missing, levels=levels)
        mine, bordas = disagreement(kemeny(scores_RA), scores_RA), disagreement(borda(scores_RA), scores_RA)
        assert mine <= bordas
        less += mine < bordas
    assert less > 0


def test_agreement_falls_as_disagreement_rises():
    for seed in range(20):
        scores_RA = noisy(seed, rankers=3, architectures=7, missing=0.2, levels=2)
        untied = sum(
            float(np.isfinite(s[a] - s[b]) and s[a] != s[b]) for s in scores_RA for a, b in combinations(range(7), 2)
        )
        consensus_A = borda(scores_RA)
        if np.isfinite(consensus_A).all():
            assert agreement(consensus_A, scores_RA) == untied - 2 * disagreement(consensus_A, scores_RA)


def least_disagreement(scores_RA):
    """By trying all orders: the least disagreement, and the orders (best first) that have it."""
    against_AA = np.sum(scores_RA[:, None, :] > scores_RA[:, :, None], axis=0)  # who prefer the second to the first
    orders = np.array(list(permutations(range(scores_RA.shape[1]))))
    above, below = np.triu_indices(orders.shape[1], 1)
    found = against_AA[orders[:, above], orders[:, below]].sum(axis=1)
    return found.min(), orders[found == found.min()]


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("levels", [None, 1])
def test_no_order_of_few_architectures_disagrees_less_than_kemeny(missing, levels):
    for seed in range(12):
        scores_RA = noisy(seed, rankers=2 + seed % 5, architectures=4 + seed % 3, missing=missing, levels=levels)
        scores_RA = scores_RA[:, ~np.isnan(scores_RA).all(axis=0)]
        assert disagreement(kemeny(scores_RA), scores_RA) == least_disagreement(scores_RA)[0]


def test_of_equally_good_orders_kemeny_takes_one_nearest_to_bordas():
    choices = 0
    for seed in range(20):
        scores_RA = noisy(seed, rankers=4, architectures=5)
        borda_A, orders = borda(scores_RA), least_disagreement(scores_RA)[1]
        if len(np.unique(borda_A)) == 5:
            near = [agreement(-np.argsort(order), borda_A[None]) for order in orders]
            assert agreement(kemeny(scores_RA), borda_A[None]) == max(near)
            choices += max(near) > min(near)
    assert choices > 0


def test_exact_kemeny_never_disagrees_more_than_its_approximation(monkeypatch):
    panels = [noisy(seed, rankers=3 + seed % 4, architectures=EXACT, missing=0.2) for seed in range(3)]
    exact = [agreement(kemeny(scores_RA), scores_RA) for scores_RA in panels]
    monkeypatch.setattr("raynas.aggregators.kemeny.EXACT", 0)
    rough = [agreement(kemeny(scores_RA), scores_RA) for scores_RA in panels]
    assert all(one >= other for one, other in zip(exact, rough, strict=True)) and exact != rough


@pytest.mark.parametrize("architectures", [EXACT, EXACT + 1])
def test_kemeny_puts_who_beats_all_others_first(architectures):
    scores_RA = noisy(rankers=5, architectures=architectures)
    scores_RA[:3, 7] = scores_RA.max() + 1
    scores_RA[3:, 7] = scores_RA.min() - 1
    assert np.argmax(kemeny(scores_RA)) == 7


def test_kemeny_leaves_no_neighbours_against_a_majority():
    for seed in range(20):
        scores_RA = noisy(seed, rankers=5, architectures=EXACT + 10)
        order = np.argsort(-kemeny(scores_RA), kind="stable")
        for first, second in pairwise(order):
            assert np.sum(scores_RA[:, second] > scores_RA[:, first]) <= 2


def test_kemeny_puts_the_majority_winner_first_where_borda_does_not():
    # three rankers prefer a to b to c, two b to c to a: Borda follows the two's contempt for a
    scores_RA = np.array([[2.0, 1, 0]] * 3 + [[0.0, 2, 1]] * 2)
    assert np.argmax(borda(scores_RA)) == 1
    assert kemeny(scores_RA).tolist() == [1.0, 0.5, 0.0]


def test_kemeny_ties_what_neither_majority_nor_borda_tells_apart():
    scores_RA = np.array([[4.0, 3, 2, 1], [4.0, 2, 3, 1]])
    assert kemeny(scores_RA).tolist() == [1.0, 0.5, 0.5, 0.0]


def test_kemeny_does_not_count_those_who_did_not_score_both():
    nan = np.nan
    scores_RA = np.array([[2.0, 1.0, 0.0], [nan, 1.0, 2.0], [nan, 0.0, 1.0]])
    consensus_A = kemeny(scores_RA)
    assert consensus_A[2] > consensus_A[1]  # two to one
    assert consensus_A[0] > consensus_A[1]  # one to none


def test_median_rank_heeds_no_minority():
    scores_RA = np.vstack([noisy(rankers=1)] * 3)
    hostile_RA = np.vstack([scores_RA, -scores_RA[:2]])
    np.testing.assert_array_equal(median_rank(hostile_RA), median_rank(scores_RA))


def test_median_rank_of_an_even_number_is_the_mean_of_the_middle_ones():
    nan = np.nan
    scores_RA = np.array([[0.0, 1, 2, 3, 4], [0, 1, 2, 4, 3], [4, 1, 2, 0, 3], [nan, 2, 1, 0, nan]])
    assert median_rank(scores_RA).tolist() == [0.0, 0.25, 0.5, (0.0 + 0.75) / 2, 0.75]


def test_copeland_counts_majorities():
    for seed in range(5):
        scores_RA = noisy(seed, rankers=4, architectures=12, missing=0.2, levels=2)
        expected = []
        for a in range(12):
            margins_A = np.sum(scores_RA[:, [a]] > scores_RA, axis=0) - np.sum(scores_RA[:, [a]] < scores_RA, axis=0)
            expected.append((np.sum(np.sign(margins_A)) + 11) / 22)
        np.testing.assert_allclose(copeland(scores_RA), expected)


def test_copeland_puts_who_beats_all_others_first_where_borda_does_not():
    scores_RA = np.array([[2.0, 1, 0]] * 3 + [[0.0, 2, 1]] * 2)
    assert np.argmax(borda(scores_RA)) == 1
    assert copeland(scores_RA).tolist() == [1.0, 0.5, 0.0]


def test_copeland_against_some_is_close_to_copeland_against_all(monkeypatch):
    scores_RA = noisy(rankers=6, architectures=1_000)
    full_A = copeland(scores_RA)
    monkeypatch.setattr("raynas.aggregators.copeland.OPPONENTS", 100)
    assert kendall_tau_b(copeland(scores_RA), full_A) > 0.95


def test_gumbel_scores_have_mean_0_and_variance_1():
    scores_RA = np.vstack([noisy(rankers=2, missing=0.3), noisy(rankers=1, levels=1), np.zeros((1, 40))])
    z_RA = gumbel_scores(scores_RA)
    assert np.array_equal(np.isnan(z_RA[:3]), np.isnan(scores_RA[:3])) and np.isnan(z_RA[3]).all()
    np.testing.assert_allclose(np.nanmean(z_RA[:3], axis=1), 0, atol=1e-12)
    np.testing.assert_allclose(np.nanvar(z_RA[:3], axis=1), 1)

"""Multi-layer coordinate descent: what it shrinks and by how much, what it learns of costs, and where it begins."""

import math
from itertools import pairwise

import numpy as np
import pytest

from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.space import ChoiceBlock, SearchSpace
from raynas.strategies.coordinate_descent import CoordinateDescent, expected
from raynas.strategies.random_search import RandomSearch

BLOCKS, CHOICES = 10, 5
SPACE = SearchSpace("wide", tuple(ChoiceBlock(f"b{b}", tuple("abcde")) for b in range(BLOCKS)))
LARGEST = (CHOICES - 1,) * BLOCKS
RNG = np.random.default_rng(0)
COSTS = RNG.integers(2, 12, (BLOCKS, CHOICES - 1))  # of each step
LOSSES = np.sort(RNG.gamma(0.5, 1.0, (BLOCKS, CHOICES - 1)))[:, ::-1]  # without each step: the lowest is missed most
FIXED = 20


def cost(architecture):
    return float(FIXED + sum(COSTS[b, :choice].sum() for b, choice in enumerate(architecture)))


def score(architecture):
    return float(sum(LOSSES[b, choice:].sum() for b, choice in enumerate(architecture)))


def evaluate(architectures, limit=math.inf):
    return [
        Evaluation(one, (score(one), cost(one))) if cost(one) <= limit else Evaluation(one, (), "constraint: cost")
        for one in architectures
    ]


def search(strategy, evaluations, limit=math.inf):
    """All that was told, and the iterations of the first descent: (place, target, what was asked for)."""
    iterations, told = [], []
    while len(told) < evaluations:
        place, target = getattr(strategy, "_place", None), getattr(strategy, "_target", None)
        asked = strategy.ask(8)
        if place is not None and (not iterations or cost(place) < cost(iterations[-1][0])):
            iterations.append((place, target, asked))
        answers = evaluate(asked, limit)
        told += [one for one in answers if one.objectives]
        strategy.tell(answers)
    return told, iterations


def changed(one, other):
    return sum(a != b for a, b in zip(one, other, strict=True))


def missed(told):
    """How much more than the least score is lost, in the mean over the upper half of costs: 0 on the true front."""
    least = np.full(int(cost(LARGEST)) + 1, np.inf)  # by dynamic programming: costs are whole numbers, and both add up
    least[FIXED] = 0
    for b in range(BLOCKS):
        options = [(int(COSTS[b, :choice].sum()), LOSSES[b, choice:].sum()) for choice in range(CHOICES)]
        least = np.min([np.append(np.full(w, np.inf), least)[: len(least)] + loss for w, loss in options], axis=0)
    best = np.full(len(least), np.inf)
    for one in told:
        best[int(one.objectives[1])] = min(best[int(one.objectives[1])], one.objectives[0])
    upper = slice(len(least) // 2, None)
    return float(np.mean(np.minimum.accumulate(best)[upper] - np.minimum.accumulate(least)[upper]))


@pytest.mark.parametrize("seed", range(3))
def test_each_place_costs_less_than_the_one_before_by_a_share_of_it(seed):
    _, iterations = search(CoordinateDescent(SPACE, seed=seed, reduction=0.1, decay=0.9), 120)
    assert iterations[0][0] == LARGEST and len(iterations) > 5
    for number, (place, target, _) in enumerate(iterations):
        assert target == pytest.approx((1 - 0.1 * 0.9**number) * cost(place))
    for (place, target, _), (following, _, _) in pairwise(iterations):
        assert cost(following) <= target < cost(place)
        assert all(new <= old for new, old in zip(following, place, strict=True))


@pytest.mark.parametrize("blocks", [1, 3])
def test_samples_shrink_so_many_blocks_of_the_place_and_one_block_is_single_layer_descent(blocks):
    _, iterations = search(CoordinateDescent(SPACE, seed=0, reduction=0.05, blocks=blocks), 100)
    numbers = [
        changed(one, place) for place, _, asked in iterations for one in asked[:5]
    ]  # there are 10 with one block
    assert max(numbers) == blocks and min(numbers) >= 1


def test_a_sample_comes_down_to_the_target_and_not_a_step_further():
    """Costs that add up are known after some iterations; before the last of its steps a sample cost too much."""
    _, iterations = search(CoordinateDescent(SPACE, seed=0, reduction=0.05), 300)
    place, target, asked = iterations[-1]
    assert all(target - COSTS.max() <= cost(one) <= target + 1 for one in asked if changed(one, place) <= 4)


def test_expected_savings_are_those_of_costs_that_add_up():
    rng = np.random.default_rng(1)
    networks = [LARGEST, *(SPACE.sample(rng) for _ in range(1000))]
    told = {one: (score(one), cost(one)) for one in networks}
    for place in networks[:3]:
        whole, saved, loss_rate = expected(LARGEST, told, place)
        assert whole == cost(place)
        np.testing.assert_allclose(saved, COSTS.ravel(), rtol=0.1, atol=0.3)
        np.testing.assert_allclose(np.array(loss_rate) * saved, LOSSES.ravel(), rtol=0.1, atol=0.05)


def test_before_anything_is_known_all_steps_save_the_same_share():
    whole, saved, _ = expected(LARGEST, {LARGEST: (1.0, 80.0)}, LARGEST)
    assert whole == 80
    np.testing.assert_allclose(saved, 80 / (BLOCKS * (CHOICES - 1)))


def test_the_curve_is_near_the_true_front_and_nearer_than_that_of_one_block_at_a_time():
    settings = {"reduction": 0.05}
    several, one, random = (
        np.mean([missed(search(build(seed), 200)[0]) for seed in range(4)])
        for build in (
            lambda seed: CoordinateDescent(SPACE, seed=seed, **settings),
            lambda seed: CoordinateDescent(SPACE, seed=seed, blocks=1, **settings),
            lambda seed: RandomSearch(SPACE, seed=seed),
        )
    )
    assert several < 0.9 * one and several < 0.3 * random


def test_the_next_place_loses_the_least_score_for_what_it_saves():
    strategy = CoordinateDescent(SPACE, seed=0, samples=3)
    strategy.tell(evaluate([LARGEST]))
    asked = strategy.ask(3)
    objectives = [(4.5, 50.0), (4.3, 70.0), (1.0, 0.9 * cost(LARGEST))]  # the last does not save enough
    strategy.tell([Evaluation(one, told) for one, told in zip(asked, objectives, strict=True)])
    full, before = cost(LARGEST), score(LARGEST)
    assert (4.5 - before) / (full - 50) < (4.3 - before) / (full - 70)
    assert strategy._place == asked[0]


def test_where_nothing_came_down_far_enough_the_iteration_goes_on():
    strategy = CoordinateDescent(SPACE, seed=0, samples=3)
    strategy.tell(evaluate([LARGEST]))
    strategy.tell([Evaluation(one, (1.0, 0.95 * cost(LARGEST))) for one in strategy.ask(3)])
    assert strategy._place == LARGEST
    deeper = strategy.ask(3)
    strategy.tell([Evaluation(one, (1.0, 0.5 * cost(LARGEST))) for one in deeper])
    assert strategy._place in deeper


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_under_a_limit_it_begins_at_the_edge_and_asks_mostly_for_what_is_feasible(share):
    limit = share * cost(LARGEST)
    strategy = CoordinateDescent(SPACE, seed=0, limits=(math.inf, limit))
    asked, told = 0, []
    while len(told) < 100:
        answers = evaluate(strategy.ask(8), limit)
        asked += len(answers)
        told += [one for one in answers if one.objectives]
        strategy.tell(answers)
    assert asked < 160
    near = [one.objectives[0] for one in told if one.objectives[1] > 0.9 * limit]
    rng = np.random.default_rng(0)
    random = [score(one) for one in (SPACE.sample(rng) for _ in range(5000)) if cost(one) <= limit]
    assert min(near) < np.quantile(random, 0.002)


def test_one_objective_alone_is_refused_in_one_line():
    with pytest.raises(UserError, match=r"expects a score and a cost, but has one") as mistake:
        CoordinateDescent(SPACE, seed=0).tell([Evaluation(LARGEST, (1.0,))])
    assert "\n" not in str(mistake.value)
    with pytest.raises(UserError, match=r"expects a score and a cost, but has one"):
        CoordinateDescent(SPACE, seed=0, limits=(math.inf,))  # which is known before anything is trained


@pytest.mark.parametrize(
    "settings", [{"samples": 0}, {"blocks": 0}, {"reduction": 1.0}, {"decay": 0.0}, {"decay": 1.1}], ids=str
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        CoordinateDescent(SPACE, seed=0, **settings)

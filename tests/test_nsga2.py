"""NSGA-II: who survives, and how children are made."""

import numpy as np
import pytest

from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.pareto import crowding_distance, non_dominated_rank
from raynas.space import ChoiceBlock, SearchSpace
from raynas.strategies.nsga2 import Nsga2, survivors

SPACE = SearchSpace("wide", tuple(ChoiceBlock(f"b{b}", tuple("abcdefghij")) for b in range(8)))


def evaluations(points):
    return [Evaluation((index,), tuple(map(float, point))) for index, point in enumerate(points)]


def generation(strategy, parents):
    """Tell a whole generation of which only `parents` were measured."""
    failed = [Evaluation(one, (), "constraint: macs") for one in strategy.ask(strategy.population_size - len(parents))]
    strategy.tell([*failed, *(Evaluation(one, (float(n), -float(n))) for n, one in enumerate(parents))])


def test_whole_fronts_survive_and_the_last_one_by_crowding():
    fronts = [[(0, 4), (2, 2), (4, 0)], [(1, 6), (1.5, 5), (5, 1.2), (6, 1)], [(9, 9)]]
    kept = [one.objectives for one in survivors(evaluations([*fronts[2], *fronts[1], *fronts[0]]), 5)]
    assert set(kept[:3]) == set(fronts[0])
    assert set(kept[3:]) == {(1, 6), (6, 1)}  # the ends of the second front are infinitely far from a neighbour


@pytest.mark.parametrize("objectives", [1, 2, 3])
def test_survivors_are_the_first_of_the_crowded_order(objectives):
    rng = np.random.default_rng(objectives)
    points = rng.integers(0, 6, size=(40, objectives)).astype(float)
    rank = non_dominated_rank(points)
    crowding = np.empty(40)
    for front in range(rank.max() + 1):
        crowding[rank == front] = crowding_distance(points[rank == front])
    kept = [one.architecture[0] for one in survivors(evaluations(points), 15)]
    dropped = [index for index in range(40) if index not in kept]
    worst = max((rank[index], -crowding[index]) for index in kept)
    assert all((rank[index], -crowding[index]) >= worst for index in dropped)


def test_the_first_generation_is_random_whatever_was_told():
    asked = []
    for sign in (1, -1):
        strategy = Nsga2(SPACE, seed=5, population_size=12)
        first = strategy.ask(6)
        strategy.tell([Evaluation(one, (sign * float(sum(one)),)) for one in first])
        second = strategy.ask(6)
        strategy.tell([Evaluation(one, (sign * float(sum(one)),)) for one in second])
        asked.append((first + second, strategy.ask(6)))
    assert asked[0][0] == asked[1][0]
    assert asked[0][1] != asked[1][1]


def test_crossover_takes_every_block_from_one_of_the_parents():
    strategy = Nsga2(SPACE, seed=0, population_size=4, crossover_probability=1.0, mutation_rate=0.0)
    generation(strategy, [(0,) * 8, (9,) * 8])
    children = strategy.ask(30)
    assert {choice for child in children for choice in child} == {0, 9}
    mixed = [child for child in children if 2 <= child.count(0) <= 6]
    assert len(mixed) > 20  # uniform crossover: about half of the blocks from each


def test_without_crossover_a_child_is_a_mutated_copy():
    strategy = Nsga2(SPACE, seed=0, population_size=4, crossover_probability=0.0, mutation_rate=1.0)
    generation(strategy, [(4,) * 8])
    assert all(4 not in child for child in strategy.ask(30))


def test_one_block_mutates_in_the_mean():
    strategy = Nsga2(SPACE, seed=0, population_size=4, crossover_probability=0.0)
    generation(strategy, [(4,) * 8])
    changed = [8 - child.count(4) for child in strategy.ask(60)]
    assert strategy.mutation_rate == 1 / 8
    assert min(changed) == 1  # no change at all is a known network
    assert 1.2 < np.mean(changed) < 1.9  # 1 / (1 - (7/8)^8) = 1.52, given that there is a change


def test_the_better_of_two_is_the_parent():
    strategy = Nsga2(SPACE, seed=0, population_size=8, crossover_probability=0.0, mutation_rate=1 / 8)
    best, worst = (0,) * 8, (9,) * 8
    failed = [Evaluation(one, (), "failed") for one in strategy.ask(6)]
    strategy.tell([*failed, Evaluation(worst, (2.0, 2.0)), Evaluation(best, (1.0, 1.0))])
    nearer_best = [child.count(9) < child.count(0) for child in strategy.ask(80)]
    assert 0.6 < np.mean(nearer_best) < 0.9  # three of four tournaments of two hold the best


def test_a_generation_ends_when_as_many_were_told_failed_or_not():
    strategy = Nsga2(SPACE, seed=0, population_size=8, crossover_probability=1.0, mutation_rate=0.0)
    generation(strategy, [(0,) * 8, (9,) * 8])
    generation(strategy, [(5,) * 8])  # as good as they are: it joins the parents
    assert {choice for child in strategy.ask(30) for choice in child} == {0, 5, 9}


@pytest.mark.parametrize(
    "settings", [{"population_size": 1}, {"crossover_probability": 1.5}, {"mutation_rate": -0.1}], ids=str
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        Nsga2(SPACE, seed=0, **settings)

"""SPOS's evolution: who the parents are, and what a generation is made of."""

import numpy as np
import pytest

from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.space import ChoiceBlock, SearchSpace
from raynas.strategies.spos_evolution import SposEvolution

SPACE = SearchSpace("wide", tuple(ChoiceBlock(f"b{b}", tuple("abcdefghij")) for b in range(8)))


def evolution(**settings):
    return SposEvolution(SPACE, seed=0, **{"population_size": 6, "parents": 2, "mutants": 2, "crosses": 2, **settings})


def born(strategy, *parents):
    """End the first generation, of which these, the best, become parents."""
    others = [Evaluation(one, (9.0,)) for one in strategy.ask(strategy.population_size - len(parents))]
    strategy.tell([*others, *(Evaluation(one, (float(n),)) for n, one in enumerate(parents))])
    return strategy


def test_the_first_generation_is_random_whatever_was_told():
    strategies = [evolution(), evolution()]
    first = [strategy.ask(3) for strategy in strategies]
    for strategy, asked, sign in zip(strategies, first, (1, -1), strict=True):
        strategy.tell([Evaluation(one, (sign * float(sum(one)),)) for one in asked])
    assert first[0] == first[1] and strategies[0].ask(3) == strategies[1].ask(3)


def test_a_cross_takes_every_block_from_one_of_the_parents():
    strategy = born(evolution(population_size=40, mutants=0, crosses=40), (0,) * 8, (9,) * 8)
    children = strategy.ask(30)
    assert {choice for child in children for choice in child} == {0, 9}
    assert sum(2 <= child.count(0) <= 6 for child in children) > 20


def test_a_block_of_a_mutant_is_drawn_anew_with_the_rate():
    strategy = born(evolution(population_size=400, parents=1, mutants=400, crosses=0, mutation_rate=0.5), (4,) * 8)
    kept = np.mean([child.count(4) / 8 for child in strategy.ask(300)])
    assert kept == pytest.approx(0.5 + 0.5 / 10, abs=0.04)  # a block drawn anew is the same in one of ten


def test_a_generation_is_mutants_then_crosses_then_random_ones():
    strategy = born(evolution(mutation_rate=0.01, parents=1), (4,) * 8)
    near = [child.count(4) >= 5 for child in strategy.ask(6)]
    assert near[:2] == [True, True]
    assert near[4:] == [
        False,
        False,
    ]  # (one parent crosses with itself: a known network, so that a random one is asked)


def test_the_parents_are_the_best_of_all_generations():
    strategy = born(evolution(population_size=4, mutants=0, crosses=4), (0,) * 8, (9,) * 8)
    worse = [Evaluation(one, (5.0,)) for one in strategy.ask(4)]
    strategy.tell(worse)
    assert {choice for child in strategy.ask(4) for choice in child} == {0, 9}
    strategy.tell([Evaluation((5,) * 8, (-1.0,)), *(Evaluation((n,) * 8, (7.0,)) for n in (1, 2, 3))])
    assert {choice for child in strategy.ask(8) for choice in child} == {0, 5}


def test_what_breaks_a_limit_is_not_of_a_generation():
    strategy = born(evolution(population_size=4, mutants=0, crosses=4), (0,) * 8, (9,) * 8)
    strategy.tell([Evaluation((n,) * 8, (), "constraint: macs") for n in range(1, 8)])
    strategy.tell([Evaluation((1, 0) * 4, (-1.0,))])
    assert {choice for child in strategy.ask(8) for choice in child} == {0, 9}, "the generation has not ended"


@pytest.mark.parametrize(
    "settings",
    [{"parents": 0}, {"mutants": 5}, {"crosses": -1}, {"mutation_rate": 0.0}, {"population_size": 0}],
    ids=str,
)
def test_sizes_that_make_no_generation_are_refused(settings):
    with pytest.raises(UserError, match="correct"):
        evolution(**settings)

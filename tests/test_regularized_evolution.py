"""Aging evolution: who becomes a parent, and who dies."""

import pytest

from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.space import ChoiceBlock, SearchSpace
from raynas.strategies.regularized_evolution import RegularizedEvolution

SPACE = SearchSpace("wide", tuple(ChoiceBlock(f"b{b}", tuple("abcdefghij")) for b in range(8)))


def distance(one, other):
    return sum(a != b for a, b in zip(one, other, strict=True))


def begun(population_size, tournament_size):
    """A strategy whose first random architectures were asked and never told."""
    strategy = RegularizedEvolution(SPACE, seed=0, population_size=population_size, tournament_size=tournament_size)
    strategy.ask(population_size)
    return strategy


def test_the_oldest_dies_whatever_its_fitness():
    oldest, others = (0,) * 8, [(choice,) * 8 for choice in (3, 6, 9)]
    strategy = begun(population_size=3, tournament_size=3)
    strategy.tell([Evaluation(oldest, (0.0,))])
    strategy.tell([Evaluation(one, (float(one[0]),)) for one in others])
    children = strategy.ask(40)
    assert all(min(distance(child, one) for one in others) == 1 for child in children)
    assert all(distance(child, oldest) > 1 for child in children)


def test_a_child_is_the_tournament_winner_with_one_block_changed():
    strategy = begun(population_size=64, tournament_size=64)
    better, worse = (0,) * 8, (9,) * 8
    strategy.tell([Evaluation(worse, (2.0,)), Evaluation(better, (1.0,))])
    assert [distance(child, better) for child in strategy.ask(20)] == [1] * 20  # 64 draws miss one of two in 2^-64


def test_small_tournaments_also_let_the_worse_be_parents():
    strategy = begun(population_size=2, tournament_size=1)
    pair = [(0,) * 8, (9,) * 8]
    strategy.tell([Evaluation(pair[0], (1.0,)), Evaluation(pair[1], (2.0,))])
    nearest = [min(pair, key=lambda one, child=child: distance(child, one)) for child in strategy.ask(40)]
    assert set(nearest) == set(pair)


def test_the_first_population_is_random_whatever_was_told():
    asked = []
    for sign in (1, -1):
        strategy = RegularizedEvolution(SPACE, seed=5, population_size=12, tournament_size=3)
        first = strategy.ask(6)
        strategy.tell([Evaluation(one, (float(sign * sum(one)),)) for one in first])
        second = strategy.ask(6)
        strategy.tell([Evaluation(one, (float(sign * sum(one)),)) for one in second])
        asked.append((first + second, strategy.ask(6)))
    assert asked[0][0] == asked[1][0]
    assert asked[0][1] != asked[1][1]


def test_what_failed_has_no_children():
    strategy = begun(population_size=4, tournament_size=4)
    failed, alive = (0,) * 8, (9,) * 8
    strategy.tell([Evaluation(failed, (), "constraint: macs"), Evaluation(alive, (1.0,))])
    assert all(distance(child, alive) == 1 for child in strategy.ask(20))


def test_known_neighbourhood_gives_way_to_random_networks():
    space = SearchSpace("small", tuple(ChoiceBlock(f"b{b}", ("x", "y")) for b in range(6)))
    strategy = RegularizedEvolution(space, seed=0, population_size=1, tournament_size=1)
    asked = strategy.ask(1)
    strategy.tell([Evaluation(asked[0], (0.0,))])
    for _ in range(63):
        asked += strategy.ask(1)  # none of them told: the parent stays, and has six neighbours
    assert len(set(asked)) == 64


@pytest.mark.parametrize("sizes", [(5, 6), (5, 0), (0, 0)])
def test_impossible_tournaments_are_refused(sizes):
    with pytest.raises(UserError, match=f"tournament_size={sizes[1]} with population_size={sizes[0]}"):
        RegularizedEvolution(SPACE, seed=0, population_size=sizes[0], tournament_size=sizes[1])

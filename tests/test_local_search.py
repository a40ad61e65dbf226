"""Local search: where it climbs, when it stops, and where it begins again."""

import pytest

from raynas.errors import UserError
from raynas.evaluation import Evaluation
from raynas.space import ChoiceBlock, SearchSpace
from raynas.strategies.local_search import LocalSearch

SPACE = SearchSpace("wide", tuple(ChoiceBlock(f"b{b}", tuple("abcd")) for b in range(6)))
NEIGHBOURS = 6 * 3


def distance(one, other):
    return sum(a != b for a, b in zip(one, other, strict=True))


def scored(architectures, score=sum):
    return [Evaluation(one, (float(score(one)),)) for one in architectures]


def test_neighbours_are_all_keys_at_distance_one():
    space = SearchSpace("uneven", tuple(ChoiceBlock(f"{n}", tuple("abc"[:n])) for n in (2, 1, 3)))
    assert sorted(space.neighbours((0, 0, 2))) == [(0, 0, 0), (0, 0, 1), (1, 0, 2)]


def test_a_climb_asks_for_the_neighbours_of_its_best_start():
    strategy = LocalSearch(SPACE, seed=0, starts=5)
    starts = strategy.ask(5)
    strategy.tell(scored(starts))
    best = min(starts, key=sum)
    asked = strategy.ask(NEIGHBOURS - 5)
    assert [distance(one, best) for one in asked] == [1] * len(asked)


def test_what_is_better_moves_the_climb_at_once():
    strategy = LocalSearch(SPACE, seed=0, starts=1)
    strategy.tell(scored([(3,) * 6]))
    strategy.ask(4)
    strategy.tell(scored([(2, 1, 0, 0, 0, 0)]))  # never asked for, and the four are awaited
    assert all(distance(one, (2, 1, 0, 0, 0, 0)) == 1 for one in strategy.ask(10))


def test_it_ends_at_a_local_optimum_and_begins_at_the_best_of_new_starts():
    strategy = LocalSearch(SPACE, seed=0, starts=4)
    optimum = (0,) * 6
    strategy.tell([*scored([optimum]), *[Evaluation(one, (), "failed") for one in [(1,) * 6, (2,) * 6, (3,) * 6]]])
    around = strategy.ask(NEIGHBOURS)
    assert sorted(around) == sorted(SPACE.neighbours(optimum))
    awaiting = strategy.ask(1)  # the climb may go on, so this is random, and a start of the next
    strategy.tell([*scored(around), *scored(awaiting, score=lambda one: 100.0)])
    starts = strategy.ask(3)
    strategy.tell(scored(starts))
    best = min(starts, key=sum)
    assert all(distance(one, best) == 1 for one in strategy.ask(8))


def test_equally_good_neighbours_do_not_move_it():
    strategy = LocalSearch(SPACE, seed=0, starts=1)
    strategy.tell(scored([(0,) * 6], score=lambda one: 1.0))
    for _ in range(3):
        asked = strategy.ask(5)
        assert all(distance(one, (0,) * 6) == 1 for one in asked)
        strategy.tell(scored(asked, score=lambda one: 1.0))


def test_it_finds_the_one_optimum_of_a_slope():
    strategy = LocalSearch(SPACE, seed=1)
    best = 99
    for _ in range(10):
        asked = strategy.ask(16)
        best = min([best, *map(sum, asked)])
        strategy.tell(scored(asked))
    assert best == 0


def test_no_start_is_refused():
    with pytest.raises(UserError, match="starts must be at least 1, but got 0"):
        LocalSearch(SPACE, seed=0, starts=0)

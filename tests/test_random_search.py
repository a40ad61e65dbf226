"""Random search: uniform, without replacement."""

import numpy as np

from raynas.space import ChoiceBlock, SearchSpace
from raynas.strategies import _unasked
from raynas.strategies.random_search import RandomSearch

SPACE = SearchSpace("wide", tuple(ChoiceBlock(f"b{b}", tuple("abcd")) for b in range(8)))


def test_every_choice_is_drawn_as_often():
    asked = np.array(RandomSearch(SPACE, seed=0).ask(2_000))
    for block in asked.T:
        np.testing.assert_allclose(np.bincount(block) / len(asked), 0.25, atol=0.04)


def test_the_last_networks_are_listed_in_random_order(monkeypatch):
    monkeypatch.setattr(_unasked, "DRAWS", 1)  # the first known draw ends the drawing
    space = SearchSpace("small", SPACE.blocks[:5])
    orders = [RandomSearch(space, seed=seed).ask(2_000) for seed in (0, 1)]
    assert [len(set(order)) for order in orders] == [1024, 1024]
    first_half = np.array(orders[0][512:768])
    np.testing.assert_allclose(np.mean(first_half), 1.5, atol=0.15)
    assert orders[0][-20:] != orders[1][-20:]


def test_a_space_too_large_to_list_is_given_up_and_not_searched_forever(monkeypatch):
    monkeypatch.setattr(_unasked, "DRAWS", 50)
    blocks = tuple(ChoiceBlock(f"b{b}", tuple("abcd")) for b in range(40))
    one_network = SearchSpace("huge", blocks, canonical=lambda architecture: (0,) * 40)
    strategy = RandomSearch(one_network, seed=0)
    assert len(strategy.ask(5)) == 1
    assert strategy.ask(5) == []

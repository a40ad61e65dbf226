"""What is special about derivation sampling; what every strategy must do is in test_strategies.py."""

from __future__ import annotations

import numpy as np
import pytest

from raynas.config import check
from raynas.plan import build_strategy, make_plan
from raynas.seeds import generator
from raynas.space import ChoiceBlock, SearchSpace
from raynas.strategies.derivation_sampling import DerivationSampling
from search_spaces import darts_cell
from search_spaces.nas_bench_201 import SPACE


def test_what_is_derived_is_asked_for_first() -> None:
    weights = [generator(0, "weights", block).dirichlet(np.ones(5)) for block in range(6)]
    assert DerivationSampling(SPACE, seed=0, probabilities=weights).ask(1) == [SPACE.strongest(weights)]


@pytest.mark.parametrize("method", ["darts1", "darts2"])
def test_a_member_begins_with_the_cells_that_darts_derives_and_goes_on_with_such_cells(method: str) -> None:
    plan = make_plan(check({"space": {"name": "darts_cell"}, "members": [{"method": method}]}))
    weights = [generator(0, "weights", block).dirichlet(np.ones(8)) for block in range(28)]
    derived, *others = build_strategy(plan.members[0], plan.space, weights).ask(20)
    assert derived == plan.space.strongest(weights)
    for architecture in (derived, *others):
        for cell in darts_cell.genotype(architecture, darts_cell.edge_operations("darts")):
            assert [len(node) for node in cell] == [2, 2, 2, 2]


def test_samples_follow_the_distribution_where_the_strongest_choice_is_taken() -> None:
    space = SearchSpace("one", (ChoiceBlock("a", ("x", "y", "z")),))
    pi = np.array([0.2, 0.5, 0.3])
    strategy = DerivationSampling(space, seed=0, probabilities=[pi])
    drawn = np.bincount([strategy._sample()[0] for _ in range(3000)], minlength=3)
    assert (np.abs(drawn - 3000 * pi) < 5 * np.sqrt(3000 * pi * (1 - pi))).all()

"""Path sampling: distinct networks are equally likely, and fairness stays strict."""

from __future__ import annotations

import numpy as np
import pytest

from raynas import seeds
from raynas.errors import UserError
from raynas.path_sampling import PathSampling, Proposals, Sampling
from raynas.space import ChoiceBlock, SearchSpace
from raynas.training_rules.fair import fair_paths
from raynas.training_rules.uniform import single_paths
from search_spaces.nas_bench_macro import SPACE as MACRO
from tests.helpers import make_trainer, rule_plan

NETWORKS = 3_969


def drawn(sampling: Sampling, propose: Proposals, count: int, space: SearchSpace = MACRO) -> np.ndarray:
    """What so many steps train, shape (steps * paths, B)."""
    sampler = PathSampling(space, propose, sampling)
    rng = np.random.default_rng(0)
    return np.array([path for _ in range(count) for path in sampler.draw(rng)])


def chi_square(paths: np.ndarray) -> float:
    """Of the counts of the networks of NAS-Bench-Macro, against equal ones."""
    counts = np.unique(paths, axis=0, return_counts=True)[1]
    expected = len(paths) / NETWORKS
    return float(((counts - expected) ** 2).sum() / expected + (NETWORKS - len(counts)) * expected)


def test_distinct_draws_are_uniform_over_the_networks() -> None:
    spread = np.sqrt(2 * (NETWORKS - 1))
    paths = drawn("distinct", single_paths, 40_000)
    assert len(np.unique(paths, axis=0)) == NETWORKS
    assert abs(chi_square(paths) - (NETWORKS - 1)) < 5 * spread
    assert chi_square(drawn("canonical", single_paths, 40_000)) > NETWORKS + 50 * spread  # favours many keys


@pytest.mark.parametrize("propose", [single_paths, fair_paths])
def test_canonical_trains_the_canonical_forms_of_the_keys(propose: Proposals) -> None:
    keys, canonical = (drawn(sampling, propose, 50) for sampling in ("keys", "canonical"))  # type: ignore[arg-type]
    assert [MACRO.canonicalise(tuple(key)) for key in keys.tolist()] == [tuple(form) for form in canonical.tolist()]
    assert not np.array_equal(keys, canonical)


def test_distinct_fair_sets_take_every_choice_once_a_step_and_are_drawn_anew() -> None:
    sampler = PathSampling(MACRO, fair_paths, "distinct")
    sets = [sampler.draw(seeds.generator(0, "paths", step)) for step in range(50)]
    for paths in sets:
        assert all(sorted(column) == [0, 1, 2] for column in zip(*paths, strict=True))
        assert all(MACRO.canonicalise(path) == path for path in paths)
    assert len(set(sets)) == 50


@pytest.mark.parametrize("propose", [single_paths, fair_paths])
def test_a_draw_depends_on_its_generator_alone(propose: Proposals) -> None:
    used, fresh = (PathSampling(MACRO, propose, "distinct") for _ in range(2))
    for step in range(10):
        used.draw(seeds.generator(0, "paths", step))
    assert used.draw(seeds.generator(0, "paths", 20)) == fresh.draw(seeds.generator(0, "paths", 20))


def test_a_space_whose_keys_are_all_distinct_is_drawn_as_it_is() -> None:
    space = SearchSpace("all_distinct", tuple(ChoiceBlock(str(b), ("x", "y", "z")) for b in range(4)))
    assert np.array_equal(drawn("keys", fair_paths, 20, space), drawn("distinct", fair_paths, 20, space))


def test_a_space_that_accepts_next_to_nothing_is_refused_in_one_line() -> None:
    with pytest.raises(
        UserError, match=r'^members.random_search.rule_settings: .*got \d with nas_bench_201; take "canonical"'
    ):
        rule_plan("fair", sampling="distinct")
    with pytest.raises(UserError, match="'keys', 'canonical' or 'distinct'"):
        rule_plan("fair", sampling="unique")


@pytest.mark.parametrize("rule", ["uniform", "fair"])
def test_a_step_trains_canonical_forms(rule: str) -> None:
    trainer = make_trainer(rule, sampling="canonical")
    batch = trainer._batch("train", trainer.train)
    results = [
        trainer.rule.step(
            trainer.supernet,
            batch,
            None,
            loss=trainer._loss,
            rng=seeds.generator(0, step),
            number=step,
            group=trainer.group,
        )
        for step in range(4)
    ]
    space = trainer.rule.space  # type: ignore[attr-defined]
    assert all(space.canonicalise(path) == path for result in results for path in result.paths)

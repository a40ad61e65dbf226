"""Selection by perturbation: methods.md 4.5; what every rule must do is in test_training_rules.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raynas import seeds
from raynas.checkpoint import load_state, save_state
from raynas.derivations.mode import mode
from raynas.plan import build_strategy, make_plan
from raynas.replica_group import ReplicaGroup
from raynas.space import ChoiceBlock, SearchSpace
from raynas.storage import Folder
from raynas.supernet import Choices, Supernet
from raynas.trainer import Trainer
from raynas.training_rules.blank_pt import BlankPt
from raynas.training_rules.darts_pt import TUNING, DartsPt
from search_spaces import darts_cell
from search_spaces.darts_cell import EDGES
from tests.helpers import config_for, make_trainer, small_config

CPU = torch.device("cpu")


class Worth(Supernet):
    """Right where the sum of the choices' worths, by their weights, exceeds an image's threshold: nothing is learnt."""

    def __init__(self, worths: list[list[float]]) -> None:
        super().__init__()
        self.worths = [torch.tensor(of_choices) for of_choices in worths]

    def forward(self, images_NCHW: Tensor, architecture: Choices) -> Tensor:
        total = sum(weights @ worth for weights, worth in zip(architecture, self.worths, strict=True))  # type: ignore[operator]
        margin_N = total - images_NCHW
        return torch.stack([-margin_N, margin_N], dim=1)


class Images:
    """20,000 images with thresholds from 0 to 1, all of class 1: losing a worth w costs 20,000 w of them."""

    device = CPU

    def __len__(self) -> int:
        return 20_000

    def plain(self, rows: Any) -> tuple[Tensor, Tensor]:
        return torch.linspace(0, 1, len(self))[rows], torch.ones(len(rows), dtype=torch.long)


def test_a_choice_is_taken_for_what_its_absence_costs_and_not_for_the_size_of_its_alpha() -> None:
    space = SearchSpace("s", (ChoiceBlock("a", ("x", "y", "z")), ChoiceBlock("b", ("x", "y", "z"))))
    rule = DartsPt(space, seed=0, steps=2)
    rule.measure_on(Images(), batch_size=3000)  # type: ignore[arg-type]
    rule.alpha[0].data = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    weights = rule.alpha[0].detach().softmax(0).numpy()
    worths = [[0.2, 0.9, 0.0], [0.0, 0.1, 0.4]]
    assert weights[0] * 0.2 < weights[1] * 0.9 and weights[0] > weights[1]
    for _ in space.blocks:
        rule._select(Worth(worths), ReplicaGroup(), CPU)
        rule.selected += 1
    assert mode(rule.probabilities()) == rule.derived() == (1, 2)
    assert [w.tolist() for w in rule.mixture(CPU)] == [[0, 1, 0], [0, 0, 1]]


def test_what_is_left_of_a_masked_block_keeps_its_weights_and_fixed_blocks_stay_alone() -> None:
    trainer = make_trainer("darts_pt")
    rule = selecting(trainer)
    first, second = rule.order[:2]
    seen: list[list[Tensor]] = []
    plain = trainer.supernet.forward

    def spied(images_NCHW: Tensor, architecture: Any) -> Tensor:
        seen.append([weights.clone() for weights in architecture])
        return plain(images_NCHW, architecture)

    trainer.supernet.forward = spied  # type: ignore[method-assign]
    for _ in range(2):
        rule._select(trainer.view, ReplicaGroup(), CPU)
        rule.selected += 1
    pi = [values.detach().softmax(0).float() for values in rule.alpha]
    passes = len(seen) // 10
    assert passes == -(-len(trainer.validation) // 32)
    for index, weights in enumerate([*seen[:5], *seen[5 * passes : 5 * passes + 5]]):
        block = first if index < 5 else second
        expected = [values.clone() for values in pi]
        expected[block][index % 5] = 0
        if block == second:
            expected[first] = torch.eye(5)[rule.fixed[first].argmax()]
        assert all(torch.equal(a, b) for a, b in zip(weights, expected, strict=True))


def test_images_are_counted_as_the_mixture_gets_them_wrong() -> None:
    trainer = make_trainer("darts_pt", config_for("darts_pt", training={"batch_size": 64}))
    rule = selecting(trainer)
    mixtures = [rule.mixture(CPU), [torch.eye(5)[3] for _ in range(6)]]
    expected = [0, 0]
    with torch.no_grad():
        for rows in np.array_split(np.arange(len(trainer.validation)), -(-len(trainer.validation) // 64)):
            images_NCHW, labels_N = trainer.validation.plain(rows)
            expected[0] += int((trainer.supernet(images_NCHW, mixtures[0]).argmax(1) != labels_N).sum())
            expected[1] += int((trainer.supernet(images_NCHW, (3,) * 6).argmax(1) != labels_N).sum())
    with torch.no_grad():
        assert rule._wrong(trainer.view, mixtures, ReplicaGroup()).tolist() == expected


@pytest.mark.parametrize("name", ["darts_pt", "blank_pt"])
@pytest.mark.parametrize("steps", [12, 45])
def test_blocks_are_fixed_at_equal_distances_of_the_last_third_and_stay_as_they_are(name: str, steps: int) -> None:
    trainer = make_trainer(name, config_for(name, training={"steps": steps}))
    rule = trainer.rule
    assert isinstance(rule, DartsPt)
    counts, choices = [], dict[int, int]()
    for _ in range(steps):
        trainer.train_step()
        counts.append(len(rule.fixed))
        now = {block: int(shares.argmax()) for block, shares in rule.fixed.items()}
        assert choices.items() <= now.items()
        choices = now
    begin, left = steps * 2 // 3, steps // 3
    assert counts[:begin] == [0] * begin
    assert counts[begin:] == [-(-6 * (step + 1) // left) for step in range(left)] and counts[-1] == 6
    for block, shares in enumerate(rule.probabilities()):
        assert shares.sum() == pytest.approx(1) and (shares > 0).all() and shares.argmax() == choices[block]


def test_tuning_begins_without_moments_at_a_tenth_of_the_learning_rate_and_ends_near_zero() -> None:
    trainer = make_trainer("blank_pt", config_for("blank_pt", training={"steps": 30, "weight_decay": 0.0}))
    rates = []
    for step in range(30):
        before = [weight.detach().clone() for weight in trainer.supernet.parameters()]
        trainer.train_step()
        rates.append(trainer.optimizer.param_groups[0]["lr"])
        if step == 20:  # the first step of tuning: momentum has nothing to add to the gradient
            for weight, old in zip(trainer.supernet.parameters(), before, strict=True):
                if weight.grad is not None:
                    torch.testing.assert_close(old - weight, rates[-1] * weight.grad, atol=1e-7, rtol=1e-3)
    base = trainer.settings.learning_rate
    assert rates[:20] == [trainer.learning_rate(step) for step in range(20)]
    assert rates[20] == pytest.approx(TUNING * base) and rates[25] == pytest.approx(TUNING * base / 2)
    assert rates[29] < 0.03 * TUNING * base and trainer.curves == []


def test_a_blank_mixture_weighs_all_choices_alike_until_they_are_fixed() -> None:
    trainer = make_trainer("blank_pt")
    for _ in range(8):
        trainer.train_step()
        assert all(p.tolist() == [0.2] * 5 for p in trainer.rule.probabilities())
    assert isinstance(trainer.rule, BlankPt) and not trainer.rule.needs_validation


def test_every_node_of_the_darts_space_keeps_the_two_edges_whose_absence_costs_most() -> None:
    rule = BlankPt(darts_cell.SPACE, seed=0, steps=30)
    rule.measure_on(Images(), batch_size=20_000)  # type: ignore[arg-type]
    rng = seeds.generator(0, "worths")
    worths = rng.uniform(0, 0.035, size=(28, 8))
    worths[:, 0] = 0.1  # the best by far is `none`, which is no choice before edges are left out
    for _ in range(rule.rounds):
        rule._select(Worth(worths.tolist()), ReplicaGroup(), CPU)
        rule.selected += 1
        fixed = [int(shares.argmax()) for shares in rule.fixed.values()]
        assert 0 not in fixed or rule.selected == rule.rounds
    derived = rule.derived()
    assert derived == darts_cell.SPACE.strongest(rule.probabilities())
    found = [worths[block, choice] for block, choice in enumerate(derived)]
    for first in (0, len(EDGES)):
        for target in range(2, 6):
            into = [block for block, (_, node) in enumerate(EDGES, first) if node == target]
            kept = [block for block in into if derived[block] != 0]
            assert len(kept) == 2
            best = [max(worths[block, 1:]) for block in into]
            assert sorted(found[block] for block in kept) == pytest.approx(sorted(best)[-2:], abs=1e-3)
            for block in set(into) - set(kept):
                assert rule.probabilities()[block].tolist() == [1.0, *[0.0] * 7]


def test_none_may_be_selected_where_no_edge_is_left_out_otherwise() -> None:
    plan = make_plan(small_config(members=[{"method": "blank_pt"}]))
    shares = [np.array([0.6, 0.1, 0.1, 0.1, 0.1]) for _ in range(6)]
    assert mode(shares) == (0,) * 6 and plan.members[0].derivation == "mode"
    assert build_strategy(plan.members[0], plan.space, shares).ask(1) == [plan.space.strongest(shares)]


def test_selection_that_is_broken_off_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    undisturbed, first, resumed = (make_trainer("darts_pt") for _ in range(3))
    for _ in range(12):
        undisturbed.train_step()
    for _ in range(10):
        first.train_step()
    assert 0 < len(first.rule.fixed) < 6  # type: ignore[attr-defined]
    save_state(Folder(str(tmp_path)), "state", first.state_dict())
    resumed.load_state_dict(load_state(Folder(str(tmp_path)), "state"))
    for _ in range(2):
        resumed.train_step()
    states = undisturbed.supernet.state_dict(), resumed.supernet.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert [p.tolist() for p in undisturbed.rule.probabilities()] == [p.tolist() for p in resumed.rule.probabilities()]


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_selection_that_is_no_share_of_the_steps_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="0 < selection < 1"):
        DartsPt(darts_cell.SPACE, seed=0, steps=10, selection=share)


def selecting(trainer: Trainer) -> DartsPt:
    """The rule of a trainer that has trained a little."""
    trainer.train_step()
    assert isinstance(trainer.rule, DartsPt)
    return trainer.rule

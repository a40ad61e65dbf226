"""The sandwich rule: labels for the largest, its soft outputs for the others, one reduction a step."""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from raynas import seeds
from raynas.replica_group import ReplicaGroup
from raynas.space import ChoiceBlock, SearchSpace
from raynas.training_rules.sandwich import extremes
from tests.helpers import config_for, make_trainer


def test_largest_and_smallest_are_by_size() -> None:
    space = SearchSpace("s", (ChoiceBlock("a", ("x", "y", "z")), ChoiceBlock("b", ("u", "v"))))
    sizes = {(0, 0): 5, (1, 0): 9, (2, 0): 1, (0, 1): 5, (1, 1): 10, (2, 1): 1}
    assert extremes(space, sizes.__getitem__) == ((1, 1), (2, 1))  # of equal choices the last


def test_largest_and_smallest_of_real_spaces() -> None:
    cells = make_trainer("sandwich")
    cells.train_step()
    assert cells.rule.ends == ((3,) * 6, (4,) * 6)  # type: ignore[attr-defined]
    widths = make_trainer("sandwich", config_for("ordered_dropout"))
    widths.train_step()
    assert widths.rule.ends == ((7,) * 5, (0,) * 5)  # type: ignore[attr-defined]


def test_the_largest_learns_from_labels_and_the_others_from_its_detached_outputs() -> None:
    trainer = make_trainer("sandwich")
    batch = trainer._batch("train", trainer.train)
    result = trainer.rule.step(
        trainer.supernet,
        batch,
        None,
        loss=trainer._loss,
        rng=seeds.generator(0, "paths"),
        number=0,
        group=ReplicaGroup(),
    )
    found = {name: p.grad for name, p in trainer.supernet.named_parameters() if p.grad is not None}
    trainer.supernet.zero_grad(set_to_none=True)
    largest, *others = result.paths
    assert len(others) == 3
    logits_NK = trainer.supernet(batch.images_NCHW, largest)
    loss = trainer._loss(logits_NK, batch.labels_N)
    soft_NK = logits_NK.detach().softmax(1)
    for path in others:
        loss = loss + cross_entropy(trainer.supernet(batch.images_NCHW, path), soft_NK)
    loss.backward()
    expected = {name: p.grad for name, p in trainer.supernet.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def test_gradients_are_summed_locally_and_reduced_once_a_step() -> None:
    class Counting(ReplicaGroup):
        reductions = 0

        def sum_gradients(self, parameters: object) -> None:  # type: ignore[override]
            self.reductions += 1

        def sum(self, values: torch.Tensor) -> torch.Tensor:
            self.reductions += 1
            return values

    group = Counting()
    trainer = make_trainer("sandwich", None, group)
    for step in range(1, 3):
        trainer.train_step()
        assert group.reductions == step
